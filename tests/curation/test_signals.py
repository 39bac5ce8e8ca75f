"""Meter: its scores are those of PySceneDetect's own detectors, and its histograms count every pixel."""

import itertools

import cv2
import numpy as np
import pytest
from scenedetect import FrameTimecode
from scenedetect.detectors import ContentDetector, HistogramDetector

from curation.signals import Meter


class _Open(ContentDetector):
    """The library's own, its score readable."""

    def of(self, bgr: np.ndarray) -> float:
        """The score of the next frame."""
        self.process_frame(FrameTimecode(0, 25.0), bgr)
        return float(self._frame_score or 0.0)


def test_scores_are_pyscenedetects_own() -> None:
    rng = np.random.default_rng(3)
    thumbs = [cv2.GaussianBlur(rng.integers(0, 256, (72, 128, 3), np.uint8), (0, 0), 1 + i) for i in range(5)]
    meter, content = Meter(), _Open()
    measured = [meter.measure_thumb(i, thumb) for i, thumb in enumerate(thumbs)]
    bgr = [np.ascontiguousarray(thumb[..., ::-1]) for thumb in thumbs]
    assert [m.content for m in measured] == pytest.approx([content.of(picture) for picture in bgr])
    hist = [HistogramDetector.calculate_histogram(picture, 64) for picture in bgr]
    expected = [1.0, *(cv2.compareHist(a, b, cv2.HISTCMP_CORREL) for a, b in itertools.pairwise(hist))]
    assert [m.hist_match for m in measured] == pytest.approx(expected)


def test_histograms_count_each_colour() -> None:
    thumb = np.zeros((72, 128, 3), np.uint8)
    thumb[:36] = (255, 17, 128)
    hist = Meter().measure_thumb(0, thumb).hist.reshape(3, 16)
    assert hist.dtype == np.float32
    assert hist[:, 0].tolist() == [0.5, 0.5, 0.5]
    assert (hist[0, 15], hist[1, 1], hist[2, 8]) == (0.5, 0.5, 0.5)
    assert hist.sum() == 3.0
