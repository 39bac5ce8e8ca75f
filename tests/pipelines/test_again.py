"""Again: the words of a command, as a shell would take them."""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import again

WORDS = ["pan", "curate", "my videos", "--out", "a b", "--set", "x=1", "--set", "y='z'", "--here", "--cpus", "2"]


def test_what_was_told_comes_back_and_what_was_not_does_not() -> None:
    told = {"--out": "a b", "--set": ["x=1", "y='z'"], "--here": True, "--dry-run": False, "--recipe": None, "--train": [], "--cpus": 2}
    assert again.words(["pan", "curate", "my videos"], told) == WORDS
    assert shlex.split(again.text(WORDS)) == WORDS


def test_only_while_a_command_runs_has_it_words() -> None:
    assert again.as_given() == []
    with again.given(["pan"]):
        assert again.as_given() == ["pan"]

    def fails() -> None:
        with again.given(["pan"]):
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert again.as_given() == []
    assert again.text([]) == "the same call"


HELD = """
import os, signal, sys
from pathlib import Path
from pipelines import recipe, run
from pipelines.exits import Exit

def work(counts):
    settings = recipe.load("local", [])
    with run.begin(sys.argv[1], settings, run.plan_of(settings, [])):
        os.kill(os.getpid(), signal.SIGTERM)
    return Exit.COMPLETE

run.guarded(work, sys.argv[1], ["pan", "curate", "v", "--out", sys.argv[1], "--recipe", "pan", "--set", "pack.val_share=0.1"])
"""


def test_a_run_that_is_told_to_stop_says_the_whole_command(tmp_path: Path) -> None:
    """With its recipe and settings: without them the output would refuse it."""
    out = str(tmp_path / "my out")
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", HELD, out], cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True, check=False)
    wanted = ["pan", "curate", "v", "--out", out, "--recipe", "pan", "--set", "pack.val_share=0.1"]
    assert done.returncode == 75, done.stderr
    record = json.loads((Path(out) / "_run" / "exit.json").read_text())
    assert shlex.split(record["resume_command"]) == wanted
    assert done.stderr.splitlines()[-1].endswith(f"{signal.SIGTERM.name}: nothing committed is lost. Resume with: {shlex.join(wanted)}")
