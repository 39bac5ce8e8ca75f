"""Figures of a run against labels: boundaries found, kept clips pure, good footage kept, rejections right; defined as the labels' scorers do.

Everything that does not depend on verdicts is worked out once (`Matched`), so that thousands of verdicts can be tried on the same clips.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Bool = npt.NDArray[np.bool_]
SHORTEST_S, CHUNK_S = 41 / 16, 40 / 16
NO_SHOT = ("start", "in_progress")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def frame_rate(label: Mapping[str, Any]) -> float:
    """Frames per second: the container's average, else counted, else 25."""
    number, _, under = str(label["avg_rate"]).partition("/")
    if number.isdigit():
        return float(number) / float(under or 1)
    return label["n_frames"] / label["duration_s"] if label["duration_s"] else 25.0


@dataclass(frozen=True)
class Shot:
    """A labelled shot: its time in s, how much of it the grid 1 + 40 N could keep, and what the label says."""

    video: str
    start_s: float
    end_s: float
    grid_s: float
    keep: str
    vices: frozenset[str]
    still: bool


@dataclass(frozen=True)
class Truth:
    """A labelled video: its shots, and where the boundaries lie, (first s, last s), ambiguous ones left out."""

    id: str
    frame_s: float
    shots: tuple[Shot, ...]
    boundaries: tuple[tuple[float, float], ...]

    @classmethod
    def of(cls, label: Mapping[str, Any]) -> "Truth":
        """From a line of the labels."""
        frame_s = 1 / frame_rate(label)
        known = sorted({s[f"{e}_frame"]: s[f"{e}_s"] for s in label["shots"] for e in ("start", "end") if s[f"{e}_s"] is not None}.items())

        def at(frame: int) -> float:
            for (f0, s0), (f1, s1) in pairwise(known):
                if f0 <= frame <= f1:
                    return float(s0 + (s1 - s0) * (frame - f0) / max(f1 - f0, 1))
            return float(known[-1][1]) if known and frame == known[-1][0] else frame * frame_s

        shots = tuple(_shot(label["id"], s, at(s["start_frame"]), at(s["end_frame"]) + frame_s) for s in label["shots"])
        spans = (span for s, span in _transitions(label) if s["start_frame"] not in (label.get("ambiguous_boundaries") or []))
        return cls(label["id"], frame_s, shots, tuple((at(first), at(last)) for first, last in spans))


def _shot(video: str, shot: Mapping[str, Any], start_s: float, end_s: float) -> Shot:
    measured, frames = shot.get("measured") or {}, (end_s - start_s) * 16 + 0.5
    still = all(abs(measured.get(name) or 0) < 1 for name in ("camera_translation_pct_width_per_s", "zoom_pct_per_s"))
    grid = 0.0 if frames < 41 else (int(frames) - 1) // 40 * CHUNK_S
    return Shot(video, start_s, end_s, grid, shot["keep"], frozenset(shot["reject_reasons"]), still)


def _transitions(label: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], tuple[int, int]]]:
    """Each shot that begins with a transition, and the transition's (first, last) frame."""
    for shot in label["shots"]:
        into = shot["transition_in"]
        if into["type"] not in NO_SHOT:
            gradual = into["gradual"] and into["span"]
            yield shot, (tuple(into["span"]) if gradual else (shot["start_frame"], shot["start_frame"]))


# ---- shot boundaries ----------------------------------------------------------------------------------------------------------------


def boundary_figures(labels: Sequence[Mapping[str, Any]], found: Mapping[str, Sequence[Any]], tolerance: int = 2) -> dict[str, float]:
    """hard_f1, gradual_recall, all_f1 and the counts behind them; a found boundary is a frame or [first, last]."""
    counts = np.sum([_boundary_counts(label, found[label["id"]], tolerance) for label in labels if label["id"] in found] or [(0, 0, 0, 0, 0)], axis=0)
    hard, hard_hit, soft, soft_hit, false = map(int, counts)
    return {
        "hard": hard,
        "hard_hit": hard_hit,
        "soft": soft,
        "soft_hit": soft_hit,
        "false": false,
        "hard_recall": hard_hit / max(hard, 1),
        "hard_f1": 2 * hard_hit / max(hard_hit + false + hard, 1),
        "gradual_recall": soft_hit / max(soft, 1),
        "all_f1": 2 * (hard_hit + soft_hit) / max(hard_hit + soft_hit + false + hard + soft, 1),
    }


def _boundary_counts(label: Mapping[str, Any], found: Sequence[Any], tolerance: int) -> tuple[int, int, int, int, int]:
    spans = [(b, b) if isinstance(b, int) else (int(b[0]), int(b[1])) for b in found]
    spared = set(label.get("ambiguous_boundaries") or [])
    for shot in label["shots"]:
        into = shot["transition_in"]
        if into["type"] == "in_progress":
            first, last = into["span"] or (shot["start_frame"], shot["start_frame"])
            spared |= set(range(first, last + 1))
    open_ = dict(enumerate(spans))
    hard_hit = soft_hit = 0
    transitions = [(span, bool(shot["transition_in"]["gradual"] and shot["transition_in"]["span"])) for shot, span in _transitions(label)]
    for cut, _ in (t for t in transitions if not t[1]):
        near = [(abs(p[1] - cut[0]), i) for i, p in open_.items() if p[0] <= cut[0] + tolerance and p[1] >= cut[0] - tolerance]
        if near:
            hard_hit += 1
            del open_[min(near)[1]]
    for (first, last), _ in (t for t in transitions if t[1]):
        inside = [i for i, p in open_.items() if p[0] <= last + tolerance and p[1] >= first - tolerance]
        soft_hit += bool(inside)
        open_ = {i: p for i, p in open_.items() if i not in inside}
    false = sum(not any(p[0] - tolerance <= a <= p[1] + tolerance for a in spared) for p in open_.values())
    soft = sum(gradual for _, gradual in transitions)
    return len(transitions) - soft, hard_hit, soft, soft_hit, false


