"""Reader: what a worker process does: it reads samples, holds them to the manifest, makes their windows, and of encoded ones the batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from curation.clips import ClipError
from curation.storage import Storage
from training.data.buckets import Size
from training.data.grid import place
from training.data.index import Usable
from training.data.parcel import Parcel, packed
from training.data.samples import BadSample, Kind, read_clip, read_encoded
from training.data.windows import Batch, Phase, Piece, batched, blank, of_clip, of_encoded
from training.diffusion.plan import WindowPlan
from training.model.spec import ModelSpec

Pick = tuple[int, int, Size]
"""(epoch, number of the sample or -1 for a blank, bucket)."""


@dataclass(frozen=True)
class Reader:
    """What a worker process does: a pick to a piece. It pickles.

    Attributes:
        samples: of the index; the picks' numbers count them.
        window: chunks of a window.
        last: the chunk where a window may begin at the latest.
    """

    store: Storage
    kind: Kind
    samples: tuple[Usable, ...]
    spec: ModelSpec
    phase: Phase
    plan: WindowPlan
    seed: int
    last: int | None
    dtype: torch.dtype

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, pick: Pick) -> Piece:
        epoch, number, size = pick
        window = self.plan.chunks
        if number < 0:
            return blank(size, window, self.phase, self.spec, self.dtype)
        sample = self.samples[number]
        entry = sample.entry
        at = place(entry.key, sample.chunks, window, self.plan.first_share, self.seed, epoch, self.last)
        try:
            if self.kind == "clips":
                return of_clip(read_clip(self.store, entry), size, at, self.phase, self.spec)
            return of_encoded(entry.key, *read_encoded(self.store, entry, self.phase == "joint"), at, self.phase, self.spec)
        except BadSample as error:
            wrong = str(error)
        except ClipError as error:
            wrong = str(entry.bad(str(error)))
        return blank(size, window, self.phase, self.spec, self.dtype, wrong, entry.key)


@dataclass(frozen=True)
class Handed:
    """What a worker process hands over for a step.

    Attributes:
        batch: of encoded samples, but for the epoch and the empty text, which need not travel; None of clips.
        pieces: of clips, which the process that has the model encodes; empty of encoded samples.
        wrong: by key, why a sample could not be read; a blank is in its place.
    """

    batch: Batch | None
    pieces: tuple[Piece, ...]
    wrong: Mapping[str, str]


@dataclass(frozen=True)
class Collator:
    """Makes a step's pieces one parcel, in the worker process: what is done here the training does not wait for. It pickles."""

    kind: Kind
    spec: ModelSpec
    null_ND: Tensor

    def __call__(self, parts: Sequence[Piece]) -> Parcel:
        wrong = {part.key: part.wrong for part in parts if part.wrong}
        if self.kind == "clips":
            return packed(Handed(None, tuple(parts), wrong))
        made = batched(parts, self.null_ND, self.spec, 0)
        return packed(Handed(replace(made, window=replace(made.window, null_ND=None)), (), wrong))
