"""Fits the content filter's measured models: logistic regression on few signs a part, of labelled clips and of made ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from filters.content import Part

F64 = npt.NDArray[np.float64]

#: part -> (property, the label reasons that have it, the signs that tell it): few signs each, of a meaning that any video shares.
PARTS: Mapping[str, tuple[str, frozenset[str], tuple[str, ...]]] = {
    "talking": ("lecture", frozenset({"talking_head"}), ("talker",)),
    "slides": ("lecture", frozenset({"lecture_slides"}), ("strokes_staying", "frozen")),
    "text_dominated": ("text_dominated", frozenset({"text_dominated"}), ("strokes", "strokes_staying")),
    "screen": ("screen_recording", frozenset({"screen_recording"}), ("straight", "frozen", "strokes_staying")),
    "low_quality": ("low_quality", frozenset({"low_quality", "low_resolution"}), ("small", "soft", "blocks")),
    "heavily_edited": ("heavily_edited", frozenset({"heavily_edited", "webcam_inset"}), ("seam", "fixed")),
    "residual_cut": ("residual_cut", frozenset({"residual_cut"}), ("jump", "jump_size")),
}
#: Clips of bad footage with these vices alone show natural scenes: negatives of every part.
NATURAL = frozenset({"static", "static_camera", "uniform_pan", "uniform_zoom", "extreme_motion", "watermark", "small_corner_logo"})
#: Pull of the weights (in standard deviations of their signs) towards 0.
RIDGE = 0.2


@dataclass(frozen=True)
class Clip:
    """One clip with its signs and its truth.

    Attributes:
        groups: the groups of videos that it comes from; a drawn one has a seed's.
        keep: "yes", "no" or "borderline" as the label of its shot says; "made" for a made one.
        vices: the shot's label reasons.
        part: what a made clip was made for.
        row: its row: every other filter's scores.
    """

    groups: frozenset[str]
    keep: str
    vices: frozenset[str]
    signs: Mapping[str, float]
    part: str = ""
    row: Mapping[str, Any] = field(default_factory=dict)


def fit(clips: Sequence[Clip]) -> dict[str, Part]:
    """The logistic models, by part."""
    return {name: fit_part(name, clips) for name in PARTS}


def fit_part(name: str, clips: Sequence[Clip]) -> Part:
    """One part's model: logistic regression with a ridge. Videos weigh alike, good and bad ones in all alike, and of the bad ones made and real ones."""
    prop, vices, names = PARTS[name]
    used, truth = list[Clip](), list[bool]()
    for clip in clips:
        positive = clip.part == name or (clip.keep == "no" and bool(clip.vices & vices))
        if positive or clip.keep == "yes" or (clip.keep != "made" and clip.vices and clip.vices <= NATURAL):
            used.append(clip)
            truth.append(positive)
    y, signs_of = np.array(truth, float), np.array([[clip.signs[sign] for sign in names] for clip in used])
    weights = _weights(used, y)
    mean = np.average(signs_of, axis=0, weights=weights)
    spread = np.sqrt(np.average((signs_of - mean) ** 2, axis=0, weights=weights)) + 1e-6
    x = np.c_[(signs_of - mean) / spread, np.ones(len(y))]
    found = _newton(x, y, weights)
    slopes = found[:-1] / spread
    return Part(prop, round(float(found[-1] - slopes @ mean), 4), {sign: round(float(v), 4) for sign, v in zip(names, slopes, strict=True)})


def _weights(clips: Sequence[Clip], y: F64) -> F64:
    kind = np.array([f"{sorted(clip.groups)}{clip.keep == 'made'}{truth}" for clip, truth in zip(clips, y, strict=True)])
    _, where, count = np.unique(kind, return_inverse=True, return_counts=True)
    weights: F64 = 1.0 / count[where]
    made = np.array([clip.keep == "made" for clip in clips])
    bad = [where for where in ((y == 1) & made, (y == 1) & ~made) if where.any()]
    for where in bad:
        weights[where] *= weights[y == 0].sum() / len(bad) / weights[where].sum()
    return weights


def _newton(x: F64, y: F64, weights: F64) -> F64:
    found, ridge = np.zeros(x.shape[1]), np.diag([RIDGE] * (x.shape[1] - 1) + [1e-3])
    for _ in range(60):
        p = 1 / (1 + np.exp(-np.clip(x @ found, -50, 50)))
        step = np.linalg.solve((x.T * (weights * p * (1 - p))) @ x + ridge, x.T @ (weights * (p - y)) + ridge @ found)
        found = found - step
        if np.abs(step).max() < 1e-9:
            break
    return found
