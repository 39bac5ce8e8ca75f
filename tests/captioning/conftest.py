"""Made clips of known motion: a textured world seen through a window that moves, and a textured square that moves in it."""

from collections.abc import Callable
from functools import cache

import cv2
import numpy as np
import pytest

from curation.frames import U8, Frames

HEIGHT, WIDTH, PER_S = 144, 256, 24
View = Callable[[float], U8]


@cache
def texture(seed: int, height: int, width: int) -> U8:
    """Smooth noise of three scales: drawn everywhere, repeating nowhere."""
    rng, image = np.random.default_rng(seed), np.zeros((height, width, 3), np.float32)
    for scale, weight in ((32, 50), (8, 40), (3, 20)):
        noise = rng.standard_normal((height // scale + 1, width // scale + 1, 3)).astype(np.float32)
        image += weight * cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(image + 110, 0, 255).astype(np.uint8)


def look(x: float = 0.0, y: float = 0.0, zoom: float = 1.0) -> U8:
    """The world seen by a camera turned right by `x` and down by `y` px from its middle, `zoom` times as large."""
    world = texture(3, 700, 1400)
    matrix = np.array([[zoom, 0, WIDTH / 2 - zoom * (700 + x)], [0, zoom, HEIGHT / 2 - zoom * (350 + y)]], np.float32)
    return cv2.warpAffine(world, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)


def square(picture: U8, x: float, y: float, side: int = 40) -> U8:
    """`picture` with a textured square whose upper left corner is at (x, y) px, to parts of a px; it may lie outside."""
    matrix = np.array([[1, 0, x], [0, 1, y]], np.float32)
    moved = cv2.warpAffine(texture(9, side, side), matrix, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)
    mask = cv2.warpAffine(np.ones((side, side), np.float32), matrix, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)[..., None]
    return np.asarray(picture * (1 - mask) + moved * mask, np.uint8)


def frames_of(view: View, duration_s: float = 2.5625, fps: float = 4.0, begin_s: float = 7.0) -> Frames:
    """Frames as the splitter would give them for a clip that begins `begin_s` into its video."""
    times, all_times = np.arange(0, duration_s - 1e-9, 1 / fps), np.arange(0, duration_s - 1e-9, 1 / PER_S)
    later = np.minimum(times + 1 / 15, duration_s - 1 / PER_S)
    gray = [cv2.cvtColor(view(t), cv2.COLOR_RGB2GRAY) for t in all_times]
    signals = {"time_s": all_times + begin_s, "luma": [g.mean() for g in gray], "luma_diff": 0 * all_times, "edge_diff": 0 * all_times}
    return Frames(
        np.stack([view(t) for t in times]),
        np.stack([cv2.cvtColor(view(t), cv2.COLOR_RGB2GRAY) for t in later]),
        times + begin_s,
        np.maximum(later - times, 0).astype(np.float32),
        fps,
        {name: np.asarray(values, np.float32) for name, values in signals.items()},
    )


class Made:
    """What tests build their clips of (pytest's importlib mode lets no test import this file)."""

    look, square, frames_of = staticmethod(look), staticmethod(square), staticmethod(frames_of)


@pytest.fixture(scope="session")
def made() -> type[Made]:
    return Made
