"""Frames: a clip's sampled pictures, their true neighbours, and the signals of every source frame between them."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

_NPY: Any = np.lib.format  # has no types

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
    _lumas: dict[int, list[U8]] = field(default_factory=dict, init=False, repr=False, compare=False)

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
        """Luma of the samples, uint8 [T, H, W]: BT.601 weights, full range, as `next_luma`."""
        from curation.luma import luma_of  # here: reading a recipe imports this file, and needs no OpenCV

        return np.stack([luma_of(picture) for picture in self.rgb])

    def lumas(self, side: int) -> Sequence[U8]:
        """Luma of each sample with its short side `side` px (see `curation.luma.at_side`), made once: motion, camera and quality look at the same pictures."""
        from curation.luma import at_side, luma_of

        if side not in self._lumas:
            self._lumas[side] = [at_side(luma_of(picture), side) for picture in self.rgb]
        return self._lumas[side]

    def to_bytes(self) -> bytes:
        """One blob for the `frames` column, arrays in NumPy's own format one after the other; `from_bytes` is its inverse."""
        parts = list[bytes | memoryview]()
        for array in (np.array([self.fps], np.float64), self.rgb, self.next_luma, self.time_s, self.dt_s, *(self.signals[k] for k in SIGNALS)):
            array, head = np.ascontiguousarray(array), io.BytesIO()
            _NPY.write_array_header_1_0(head, _NPY.header_data_from_array_1_0(array))
            parts += [head.getvalue(), array.data.cast("B") if array.size else b""]
        return b"".join(parts)

    @classmethod
    def from_bytes(cls, blob: bytes | memoryview) -> "Frames":
        """Frames from `to_bytes`' blob; its arrays are views of the blob and cannot be written to.

        Raises:
            ValueError: the blob is not one of ours.
        """
        arrays, at = list[npt.NDArray[Any]](), 0
        for _ in range(5 + len(SIGNALS)):
            array, at = _array(blob, at)
            arrays.append(array)
        head, rgb, next_luma, time_s, dt_s, *rest = arrays
        return cls(rgb, next_luma, time_s, dt_s, float(head[0]), dict(zip(SIGNALS, rest, strict=True)))


def _array(blob: bytes | memoryview, at: int) -> tuple[npt.NDArray[Any], int]:
    """The array whose NumPy header begins at byte `at`, and the first byte behind it."""
    head = io.BytesIO(blob[at : at + 4096])
    if _NPY.read_magic(head) != (1, 0):
        raise ValueError(f"Frames: byte {at} begins an array in a format that is not ours")
    shape, fortran, dtype = _NPY.read_array_header_1_0(head)
    if fortran or dtype.hasobject:
        raise ValueError(f"Frames: the array at byte {at} is not one of ours")
    at, count = at + head.tell(), math.prod(shape)
    return np.frombuffer(blob, dtype, count, at).reshape(shape), at + count * dtype.itemsize
