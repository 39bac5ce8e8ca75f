"""Snapshots: a run's checkpoints: sharded, written in the background, and there only once a marker, written last, says so.

step_00000120/    __0_0.distcp ...   every rank's shards, with .metadata: torch.distributed.checkpoint's own format
                  state.json         what else a run needs to go on: step, data cursor, guard, early stopping
                  COMMITTED          written last: each file's size and sha256, and the validation loss
"""

import hashlib
import json
import math
import os
import shutil
import warnings
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from curation import whole
from training.snapshot_faults import told_plainly

MARKER, STATE = "COMMITTED", "state.json"
_BLOCK = 1 << 22


@dataclass(frozen=True)
class Snapshot:
    """A committed checkpoint.

    Attributes:
        path: its folder.
        step: optimiser steps done.
        validation: the loss on held-out windows when it was written; None where none was measured.
    """

    path: Path
    step: int
    validation: float | None

    @property
    def state(self) -> dict[str, Any]:
        """state.json."""
        told: dict[str, Any] = json.loads((self.path / STATE).read_text("utf-8"))
        return told

    @property
    def tensors(self) -> frozenset[str]:
        """The names of what it holds."""
        from torch.distributed.checkpoint import FileSystemReader

        return frozenset(FileSystemReader(self.path).read_metadata().state_dict_metadata)


class Snapshots:
    """The checkpoints of one run in a folder that every rank can reach; the newest are kept, and the best.

    Args:
        folder: of all of them.
        keep_last: so many of the newest.
        group: a process group of all ranks that works on the CPU; None in a single process.
    """

    def __init__(self, folder: Path, *, keep_last: int = 2, group: Any = None) -> None:
        import torch.distributed as dist

        self.folder, self._keep, self._group = folder, keep_last, group
        self._first = group is None or dist.get_rank(group) == 0
        self._thread = ThreadPoolExecutor(1, "snapshots")
        self._pending: Future[None] | None = None
        if group is None:
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # a single process is meant

    def save(self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any], validation: float | None = None) -> None:
        """Copies the tensors and writes them in the background; waits only for the snapshot before. All ranks call it.

        Raises:
            OSError: the snapshot before could not be written. RuntimeError: another fault of torch's writer.
        """
        from torch.distributed.checkpoint import FileSystemWriter, async_save

        self.settle()
        path = self.folder / f"step_{step:08}"
        if self._first:
            shutil.rmtree(path, ignore_errors=True)  # what a killed run left there
            path.mkdir(parents=True)
            whole.write(path / STATE, json.dumps(state))
        self._together()
        with told_plainly(path, "written"):
            written = async_save(dict(tensors), storage_writer=FileSystemWriter(path, thread_count=1), process_group=self._group, no_dist=self._group is None)
        self._pending = self._thread.submit(self._finish, written, path, step, validation)

    def settle(self) -> None:
        """Waits until what is being written is committed.

        Raises:
            OSError: it could not be written. RuntimeError: another fault of torch's writer.
        """
        if self._pending is not None:
            self._pending.result()
            self._pending = None

    def sweep(self) -> None:
        """The first rank removes what has no marker: what a killed run left half, or a damaged one. For the start of a run, which alone holds the folder."""
        self.settle()
        for path in sorted(self.folder.glob("step_*")) if self._first else ():
            if path.is_dir() and not (path / MARKER).is_file():
                shutil.rmtree(path)

    def newest(self) -> Snapshot | None:
        """The newest whole snapshot, the same on every rank; a damaged one is passed over with a warning, and its marker taken away: it counts no more."""
        found = next((each for each in reversed(committed(self.folder)) if _kept(each)), None) if self._first else None
        told: Snapshot | None = self.agreed(found)
        return told

    def best(self) -> Snapshot | None:
        """The whole snapshot of the least validation loss, the same on every rank, once the first has committed what is being written; None: see `best`.

        A damaged one is passed over with a warning, and its marker taken away.
        """
        self.settle()
        left = committed(self.folder) if self._first else []
        while (found := best(left)) is not None and not _kept(found):
            left.remove(found)
        told: Snapshot | None = self.agreed(found)
        return told

    def agreed(self, value: Any) -> Any:
        """The first rank's value, on every rank."""
        import torch.distributed as dist

        told = [value]
        if self._group is not None:
            dist.broadcast_object_list(told, src=dist.get_global_rank(self._group, 0), group=self._group)
        return told[0]

    def load(self, snapshot: Snapshot, tensors: Mapping[str, Tensor]) -> None:
        """Fills `tensors`, sharded over any number of ranks, from a snapshot of any other number.

        Raises:
            ValueError: a tensor is not in it, or has another shape. OSError: a file cannot be read. RuntimeError: another fault of torch's reader.
        """
        from torch.distributed.checkpoint import FileSystemReader, load

        with told_plainly(snapshot.path, "read"):
            load(dict(tensors), storage_reader=FileSystemReader(snapshot.path), process_group=self._group, no_dist=self._group is None)

    def close(self) -> None:
        """Settles, and ends the thread."""
        self.settle()
        self._thread.shutdown()

    def _finish(self, written: Any, path: Path, step: int, validation: float | None) -> None:
        """In the thread: waits for all ranks' shards; the first rank then commits them, and removes what need not be kept."""
        with told_plainly(path, "written"):
            written.result()
        if self._first:
            commit(path, step, validation)
            prune(self.folder, self._keep)

    def _together(self) -> None:
        if self._group is not None:
            import torch.distributed as dist

            dist.barrier(group=self._group)


