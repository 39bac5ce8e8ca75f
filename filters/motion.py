"""Motion: how much of the picture moves, how fast, how steadily, and how much its brightness flickers."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from curation.clips import ClipError
from curation.frames import F32, U8, Frames

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
        rows = np.array([self._pair(flow, luma_of(frames.rgb[i]), frames.next_luma[i], float(frames.dt_s[i])) for i in moving])
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

    def _pair(self, flow: cv2.DISOpticalFlow, luma: U8, later: U8, dt_s: float) -> tuple[float, float, float, float]:
        """(95th percentile of speed, share that moves, edge difference, luma difference) of one pair."""
        one, two = at_side(luma, self.side), at_side(later, self.side)
        field = flow.calc(one, two, None)
        speed = cv2.magnitude(field[..., 0], field[..., 1]) / (float(np.hypot(*one.shape)) * dt_s)
        speed = np.where(slope(one) >= self.texture, speed, 0.0)
        return (
            float(np.percentile(speed, 95)),
            float((speed > self.still_speed).mean()),
            edge_difference(one, two),
            float(cv2.absdiff(one, two).mean()) / 255.0,
        )


def luma_of(rgb: U8) -> U8:
    """Luma of one picture, uint8 [H, W], as `Frames.luma` to one level, at a tenth of its cost."""
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)


def at_side(luma: U8, side: int) -> U8:
    """The picture [H, W] with its short side `side` px; smaller ones are enlarged."""
    scale = side / min(luma.shape)
    size = (max(1, round(luma.shape[1] * scale)), max(1, round(luma.shape[0] * scale)))
    return np.asarray(cv2.resize(luma, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR), np.uint8)


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


def edge_difference(one: U8, two: U8) -> float:
    """Share of the edge pixels of either picture that the other has not within one pixel; 0 where there are no edges."""
    a, b = (cv2.Canny(picture, 100, 200) for picture in (one, two))
    near = np.ones((3, 3), np.uint8)
    lost = np.count_nonzero(a & ~cv2.dilate(b, near)) + np.count_nonzero(b & ~cv2.dilate(a, near))
    edges = np.count_nonzero(a) + np.count_nonzero(b)
    return lost / edges if edges else 0.0


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
