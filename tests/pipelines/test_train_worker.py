"""What a rank of a Ray run leaves behind when it fails, and what the driver makes of it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipelines.train import own_fault
from pipelines.train_worker import read_ending, read_faults, worker
from training.optim import OverBudget, TrainingDiverged


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a rank is told, where Ray says that it is the first."""
    monkeypatch.setattr("ray.train.get_context", lambda: SimpleNamespace(get_world_rank=lambda: 0))
    monkeypatch.setattr("ray.train.torch.get_device", lambda: "cpu")
    return {"out": str(tmp_path), "shards": "s", "model": "m", "image": None, "settings": {}, "start": "1-1"}


def training(monkeypatch: pytest.MonkeyPatch, outcome: BaseException | str) -> list[int]:
    """Puts `outcome` in place of the training; the list grows with each attempt."""
    tried: list[int] = []

    def train(*args: object, **options: object) -> str:
        tried.append(1)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    monkeypatch.setattr("training.run.train", train)
    return tried


@pytest.mark.parametrize("fault", [ValueError("the user's"), TrainingDiverged("ten bad steps"), OverBudget("too many left out")])
def test_what_another_attempt_would_meet_again_is_tried_once(told: dict[str, Any], monkeypatch: pytest.MonkeyPatch, fault: Exception) -> None:
    tried = training(monkeypatch, fault)
    with pytest.raises(type(fault)):
        worker(told)
    worker(told)
    assert len(tried) == 1
    assert read_ending(Path(told["out"]), "1-1") == {"start": "1-1", "fault": type(fault).__name__, "text": str(fault)}
    with pytest.raises(type(fault)):
        worker(told | {"start": "2-2"})  # the command was given again
    assert len(tried) == 2


def test_any_other_fault_is_tried_again_and_kept_until_an_attempt_begins(told: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    tried, out = training(monkeypatch, ZeroDivisionError("ours")), Path(told["out"])
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            worker(told)
    assert len(tried) == 2
    fault = read_faults(out, "1-1")[0]
    assert (fault["kind"], fault["text"]) == ("bug", "ZeroDivisionError: ours")
    assert "in train" in fault["traceback"]
    assert read_faults(out, "2-2") == {}
    training(monkeypatch, "the end")
    worker(told)
    assert read_faults(out, "1-1") == {}
    assert read_ending(out, "1-1") == {"start": "1-1", "ending": "the end"}


def test_a_fault_that_is_no_exception_is_written_down_and_a_stop_is_none(told: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    class Severe(BaseException):
        """As torch.distributed.checkpoint's own."""

    for stop in (KeyboardInterrupt, SystemExit):
        training(monkeypatch, stop())
        with pytest.raises(stop):
            worker(told)
    assert read_faults(Path(told["out"]), "1-1") == {}
    training(monkeypatch, Severe("ours"))
    with pytest.raises(Severe):
        worker(told)
    with pytest.raises(RuntimeError, match="each time that it was tried: Severe: ours"):
        own_fault(Path(told["out"]), "1-1", [0])


@pytest.mark.parametrize(
    ("fault", "found", "text"),
    [
        (OSError(28, "No space left"), OSError, "No space left"),
        (torch.OutOfMemoryError("CUDA out of memory."), ValueError, r"CUDA out of memory\. Lower loop\.batch"),
        (ZeroDivisionError("ours"), RuntimeError, r"(?s)each time that it was tried: ZeroDivisionError: ours\nTraceback.*in train"),
    ],
)
def test_a_fault_of_the_workers_own_code_is_not_called_a_lost_worker(
    told: dict[str, Any], monkeypatch: pytest.MonkeyPatch, fault: Exception, found: type[Exception], text: str
) -> None:
    training(monkeypatch, fault)
    with pytest.raises(type(fault)):
        worker(told)
    out = Path(told["out"])
    with pytest.raises(found, match=text):
        own_fault(out, "1-1", [0])
    own_fault(out, "1-1", [0, 1])  # the second rank was killed: it has told nothing, and what the first met may be its absence
    own_fault(out, "2-2", [0])
    own_fault(out, "1-1", [])
