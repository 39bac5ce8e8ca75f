"""Left out: the samples that failed their check on any rank, and how many may before the run ends."""

from collections.abc import Mapping, Sequence
from typing import Any

from training.optim import OverBudget


class LeftOut:
    """Samples that were left out since this start of the run, by key, whatever rank met them; the same on every rank.

    Args:
        samples: of the split; None: there may be any number.
        most: the share of them that may be left out.
    """

    def __init__(self, samples: int | None = None, most: float = 1.0) -> None:
        self._samples, self._most = samples, most
        self._told: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._told)

    def untold(self, skipped: Mapping[str, str]) -> int:
        """How many of those that this rank has left out (key: what is wrong) the other ranks do not know of."""
        return len(skipped.keys() - self._told.keys())

    def add(self, skipped: Mapping[str, str], ranks: Sequence[Sequence[float]], group: Any = None) -> None:
        """Takes in what is new on any rank of a process group; all of them call it. A sample that several ranks met counts once.

        Args:
            skipped: on this rank. ranks: each rank's numbers, `untold` first; nothing goes between them where it is 0 on all.
        """
        import torch.distributed as dist

        if not any(row[0] for row in ranks):
            return
        told: list[Any] = [{key: why for key, why in skipped.items() if key not in self._told}]
        if group is not None:
            mine, told = told[0], [None] * len(ranks)
            dist.all_gather_object(told, mine, group=group)
        for each in told:
            self._told |= each

    def check(self) -> None:
        """Whether so many may be left out.

        Raises:
            OverBudget: they are more than the share that is allowed.
        """
        if self._samples is None or len(self) <= self._most * self._samples:
            return
        key, why = next(iter(sorted(self._told.items())))
        raise OverBudget(
            f"{len(self)} of {self._samples} samples failed their check and were left out, allowed is a share of {self._most:g} (data.max_skipped), {key} "
            f"among them: {why}. `pan verify` finds all of them: mend the shards, or raise data.max_skipped if a model of the rest is what you want"
        )
