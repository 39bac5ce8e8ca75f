"""Moments: what the camera and the things before it do at each sample of a clip, told apart and measured with OpenCV alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from curation.frames import U8, Frames

F = npt.NDArray[np.float32]

#: Short side in px at which flow is measured, and the step in px between the points where it is read.
SIDE, STEP = 128, 4

#: Own motion counts from this speed (share of the diagonal per s): above it lies what the flow's error of a tenth of a px makes of a dead scene.
OWN_SPEED = 0.025

#: Points need a gradient of this many grey levels a px nearby: where nothing is drawn, flow is a guess.
TEXTURE = 3.0

#: A fit explains a point to within about so many px: twice the error of the flow on a still, compressed picture.
CLOSE_PX = 0.12

#: With fewer textured points than this share of all, or fewer than 24, the camera cannot be told.
LEAST_SHARE, LEAST_POINTS = 0.02, 24


@dataclass(frozen=True)
class Moment:
    """One sample and what moves between it and its neighbour about 1/15 s later.

    Attributes:
        time_s: s from the clip's first frame.
        pan, tilt: the camera's turn, share of the picture's width per s; right and up are positive (the content moves the other way).
        zoom: growth of the picture per s, relative; in is positive.
        seen: False where too little is drawn in the picture to tell; all motion is 0 then.
        activity: float32 [3, 3], rows top to bottom: share of the whole picture, cell by cell, that moves apart from the camera.
        drift: (x, y) sum over the moving points of their own motion, share of the diagonal per s; right and down are positive.
        effort: sum over the same points of the length of their own motion, so |drift| / effort tells if they move one way.
    """

    time_s: float
    pan: float
    tilt: float
    zoom: float
    seen: bool
    activity: F
    drift: tuple[float, float]
    effort: float


def moments(frames: Frames) -> list[Moment]:
    """One moment for each sample that has a later neighbour, in time order."""
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    scale = SIDE / min(frames.rgb.shape[1:3])
    start_s = float(frames.time_s[0])
    return [
        _moment(flow, _small(cv2.cvtColor(frames.rgb[i], cv2.COLOR_RGB2GRAY), scale), _small(frames.next_luma[i], scale), t - start_s, float(dt))
        for i, (t, dt) in enumerate(zip(frames.time_s.tolist(), frames.dt_s, strict=True))
        if dt > 0
    ]


def _small(luma: U8, scale: float) -> U8:
    """uint8 [h, w] with its short side brought to SIDE, slightly smoothed so that noise is no texture."""
    size = (max(16, round(luma.shape[1] * scale)), max(16, round(luma.shape[0] * scale)))
    small = cv2.resize(luma, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    return np.asarray(cv2.GaussianBlur(small, (3, 3), 0.8), np.uint8)


def _moment(flow: cv2.DISOpticalFlow, a: U8, b: U8, time_s: float, dt_s: float) -> Moment:
    """The moment between pictures `a` and `b`, `dt_s` apart."""
    height, width = a.shape
    diagonal = float(np.hypot(height, width))
    ys, xs = np.mgrid[STEP // 2 : height : STEP, STEP // 2 : width : STEP]
    drawn = _texture(a)[ys, xs].ravel() > TEXTURE
    if drawn.sum() < max(LEAST_POINTS, LEAST_SHARE * drawn.size):
        return Moment(time_s, 0.0, 0.0, 0.0, False, np.zeros((3, 3), np.float32), (0.0, 0.0), 0.0)
    vectors = flow.calc(a, b, None)[ys, xs].reshape(-1, 2)[drawn].astype(np.float64)
    x, y = xs.ravel()[drawn] - width / 2, ys.ravel()[drawn] - height / 2
    (tx, ty, growth, _), camera = global_motion(x, y, vectors, edge=np.maximum(np.abs(x) / width, np.abs(y) / height) > 0.35)
    own = (vectors - camera) / (diagonal * dt_s)
    speed = np.hypot(own[:, 0], own[:, 1])
    moving = speed > OWN_SPEED + 0.15 * np.hypot(*camera.T) / (diagonal * dt_s)
    cells = np.minimum((y + height / 2) * 3 // height, 2) * 3 + np.minimum((x + width / 2) * 3 // width, 2)
    counts = np.bincount(cells[moving].astype(np.int64), minlength=9) / drawn.size
    drift = own[moving].sum(axis=0) if moving.any() else np.zeros(2)
    activity = counts.reshape(3, 3).astype(np.float32)
    per_s = 1 / (width * dt_s)
    return Moment(time_s, -tx * per_s, ty * per_s, growth / dt_s, True, activity, (float(drift[0]), float(drift[1])), float(speed[moving].sum()))


def _texture(luma: U8) -> F:
    """Largest gradient in grey levels a px within about 3 px, float32 [h, w]."""
    dx, dy = (cv2.Sobel(luma, cv2.CV_32F, *order, ksize=3, scale=1 / 8) for order in ((1, 0), (0, 1)))
    return np.asarray(cv2.dilate(cv2.magnitude(dx, dy), np.ones((5, 5), np.uint8)), np.float32)


def global_motion(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], vectors: npt.NDArray[np.float64], edge: npt.NDArray[np.bool_]
) -> tuple[tuple[float, float, float, float], npt.NDArray[np.float64]]:
    """The motion most points share: ((tx, ty, growth, turn) in px a pair and radians, the vectors it would give each point).

    Fitted twice by reweighted least squares (Cauchy weights), from the median of all points and from that of the picture's rim,
    since a large subject in the middle can be the majority. The fit that explains most points wins, and no motion at all where that
    explains nearly as many: before a fixed camera, a dancer who fills the picture must not become a camera that shakes. No random sampling:
    the same vectors give the same fit.

    Source: Holland and Welsch, "Robust regression using iteratively reweighted least-squares", 1977.
    """
    ones, zeros = np.ones_like(x), np.zeros_like(x)
    design = np.concatenate([np.stack([ones, zeros, x, -y], 1), np.stack([zeros, ones, y, x], 1)])
    target = vectors.T.ravel()
    starts: Sequence[npt.NDArray[np.float64]] = [np.median(vectors, axis=0)]
    if edge.sum() >= LEAST_POINTS:
        starts = [*starts, np.median(vectors[edge], axis=0)]
    fits = [np.zeros(4), *(_refit(design, target, np.array([*start, 0.0, 0.0])) for start in starts)]
    explained = [float(np.exp(-(((target - design @ fit) / CLOSE_PX) ** 2)).mean()) for fit in fits]
    best = fits[0] if explained[0] > 0.9 * max(explained) else fits[int(np.argmax(explained))]
    tx, ty, growth, turn = (float(value) for value in best)
    return (tx, ty, growth, turn), (design @ best).reshape(2, -1).T


def _refit(design: npt.NDArray[np.float64], target: npt.NDArray[np.float64], fit: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Eight rounds of reweighted least squares from `fit`; the scale follows the residual's median, never below a tenth of a px."""
    for _ in range(8):
        residual = np.abs(target - design @ fit)
        weight = 1 / (1 + (residual / (2.4 * max(1.48 * float(np.median(residual)), 0.1))) ** 2)
        weighted = design * weight[:, None]
        fit = np.asarray(np.linalg.solve(weighted.T @ design + 1e-6 * np.eye(4), weighted.T @ target), np.float64)
    return fit
