"""The table of the block world's results: how sure an ordering is, and what is measured anew."""

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script that trains and measures, as a module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("blockworld_runs")


@pytest.fixture
def table(runs: ModuleType) -> ModuleType:
    """The benchmark's table, as a module."""
    return importlib.import_module("blockworld_table")


def judged(arm: str, seed: int, stories: Sequence[str]) -> dict[str, Any]:
    """A run of which each story's rounds are told."""
    by_round = [sum(int(story[r]) for story in stories) / len(stories) for r in range(len(stories[0]))]
    fidelity = {"obeyed": sum(by_round) / len(by_round), "obeyed_R": by_round, "rounds_S": list(stories)}
    return {"arm": arm, "seed": seed, "horizon": {"fidelity": fidelity}}


def pairs(mine: Sequence[str], other: Sequence[str], seeds: int = 3) -> list[dict[str, Any]]:
    """Two arms that have been judged alike with each seed."""
    return [judged(arm, seed, stories) for seed in range(seeds) for arm, stories in (("swin_midway", mine), ("last_frame_midway", other))]


def test_an_interval_is_of_stories_that_both_have_filmed(table: ModuleType) -> None:
    measure = next(each for each in table.MEASURES if each.name == "obeyed, under way: Swin-DPM - last frame")
    late = next(each for each in table.MEASURES if each.name == "obeyed, rounds 11 on, under way: Swin-DPM - last frame")
    always = pairs(["1" * 20] * 10, ["1" * 10 + "0" * 10] * 10)
    assert table.interval(always, measure) == (0.5, 0.5)  # whichever stories are drawn
    assert table.interval(always, late) == (1.0, 1.0)
    doubtful = pairs(["1" * 20] * 3 + ["0" * 20] * 2, ["0" * 20] * 2 + ["1" * 20] * 2 + ["0" * 20])
    low, high = table.interval(doubtful, measure)
    assert low < 0 < sum(table.margins(doubtful, measure)) / 3 < high
    assert table.interval(pairs(["1" * 20] * 3 + ["0" * 20] * 2, ["0" * 20] * 2 + ["1" * 20] * 2 + ["0" * 20], 30), measure)[0] > low


def test_better_with_every_seed_is_not_enough_where_stories_say_otherwise(table: ModuleType) -> None:
    name = "obeyed, under way: Swin-DPM - last frame"
    about = {"machine": {"cpu": "one", "cores": 2}, "taught_cpu_s": {"midway": 0.0}, "worlds": {"swin_midway": "midway", "last_frame_midway": "midway"}}
    for mine, other, met in ((["1" * 20] * 10, ["0" * 20] * 10, True), (["1" * 20] * 3 + ["0" * 20] * 2, ["0" * 20] * 2 + ["1" * 20] * 2 + ["0" * 20], False)):
        told = [run | {"code": "x", "cpu_s": [1.0], "measured_cpu_s": 1.0} for run in pairs(mine, other)]
        found = table.figures({"runs": told, **about})[name]
        assert (found["value"] > 0, found["met"]) == (True, met)


def test_a_row_that_tells_no_stories_has_no_interval(table: ModuleType) -> None:
    measure = next(each for each in table.MEASURES if each.name == "obeyed, under way: Swin-DPM - last frame")
    told = pairs(["1" * 20] * 3, ["0" * 20] * 3)
    del told[0]["horizon"]["fidelity"]["rounds_S"]
    assert table.interval(told, measure) is None
    assert table.interval([], measure) is None


def test_rounds_are_told_by_the_arrangement_that_they_begin_in(runs: ModuleType) -> None:
    measures = importlib.import_module("blockworld_measures")
    from training.evaluation.blockworld import arrangement, episodes, split_of

    world = measures.WORLDS["midway"]()
    stories = list(episodes(world, 6, 0, 8, "unseen"))
    at = [[story.positions_TN2[k * world.chunk_frames + (world.lag_frames if k else 0)] for k in range(5)] for story in stories]
    unseen = [[split_of(arrangement(world, each)) == "unseen" for each in story] for story in at]
    found = measures.begun(stories, ["".join("01"[there] for there in story) for story in unseen])
    assert found["unseen"] == {"rounds": sum(map(sum, unseen)), "obeyed": 1.0}
    assert found["train"] == {"rounds": 8 * 5 - found["unseen"]["rounds"], "obeyed": 0.0}
    assert 8 < found["unseen"]["rounds"] < 30


def test_what_is_measured_anew_is_of_no_code_until_it_is_confirmed(runs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def measured(*given: Any) -> dict[str, Any]:
        asked.append([str(each.relative_to(tmp_path)) for each in given[:2]])
        return {"found": 2}

    monkeypatch.setattr(runs, "measured", measured)
    monkeypatch.setattr(runs, "chain", lambda *_: SimpleNamespace(world=None))
    (tmp_path / "results").mkdir()
    row = {"arm": "pan", "seed": 1, "code": "old", "steps": [5, 2], "cpu_s": [1.0, 2.0], "measured_cpu_s": 3.0, "found": 1, "same_as_before": ["pan 0"]}
    file = tmp_path / "results" / "pan_1.json"
    file.write_text(json.dumps(row), "utf-8")
    for seed in (0, 1):
        runs.measure(tmp_path, runs.ARMS["pan"], seed)
    told = json.loads(file.read_text("utf-8"))
    assert told.pop("measured_cpu_s") >= 0
    assert told == {"arm": "pan", "seed": 1, "code": "measured anew", "steps": [5, 2], "cpu_s": [1.0, 2.0], "found": 2}
    assert asked == [[f"{runs.ARMS['pan'].base}_1/model", "pan_1/model"]]
    assert not (tmp_path / "results" / "pan_0.json").exists()
