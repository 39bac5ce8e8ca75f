"""The block world's benchmark: its bounds without a model, all rows with one, and the last line's object."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from training.model.checkpoint import init_model, save_model
from training.model.spec import SPECS

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "blockworld.py"


def run(*arguments: str) -> tuple[list[str], dict[str, dict[str, object]]]:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--stories", "1", "--rounds", "2", *arguments], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    return lines, json.loads(lines[-1])


def test_the_bounds_are_measured_without_a_model() -> None:
    lines, figures = run("--tasks", "1")
    assert [line[:26].strip() for line in lines[2:4]] == ["true simulator", "copy of the first frame"]
    assert figures["fidelity_truth"] == {"value": 1.0, "target": 1.0, "met": True}
    assert figures["fidelity_step_1"] == {"value": None, "target": 0.95, "met": None}


def test_a_model_gets_its_rows(tmp_path: Path) -> None:
    save_model(tmp_path / "model", init_model(SPECS["debug"]))
    lines, figures = run("--model", str(tmp_path / "model"), "--tasks", "0", "--steps", "2")
    assert [line[:26].strip() for line in lines[4:6]] == ["the model", "the model, told nothing"]
    assert figures["fidelity_step_1"] == {"value": 0.0, "target": 0.95, "met": False}
    assert figures["fidelity_step_10"] == {"value": None, "target": 0.85, "met": None}
    assert figures["fidelity_copy"]["value"] == pytest.approx(0.0)
