"""Loader: batches of windows in an order that seed and epoch decide, decoded ahead in worker processes, and resumed exactly."""

import hashlib
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from curation.storage import Storage
from training.data.ahead import Ahead
from training.data.encoder import as_video
from training.data.index import Index
from training.data.latent_pack import null_of
from training.data.order import Cursor, Ints, share, shuffled, steps
from training.data.parcel import unpacked
from training.data.reader import Collator, Handed, Pick, Reader
from training.data.samples import BadSample
from training.data.windows import Batch, Phase, Piece, batched
from training.diffusion.plan import WindowPlan
from training.model.glp import GLP
from training.model.plain import must
from training.model.spec import ModelSpec
from training.model.text import padded


@dataclass(frozen=True)
class Waiting:
    """How long the training waited for data.

    Attributes:
        first_s: for the first batch, which the workers' start is part of; counted in nothing else.
        waited_s: for all later ones. elapsed_s: between the first batch and the last, in all.
        batches: how many were handed over.
    """

    first_s: float = 0.0
    waited_s: float = 0.0
    elapsed_s: float = 0.0
    batches: int = 0

    @property
    def share(self) -> float:
        """Of the time behind the first batch, what was spent waiting; 0 before there is a second."""
        return self.waited_s / self.elapsed_s if self.elapsed_s else 0.0


