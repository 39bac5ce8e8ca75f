"""Camera: what the camera did (translation, zoom), and what still moves once that is taken away."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from curation.clips import ClipError
from curation.frames import F32, U8, Frames
from filters.motion import percentile, slope

F64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

#: Mean distance of a 16:9 picture's border from its centre, share of the diagonal: growth per second times this is a speed. Where it
#: exceeds the shift at the centre, the point from which all moves away lies within the picture, and the motion is a zoom.
BORDER_RADIUS = 0.35


@dataclass(frozen=True)
class Step:
    """The camera between two pictures, per second; lengths are shares of the frame's diagonal.

    Attributes:
        x, y: shift of the picture's content at its centre (a camera that pans right gives x < 0).
        zoom: relative growth; positive when things grow (zoom in, dolly forward).
        residual: 98th percentile of the speed that is not the camera's, less what the camera's speed may have added by error.
        agreed: share of the tracks that the model explains; 0 where the camera could not be followed: it then counts as still, and
            all motion as the scene's own.
    """

    x: float
    y: float
    zoom: float
    residual: float
    agreed: float


@dataclass(frozen=True)
class Camera:
    """Sparse feature tracks between samples give the camera's motion; dense flow gives the scene's own.

    The earlier picture of a pair is moved as the camera moved, and the flow between it and the later one is the residual: near 0 for
    a still picture, a plain pan or a zoom, and high where anything acts by itself, whatever the camera does. What a lens or a curved scene bends of a moving
    camera's flow goes as a cubic over the picture and is taken away too (`unbent`); actors do not. Every second sample is paired
    with the one after the next: over half a second compression noise counts a seventh of what it does over 1/15 s. Where the camera's model explains less than
    half of the tracks, the next sample is tried too, and the pair that leaves less unexplained stands. Logos, subtitles and
    screen furniture stand still while the picture moves; they are no actors and are left out.

    Source: PAN, section 6.2.1: translation score (consistent directional shift) and zoom score (radial expansion or contraction)
    from sparse feature tracks. Shi & Tomasi, "Good Features to Track", CVPR 1994; Bouguet's pyramidal Lucas-Kanade tracker
    with a forward-backward check (Kalal et al., ICPR 2010); RANSAC (Fischler & Bolles 1981), all as in OpenCV.

    Attributes:
        side: short side in px at which everything is measured.
        corners: features tracked at most.
        trusted: tracks that must agree before a step's model is believed.
        texture: gray levels per px above which a pixel's flow is believed.
        misfit: share of the camera's speed that lens distortion, parallax of a dead scene and the model's own error may leave.
        slow: speed, share of the diagonal per second, under which a camera counts as neither panning nor zooming.
        faint: own motion, share of the diagonal per second, at which a clip is half calm (its `still`, `pan` or `zoom_only` is 0.5).
    """

    scores: ClassVar[Mapping[str, str]] = {
        "translation": "share of the diagonal per s: length of the mean shift, so back and forth cancels",
        "translation_x": "share of the diagonal per s, mean; positive = the picture's content goes right (the camera left)",
        "translation_y": "share of the diagonal per s, mean; positive = the picture's content goes down (the camera up)",
        "zoom": "relative growth per s, mean; positive = towards the scene",
        "shake": "share of the diagonal per s: mean deviation of the shift from its mean",
        "residual": "share of the diagonal per s: the scene's own motion, 98th percentile over textured pixels, exceeded in a third of the time",
        "still": "0 to 1: how calm the scene is, if the camera hardly moves (0 if it does)",
        "pan": "0 to 1: how calm the scene is, if the camera above all translates (0 if not): 1 = nothing happens but the pan",
        "zoom_only": "0 to 1: how calm the scene is, if the camera above all zooms (0 if not): 1 = nothing happens but the zoom",
        "tracked": "share of the steps in which the camera could be followed",
    }
    side: int = 192
    corners: int = 100
    trusted: int = 8
    texture: float = 3.0
    misfit: float = 0.02
    slow: float = 0.01
    faint: float = 0.01

    def score(self, frames: Frames) -> dict[str, float]:
        """The scores of one clip.

        Raises:
            ClipError: "too_short" if there are fewer than two samples.
        """
        if len(frames) < 2:
            raise ClipError("too_short", "one sample says nothing of the camera")
        steps = self.steps(frames)
        x, y, zoom, residuals = (np.array([getattr(step, name) for step in steps]) for name in ("x", "y", "zoom", "residual"))
        shift, growth = float(np.hypot(x.mean(), y.mean())), abs(float(zoom.mean())) * BORDER_RADIUS
        residual = float(np.percentile(residuals, 67))
        calm = self.faint / (self.faint + residual)
        kind = "still" if max(shift, growth) <= self.slow else "pan" if shift >= growth else "zoom_only"
        return {
            "translation": shift,
            "translation_x": float(x.mean()),
            "translation_y": float(y.mean()),
            "zoom": float(zoom.mean()),
            "shake": float(np.hypot(x - x.mean(), y - y.mean()).mean()),
            "residual": residual,
            **{name: calm if name == kind else 0.0 for name in ("still", "pan", "zoom_only")},
            "tracked": float(np.mean([step.agreed > 0 for step in steps])),
        }

    def steps(self, frames: Frames) -> list[Step]:
        """The camera's steps from every second sample, T // 2 of them."""
        lumas = frames.lumas(self.side)
        steady = fixtures(lumas)
        flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        found = []
        for i in range(0, len(lumas) - 1, 2):
            pairs = list[Step]()
            for j in (i + 2, i + 1):
                if j < len(lumas) and not (pairs and pairs[0].agreed >= 0.5):
                    pairs.append(self._step(flow, lumas[i], lumas[j], steady, float(frames.time_s[j] - frames.time_s[i])))
            found.append(min(pairs, key=lambda step: step.residual))
        return found

    def _step(self, flow: cv2.DISOpticalFlow, one: U8, two: U8, steady: Bool, gap_s: float) -> Step:
        height, width = one.shape
        unit = float(np.hypot(height, width)) * gap_s
        start, there = tracks(one, two, self.corners)
        model, agree = similarity(start, there)
        if agree < self.trusted:
            return Step(0.0, 0.0, 0.0, self._left(flow, one, two, steady, np.eye(3))[0] / unit, 0.0)
        centre = np.array([(width - 1) / 2, (height - 1) / 2])
        x, y = (model[:2, :2] @ centre + model[:2, 2] - centre) / unit
        zoom = (float(np.hypot(model[0, 0], model[1, 0])) - 1) / gap_s
        left, speed = self._left(flow, one, two, steady, oblique(start, there, model, agree))
        return Step(float(x), float(y), zoom, max(0.0, left - self.misfit * speed) / unit, agree / len(start))

    def _left(self, flow: cv2.DISOpticalFlow, one: U8, two: U8, steady: Bool, model: F64) -> tuple[float, float]:
        """(98th percentile of the flow left after `one` has been moved by `model`, the model's mean speed), in px."""
        size = (one.shape[1], one.shape[0])
        moved = cv2.warpPerspective(one, model, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        inside = cv2.warpPerspective(np.full_like(one, 255), model, size, flags=cv2.INTER_NEAREST)
        shift = shift_field(model, size)
        seen = (cv2.erode(inside, np.ones((9, 9), np.uint8)) > 0) & (slope(two) > self.texture)
        fixed = cv2.dilate((steady & (shift > 1.0)).astype(np.uint8), np.ones((25, 25), np.uint8))
        seen &= (fixed | cv2.warpPerspective(fixed, model, size, flags=cv2.INTER_NEAREST)) == 0  # where it is, and where the model has moved it to
        speed, seen = float(shift.mean()), seen[::2, ::2]
        if np.count_nonzero(seen) < 16:
            return 0.0, speed
        field = flow.calc(np.asarray(moved, np.uint8), two, None)[::2, ::2]
        left = percentile(cv2.magnitude(field[..., 0], field[..., 1])[seen], 98)
        return (min(left, unbent(field, seen, shift[::2, ::2])) if speed > 0.5 else left), speed


def tracks(one: U8, two: U8, corners: int) -> tuple[F32, F32]:
    """Points of `one` and where they are in `two`, float32 [N, 2] px each; only those that track back to where they began."""
    start = cv2.goodFeaturesToTrack(one, corners, 0.01, 6)
    if start is None:
        return np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32)
    enough = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 10, 0.03)
    there, ok, _ = cv2.calcOpticalFlowPyrLK(one, two, start, None, winSize=(15, 15), maxLevel=3, criteria=enough)
    # The way back is looked for around the beginning, where a false track does not lead: two levels are enough for that, at a third of the cost.
    near = cv2.OPTFLOW_USE_INITIAL_FLOW
    back, ok_back, _ = cv2.calcOpticalFlowPyrLK(two, one, there, start.copy(), winSize=(15, 15), maxLevel=1, criteria=enough, flags=near)
    good = (ok[:, 0] == 1) & (ok_back[:, 0] == 1) & (np.hypot(*(back - start)[:, 0].T) < 0.5)
    return start[good, 0], there[good, 0]


