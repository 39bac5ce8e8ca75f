"""Motion: how much of the picture moves, how fast, how steadily, and how much its brightness flickers."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from curation.clips import ClipError
from curation.frames import F32, U8, Frames
from curation.luma import Edges, at_side

F = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Motion:
    """Dense optical flow between each sample and its neighbour about 1/15 s later, and what brightness does meanwhile.

    Speeds are shares of the frame's diagonal per second: size, codec and frame rate do not enter. Every sample of the clip
    counts alike, first half and second. Magnitudes are taken before anything is averaged, so opposite motions do not cancel,
    and the share of the picture is an upper percentile, so one small subject before a fixed camera is seen.

    Source: Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016 (DIS, as in OpenCV).

    Attributes:
        side: short side in px at which flow is measured; every clip is brought to it, smaller ones too, so that size does not matter.
        texture: gray levels per px below which a pixel's flow is taken for 0: on an even wall, rounding and compression alone make flow.
        still_speed: share of the diagonal per second under which a pixel counts as still.
        swing: change of mean brightness, share of full range, that counts as a swing of the flicker measure.
    """

    scores: ClassVar[Mapping[str, str]] = {
        "flow": "share of the diagonal per s: 95th percentile over the picture, mean of the middle 80 % of the samples",
        "moving_share": "share of the picture that moves, mean over time",
        "stability": "1 = the same speed throughout; mean speed / (mean speed + mean change between samples)",
        "edge_diff": "share of edge pixels that a sample and its neighbour do not have in common, median over time",
        "luma_diff": "mean absolute luma difference between a sample and its neighbour, share of full range, mean over time",
        "flicker": "share of full range per s: swings of mean brightness that turn back within half a second",
        "static_share": "share of the samples in which nothing moves",
    }
    side: int = 192
    texture: float = 1.5
    still_speed: float = 0.005
    swing: float = 0.02

    def score(self, frames: Frames) -> dict[str, float]:
        """The scores of one clip.

        Raises:
            ClipError: "too_short" if no sample has a later neighbour.
        """
        moving = [i for i in range(len(frames)) if frames.dt_s[i] > 0]
        if not moving:
            raise ClipError("too_short", "no sample has a later neighbour to measure motion against")
        flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        lumas = frames.lumas(self.side)
        rows = np.array([self._pair(flow, lumas[i], at_side(frames.next_luma[i], self.side), float(frames.dt_s[i])) for i in moving])
        speed, share, edge, luma = rows.T
        return {
            "flow": middle_mean(speed),
            "moving_share": float(share.mean()),
            "stability": steadiness(speed),
            "edge_diff": float(np.median(edge)),
            "luma_diff": float(luma.mean()),
            "flicker": flicker(frames.signals["luma"] / 255.0, frames.signals["time_s"], self.swing),
            "static_share": float((speed < self.still_speed).mean()),
        }

    def _pair(self, flow: cv2.DISOpticalFlow, one: U8, two: U8, dt_s: float) -> tuple[float, float, float, float]:
        """(95th percentile of speed, share that moves, edge difference, luma difference) of one pair."""
        speed = speeds(flow, one, two)
        speed[slope(one)[::2, ::2] < self.texture] = 0.0
        unit = float(np.hypot(*one.shape)) * dt_s
        return (
            percentile(speed, 95) / unit,
            cv2.countNonZero(cv2.compare(speed, self.still_speed * unit, cv2.CMP_GT)) / speed.size,
            Edges.of(one).change(Edges.of(two)),
            cv2.norm(one, two, cv2.NORM_L1) / one.size / 255.0,
        )


def speeds(flow: cv2.DISOpticalFlow, one: U8, two: U8) -> F32:
    """Px that every second pixel of every second row moves by, from `one` to `two`, float32 [H / 2, W / 2]: flow itself is found at every fourth."""
    field = flow.calc(one, two, None)[::2, ::2]
    return np.asarray(cv2.magnitude(field[..., 0], field[..., 1]), np.float32)


def percentile(values: npt.NDArray[Any], q: float) -> float:
    """As np.percentile, at a quarter of its cost: the `q`-th, between 0 and 100, of one value or more that are all numbers."""
    flat = np.asarray(values).ravel()
    place = (flat.size - 1) * q / 100
    below = int(place)
    around = np.partition(flat, below)
    low = float(around[below])
    high = float(around[below + 1 :].min()) if place > below else low
    return low + (high - low) * (place - below)


def slope(luma: U8) -> F32:
    """Gray levels per px of the steepest change around each pixel, float32 [H, W]."""
    across, down = (cv2.Sobel(luma, cv2.CV_32F, dx, 1 - dx, scale=0.125) for dx in (1, 0))
    return np.asarray(cv2.GaussianBlur(cv2.magnitude(across, down), (0, 0), 1.5), np.float32)


def middle_mean(values: F) -> float:
    """Mean of the values between the 10th and the 90th percentile: one odd sample decides nothing, a moving half still counts."""
    low, high = np.percentile(values, [10, 90])
    return float(values[(values >= low) & (values <= high)].mean())


def steadiness(speed: F) -> float:
    """1 for a constant speed (also for none), towards 0 when every sample differs from the last by more than the mean."""
    mean = float(speed.mean())
    change = float(np.abs(np.diff(speed)).mean()) if len(speed) > 1 else 0.0
    return mean / (mean + change) if mean + change > 0 else 1.0


def flicker(level: F32, time_s: F32, swing: float, turn_s: float = 0.5) -> float:
    """Brightness swings that turn back within `turn_s`, as share of full range per second.

    Turning points are kept where the level goes back by at least `swing`, so that noise, slow fades, and the number of frames
    between two turning points do not matter: 15 and 60 frames per second of the same lamp give the same figure.

    Args:
        level: mean brightness in [0, 1], one a source frame [N].
        time_s: its times [N].
    """
    points = [0]
    for i in range(1, len(level)):
        rising = len(points) < 2 or level[points[-1]] >= level[points[-2]]
        onward = level[i] >= level[points[-1]] if rising else level[i] <= level[points[-1]]
        if len(points) < 2:
            if abs(level[i] - level[points[0]]) >= swing:
                points.append(i)
        elif onward:
            points[-1] = i
        elif abs(level[i] - level[points[-1]]) >= swing:
            points.append(i)
    swings = [(abs(float(level[b] - level[a])), float(time_s[b] - time_s[a])) for a, b in itertools.pairwise(points)]
    short = [size for (size, length), (_, after) in itertools.pairwise(swings) if min(length, after) <= turn_s]
    duration = float(time_s[-1] - time_s[0])
    return sum(short) / duration if duration > 0 else 0.0
