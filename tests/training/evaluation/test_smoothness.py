"""Transition smoothness: a steady pan is smooth, a reversal, a jump and jitter are less so, and a jump at a join is the join's."""

import cv2
import numpy as np
import pytest

from training.evaluation.smoothness import Smoothness, SmoothnessSettings, smoothness

SETTINGS = [SmoothnessSettings(flow=flow, warped=warped) for flow in ("dis", "horn_schunck") for warped in (False, True)]  # type: ignore[arg-type]
T = np.arange(12)
SHIFTS = {
    "rest": 0.0 * T,
    "steady": 1.0 * T,
    "reversal": np.where(T < 6, T, 12.0 - T),
    "jitter": np.array([0, 1, 0, 1, 2, 1, 2, 1, 0, 1, 0, 1.0]),
    "jump": T + 4.0 * (T >= 6),
}


def texture() -> np.ndarray:
    rough = np.random.default_rng(0).integers(0, 256, (300, 300)).astype(np.float32)
    soft = cv2.GaussianBlur(rough, (0, 0), 4)
    return (soft - soft.min()) / (soft.max() - soft.min()) * 255


def film(shifts: np.ndarray, size: int = 96) -> np.ndarray:
    """A texture that is seen `shifts` px (of 96) further to the right."""
    scale, world, frames = size / 96, texture(), []
    for x in shifts:
        matrix = np.array([[scale, 0, scale * (x - 100)], [0, scale, -100 * scale]], np.float32)
        gray = cv2.warpAffine(world, matrix, (size, size), flags=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)
        frames.append(np.repeat(gray[..., None], 3, 2))
    return np.stack(frames)


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: f"{s.flow}{'-warped' if s.warped else ''}")
def test_the_order_of_motions(settings: SmoothnessSettings) -> None:
    found: dict[str, Smoothness] = {name: smoothness(film(shifts), [6], settings) for name, shifts in SHIFTS.items()}
    assert found["rest"].score == pytest.approx(1.0, abs=1e-3)
    assert found["rest"].speed == pytest.approx(0.0, abs=1e-2)  # what exposes a film that smooths by standing still
    assert found["steady"].speed == pytest.approx(512 / 96, rel=0.15)
    assert 0.8 < found["steady"].score < 1
    assert found["steady"].score > found["reversal"].score + 0.3 > found["jitter"].score + 0.3


@pytest.mark.parametrize("settings", SETTINGS[:3:2], ids=lambda s: s.flow)
def test_a_jump_at_the_join_is_the_joins(settings: SmoothnessSettings) -> None:
    jump, steady = (smoothness(film(SHIFTS[name]), [6], settings) for name in ("jump", "steady"))
    assert jump.joins is not None
    assert jump.elsewhere is not None
    assert steady.joins == pytest.approx(steady.elsewhere, abs=0.05)
    assert jump.joins < 0.1
    assert jump.elsewhere == pytest.approx(steady.elsewhere, abs=0.05)


def test_films_of_all_sizes_compare() -> None:
    small, large = (smoothness(film(SHIFTS["reversal"], size)) for size in (96, 192))
    assert large.speed == pytest.approx(small.speed, rel=0.1)
    assert large.score == pytest.approx(small.score, abs=0.1)
    assert smoothness(film(SHIFTS["steady"], 600)).speed == pytest.approx(small.speed, rel=0.1)


def test_scale_and_joins() -> None:
    told = film(SHIFTS["reversal"])
    assert smoothness(told, settings=SmoothnessSettings(scale=2.0)).score == pytest.approx(smoothness(told).score ** 2)
    assert smoothness(told).joins is None
    assert smoothness(told[:3], [1]).elsewhere is None
    with pytest.raises(ValueError, match="an acceleration needs three"):
        smoothness(told[:2])
