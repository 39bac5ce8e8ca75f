"""Scenes whose truth is known by construction: a textured plane, a camera over it, a patch that acts, a lamp, noise."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from curation.frames import Frames

cv2.setNumThreads(1)


@lru_cache(maxsize=4)
def texture(seed: int, side: int = 1024) -> npt.NDArray[np.float32]:
    """A picture with the spectrum of natural ones (amplitude falls with frequency), float32 [side, side, 3] in [0, 255]."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
    frequency[0, 0] = 1.0
    layers = [np.fft.ifft2(np.fft.fft2(rng.normal(size=(side, side))) / frequency**1.2).real for _ in range(3)]
    shared = layers[0]
    picture = np.stack([shared + 0.4 * layer for layer in layers], -1)
    return np.clip(128 + 48 * (picture - picture.mean()) / picture.std(), 0, 255).astype(np.float32)


@dataclass(frozen=True)
class Scene:
    """A clip to be. Speeds are shares of the picture's diagonal per second; `zoom` is relative growth per second.

    Attributes:
        pan: (x, y) speed of the picture's content.
        patch: speed of a textured patch of a quarter of the picture's width, to and fro, or None without one.
        lamp: brightness factor at a time.
        blank: (from, to) seconds within which the picture is one colour.
        starts_s: nothing moves before.
    """

    pan: tuple[float, float] = (0.0, 0.0)
    zoom: float = 0.0
    patch: float | None = None
    lamp: Callable[[float], float] = lambda _: 1.0
    noise: float = 0.0
    blur: float = 0.0
    shake: float = 0.0
    blank: tuple[float, float] = (0.0, 0.0)
    starts_s: float = 0.0
    seconds: float = 2.5625
    width: int = 320
    height: int = 180
    fps: float = 30.0
    seed: int = 0
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(7))

    def picture(self, at_s: float) -> npt.NDArray[np.uint8]:
        """The picture at a time, uint8 [H, W, 3]."""
        size, now = (self.width, self.height), max(0.0, at_s - self.starts_s)
        if self.blank[0] <= at_s < self.blank[1]:
            return np.full((self.height, self.width, 3), 16, np.uint8)
        unit = float(np.hypot(320, 180))  # the world is laid out in px of a 320 x 180 picture
        shake = self.shake * unit * np.array([np.sin(40 * now), np.cos(33 * now)]) if self.shake else np.zeros(2)
        shift, grown, size_by = np.array(self.pan) * unit * now + shake, np.exp(self.zoom * now), self.width / 320
        centre = np.array([160.0, 90.0])
        offset = (centre + shift - grown * 512) * size_by
        view = np.array([[grown * size_by, 0, offset[0]], [0, grown * size_by, offset[1]]])
        picture = cv2.warpAffine(texture(self.seed), view, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        if self.patch is not None:
            self._act(picture, now, unit)
        picture = picture * self.lamp(at_s) + self.rng.normal(0, self.noise, picture.shape) if self.noise else picture * self.lamp(at_s)
        if self.blur:
            picture = cv2.GaussianBlur(picture, (0, 0), self.blur)
        return np.clip(picture, 0, 255).astype(np.uint8)

    def _act(self, picture: npt.NDArray[np.float32], now: float, unit: float) -> None:
        """Draws the patch: to and fro with a period of two seconds, always at its speed."""
        phase = now % 2.0
        travel = (self.patch or 0.0) * unit * (phase if phase < 1 else 2 - phase)
        by = self.width / 320
        view = np.array([[by, 0, (40 + travel - 100) * by], [0, by, (50 - 100) * by]])
        drawn = cv2.warpAffine(texture(self.seed + 1), view, (self.width, self.height), flags=cv2.INTER_LINEAR)
        left, top = round((40 + travel) * by), round(50 * by)
        part = np.s_[top : top + round(80 * by), left : left + round(80 * by)]
        picture[part] = drawn[part]

    def frames(self, samples: float = 4.0) -> Frames:
        """The clip as the splitter would give it: samples and the source frame nearest to 1/15 s later."""
        count = int(self.seconds * self.fps)
        times = np.arange(count) / self.fps
        chosen = sorted({int(np.argmin(abs(times - k / samples))) for k in range(int(self.seconds * samples))})
        later = [min(i + max(1, round(self.fps / 15)), count - 1) for i in chosen]
        cache = {i: self.picture(times[i]) for i in sorted({*chosen, *later})}
        luma = {i: cv2.cvtColor(p, cv2.COLOR_RGB2GRAY) for i, p in cache.items()}
        mean = np.array([luma[i].mean() if i in luma else cv2.cvtColor(self.picture(times[i]), cv2.COLOR_RGB2GRAY).mean() for i in range(count)], np.float32)
        nothing = np.zeros(count, np.float32)
        signals = {"time_s": times.astype(np.float32), "luma": mean, "luma_diff": nothing, "edge_diff": nothing}
        gaps = np.array([times[j] - times[i] for i, j in zip(chosen, later, strict=True)], np.float32)
        return Frames(np.stack([cache[i] for i in chosen]), np.stack([luma[j] for j in later]), times[chosen], gaps, samples, signals)


@pytest.fixture(scope="session")
def scene() -> type[Scene]:
    """The Scene class: `scene(pan=(0.1, 0)).frames()`."""
    return Scene
