"""The benchmark of the learned stages: its last line, and what a wrong argument says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "learned_stages.py"
pytestmark = pytest.mark.timeout(600)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=580, check=False)


def test_the_last_line_holds_every_figure() -> None:
    done = run("--clips", "2", "--rounds", "1", "--no-ray")
    assert done.returncode == 0, done.stderr[-3000:]
    last = json.loads(done.stdout.splitlines()[-1])
    assert set(last) == {"engine_of_ideal", "actor_of_ideal", "actor_of_ideal_clock", "processor_of_ideal_clock", "prefix_shared", "gpu_tokens_per_s"}
    assert all(set(figure) == {"value", "target", "met"} for figure in last.values())
    assert last["prefix_shared"]["value"] > 0.3
    assert last["actor_of_ideal"] == {"value": None, "target": 0.9, "met": None}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["--clips", "0"], "--clips must be at least 1, got 0"), (["--model", "/nowhere"], "no model at /nowhere"), (["--dummy-7b"], "needs a GPU")],
)
def test_wrong_arguments_are_named(arguments: list[str], says: str) -> None:
    done = run(*arguments)
    assert done.returncode != 0
    assert says in done.stderr
