"""The benchmark of stage costs: what an order of filters costs, the cheapest one, and a whole run on a made video."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.pipelines import conftest as made

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "stage_costs.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("stage_costs", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules["stage_costs"] = found
    spec.loader.exec_module(found)
    return found


def test_a_dear_filter_that_seldom_rejects_stands_last(bench: ModuleType) -> None:
    clips = list("abcd")
    dear = bench.Cost("dear", "detectors", seconds=dict.fromkeys(clips, 10.0), rejects={c: c == "a" for c in clips})
    cheap = bench.Cost("cheap", "rules", seconds=dict.fromkeys(clips, 1.0), rejects={c: c in "abc" for c in clips})
    assert bench.expected([(dear,), (cheap,)], clips) == pytest.approx(10 + 3 / 4)
    assert bench.expected([(cheap,), (dear,)], clips) == pytest.approx(1 + 10 / 4)
    assert bench.expected([(cheap, dear)], clips) == pytest.approx(11)  # one group: both always measure
    assert bench.best_order([(dear,), (cheap,)], clips) == [(cheap,), (dear,)]
    with pytest.raises(ValueError, match="8 groups"):
        bench.best_order([(dear,)] * 8, clips)


def test_a_run_measures_every_stage(tmp_path: Path) -> None:
    film = made.write(tmp_path / "a.mp4", made.acting(1, 2.7))
    done = subprocess.run([sys.executable, str(SCRIPT), str(film), "--tower", ""], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["clips"]["value"] == 1
    for stage in ("decoding_and_shots", "motion", "camera", "color", "quality", "scene_text", "content", "caption", "cut"):
        assert last[f"s_per_clip_{stage}"]["value"] > 0
    assert last["shipped_over_best_stage_order"]["value"] >= 1
    assert last["bottleneck_on_gpu"]["met"] is None


def test_too_short_a_video_is_named(tmp_path: Path) -> None:
    film = made.write(tmp_path / "short.mp4", made.acting(1, 0.5))
    done = subprocess.run([sys.executable, str(SCRIPT), str(film), "--tower", ""], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode != 0
    assert "no clip of a whole chunk in 1 videos" in done.stderr
