"""Vision: RGB frames to the patches that Qwen2.5-VL's tower reads, as Qwen's own processors make them, without torchvision.

Shapes: T frames, H W pixels, C 3 colours, N patches, P numbers a patch (C x temporal patch x patch x patch, in this order).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from training.model.mrope import Grid
from training.model.plain import must
from training.model.spec import VisionSpec

#: Source: CLIP's colour statistics, preprocessor_config.json of Qwen2.5-VL-7B-Instruct.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
#: A picture longer than so many times its width is refused, as Qwen does.
MAX_RATIO = 200.0

Frames_THWC = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Sight:
    """What the model sees in one round: a picture (one frame), or a video.

    Raises:
        ValueError: the patches are not as many as the grid says.
    """

    patches_NP: Any
    """Float32 tensor; a group of merged patches stands together."""
    grid: tuple[int, int, int]
    """Patches in time, height and width."""
    seconds: float | None
    """Seconds between two patches in time; None for a picture, which has one."""

    def __post_init__(self) -> None:
        must(len(self.patches_NP) == math.prod(self.grid), f"sight: {len(self.patches_NP)} patches, but a grid of {self.grid}")

    def tokens(self, spec: VisionSpec) -> Grid:
        """Its tokens: the patches, merged, with their step in time."""
        return tokens(self.grid, self.seconds, spec)


def tokens(grid: tuple[int, int, int], seconds: float | None, spec: VisionSpec) -> Grid:
    """The tokens of a sight of `grid` patches, `seconds` apart in time."""
    time, height, width = grid
    return Grid(time, height // spec.merge, width // spec.merge, 1.0 if seconds is None else seconds * spec.tokens_per_second)


@dataclass(frozen=True)
class Look:
    """The pixels that the tower is shown, sampled in time and resized: what is worth storing of a chunk, a quarter of its patches' bytes.

    Raises:
        ValueError: they are no uint8 RGB frames.
    """

    frames_THWC: Frames_THWC
    """uint8 RGB [T, H, W, 3]."""
    seconds: float | None
    """As `Sight.seconds`."""

    def __post_init__(self) -> None:
        _check_frames(self.frames_THWC)

    def sight(self, spec: VisionSpec) -> Sight:
        """The same as patches."""
        return _patched(self.frames_THWC, spec, self.seconds)


def see(frames_THWC: Frames_THWC, fps: float, spec: VisionSpec) -> Sight:
    """Frames as the tower wants them: one frame as a picture, more as a video of which `spec.sample_fps` frames a second are kept.

    Args:
        frames_THWC: uint8 RGB [T, H, W, 3].
        fps: frames a second of `frames_THWC`; of no account for one frame.

    Raises:
        ValueError: no uint8 RGB frames, no frames at all, a clock that does not run, or a picture too long for its width.

    Source: Qwen's vision_process.py and transformers' Qwen2VLImageProcessorPil, whose results this gives to the bit, for each frame of a video too.
    (Processors that resize with torchvision round otherwise, by 2 of 256 steps at most; Pillow gives the same on every machine.)
    """
    return look_at(frames_THWC, fps, spec).sight(spec)


def look_at(frames_THWC: Frames_THWC, fps: float, spec: VisionSpec) -> Look:
    """`see`, as far as pixels: the frames that are kept, at the tower's size.

    Raises:
        ValueError: as `see`.
    """
    _check_frames(frames_THWC)
    if len(frames_THWC) == 1:
        return Look(_resized(frames_THWC, spec, spec.image_pixels), None)
    must(math.isfinite(fps) and fps > 0, f"see: {fps} frames a second; a video's clock must run")
    kept = sampled(len(frames_THWC), fps, spec)
    # Qwen counts a sampled video's rate as frames kept by duration, whatever lies between them.
    seconds = spec.temporal_patch * len(frames_THWC) / (len(kept) * fps)
    return Look(_resized(frames_THWC[kept], spec, spec.video_pixels), seconds)


def _check_frames(frames_THWC: Frames_THWC) -> None:
    shape = np.shape(frames_THWC)
    must(
        isinstance(frames_THWC, np.ndarray) and frames_THWC.dtype == np.uint8 and len(shape) == 4 and shape[-1] == 3 and min(shape) > 0,
        f"see: frames must be a uint8 array [T, H, W, 3] with at least one frame, got {getattr(frames_THWC, 'dtype', type(frames_THWC))} {shape}",
    )


def sampled(count: int, fps: float, spec: VisionSpec) -> npt.NDArray[np.int64]:
    """Which of `count` frames are looked at: `spec.sample_fps` a second, at least `min_frames`, a multiple of `temporal_patch`.

    Source: smart_nframes of Qwen's vision_process.py; its rounding and places, and those of transformers, are choices of `spec`.
    """
    unit = spec.temporal_patch
    if count < unit:
        return np.arange(count)
    most = min(spec.max_frames, count) // unit * unit
    wanted = min(max(count / fps * spec.sample_fps, spec.min_frames), most)
    number = (math.ceil(wanted / unit) if spec.rounding == "ceil" else math.floor(wanted / unit)) * unit
    number = min(max(number, unit), most)
    if spec.places == "even":
        return np.asarray(torch.arange(0, count, count / number).int().numpy()[:number], dtype=np.int64)
    return np.asarray(torch.linspace(0, count - 1, number).round().numpy(), dtype=np.int64)


def fitted(height: int, width: int, factor: int, pixels: tuple[int, int]) -> tuple[int, int]:
    """The nearest (height, width) in px, of about the same shape, that `factor` divides and whose area lies in `pixels`.

    Raises:
        ValueError: the picture is more than 200 times as long as wide.

    Source: smart_resize of Qwen's vision_process.py.
    """
    ratio = max(height, width) / min(height, width)
    must(ratio <= MAX_RATIO, f"see: a picture of {height}x{width} px is {ratio:.0f} times as long as wide; at most {MAX_RATIO:.0f} times is read")
    fewest, most = pixels
    rows, columns = round(height / factor), round(width / factor)
    if rows * columns * factor**2 > most:
        scale = math.sqrt(height * width / most)
        rows, columns = max(1, math.floor(height / scale / factor)), max(1, math.floor(width / scale / factor))
    elif rows * columns * factor**2 < fewest:
        scale = math.sqrt(fewest / (height * width))
        rows, columns = math.ceil(height * scale / factor), math.ceil(width * scale / factor)
    return rows * factor, columns * factor


def _resized(frames_THWC: Frames_THWC, spec: VisionSpec, pixels: tuple[int, int]) -> Frames_THWC:
    """Frames at the tower's size."""
    height, width = fitted(frames_THWC.shape[1], frames_THWC.shape[2], spec.patch * spec.merge, pixels)
    return np.stack([np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC)) for frame in frames_THWC])