class Loader:
    """Iterates the batches of one rank: `for batch in loader` gives the rest of an epoch, the next loop the next epoch.

    Every sample of the split that the model can use comes exactly once an epoch, in whatever world; all ranks take as many steps, with as many windows each:
    where samples run out, blanks fill up (`Batch.real_B`). An epoch shows one window of each sample, at a place that seed, epoch and key decide.

    Args:
        folder: of `pan encode`, or of `pan curate` (then each window is encoded when its turn comes, by `encoder`).
        spec: the model.
        phase: "joint" gives dialogues too.
        batch: windows a step of each data rank.
        rank, world: of this process among all.
        sequence_ranks: so many neighbouring ranks work on the same sequence, and get the same samples.
        workers: processes that read and decode ahead; 0 = in this process, when asked.
        plan: the windows; by default the model's own.
        encoder: the model, for raw shards.
        max_context: latent frames of a clip that may lie before a window at most; 30 imitates PAN's padding of up to 122 frames. None: any.
        bad: a sample that fails its check stops the run, or is left out and counted in `skipped`.
        ahead: batches that each worker prepares in advance.
        most: so many samples and no more, which the seed alone chooses; None: all.

    Attributes:
        index: the samples, and how many are unfit and why.
        skipped: by key, what was wrong with samples that this rank has left out.

    Raises:
        ValueError: nothing that this model can use is published there; ranks that do not divide; raw shards without an encoder.
        BadSample: (while it iterates) a sample is not what the manifest says; the text names shard and key.

    Source: reliability rules of data loading: R-1.14; PAN (arXiv 2511.09057v3) 3.3.4 for context.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | Storage,
        spec: ModelSpec,
        *,
        phase: Phase,
        batch: int,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        sequence_ranks: int = 1,
        workers: int = 1,
        split: str = "train",
        plan: WindowPlan | None = None,
        encoder: GLP | None = None,
        max_context: int | None = None,
        bad: Literal["stop", "skip"] = "stop",
        ahead: int = 2,
        most: int | None = None,
    ) -> None:
        must(batch > 0 and 0 <= rank < world, f"loader: batch {batch}, rank {rank} of {world}; batch must be positive, and rank below world")
        must(world % sequence_ranks == 0, f"loader: {world} ranks are no multiple of {sequence_ranks} that share a sequence; change one of them")
        must(spec.chunks.cond_latents == 1, f"model {spec.name}: {spec.chunks.cond_latents} condition frames; windows of shards begin behind one")
        self.plan, self.spec = plan or spec.plan, spec
        self.index = Index.read(folder, spec, split, self.plan.chunks)
        must(self.index.kind == "latents" or encoder is not None, f"{folder} holds clips: give the model as `encoder`, or encode them once with `pan encode`")
        blind = self.index.kind == "latents" and not self.index.manifest["encoder"]["settings"]["vision"]
        must(phase == "decoder" or not blind, f"{folder} was encoded without what the vision tower sees; for the joint phase encode with encode.vision=true")
        self.batch, self.seed, self.skipped, self.waiting = batch, seed, dict[str, str](), Waiting()
        self._data_rank, self._data_ranks = rank // sequence_ranks, world // sequence_ranks
        self._workers, self._ahead, self._stop, self._encoder = workers, ahead, bad == "stop", encoder
        last = None if max_context is None else max_context // spec.chunks.chunk_latents
        self._null_ND, dtype = self._null()
        samples = tuple(self.index.samples[n] for n in sorted(shuffled([sample.entry.key for sample in self.index.samples], seed, 0)[:most]))
        self._reader = Reader(self.index.store, self.index.kind, samples, spec, phase, self.plan, seed, last, dtype)
        self._samples, self._keys = samples, [sample.entry.key for sample in samples]
        self._sizes = sorted({sample.size for sample in samples})
        self._buckets = np.array([self._sizes.index(sample.size) for sample in samples], dtype=np.int64)
        self._cursor, self._begun_s, self._orders = Cursor(), 0.0, dict[int, Ints]()
        self._stream: Iterator[Handed] | Ahead[Handed] | None = None
        self._after: deque[tuple[int, Cursor]] = deque()

    @property
    def epoch(self) -> int:
        """Of the batch that comes next; 0 is the first."""
        return self._cursor.epoch

    @property
    def position(self) -> int:
        """Samples of the epoch that were handed over, on all ranks together."""
        return len(self._keys) - len(self._left(self._cursor))

    @property
    def epoch_steps(self) -> int:
        """Batches of a whole epoch in this world, the same on every rank."""
        return sum(-(-count // self._size) for count in np.bincount(self._buckets).tolist())

    @property
    def waited_s(self) -> float:
        """Seconds that the training waited for data, the first batch included."""
        return self.waiting.first_s + self.waiting.waited_s

    def __len__(self) -> int:
        """Steps left in the epoch, the same on every rank."""
        return len(steps(self._left(self._cursor), self._buckets, self._size))

    def __iter__(self) -> Iterator[Batch]:
        epoch = self._cursor.epoch
        while self._cursor.epoch == epoch:
            yield self._next()

    def state_dict(self) -> dict[str, Any]:
        """Where the training stands, for a checkpoint: of every rank the same, and of any world. It counts what was handed over, not what is prepared."""
        return {"seed": self.seed, "samples": self._fingerprint(), "position": self.position, **self._cursor.to_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on behind the last batch that `state` counts, in this loader's world and batch.

        Raises:
            ValueError: the state is of other samples, or of another seed: its order is not this one.
        """
        for what, mine in (("samples", self._fingerprint()), ("seed", self.seed)):
            must(state.get(what) == mine, f"loader: the checkpoint's {what} are {state.get(what)}, here they are {mine}; resume on the same shards and seed")
        self.close()
        self._cursor = Cursor.from_dict(state)

    def close(self) -> None:
        """Ends the worker processes; the next batch starts new ones."""
        if isinstance(self._stream, Ahead):
            self._stream.close()
        self._stream = None
        self._after.clear()

    @property
    def _size(self) -> int:
        return self.batch * self._data_ranks

    def _left(self, cursor: Cursor) -> Ints:
        if cursor.epoch not in self._orders:
            self._orders = {epoch: order for epoch, order in self._orders.items() if epoch + 1 == cursor.epoch}
            self._orders[cursor.epoch] = shuffled(self._keys, self.seed, cursor.epoch)
        return cursor.left(self._orders[cursor.epoch], self._buckets)

    def _fingerprint(self) -> str:
        told = hashlib.sha256()
        for sample in self._samples:
            told.update(f"{sample.entry.key} {sample.chunks} {sample.size} {sorted(sample.entry.seals.items())}\n".encode())
        return told.hexdigest()[:16]

    def _walk(self) -> Iterator[list[Pick]]:
        """This rank's picks from the cursor on, for ever; `_after` holds where the cursor stands behind each."""
        cursor = self._cursor
        while True:
            epoch, cut = cursor.epoch, steps(self._left(cursor), self._buckets, self._size)
            for number, members in enumerate(cut):
                cursor = cursor.after(self._size)
                self._after.append((epoch, Cursor(epoch + 1) if number == len(cut) - 1 else cursor))
                size = self._sizes[self._buckets[members[0]]]
                mine = share(members, self._data_rank, self._data_ranks).tolist()
                yield [(epoch, sample, size) for sample in [*mine, *[-1] * (self.batch - len(mine))]]
            cursor = Cursor(epoch + 1)

    def _open(self) -> Iterator[Handed] | Ahead[Handed]:
        """The stream of steps: read and batched in other processes, in order, and unpacked by the thread that receives them.

        The thread, not the training, since whoever unpacks while the thread receives waits for Python's lock at each tensor.
        """
        from torch.utils.data import DataLoader

        ahead = {"multiprocessing_context": "spawn", "prefetch_factor": self._ahead} if self._workers else {}
        collate = Collator(self.index.kind, self.spec, self._null_ND)
        others = set(active_children())
        handed = map(unpacked, iter(DataLoader(self._reader, batch_sampler=_Walk(self), num_workers=self._workers, collate_fn=collate, **ahead)))
        started = [child for child in active_children() if child not in others]
        return Ahead(handed, lambda: _fallen(started)) if self._workers else handed

    def _next(self) -> Batch:
        began = time.monotonic()
        if self._stream is None:
            self._stream = self._open()
        handed = next(self._stream)
        epoch, cursor = self._after.popleft()
        if handed.wrong and self._stop:
            self.close()
            what = next(iter(handed.wrong.values()))
            raise BadSample(f"{what}. `pan verify` finds all such faults; with `--set data.bad=skip` the training leaves such samples out and counts them")
        self.skipped |= handed.wrong
        made = self._finished(handed, epoch)
        self._cursor = cursor
        self._count(began)
        return made

    def _finished(self, handed: Handed, epoch: int) -> Batch:
        """The batch, with what did not travel."""
        if handed.batch is None:
            return batched([self._encoded(part) for part in handed.pieces], self._null_ND, self.spec, epoch)
        return replace(handed.batch, window=replace(handed.batch.window, null_ND=self._null_ND), epoch=epoch)

    def _count(self, began: float) -> None:
        now, was = time.monotonic(), self.waiting
        if not was.batches:
            self._begun_s = now
            self.waiting = Waiting(first_s=now - began, batches=1)
        else:
            self.waiting = Waiting(was.first_s, was.waited_s + now - began, now - self._begun_s, was.batches + 1)

    def _encoded(self, part: Piece) -> Piece:
        """A raw piece with its latents and texts."""
        if part.frames_THWC is None:
            return part
        assert self._encoder is not None
        video = as_video(part.frames_THWC.numpy(), next(self._encoder.parameters()).device)
        latents = self._encoder.encode(video)[0, :, part.place.latents(self.spec.chunks)]
        texts = tuple(self._encoder.encode_text([action])[0].to(latents) for action in part.actions)
        return replace(part, latents_CFHW=latents, texts=texts, frames_THWC=None)

    def _null(self) -> tuple[Tensor, torch.dtype]:
        """The empty text, padded, and the dtype of latents."""
        if self._encoder is not None and self.index.kind == "clips":
            return self._encoder.encode_text([""])[0], torch.float32
        from safetensors.torch import load

        text = load(null_of(self.index.store, self.index.manifest))["text"]
        return padded([text], self.spec.text.tokens)[0], text.dtype


def _fallen(workers: Sequence[BaseProcess]) -> str | None:
    """What to say of a worker that is no more; they live as long as the loader."""
    gone = [worker for worker in workers if worker.exitcode is not None]
    if not gone:
        return None
    return (
        f"loader: data worker {gone[0].pid} ended with exit code {gone[0].exitcode} (minus a signal: -9 is usually the system's answer to too little memory); "
        "run again to go on at the last checkpoint, with fewer data workers or smaller batches if memory was short"
    )


class _Walk:
    """The loader's picks, as torch's loader asks for them."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[list[Pick]]:
        return self._loader._walk()
