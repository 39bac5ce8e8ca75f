"""ReopenClips: known clips' frames again, from their own stretch of the video alone, for stages that they have not yet passed."""

import pyarrow as pa

from curation.clips import ClipError
from curation.opening import check_unchanged
from curation.shots import SplitConfig, frames_of
from curation.video import Limits, read_clip


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
