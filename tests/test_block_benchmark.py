"""The block world's benchmark: its bounds without a model, all rows with one, and the last line's object."""

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from training.evaluation.blockworld import World
from training.model.checkpoint import init_model, save_model
from training.model.spec import SPECS

Benchmark = Callable[..., tuple[int, str, str]]
SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "blockworld.py"


def run(*arguments: str) -> tuple[list[str], dict[str, dict[str, object]]]:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--stories", "1", "--rounds", "2", *arguments], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    return lines, json.loads(lines[-1])


def test_the_bounds_are_measured_without_a_model(table: ModuleType) -> None:
    lines, figures = run("--tasks", "1")
    assert [line[:26].strip() for line in lines[2:4]] == ["true simulator", "copy of the first frame"]
    assert figures["fidelity_truth"] == {"value": 1.0, "target": 1.0, "met": True}
    committed = json.loads((SCRIPT.parent / "results" / "blockworld.json").read_text("utf-8"))
    first = [each["horizon"]["fidelity"]["obeyed_R"][0] for each in committed["runs"] if each["arm"] == "long_held_out"]
    assert figures["fidelity_step_1"]["value"] == (pytest.approx(sum(first) / len(first), abs=1e-4) if first else None)
    (told,) = (line for line in lines if line.startswith("committed results, "))
    assert (told == "committed results, of this code") is table.is_fresh(committed)
    assert figures["results_are_of_this_code"]["met"] is table.is_fresh(committed)


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark's table, as a module."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    return importlib.import_module("blockworld_table")


