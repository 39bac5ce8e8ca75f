"""Limits: what a video may be, and the checks that need nothing but numbers."""

from pydantic import Field

from curation.clips import ClipError
from curation.config import Config
from curation.containers import CODECS


class Limits(Config):
    """What a video may be. Header values are claims: the same limits hold while decoding (reliability R-3.4)."""

    max_bytes: int = Field(50 << 30, gt=0, description="bytes of the file")
    max_duration_s: float = Field(12 * 3600.0, gt=0, description="a day's recording is not a video to learn from")
    max_pixels: int = Field(4096 * 2304, gt=0, description="coded pixels: 4K passes, a decompression bomb does not")
    min_side_px: int = Field(64, ge=2, description="below it no filter measures anything")
    max_side_px: int = Field(8192, ge=2, description="strips are bombs too")
    max_aspect: float = Field(6.0, ge=1, description="long side / short side")
    min_fps: float = Field(1.0, gt=0, description="below it is a slide show")
    max_fps: float = Field(240.0, gt=0, description="above it is a forged clock")
    min_frames: int = Field(2, ge=1, description="one frame is a still picture")
    max_frames: int = Field(2_000_000, gt=0, description="frames decoded")
    max_streams: int = Field(64, gt=0, description="streams in the container; broadcast has dozens")
    wall_factor: float = Field(4.0, gt=0, description="s of decoding for each s of video ...")
    wall_base_s: float = Field(60.0, ge=0, description="... and these on top, before `timeout`")
    min_complete: float = Field(0.95, ge=0, le=1, description="share of the frames that the container claims which must decode")
    codecs: tuple[str, ...] = Field(CODECS, description="decoders that may run")
    salvage: bool = Field(False, description="keep the clean beginning of a truncated or damaged video instead of rejecting it")


def check_size(width: int, height: int, limits: Limits) -> None:
    """Checks a coded or displayed size in px.

    Raises:
        ClipError: dims_out_of_range.
    """
    short, long = sorted((width, height))
    if short < limits.min_side_px or long > limits.max_side_px:
        raise ClipError("dims_out_of_range", f"{width}x{height}, sides must be {limits.min_side_px} to {limits.max_side_px} px")
    if width * height > limits.max_pixels or long > limits.max_aspect * short:
        raise ClipError("dims_out_of_range", f"{width}x{height}, allowed are {limits.max_pixels} px and an aspect of {limits.max_aspect}")