# ---- clips --------------------------------------------------------------------------------------------------------------------------


class Matched:
    """Clips laid beside the labelled shots: what any verdict on them can be scored with at once.

    Args:
        labels: lines of the labels.
        clips: {"id", "start_s", "end_s"} each, times from the video's first frame; those of unlabelled videos are ignored.

    Attributes:
        clips: the clips that count, in the order of the labels' videos: verdicts are aligned with them.
    """

    def __init__(self, labels: Sequence[Mapping[str, Any]], clips: Iterable[Mapping[str, Any]]) -> None:
        by_video: dict[str, list[Mapping[str, Any]]] = {}
        for clip in clips:
            by_video.setdefault(clip["id"], []).append(clip)
        truths = [Truth.of(label) for label in labels]
        self.shots = [shot for truth in truths for shot in truth.shots]
        self.clips = [clip for truth in truths for clip in by_video.get(truth.id, [])]
        self.overlap_s = np.zeros((len(self.shots), len(self.clips)))
        self.impure, self.main = np.zeros(len(self.clips), bool), np.zeros(len(self.clips), int)
        row = column = 0
        for truth in truths:
            mine = by_video.get(truth.id, [])
            rows = slice(row, row + len(truth.shots))
            for clip in mine:
                shared = [max(0.0, min(clip["end_s"], s.end_s) - max(clip["start_s"], s.start_s)) for s in truth.shots]
                self.overlap_s[rows, column], self.main[column] = shared, row + int(np.argmax(shared))
                slack = 2.5 * truth.frame_s
                self.impure[column] = any(clip["start_s"] + slack < last and first < clip["end_s"] - slack for first, last in truth.boundaries)
                column += 1
            row += len(truth.shots)
        self._arrays()

    def _arrays(self) -> None:
        self.grid_s = np.array([s.grid_s for s in self.shots])
        self.good, bad = (np.array([s.keep == word for s in self.shots], bool) for word in ("yes", "no"))
        self.still = np.array([s.still for s in self.shots], bool)
        self.bad_shot, self.sure = bad, self.good | bad
        self.worse_than_short = bad & np.array([s.vices != {"too_short"} for s in self.shots], bool)
        self.vices = {v: np.array([v in s.vices for s in self.shots], bool) for v in sorted({v for s in self.shots for v in s.vices})}

    def figures(self, kept: Bool, said: Mapping[str, Bool], stands_for: Mapping[str, Sequence[str]], only: Bool | None = None) -> dict[str, Any]:
        """The scorer's figures for one verdict on every clip.

        Args:
            kept: bool [clips].
            said: a bool [clips] a reason; looked at where `kept` is False.
            stands_for: the label reasons that each reason stands for.
            only: bool [shots]: the shots (and the clips that lie on them) that count; all if None.
        """
        count_shot = np.ones(len(self.shots), bool) if only is None else only
        count_clip = count_shot[self.main] if len(self.clips) else np.zeros(0, bool)
        kept_s = self.overlap_s @ kept
        long = (self.grid_s > 0) & count_shot
        good, keeps = long & self.good, kept & count_clip
        hit = kept_s >= self.grid_s / 2
        return {
            "kept": int(keeps.sum()),
            "impure_kept": _share(self.impure[keeps].sum(), keeps.sum()),
            "bad_kept": _share(self.worse_than_short[self.main[keeps]].sum(), self.sure[self.main[keeps]].sum()),
            "good_kept": _share(np.minimum(kept_s, self.grid_s)[good].sum(), self.grid_s[good].sum()),
            "good_shots": _share(hit[good].sum(), good.sum()),
            "of": int(good.sum()),
            "still": _share(hit[good & self.still].sum(), (good & self.still).sum()),
            "of_still": int((good & self.still).sum()),
            "moving": _share(hit[good & ~self.still].sum(), (good & ~self.still).sum()),
            "of_moving": int((good & ~self.still).sum()),
            "precision": self._precision(~kept & count_clip & self.sure[self.main], said, stands_for),
            "recall": self._recall(long & self.bad_shot, kept_s),
        }

    def _precision(self, rejected: Bool, said: Mapping[str, Bool], stands_for: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Any]]:
        found = {}
        for reason, where in sorted(said.items()):
            shots = self.main[rejected & where]
            if len(shots):
                found[reason] = {"clips": len(shots), "right": _share(self.bad_shot[shots].sum(), len(shots))}
                if reason in stands_for:
                    agrees = np.any([self.vices[v][shots] for v in stands_for[reason] if v in self.vices] or [np.zeros(len(shots), bool)], axis=0)
                    found[reason]["agrees"] = _share(agrees.sum(), len(shots))
        return found

    def _recall(self, bad: Bool, kept_s: npt.NDArray[np.float64]) -> dict[str, dict[str, Any]]:
        bears = {vice: bad & where for vice, where in self.vices.items() if (bad & where).any()}
        return {vice: {"shots": int(b.sum()), "dropped": _share((kept_s[b] == 0).sum(), b.sum())} for vice, b in bears.items()}


def _share(part: Any, whole: Any) -> float | None:
    return round(float(part) / float(whole), 3) if whole else None