@pytest.fixture
def benchmark(table: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Benchmark:
    """The benchmark in this process: exit code, what it printed, and its errors."""
    script = importlib.import_module("blockworld")

    def measure(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["blockworld.py", *words])
        return script.main(), *capsys.readouterr()

    return measure


def test_committed_results_are_called_stale_exactly_if_a_runs_code_is_another(
    table: ModuleType, benchmark: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed = json.loads((SCRIPT.parent / "results" / "blockworld.json").read_text("utf-8"))
    monkeypatch.setattr(table, "RESULTS", tmp_path / "blockworld.json")
    for run in committed["runs"]:
        run["code"] = table.CODE[run["arm"]]
    for code, fresh, told in (
        (committed["runs"][0]["code"], True, "committed results, of this code"),
        ("0" * 16, False, f"committed results, STALE: {committed['runs'][0]['arm']} {committed['runs'][0]['seed']}; run benchmarks/blockworld_runs.py"),
    ):
        committed["runs"][0]["code"] = code
        table.RESULTS.write_text(json.dumps(committed), "utf-8")
        _, printed, _ = benchmark("--stories", "1", "--rounds", "1", "--tasks", "0")
        assert table.is_fresh(committed) is fresh
        assert told in printed.splitlines()
        assert json.loads(printed.splitlines()[-1])["results_are_of_this_code"]["met"] is fresh


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--stories", "0"], "--stories 0: give at least 1"),
        (["--rounds", "0"], "--rounds 0: give at least 1"),
        (["--tasks", "-1"], "--tasks -1: give at least 0"),
        (["--steps", "0"], "steps 0: it must lie in [1, 1000]"),
        (["--model", "nofolder"], "nofolder: no model.json there"),
        (["--world", "nofolder"], "world.json is not there; give a folder that `pan blockworld` has written"),
        (["--world", "{broken}"], "world.json: it has no key 'world'; write the corpus again"),
        (["--world", "{lags}", "--rounds", "1"], "--rounds 1: where a world lags the last round is not judged; give at least 2"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is(benchmark: Benchmark, tmp_path: Path, words: list[str], told: str) -> None:
    lagging(tmp_path / "lags")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "world.json").write_text("{}")
    code, printed, error = benchmark(*(word.format(broken=tmp_path / "broken", lags=tmp_path / "lags") for word in words))
    assert (code, printed, error.count("\n")) == (2, "", 1)
    assert told in error


def test_where_a_world_lags_planning_is_left_out(benchmark: Benchmark, tmp_path: Path) -> None:
    lagging(tmp_path)
    code, printed, _ = benchmark("--world", str(tmp_path), "--stories", "1", "--rounds", "2", "--tasks", "3")
    assert code == 0
    assert printed.startswith("planning is left out: in a world with lag 0.5 ")
    assert "plans by chance: -\n" in printed


def lagging(folder: Path) -> None:
    """Writes a lagging world, as `pan blockworld --lag` does."""
    folder.mkdir(exist_ok=True)
    (folder / "world.json").write_text(json.dumps({"world": World(blocks=2, contact=False, chunk_frames=4, fps=1.6, lag=0.5).to_dict()}))


def made(arm: str, seed: int, last: float, rank: float = 0.0, code: str = "old") -> dict[str, Any]:
    """A run with what is asked of it."""
    fidelity = {"obeyed": last, "obeyed_R": [1.0] * 10 + [last] * 10, "error_px_R": [0.5] * 9 + [None], "lost_R": [0.0] * 10 + [1 - last]}
    quality = [{"psnr_db": 30.0, "ssim": 0.9}] * 9 + [{"psnr_db": 20.0 + last, "ssim": last}]
    seen = {"fidelity": fidelity, "quality_R": quality, "joins": last, "true_joins": 0.6}
    states = {"spread": {"relative": rank / 10, "rank": rank}, "probe": {"accuracy": 0.5, "r2": 0.1}}
    before = {"spread": {"relative": 0.3, "rank": 3.0}, "probe": {"accuracy": 0.5, "r2": 0.1}}
    return {"arm": arm, "seed": seed, "code": code, "cpu_s": [60.0, 120.0], "measured_cpu_s": 30.0, "horizon": seen, "states": states, "states_before": before}


#: What stands beside the runs.
ABOUT = {
    "machine": {"cpu": "one", "cores": 2},
    "taught_cpu_s": {"plain": 60.0, "contact": 120.0},
    "worlds": {"pan": "plain", "generative": "plain", "matching": "plain", "swin": "plain", "long_held_out": "contact"},
}


def test_margins_are_by_seed_and_less_is_better_where_it_is(table: ModuleType) -> None:
    runs = [made("swin", 0, 0.9), made("last_frame", 0, 0.5), made("swin", 1, 0.6), made("last_frame", 1, 0.7), made("swin", 2, 0.6)]
    measures = {measure.name: measure for measure in table.MEASURES}
    assert table.margins(runs, measures["obeyed, rounds 11 on, at rest: Swin-DPM - last frame"]) == pytest.approx([0.4, -0.1])
    assert table.margins(runs, measures["blocks lost at the end, at rest: Swin-DPM - last frame"]) == pytest.approx([0.4, -0.1])
    assert table.margins(runs, measures["dB of round 10, at rest: Swin-DPM - last frame"]) == pytest.approx([0.4, -0.1])
    assert table.margins(runs, measures["joins, off the truth, at rest: Swin-DPM - last frame"]) == pytest.approx([-0.2, 0.1])
    assert table.margins(runs, measures["px off in round 10, at rest: Swin-DPM - last frame"]) == []


def test_an_ordering_is_met_only_if_every_seed_shows_it_and_results_of_other_code_are_stale(table: ModuleType) -> None:
    runs = [made("generative", 0, 0.9, 5.0), made("matching", 0, 0.9, 1.0), made("generative", 1, 0.9, 5.0), made("matching", 1, 0.9, 6.0)]
    found = table.figures({"runs": runs, **ABOUT})
    assert found["directions of states: generative - matching"] == {"value": 1.5, "target": 0.0, "met": False}
    assert found["directions of states: generative - before"] == {"value": 2.0, "target": None, "met": None}
    assert found["fidelity_step_1"] == {"value": None, "target": 0.95, "met": None}
    assert found["longest_arm_cpu_minutes"] == {"value": 4.0, "target": 8.0, "met": True}
    assert found["all_runs_cpu_minutes"]["value"] == (2 * 60 + 4 * 120 + 4 * 30 + 180) / 60  # both arms begin with one first phase
    assert found["results_are_of_this_code"]["met"] is False
    assert table.figures({"runs": [made("long_held_out", 0, 0.9)], **ABOUT})["long_run_cpu_minutes"]["value"] == 5.0
    now = [made("pan", 0, 0.9, code=table.CODE["pan"])]
    assert table.figures({"runs": now, **ABOUT})["results_are_of_this_code"]["met"] is True
    assert table.lines({"runs": now, **ABOUT})[0] == "committed results, of this code"
    kept = [*now, made("pan", 1, 0.9, code=table.CODE["pan"]) | {"same_as_before": ["pan 0"]}]
    assert table.lines({"runs": kept, **ABOUT})[1].startswith("1 rows trained by this code, 1 kept because one of their kind")
    assert table.lines({"runs": [*now, *runs[:1]], **ABOUT})[0].startswith("committed results, STALE: generative 0;")


def test_of_a_long_runs_seeds_the_mean_is_held_against_the_target_and_the_time_of_the_slowest(table: ModuleType) -> None:
    runs = [made("long_held_out", 0, 0.9), made("long_held_out", 1, 0.7) | {"cpu_s": [60.0, 180.0]}]
    for each, first in zip(runs, (1.0, 0.92), strict=True):
        each["horizon"]["fidelity"]["obeyed_R"][0] = first
    found = table.figures({"runs": runs, **ABOUT})
    assert found["fidelity_step_1"] == {"value": 0.96, "target": 0.95, "met": True}
    assert found["long_run_cpu_minutes"]["value"] == 6.0


def test_every_arm_of_a_measure_is_one_that_is_run(table: ModuleType) -> None:
    """A measure that names no arm would say "not measured" for ever."""
    arms = importlib.import_module("blockworld_runs").ARMS
    assert {arm for measure in table.MEASURES for arm, _ in (measure.mine, measure.other)} <= arms.keys()
    assert all(arm.world in importlib.import_module("blockworld_measures").WORLDS for arm in arms.values())


def test_rows_of_older_code_count_again_only_if_one_was_made_anew_and_came_out_the_same(
    table: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, (folder, committed) = importlib.import_module("blockworld_runs"), (tmp_path / "results", tmp_path / "blockworld.json")
    folder.mkdir()
    monkeypatch.setattr(runs, "RESULTS", committed)
    arms = ("pan", "pan_named_once", "last_frame", "matching")
    committed.write_text(json.dumps({"runs": [made(arm, seed, 0.9) for arm in arms for seed in (0, 1)]}), "utf-8")
    anew = [made("pan", 0, 0.9, code=runs.CODE["pan"]) | {"cpu_s": [1.0, 2.0]}, made("last_frame", 0, 0.9 + 1e-15, code=runs.CODE["last_frame"])]
    for row in (*anew, *(made(arm, 1, 0.9) for arm in arms)):
        (folder / f"{row['arm']}_{row['seed']}.json").write_text(json.dumps(row), "utf-8")
    runs.confirm(tmp_path)
    found = {arm: json.loads((folder / f"{arm}_1.json").read_text("utf-8")) for arm in arms}
    for arm in ("pan", "pan_named_once"):  # both have PAN's window, and its joint phase
        assert (found[arm]["code"], found[arm]["same_as_before"]) == (runs.CODE[arm], ["pan 0"])
    assert found["last_frame"]["code"] == "old"  # the last digit of one figure is another
    assert found["matching"]["code"] == "old"  # nothing of its kind was made anew
    assert json.loads((folder / "pan_0.json").read_text("utf-8")) == anew[0]


def test_a_model_gets_its_rows(tmp_path: Path) -> None:
    save_model(tmp_path / "model", init_model(SPECS["debug"]))
    lines, figures = run("--model", str(tmp_path / "model"), "--tasks", "0", "--steps", "2")
    assert [line[:26].strip() for line in lines[4:6]] == ["the model", "the model, told nothing"]
    assert figures["fidelity_step_1"] == {"value": 0.0, "target": 0.95, "met": False}
    assert figures["fidelity_step_10"] == {"value": None, "target": 0.85, "met": None}
    assert figures["fidelity_copy"]["value"] == pytest.approx(0.0)
