"""Colour: one-coloured time is found wherever it lies, and a picture on a plain ground is not taken for it."""

import numpy as np
import pytest

from filters.color import Color, evenness, shrunk


@pytest.mark.parametrize(
    ("blank", "head", "tail", "anywhere"),
    [((0.0, 0.0), 0.0, 0.0, 0.0), ((0.0, 0.8), 1.0, 0.0, 0.4), ((1.8, 9.0), 0.0, 0.5, 0.2), ((0.0, 99.0), 1.0, 1.0, 1.0), ((1.2, 1.4), 0.0, 0.0, 0.1)],
)
def test_blank_time_is_found_where_it_lies(scene, blank: tuple[float, float], head: float, tail: float, anywhere: float) -> None:
    found = Color().score(scene(blank=blank).frames())
    assert (found["head"], found["tail"], found["anywhere"]) == pytest.approx((head, tail, anywhere))


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (200, 30, 30), (15, 16, 17)])
def test_any_colour_counts_with_noise_and_a_small_logo(colour: tuple[int, int, int]) -> None:
    picture = np.clip(np.full((64, 64, 3), colour) + np.random.default_rng(0).integers(-4, 5, (64, 64, 3)), 0, 255).astype(np.uint8)
    picture[4:12, 4:20] = 128
    assert evenness(picture, 10) >= 0.95


def test_a_gradient_and_a_small_picture_on_black_are_not_one_colour() -> None:
    gradient = np.tile(np.linspace(60, 200, 64).astype(np.uint8)[None, :, None], (64, 1, 3))
    boxed = np.zeros((64, 64, 3), np.uint8)
    boxed[16:48, 16:48] = np.random.default_rng(0).integers(0, 255, (32, 32, 3))
    assert evenness(gradient, 10) < 0.3
    assert evenness(boxed, 10) == pytest.approx(0.75, abs=0.01)


def test_a_fade_loses_contrast(scene) -> None:
    full, faded = (Color().score(scene(lamp=lamp).frames())["contrast"] for lamp in (lambda _: 1.0, lambda _: 0.25))
    assert faded == pytest.approx(full / 4, rel=0.1)


@pytest.mark.parametrize(("height", "width"), [(256, 455), (455, 256), (64, 64), (20, 300), (1, 1)])
def test_a_shrunk_picture_has_means_of_whole_pixels(height: int, width: int) -> None:
    picture = np.zeros((height, width, 3), np.uint8)
    picture[:, : width // 2] = 200
    small = shrunk(picture)
    assert max(small.shape[:2]) < 96
    assert abs(float(small.mean()) - float(picture.mean())) < 4
