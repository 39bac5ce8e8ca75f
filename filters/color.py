"""Colour: how much of a clip is one uniform colour, at its head, its tail, and anywhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from curation.frames import U8, Frames


@dataclass(frozen=True)
class Color:
    """Shares of time in which the picture is (nearly) one colour: blank leaders, fades to black, colour cards.

    A picture counts as uniform by the share of its area that is near its own most common colour, so a small logo, burnt-in time code
    or compression noise does not hide a blank picture. Nothing is compared with black: any colour counts.

    Source: PAN, section 6.2.1 (videos that begin or end with nearly uniform frames).

    Attributes:
        near: distance in gray levels, on every channel, within which a pixel has the picture's colour.
        area: share of the picture that must have it.
        ends_s: seconds at the head and the tail that count as such.
    """

    scores: ClassVar[Mapping[str, str]] = {
        "head": "share of the first second's samples that are one colour",
        "tail": "share of the last second's samples that are one colour",
        "anywhere": "share of all samples that are one colour",
        "evenness": "share of the picture that has its most common colour, median over time",
        "contrast": "standard deviation of luma, share of full range, median over time",
    }
    near: int = 10
    area: float = 0.95
    ends_s: float = 1.0

    def score(self, frames: Frames) -> dict[str, float]:
        """The scores of one clip."""
        small = [cv2.resize(picture, (64, 64), interpolation=cv2.INTER_AREA) for picture in frames.rgb]
        even = np.array([evenness(picture.astype(np.uint8, copy=False), self.near) for picture in small])
        uniform, since = even >= self.area, frames.time_s - frames.time_s[0]
        contrast = [float(picture.astype(np.float32).mean(axis=2).std()) / 255.0 for picture in small]
        return {
            "head": float(uniform[since < self.ends_s].mean()),
            "tail": float(uniform[since > since[-1] - self.ends_s].mean()),
            "anywhere": float(uniform.mean()),
            "evenness": float(np.median(even)),
            "contrast": float(np.median(contrast)),
        }


def evenness(picture: U8, near: int) -> float:
    """Share of the pixels of `picture` [H, W, 3] within `near` levels of its most common colour (to 16 levels a channel)."""
    pixels = picture.reshape(-1, 3)
    bins: npt.NDArray[np.int64] = (pixels >> 4).astype(np.int64) @ np.array([256, 16, 1])
    common = np.bincount(bins, minlength=4096).argmax()
    colour = np.median(pixels[bins == common], axis=0)
    return float((np.abs(pixels - colour).max(axis=1) <= near).mean())
