"""Chooses scene_text's thresholds on shots labelled by eye, and says what they do on videos that had no part in the choice.

    python benchmarks/text_thresholds.py [LABELS]

Clips are the labelled shots themselves, cut to the grid 1 + 40 N frames at 16 per second, so that no fault of the shot detector is
counted here. Each threshold is the geometric middle between the highest score of clips to keep (small corner logos with them) and the lowest
of the clips labelled with the rule's own vice that lies above. For the left-out figures the choice is made anew without each video, and
that video is judged by it.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from curation.clips import ClipError
from curation.frames import SIGNALS, Frames
from curation.video import Video
from filters.catalog import SCENE_TEXT
from filters.scene_text import SceneText

LABELS = Path("../shared/corpus/dev/labels.jsonl")
CHUNK_S, FIRST_S, MOST_CHUNKS, PIECES, SAMPLES_PER_S = 2.5, 1 / 16, 10, 2, 4.0

#: Frames per second of raw streams, which carry no times: the decoder's assumption.
RAW_FPS = 25

#: The label reasons that a rule's score stands for, and the least it may be set to: below it lies no line that a viewer could read.
VICES: dict[str, set[str]] = {
    "subtitle_high": {"subtitles"},
    "overlay_high": {"overlay_text_large"},
    "persistent_high": {"subtitles", "overlay_text_large", "overlay_text", "text_dominated"},
    "area_high": {"text_dominated"},
}
FLOOR = 0.003
WANTED = ("subtitles", "overlay_text_large", "text_dominated")


@dataclass(frozen=True)
class Shot:
    """One clip of a labelled shot with its scores and its label."""

    video: str
    keep: str
    reasons: frozenset[str]
    long_enough: bool
    scores: dict[str, float]

    @property
    def allowed(self) -> bool:
        """Whether a threshold must let it pass."""
        return self.keep == "yes" or self.reasons == {"small_corner_logo"}


def spans(label: dict[str, Any]) -> Iterator[tuple[dict[str, Any], float, float, bool]]:
    """(shot, start_s, end_s, long enough for the grid) of the clips to measure; shots from half a second on lend their text to the choice."""
    for shot in label["shots"]:
        start, end = (shot[f"{side}_frame"] / RAW_FPS if shot[f"{side}_s"] is None else shot[f"{side}_s"] for side in ("start", "end"))
        chunks = int((end - start) / CHUNK_S)
        if chunks == 0 and end - start >= 0.7:
            yield shot, start, end, False
        for piece in range(0, min(chunks, PIECES * MOST_CHUNKS), MOST_CHUNKS):
            first = start + piece * CHUNK_S
            yield shot, first, first + min(chunks - piece, MOST_CHUNKS) * CHUNK_S + FIRST_S, True


def frames_of(times: Sequence[float], pictures: Sequence[np.ndarray], start: float, end: float) -> Frames | None:
    """The samples of one clip; scene_text reads no neighbours and no signals. None where fewer than two lie in it."""
    inside = [i for i, t in enumerate(times) if start - 0.02 <= t <= end - 0.02]
    if len(inside) < 2:
        return None
    rgb = np.stack([pictures[i] for i in inside])
    none = {name: np.zeros(0, np.float32) for name in SIGNALS}
    return Frames(rgb, rgb[..., 0].copy(), np.array([times[i] for i in inside]), np.zeros(len(inside), np.float32), SAMPLES_PER_S, none)


def measure(labels: Path) -> tuple[list[Shot], float]:
    """Every labelled clip with its scores, and CPU-ms a clip that the filter took."""
    found, cpu_s, filter_ = list[Shot](), 0.0, SceneText()
    for line in labels.read_text().splitlines():
        label = json.loads(line)
        planned, times, pictures = list(spans(label)), list[float](), list[np.ndarray]()
        last_s = max((end for _, _, end, _ in planned), default=0.0)
        try:
            with Video(str(labels.parent / label["file"])) as video:
                for picture in video.pictures():
                    if picture.time_s > last_s:
                        break
                    if not times or picture.time_s >= times[-1] + 1 / SAMPLES_PER_S - 0.01:
                        times.append(picture.time_s)
                        pictures.append(picture.rgb())
        except ClipError as fault:
            print(f"{label['id']}: {fault}", file=sys.stderr)
        for shot, start, end, long_enough in planned:
            frames = frames_of(times, pictures, start, end)
            if frames is not None:
                begun = time.process_time()
                scores = filter_.score(frames)
                cpu_s += time.process_time() - begun
                found.append(Shot(label["id"], shot["keep"], frozenset(shot["reject_reasons"]), long_enough, scores))
    return found, 1000 * cpu_s / max(len(found), 1)


def choose(shots: Sequence[Shot]) -> dict[str, float]:
    """A threshold for each rule (module docstring)."""
    chosen = {}
    for rule in SCENE_TEXT.rules:
        name = rule.score.removeprefix("scene_text_")
        good = max([FLOOR, *(s.scores[name] for s in shots if s.allowed)])
        bad = [s.scores[name] for s in shots if s.reasons & VICES[rule.key] and s.keep == "no" and s.scores[name] > good]
        chosen[rule.key] = math.sqrt(good * min(bad)) if bad else 2 * good
    return chosen


def reasons(shot: Shot, thresholds: dict[str, float]) -> list[str]:
    """The reasons to reject under `thresholds`."""
    return [rule.reason for rule in SCENE_TEXT.rules if shot.scores[rule.score.removeprefix("scene_text_")] > thresholds[rule.key]]


def figures(judged: Sequence[tuple[Shot, list[str]]]) -> dict[str, tuple[float | None, float, int]]:
    """figure -> (value, target, of how many): clips of borderline shots count in none."""
    firm = [(s, r) for s, r in judged if s.keep != "borderline" and s.long_enough]
    rejected = {rule.reason: [s.keep == "no" for s, r in firm if rule.reason in r] for rule in SCENE_TEXT.rules}
    borne = {vice: [bool(r) for s, r in judged if s.keep == "no" and vice in s.reasons] for vice in WANTED}
    kept = [not r for s, r in firm if s.keep == "yes"]
    share = lambda hits: float(np.mean(hits)) if hits else None  # noqa: E731
    return {
        "good_clips_kept": (share(kept), 0.98, len(kept)),
        **{f"precision_{reason}": (share(hits), 0.9, len(hits)) for reason, hits in rejected.items()},
        **{f"recall_{vice}": (share(hits), 0.8, len(hits)) for vice, hits in borne.items()},
    }


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    cli.add_argument("labels", nargs="?", type=Path, default=LABELS)
    args = cli.parse_args()
    if not args.labels.exists():
        sys.exit(f"{args.labels} is not there: give the labels.jsonl of a labelled set, with its videos beside it")
    cv2.setNumThreads(1)
    shots, cpu_ms = measure(args.labels)
    shipped = {rule.key: float(rule.high or 0) for rule in SCENE_TEXT.rules}
    folds = {video: choose([s for s in shots if s.video != video]) for video in {s.video for s in shots}}
    left_out = figures([(s, reasons(s, folds[s.video])) for s in shots])
    fitted = figures([(s, reasons(s, shipped)) for s in shots])
    every = choose(shots)
    print(f"{len(shots)} clips of {len(folds)} videos, {cpu_ms:.0f} CPU-ms a clip\n")
    print(f"{'threshold':18}{'shipped':>10}{'all':>10}{'folds from':>12}{'to':>10}")
    for key, value in shipped.items():
        spread = [fold[key] for fold in folds.values()]
        print(f"{key:18}{value:10.4f}{every[key]:10.4f}{min(spread):12.4f}{max(spread):10.4f}")
    print(f"\n{'figure':32}{'left out':>10}{'shipped':>10}{'target':>8}{'of':>6}")
    for name, (value, target, count) in left_out.items():
        show = ["-" if v is None else f"{v:.3f}" for v in (value, fitted[name][0])]
        print(f"{name:32}{show[0]:>10}{show[1]:>10}{target:8.2f}{count:6d}")
    result = {name: {"value": v, "target": t, "met": None if v is None else v >= t, "of": n} for name, (v, t, n) in left_out.items()}
    print(json.dumps({**result, "cpu_ms_per_clip": {"value": round(cpu_ms, 1), "target": None, "met": None}}))


if __name__ == "__main__":
    main()
