"""CaptionClips: the stage that fills a kept clip's events and caption and lets its frames go."""

from typing import Any, Literal

import pyarrow as pa
from pydantic import Field

from captioning.events import check
from captioning.measured import describe
from captioning.prompts import MEASURED_VERSION
from curation.clips import ClipError, clip_schema
from curation.config import Config
from curation.frames import Frames


class CaptionConfig(Config):
    """How clips are captioned."""

    backend: Literal["measured", "vlm"] = Field(
        "measured",
        description="what writes the text: 'measured' needs no model and no network, and says what was measured; 'vlm' asks the model of [vlm]",
    )


class CaptionClips:
    """A clip-table function: captions each clip that is kept so far; other rows pass untouched.

    A clip is captioned when it is ok, has no reason to be rejected, and carries frames. Its `events` (one a chunk), `caption`,
    `caption_backend` and `prompt_version` are filled, its `frames` nulled, and "caption" is added to its `stages`. A clip that cannot
    be captioned becomes a failed row with the fault's code, without frames.
    """

    def __init__(self, config: CaptionConfig | None = None) -> None:
        self.config = config or CaptionConfig()
        if self.config.backend == "vlm":
            raise ValueError("caption.backend = 'vlm' is not built yet; use 'measured'")

    def __call__(self, table: pa.Table) -> pa.Table:
        """`table` with the kept clips captioned; same rows, order and schema."""
        rows = table.to_pylist()
        if not any(map(_waits, rows)):
            return table
        return pa.Table.from_pylist([self._row(row) if _waits(row) else row for row in rows], schema=table.schema)

    def _row(self, row: dict[str, Any]) -> dict[str, Any]:
        """One kept row, captioned or failed; never with frames."""
        try:
            return {**row, **self._captioned(row), "frames": None, "stages": [*row["stages"], "caption"]}
        except ClipError as fault:
            return {**row, "frames": None, "status": "failed", "error_code": fault.reason, "error_detail": fault.detail}

    def _captioned(self, row: dict[str, Any]) -> dict[str, Any]:
        """The columns that are born here.

        Raises:
            ClipError: "caption_invalid" where the row's times or frames do not make a caption.
        """
        if row["chunks"] is None or row["start_s"] is None or row["end_s"] is None:
            raise ClipError("caption_invalid", f"chunks, start_s and end_s must be set, got {row['chunks']}, {row['start_s']}, {row['end_s']}")
        try:
            frames = Frames.from_bytes(row["frames"])
        except ValueError as fault:
            raise ClipError("caption_invalid", f"frames cannot be read: {fault}") from fault
        duration_s = row["end_s"] - row["start_s"]
        caption = describe(frames, row["chunks"], duration_s, _scores(row))
        check(caption.events, duration_s)
        events = [event.as_dict() for event in caption.events]
        return {"events": events, "caption": caption.text, "caption_backend": self.config.backend, "prompt_version": MEASURED_VERSION}


def _waits(row: dict[str, Any]) -> bool:
    """Whether the row is a clip that is kept so far and still has its frames."""
    return row["kind"] == "clip" and row["status"] == "ok" and not row["reject"] and row["frames"] is not None


def _scores(row: dict[str, Any]) -> dict[str, float | None]:
    """The row's score columns: all that the base schema does not name."""
    base = set(clip_schema().names)
    return {name: value for name, value in row.items() if name not in base}
