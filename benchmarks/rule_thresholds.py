"""Chooses the rule filters' thresholds on shots labelled by eye, and says what they do on videos that had no part in the choice.

    python benchmarks/rule_thresholds.py [LABELS] [--folds N]

Clips are the labelled shots themselves, two frames off at each cut, in consecutive pieces on the grid 1 + 40 N frames at 16 per second, so that no
fault of the shot detector is counted here. The rules are chosen one after the other, each for what those before let pass. A threshold
stands where it makes the fewest mistakes, in the middle of the widest such gap. Where nothing labelled lies beyond what is to be
kept, it stands halfway to the score's end. For the left-out figures the videos are dealt into N groups (default: each its own),
the choice is made anew without each group, and that group is judged by it.
"""

import argparse
import itertools
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from curation.clips import ClipError
from curation.frames import Frames
from curation.sampler import CHUNK_S, SAME_S, Sampler, grid_s
from curation.shots import SplitConfig
from curation.signals import Meter
from curation.video import Video
from filters.base import Entry, verdict
from filters.catalog import CATALOG, thresholds_of, with_thresholds

LABELS = Path("../shared/corpus/dev/labels.jsonl")
ENTRIES = tuple(entry for entry in CATALOG if entry.stage == "rules")
TRIM_FRAMES, MOST_CHUNKS = 2, 10

CALM = {"static", "uniform_pan", "uniform_zoom"}

#: The label reasons that a threshold stands for; the end of its score's scale, towards which it moves where the labels leave it free; how many
#: bad clips let pass weigh as much as a good one lost: more for `quality`, whose measures are trained on photographs and judge few clips here.
VICES: dict[str, tuple[set[str], float, int]] = {
    "quality.sharpness_low": ({"low_quality"}, 0.0, 3),
    "camera.still_high": (CALM, 1.0, 1),
    "camera.pan_high": (CALM, 1.0, 1),
    "camera.zoom_high": (CALM, 1.0, 1),
    "motion.low": ({"static"}, 0.0, 1),
    "motion.static_share_high": ({"static"}, 1.0, 1),
    "motion.high": ({"extreme_motion"}, 1.5, 1),
    "motion.flicker_high": ({"flashing"}, 1.0, 1),
    "color.head_high": ({"pure_color_or_fade"}, 1.0, 1),
    "color.tail_high": ({"pure_color_or_fade"}, 1.0, 1),
    "color.anywhere_high": ({"pure_color_or_fade"}, 1.0, 1),
    "quality.brisque_high": ({"low_quality"}, 100.0, 3),
    "quality.dark_high": ({"low_quality"}, 1.0, 3),
    "quality.bright_high": ({"low_quality"}, 1.0, 3),
}
WANTED = ("static", "uniform_pan", "uniform_zoom", "pure_color_or_fade", "extreme_motion")
Thresholds = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Clip:
    """A piece of a labelled shot with its scores."""

    video: str
    shot: int
    keep: str
    vices: frozenset[str]
    still_camera: bool
    start_s: float
    end_s: float
    shot_grid_s: float
    scores: Mapping[str, float]


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


def measure(labels: Path) -> tuple[list[Clip], dict[str, float]]:
    """Every labelled clip with its scores, and CPU-ms a sample that each filter took."""
    filters = {entry.name: entry.make() for entry in ENTRIES}
    found, spent, samples = list[Clip](), dict.fromkeys(filters, 0.0), 0
    for line in labels.read_text().splitlines():
        label = json.loads(line)
        planned = list(pieces(label))
        for (index, start, end, grid), frames in zip(planned, read(labels.parent / label["file"], [p[1:3] for p in planned]), strict=False):
            shot, scores, samples = label["shots"][index], dict[str, float](), samples + len(frames)
            for name, filter_ in filters.items():
                begun = time.process_time()
                scores |= {f"{name}_{key}": value for key, value in filter_.score(frames).items()}
                spent[name] += time.process_time() - begun
            seen = shot.get("measured") or {}
            slow = all(abs(seen.get(key) or 0) < 1 for key in ("camera_translation_pct_width_per_s", "zoom_pct_per_s"))
            vices = frozenset(shot["reject_reasons"])
            found.append(Clip(label["id"], index, shot["keep"], vices, slow, start, end, grid, scores))
    return found, {name: 1000 * cpu_s / max(samples, 1) for name, cpu_s in spent.items()}


def choose(clips: Sequence[Clip]) -> Thresholds:
    """A threshold for each rule (module docstring)."""
    chosen: dict[str, dict[str, float]] = defaultdict(dict)
    left = list(clips)
    for name, (vices, end, lost) in VICES.items():
        filter_, key = name.split(".")
        entry = next(entry for entry in ENTRIES if entry.name == filter_)
        rule = next(rule for rule in entry.rules if rule.key == key)
        sign = -1.0 if rule.low is not None else 1.0
        value = [sign * clip.scores[rule.score] for clip in left]
        good = sorted(v for v, clip in zip(value, left, strict=True) if clip.keep == "yes")
        bad = sorted(v for v, clip in zip(value, left, strict=True) if clip.keep == "no" and clip.vices & vices)
        bound = cut(good, bad, sign * end, lost)
        chosen[filter_][key] = round(sign * bound, 6)
        left = [clip for v, clip in zip(value, left, strict=True) if v <= bound]
    return chosen


