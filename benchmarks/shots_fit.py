"""How the numbers of `curation.shot_model` are fitted: labelled candidates of videos and of edited programmes, logistic models by kind."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import shot_edits

from curation.boundaries import Candidate, ShotConfig, net_rows
from curation.evidence import CUT_FEATURES, GRADUAL_FEATURES
from curation.frames import U8
from curation.shot_model import CLIP, DRAWN, FLOWS, LEAST_NET, PICKED, logit

F64 = npt.NDArray[np.float64]
CHEAP = {"cut": len(CUT_FEATURES), "blend": len(GRADUAL_FEATURES), "burst": len(GRADUAL_FEATURES)}
EDITED_WEIGHT = {"cut": 0.2, "blend": 0.3, "burst": 0.3}  # of a candidate in an edited programme; in a labelled video 1
AROUND = 1.5  # log-odds beyond the band on both sides from which the network's models learn too


@dataclass
class Item:
    """A labelled video or an edited programme: thumbs, fold, hard cuts, gradual spans, frames that are ambiguous, candidates, and what was edited."""

    name: str
    fold: int
    thumbs: Sequence[U8]
    hard: list[int]
    soft: list[tuple[int, int]]
    ambiguous: set[int]
    labelled: bool
    blends: list[tuple[int, int]]
    candidates: list[Candidate]
    made: shot_edits.Programme | None = None


PAN_FRAMES = 100


def panned(shots: Sequence[U8], seed: int) -> list[list[U8]]:
    """Of each shot (uint8 [N, 72, 128, 3]) a steady pan over its mirrored pictures, 0.5 to 6 px a frame: no boundary, whatever a push looks like."""
    rng = np.random.default_rng(seed)
    out = []
    for shot in shots:
        speed, across = float(rng.uniform(0.5, 6)) * rng.choice([-1, 1]), bool(rng.integers(2))
        frames = [f.swapaxes(0, 1) if across else f for f in shot[:PAN_FRAMES]]
        moved = [shot_edits.shifted(f, speed * i, abs(speed) / 2) for i, f in enumerate(frames)]
        out.append([np.ascontiguousarray(m.swapaxes(0, 1)) if across else m for m in moved])
    return out


def truth(item: Item, c: Candidate) -> int | None:
    """1, 0, or None where the label does not say."""
    touched = any(c.centre - c.half - 2 <= b and c.centre + c.half + 2 >= a for a, b in item.soft)
    doubtful = any(c.centre - c.half - 2 <= a <= c.centre + c.half + 2 for a in item.ambiguous)
    if c.kind == "cut":
        if any(abs(c.centre - h) <= 1 for h in item.hard):
            return 1
        return None if touched or doubtful else 0
    spans = item.blends if c.kind == "blend" else item.soft
    if any(a - 2 <= c.centre <= b + 2 and 2 * c.half <= 3 * (b - a + 1) + 4 for a, b in spans):
        return 1
    if touched or doubtful or any(c.centre - c.half - 1 <= h <= c.centre + c.half + 1 for h in item.hard):
        return None
    return 0


def logistic(x: F64, y: F64, weight: F64, ridge: float = 1.0) -> tuple[float, ...]:
    """Intercept and weights of a ridge logistic regression on standardised columns (Newton's method)."""
    mean, scale = x.mean(0), x.std(0) + 1e-6
    z = np.c_[np.ones(len(x)), (x - mean) / scale]
    penalty = np.diag([1e-3, *[ridge] * x.shape[1]])
    beta = np.zeros(z.shape[1])
    for _ in range(60):
        p = 1 / (1 + np.exp(-np.clip(z @ beta, -30, 30)))
        step = np.linalg.solve(z.T @ (z * (weight * p * (1 - p))[:, None]) + penalty, z.T @ (weight * (y - p)) - penalty @ beta)
        beta += step * min(1.0, 5 / np.abs(step).max())
        if np.abs(step).max() < 1e-6:
            break
    slopes = beta[1:] / scale
    return (float(beta[0] - (slopes * mean).sum()), *map(float, slopes))


def rows(items: Sequence[Item], kind: str) -> list[tuple[Item, Candidate, int]]:
    """Candidates of a kind whose label is known."""
    return [(item, c, y) for item in items for c in item.candidates if c.kind == kind and (y := truth(item, c)) is not None]


def weight_of(found: Sequence[tuple[Item, Candidate, int]]) -> F64:
    """What each candidate counts."""
    return np.array([1.0 if item.labelled else EDITED_WEIGHT[c.kind] for item, c, _ in found])


def fit_pixels(items: Sequence[Item], kind: str, config: ShotConfig) -> dict[str, tuple[float, ...]]:
    """The two models over the pixels of a kind: the cheap one over all candidates, the dear one over those that it leaves."""
    found = rows(items, kind)
    y, weight = np.array([y for *_, y in found], np.float64), weight_of(found)
    x = np.array([c.features for _, c, _ in found], np.float64)
    screen = logistic(x[:, : CHEAP[kind]], y, weight)
    left = screen[0] + x[:, : CHEAP[kind]] @ np.array(screen[1:]) > config.hopeless - 1
    if kind != "cut":
        left &= x[:, FLOWS].min(1) <= config.motion
    return {f"{kind}_screen": screen, kind: logistic(x[left][:, PICKED[kind]], y[left], weight[left])}


def fit(items: Sequence[Item], config: ShotConfig, net: Callable[[], Any]) -> dict[str, tuple[float, ...]]:
    """All nine models. The network's are fitted near where it would be asked, on pixels' log-odds of left-out folds.

    They learn from labelled videos alone: the network has never learned the jump cuts and wipes of the edited programmes, so that its word about
    those says nothing about its word elsewhere.
    """
    models = dict[str, tuple[float, ...]]()
    for kind in CHEAP:
        models |= fit_pixels(items, kind, config)
        asked, (low, high) = list[tuple[float, float, float]](), getattr(config, f"unsure_{kind}")
        for fold in sorted({i.fold for i in items}):
            judge = fit_pixels([i for i in items if i.fold != fold], kind, config)
            for item, c, y in rows([i for i in items if i.fold == fold and i.labelled], kind):
                pixels = logit(judge[kind], c.features[PICKED[kind]])
                hopeless = logit(judge[f"{kind}_screen"], c.features[: CHEAP[kind]]) < config.hopeless
                hopeless = hopeless or (kind != "cut" and bool(c.features[FLOWS].min() > config.motion))
                drawn = kind == "burst" and c.features[DRAWN].max() >= config.drawn_over
                if low - AROUND < pixels < high + AROUND and not hopeless and not drawn:
                    asked.append((float(np.clip(pixels, -CLIP, CLIP)), max(ask(item, c, net), LEAST_NET), y))
        data = np.array(asked, np.float64)
        models[f"{kind}_net"] = logistic(data[:, :2], data[:, 2], np.ones(len(data)), 0.1)
    return models


def ask(item: Item, c: Candidate, net: Callable[[], Any]) -> float:
    """What the finder would ask of the network about a candidate."""
    shown, inner = net_rows(c.centre, c.half)
    return float(net().logits([item.thumbs[i] for i in np.clip(shown, 0, len(item.thumbs) - 1)])[inner].max())
