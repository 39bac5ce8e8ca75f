"""scene_text: how much of the picture text covers, for how long, and whether it is laid over the picture (subtitles, banners)."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from curation.frames import U8, Frames
from filters.text_detector import BACKENDS, SceneTextSettings, detector

Mask = npt.NDArray[np.bool_]
F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]

#: A picture in which fewer textured tiles than this can be compared says nothing about motion behind the text.
_TILES = 6


@dataclass(frozen=True)
class SceneText:
    """Share of the picture covered by text, weighed by how long it stays.

    Detection costs more than everything the rule filters do, so it looks at few pictures: one every `every_s`, at least
    `least` (persistence needs a majority) and at most `most` a clip, evenly spread.

    Source: PAN section 6.2.2: reject prominent or obstructive text across frames, by the proportion of each frame that text covers.
    """

    settings: SceneTextSettings = field(default_factory=SceneTextSettings)
    every_s: float = 1.25
    least: int = 3
    most: int = 8

    scores: ClassVar[Mapping[str, str]] = {
        "area": "share of the picture, mean over the pictures looked at",
        "median_area": "share of the picture, median over the pictures looked at: what one false find cannot raise",
        "max_area": "share of the picture, largest of the pictures looked at",
        "persistent_area": "share of the picture x share of the pictures, over the places that hold lines of text that stay in place, in at least half of them",
        "overlay_area": "share of the picture that keeps holding text while the picture around it changes",
        "subtitle_area": "share of the picture: lines of text that stay in the lower third, centred",
        "corner_area": "share of the picture: lines of text that stay in a corner, within a tenth of the picture from two borders (a watermark, a logo)",
        "frames_with_text": "share of the pictures looked at",
    }

    def __post_init__(self) -> None:
        if self.settings.backend not in BACKENDS or self.every_s <= 0 or not 2 <= self.least <= self.most:
            raise ValueError(f"SceneText: backend one of {sorted(BACKENDS)}, every_s > 0 and 2 <= least <= most, got {self}")

    def score(self, frames: Frames) -> dict[str, float]:
        """The scores of one clip; frames: rgb uint8 [T, H, W, 3], T >= 1."""
        return self.score_many([frames])[0]

    def score_many(self, clips: Sequence[Frames]) -> list[dict[str, float]]:
        """The scores of several clips, in order; their pictures go through the detector together."""
        picked = [[frames.rgb[i] for i in self.looked_at(frames)] for frames in clips]
        boxes = iter(detector(self.settings).detect_many([rgb for pictures in picked for rgb in pictures]))
        return [measure(pictures, [next(boxes) for _ in pictures]) for pictures in picked]

    def looked_at(self, frames: Frames) -> list[int]:
        """Indices of the pictures that are searched, evenly spread over the clip, each once."""
        span_s = float(frames.time_s[-1] - frames.time_s[0])
        count = min(len(frames), max(self.least, min(self.most, round(span_s / self.every_s))))
        return sorted({int((k + 0.5) * len(frames) / count) for k in range(count)})


def measure(pictures: list[U8], boxes: list[list[I32]]) -> dict[str, float]:
    """`SceneText.scores` of pictures uint8 [H, W, 3] in time order and the text outlines found in each."""
    size = pictures[0].shape[:2]
    areas = np.array([_fill(found, size).mean() for found in boxes])
    staying = [_in_place(found, [other for j, others in enumerate(boxes) if j != i for other in others]) for i, found in enumerate(boxes)]
    return {
        "area": float(areas.mean()),
        "median_area": float(np.median(areas)),
        "max_area": float(areas.max()),
        "persistent_area": _persistent([_fill(found, size) for found in staying]),
        "overlay_area": _overlay(pictures, boxes),
        "subtitle_area": _persistent([_fill(_subtitle_like(found, size), size) for found in staying]),
        "corner_area": _persistent([_fill(_in_corner(found, size), size) for found in staying]),
        "frames_with_text": float((areas > 0).mean()),
    }


def _fill(boxes: list[I32], size: tuple[int, ...]) -> Mask:
    """bool [H, W], True under a box."""
    mask = np.zeros(size, np.uint8)
    for box in boxes:
        cv2.fillPoly(mask, [box.reshape(-1, 1, 2)], 1)
    return mask.astype(np.bool_)


def _in_place(boxes: list[I32], others: list[I32]) -> list[I32]:
    """The boxes that have one of `others` on the same line: the same rows, and the shorter lies mostly within the longer's columns.

    Rows to 60 % IoU, columns to 60 % of the shorter: a subtitle changes its words and so its length, never its rows, while the lettering
    of things that move or that a camera passes fails one or the other.
    """
    kept = []
    for box in boxes:
        (x0, y0), (x1, y1) = box.min(axis=0), box.max(axis=0)
        for other in others:
            (u0, v0), (u1, v1) = other.min(axis=0), other.max(axis=0)
            rows, columns = min(y1, v1) - max(y0, v0), min(x1, u1) - max(x0, u0)
            if rows > 0.6 * (max(y1, v1) - min(y0, v0)) and columns > 0.6 * min(x1 - x0, u1 - u0):
                kept.append(box)
                break
    return kept


def _persistent(masks: list[Mask]) -> float:
    """Share of the picture x share of the pictures over the places that are True in at least half of the masks, bool [H, W] each."""
    held = np.stack(masks).mean(axis=0)
    return float((held * (held >= 0.5)).mean())


def _subtitle_like(boxes: list[I32], size: tuple[int, ...]) -> list[I32]:
    """The boxes laid out as subtitles: level, in the lower third, centred to a tenth of the width, and at least that long."""
    height, width = size
    kept = []
    for box in boxes:
        (x0, y0), (x1, y1) = box.min(axis=0), box.max(axis=0)
        if (y0 + y1) / 2 > height * 2 / 3 and abs(x0 + x1 - width) < 0.2 * width and x1 - x0 > max(0.1 * width, 1.5 * (y1 - y0)):
            kept.append(box)
    return kept


def _in_corner(boxes: list[I32], size: tuple[int, ...]) -> list[I32]:
    """The boxes that begin within a tenth of the picture from a side border and from the upper or lower one, and end before its middle.

    Source: the corner zone of NVIDIA's cosmos-curate, which counts text within 10 % of two borders as a watermark.
    """
    height, width = size
    kept = []
    for box in boxes:
        (x0, y0), (x1, y1) = box.min(axis=0), box.max(axis=0)
        side, level = min(x0, width - x1) < width / 10, min(y0, height - y1) < height / 10
        if side and level and (x1 <= width / 2 or x0 >= width / 2) and (y1 <= height / 2 or y0 >= height / 2):
            kept.append(box)
    return kept


def _overlay(pictures: list[U8], boxes: list[list[I32]]) -> float:
    """Mean over neighbouring pictures of the area that holds the same lines of text in both, times the share of the picture around it that changed."""
    size, shares = pictures[0].shape[:2], []
    lumas = [cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY) for rgb in pictures]
    for (a, found_a), (b, found_b) in itertools.pairwise(zip(lumas, boxes, strict=True)):
        both = _fill(_in_place(found_a, found_b), size) & _fill(_in_place(found_b, found_a), size)
        shares.append(float(both.mean()) * _changed(a, b, _fill(found_a + found_b, size)) if both.any() else 0.0)
    return float(np.mean(shares)) if shares else 0.0


def _changed(a: U8, b: U8, text: Mask) -> float:
    """Share of the textured tiles outside `text` whose content is another in `b`; 0 where too few can be compared.

    A tile counts as changed below a correlation of 0.8: an unmoved tile keeps more than that through compression and light,
    and a shift by a few px loses it. Sensor noise in flat tiles correlates with nothing: a tile needs a deviation of 8 of 255.
    """
    size = max(8, min(a.shape) // 12)
    rows, columns = a.shape[0] // size, a.shape[1] // size

    def tiles(image: npt.NDArray[np.generic]) -> F32:
        cut = image[: rows * size, : columns * size].reshape(rows, size, columns, size)
        return cut.transpose(0, 2, 1, 3).reshape(rows * columns, size * size).astype(np.float32)

    x, y, free = tiles(a), tiles(b), tiles(text).max(axis=1) == 0
    x, y = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
    deviation_x, deviation_y = np.sqrt((x * x).mean(axis=1)), np.sqrt((y * y).mean(axis=1))
    use = free & (np.maximum(deviation_x, deviation_y) > 8)
    if use.sum() < _TILES:
        return 0.0
    correlation = (x * y).mean(axis=1) / np.maximum(deviation_x * deviation_y, 1e-3)
    return float((correlation[use] < 0.8).mean())
