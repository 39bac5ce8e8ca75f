"""Meter: the cheap signals of every frame, measured once on a small picture as the frame goes by."""

from dataclasses import dataclass

import cv2
import numpy as np
from scenedetect import FrameTimecode
from scenedetect.detectors import ContentDetector, HistogramDetector

from curation.frames import F32, U8
from curation.pictures import Picture

THUMB = (128, 72)
"""Width and height of the picture that signals are measured on: small enough for 0.5 ms a frame, large enough for edges and dense flow."""

SMALL = (32, 18)
"""Width and height of the picture that gradual transitions are measured on, where motion and noise are averaged away."""


@dataclass(frozen=True)
class Measured:
    """A frame's signals.

    Attributes:
        index: of the decoded source frame.
        luma, luma_diff, edge_diff: as `curation.frames.SIGNALS`.
        content: PySceneDetect's content score to the frame before (mean HSV difference in [0, 255]).
        hist_match: PySceneDetect's correlation of luma histograms with the frame before, in [-1, 1].
        hist: float32 [48], sixteen bins for each of R, G and B, each colour summing to 1.
        small: uint8 [1728], the thumb at 32 x 18, flattened.
        thumb: uint8 [72, 128, 3], RGB.
    """

    index: int
    luma: float
    luma_diff: float
    edge_diff: float
    content: float
    hist_match: float
    hist: F32
    small: U8
    thumb: U8

    def signals(self) -> dict[str, float]:
        """What travels with the clip."""
        return {"luma": self.luma, "luma_diff": self.luma_diff, "edge_diff": self.edge_diff}


class _Content(ContentDetector):  # type: ignore[misc]  # scenedetect has no types
    """PySceneDetect's detector with its score in the open. Through a StatsManager it would measure edges too, at twice the cost."""

    @property
    def score(self) -> float:
        """Content score of the last frame; 0 for the first."""
        return float(self._frame_score or 0.0)


class _Histogram(HistogramDetector):  # type: ignore[misc]
    """PySceneDetect's detector with its score in the open."""

    def match(self, bgr: U8) -> float:
        """Correlation with the frame before; 1 for the first."""
        before = self._last_hist
        self.process_frame(FrameTimecode(0, 25.0), bgr)
        return 1.0 if before is None else float(cv2.compareHist(before, self._last_hist, cv2.HISTCMP_CORREL))


class Meter:
    """Measures frames in the order of the video, each against the one before it.

    PySceneDetect's content and histogram detectors are driven frame by frame for their scores; its readers and its decisions are not used.
    """

    def __init__(self) -> None:
        self._content, self._histogram = _Content(), _Histogram(bins=64)
        self._gray: U8 | None = None
        self._edges: U8 | None = None

    def measure(self, picture: Picture) -> Measured:
        """The frame's signals."""
        return self.measure_thumb(picture.index, picture.thumb(*THUMB))

    def measure_thumb(self, index: int, thumb: U8) -> Measured:
        """The signals of a picture that is already 128 x 72."""
        gray = cv2.cvtColor(thumb, cv2.COLOR_RGB2GRAY)
        edges = cv2.Canny(gray, 100, 200)
        diff = 0.0 if self._gray is None else cv2.mean(cv2.absdiff(gray, self._gray))[0]
        edge = 0.0 if self._edges is None else edge_change(edges, self._edges)
        self._gray, self._edges = gray, edges
        content, match = self._detect(index, thumb)
        hist = np.concatenate([cv2.calcHist([thumb], [c], None, [16], [0, 256]).ravel() for c in range(3)]) / gray.size
        small = cv2.resize(thumb, SMALL, interpolation=cv2.INTER_AREA).ravel()
        return Measured(index, cv2.mean(gray)[0], diff, edge, content, match, hist.astype(np.float32), small, thumb)

    def _detect(self, index: int, thumb: U8) -> tuple[float, float]:
        """PySceneDetect's scores; 0 and 1 for the first frame, which has nothing before it."""
        bgr = cv2.cvtColor(thumb, cv2.COLOR_RGB2BGR)
        self._content.process_frame(FrameTimecode(index, 25.0), bgr)
        return self._content.score, self._histogram.match(bgr)


def edge_change(a: U8, b: U8) -> float:
    """Share of edge pixels of either picture without an edge of the other within one pixel, in [0, 1]; 0 where neither has an edge.

    Source: R. Zabih, J. Miller, K. Mai, "A feature-based algorithm for detecting and classifying scene breaks", ACM Multimedia 1995 (edge change
    fraction, with a dilation that forgives small motion).
    """
    kernel = np.ones((3, 3), np.uint8)
    alone = cv2.countNonZero(cv2.subtract(a, cv2.dilate(b, kernel))) + cv2.countNonZero(cv2.subtract(b, cv2.dilate(a, kernel)))
    both = cv2.countNonZero(a) + cv2.countNonZero(b)
    return alone / both if both else 0.0
