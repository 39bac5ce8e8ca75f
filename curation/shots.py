"""SplitVideo: one decode of a video to clips on PAN's grid, each with its frames, as soon as its shot has closed."""

import hashlib
import json
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from pydantic import Field

from curation.boundaries import BLOCK, Boundary, BoundaryFinder, ShotConfig
from curation.clips import ClipError, clip_id, table_of
from curation.config import Config
from curation.frames import Frames
from curation.opening import check_unchanged
from curation.pictures import Picture
from curation.sampler import SAME_S, Sampler, grid_s, sample_clip
from curation.signals import Measured, Meter
from curation.video import Limits, Video, VideoInfo


class SplitConfig(Config):
    """How a video becomes clips."""

    size: int = Field(256, ge=64, le=1024, description="short side of the analysis picture in px: what the filters' thresholds were found at")
    sample_fps: float = Field(4.0, gt=0, le=30, description="samples per second: ten a chunk, enough for text, quality and captions")
    neighbour_s: float = Field(1 / 15, gt=0, le=0.25, description="s from a sample to the later frame that flow is measured against: 2 frames at 30 per second")
    min_chunks: int = Field(1, ge=1, le=10, description="shortest clip in PAN's chunks of 2.5 s; PAN's own pipeline takes 2, a state and what follows it")
    max_chunks: int = Field(10, ge=1, le=40, description="longest clip in chunks: PAN trains on at most ten consecutive rounds")
    margin_frames: int = Field(2, ge=0, le=30, description="frames dropped on both sides of a gradual transition: its ends are known to about 2 frames")
    shots: ShotConfig = Field(default_factory=ShotConfig, description="how boundaries are found")

    def digest(self) -> str:
        """Sixteen hex digits of these settings: part of each clip's id."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class SplitVideo:
    """Turns each row of kind "video" and status "ok" into its clips' rows and, last, its own; other rows pass through untouched.

    Every source frame lies in exactly one clip row: a kept piece on PAN's grid (with `frames`), or a row without frames whose `reject` says
    "too_short" (a shot below `min_chunks`), "remainder" (what a shot has left behind its last piece) or "transition" (frames of a dissolve,
    fade or wipe and their margins). A video that fails while decoding has its row failed with the code; its clips from before the fault have
    left already, and whoever packs drops them by the video's row unless told to salvage.
    """

    def __init__(self, config: SplitConfig, limits: Limits) -> None:
        self._config, self._limits, self._digest = config, limits, config.digest()

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        """Tables of one row each, clips in time order; rows that pass through come first, as one table."""
        rows = table.select([n for n in table.column_names if n not in ("frames", "video")]).to_pylist()
        wanted = [row["kind"] == "video" and row["status"] == "ok" for row in rows]
        if not all(wanted):
            yield table.filter(pa.array([not w for w in wanted]))
        for row, ours in zip(rows, wanted, strict=True):
            if ours:
                yield from _Split(row, self._config, self._limits, self._digest).tables()


@dataclass
class _Open:
    """An open stretch of frames: a piece of a shot, or a transition (then without a sampler)."""

    first: Picture
    sampler: Sampler | None
    continued: bool
    times: list[float] = field(default_factory=list)
    pts: list[int] = field(default_factory=list)

    def add(self, picture: Picture, measured: Measured) -> None:
        """The stretch's next frame."""
        self.times.append(picture.time_s)
        self.pts.append(picture.pts)
        if self.sampler is not None:
            self.sampler.add(picture, measured.signals())

    def take_frames(self, end_s: float) -> bytes:
        """The blob of a shot's frames before `end_s`; the pictures it was made of are let go before it is made."""
        assert self.sampler is not None
        frames, self.sampler = self.sampler.close(end_s), None
        return frames.to_bytes()


@dataclass
class _End:
    """The first instant behind a stretch."""

    time_s: float
    pts: int
    frame: int


