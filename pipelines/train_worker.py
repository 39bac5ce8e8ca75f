"""Train worker: what Ray Train runs on each worker: one rank's training, and how it ended, in a file."""

import json
import os
import time
from pathlib import Path
from typing import Any

ENDING = "ending.json"


def worker(told: dict[str, Any]) -> None:
    """One rank, from plain settings; every rank gets the same.

    A fault that another attempt would meet again (the user's, or a training that diverges) is written down; the next attempt of the same start then ends at
    once instead of training.

    Args:
        told: start (an id of this start of the command), out, shards, model, settings, image (RGB array or None).
    """
    import ray.train
    import ray.train.torch

    from training.optim import TrainingDiverged
    from training.run import Places, RunSettings, train

    out = Path(told["out"])
    if read_ending(out, told["start"]).get("fault"):
        return
    places = Places(shards=told["shards"], model=Path(told["model"]), out=out, image=told["image"])
    try:
        ending = train(places, RunSettings(**told["settings"]), device=str(ray.train.torch.get_device()), report=ray.train.report)
    except (ValueError, TrainingDiverged) as error:
        write_ending(out, told["start"], fault=type(error).__name__, text=str(error))
        raise
    if ray.train.get_context().get_world_rank() == 0:
        write_ending(out, told["start"], ending=ending)


def write_ending(out: Path, start: str, **facts: str) -> None:
    """How a start of the command ended."""
    part = out / f".{ENDING}.{os.getpid()}.{time.monotonic_ns()}"
    out.mkdir(parents=True, exist_ok=True)
    part.write_text(json.dumps({"start": start, **facts}), "utf-8")
    os.replace(part, out / ENDING)


def read_ending(out: Path, start: str) -> dict[str, str]:
    """What is known of this start's end; {} of one that has not ended."""
    file = out / ENDING
    told: dict[str, str] = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    return told if told.get("start") == start else {}
