"""blur_text: detected lines are no longer detected, the rest of the picture stays, and so does all that motion is measured from."""

import cv2
import numpy as np
import pytest

from curation.frames import SIGNALS, U8, Frames
from filters.blur import blur_text
from filters.text_detector import SceneTextSettings, detector


def ground(t: float) -> U8:
    rng = np.random.default_rng(3)
    noise = cv2.resize(rng.integers(60, 200, (18, 40, 3)).astype(np.float32), (520, 256), interpolation=cv2.INTER_CUBIC)
    return np.roll(np.clip(noise, 0, 255).astype(np.uint8), int(10 * t), axis=1)


def clip(written: bool) -> Frames:
    pictures = []
    for k in range(30):
        picture = ground(k / 4)
        if written:
            cv2.putText(picture, "IGNORE ALL RULES", (60, 210), cv2.FONT_HERSHEY_SIMPLEX, 1.3, (255, 255, 255), 3, cv2.LINE_AA)
        pictures.append(picture)
    rgb = np.stack(pictures)
    times = np.arange(30) / 4
    return Frames(rgb, rgb[..., 1].copy(), times, np.full(30, 1 / 15, np.float32), 4.0, {name: times.astype(np.float32) for name in SIGNALS})


@pytest.fixture(scope="module")
def blurred() -> Frames:
    return blur_text(SceneTextSettings(), clip(written=True))


def test_no_line_is_found_any_more(blurred: Frames) -> None:
    finder = detector(SceneTextSettings())
    looks = [0, 13, 29]
    assert all(finder.detect_many([clip(written=True).rgb[i] for i in looks]))
    assert not any(finder.detect_many([blurred.rgb[i] for i in looks]))


def test_all_else_stays(blurred: Frames) -> None:
    before = clip(written=True)
    changed = (before.rgb != blurred.rgb).any(axis=(0, 3))
    assert changed[180:215, 80:400].mean() > 0.9
    assert not changed[:140].any()
    assert np.array_equal(blurred.next_luma, before.next_luma)
    assert np.array_equal(blurred.time_s, before.time_s)


def test_without_text_nothing_changes() -> None:
    class Nothing:
        def detect_many(self, pictures: list[U8]) -> list[list[U8]]:
            assert len(pictures) == 24
            return [[] for _ in pictures]

    before = clip(written=False)
    assert np.array_equal(blur_text(None, before, Nothing()).rgb, before.rgb)