def similarity(start: F32, there: F32) -> tuple[F64, int]:
    """(shift, zoom and turn [3, 3] that most of the tracks agree with, how many do); the identity and 0 where there is none."""
    model, agree = None, np.zeros(0)
    if len(start) >= 3:
        model, agree = cv2.estimateAffinePartial2D(start, there, method=cv2.RANSAC, ransacReprojThreshold=1.0, maxIters=500)
    if model is None:
        return np.eye(3), 0
    return np.vstack([model, [0.0, 0.0, 1.0]]), int(np.count_nonzero(agree))


def oblique(start: F32, there: F32, model: F64, agree: int) -> F64:
    """A homography [3, 3] in place of `model` where a tenth more of the tracks agree with it: a plane seen from the side, a turn with a wide lens."""
    if agree >= 0.9 * len(start):
        return model
    wider, also = cv2.findHomography(start, there, cv2.RANSAC, 1.0, maxIters=500)
    return np.asarray(wider, np.float64) if wider is not None and np.count_nonzero(also) > 1.1 * agree else model


def shift_field(model: F64, size: tuple[int, int]) -> F32:
    """How far `model` moves each pixel, float32 [H, W] px; size is (width, height)."""
    x, y = np.arange(size[0], dtype=np.float32)[None], np.arange(size[1], dtype=np.float32)[:, None]
    along, down, depth = model.astype(np.float32)
    deep = depth[0] * x + (depth[1] * y + depth[2])
    moved = ((row[0] * x + (row[1] * y + row[2])) / deep for row in (along, down))
    return np.asarray(cv2.magnitude(next(moved) - x, next(moved) - y), np.float32)