def cut(good: Sequence[float], bad: Sequence[float], end: float, lost: int) -> float:
    """Where fewest of `good` lie above and fewest of `bad` below, `lost` of these to one of those: the middle of the widest such gap.

    Where no bad one lies above the good, the gap reaches to `end`.
    """
    edges = sorted({*good, *bad, max(end, *good)})
    gaps = list(itertools.pairwise(edges))
    mistakes = [lost * sum(g >= high for g in good) + sum(b <= low for b in bad) for low, high in gaps]
    low, high = max((gap for gap, n in zip(gaps, mistakes, strict=True) if n == min(mistakes)), key=lambda gap: gap[1] - gap[0])
    return (low + high) / 2


def judged(clips: Sequence[Clip], entries: Sequence[Entry]) -> list[list[str]]:
    """Each clip's reasons."""
    rules = [rule for entry in entries for rule in entry.rules]
    return [verdict(clip.scores, rules) for clip in clips]


def figures(clips: Sequence[Clip], reasons: Sequence[Sequence[str]]) -> dict[str, tuple[float | None, float, int]]:
    """figure -> (value, target, of how many); borderline shots count in none."""
    shots: dict[tuple[str, int], list[tuple[Clip, Sequence[str]]]] = defaultdict(list)
    for clip, why in zip(clips, reasons, strict=True):
        if clip.keep != "borderline":
            shots[clip.video, clip.shot].append((clip, why))
    hits: dict[str, list[bool]] = defaultdict(list)
    for found in shots.values():
        clip = found[0][0]
        kept_s = sum(c.end_s - c.start_s for c, why in found if not why)
        if clip.keep == "yes":
            good = kept_s >= clip.shot_grid_s / 2
            hits["good_shots"].append(good)
            hits["good_shots_still" if clip.still_camera else "good_shots_moving"].append(good)
        for vice in clip.vices & set(WANTED) if clip.keep == "no" else ():
            hits[f"recall_{vice}"].append(kept_s == 0)
        for c, why in found:
            for reason in why:
                hits[f"precision_{reason}"].append(c.keep == "no")
    targets = {"good": 0.92, "reca": 0.8, "prec": 0.9}
    return {name: (float(np.mean(found)), targets[name[:4]], len(found)) for name, found in sorted(hits.items())}


def left_out(clips: Sequence[Clip], folds: int) -> tuple[list[list[str]], list[Thresholds]]:
    """Each clip's reasons under thresholds chosen without its video's group, and the thresholds of each group."""
    videos = sorted({clip.video for clip in clips})
    group = {video: i % (folds or len(videos)) for i, video in enumerate(videos)}
    chosen = [choose([clip for clip in clips if group[clip.video] != g]) for g in range(max(group.values()) + 1)]
    entries = [with_thresholds(ENTRIES, thresholds) for thresholds in chosen]
    return [judged([clip], entries[group[clip.video]])[0] for clip in clips], chosen


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    cli.add_argument("labels", nargs="?", type=Path, default=LABELS)
    cli.add_argument("--folds", type=int, default=0, help="groups of videos; 0 = each video its own")
    args = cli.parse_args()
    if not args.labels.exists():
        sys.exit(f"{args.labels} is not there: give the labels.jsonl of a labelled set, with its videos beside it")
    cv2.setNumThreads(1)
    clips, cost_ms = measure(args.labels)
    report(clips, cost_ms, args.folds)


def report(clips: Sequence[Clip], cost_ms: Mapping[str, float], folds: int) -> None:
    """Prints the thresholds, the figures of left-out and of all videos, the clips judged wrongly, and the JSON line."""
    reasons, chosen = left_out(clips, folds)
    every, shipped = choose(clips), judged(clips, ENTRIES)
    print(f"{len(clips)} clips of {len({clip.video for clip in clips})} videos; CPU-ms a sample: {', '.join(f'{k} {v:.2f}' for k, v in cost_ms.items())}\n")
    print(f"{'threshold':28}{'shipped':>10}{'all':>10}{'folds from':>12}{'to':>10}")
    for entry in ENTRIES:
        for key, value in thresholds_of(entry).items():
            spread = [fold[entry.name][key] for fold in chosen]
            print(f"{entry.name + '.' + key:28}{value:10.4f}{every[entry.name][key]:10.4f}{min(spread):12.4f}{max(spread):10.4f}")
    out, inside = figures(clips, reasons), figures(clips, shipped)
    print(f"\n{'figure':32}{'left out':>10}{'of':>5}{'shipped':>10}{'of':>5}{'target':>8}")
    for name in sorted({*out, *inside}):
        show = [("-", 0) if name not in f else (f"{f[name][0]:.3f}", f[name][2]) for f in (out, inside)]
        print(f"{name:32}{show[0][0]:>10}{show[0][1]:5d}{show[1][0]:>10}{show[1][1]:5d}{(out | inside)[name][1]:8.2f}")
    for title, found in (("left out", reasons), ("shipped", shipped)):
        for clip, why in zip(clips, found, strict=True):
            missed = clip.keep == "no" and not why and clip.vices & set(WANTED)
            if missed or (clip.keep == "yes" and why):
                print(f"{title}: {clip.video} {clip.start_s:.1f}-{clip.end_s:.1f} s, labelled {clip.keep} {sorted(clip.vices)}, judged {list(why)}")
    result = {name: {"value": round(v, 3), "target": t, "met": v >= t, "of": n} for name, (v, t, n) in out.items() if v is not None}
    total = sum(cost_ms.values())
    print(json.dumps({**result, "cpu_ms_per_sample": {"value": round(total, 2), "target": 15.0, "met": total <= 15.0}}))


if __name__ == "__main__":
    main()
