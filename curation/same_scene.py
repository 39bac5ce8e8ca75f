"""Whether two pictures show the same scene, or one is being drawn over the other: dearer evidence, for candidates that cheap evidence leaves open."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from curation.evidence import Window
from curation.frames import F32, U8
from curation.signals import SMALL, THUMB

CELL = 8
"""Side in px of the cells of a thumb that are compared one by one: 16 x 9 of them."""

CUT_SCENE = ("stays", "left_top", "layout", "pattern", "pattern_far")
GRADUAL_SCENE = ("wiped", "slid", "regions", "seam", "torn", "explained", "spread", "pattern", "pattern_low", "pattern_high", "pattern_out", "pattern_rest")

PATCH = (9, 9)
"""Px of a thumb over which a pattern is compared: 7 % of its width."""

_GRID = np.stack(np.meshgrid(np.arange(THUMB[0], dtype=np.float32), np.arange(THUMB[1], dtype=np.float32)), -1)


def moved(a: U8, b: U8) -> U8:
    """`b` moved onto `a` by dense flow (gray thumbs)."""
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST).calc(a, b, None)
    there: U8 = cv2.remap(b, _GRID + flow, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return there


def pattern(a: U8, b: U8) -> float:
    """Correlation of two gray thumbs patch by patch, averaged over what has edges or texture, in [-1, 1].

    The same scene keeps its pattern in another light, behind a flash and after a jump; another scene has another. Patches count by their contrast, up
    to 30 levels; a contrast of 4 levels counts as none (20 is added to the product of the two standard deviations).
    """
    x, y = a.astype(np.float32), b.astype(np.float32)
    mean_x, mean_y = cv2.blur(x, PATCH), cv2.blur(y, PATCH)
    var_x, var_y = np.maximum(cv2.blur(x * x, PATCH) - mean_x**2, 0), np.maximum(cv2.blur(y * y, PATCH) - mean_y**2, 0)
    alike = (cv2.blur(x * y, PATCH) - mean_x * mean_y) / (np.sqrt(var_x * var_y) + 20)
    weight = np.minimum(np.sqrt(np.maximum(var_x, var_y)), 30)
    return float((alike * weight).sum() / (weight.sum() + 1e-3))


def cells(picture: F32) -> F32:
    """Means of float32 [72, 128] over cells: float32 [9, 16]."""
    return np.asarray(picture.reshape(THUMB[1] // CELL, CELL, THUMB[0] // CELL, CELL).mean((1, 3)), np.float32)


def left_over(a: U8, b: U8) -> F32:
    """Absolute difference in [0, 255] of two gray thumbs by cells: float32 [9, 16]."""
    return cells(cv2.absdiff(a, b).astype(np.float32))


def layout(a: F32, b: F32) -> float:
    """How much the colours differ place by place: over 4 x 3 places and each colour, the mean distance in levels of the sorted values (float32 [1728]).

    A few pixels of motion change it little; another scene in the same colours changes it.
    """
    x, y = (np.sort(p.reshape(3, 6, 4, 8, 3).transpose(0, 2, 4, 1, 3).reshape(36, 48), 1) for p in (a, b))
    return float(np.abs(x - y).mean())


def stays(a: U8, b: U8, texture: F32) -> float:
    """Share of the cells with `texture` (of all, where few have any) whose colours differ by under 4 levels: a caption or a slide's new line leaves most."""
    diff = cells(cv2.absdiff(a, b).mean(2, dtype=np.float32))
    has = texture > 4
    return float((diff[has] < 4).mean()) if has.sum() >= CELL else float((diff < 4).mean())


def grays(win: Window) -> Callable[[int], U8]:
    """A row's gray thumb, made when first asked for; rows beyond the window are its ends."""
    kept: dict[int, U8] = {}

    def gray(row: int) -> U8:
        row = min(max(row, 0), len(win) - 1)
        if row not in kept:
            kept[row] = cv2.cvtColor(win.thumbs[row], cv2.COLOR_RGB2GRAY)
        return kept[row]

    return gray


