"""Frames: a clip's sampled pictures, their true neighbours, and the signals of every source frame between them."""

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

SIGNALS: Mapping[str, str] = {
    "time_s": "s since the video's first frame, one entry for every decoded source frame of the clip",
    "luma": "mean luma in [0, 255]",
    "luma_diff": "mean absolute luma difference to the preceding source frame in [0, 255]; 0 for the clip's first",
    "edge_diff": "share of edge pixels (of either frame) that the two frames do not have in common, in [0, 1]; 0 for the clip's first",
}


@dataclass(frozen=True)
class Frames:
    """A clip's frames, evenly sampled in time, at analysis size (short side 256 px unless the recipe says otherwise).

    Attributes:
        rgb: uint8 [T, H, W, 3], display orientation, square pixels.
        next_luma: uint8 [T, H, W]; luma of the source frame about 1/15 s after each sample (always a later frame of the
            same clip, never across a boundary). Dense flow is measured between luma(rgb[i]) and next_luma[i]: at 4 samples
            a second, neighbouring samples are too far apart for flow, and one source frame apart would make
            the measure depend on the frame rate.
        time_s: float64 [T], presentation time of each sample since the video's first frame, strictly increasing.
        dt_s: float32 [T], seconds between a sample and its neighbour; 0 where the clip has no later frame.
        fps: samples per second that were asked for (default 4).
        signals: one float32 [N] array a name of `SIGNALS`, N = source frames in the clip.

    Raises:
        ValueError: shapes or dtypes do not agree.
    """

    rgb: U8
    next_luma: U8
    time_s: F64
    dt_s: F32
    fps: float
    signals: Mapping[str, F32]

    def __post_init__(self) -> None:
        t = len(self.rgb)
        if self.rgb.dtype != np.uint8 or self.rgb.ndim != 4 or self.rgb.shape[3] != 3:
            raise ValueError(f"Frames.rgb must be uint8 [T, H, W, 3], got {self.rgb.dtype} {self.rgb.shape}")
        if self.next_luma.shape != self.rgb.shape[:3] or len(self.time_s) != t or len(self.dt_s) != t:
            raise ValueError(
                f"Frames: {t} pictures of {self.rgb.shape[1:3]}, but next_luma {self.next_luma.shape}, time_s {self.time_s.shape}, dt_s {self.dt_s.shape}"
            )
        if set(self.signals) != set(SIGNALS) or len({len(v) for v in self.signals.values()}) != 1:
            raise ValueError(f"Frames.signals must hold equally long {sorted(SIGNALS)}, got {sorted(self.signals)}")

    def __len__(self) -> int:
        return len(self.rgb)

    def luma(self) -> U8:
        """Luma of the samples, uint8 [T, H, W]: BT.601 weights in 8-bit fixed point, full range, as `next_luma`."""
        weights = np.array([77, 150, 29], np.uint16)
        return ((self.rgb.astype(np.uint16) @ weights) >> 8).astype(np.uint8)

    def to_bytes(self) -> bytes:
        """One blob for the `frames` column; `from_bytes` is its inverse."""
        out = io.BytesIO()
        head = np.array([self.fps], np.float64)
        for array in (head, self.rgb, self.next_luma, self.time_s, self.dt_s, *(self.signals[k] for k in SIGNALS)):
            np.save(out, np.ascontiguousarray(array), allow_pickle=False)
        return out.getvalue()

    @classmethod
    def from_bytes(cls, blob: bytes) -> "Frames":
        """Frames from `to_bytes`' blob.

        Raises:
            ValueError: the blob is not one of ours.
        """
        source = io.BytesIO(blob)
        head, rgb, next_luma, time_s, dt_s, *rest = (np.load(source, allow_pickle=False) for _ in range(5 + len(SIGNALS)))
        return cls(rgb, next_luma, time_s, dt_s, float(head[0]), dict(zip(SIGNALS, rest, strict=True)))
