"""The benchmark of the detectors' speed: its last line, and what a wrong argument says."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "detector_speed.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=280, check=False)


def test_the_last_line_holds_every_figure() -> None:
    done = run("--clips", "1", "--tower", "ViT-S-32-alt")
    assert done.returncode == 0, done.stderr[-3000:]
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["cpu_aesthetic_pictures_per_s"]["value"] > 0
    assert last["cpu_scene_text_pictures_per_s"]["value"] > 0
    assert last["gpu_aesthetic_pictures_per_s"] == {"value": None, "target": None, "met": None}


def test_a_wrong_argument_is_named() -> None:
    done = run("--batch", "0")
    assert done.returncode != 0
    assert "--batch at least 1" in done.stderr
