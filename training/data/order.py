"""Order: which sample comes when, as a pure function of seed and epoch; and the cursor, exact whatever the number of workers was or will be."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def drawn(*what: object) -> int:
    """64 bits that depend on `what` alone: the same on every machine and in every version, as random generators are not."""
    return int.from_bytes(hashlib.sha256("|".join(map(str, what)).encode()).digest()[:8], "big")


def shuffled(keys: Sequence[str], seed: int, epoch: int) -> Ints:
    """The numbers of `keys` in an epoch's order; that of the keys' set, not of how they are listed."""
    places = [(drawn(seed, epoch, key), key) for key in keys]
    return np.array(sorted(range(len(keys)), key=places.__getitem__), dtype=np.int64)


def steps(order: Ints, buckets: Ints, size: int) -> list[Ints]:
    """`order` cut into steps of `size` samples of one bucket each.

    A step is due as soon as its last sample is reached, so that buckets mix as the samples do; what does not fill a step comes at the end, in
    one smaller step a bucket. Taking the first steps away and cutting what remains gives the steps that remain.

    Args:
        order: samples' numbers, each once.
        buckets: each sample's bucket, by its number.
        size: samples a step, of all ranks together.
    """
    of = buckets[order]
    due: list[tuple[int, int, Ints]] = []
    for bucket in np.unique(of).tolist():
        at = np.flatnonzero(of == bucket)
        for start in range(0, len(at), size):
            part = at[start : start + size]
            due.append((int(part[-1]) if len(part) == size else len(order), bucket, order[part]))
    due.sort(key=lambda step: step[:2])
    return [members for _, _, members in due]


@dataclass(frozen=True)
class Cursor:
    """How far an epoch has come.

    Attributes:
        epoch: 0 is the first.
        taken: (samples a step, steps) in the order they were taken: another size begins where the number of workers, or their batch, changed.
    """

    epoch: int = 0
    taken: tuple[tuple[int, int], ...] = ()

    def after(self, size: int) -> "Cursor":
        """One step of `size` samples later."""
        if self.taken and self.taken[-1][0] == size:
            return replace(self, taken=(*self.taken[:-1], (size, self.taken[-1][1] + 1)))
        return replace(self, taken=(*self.taken, (size, 1)))

    def left(self, order: Ints, buckets: Ints) -> Ints:
        """What remains of the epoch's `order`."""
        for size, count in self.taken:
            gone = steps(order, buckets, size)[:count]
            if gone:
                order = order[~np.isin(order, np.concatenate(gone))]
        return order

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return {"epoch": self.epoch, "taken": [list(run) for run in self.taken]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Cursor":
        """The inverse of `to_dict`."""
        return cls(int(data["epoch"]), tuple((int(size), int(count)) for size, count in data["taken"]))


def share(members: Ints, rank: int, ranks: int) -> Ints:
    """A data rank's samples of a step: every rank gets as many as any other, or one less where the step is not full."""
    return members[rank::ranks]
