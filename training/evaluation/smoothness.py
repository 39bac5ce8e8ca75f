"""Transition smoothness: how evenly a film moves, above all where chunks are joined, from dense optical flow."""

# T frames; flow in px of a picture whose long side is 512 px, whatever the film's own size is.

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from training.model.plain import must

Flow_HW2 = npt.NDArray[np.float32]

#: Flow is measured in px of a picture of this long side, so that films of all sizes compare. Source: our choice, the paper tells none.
LONG_SIDE = 512
#: Accelerations whose middle frame lies so near to a join are the join's: from two frames before the first new frame to one after it.
AROUND = 2


@dataclass(frozen=True, kw_only=True)
class SmoothnessSettings:
    """What PAN's paper leaves open; no choice of these gives its own absolute figures, so compare films under one setting only.

    Source: PAN (arXiv 2511.09057v3) 7.2: dense optical flow, velocity, acceleration, the inverse exponential of the acceleration's magnitude.
    """

    flow: Literal["dis", "horn_schunck"] = "dis"
    """dis: dense inverse search (Kroeger 2016), for any motion; horn_schunck: what the paper cites (1981), for motions of a px or two a frame."""
    warped: bool = False
    """Acceleration of what moves (its place followed from frame to frame), rather than at each place of the picture."""
    scale: float = 1.0
    """How fast the score falls with the acceleration."""


@dataclass(frozen=True)
class Smoothness:
    """How smooth a film is.

    Attributes:
        score: exp(-scale * mean acceleration), 0 to 1; a film that stands still has 1: read it with `speed`.
        joins: the same over the accelerations at chunk joins; None where there are no joins.
        elsewhere: the same over all others; None where there are none.
        speed: mean length of the flow, px a frame.
    """

    score: float
    joins: float | None
    elsewhere: float | None
    speed: float


def smoothness(film_THWC: npt.NDArray[np.uint8], joins: Iterable[int] = (), settings: SmoothnessSettings | None = None) -> Smoothness:
    """A film's smoothness.

    Args:
        film_THWC: uint8 RGB, at least three frames.
        joins: the number of each chunk's first frame where another chunk lies before it: 41, 81, ... in PAN.

    Raises:
        ValueError: fewer than three frames.
    """
    settings = settings or SmoothnessSettings()
    must(len(film_THWC) >= 3, f"smoothness: a film of {len(film_THWC)} frames; an acceleration needs three")
    grays = [_gray(frame) for frame in film_THWC]
    measure: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc if settings.flow == "dis" else _horn_schunck
    scale = LONG_SIDE / max(grays[0].shape)
    accelerations, speeds = [], []
    before: Flow_HW2 | None = None
    for k in range(len(grays) - 1):
        flow = measure(grays[k], grays[k + 1], None) * scale
        speeds.append(float(np.linalg.norm(flow, axis=-1).mean()))
        if before is not None:
            then = _followed(flow, before / scale) if settings.warped else flow
            accelerations.append(float(np.linalg.norm(then - before, axis=-1).mean()))
        before = flow
    return _scored(np.array(accelerations), list(joins), float(np.mean(speeds)), settings.scale)


def _scored(acceleration: npt.NDArray[np.float64], joins: list[int], speed: float, scale: float) -> Smoothness:
    """The score of all accelerations, of those at joins, and of the others."""
    middle = np.arange(1, len(acceleration) + 1)
    at_join = np.zeros(len(acceleration), bool)
    for first in joins:
        at_join |= (middle >= first - AROUND) & (middle < first + AROUND)

    def score(of: npt.NDArray[np.float64]) -> float | None:
        return float(np.exp(-scale * of.mean())) if len(of) else None

    return Smoothness(float(np.exp(-scale * acceleration.mean())), score(acceleration[at_join]), score(acceleration[~at_join]), speed)


def _gray(frame_HWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Luma, not larger than the side that flow is told in."""
    gray: npt.NDArray[np.uint8] = cv2.cvtColor(frame_HWC, cv2.COLOR_RGB2GRAY)
    large = max(gray.shape) / LONG_SIDE
    return gray if large <= 1 else cv2.resize(gray, None, fx=1 / large, fy=1 / large, interpolation=cv2.INTER_AREA)


def _followed(flow_HW2: Flow_HW2, moved_HW2: Flow_HW2) -> Flow_HW2:
    """The flow at the place that each px has moved to."""
    height, width = flow_HW2.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    followed: Flow_HW2 = cv2.remap(flow_HW2, x + moved_HW2[..., 0], y + moved_HW2[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return followed


#: Source: Horn and Schunck (1981), equations 10 to 13: the kernels of the derivatives and of the mean; weight and rounds are ours.
_X = np.array([[-1, 1], [-1, 1]], np.float32) / 4
_MEAN = np.array([[1, 2, 1], [2, 0, 2], [1, 2, 1]], np.float32) / 12
_WEIGHT, _ROUNDS = 15.0, 100


def _horn_schunck(gray: npt.NDArray[np.uint8], later: npt.NDArray[np.uint8], start: None) -> Flow_HW2:
    """Flow that changes brightness least and varies smoothly; found by Jacobi's iteration."""
    a, b = (cv2.GaussianBlur(picture.astype(np.float32), (0, 0), 0.8) for picture in (gray, later))
    dx, dy = (cv2.filter2D(a, -1, k) + cv2.filter2D(b, -1, k) for k in (_X, _X.T))
    dt = cv2.filter2D(b - a, -1, np.full((2, 2), 0.25, np.float32))
    u = np.zeros_like(a)
    v = np.zeros_like(a)
    for _ in range(_ROUNDS):
        mean_u, mean_v = cv2.filter2D(u, -1, _MEAN), cv2.filter2D(v, -1, _MEAN)
        share = (dx * mean_u + dy * mean_v + dt) / (_WEIGHT**2 + dx**2 + dy**2)
        u, v = mean_u - dx * share, mean_v - dy * share
    return np.stack([u, v], -1)
