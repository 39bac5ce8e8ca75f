"""Seen: which samples each step learnt from, written down by every rank; what an attempt lost is told by the one that came after it."""

import json
from collections.abc import Sequence
from pathlib import Path

from training.parallel import World
from training.step import Batch


class Seen:
    """A rank's list, samples/rank_N.jsonl; of ranks that share a sequence the first one writes.

    Args:
        folder: of all ranks' lists.
    """

    def __init__(self, folder: Path, mesh: World) -> None:
        self._file = folder / f"rank_{mesh.data_rank}.jsonl"
        self._writes = mesh.rank % (mesh.ranks // mesh.data_ranks) == 0
        self._attempt = 0

    def begin(self, attempt: int) -> None:
        """A new attempt, whose number all ranks agree on; larger ones are later."""
        self._attempt = attempt
        self._file.parent.mkdir(parents=True, exist_ok=True)

    def told(self, step: int, batches: Sequence[Batch]) -> None:
        """A step's samples, before it learns from them."""
        if self._writes:
            keys = [key for batch in batches for key in learnt_from(batch)]
            line = json.dumps({"step": step, "attempt": self._attempt, "epoch": getattr(batches[0], "epoch", None), "keys": keys})
            with self._file.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


def learnt_from(batch: Batch) -> list[str]:
    """The keys of a batch's real samples: neither blanks nor such as failed their check."""
    real = batch.window.real_B
    return [key for number, key in enumerate(batch.keys) if key and (real is None or bool(real[number]))]


def read_seen(folder: Path) -> dict[int, list[str]]:
    """The samples that each step (1 is the first) of a run has learnt from, by all ranks; an attempt's lost steps are not among them."""
    texts = [text for file in sorted(folder.glob("rank_*.jsonl")) for text in file.read_text("utf-8").splitlines()]
    entries = [json.loads(text) for text in texts if text.endswith("}")]  # others were cut off when their writer was killed
    begun: dict[int, int] = {}
    for entry in entries:
        begun[entry["attempt"]] = min(entry["step"], begun.get(entry["attempt"], entry["step"]))
    found: dict[int, list[str]] = {}
    for entry in entries:
        if all(first > entry["step"] for attempt, first in begun.items() if attempt > entry["attempt"]):  # a later one, of more ranks, may end sooner
            found.setdefault(entry["step"], []).extend(entry["keys"])
    return dict(sorted(found.items()))
