"""Where one shot ends and the next begins: cheap signals of every frame propose, and the frames around a candidate decide."""

from collections import deque
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from pydantic import Field
from scenedetect import FrameTimecode
from scenedetect.detectors import AdaptiveDetector, HistogramDetector

from curation.config import Config
from curation.frames import U8
from curation.pictures import Picture

THUMB = (128, 72)
"""Width and height of the picture that signals are measured on."""


class ShotConfig(Config):
    """When two frames belong to different shots."""

    transnet: bool = Field(True, description="ask TransNetV2 where the cheap signals are unsure; off, the pixels decide alone")
    content_low: float = Field(15.0, gt=0, description="PySceneDetect content score from which a frame is a candidate; high recall on purpose")
    adaptive_low: float = Field(2.5, gt=0, description="how many times its neighbours' content score a candidate must have")


@dataclass(frozen=True)
class Boundary:
    """A change of shot: source frames first..last belong to neither shot when gradual; a cut has first == last == the new shot's first frame."""

    first: int
    last: int
    kind: Literal["cut", "gradual"]


@dataclass(frozen=True)
class Measured:
    """A frame's signals.

    Attributes:
        index: of the decoded source frame.
        luma, luma_diff, edge_diff: as `curation.frames.SIGNALS`.
        content: PySceneDetect's content score to the frame before (mean HSV difference in [0, 255]).
        hist_diff: correlation of luma histograms with the frame before, in [-1, 1].
        thumb: uint8 [72, 128, 3], RGB.
    """

    index: int
    luma: float
    luma_diff: float
    edge_diff: float
    content: float
    hist_diff: float
    thumb: U8

    def signals(self) -> dict[str, float]:
        """What travels with the clip."""
        return {"luma": self.luma, "luma_diff": self.luma_diff, "edge_diff": self.edge_diff}


class _Scores:
    """Stands in for PySceneDetect's StatsManager and keeps the last frame's metrics alone: memory does not grow with the video."""

    def __init__(self) -> None:
        self.last: dict[str, float] = {}

    def set_metrics(self, _: FrameTimecode, metrics: dict[str, float]) -> None:
        self.last.update(metrics)


class Meter:
    """Measures frames in the order of the video, each against the one before it."""

    def __init__(self) -> None:
        self._adaptive = AdaptiveDetector()
        self._histogram = HistogramDetector(bins=64)
        self._gray: U8 | None = None
        self._edges: U8 | None = None

    def measure(self, picture: Picture) -> Measured:
        """The frame's signals."""
        thumb = picture.thumb(*THUMB)
        gray = cv2.cvtColor(thumb, cv2.COLOR_RGB2GRAY)
        edges = cv2.Canny(gray, 100, 200)
        diff = 0.0 if self._gray is None else float(cv2.absdiff(gray, self._gray).mean())
        edge = 0.0 if self._edges is None else edge_change(edges, self._edges)
        content = self._content(picture.index, thumb)
        self._gray, self._edges = gray, edges
        return Measured(picture.index, float(gray.mean()), diff, edge, content, 0.0, thumb)

    def _content(self, index: int, thumb: U8) -> float:
        bgr = np.ascontiguousarray(thumb[..., ::-1])
        self._adaptive.process_frame(FrameTimecode(index, 25.0), bgr)
        return float(self._adaptive._frame_score or 0.0)


def edge_change(a: U8, b: U8) -> float:
    """Share of edge pixels of either picture without an edge of the other within one pixel, in [0, 1]; 0 where neither has an edge.

    Source: R. Zabih, J. Miller, K. Mai, "A feature-based algorithm for detecting and classifying scene breaks", ACM Multimedia 1995 (edge change
    fraction, with a dilation that forgives small motion).
    """
    kernel = np.ones((3, 3), np.uint8)
    alone = cv2.countNonZero(cv2.subtract(a, cv2.dilate(b, kernel))) + cv2.countNonZero(cv2.subtract(b, cv2.dilate(a, kernel)))
    both = cv2.countNonZero(a) + cv2.countNonZero(b)
    return alone / both if both else 0.0


class BoundaryFinder:
    """Takes signals frame by frame and gives boundaries; frames before `settled` will get no further one."""

    def __init__(self, config: ShotConfig) -> None:
        self._config = config
        self._recent: deque[Measured] = deque(maxlen=5)
        self.settled = 0

    def push(self, measured: Measured) -> list[Boundary]:
        """Boundaries that this frame makes certain."""
        self._recent.append(measured)
        found = []
        if len(self._recent) == 5:
            scores = [m.content for m in self._recent]
            around = (sum(scores) - scores[2]) / 4
            if scores[2] >= self._config.content_low and scores[2] >= self._config.adaptive_low * around:
                found = [Boundary(self._recent[2].index, self._recent[2].index, "cut")]
            self.settled = self._recent[3].index
        return found

    def flush(self) -> list[Boundary]:
        """Boundaries among the last frames; all frames are settled."""
        if self._recent:
            self.settled = self._recent[-1].index + 1
        return []
