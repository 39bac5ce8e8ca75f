"""Report pictures: six moments of a clip on one small JPEG, from a kept clip's MP4 or from the source of a rejected one."""

import io
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from curation.clips import ClipError
from curation.frames import U8
from curation.ledger import FrozenLedger
from curation.segments import DamagedSegment
from curation.video import Picture, Video, read_clip

COLUMNS, ROWS = 3, 2
TILE_PX = 200  # width of a tile; a tall picture is made smaller so that it is no higher
DECODE_PIXELS = 6_000_000_000  # source pixels (frames x width x height) that one page may decode: some 3,000 frames of full HD, half a minute


def kept_sheet(ledger: FrozenLedger, row: Mapping[str, Any]) -> tuple[bytes | None, str]:
    """A kept clip's contact sheet from the MP4 that went into the shards; or None and why not."""
    try:
        with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
            file.write(ledger.read_clip_bytes(row))
            file.flush()
            with Video(file.name) as video:
                return sheet(video.pictures(), int(row["video_frames"]), int(row["video_start_frame"] or 0)), ""
    except (ClipError, DamagedSegment, OSError, ValueError) as error:
        return None, f"no picture: {error}"


def source_sheet(row: Mapping[str, Any]) -> tuple[bytes | None, str]:
    """A rejected clip's contact sheet from its source, if that is still there; or None and why not."""
    try:
        return sheet(read_clip(row["video_uri"], row["start_pts"], row["end_pts"]), int(row["end_frame"] - row["start_frame"])), ""
    except (ClipError, OSError) as error:
        return None, f"no picture: {error}"


def sheet(pictures: Iterable[Picture], frames: int, first: int = 0) -> bytes:
    """A JPEG of 3 x 2 tiles: six of the pictures `first` to `frames`, evenly spread.

    Raises:
        ClipError: "too_few_frames", or what the pictures raise.
    """
    wanted = set(np.linspace(first, max(first, frames - 1), COLUMNS * ROWS + 2).round().astype(int)[1:-1].tolist())
    tiles: list[U8] = []
    for i, picture in enumerate(pictures):
        if i in wanted:
            tiles.append(_tile(picture))
        if i >= max(wanted):
            break
    if not tiles:
        raise ClipError("too_few_frames", "none of the six moments could be decoded")
    return _jpeg(tiles)


def _tile(picture: Picture) -> U8:
    height, width = picture.luma.shape
    scale = min(TILE_PX / width, TILE_PX / height, 1.0)
    return picture.thumb(max(2, round(width * scale)), max(2, round(height * scale)))


def _jpeg(tiles: list[U8]) -> bytes:
    from PIL import Image

    height, width = max(t.shape[0] for t in tiles), max(t.shape[1] for t in tiles)
    page = Image.new("RGB", (COLUMNS * (width + 2) - 2, ROWS * (height + 2) - 2))
    for i in range(COLUMNS * ROWS):
        tile = tiles[min(i, len(tiles) - 1)]  # a clip of fewer frames shows its last one again
        page.paste(Image.fromarray(tile), (i % COLUMNS * (width + 2), i // COLUMNS * (height + 2)))
    out = io.BytesIO()
    page.save(out, "JPEG", quality=72, optimize=True)
    return out.getvalue()


def cost(row: Mapping[str, Any]) -> int:
    """Source pixels that a rejected clip's sheet decodes."""
    return int(row["end_frame"] - row["start_frame"]) * int(row["width"]) * int(row["height"])
