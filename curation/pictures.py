"""Picture: one decoded frame at analysis size, in display orientation, with square pixels; and how it is made."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from curation.frames import U8

#: Area averaging: as cheap as bilinear in swscale when a picture shrinks, and free of aliasing. ACCURATE_RND and BITEXACT cost 3 % of the scaling
#: and make the pixels the same on every processor.
SCALER = int(Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.BITEXACT)


def analysis_size(width: int, height: int, short: int) -> tuple[int, int]:
    """Width and height of the analysis picture of a display size: short side `short`, never enlarged, even, 196608 px at most."""
    scale = min(1.0, short / min(width, height), math.sqrt(131072 * 1.5 / (width * height)))
    return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)


def display_size(width: int, height: int, sar: Fraction | None, rotation: int) -> tuple[int, int]:
    """Width and height with square pixels after the quarter turns of `rotation`; a wide pixel widens, a tall one heightens."""
    if sar and sar > 0 and sar != 1:
        width, height = (round(width * sar), height) if sar > 1 else (width, round(height / sar))
    return (height, width) if rotation % 180 else (width, height)


class Picture:
    """One decoded frame at analysis size.

    Attributes:
        index: 0, 1, ... in presentation order since the video's first decoded frame.
        pts: presentation time in the stream's time_base, as in the file.
        time_s: s since the video's first frame.
        luma: uint8 [H, W], the frame's own luma in full range.
    """

    __slots__ = ("_small", "_turn", "index", "luma", "pts", "time_s")

    def __init__(self, index: int, pts: int, time_s: float, small: av.VideoFrame, turn: int) -> None:
        self.index, self.pts, self.time_s, self._small, self._turn = index, pts, time_s, small, turn
        plane = small.planes[0]
        luma = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: small.height, : small.width]
        self.luma: U8 = _turned(luma, turn)

    def rgb(self) -> U8:
        """The picture as uint8 [H, W, 3] sRGB-like R'G'B' in [0, 255]."""
        return _turned(self._small.to_ndarray(format="rgb24", interpolation=SCALER, threads=1), self._turn)

    def thumb(self, width: int, height: int) -> U8:
        """The picture as uint8 [height, width, 3] RGB, area-resized whatever its aspect."""
        return np.asarray(cv2.resize(self.rgb(), (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _turned(array: U8, turn: int) -> U8:
    return np.ascontiguousarray(np.rot90(array, turn)) if turn else np.ascontiguousarray(array)


def colorspace_of(frame: av.VideoFrame) -> int:
    """swscale's matrix for a frame: the tagged one; where there is none, BT.709 from 720 lines or 1280 columns on, BT.601 below.

    Source: the convention of players for untagged video (mpv, VLC): high definition is BT.709.
    """
    tagged = {1: Colorspace.ITU709, 4: Colorspace.FCC, 5: Colorspace.ITU601, 6: Colorspace.ITU601, 7: Colorspace.SMPTE240M}
    tagged |= {9: Colorspace.BT2020, 10: Colorspace.BT2020}
    guess = Colorspace.ITU709 if frame.height >= 720 or frame.width >= 1280 else Colorspace.ITU601
    return int(tagged.get(int(frame.colorspace), guess))


@dataclass(frozen=True)
class Look:
    """How a video's frames become pictures: display size in px, counterclockwise rotation in degrees, flags, and the shrinking function."""

    width: int
    height: int
    rotation: int
    turn: int
    notes: tuple[str, ...]
    shrink: Callable[[av.VideoFrame], av.VideoFrame]

    @classmethod
    def of(cls, frame: av.VideoFrame, sar: Fraction | None, short: int) -> "Look":
        """The look of the video whose first decoded frame is `frame`, with `sar` as pixel aspect, at analysis size `short`."""
        rotation = round(frame.rotation / 90) * 90 % 360
        width, height = display_size(frame.width, frame.height, sar, rotation)
        w, h = analysis_size(width, height, short)
        small = (h, w) if rotation % 180 else (w, h)
        notes = ["interlaced"] if frame.interlaced_frame else []
        notes += [f"rotated_{rotation}"] if rotation else []
        return cls(width, height, rotation, rotation // 90, tuple(notes), _shrinker(*small))


def _shrinker(width: int, height: int) -> Callable[[av.VideoFrame], av.VideoFrame]:
    """A function from decoded frames to full-range yuv420p of `width` x `height`; the matrix stays the source's."""
    reformat = VideoReformatter().reformat
    options: dict[str, Any] = {"format": "yuv420p", "interpolation": SCALER, "dst_color_range": ColorRange.JPEG, "threads": 1}

    def shrink(frame: av.VideoFrame) -> av.VideoFrame:
        return reformat(frame, width, height, **options)

    return shrink
