"""Content, measured: the shipped models tell made vices from natural scenes, a property is its likeliest part, and constants name known signs."""

import cv2
import numpy as np
import pytest

from curation.clips import ClipError
from curation.frames import Frames
from filters.catalog import CONTENT
from filters.content import PROPERTIES, ContentSettings, Measured, Part, confidences, logistic, read_parts
from filters.signs import SIGNS
from tests.filters.test_signs import frames_of, head, page


@pytest.fixture(scope="module")
def measured() -> Measured:
    return Measured()


def test_the_shipped_models_know_their_signs_and_cover_every_property() -> None:
    parts = read_parts()
    assert {part.property for part in parts.values()} == set(PROPERTIES)
    assert {sign for part in parts.values() for sign in part.weights} <= set(SIGNS)


def test_a_propertys_confidence_is_its_likeliest_parts() -> None:
    parts = {"a": Part("lecture", 0.0, {"talker": 2.0}), "b": Part("lecture", -1.0, {"frozen": 3.0}), "c": Part("residual_cut", -800.0, {})}
    found = confidences({"talker": 0.5, "frozen": 1.0}, parts)
    assert found["lecture"] == pytest.approx(1 / (1 + np.exp(-2.0)))
    assert found["residual_cut"] == 0.0
    assert found["low_quality"] == 0.0
    assert logistic(800.0) == 1.0


def rejected(frames: Frames, measured: Measured) -> set[str]:
    """The reasons that the catalogue's rules give."""
    found = measured.score(frames)
    assert set(found) == set(PROPERTIES)
    assert all(0.0 <= value <= 1.0 for value in found.values())
    return {rule.reason for rule in CONTENT.rules if rule.judge(found[rule.score.removeprefix("content_")])}


def test_a_page_and_a_desktop_are_found(measured: Measured) -> None:
    assert {"text_dominated", "screen_recording"} & rejected(frames_of([page(256, 454)] * 10), measured)
    desk = np.full((256, 454, 3), (40, 90, 140), np.uint8)
    desk[30:230, 40:400] = cv2.resize(page(), (360, 200))
    pictures = []
    for k in range(10):
        now = desk.copy()
        cv2.circle(now, (100 + 20 * k, 120), 4, (250, 250, 250), -1)  # a pointer
        pictures.append(now)
    assert {"text_dominated", "screen_recording", "lecture"} & rejected(frames_of(pictures), measured)


def test_a_head_that_talks_before_a_still_wall_is_a_lecture(measured: Measured) -> None:
    wall = np.full((256, 454, 3), (70, 90, 100), np.uint8)
    assert "lecture" in rejected(frames_of([head(wall, 227, 110, bool(k % 2)) for k in range(10)]), measured)


def test_a_tiny_blurred_source_is_of_low_quality(scene, measured: Measured) -> None:
    clip = scene(pan=(0.1, 0.0), width=320, height=180).frames()
    poor = [cv2.GaussianBlur(cv2.resize(p, (160, 112)), (0, 0), 1.5) for p in clip.rgb]
    assert "low_quality" in rejected(frames_of(poor), measured)


@pytest.mark.parametrize("seed", range(4))
def test_natural_scenes_pass(scene, measured: Measured, seed: int) -> None:
    moves = ({"pan": (0.1, 0.02)}, {"patch": 0.2}, {"zoom": 0.2, "patch": 0.3}, {"pan": (-0.3, 0.0)})[seed]
    assert rejected(scene(**moves, seed=seed, width=454, height=256).frames(), measured) == set()


def test_one_sample_is_too_short(measured: Measured) -> None:
    with pytest.raises(ClipError, match="too_short"):
        measured.score(frames_of([page()]))


def test_the_catalogues_entry_follows_its_settings() -> None:
    assert dict(CONTENT.scores) == dict(PROPERTIES)
    assert isinstance(CONTENT.build(), Measured)
    with pytest.raises(ValueError, match="names no model"):
        CONTENT.make(ContentSettings(backend="vlm"))
