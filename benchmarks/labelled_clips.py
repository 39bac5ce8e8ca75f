"""Clips of labelled shots themselves, as the splitter would cut them: no fault of the shot detector has a part in them."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from curation.clips import ClipError
from curation.frames import Frames
from curation.sampler import CHUNK_S, SAME_S, Sampler, grid_s
from curation.shots import SplitConfig
from curation.signals import Meter
from curation.video import Video

TRIM_FRAMES, MOST_CHUNKS = 2, 10


def clock(label: Mapping[str, Any]) -> Callable[[int], float]:
    """Seconds of a frame's number: linear between the times of the labelled shots' ends; by the average rate where there are none."""
    number, _, under = str(label["avg_rate"]).partition("/")
    fps = float(number) / float(under or 1) if number.isdigit() else 25.0
    points = sorted({s[f"{e}_frame"]: s[f"{e}_s"] for s in label["shots"] for e in ("start", "end") if s[f"{e}_s"] is not None}.items())

    def at(frame: int) -> float:
        if len(points) < 2 or not points[0][0] <= frame <= points[-1][0]:
            return frame / fps
        return float(np.interp(frame, [f for f, _ in points], [s for _, s in points]))

    return at


def pieces(label: Mapping[str, Any]) -> Iterator[tuple[int, float, float, float]]:
    """(shot, start_s, end_s, seconds of the shot that the grid could keep) of every clip of a video's labelled shots."""
    at, last = clock(label), len(label["shots"]) - 1
    for i, shot in enumerate(label["shots"]):
        frame_s = at(1) - at(0)
        start, end = at(shot["start_frame"]), at(shot["end_frame"]) + frame_s
        chunks = int((end - start) * 16 + 0.5 - 1) // 40
        start, end = start + (i > 0) * TRIM_FRAMES * frame_s, end - (i < last) * TRIM_FRAMES * frame_s
        while (fit := min(MOST_CHUNKS, int(((end - start) * 16 + 0.5 - 1) // 40))) >= 1:
            yield i, start, start + grid_s(fit), chunks * CHUNK_S
            start += grid_s(fit)


def read(path: Path, spans: Sequence[tuple[float, float]]) -> list[Frames]:
    """The `Frames` of each span of one video in one decode, as SplitVideo would give them; only whole ones if the video breaks off."""
    settings = SplitConfig()
    samplers = [Sampler(settings.sample_fps, settings.neighbour_s, settings.max_chunks) for _ in spans]
    last_s = 0.0
    try:
        with Video(str(path), size=settings.size) as video:
            meter = Meter()
            for picture in video.pictures():
                signals, last_s = meter.measure(picture).signals(), picture.time_s
                for sampler, (start, end) in zip(samplers, spans, strict=True):
                    if start - SAME_S <= picture.time_s < end - SAME_S:
                        sampler.add(picture, signals)
    except ClipError as fault:
        print(f"{path.stem}: {fault}", file=sys.stderr)
    whole = [sampler.times and end <= last_s + 0.2 for sampler, (_, end) in zip(samplers, spans, strict=True)]
    return [sampler.close(sampler.times[-1] + 1.0) for sampler, ok in zip(samplers, whole, strict=True) if ok]