def unbent(field: F32, seen: Bool, shift: F32, least: int = 100) -> float:
    """98th percentile of the flow left once a smooth bend is taken away, in px; infinite where too little is seen to tell a bend from an actor.

    The bend is a cubic in x and y (radial distortion of a lens goes with the third power) fitted with weights that fall for what moves otherwise. It is a
    fault of the camera's motion, so it may take at most half of what the camera shifts a pixel: a still camera has none.

    Args:
        field: flow in px, float32 [H, W, 2].
        seen: pixels to go by, bool [H, W].
        shift: how far the camera moves each pixel, px.
        least: pixels of every fourth row and column that must be seen.

    Source: Brown, "Close-Range Camera Calibration", Photogrammetric Engineering 1971 (radial distortion); Holland & Welsch 1977 (reweighted least squares).
    """
    few, powers = seen[::4, ::4], cubic(seen.shape)
    design, flow = powers[::4, ::4][few], field[::4, ::4][few]
    if len(design) < least:
        return float("inf")
    weight, ridge = np.ones(len(design), np.float32), 1e-3 * len(design) * np.eye(design.shape[1], dtype=np.float32)
    for _ in range(4):
        heavy = (design * weight[:, None]).T
        fit = np.linalg.solve(heavy @ design + ridge, heavy @ flow)
        off = ((flow - design @ fit) ** 2).sum(axis=1)
        weight = (1 + off / max(1.5**2 * float(np.median(off)), 0.075**2)) ** -2
    across, down = (np.ascontiguousarray(part).reshape(seen.shape) for part in (powers.reshape(-1, powers.shape[-1]) @ fit).T)
    part = np.minimum(1.0, 0.5 * shift / np.maximum(cv2.magnitude(across, down), 1e-6))
    return percentile(cv2.magnitude(field[..., 0] - part * across, field[..., 1] - part * down)[seen], 98)


@lru_cache(maxsize=8)
def cubic(size: tuple[int, int]) -> F32:
    """x**i * y**j with i + j <= 3 over a picture of `size` (height, width), x and y from -1 to 1, float32 [H, W, 10]."""
    x, y = np.meshgrid(np.linspace(-1, 1, size[1]), np.linspace(-1, 1, size[0]))
    return np.stack([x**i * y**j for i in range(4) for j in range(4 - i)], -1).astype(np.float32)


def fixtures(lumas: Sequence[U8], spread: float = 8.0, edge: float = 6.0) -> Bool:
    """Pixels bool [H, W] that hold an edge and hardly change over the clip: a logo, a subtitle, or anything before a still camera."""
    total, squares = np.zeros(lumas[0].shape), np.zeros(lumas[0].shape)
    for luma in lumas:
        cv2.accumulate(luma, total)
        cv2.accumulateSquare(luma, squares)
    mean = total / len(lumas)
    return np.asarray((squares / len(lumas) - mean * mean < spread * spread) & (slope(mean.astype(np.uint8)) > edge))
