"""The benchmarks on tiny inputs that the tests make: the last line's object, the figures' definitions, and what a wrong argument says."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def module() -> Callable[[str], ModuleType]:
    """Imports a benchmark's file by its name."""

    def load(name: str) -> ModuleType:
        if str(BENCHMARKS) not in sys.path:
            sys.path.append(str(BENCHMARKS))
        if name in sys.modules:
            return sys.modules[name]
        spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        found = importlib.util.module_from_spec(spec)
        sys.modules[name] = found
        spec.loader.exec_module(found)
        return found

    return load


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(BENCHMARKS / script), *arguments], capture_output=True, text=True, timeout=240, check=False)


def write_video(path: Path, frames: int = 90, fps: int = 30) -> Path:
    """Two shots of noise that moves, 160 x 120."""
    rng = np.random.default_rng(3)
    scenes = rng.integers(0, 255, (2, 120, 160 + frames, 3), np.uint8)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=fps, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for i in range(frames):
            picture = np.ascontiguousarray(scenes[i * 2 // frames][:, i : i + 160])
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, fps)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def label(**changes: Any) -> dict[str, Any]:
    """A labelled video of 10 s at 30 fps: a good shot, a cut at 150, a static shot."""
    shot = {"start_s": 0.0, "end_s": 149 / 30, "start_frame": 0, "end_frame": 149, "keep": "yes", "reject_reasons": [], "measured": {}}
    into = {"type": "start", "gradual": False, "span": None}
    cut = {"type": "cut", "gradual": False, "span": None}
    second = {"start_s": 5.0, "end_s": 299 / 30, "start_frame": 150, "end_frame": 299, "keep": "no", "reject_reasons": ["static"], "measured": {}}
    shots = [{**shot, "transition_in": into}, {**second, "transition_in": cut}]
    return {"id": "v1", "avg_rate": "30", "n_frames": 300, "duration_s": 10.0, "shots": shots, "ambiguous_boundaries": [], **changes}


def clip(start_s: float, end_s: float) -> dict[str, Any]:
    return {"id": "v1", "start_s": start_s, "end_s": end_s}


@pytest.mark.slow
def test_curation_speed_ends_with_one_json_object(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4")
    done = run("curation_speed.py", str(video), "--repeats", "1", "--minutes", "0.1", "--no-peer", "--folder", str(tmp_path))
    assert done.returncode == 0, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["cpu_over_bare_decode"]["target"] == 2.0
    assert last["decoded_per_source_frame"] == {"value": 1.0, "target": 1.0, "met": True}
    assert last["peak_mb_0.1min"]["value"] > 50
    assert last["juicer_like_for_like"] == {"value": None, "target": 5.0, "met": None}
    assert all(set(figure) == {"value", "target", "met"} for figure in last.values())
    assert not (tmp_path / "looped-0.1min.mp4").exists()


@pytest.mark.parametrize(
    ("script", "arguments", "says"),
    [
        ("curation_speed.py", ["nowhere.mp4"], "no such file: nowhere.mp4"),
        ("curation_speed.py", ["--repeats", "0"], "--repeats must be at least 1, got 0"),
        ("curation_quality.py", ["nowhere/labels.jsonl"], "no labels at nowhere/labels.jsonl"),
    ],
)
def test_wrong_arguments_are_named(script: str, arguments: list[str], says: str) -> None:
    done = run(script, *arguments)
    assert done.returncode == 2
    assert says in done.stderr


def test_looped_video_has_every_frame_as_often(tmp_path: Path, module: Callable[[str], ModuleType]) -> None:
    videos = module("speed_videos")
    source = write_video(tmp_path / "v.mp4", frames=30)
    assert videos.loop(source, tmp_path / "long.mp4", 4.0) == pytest.approx(4.0)
    with av.open(str(tmp_path / "long.mp4")) as container:
        times = [float(frame.time) for frame in container.decode(video=0)]
    assert times == pytest.approx([i / 30 for i in range(120)], abs=1e-3)


def test_made_up_shots_move(module: Callable[[str], ModuleType]) -> None:
    first, second = (next(iter([list(shot)[:2] for shot in module("speed_videos").made_up(1, 0.1)])) for _ in range(2))
    assert first[0].shape == (720, 1280, 3)
    assert np.abs(first[0].astype(int) - first[1].astype(int)).mean() > 1
    assert (first[0] == second[0]).all()


def test_boundaries_are_counted_by_the_rules_of_the_labels(module: Callable[[str], ModuleType]) -> None:
    figures = module("quality_figures").boundary_figures
    assert figures([label()], {"v1": [152]})["hard_f1"] == 1.0  # within two frames
    assert figures([label()], {"v1": [153]})["hard_f1"] == 0.0
    assert figures([label(ambiguous_boundaries=[40])], {"v1": [150, 40]})["false"] == 0
    assert figures([label()], {"v1": [150, 40]})["hard_f1"] == pytest.approx(2 / 3)
    dissolve = label()
    dissolve["shots"][1]["transition_in"] = {"type": "dissolve", "gradual": True, "span": [140, 160]}
    assert figures([dissolve], {"v1": [[139, 141], 160]}) | {} == figures([dissolve], {"v1": [[139, 160]]})  # both ends: not wrong twice
    assert figures([dissolve], {"v1": [170]})["gradual_recall"] == 0.0


def test_clips_are_counted_by_the_rules_of_the_labels(module: Callable[[str], ModuleType]) -> None:
    matched = module("quality_figures").Matched([label()], [clip(0, 2.5625), clip(2.6, 6.0), clip(6.0, 9.0)])
    assert matched.impure.tolist() == [False, True, False]
    assert matched.main.tolist() == [0, 0, 1]
    everything = matched.figures(np.array([True, True, True]), {}, {})
    assert (everything["impure_kept"], everything["bad_kept"], everything["good_shots"]) == (0.333, 0.333, 1.0)
    said = {"static": np.array([False, True, True])}
    judged = matched.figures(np.array([True, False, False]), said, {"static": ["static"]})
    assert judged["precision"] == {"static": {"clips": 2, "right": 0.5, "agrees": 0.5}}
    assert judged["recall"] == {"static": {"shots": 1, "dropped": 1.0}}
    assert (judged["good_kept"], judged["good_shots"]) == (1.0, 1.0)  # the grid could keep 2.5 s of the 5 s


def verdicts_of(module: Callable[[str], ModuleType], dials: Any, low: float = 0.0) -> Any:
    """Four videos, a good shot (0.8 to 0.86) and a static one (0.1 to 0.16) each, and one rule, `f.low`, with the bound `low`."""
    from filters.base import Entry, Rule

    figures, folds = module("quality_figures"), module("quality_folds")
    labels = [label(id=f"v{i}") for i in range(4)]
    clips = [
        {"id": f"v{i}", "start_s": s, "end_s": s + 2.5625, "reject": [], "f_x": x} for i in range(4) for s, x in ((1.0, 0.8 + i / 50), (6.0, 0.1 + i / 50))
    ]
    entries = [Entry("f", "rules", lambda: None, {"x": "1"}, (Rule("low", "f_x", "static", low=low),))]  # type: ignore[arg-type, return-value]
    matched = figures.Matched(labels, clips)
    made = [module("made_vices").Made(f"v{i}", "frozen", "static", {"f_x": 0.3}) for i in range(4)]
    return folds.Verdicts(matched, entries, matched.clips, {"static": ["static"]}, made, dials)


def test_left_out_groups_are_judged_by_thresholds_of_the_others(module: Callable[[str], ModuleType]) -> None:
    folds = module("quality_folds")
    verdicts = verdicts_of(module, (folds.Dial(("f.low",), ("static",)),))
    found = folds.left_out(verdicts, [int(shot.video[1]) for shot in verdicts.matched.shots])
    assert verdicts.figures(verdicts.bounds())["recall"]["static"]["dropped"] == 0.0  # the entries' own threshold rejects nothing
    assert found.figures["recall"]["static"] == {"shots": 4, "dropped": 1.0}
    assert found.figures["good_shots"] == 1.0
    assert all(0.16 < bounds["f.low"] < 0.8 for bounds in found.chosen)


def test_made_vices_move_a_dial_and_only_those_of_other_videos(module: Callable[[str], ModuleType]) -> None:
    folds = module("quality_folds")
    labelled, both = (verdicts_of(module, (folds.Dial(("f.low",), ("static",), made),)) for made in ((), ("frozen",)))
    everything, nothing = np.ones(8, bool), np.zeros(8, bool)
    bounds = [verdicts.choose(everything)["f.low"] for verdicts in (labelled, both)]
    assert bounds[0] < bounds[1] < 0.8
    assert folds.left_out(both, [0] * 4 + [1] * 4).made == {"frozen": [True] * 4}
    assert both.choose(nothing) == both.bounds()  # nothing to choose by


def test_a_rule_without_a_dial_stays_where_it_is(module: Callable[[str], ModuleType]) -> None:
    verdicts = verdicts_of(module, (), low=0.5)
    assert verdicts.choose(np.ones(8, bool)) == {"f.low": 0.5}
    assert module("quality_folds").shaken(verdicts, {"f.low": 0.5}, by=1.1) == {"good_shots": 1.0, "good_kept": 1.0, "enough": 1.0}


def test_a_doubtful_good_shot_does_not_decide(module: Callable[[str], ModuleType]) -> None:
    folds = module("quality_folds")
    assert folds.without(np.array([1.0, 3.0, 2.0]), np.ones(3), 0.5).tolist() == [1.0, 0.0, 0.5]
    assert folds.unscaled("f_x", float(folds.scaled("f_x", 0.3))) == pytest.approx(0.3)
    assert folds.unscaled("motion_flow", float(folds.scaled("motion_flow", 1.2))) == pytest.approx(1.2)


def test_every_rule_is_either_meant_or_dialled(module: Callable[[str], ModuleType]) -> None:
    from pipelines.recipe import load

    folds = module("quality_folds")
    dialled = [name for dial in folds.DIALS for name in dial.rules]
    rules = [f"{entry.name}.{rule.key}" for stage in folds.STAGES for entry in load("local").entries(stage) for rule in entry.rules]
    assert sorted([*dialled, *folds.MEANT]) == sorted(rules)
    assert {kind for dial in folds.DIALS for kind in dial.made} <= set(module("made_vices").KINDS)


def test_peer_that_died_is_a_result(module: Callable[[str], ModuleType]) -> None:
    juicer = module("juicer")
    line = json.dumps({"cpu_s": {"split": 1.0, "motion": 2.5}, "scenes": 3, "peak_mb": 800.0, "motion": [0.1]})
    assert juicer.parse(["log", line], 0) == juicer.PeerRun(3.5, {"split": 1.0, "motion": 2.5}, 3, 800.0, None)
    assert juicer.parse([], -9, "Killed").error == "process ended with -9: Killed"
    assert (
        juicer.parse([json.dumps({"cpu_s": {"split": 1.0}, "scenes": 1, "peak_mb": 1.0, "error": "motion: MemoryError: "})], 0).error == "motion: MemoryError: "
    )
