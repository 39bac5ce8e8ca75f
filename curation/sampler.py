"""Which source frames a clip keeps: samples even in time and their neighbours, chosen while the clip still grows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from curation.frames import SIGNALS, Frames
from curation.luma import luma_of
from curation.pictures import Picture
from curation.signals import Meter

CHUNK_S = 40 / 16
"""PAN's chunk: 40 frames at 16 frames per second. Source: PAN 6.1 (chunks of ten latent frames, four pixel frames each)."""


SAME_S = 1e-6
"""Times that differ by less are the same: far below a frame, far above what sums of floats lose."""


def grid_s(chunks: int) -> float:
    """Seconds of a clip on PAN's grid: 1 + 40 N frames at 16 frames per second."""
    return (1 + 40 * chunks) / 16


def choose(times: Sequence[float], end_s: float, fps: float, neighbour_s: float) -> list[tuple[int, int | None]]:
    """The frames that a finished clip keeps, as (sample, neighbour) indices into `times`; the neighbour is None if no later frame exists.

    Samples lie nearest to `times[0] + k / fps` before `end_s` (the earlier of two equally near, each frame once); a sample's neighbour is the
    later frame that lies nearest to the sample's time + `neighbour_s`. `Sampler` gives the same frames without knowing where the clip will end.
    """
    found, k = list[tuple[int, int | None]](), 0
    while (target := times[0] + k / fps) < end_s - SAME_S:
        k += 1
        sample = _nearest(times, 0, target)
        if found and sample <= found[-1][0]:
            continue
        later = _nearest(times, sample + 1, times[sample] + neighbour_s) if sample + 1 < len(times) else None
        found.append((sample, later))
    return found


def _nearest(times: Sequence[float], first: int, target: float) -> int:
    return min(range(first, len(times)), key=lambda i: abs(times[i] - target))


@dataclass
class _Sample:
    """A kept frame and its neighbour; `wanted_s` is the instant it stands for, `due_s` when the neighbour is looked for. Indices count the clip's frames."""

    index: int
    picture: Picture
    wanted_s: float
    due_s: float
    later: tuple[int, Picture] | None = None


