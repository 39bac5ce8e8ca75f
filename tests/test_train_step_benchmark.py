"""benchmarks/train_step.py: how a step's time is split; both decoders through the trainer, at a size for the CPU, lose the same; what was not measured."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))
import train_step as bench
import train_step_gpu as gpu

from training.model.spec import SPECS

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
DEBUG = SPECS["debug"]
TINY = gpu.Work(replace(DEBUG, decoder=replace(DEBUG.decoder, layers=1, state_dim=None)), (4, 6), windows=2)


def test_communication_is_taken_out_of_the_parts_that_it_lies_in() -> None:
    parts = [("data", (0.0, 1.0)), ("forward", (1.0, 4.0)), ("backward", (4.0, 9.0)), ("optimiser", (10.0, 11.0))]
    collectives = [(2.0, 2.5), (3.5, 4.5), (9.0, 9.75)]  # within the forward; over both; between parts
    found = bench.split(parts, collectives, 12.0)
    assert found == {"data": 1.0, "forward": 2.0, "backward": 4.5, "communication": 2.25, "optimiser": 1.0, "rest": 1.25}
    assert tuple(found) == bench.PARTS


def test_the_first_wait_of_a_later_epoch_counts() -> None:
    class Waits:
        """A trainer that has taken five steps when it begins its second epoch."""

        step, begun = 0, list[int]()

        def _taken(self, begun: int) -> Iterator[int]:
            self.begun.append(begun)
            for _ in range(5):
                self.step += 1
                yield self.step

    trainer = Waits()
    assert list(islice(bench.endless(trainer), 12)) == list(range(1, 13))
    assert trainer.begun == [0, 0, 0]  # only the wait for the very first batch, which the readers' start is part of, is left out


def test_figures() -> None:
    assert bench.figure(0.01, 0.02, most=True) == {"value": 0.01, "target": 0.02, "met": True}
    assert bench.figure(0.03, 0.02, most=True)["met"] is False
    assert bench.figure(0.46, 0.45)["met"] is True
    assert bench.figure(None, 0.45) == {"value": None, "target": 0.45, "met": None}


def test_both_decoders_learn_the_same_from_the_same_step(capsys: pytest.CaptureFixture[str]) -> None:
    """The GPU's code, on the CPU: ours and diffusers' masked one have the same loss on the same weights; without masks it is another function."""
    found = gpu.arms(TINY, "cpu", turns=1, compiled=False, compute="float32", same=True)
    mine, masked, unmasked = (found[name].loss for name in ("ours", "diffusers, masked", "diffusers, unmasked"))
    assert masked == pytest.approx(mine, rel=1e-5)
    assert abs(unmasked / mine - 1) > 1e-4
    told = gpu.figures(TINY, found, 1e12)
    assert {name: target for name, (_, target) in told.items()} == gpu.TARGETS
    assert told["gpu_14b_train_mfu"][0] == pytest.approx(TINY.flops / found["ours"].seconds / 1e12)
    assert told["gpu_14b_train_over_diffusers"][0] == pytest.approx(found["diffusers, masked"].seconds / found["ours"].seconds)
    assert "diffusers, unmasked" in capsys.readouterr().out


def test_without_diffusers_ours_is_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    told = gpu.figures(TINY, gpu.arms(TINY, "cpu", turns=1, compiled=False, compute="float32"), 1e12)
    assert told["gpu_14b_train_over_diffusers"] == (None, 1.3)
    assert told["gpu_14b_train_tokens_per_s"][0] is not None
    assert "it is not installed" in capsys.readouterr().out


def test_the_14b_windows_work_and_the_layers_that_fit() -> None:
    assert gpu.wide(1).tokens == 32_760
    assert gpu.wide(40).flops == pytest.approx(3 * 1439e12, rel=0.01)
    spec = gpu.wide(1).spec.decoder
    assert [gpu.fitting(spec, gib * 2**30, 32_760) for gib in (78, 139, 10_000)] == [7, 16, 40]
    with pytest.raises(ValueError, match="20 GB are free"):
        gpu.fitting(spec, 20e9, 32_760)


def test_without_a_gpu_the_last_line_says_null(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    bench.main(["--gpu-only"])
    *table, last = capsys.readouterr().out.splitlines()
    assert "GPU: not measured, this machine shows none" in table
    assert json.loads(last)["gpu_14b_train_mfu"] == {"value": None, "target": 0.45, "met": None}
    assert json.loads(last)["waits_decoder"] == {"value": None, "target": 0.02, "met": None}


def test_every_arm_is_measured_on_real_ranks() -> None:
    words = ["--steps", "2", "--warm", "1", "--clips", "4", "--batch", "1", "--workers", "0", "--phases", "decoder"]
    done = subprocess.run([sys.executable, str(BENCHMARKS / "train_step.py"), *words], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    figures = json.loads(done.stdout.splitlines()[-1])
    for ending in ("decoder", "decoder_shard", "decoder_sequence"):
        shares = [figures[f"waits_{ending}"]["value"], *(figures[f"{part}_{ending}"]["value"] for part in bench.PARTS[1:])]
        assert sum(shares) == pytest.approx(1.0, abs=0.2)  # the wait is the worst rank's, all else the mean
        assert all(-0.001 <= share <= 1 for share in shares)
        assert figures[f"step_s_{ending}"]["value"] > 0
    assert figures["communication_decoder"]["value"] == 0
    assert figures["communication_decoder_shard"]["value"] > 0
    assert figures["communication_decoder_sequence"]["value"] > 0


def test_wrong_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.arguments(["--steps", "0"])
    assert "--steps must be at least 1, got 0" in capsys.readouterr().err
