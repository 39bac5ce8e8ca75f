"""Picture: one decoded frame at analysis size, upright, with square pixels; and Look: how a video's frames become such pictures."""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, TypeVar, cast

import av
import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from curation.frames import U8
from curation.hdr import HLG, PQ, tone_map
from curation.luma import luma_of

Scalar = TypeVar("Scalar", bound=np.generic)

#: Area averaging: as cheap as bilinear in swscale when a picture shrinks, and free of aliasing. ACCURATE_RND and BITEXACT cost
#: a tenth of the scaling and make the pixels the same on every processor.
SCALER = Interpolation(Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.BITEXACT)

#: swscale's matrix by the stream's matrix coefficients (ITU-T H.273); everything else is guessed from the size.
_MATRIX = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
    10: Colorspace.BT2020,
}


def analysis_size(width: int, height: int, short: int) -> tuple[int, int]:
    """(width, height) in px of the analysis picture of a display size: short side `short`, never enlarged, even, 196608 px at most."""
    scale = min(1.0, short / min(width, height), math.sqrt(131072 * 1.5 / (width * height)))
    return _even(width, scale), _even(height, scale)


def _even(side: int, scale: float) -> int:
    return max(2, min(2 * int(side * scale / 2 + 0.5), side - side % 2))


class Look:
    """How the frames of one video become upright pictures with square pixels in 8-bit SDR.

    Attributes:
        width, height: display size in px: pixel aspect and rotation applied (a wide pixel widens, a tall one heightens).
        rotation: degrees counterclockwise that the container asks for, in [0, 360).
        size: (width, height) of the pictures in px, and coded_size the same before they are made upright.
        notes: "rotated_90", "flipped", "anamorphic", "interlaced", "hdr", "alpha".
    """

    def __init__(self, frame: av.VideoFrame, sar: Fraction | None, fit: Callable[[int, int], tuple[int, int]]) -> None:
        """`frame` is the first decoded one, `sar` the pixel aspect, `fit` gives the pictures' (width, height) for the display size."""
        self.rotation = round(frame.rotation / 90) * 90 % 360
        self._transpose, self._rows, self._columns = _orientation(frame)
        width, height = frame.width, frame.height
        if sar and sar > 0 and sar != 1:
            width, height = (round(width * sar), height) if sar > 1 else (width, round(height / sar))
        self.width, self.height = (height, width) if self._transpose else (width, height)
        self.size = fit(self.width, self.height)
        self.coded_size = self.size[::-1] if self._transpose else self.size
        self._alpha = any(c.is_alpha for c in frame.format.components)
        self._hdr = int(frame.color_trc) in (PQ, HLG)
        self._guess = Colorspace.ITU709 if max(frame.width, frame.height) >= 1280 or min(frame.width, frame.height) >= 720 else Colorspace.ITU601
        self._shrink, self._rgb, self._thumb, self._wide = (VideoReformatter().reformat for _ in range(4))
        self.notes = self._notes(frame, sar)

    def _notes(self, frame: av.VideoFrame, sar: Fraction | None) -> tuple[str, ...]:
        flipped = (self._transpose + self._rows + self._columns) % 2 == 1
        flags = {
            f"rotated_{self.rotation}": self.rotation != 0 and not flipped,
            "flipped": flipped,
            "anamorphic": bool(sar and sar > 0 and abs(sar - 1) > 0.02),
            "interlaced": frame.interlaced_frame,
            "hdr": self._hdr,
            "alpha": self._alpha,
        }
        return tuple(name for name, is_so in flags.items() if is_so)

    def small(self, frame: av.VideoFrame) -> av.VideoFrame:
        """`frame` at picture size, not yet upright: full-range yuv420p in the matrix that its `colorspace` says."""
        width, height = self.coded_size
        plain = self.plain(frame, width, height)
        matrix = self.matrix(plain)
        return self._shrink(plain, width, height, "yuv420p", matrix, matrix, SCALER, dst_color_range=ColorRange.JPEG, threads=1)

    def rgb(self, small: av.VideoFrame) -> U8:
        """uint8 [H, W, 3], upright, of a frame of `small`."""
        matrix = self.matrix(small)
        rgb: Any = self._rgb(small, format="rgb24", src_colorspace=matrix, interpolation=SCALER, threads=1).to_ndarray()
        return self.upright(rgb)

    def thumb(self, small: av.VideoFrame, width: int, height: int) -> U8:
        """uint8 [height, width, 3], upright, area-resized whatever the aspect."""
        if self._transpose:
            width, height = height, width
        matrix = self.matrix(small)
        rgb: Any = self._thumb(small, width, height, "rgb24", src_colorspace=matrix, interpolation=SCALER, threads=1).to_ndarray()
        return self.upright(rgb)

    def upright(self, array: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """[H, W, ...] as coded to [H', W', ...] as displayed, contiguous."""
        if self._transpose:
            array = array.swapaxes(0, 1)
        return np.ascontiguousarray(array[:: -1 if self._rows else 1, :: -1 if self._columns else 1])

    def matrix(self, frame: av.VideoFrame) -> int:
        """swscale's matrix for a frame: the tagged one; where there is none, BT.709 for high definition, BT.601 below.

        Source: the convention of players for untagged video (mpv): 1280 columns or 720 lines and more are BT.709.
        """
        return int(_MATRIX.get(int(frame.colorspace), self._guess))

    def plain(self, frame: av.VideoFrame, width: int, height: int) -> av.VideoFrame:
        """`frame` itself, or where it has alpha (put on black) or high dynamic range (tone-mapped), rgb24 of `width` x `height`."""
        if not self._hdr and not self._alpha:
            return frame
        to = "rgb48le" if self._hdr else "rgba"
        wide: Any = self._wide(frame, width, height, to, src_colorspace=self.matrix(frame), interpolation=SCALER, threads=1).to_ndarray()
        rgb = tone_map(wide, int(frame.color_trc)) if self._hdr else _on_black(wide)
        return av.VideoFrame.from_ndarray(rgb, format="rgb24")


def _on_black(rgba: U8) -> U8:
    return ((rgba[..., :3].astype(np.uint16) * rgba[..., 3:] + 127) // 255).astype(np.uint8)


def _orientation(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """(transpose, reverse rows, reverse columns), in this order, that make a coded frame upright.

    Source: ISO/IEC 14496-12, 8.3.2: (x', y') = (a x + c y, b x + d y).
    """
    side_data: Any = frame.side_data  # a mapping, whatever the stubs say
    if SideData.DISPLAYMATRIX not in side_data:
        return False, False, False
    a, b, _, c, d = np.frombuffer(bytes(side_data[SideData.DISPLAYMATRIX]), np.int32)[:5].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        return True, b < 0, c < 0
    return False, d < 0, a < 0


class Picture:
    """One decoded frame at analysis size.

    Attributes:
        index: 0, 1, ... in presentation order since the video's first decoded frame.
        pts: presentation time in the stream's time_base, as in the file.
        time_s: s since the video's first frame.
    """

    __slots__ = ("_look", "_small", "index", "pts", "time_s")

    def __init__(self, index: int, pts: int, time_s: float, small: av.VideoFrame, look: Look) -> None:
        self.index, self.pts, self.time_s, self._small, self._look = index, pts, time_s, small, look

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in px, upright."""
        width, height = self._look.size
        return height, width

    @property
    def luma(self) -> U8:
        """uint8 [H, W], the video's own luma in full range (BT.709 weights in high definition, BT.601 below)."""
        plane = self._small.planes[0]
        return self._look.upright(np.frombuffer(cast(bytes, plane), np.uint8).reshape(-1, plane.line_size)[: self._small.height, : self._small.width])

    def rgb(self) -> U8:
        """The picture as uint8 [H, W, 3] R'G'B' in [0, 255]."""
        return self._look.rgb(self._small)

    def rgb_luma(self) -> U8:
        """uint8 [H, W]: `curation.luma.luma_of` of `rgb()`; differs from `luma` where the video is BT.709."""
        return luma_of(self.rgb())

    def thumb(self, width: int, height: int) -> U8:
        """The picture as uint8 [height, width, 3] RGB, area-resized whatever its aspect."""
        return self._look.thumb(self._small, width, height)