def cut_scene(win: Window, i: int) -> F32:
    """Evidence about a cut before row `i` in the order of `CUT_SCENE`."""
    gray, before = grays(win), max(i - 1, 0)
    pairs = [(gray(i - 1), gray(i)), (gray(i - 2), gray(i + 1)), (gray(i - 3), gray(i + 2))]
    onto = [(a, moved(a, b)) for a, b in pairs]
    alike = [pattern(a, b) for a, b in (*onto, pairs[0])]
    left = np.minimum.reduce([left_over(a, b) for a, b in onto])
    texture = cells(np.abs(cv2.Laplacian(gray(before), cv2.CV_32F))) + cells(np.abs(cv2.Laplacian(gray(i), cv2.CV_32F)))
    return np.array(
        [
            stays(win.thumbs[before], win.thumbs[i], texture),
            np.log1p(np.sort(left.ravel())[-left.size // CELL :].mean()),
            np.log1p(layout(win.small[before], win.small[i])),
            max(alike),
            alike[2],
        ],
        np.float32,
    )


def gradual_scene(win: Window, c: int, w: int) -> F32:
    """Evidence about a transition in rows c-w .. c+w in the order of `GRADUAL_SCENE`."""
    gray, n = grays(win), len(win)
    first, last = max(c - w - 1, 0), min(c + w + 1, n - 1)
    between = np.unique(np.clip(np.linspace(c - w, c + w, 9).astype(int), 0, n - 1))
    pictures = win.small[[first, last, *between]].reshape(-1, SMALL[1], SMALL[0], 3).mean(3)
    apart = np.abs(win.small[last] - win.small[first])
    outer = (max(c - 2 * w - 2, 0), min(c + 2 * w + 2, n - 1))
    spans = ((first, last), (first, c), (c, last), outer, (outer[0], first), (last, outer[1]))
    onto = [moved(gray(a), gray(b)) for a, b in spans]
    alike = [pattern(gray(a), b) for (a, _), b in zip(spans, onto, strict=True)]
    wiped, slid, regions, breaks = drawn_over(pictures[0], pictures[1], pictures[2:])
    return np.array(
        [
            wiped,
            slid,
            regions,
            breaks,
            max(wiped, slid) * min(max(breaks, 0.0), 2.0),  # a pan slides without a seam, a picture has seams that do not move on
            min(explained(gray(a), gray(b), there) for (a, b), there in zip(spans[1:3], onto[1:3], strict=True)),
            float((apart.reshape(-1, 3).mean(1) > 10).mean()),
            alike[0],
            *sorted(alike[1:3]),
            alike[3],
            min(alike[4:]),
        ],
        np.float32,
    )


def explained(a: U8, b: U8, there: U8) -> float:
    """Share of the difference of two gray thumbs that is gone when flow has moved `b` to `there`; below 0 where that makes it worse."""
    return 1 - (float(cv2.absdiff(a, there).mean()) + 1) / (float(cv2.absdiff(a, b).mean()) + 1)


def drawn_over(a: F32, b: F32, between: F32) -> tuple[float, float, float, float]:
    """How much better b drawn over a, a border moving on, tells the pictures between than a or b alone does.

    Of all ways a straight border may take from one side to the other, never turning back, the one that leaves the least difference counts.

    Args:
        a, b: float32 [H, W], before and behind.
        between: float32 [T, H, W].

    Returns:
        wiped (both pictures stand still), slid (one or both move with the border: push, cover, reveal), regions (a border of any shape), each 1 where it
        tells everything; seam: by how much the picture breaks along that border more than elsewhere (logarithm of a ratio), which a pan does not.
    """
    from_a, from_b = np.abs(between - a), np.abs(between - b)
    noise = float(between.size)  # a level a pixel: less is no transition to be told
    alone = float(np.minimum(from_a.sum((1, 2)), from_b.sum((1, 2))).sum()) + noise
    turned = [tuple(_turned(p, side) for p in (a, b, between)) for side in range(4)]
    still, moving = zip(*(_borders(*pictures) for pictures in turned), strict=True)
    least = min((ways[side][0], side, ways[side][1]) for ways in (still, moving) for side in range(4))
    nearer_b = np.stack([cv2.blur(x - y, (5, 5)) for x, y in zip(from_a, from_b, strict=True)]) > 0
    regions = float(np.where(nearer_b, from_b, from_a).sum())
    wiped, slid = (1 - (min(cost for cost, _ in ways) + noise) / alone for ways in (still, moving))
    return wiped, slid, 1 - (regions + noise) / alone, seam(turned[least[1]][2], least[2])


def seam(between: F32, path: Sequence[int]) -> float:
    """Logarithm of how much more neighbouring columns differ at the border (column `path[t]` of picture t, give or take one) than elsewhere."""
    steps = np.abs(np.diff(between, axis=2)).mean(1)
    near = np.maximum(steps, np.maximum(np.pad(steps, ((0, 0), (1, 0)))[:, :-1], np.pad(steps, ((0, 0), (0, 1)))[:, 1:]))
    inside = [(float(row[e - 1]), float(row.mean())) for row, e in zip(near, path, strict=True) if 0 < e < between.shape[2]]
    if not inside:
        return 0.0
    here, usual = np.mean(inside, 0)
    return float(np.log((here + 2) / (usual + 2)))


def _turned(pictures: F32, side: int) -> F32:
    """The pictures turned so that what comes from a side comes from the left."""
    upright = pictures.swapaxes(-1, -2) if side % 2 else pictures
    return np.ascontiguousarray(upright[..., ::-1] if side >= 2 else upright)


def _borders(a: F32, b: F32, between: F32) -> tuple[tuple[float, list[int]], tuple[float, list[int]]]:
    """Least total difference with b coming from the left, and the border's way: standing still, and moving."""
    width = a.shape[1]
    gone, come = np.abs(between - a).sum(1), np.abs(between - b).sum(1)
    zero = np.zeros((len(between), 1), np.float32)
    stay_a = np.concatenate([np.cumsum(gone[:, ::-1], 1)[:, ::-1], zero], 1)
    stay_b = np.concatenate([zero, np.cumsum(come, 1)], 1)
    move_a = np.stack([np.abs(between[:, :, e:] - a[:, : width - e]).sum((1, 2)) for e in range(width)] + [zero[:, 0]], 1)
    move_b = np.stack([zero[:, 0]] + [np.abs(between[:, :, :e] - b[:, width - e :]).sum((1, 2)) for e in range(1, width + 1)], 1)
    return onward(stay_a + stay_b), min(onward(stay_a + move_b), onward(move_a + stay_b), onward(move_a + move_b))


def onward(costs: F32) -> tuple[float, list[int]]:
    """Least total of one entry of each row whose columns never fall (float32 [T, E]), and those columns."""
    totals = [costs[0]]
    for row in costs[1:]:
        totals.append(row + np.minimum.accumulate(totals[-1]))
    path = [int(totals[-1].argmin())]
    for row in totals[-2::-1]:
        path.insert(0, int(row[: path[0] + 1].argmin()))
    return float(totals[-1].min()), path