@dataclass
class _Split:
    """The state of one video's pass: frames wait until the finder has settled them, then join the open stretch."""

    row: dict[str, Any]
    config: SplitConfig
    limits: Limits
    digest: str
    boundaries: list[Boundary] = field(default_factory=list)
    _columns: dict[str, Any] = field(default_factory=dict)
    _waiting: deque[tuple[Picture, Measured]] = field(default_factory=deque)
    _ahead: deque[Boundary] = field(default_factory=deque)
    _open: _Open | None = None
    _end: _End = field(default_factory=lambda: _End(0.0, 0, 0))
    _clips: int = 0

    def tables(self) -> Iterator[pa.Table]:
        """Clips' rows, then the video's."""
        began, outcome, decoded = time.process_time(), dict[str, Any](), 0
        try:
            check_unchanged(self.row, self.limits)
            with Video(self.row["video_uri"], limits=self.limits, size=self.config.size) as video:
                try:
                    self._columns = _columns(video.info)
                    yield from self._rows(video)
                finally:
                    decoded = video.frames_decoded
        except ClipError as error:
            outcome = {"status": "failed", "error_code": error.reason, "error_detail": error.detail}
        stats = {
            "clips": self._clips,
            "frames_decoded": decoded,
            "source_frames": self._end.frame,
            "duration_s": round(self._end.time_s, 6),
            "cpu_s": round(time.process_time() - began, 3),
            "boundaries": [[b.first, b.last, b.kind] for b in self.boundaries],
        }
        stages = [*(self.row["stages"] or []), "split"]
        yield table_of([{**self.row, **self._columns, **outcome, "stats": json.dumps(stats), "stages": stages}])

    def _rows(self, video: Video) -> Iterator[pa.Table]:
        meter, finder, last = Meter(), BoundaryFinder(self.config.shots), None
        usual_s = 1 / (video.info.fps or 25.0)
        for pictures in _batches(video.pictures()):
            for picture, measured in zip(pictures, meter.measure_many(pictures), strict=True):
                # A video's last frame lasts as long as the one before it; a lone frame as long as the container's rate says.
                step_s = picture.time_s - last.time_s if last else usual_s
                step = picture.pts - last.pts if last else round(usual_s / float(video.info.time_base))
                self._end, last = _End(picture.time_s + step_s, picture.pts + step, picture.index + 1), picture
                self._waiting.append((picture, measured))
                self._found(finder.push(measured))
                yield from self._settle(finder.settled - self.config.margin_frames)
        self._found(finder.flush())
        yield from self._settle(self._end.frame)
        yield from self._close(self._end)

    def _found(self, boundaries: list[Boundary]) -> None:
        self.boundaries += boundaries
        self._ahead.extend(boundaries)

    def _settle(self, until: int) -> Iterator[pa.Table]:
        while self._waiting and self._waiting[0][0].index < until:
            yield from self._take(*self._waiting.popleft())

    def _take(self, picture: Picture, measured: Measured) -> Iterator[pa.Table]:
        """Gives a settled frame to the open stretch, or closes that and opens the next."""
        margin, index = self.config.margin_frames, picture.index
        while self._ahead and self._ahead[0].last + margin < index:
            self._ahead.popleft()
        gradual = any(b.kind == "gradual" and b.first - margin <= index <= b.last + margin for b in self._ahead)
        cut = not gradual and any(b.kind == "cut" and b.first == index for b in self._ahead)
        now = self._open
        full = now is not None and not gradual and picture.time_s >= now.first.time_s + grid_s(self.config.max_chunks) - SAME_S
        if now is None or cut or full or gradual != (now.sampler is None):
            yield from self._close(_End(picture.time_s, picture.pts, index))
            sampler = None if gradual else Sampler(self.config.sample_fps, self.config.neighbour_s, self.config.max_chunks)
            shot_goes_on = now is not None and now.sampler is not None and not cut and not gradual
            now = self._open = _Open(picture, sampler, shot_goes_on)
        now.add(picture, measured)

    def _close(self, end: _End) -> Iterator[pa.Table]:
        """The open stretch's rows: a clip and what the grid leaves over, or a row that says why there is none."""
        now, self._open = self._open, None
        if now is None:
            return
        whole = _End(now.times[0], now.pts[0], now.first.index)
        if now.sampler is None:
            yield self._row(whole, end, reject=["transition"])
            return
        # Half a frame of the grid is forgiven, as the last of its frames is shown for 1/16 s and only its beginning is needed.
        chunks = min(int(((end.time_s - whole.time_s) * 16 + 0.5 - 1) // 40), self.config.max_chunks)
        if chunks < self.config.min_chunks:
            yield self._row(whole, end, reject=["remainder" if now.continued else "too_short"])
            return
        end_s = min(whole.time_s + grid_s(chunks), end.time_s)
        count = bisect_left(now.times, end_s - SAME_S)
        left = _End(now.times[count], now.pts[count], whole.frame + count) if count < len(now.times) else end
        yield self._row(whole, _End(end_s, left.pts, left.frame), chunks=chunks, frames=now.take_frames(end_s))
        if left.frame < end.frame:
            yield self._row(left, end, reject=["remainder"])

    def _row(self, start: _End, end: _End, **rest: Any) -> pa.Table:
        self._clips += 1
        time_base = self._columns["time_base"]
        row = {
            **{name: self.row.get(name) for name in ("video_id", "video_uri", "video_stamp", "provenance")},
            **self._columns,
            "clip_id": clip_id(self.row["video_id"], start.pts, end.pts, time_base, self.digest),
            "clip_index": self._clips - 1,
            "start_s": start.time_s,
            "end_s": end.time_s,
            "start_pts": start.pts,
            "end_pts": end.pts,
            "start_frame": start.frame,
            "end_frame": end.frame,
            "chunks": 0,
            "stages": [*(self.row["stages"] or []), "split"],
            **rest,
        }
        return table_of([row])


def _batches(pictures: Iterator[Picture], size: int = BLOCK) -> Iterator[list[Picture]]:
    """The pictures, `size` at a time: decoder and meter evict each other's code and data from the caches, and taking turns seldom halves the meter's cost.

    Raises:
        ClipError: from the decoder, after the pictures before it.
    """
    held, fault = list[Picture](), None
    try:
        for picture in pictures:
            held.append(picture)
            if len(held) == size:
                yield held
                held = []
    except ClipError as error:
        fault = error
    if held:
        yield held
    if fault is not None:
        raise fault


def _columns(info: VideoInfo) -> dict[str, Any]:
    """What every row of a video says about it."""
    base = f"{info.time_base.numerator}/{info.time_base.denominator}"
    return {"time_base": base, "fps": info.fps, "width": info.width, "height": info.height, "notes": list(info.notes)}


def frames_of(pictures: Iterable[Picture], clip: Mapping[str, Any], config: SplitConfig) -> Frames:
    """The `Frames` of a clip's row again, equal to the byte to those of the one pass.

    Args:
        pictures: from `curation.video.read_clip` for the row's `start_pts` and `end_pts`, at `config.size`.
        clip: needs `start_s` and `end_s`.
        config: the settings that the clip was split with.

    Raises:
        ClipError: from the decoder.
    """
    return sample_clip(pictures, clip["start_s"], clip["end_s"], config.sample_fps, config.neighbour_s, config.max_chunks)
