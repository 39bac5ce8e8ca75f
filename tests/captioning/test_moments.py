"""Moments: known camera motion comes back with its sign and size, and what moves by itself is told apart from it."""

from typing import Any

import numpy as np
import pytest

from captioning.moments import Moment, moments
from curation.frames import Frames

WIDTH = 256


def mean(found: list[Moment], name: str) -> float:
    return float(np.mean([getattr(m, name) for m in found]))


@pytest.mark.parametrize(
    ("right", "down", "pan", "tilt"),
    [(25.6, 0, 0.1, 0), (-25.6, 0, -0.1, 0), (0, 25.6, 0, -0.1), (0, -25.6, 0, 0.1), (76.8, -38.4, 0.3, 0.15), (5.12, 0, 0.02, 0), (0, 0, 0, 0)],
)
def test_a_turn_comes_back_in_widths_a_second(made: Any, right: float, down: float, pan: float, tilt: float) -> None:
    found = moments(made.frames_of(lambda t: made.look(right * (t - 1.2), down * (t - 1.2))))
    assert mean(found, "pan") == pytest.approx(pan, abs=0.006, rel=0.1)
    assert mean(found, "tilt") == pytest.approx(tilt, abs=0.006, rel=0.1)
    assert mean(found, "zoom") == pytest.approx(0, abs=0.01)
    assert sum(float(m.activity.sum()) for m in found) < 0.01
    assert all(m.seen for m in found)


@pytest.mark.parametrize("growth", [0.1, -0.1, 0.3])
def test_a_zoom_comes_back_in_growth_a_second(made: Any, growth: float) -> None:
    found = moments(made.frames_of(lambda t: made.look(zoom=1.5 * float(np.exp(growth * (t - 1.2))))))
    assert mean(found, "zoom") == pytest.approx(growth, rel=0.15)
    assert abs(mean(found, "pan")) + abs(mean(found, "tilt")) < 0.006


@pytest.mark.parametrize(("camera", "x", "y", "row", "column"), [(0, 20, 12, 0, 0), (0, 160, 92, 2, 2), (0, 100, 52, 1, 1), (20, 180, 12, 0, 2)])
def test_a_thing_that_moves_is_found_where_it_is(made: Any, camera: float, x: float, y: float, row: int, column: int) -> None:
    def view(t: float) -> np.ndarray:
        return made.square(made.look(camera * t), x + 6 * np.sin(9 * t), y + 6 * np.cos(9 * t))

    found = moments(made.frames_of(view))
    activity = np.sum([m.activity for m in found], axis=0)
    assert np.unravel_index(activity.argmax(), (3, 3)) == (row, column)
    assert activity[row, column] > 0.5 * activity.sum() > 0
    assert mean(found, "pan") == pytest.approx(camera / WIDTH, abs=0.01)


@pytest.mark.parametrize(("vx", "vy"), [(40, 0), (-40, 0), (0, 25), (0, -25)])
def test_drift_points_where_the_thing_goes(made: Any, vx: float, vy: float) -> None:
    found = moments(made.frames_of(lambda t: made.square(made.look(), 108 + vx * (t - 1.2), 52 + vy * (t - 1.2))))
    x, y = np.sum([m.drift for m in found], axis=0)
    assert (np.sign(round(x)), np.sign(round(y))) == pytest.approx((np.sign(vx), np.sign(vy)), abs=1 if abs(x) + abs(y) < 1 else 0) or abs(x * vy) < abs(
        y * vy
    ) + abs(x * vx)
    assert x * vx + y * vy > 0.7 * np.hypot(vx, vy) * sum(m.effort for m in found)


def test_an_empty_picture_says_nothing(made: Any) -> None:
    found = moments(made.frames_of(lambda t: np.full((144, 256, 3), round(60 + 40 * t), np.uint8)))
    assert found
    assert not any(m.seen for m in found)
    assert all(m.pan == m.tilt == m.zoom == m.effort == 0 and not m.activity.any() for m in found)


def test_size_of_the_picture_does_not_matter(made: Any) -> None:
    import cv2

    clip = made.frames_of(lambda t: made.square(made.look(25.6 * t), 40 + 40 * t, 52))
    large = Frames(
        np.stack([cv2.resize(p, (512, 288), interpolation=cv2.INTER_CUBIC) for p in clip.rgb]),
        np.stack([cv2.resize(p, (512, 288), interpolation=cv2.INTER_CUBIC) for p in clip.next_luma]),
        clip.time_s, clip.dt_s, clip.fps, clip.signals,
    )  # fmt: skip
    small, big = moments(clip), moments(large)
    assert mean(big, "pan") == pytest.approx(mean(small, "pan"), rel=0.1)
    assert sum(float(m.activity.sum()) for m in big) == pytest.approx(sum(float(m.activity.sum()) for m in small), rel=0.3)


def test_times_count_from_the_clips_start(made: Any) -> None:
    found = moments(made.frames_of(lambda t: made.look(), begin_s=100.0))
    assert found[0].time_s == 0.0
    assert 2.0 < found[-1].time_s < 2.6
