"""What the pixels around a frame say about a change of shot: features of a hard cut and of a gradual transition."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from curation.frames import F32, U8

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

HALF_WIDTHS = (2, 4, 8, 14, 24)
"""Half-widths in frames at which a gradual transition is looked for: about 4 to 48 frames long."""

LAGS = 2 * max(HALF_WIDTHS) + 1
"""Frames whose pictures are compared with a frame's: the widest transition's, and itself."""

FLASH = 6
"""Frames that a flash, a strobe or a damaged picture may last without being a shot."""

CUT_FEATURES = ("log_content", "log_ratio", "hist", "ncc", "persists", "returns", "restored", "busy")
GRADUAL_FEATURES = (
    "log_change",
    "hist",
    "mix",
    "worst_step",
    "residual",
    "ncc",
    "log_ratio",
    "flat",
    "log_width",
    "returns",
    "selects",
    "progress",
    "cut_inside",
)


@dataclass(frozen=True)
class Window:
    """A stretch of frames with their signals; row 0 is source frame `base`.

    Attributes:
        content: float32 [N], PySceneDetect content score to the frame before.
        hist: float32 [N, 48], sixteen bins for each of R, G and B, each colour summing to 1.
        small: float32 [N, 1728], the picture at 32 x 18.
        thumbs: N arrays uint8 [72, 128, 3].
    """

    base: int
    content: F32
    hist: F32
    small: F32
    thumbs: Sequence[U8]

    def __len__(self) -> int:
        return len(self.content)


def hist_distance(a: F32, b: F32) -> float:
    """Half the L1 distance of two colour histograms, averaged over the colours, in [0, 1]."""
    return float(np.abs(a - b).sum() / 6)


def correlation(a: F32, b: F32) -> float:
    """Correlation of two pictures after their means are taken away, in [-1, 1]; 0 where one is flat."""
    x, y = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum() / scale) if scale > 1e-3 * a.size else 0.0


def cut_features(win: Window, i: int) -> F32:
    """Evidence that frame `i` (a row of the window, 1 or more) begins a new shot, in the order of `CUT_FEATURES`."""
    n = len(win)
    before, after = [max(i - 1 - j, 0) for j in (0, 2, 4)], [min(i + k, n - 1) for k in (0, 2, 4, FLASH)]
    near = [win.content[j] for j in range(max(i - 3, 1), min(i + 4, n)) if j != i]
    now = hist_distance(win.hist[i - 1], win.hist[i])
    small = float(np.abs(win.small[i] - win.small[i - 1]).mean())
    pairs = [(a, b) for a in before for b in after[1:]]
    least = min(float(np.abs(win.small[a] - win.small[b]).mean()) for a, b in pairs)
    alike = max(correlation(win.small[a], win.small[b]) for a, b in pairs)
    busy = float(np.mean(sorted(near)[-2:])) if near else 0.0
    return np.array(
        [
            np.log1p(win.content[i]),
            np.log((win.content[i] + 2) / ((float(np.mean(near)) if near else 0.0) + 2)),
            now,
            correlation(win.small[i - 1], win.small[i]),
            least / (small + 2),
            alike,
            1 / (1 + np.exp(20 * (least / (small + 2) - 0.25))),
            np.log1p(busy),
        ],
        np.float32,
    )


def products(small: F32, kept: F64) -> F64:
    """`kept` (float64 [M, LAGS]) extended to each row of `small` (float32 [N, 1728] of whole numbers): its dot products with itself and the rows before it.

    All distances and angles of pictures that the maps need are sums of these. They are whole numbers below 2^53: exact whatever the order of adding.
    """
    done, n = len(kept), len(small)
    first = max(done - LAGS + 1, 0)
    near = small[first:].astype(np.float64)
    table = near[done - first :] @ near.T
    rows = np.arange(n - done)[:, None]
    columns = rows + done - first - np.arange(LAGS)
    return np.concatenate([kept, np.where(columns >= 0, table[rows, np.maximum(columns, 0)], 0.0)])


def product(dots: F64, a: I64, b: I64) -> F64:
    """Dot product of each row of `a` with that of `b`, fewer than `LAGS` apart."""
    found: F64 = dots[np.maximum(a, b), np.abs(a - b)]
    return found


def distance(dots: F64, a: I64, b: I64) -> F64:
    """Euclidean distance of each row of `a` to that of `b`."""
    squared = dots[a, 0] + dots[b, 0] - 2 * product(dots, a, b)
    return np.asarray(np.sqrt(np.maximum(squared, 0)), np.float64)


def gradual_maps(dots: F64, size: int, w: int, first: int, until: int) -> tuple[F32, F32, F32]:
    """For each row c in first .. until-1 as the middle of c-w .. c+w: change (rms difference of the ends), mix and worst step.

    A dissolve from A to B goes straight from one picture to the other: every quarter of the way points along B - A. `mix` is the mean cosine of
    the four quarters with the whole (1 for a dissolve of still pictures, 0.5 where the quarters have nothing in common, as in a pan, and less for
    a cut, whose way is one quarter alone), `worst_step` the least of the four.

    Args:
        dots: from `products`.
        size: numbers of a picture.
        w: half-width in frames.
        first: row.
        until: row.
    """
    c = np.arange(first, until)
    rows = [np.clip(c + o, 0, len(dots) - 1) for o in (-w, -(w // 2), 0, w // 2, w)]
    start, end = rows[0], rows[4]
    length = distance(dots, start, end) + 1.0
    cosines = []
    for a, b in pairwise(rows):
        along = product(dots, b, end) - product(dots, b, start) - product(dots, a, end) + product(dots, a, start)
        cosines.append(along / ((distance(dots, a, b) + 1.0) * length))
    return (length / np.sqrt(size)).astype(np.float32), np.mean(cosines, 0).astype(np.float32), np.min(cosines, 0).astype(np.float32)


def burst_map(dots: F64, size: int, w: int, first: int, until: int) -> F32:
    """For each row c in first .. until-1: by how much the ends of c-w .. c+w differ more than those of the stretches of w frames before and behind (rms)."""
    c = np.arange(first, until)
    a, b, d, e = (np.clip(c + o, 0, len(dots) - 1) for o in (-2 * w, -w, w, 2 * w))
    change, before, after = (distance(dots, x, y) / np.sqrt(size) for x, y in ((b, d), (a, b), (d, e)))
    return np.asarray(change - np.maximum(before, after), np.float32)


def gradual_features(win: Window, c: int, w: int, change: float, mix: float, worst: float) -> F32:
    """Evidence that frames c-w .. c+w (rows) are one gradual transition, in the order of `GRADUAL_FEATURES`."""
    n = len(win)
    at = [min(max(c + o, 0), n - 1) for o in (-w, -(w // 2), 0, w // 2, w)]
    v = [win.small[r] for r in at]
    whole, half = v[4] - v[0], v[2] - v[0]
    share = float((half * whole).sum() / ((whole * whole).sum() + 1))
    residual = float(np.linalg.norm(half - share * whole) / (np.linalg.norm(whole) + 1))
    outer = [min(max(r, 0), n - 1) for r in (c - 2 * w - 2, c - w - 1, c + w + 1, c + 2 * w + 2)]
    outside = max(rms(win.small[outer[0]] - win.small[outer[1]]), rms(win.small[outer[2]] - win.small[outer[3]]))
    far = min(rms(win.small[a] - win.small[b]) for a in (outer[0], outer[1]) for b in (outer[2], outer[3]))
    apart = float(np.abs(whole).mean())
    selects = float(np.mean([np.minimum(np.abs(m - v[0]), np.abs(m - v[4])).mean() for m in v[1:4]])) / (apart + 1)
    nearer = [float((np.abs(whole) * (np.abs(m - v[0]) > np.abs(m - v[4]))).mean()) / (apart + 1) for m in v[1:4]]
    progress = max(abs(share - quarter) for share, quarter in zip(nearer, (0.25, 0.5, 0.75), strict=True))
    inside = win.content[max(c - w, 1) : c + w + 1]
    cut = float(inside.max() / (inside.sum() + 1)) if len(inside) else 0.0
    return np.array(
        [
            np.log1p(change),
            hist_distance(win.hist[at[0]], win.hist[at[4]]),
            mix,
            worst,
            residual,
            correlation(v[0], v[4]),
            np.log((change + 2) / (outside + 2)),
            np.log1p(min(float(v[0].std()), float(v[4].std()))),
            np.log(w),
            far / (change + 2),
            selects,
            progress,
            cut,
        ],
        np.float32,
    )


def rms(x: F32) -> float:
    """Root of the mean square."""
    return float(np.sqrt((x * x).mean()))


def peaks(score: F32, low: float, first: int, until: int) -> list[tuple[int, int]]:
    """(row of HALF_WIDTHS, column) of each score in columns first..until-1 that is at least `low` and the greatest within its own half-width."""
    found, best = [], score.max(0)
    for k, c in np.argwhere(score[:, first:until] >= low):
        column, w = int(c) + first, HALF_WIDTHS[k]
        start = max(0, column - w)
        if score[k, column] >= best[start : column + w + 1].max() and not (score[:, start:column] == score[k, column]).any():
            found.append((int(k), column))
    return sorted(found, key=lambda p: p[1])