@dataclass
class Sampler:
    """Takes a clip's frames one by one and keeps the few that its `Frames` need, wherever on the grid the clip will end.

    Memory: `fps` samples and as many neighbours a second, and one frame before each end on the grid.

    Attributes:
        fps: samples per second.
        neighbour_s: seconds from a sample to the later frame that dense flow is measured against.
        max_chunks: ends on the grid that are prepared for.
    """

    fps: float
    neighbour_s: float
    max_chunks: int
    times: list[float] = field(default_factory=list)
    signals: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in SIGNALS if name != "time_s"})
    _samples: list[_Sample] = field(default_factory=list)
    _alone: list[_Sample] = field(default_factory=list)
    _last: Picture | None = None
    _before_end: dict[int, tuple[int, Picture]] = field(default_factory=dict)
    _asked: int = 0
    _ends: int = 1

    def add(self, picture: Picture, signals: dict[str, float]) -> None:
        """The clip's next frame with its `luma`, `luma_diff` and `edge_diff`; the differences of the first are not the clip's and become 0."""
        index, now = len(self.times), picture.time_s
        self.times.append(now)
        for name, values in self.signals.items():
            values.append(0.0 if index == 0 and name != "luma" else signals[name])
        self._keep_samples(index, picture)
        self._keep_neighbours(index, picture)
        while self._ends <= self.max_chunks and now >= self.times[0] + grid_s(self._ends) - SAME_S:
            if self._last is not None:
                self._before_end[self._ends] = (index - 1, self._last)
            self._ends += 1
        self._last = picture

    def _keep_samples(self, index: int, picture: Picture) -> None:
        while (target := self.times[0] + self._asked / self.fps) <= picture.time_s:
            self._asked += 1
            near = self._nearer(index, picture, target, 0)
            if not self._samples or near[0] > self._samples[-1].index:
                self._samples.append(_Sample(*near, target, near[1].time_s + self.neighbour_s))
                self._alone.append(self._samples[-1])

    def _keep_neighbours(self, index: int, picture: Picture) -> None:
        for sample in self._alone:
            if sample.due_s <= picture.time_s and index > sample.index:
                sample.later = self._nearer(index, picture, sample.due_s, sample.index + 1)
        self._alone = [sample for sample in self._alone if sample.later is None]

    def _nearer(self, index: int, picture: Picture, target: float, first: int) -> tuple[int, Picture]:
        """The frame before or this one, whichever is nearer to `target`; the earlier of two, but none before `first`."""
        if self._last is not None and index - 1 >= first and abs(self._last.time_s - target) <= abs(picture.time_s - target):
            return index - 1, self._last
        return index, picture

    def close(self, end_s: float) -> Frames:
        """`Frames` of the frames before `end_s`, which is an end on the grid or behind the last frame.

        Raises:
            ValueError: `end_s` is neither.
        """
        count = int(np.searchsorted(self.times, end_s - SAME_S))
        last = self._end_frame(count)
        # Before a gap, the last frame may be the nearest to an instant behind the end, which is not the clip's.
        samples = [s for s in self._samples if s.index < count and s.wanted_s < end_s - SAME_S]
        if self._unanswered(last[1].time_s, end_s) and samples[-1].index < last[0]:
            samples.append(_Sample(last[0], last[1], last[1].time_s, last[1].time_s + self.neighbour_s))
        pairs = [(s.picture, self._neighbour(s, last)) for s in samples]
        height, width = pairs[0][0].shape
        # Filled in place: lists of pictures beside their stack would double the peak.
        rgb, later = np.empty((len(pairs), height, width, 3), np.uint8), np.empty((len(pairs), height, width), np.uint8)
        for i, (picture, neighbour) in enumerate(pairs):
            rgb[i] = picture.rgb()
            later[i] = neighbour.rgb_luma() if neighbour else luma_of(rgb[i])
        return Frames(
            rgb=rgb,
            next_luma=later,
            time_s=np.array([p.time_s for p, _ in pairs], np.float64),
            dt_s=np.array([n.time_s - p.time_s if n else 0.0 for p, n in pairs], np.float32),
            fps=self.fps,
            signals={"time_s": np.array(self.times[:count], np.float32), **{k: np.array(v[:count], np.float32) for k, v in self.signals.items()}},
        )

    def _unanswered(self, last_s: float, end_s: float) -> bool:
        """Whether a target lies between the last frame and the clip's end: then the last frame is the nearest to it."""
        k = int((last_s - self.times[0]) * self.fps)
        return any(last_s < self.times[0] + n / self.fps < end_s - SAME_S for n in (k, k + 1))

    def _end_frame(self, count: int) -> tuple[int, Picture]:
        if self._last is not None and count == len(self.times):
            return count - 1, self._last
        for found in self._before_end.values():
            if found[0] == count - 1:
                return found
        raise ValueError(f"Sampler.close: {count} frames is no end on the grid of {len(self.times)}")

    def _neighbour(self, sample: _Sample, last: tuple[int, Picture]) -> Picture | None:
        if sample.later is not None and sample.later[0] <= last[0]:
            return sample.later[1]
        return last[1] if last[0] > sample.index else None


def sample_clip(pictures: Iterable[Picture], start_s: float, end_s: float, fps: float, neighbour_s: float, max_chunks: int) -> Frames:
    """A clip's `Frames` again from `curation.video.read_clip`: the bytes that the one pass gave.

    Args:
        pictures: the clip's frames, at the analysis size of the first pass; those outside [start_s, end_s) are passed over.

    Raises:
        ClipError: from the decoder.
    """
    sampler, meter = Sampler(fps, neighbour_s, max_chunks), Meter()
    for picture in pictures:
        if start_s - SAME_S <= picture.time_s < end_s - SAME_S:
            sampler.add(picture, meter.measure(picture).signals())
    return sampler.close(end_s)
