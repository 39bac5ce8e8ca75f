"""Pixels: a clip's MP4 as the frames that a model is shown: on its clock, scaled to cover a bucket, cut to it, chunk by chunk."""

import io
import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from curation.clips import ClipError
from curation.opening import Source
from curation.video import Video
from training.data.buckets import Size
from training.data.grid import Grid
from training.model.spec import ChunkSpec

Frames_THWC = npt.NDArray[np.uint8]
_END = 2**62


def pieces(mp4: bytes, grid: Grid, spec: ChunkSpec, size: Size, chunks: int | None = None) -> Iterator[Frames_THWC]:
    """The image, uint8 RGB [1, H, W, 3], then each chunk [chunk_frames, H, W, 3]; one is in memory at a time.

    Args:
        size: (H, W) in px: pictures are scaled to cover it, and their middle is taken.
        chunks: stop after so many.

    Raises:
        ClipError: the MP4 cannot be decoded, or "cut_mismatch" where it holds fewer frames than its document says.
    """
    chunks = grid.chunks if chunks is None else chunks
    frames = _frames(mp4, grid, size, 1 + chunks * spec.chunk_frames)
    for length in (1, *[spec.chunk_frames] * chunks):
        piece = [frame for _, frame in zip(range(length), frames, strict=False)]
        if len(piece) != length:
            raise ClipError("cut_mismatch", f"the MP4 ends {length - len(piece)} frames before the end of a chunk that its document promises")
        yield np.stack(piece)


def _frames(mp4: bytes, grid: Grid, size: Size, count: int) -> Iterator[npt.NDArray[np.uint8]]:
    """The first `count` frames of the grid, uint8 RGB [H, W, 3] of `size`."""
    source = Source(io.BytesIO(mp4), len(mp4), lambda: (len(mp4), 0))
    with Video(source) as video:
        look = video.look(lambda width, height: covering(width, height, size))
        left, top = ((have - want) // 4 * 2 for have, want in zip(look.size, size[::-1], strict=True))
        for number, (_, frame) in enumerate(video.span(video.first_pts, _END)):
            step, off = divmod(number - grid.start, grid.stride)
            if step >= count:
                return
            if step >= 0 and not off:
                yield look.rgb(look.small(frame))[top : top + size[0], left : left + size[1]]


def covering(width: int, height: int, size: Size) -> tuple[int, int]:
    """(width, height) in px, even, to which pictures are scaled so that they just cover `size` = (H, W)."""
    scale = max(size[0] / height, size[1] / width)
    return tuple(max(want, 2 * math.ceil(side * scale / 2 - 1e-6)) for side, want in ((width, size[1]), (height, size[0])))  # type: ignore[return-value]
