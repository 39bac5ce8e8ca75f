"""Train worker: what Ray Train runs on each worker: one rank's training, and how it ended, in a file."""

import json
import time
import traceback
from pathlib import Path
from typing import Any

from curation import whole

ENDING, FAULTS = "ending.json", "faults"


def worker(told: dict[str, Any]) -> None:
    """One rank, from plain settings; every rank gets the same.

    A fault that another attempt would meet again (the user's, or more faults than are allowed) is written down; the next attempt of the same start then ends at
    once instead of training. Any other is written down beside it, for the case that no attempt gets any further; a rank that is killed tells nothing.

    Args:
        told: start (an id of this start of the command), out, shards, model, settings, image (RGB array or None).
    """
    import ray.train
    import ray.train.torch

    from training.optim import OverBudget
    from training.run import Places, RunSettings, train

    out = Path(told["out"])
    if read_ending(out, told["start"]).get("fault"):
        return
    rank = ray.train.get_context().get_world_rank()
    (out / FAULTS / f"rank_{rank}.json").unlink(missing_ok=True)  # of an attempt before
    places = Places(shards=told["shards"], model=Path(told["model"]), out=out, image=told["image"])
    try:
        ending = train(places, RunSettings(**told["settings"]), device=str(ray.train.torch.get_device()), report=ray.train.report)
    except (ValueError, OverBudget) as error:
        write_ending(out, told["start"], fault=type(error).__name__, text=str(error))
        raise
    except (KeyboardInterrupt, SystemExit):
        raise  # it is told to stop
    except BaseException as error:  # some libraries' faults are no Exception
        write_fault(out, told["start"], rank, error)
        raise
    if rank == 0:
        write_ending(out, told["start"], ending=ending)


def write_ending(out: Path, start: str, **facts: str) -> None:
    """How a start of the command ended."""
    _write(out / ENDING, {"start": start, **facts})


def read_ending(out: Path, start: str) -> dict[str, str]:
    """What is known of this start's end; {} of one that has not ended."""
    file = out / ENDING
    told: dict[str, str] = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    return told if told.get("start") == start else {}


def write_fault(out: Path, start: str, rank: int, error: BaseException) -> None:
    """What this rank's own code met."""
    from torch import OutOfMemoryError

    kind = "memory" if isinstance(error, OutOfMemoryError) else "storage" if isinstance(error, OSError) else "bug"
    text = str(error) if kind != "bug" else f"{type(error).__name__}: {error}"
    told = "".join(traceback.format_exception(error))
    _write(out / FAULTS / f"rank_{rank}.json", {"start": start, "rank": str(rank), "kind": kind, "text": text, "traceback": told, "time_s": str(time.time())})


def read_faults(out: Path, start: str) -> dict[int, dict[str, str]]:
    """What each rank's own code met in its last attempt of this start, by rank."""
    found = [json.loads(file.read_text("utf-8")) for file in sorted((out / FAULTS).glob("rank_*.json"))]
    return {int(fault["rank"]): fault for fault in found if fault["start"] == start}


def _write(file: Path, facts: dict[str, str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    whole.write(file, json.dumps(facts))
