"""Decoding as a stream: frames in presentation order with true times, under limits that hold at every frame."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av

from curation.clips import ClipError
from curation.limits import Limits, check_size

USUAL_FPS = Fraction(25)  # of a stream that says nothing; libav's own demuxers of bare streams assume it too

#: Containers without an index or a frame count: a recording that stops in the middle of its last frame is their normal end.
_OPEN_ENDED = frozenset({"mpegts", "mpeg", "flv", "rm", "hevc", "h264"})


@dataclass
class Clock:
    """Turns a frame's stamps into strictly increasing presentation times in time_base units.

    Of pts and dts the one counts that has gone backward less often (AVI and some FLV have no true pts); a frame with neither
    takes the average step (raw streams); a backward jump of more than a second, or from pts to dts, is a new start of the clock;
    a stamp that does not increase is moved one tick behind its predecessor.
    """

    time_base: Fraction
    rate: Fraction
    last: int | None = None
    offset: int = 0
    frames: int = 0
    moved: int = 0
    notes: list[str] = field(default_factory=list)
    _last_pts: int | None = None
    _last_dts: int | None = None
    _bad_pts: int = 0
    _bad_dts: int = 0
    _by_pts: bool = True
    _changed: bool = False
    _step: int = 1

    def __post_init__(self) -> None:
        self._step = max(1, round(1 / (self.rate * self.time_base)))

    def stamp(self, pts: int | None, dts: int | None) -> int:
        """The presentation time of the next frame.

        Raises:
            ClipError: bad_timestamps, if more than one frame in twenty has to be moved.
        """
        step = self._step
        raw = self._better(pts, dts)
        if raw is None:
            self._note("timestamps_made")
            now = 0 if self.last is None else self.last + step
        else:
            now = raw + self.offset
        if self.last is not None and now <= self.last:
            now = self._repaired(now, step)
        self.last = now
        self.frames += 1
        return now

    def _better(self, pts: int | None, dts: int | None) -> int | None:
        if pts is not None:
            self._bad_pts += self._last_pts is not None and pts <= self._last_pts
            self._last_pts = pts
        if dts is not None:
            self._bad_dts += self._last_dts is not None and dts <= self._last_dts
            self._last_dts = dts
        by_pts = pts is not None and (self._bad_pts <= self._bad_dts or dts is None)
        self._changed, self._by_pts = by_pts != self._by_pts, by_pts
        return pts if by_pts else dts

    def _repaired(self, now: int, step: int) -> int:
        last = self.last if self.last is not None else now
        self._note("timestamps_repaired")
        self.moved += 1
        if self.moved > 3 + self.frames / 20:
            raise ClipError("bad_timestamps", f"{self.moved} of {self.frames + 1} frames do not come after their predecessor")
        if self._changed or (last - now) * self.time_base > 1:
            self.offset += last + step - now
            return last + step
        return last + 1

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


@dataclass(frozen=True)
class Claims:
    """What a container says of itself: kind (a key of DEMUXERS), frames, seconds, rate; and why its end seems missing, if so."""

    kind: str
    frames: int | None
    duration_s: float | None
    rate: Fraction
    cut_short: str | None


@dataclass(frozen=True)
class VideoInfo:
    """What the header says, after checks. Sizes in px, display size with rotation and pixel aspect applied."""

    container: str
    codec: str
    width: int
    height: int
    coded_width: int
    coded_height: int
    rotation: int
    fps: float
    time_base: Fraction
    duration_s: float | None
    frames_claimed: int | None
    notes: tuple[str, ...]


def claims_of(container: Any, stream: Any, kind: str, cut_short: str | None, limits: Limits) -> Claims:
    """What the header claims, held against the limits.

    Raises:
        ClipError: duration_out_of_range, too_many_frames, fps_out_of_range.
    """
    indexed = kind in ("mov", "avi")
    rate = stream.average_rate or stream.guessed_rate
    seconds = float(stream.duration * stream.time_base) if stream.duration else None
    if seconds is None and container.duration:
        seconds = container.duration / 1e6
    frames = min(stream.frames, len(stream.index_entries)) if indexed and stream.frames else None
    if seconds is not None and seconds > limits.max_duration_s:
        raise ClipError("duration_out_of_range", f"{seconds:.0f} s, allowed are {limits.max_duration_s:.0f} s")
    if frames is not None and frames > limits.max_frames:
        raise ClipError("too_many_frames", f"{frames} claimed, allowed are {limits.max_frames}")
    if rate and not limits.min_fps <= rate <= limits.max_fps:
        if indexed:
            raise ClipError("fps_out_of_range", f"{float(rate):.3f}, allowed are {limits.min_fps} to {limits.max_fps}")
        rate = None  # outside MP4 and AVI the header's rate is a guess; decoding measures
    return Claims(kind, frames, seconds, rate or USUAL_FPS, cut_short)


class Decoder:
    """One pass over a video stream.

    Attributes:
        notes: flags found while decoding.
        first_pts: the first frame's presentation time; None before it.
        count: frames yielded so far.
    """

    def __init__(
        self, container: Any, stream: Any, decode: Callable[[Any], list[av.VideoFrame]], claims: Claims, limits: Limits, stamp: Callable[[], tuple[int, int]]
    ) -> None:
        self._container, self._stream, self._decode, self._claims, self._limits, self._stamp = container, stream, decode, claims, limits, stamp
        self._clock = Clock(stream.time_base, claims.rate)
        self.notes = self._clock.notes
        self.first_pts: int | None = None
        self.count = 0
        self._packets = 0
        self._error: str | None = None
        self._spent = 0.0
        self._size: tuple[int, int] | None = None
        self._opened_as = stamp()
        self._tick_s = float(stream.time_base)

    def frames(self, resume: bool = False) -> Iterator[tuple[int, av.VideoFrame]]:
        """(pts, frame) in presentation order; `resume` is for a pass that begins by a seek and may start in a broken group.

        Raises:
            ClipError: truncated, decode_error, io_error, source_changed, timeout, resolution_change, bad_timestamps, dims_out_of_range,
                fps_out_of_range, duration_out_of_range, too_many_frames, too_few_frames.
        """
        resumed = time.monotonic()
        try:
            for frame in self._raw():
                pts = self._clock.stamp(frame.pts, frame.dts)
                self._check(frame, pts)
                self.count += 1
                self._spent += time.monotonic() - resumed
                yield pts, frame
                resumed = time.monotonic()
        except ClipError:
            self._check_unchanged()
            raise
        self._check_unchanged()
        if not resume:
            self._check_end()

    def _raw(self) -> Iterator[av.VideoFrame]:
        """Frames as the decoder gives them. An error before the first frame is a late start, one at the very end a tail."""
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError as error:
                self._damaged(f"demuxer: {error}")
                return
            except OSError as error:
                raise ClipError("io_error", str(error)) from error
            if packet is None:
                return
            if self._error is not None and self.count and packet.size:
                if self._limits.salvage:
                    self._note("salvaged")
                    return
                raise ClipError(self._blame(), f"after {self.count} frames: {self._error}")
            if not self._packets and packet.has_sidedata("encryption_info"):
                raise ClipError("encrypted", "the first packet is encrypted")
            self._packets += packet.size > 0
            try:
                pictures = self._decode(packet)
            except av.error.FFmpegError as error:
                self._damaged(str(error))
                continue
            yield from pictures

    def _damaged(self, what: str) -> None:
        self._error = what

    def _blame(self) -> str:
        return "truncated" if self._claims.cut_short else "decode_error"

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)

    def _check(self, frame: av.VideoFrame, pts: int) -> None:
        limits = self._limits
        if self.first_pts is None:
            self.first_pts, self._size = pts, (frame.width, frame.height)
            if self._error is not None:
                self._note("late_start")
                self._error = None
            check_size(frame.width, frame.height, limits)
        elif (frame.width, frame.height) != self._size:
            raise ClipError("resolution_change", f"{self._size} became {(frame.width, frame.height)} at frame {self.count}")
        seconds = (pts - self.first_pts) * self._tick_s
        if self.count >= limits.max_frames:
            raise ClipError("too_many_frames", f"more than {limits.max_frames}")
        if seconds > limits.max_duration_s:
            raise ClipError("duration_out_of_range", f"{seconds:.0f} s and more, allowed are {limits.max_duration_s:.0f} s")
        if self.count > limits.max_fps * (seconds + 1):
            raise ClipError("fps_out_of_range", f"{self.count} frames in {seconds:.2f} s, allowed are {limits.max_fps} a second")
        if self._spent > limits.wall_base_s + limits.wall_factor * max(seconds, self._claims.duration_s or 0.0):
            raise ClipError("timeout", f"{self._spent:.0f} s of decoding for {seconds:.0f} s of video")

    def _check_unchanged(self) -> None:
        now = self._stamp()
        if now != self._opened_as:
            raise ClipError("source_changed", f"(bytes, modified) {self._opened_as} became {now}")

    def _check_end(self) -> None:
        """What only the end can tell: frames missing, too few, too slow."""
        limits, claims = self._limits, self._claims
        if self._error is not None and not self.count:
            raise ClipError(self._blame(), self._error)
        seconds = float(((self._clock.last or 0) - (self.first_pts or 0)) * self._clock.time_base)
        missing = self._missing(seconds)
        if self._error is not None and claims.kind not in _OPEN_ENDED:
            missing = missing or self._error
        elif self._error is not None:
            self._note("tail_dropped")
        if missing and not limits.salvage:
            raise ClipError("truncated", missing)
        if missing:
            self._note("salvaged")
        if self.count < limits.min_frames:
            raise ClipError("too_few_frames", f"{self.count} decoded, at least {limits.min_frames} are needed")
        if seconds and (self.count - 1) / seconds < limits.min_fps:
            raise ClipError("fps_out_of_range", f"{self.count} frames in {seconds:.1f} s, at least {limits.min_fps} a second are needed")

    def _missing(self, seconds: float) -> str | None:
        """Why the video is not all there, or None."""
        claims, share = self._claims, self._limits.min_complete
        if claims.frames and self._packets < share * claims.frames:
            return f"{self._packets} of {claims.frames} frames are there"
        if claims.cut_short and claims.duration_s and seconds + float(1 / claims.rate) < share * claims.duration_s:
            return f"{seconds:.2f} of {claims.duration_s:.2f} s decode; {claims.cut_short}"
        if claims.kind in ("flv", "rm") and claims.duration_s and seconds < 0.8 * claims.duration_s:  # sound may well last longer
            return f"{seconds:.2f} of {claims.duration_s:.2f} s decode"
        return None
