"""Meter: the cheap signals of every frame, measured once on a small picture as the frame goes by."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scenedetect import FrameTimecode
from scenedetect.detectors import ContentDetector, HistogramDetector

from curation.frames import F32, U8
from curation.luma import Edges
from curation.pictures import Picture

THUMB = (128, 72)
"""Width and height of the picture that signals are measured on: small enough for 0.5 ms a frame, large enough for edges and dense flow."""

SMALL = (32, 18)
"""Width and height of the picture that gradual transitions are measured on, where motion and noise are averaged away."""

_BINS = ((np.arange(256) >> 4)[None, :, None] + 16 * np.arange(3)).astype(np.uint8)
"""Each value of R, G and B as one of 48 bins, uint8 [1, 256, 3]: all three histograms are then one."""

_NO_TIME = FrameTimecode(0, 25.0)
"""PySceneDetect's decisions, for which it wants a time, are not used."""


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
    """PySceneDetect's detector with its score in the open, fed with RGB.

    Its default weights (hue, saturation and value alike, no edges) make the score the mean of |difference| over all three planes together:
    one sum in place of three over widened copies, the same number at a fifth of the cost.
    """

    _hsv: U8 | None = None

    def _calculate_frame_score(self, timecode: FrameTimecode, frame_img: U8) -> float:
        before, self._hsv = self._hsv, np.asarray(cv2.cvtColor(frame_img, cv2.COLOR_RGB2HSV), np.uint8)
        return 0.0 if before is None else float(cv2.norm(self._hsv, before, cv2.NORM_L1)) / before.size

    @property
    def score(self) -> float:
        """Content score of the last frame; 0 for the first."""
        return float(self._frame_score or 0.0)


class _Histogram(HistogramDetector):  # type: ignore[misc]
    """PySceneDetect's detector with its score in the open, fed with RGB."""

    @staticmethod
    def calculate_histogram(frame_img: U8, bins: int = 256, normalize: bool = True) -> F32:
        """Histogram of luma, float32 [bins], of length 1 if `normalize`."""
        hist = cv2.calcHist([cv2.cvtColor(frame_img, cv2.COLOR_RGB2YUV)], [0], None, [bins], [0, 256]).ravel()
        return np.asarray(cv2.normalize(hist, hist) if normalize else hist, np.float32).ravel()

    def match(self, rgb: U8) -> float:
        """Correlation with the frame before; 1 for the first."""
        before = self._last_hist
        self.process_frame(_NO_TIME, rgb)
        return 1.0 if before is None else float(cv2.compareHist(before, self._last_hist, cv2.HISTCMP_CORREL))


class Meter:
    """Measures frames in the order of the video, each against the one before it.

    PySceneDetect's content and histogram detectors are driven frame by frame for their scores; its readers and its decisions are not used.
    """

    def __init__(self) -> None:
        self._content, self._histogram = _Content(), _Histogram(bins=64)
        self._gray: U8 | None = None
        self._edges: Edges | None = None

    def measure(self, picture: Picture) -> Measured:
        """The frame's signals."""
        return self.measure_thumb(picture.index, picture.thumb(*THUMB))

    def measure_many(self, pictures: Sequence[Picture]) -> list[Measured]:
        """The signals of the next frames, as `measure` gives them one by one."""
        thumbs = [picture.thumb(*THUMB) for picture in pictures]
        return [self.measure_thumb(picture.index, thumb) for picture, thumb in zip(pictures, thumbs, strict=True)]

    def measure_thumb(self, index: int, thumb: U8) -> Measured:
        """The signals of a picture that is already 128 x 72."""
        gray = np.asarray(cv2.cvtColor(thumb, cv2.COLOR_RGB2GRAY), np.uint8)
        edges = Edges.of(gray)
        diff = 0.0 if self._gray is None else float(cv2.norm(gray, self._gray, cv2.NORM_L1)) / gray.size
        edge = 0.0 if self._edges is None else edges.change(self._edges)
        self._gray, self._edges = gray, edges
        self._content.process_frame(_NO_TIME, thumb)
        binned = cv2.LUT(thumb, _BINS).reshape(len(thumb), -1)
        hist = cv2.calcHist([binned], [0], None, [48], [0, 48]).ravel() / np.float32(gray.size)
        small = cv2.resize(thumb, SMALL, interpolation=cv2.INTER_AREA).ravel()
        return Measured(index, cv2.mean(gray)[0], diff, edge, self._content.score, self._histogram.match(thumb), hist, small, thumb)
