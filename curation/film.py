"""Film: an MP4 that is written frame by frame, as pictures are made rather than decoded."""

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import numpy as np
import numpy.typing as npt
from av.bitstream import BitStreamFilterContext
from av.codec.context import Flags
from av.video.reformatter import ColorRange, Colorspace

from curation.video import open_output

_BT709 = 1
X264 = "lookahead-threads=1:sliced-threads=0:cpu-independent=1"
"""What makes x264's bytes a function of its input: no threads of its own, and nothing that another processor would compute otherwise. Without the last its
AVX-512 code reads memory behind rows whose width is no multiple of 64, and a process's first film has other bytes than its second."""


class Film:
    """An MP4 in the making, x264 in limited-range BT.709 yuv420p as the clips of `curation.cut`; a context manager.

    The same frames give the same bytes. Until it is closed the film is `<path>.part`; if an error ends it, nothing is left.

    Args:
        path: where it shall be; what is there is replaced.
        fps: frames a second.
        crf: x264's constant quality, 0 (best) to 51.

    Raises:
        OSError: it cannot be written there.
    """

    def __init__(self, path: Path, fps: float, crf: int = 18) -> None:
        self.path, self.frames = path, 0
        self._rate, self._crf = Fraction(fps).limit_denominator(1001), crf
        self._part = path.with_name(path.name + ".part")
        self._file = open(self._part, "wb")  # noqa: SIM115 - closed by __exit__
        self._container = open_output(self._file)
        self._stream: av.VideoStream | None = None
        self._without_sei: BitStreamFilterContext | None = None

    def add(self, frames_THWC: npt.NDArray[np.uint8]) -> None:
        """Appends frames, uint8 RGB [T, H, W, 3].

        Raises:
            ValueError: no such frames, odd sides, or sides unlike those of the frames before.
        """
        shape = frames_THWC.shape
        if len(shape) != 4 or shape[3] != 3 or frames_THWC.dtype != np.uint8 or shape[1] % 2 or shape[2] % 2:
            raise ValueError(f"a film takes uint8 RGB [T, H, W, 3] with even sides, got {frames_THWC.dtype} {list(shape)}")
        stream = self._stream = self._stream or self._opened(shape[2], shape[1])
        if (stream.height, stream.width) != shape[1:3]:
            raise ValueError(f"frames of {shape[2]}x{shape[1]} px in a film of {stream.width}x{stream.height}; a film has one size")
        for rgb in frames_THWC:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), "rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
            frame.pts, frame.time_base = self.frames, 1 / self._rate
            self._mux(stream.encode(frame))
            self.frames += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if self._stream is not None and kind is None:
                self._mux(self._stream.encode())
            if self._stream is not None:
                self._container.close()
        finally:
            self._file.close()
            if kind is None and self.frames:
                os.replace(self._part, self.path)
            else:
                self._part.unlink(missing_ok=True)

    def _mux(self, packets: Sequence[Any]) -> None:
        """Packets without what x264 tells of itself."""
        self._without_sei = self._without_sei or BitStreamFilterContext("filter_units=remove_types=6", self._stream)
        for packet in packets:
            self._container.mux(self._without_sei.filter(packet))

    def _opened(self, width: int, height: int) -> av.VideoStream:
        """The stream, once the size is known."""
        options = {"crf": str(self._crf), "preset": "veryfast", "x264-params": X264}
        stream: av.VideoStream = self._container.add_stream("libx264", rate=self._rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        context.time_base, context.thread_count = 1 / self._rate, 1
        context.flags |= Flags.bitexact
        context.color_primaries = context.color_trc = context.colorspace = context.color_range = _BT709
        return stream
