"""Camera: what the camera did (translation, zoom), and what still moves once that is taken away."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from curation.clips import ClipError
from curation.frames import F32, U8, Frames
from filters.motion import at_side, luma_of

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Step:
    """The camera between two pictures, per second; lengths are shares of the frame's diagonal.

    Attributes:
        x, y: shift of the picture's content at its centre (a camera that pans right gives x < 0).
        zoom: relative growth; positive when things grow (zoom in, dolly forward).
        turn: rotation in radians.
        residual: percentiles 50 and 90 of the speed left on textured pixels.
    """

    x: float
    y: float
    zoom: float
    turn: float
    residual: tuple[float, float]


@dataclass(frozen=True)
class Camera:
    """Sparse feature tracks between consecutive samples give the camera's similarity motion; dense flow gives the rest.

    Tracks over a whole sample distance (a quarter of a second) are four times less noisy than over one source frame. The
    earlier picture is then moved by the camera's model, and the flow between it and the later one is the residual motion:
    near 0 for a still picture, a plain pan or a zoom, and high where anything acts by itself, whatever the camera does.

    Source: Shi & Tomasi, "Good Features to Track", CVPR 1994; Bouguet's pyramidal Lucas-Kanade tracker with a
    forward-backward check (Kalal et al., ICPR 2010); RANSAC (Fischler & Bolles 1981), all as in OpenCV. PAN, section 6.2.1: translation
    score (consistent directional shift) and zoom score (radial expansion or contraction) from sparse feature tracks.

    Attributes:
        side: short side in px at which everything is measured.
        corners: features tracked at most.
        trusted: tracks that a step needs for its model to be believed.
        texture: gray levels per pixel above which a pixel's flow is believed.
        drift: speed, share of the diagonal per second, at which half of a motion's worth is lost to measuring noise.
    """

    scores: ClassVar[Mapping[str, str]] = {
        "translation": "share of the diagonal per s: length of the mean shift, so back and forth cancels",
        "translation_x": "share of the diagonal per s, mean; positive = the picture's content goes right (the camera left)",
        "translation_y": "share of the diagonal per s, mean; positive = the picture's content goes down (the camera up)",
        "zoom": "relative growth per s, mean; positive = towards the scene",
        "shake": "share of the diagonal per s: mean deviation of the shift from its mean",
        "residual": "share of the diagonal per s: 90th percentile of the motion that is not the camera's, on textured pixels",
        "pan": "0 to 1: share of all motion that is one steady translation",
        "zoom_only": "0 to 1: share of all motion that is one steady zoom",
        "tracked": "share of the steps whose camera motion could be measured",
    }
    side: int = 192
    corners: int = 200
    trusted: int = 8
    texture: float = 3.0
    drift: float = 0.005

    def score(self, frames: Frames) -> dict[str, float]:
        """The scores of one clip.

        Raises:
            ClipError: "no_texture" if no two samples have enough features in common to follow the camera.
        """
        steps = self.steps(frames)
        if not steps:
            raise ClipError("no_texture", f"no two of {len(frames)} samples have {self.trusted} features in common")
        x, y, zoom = (np.array([getattr(step, name) for step in steps]) for name in ("x", "y", "zoom"))
        residual = np.array([step.residual[1] for step in steps])
        shift = np.array([x.mean(), y.mean()])
        wander = float(np.hypot(x - shift[0], y - shift[1]).mean())
        growth = zoom * MEAN_RADIUS
        other = float(np.median([step.residual[0] for step in steps])) + self.drift
        steady_shift, steady_growth = float(np.hypot(*shift)), abs(float(growth.mean()))
        total = steady_shift + steady_growth + wander + float(np.abs(growth - growth.mean()).mean()) + other
        return {
            "translation": steady_shift,
            "translation_x": float(shift[0]),
            "translation_y": float(shift[1]),
            "zoom": float(zoom.mean()),
            "shake": wander,
            "residual": float(np.median(residual)),
            "pan": steady_shift / total,
            "zoom_only": steady_growth / total,
            "tracked": len(steps) / max(len(frames) - 1, 1),
        }

    def steps(self, frames: Frames) -> list[Step]:
        """The camera's steps between consecutive samples, without those that could not be measured."""
        lumas = [at_side(luma_of(picture), self.side) for picture in frames.rgb]
        flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        gaps = np.diff(frames.time_s)
        found = (self._step(flow, one, two, float(gap)) for one, two, gap in zip(lumas, lumas[1:], gaps, strict=False))
        return [step for step in found if step is not None]

    def _step(self, flow: cv2.DISOpticalFlow, one: U8, two: U8, gap_s: float) -> Step | None:
        model = similarity(*tracks(one, two, self.corners), self.trusted)
        if model is None:
            return None
        height, width = one.shape
        centre = np.array([(width - 1) / 2, (height - 1) / 2])
        x, y = (model[:, :2] @ centre + model[:, 2] - centre) / (np.hypot(height, width) * gap_s)
        scale, turn = float(np.hypot(model[0, 0], model[1, 0])), float(np.arctan2(model[1, 0], model[0, 0]))
        left = self._left(flow, one, two, model) / (np.hypot(height, width) * gap_s)
        return Step(float(x), float(y), (scale - 1) / gap_s, turn / gap_s, (float(left[0]), float(left[1])))

    def _left(self, flow: cv2.DISOpticalFlow, one: U8, two: U8, model: F64) -> F64:
        """Percentiles 50 and 90 of the flow in px left on textured pixels after `one` has been moved by `model`."""
        size = (one.shape[1], one.shape[0])
        moved = cv2.warpAffine(one, model, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        inside = cv2.warpAffine(np.full_like(one, 255), model, size, flags=cv2.INTER_NEAREST) > 0
        inside = cv2.erode(inside.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
        seen = inside & (slope(two) > self.texture)
        if np.count_nonzero(seen) < 64:
            return np.zeros(2)
        field = flow.calc(moved, two, None)
        return np.asarray(np.percentile(np.hypot(field[..., 0], field[..., 1])[seen], [50, 90]))


#: Mean distance of a pixel from the picture's centre, share of the diagonal (16:9): turns growth per s into a speed.
MEAN_RADIUS = 0.26


def tracks(one: U8, two: U8, corners: int) -> tuple[F32, F32]:
    """Points of `one` and where they are in `two`, float32 [N, 2] px each; only those that track back to where they began."""
    start = cv2.goodFeaturesToTrack(one, corners, 0.01, 6)
    if start is None:
        return np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32)
    window, levels = (15, 15), 3
    there, ok, _ = cv2.calcOpticalFlowPyrLK(one, two, start, None, winSize=window, maxLevel=levels)
    back, ok_back, _ = cv2.calcOpticalFlowPyrLK(two, one, there, None, winSize=window, maxLevel=levels)
    good = (ok[:, 0] == 1) & (ok_back[:, 0] == 1) & (np.hypot(*(back - start)[:, 0].T) < 0.5)
    return start[good, 0], there[good, 0]


def similarity(start: F32, there: F32, trusted: int) -> F64 | None:
    """Shift, zoom and turn [2, 3] that most of the tracks agree with, or None where fewer than `trusted` do."""
    if len(start) < trusted:
        return None
    model, agree = cv2.estimateAffinePartial2D(start, there, method=cv2.RANSAC, ransacReprojThreshold=1.0, maxIters=500)
    if model is None or np.count_nonzero(agree) < trusted:
        return None
    return np.asarray(model, np.float64)


def slope(luma: U8) -> F32:
    """Gray levels per px of the steepest change around each pixel, float32 [H, W]."""
    across, down = (cv2.Sobel(luma, cv2.CV_32F, dx, 1 - dx, scale=0.125) for dx in (1, 0))
    return np.asarray(cv2.GaussianBlur(cv2.magnitude(across, down), (0, 0), 1.5), np.float32)
