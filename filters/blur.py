"""blur_text: a clip's frames with every detected line of text blurred beyond reading, for a model that looked at words instead of what happens."""

from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from curation.frames import U8, Frames
from filters.text_detector import SceneTextSettings, detector

#: Pictures searched at most: a line is blurred in all pictures up to the next one that was searched, so a blink of text between two may stay.
_LOOKS = 24


def blur_text(settings: SceneTextSettings | None, frames: Frames, found: Any = None) -> Frames:
    """`frames` with text blurred in `rgb`; what motion is measured from stays.

    Args:
        settings: the detector's.
        found: a detector in place of the one that `settings` names (`filters.text_detector.Detector`).
    """
    rows = np.unique(np.linspace(0, len(frames) - 1, min(_LOOKS, len(frames))).round().astype(int))
    boxes = (found or detector(settings or SceneTextSettings())).detect_many([frames.rgb[i] for i in rows])
    rgb = frames.rgb.copy()
    for k in range(len(frames)):
        near = np.argsort(np.abs(rows - k), kind="stable")[:2]
        rgb[k] = _blurred(rgb[k], [box for n in near for box in boxes[n]])
    return replace(frames, rgb=rgb)


def _blurred(picture: U8, boxes: list[Any]) -> U8:
    """`picture` with the boxes, grown by a quarter of their height, replaced by their surroundings' colours."""
    mask = np.zeros(picture.shape[:2], np.uint8)
    for box in boxes:
        (x0, y0), (x1, y1) = box.min(axis=0), box.max(axis=0)
        grow = max(2, int(min(x1 - x0, y1 - y0)) // 4)
        cv2.rectangle(mask, (int(x0) - grow, int(y0) - grow), (int(x1) + grow, int(y1) + grow), 255, -1)
    if not mask.any():
        return picture
    side = max(3, min(picture.shape[:2]) // 24)
    small = cv2.resize(picture, (max(1, picture.shape[1] // side), max(1, picture.shape[0] // side)), interpolation=cv2.INTER_AREA)
    coarse = cv2.resize(cv2.GaussianBlur(small, (3, 3), 0), (picture.shape[1], picture.shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.where(mask[..., None] > 0, coarse, picture).astype(np.uint8)
