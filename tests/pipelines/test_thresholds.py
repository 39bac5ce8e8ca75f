"""Filter tables made from a catalogue: defaults, overrides, switches, and intervals that nothing could pass."""

import pytest

from filters.base import Entry, Filter, Rule
from filters.catalog import thresholds_of
from pipelines import strict_toml, thresholds
from pipelines.strict_toml import SettingsError


def nothing() -> Filter:
    raise AssertionError("reading a recipe must build no filter")


MOTION = Entry(
    "motion",
    "rules",
    nothing,
    {"flow": "diagonals/s", "flicker": "luma steps"},
    (
        Rule("low", "motion_flow", "static", low=0.02),
        Rule("high", "motion_flow", "extreme_motion", high=1.5),
        Rule("flicker_high", "motion_flicker", "flicker", high=6.0),
    ),
)
TEXT = Entry("scene_text", "detectors", nothing, {"area": "share of the picture"}, (Rule("high", "scene_text_area", "subtitles", high=0.05),))
MODEL = thresholds.settings_model([MOTION, TEXT])


def test_defaults_are_the_catalogues() -> None:
    assert thresholds.enabled_entries([MOTION, TEXT], MODEL()) == (MOTION, TEXT)
    assert MODEL().model_dump() == {
        "motion": {"enabled": True, "low": 0.02, "high": 1.5, "flicker_high": 6.0},
        "scene_text": {"enabled": True, "high": 0.05},
    }


def test_a_threshold_reaches_its_rule_alone() -> None:
    settings = strict_toml.build(MODEL, {"motion": {"high": 2}}, "here")
    (motion, text) = thresholds.enabled_entries([MOTION, TEXT], settings)
    assert list(thresholds_of(motion).values()) == [0.02, 2.0, 6.0]
    assert [rule.reason for rule in motion.rules] == ["static", "extreme_motion", "flicker"]
    assert text == TEXT


def test_a_filter_that_is_off_is_gone() -> None:
    settings = strict_toml.build(MODEL, {"motion": {"enabled": False}}, "here")
    assert thresholds.enabled_entries([MOTION, TEXT], settings) == (TEXT,)


def test_low_above_high_of_the_same_score_is_refused() -> None:
    with pytest.raises(SettingsError) as caught:
        strict_toml.build(MODEL, {"motion": {"low": 2.0}}, "here")
    assert caught.value.problems == ["motion: no clip could pass: low = 2.0 is above high = 1.5, both on motion_flow"]


def test_an_unknown_threshold_names_the_nearest() -> None:
    with pytest.raises(SettingsError) as caught:
        strict_toml.build(MODEL, {"motion": {"lo": 2.0}}, "here")
    assert caught.value.problems == ["motion.lo: unknown key; did you mean motion.low?"]


def test_a_shown_recipe_says_what_each_threshold_does() -> None:
    assert "low = 0.02  # rejects as static when motion_flow is below it; diagonals/s" in strict_toml.dump(MODEL(), comments=True)


def test_a_catalogue_that_repeats_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="two filters named motion"):
        thresholds.settings_model([MOTION, MOTION])
    twice = Entry("x", "rules", nothing, {"a": "1"}, (Rule("low", "x_a", "r", low=0.0), Rule("low", "x_a", "s", low=0.0)))
    with pytest.raises(ValueError, match="key of its own"):
        thresholds.settings_model([twice])
