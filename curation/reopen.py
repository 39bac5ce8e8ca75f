"""ReopenClips, RecallClips: known clips' frames again, from their own stretch of the video alone, or from the MP4s that were cut of them."""

import io
import itertools
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from curation.clips import RECAPTION, ClipError
from curation.frames import Frames
from curation.ledger import clip_bytes
from curation.opening import Source, check_unchanged
from curation.sampler import sample_clip
from curation.segments import PLACE
from curation.shots import SplitConfig, frames_of
from curation.storage import Storage
from curation.video import Limits, Video, read_clip


class ReopenClips:
    """Fills `frames` of each open clip row from a second look at its stretch; the bytes are those of the one pass.

    A rejected clip's frames are not kept (they would be most of the output), so a looser threshold decodes that clip again:
    from the key frame before it to its end, never the rest of its video.
    """

    def __init__(self, config: SplitConfig, limits: Limits) -> None:
        self._config, self._limits = config, limits

    def __call__(self, table: pa.Table) -> pa.Table:
        """The rows with `frames`; one that cannot be read again fails with the reason."""
        rows = table.to_pylist()
        for row in rows:
            if row["kind"] != "clip" or row["status"] != "ok" or row["reject"]:
                continue
            try:
                check_unchanged(row, self._limits)
                pictures = read_clip(row["video_uri"], row["start_pts"], row["end_pts"], self._limits, self._config.size)
                row["frames"] = frames_of(pictures, row, self._config).to_bytes()
            except ClipError as error:
                row |= {"status": "failed", "error_code": error.reason, "error_detail": error.detail}
        return pa.Table.from_pylist(rows, schema=table.schema)


class RecallClips:
    """Fills `frames` of clip rows from their own MP4s in the segments, sampled as the first pass samples: no source video is opened.

    Args:
        out: the output whose segments hold the MP4s.
        config: how clips are sampled.
        limits: what is allowed.
        settings: the caption settings for whose sake the clips are recalled (a clip that cannot be is not tried again under them).
    """

    def __init__(self, out: Storage, config: SplitConfig, limits: Limits, settings: str) -> None:
        self._out, self._config, self._limits, self._settings = out, config, limits, settings

    def __call__(self, table: pa.Table) -> pa.Table:
        """The rows with `frames`, without `PLACE`; one whose MP4 cannot be read fails with the reason.

        Raises:
            DamagedSegment: the storage's fault: an MP4's bytes are not those that were committed.
        """
        rows = table.to_pylist()
        for row in rows:
            try:
                row["frames"] = frames_of_mp4(clip_bytes(self._out, row), row, self._config, self._limits).to_bytes()
            except ClipError as error:
                row |= {"status": "failed", "error_code": error.reason, "error_detail": error.detail}
                row |= {"stages": [*row["stages"], RECAPTION], "caption_settings": self._settings}
        kept = [field for field in table.schema if field.name not in {place.name for place in PLACE}]
        return pa.Table.from_pylist([{field.name: row[field.name] for field in kept} for row in rows], schema=pa.schema(kept))


def frames_of_mp4(data: bytes, clip: Mapping[str, Any], config: SplitConfig, limits: Limits | None = None) -> Frames:
    """A cut clip's `Frames` from its MP4, sampled like `curation.shots.frames_of`; times are since the MP4's first frame.

    Args:
        data: the MP4.
        clip: needs `start_s`, `end_s` and `video_start_frame` (the MP4's frame at which the clip begins).
        config: short side, samples per second and neighbours.

    Raises:
        ClipError: the MP4 cannot be decoded.
    """
    source = Source(io.BytesIO(data), len(data), lambda: (len(data), 0))
    with Video(source, limits, config.size) as video:
        pictures = itertools.islice(video.pictures(), clip["video_start_frame"] or 0, None)
        first = next(pictures, None)
        if first is None:
            raise ClipError("cut_mismatch", f"the MP4 has no frame {clip['video_start_frame']}, at which its clip is to begin")
        end_s = first.time_s + clip["end_s"] - clip["start_s"]
        whole = itertools.chain([first], pictures)
        return sample_clip(whole, first.time_s, end_s, config.sample_fps, config.neighbour_s, config.max_chunks)
