"""benchmarks/decoder_block.py on a tiny decoder: it compares what computes the same, counts in turns, and says what was not measured."""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))
import decoder_block as block


@pytest.fixture
def tiny() -> object:
    """Half a debug decoder, and three latent frames."""
    return replace(block.DEBUG, spec=replace(block.DEBUG.spec, layers=1), batch=1, frames=(1, 1, 1), rows=2)


def test_figures() -> None:
    assert block.figure(1.25, 1.2) == {"value": 1.25, "target": 1.2, "met": True}
    assert block.figure(1.1, 1.2)["met"] is False
    assert block.figure(None, 1.2) == {"value": None, "target": 1.2, "met": None}


def test_every_job_compares_like_with_like(tiny: object) -> None:
    """Each job is run, which fails where ours and diffusers' outputs differ by more than 1e-4; the window leaves a part of the work out."""
    jobs = {name: (target, flops, took) for name, target, flops, took in block.jobs("tiny", tiny, 2)}
    assert list(jobs) == ["tiny_dense_blocks", "tiny_dense_slice", "tiny_window_blocks", "tiny_window_slice"]
    assert [target for target, _, _ in jobs.values()] == [1.0, 1.0, 1.2, 1.2]
    assert all(len(took.ours) == len(took.theirs) == len(took.ratios) == 2 for _, _, took in jobs.values())


def test_what_differs_is_not_compared() -> None:
    with pytest.raises(SystemExit, match="nothing is compared"):
        block.in_turns(lambda: torch.ones(3), lambda: torch.tensor([1.0, 1.0, 1.01]), 1)


def test_the_median_is_of_the_turns() -> None:
    took = block.Took((1.0, 2.0, 4.0), (2.0, 2.0, 2.0))
    assert took.ratios == [2.0, 1.0, 0.5]
    assert "1.000" in block.line("a job", 1e9, took)


def test_the_last_line_names_what_was_not_measured(tiny: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(block, "DEBUG", tiny)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    before = torch.get_num_threads()
    block.main(["--no-wide", "--turns", "1"])
    torch.set_num_threads(before)
    *table, last = capsys.readouterr().out.splitlines()
    figures = json.loads(last)
    assert "GPU: not measured, this machine shows none" in table
    assert figures["gpu_prefix_dense_over_flex"] == {"value": None, "target": 1.3, "met": None}
    assert figures["wide_window_slice_ratio"] == {"value": None, "target": 1.2, "met": None}
    assert figures["debug_dense_blocks_ratio"]["met"] is not None


def test_without_diffusers_the_gpus_part_still_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    figures = block.on_cpu(block.arguments([]))
    assert "diffusers is not installed" in capsys.readouterr().out
    assert len(figures) == 8
    assert all(each["met"] is None for each in figures.values())


def test_wrong_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        block.arguments(["--turns", "0"])
    assert "--turns must be at least 1, got 0" in capsys.readouterr().err