def _patched(resized: Frames_THWC, spec: VisionSpec, seconds: float | None) -> Sight:
    """Frames at the tower's size, normalised, the last one repeated until time divides, cut into patches in the order that merging wants."""
    height, width = resized.shape[1:3]
    lacking = -len(resized) % spec.temporal_patch
    resized = np.concatenate([resized, np.repeat(resized[-1:], lacking, axis=0)])
    colours = np.stack([_TABLE[channel][resized[..., channel]] for channel in range(3)], axis=1)  # [T, C, H, W]
    time, rows, columns = len(resized) // spec.temporal_patch, height // spec.patch, width // spec.patch
    cells = colours.reshape(time, spec.temporal_patch, 3, rows // spec.merge, spec.merge, spec.patch, columns // spec.merge, spec.merge, spec.patch)
    patches = cells.transpose(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(time * rows * columns, -1)
    return Sight(torch.from_numpy(patches), (time, rows, columns), seconds)


def _table() -> npt.NDArray[np.float32]:
    """The normalised value of each of a colour's 256, float32 [3, 256], rounded where Qwen's processor rounds."""
    shares = (np.arange(256, dtype=np.float64) * (1 / 255)).astype(np.float32)
    return (shares - np.array(MEAN, dtype=np.float32)[:, None]) / np.array(STD, dtype=np.float32)[:, None]


_TABLE = _table()
