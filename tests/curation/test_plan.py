"""The plan: the first run fixes it, another one is refused with the difference and the choices."""

import json
from pathlib import Path
from typing import Any

import pytest

from curation.plan import PlanMismatch, differences, plan_digest, read_plan, write_plan

PLAN: dict[str, Any] = {"inputs": [{"uri": "/a.mp4", "size": 5}], "settings": {"shots": {"threshold": 0.3}, "ocr": True}, "code": "1.0", "seed": 0}


def test_the_same_plan_again_is_the_same(tmp_path: Path) -> None:
    first = write_plan(tmp_path, PLAN)
    assert write_plan(tmp_path, json.loads(json.dumps(dict(reversed(PLAN.items()))))) == first == plan_digest(PLAN)
    assert read_plan(tmp_path) == PLAN


def test_another_plan_is_refused_with_the_difference_and_the_choices(tmp_path: Path) -> None:
    write_plan(tmp_path, PLAN)
    other = {**PLAN, "settings": {"shots": {"threshold": 0.4, "merge": 1}, "ocr": True}, "inputs": []}
    with pytest.raises(PlanMismatch) as refused:
        write_plan(tmp_path, other)
    assert refused.value.differences == [
        'inputs[0]: {"size": 5, "uri": "/a.mp4"} -> (absent)',
        "settings.shots.merge: (absent) -> 1",
        "settings.shots.threshold: 0.3 -> 0.4",
    ]
    for choice in ("old settings", "new output folder", "pan rejudge", "settings.shots.threshold: 0.3 -> 0.4"):
        assert choice in str(refused.value)
    assert read_plan(tmp_path) == PLAN


def test_a_folder_without_a_plan_is_no_output(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not an output"):
        read_plan(tmp_path)


def test_differences_tell_types_apart() -> None:
    assert differences({"a": 1}, {"a": 1}) == []
    assert differences({"a": 1}, {"a": 1.0}) == ["a: 1 -> 1.0"]
    assert differences({"a": True}, {"a": 1}) == ["a: true -> 1"]
    assert differences([1, 2], [1, 3, 4]) == ["[1]: 2 -> 3", "[2]: (absent) -> 4"]


def test_a_long_difference_is_cut(tmp_path: Path) -> None:
    write_plan(tmp_path, {"inputs": list(range(50))})
    with pytest.raises(PlanMismatch, match="and 30 more"):
        write_plan(tmp_path, {"inputs": list(range(1, 51))})