def committed(folder: Path) -> list[Snapshot]:
    """The snapshots with a marker, by step; one whose marker cannot be read is passed over with a warning."""
    told = []
    for marker in sorted(folder.glob(f"step_*/{MARKER}")):
        try:
            told.append((marker.parent, json.loads(marker.read_text("utf-8"))))
        except ValueError as error:
            warnings.warn(f"{marker} is no JSON ({error}): its snapshot is passed over", stacklevel=2)
    return sorted((Snapshot(path, facts["step"], facts["validation"]) for path, facts in told), key=lambda each: each.step)


def best(snapshots: list[Snapshot]) -> Snapshot | None:
    """The one with the least finite validation loss, of equals the newest; None where there is none. Left in, a NaN would stay the least for ever."""
    measured = [(each.validation, -each.step, each) for each in snapshots if each.validation is not None and math.isfinite(each.validation)]
    return min(measured, key=lambda entry: entry[:2])[2] if measured else None


def commit(path: Path, step: int, validation: float | None) -> None:
    """Writes the marker: from now on the snapshot is there."""
    files = {file.name: [file.stat().st_size, sha256(file)] for file in sorted(path.iterdir()) if file.is_file()}
    whole.write(path / MARKER, json.dumps({"format": 1, "step": step, "validation": validation, "files": files}))
    _sync(path)


def prune(folder: Path, keep_last: int) -> None:
    """Removes all but the newest committed snapshots and the best one; the marker goes first."""
    there = committed(folder)
    kept = {each.path for each in there[-keep_last:]} | {each.path for each in [best(there)] if each is not None}
    for each in there:
        if each.path not in kept:
            (each.path / MARKER).unlink()
            shutil.rmtree(each.path)


def sha256(file: Path) -> str:
    """Of a file's bytes, in hex."""
    found = hashlib.sha256()
    with file.open("rb") as source:
        while block := source.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


def _kept(snapshot: Snapshot) -> bool:
    """Whether it is whole; a damaged one loses its marker, lest `prune` keep it as the newest or the best and remove good ones."""
    if _whole(snapshot):
        return True
    (snapshot.path / MARKER).unlink()
    return False


def _whole(snapshot: Snapshot) -> bool:
    """Whether every file is there as it was committed; says what is not."""
    told = json.loads((snapshot.path / MARKER).read_text("utf-8"))["files"]
    for name, (size, digest) in told.items():
        file = snapshot.path / name
        if not file.is_file() or file.stat().st_size != size or sha256(file) != digest:
            warnings.warn(f"{file} is not as it was committed: the snapshot of step {snapshot.step} is passed over for the one before", stacklevel=4)
            return False
    return True


def _sync(folder: Path) -> None:
    """The folder's entries to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
