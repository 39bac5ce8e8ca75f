"""A sample's document: canonical JSON, and PAN's rounds."""

import math

import numpy as np
import pytest

from curation.sample import GRID_FPS, provenance_of, rounds, to_json


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1.0"),
        (1e-7, "0.0000001"),
        (1e22, "10000000000000000000000.0"),
        (-0.0, "-0.0"),
        (np.float32(0.3), "0.3"),
        (np.float32(1 / 3), "0.33333334"),
        (1 / 3, "0.3333333333333333"),
        (5, "5"),
        (True, "true"),
        (None, "null"),
        ('ü\n"', '"ü\\n\\""'),
        ({"b": [1, 2.0], "a": ()}, '{"a": [], "b": [1, 2.0]}'),
    ],
)
def test_canonical_json(value: object, text: str) -> None:
    assert to_json(value) == text


@pytest.mark.parametrize("value", [math.nan, math.inf, np.float32("nan"), {1, 2}, b"x"])
def test_what_json_does_not_have_is_refused(value: object) -> None:
    with pytest.raises(ValueError):
        to_json({"key": [value]})


def test_rounds_tile_the_clip_after_its_first_image() -> None:
    found = rounds(3, [(0.0, 2.5, "goes left"), (2.5, 5.0, "stops"), (5.0, 7.5625, "turns")])
    assert [r["action"] for r in found] == ["goes left", "stops", "turns"]
    assert [(r["first_frame"], r["last_frame"]) for r in found] == [(1, 40), (41, 80), (81, 120)]
    assert found[0]["t0"] == 1 / GRID_FPS
    assert [r["t1"] for r in found[:-1]] == [r["t0"] for r in found[1:]]
    assert found[-1]["t1"] == (1 + 40 * 3) / GRID_FPS


def test_a_round_that_no_event_touches_has_no_action() -> None:
    assert [r["action"] for r in rounds(2, [(0.0, 1.0, "blinks")])] == ["blinks", ""]
    assert [r["action"] for r in rounds(1, [])] == [""]


def test_provenance_is_strings() -> None:
    assert provenance_of({"provenance": '{"a": "x", "b": null, "c": 2.5, "d": [1], "e": true}'}) == {"a": "x", "b": "", "c": "2.5", "d": "[1]", "e": "true"}
    assert provenance_of({"provenance": None}) == {}
