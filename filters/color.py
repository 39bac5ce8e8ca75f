"""Colour: how much of a clip is one uniform colour, at its head, its tail, and anywhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

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
        small = [shrunk(picture) for picture in frames.rgb]
        even = np.array([evenness(picture, self.near) for picture in small])
        uniform, since = even >= self.area, frames.time_s - frames.time_s[0]
        contrast = [float(cv2.transform(picture.astype(np.float32), np.full((1, 3), 1 / 3)).std()) / 255.0 for picture in small]
        return {
            "head": float(uniform[since < self.ends_s].mean()),
            "tail": float(uniform[since > since[-1] - self.ends_s].mean()),
            "anywhere": float(uniform.mean()),
            "evenness": float(np.median(even)),
            "contrast": float(np.median(contrast)),
        }


def shrunk(picture: U8, side: int = 64) -> U8:
    """The picture [H, W, 3] with sides of about `side` px, each px the mean of a whole number of rows and columns (what is left at the end is dropped)."""
    height, width = picture.shape[:2]
    rows, columns = max(1, round(height / side)), max(1, round(width / side))
    size = (width // columns, height // rows)
    return np.asarray(cv2.resize(picture[: size[1] * rows, : size[0] * columns], size, interpolation=cv2.INTER_AREA), np.uint8)


def evenness(picture: U8, near: int) -> float:
    """Share of the pixels of `picture` [H, W, 3] within `near` levels of its most common colour (to 16 levels a channel)."""
    counts = cv2.calcHist([picture], [0, 1, 2], None, [16, 16, 16], [0, 256] * 3)
    common = np.array(np.unravel_index(counts.argmax(), counts.shape))
    there = cv2.inRange(picture, 16 * common, 16 * common + 15) > 0
    colour = np.median(picture[there], axis=0)
    return float(cv2.countNonZero(cv2.inRange(picture, np.ceil(colour - near), np.floor(colour + near))) / there.size)
