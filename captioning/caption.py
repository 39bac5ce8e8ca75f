"""CaptionClips: the stage that fills a kept clip's events and caption and lets its frames go."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field

from captioning.checks import Evidence
from captioning.dense import Blur, Clip, Dense, Told, settings_of
from captioning.events import Event, check
from captioning.given import GIVEN_VERSION, fitted, given_events, joined, own_share
from captioning.measured import describe
from captioning.prompts import MEASURED_VERSION
from curation.binding import seal
from curation.clips import RECAPTION, ClipError, clip_schema
from curation.config import Config
from curation.frames import Frames
from curation.sample import digest
from curation.vlm import Vlm, VlmConfig, frames_sha256

#: What a caption consists of: born here together, and nulled together where a new one fails.
COLUMNS = ("events", "caption", "caption_backend", "prompt_version", "structure", "frames_sha256", "caption_sha256", "caption_settings")


class CaptionConfig(Config):
    """How clips are captioned."""

    backend: Literal["measured", "vlm", "given"] = Field(
        "measured",
        description="what writes the text: 'measured' needs no model and no network, and says what was measured; 'vlm' asks the model of [vlm]; "
        "'given' takes the timed actions of an input list's column events, as robots and games log them",
    )

    def settings(self, vlm: VlmConfig | None = None) -> str:
        """Sixteen hex digits of what decides the words: captions with other digits are others'."""
        if self.backend == "vlm":
            return digest(settings_of(vlm or VlmConfig()))[:16]
        return digest({"backend": self.backend, "version": GIVEN_VERSION if self.backend == "given" else MEASURED_VERSION})[:16]


class CaptionClips:
    """A clip-table function: captions each clip that is kept so far; other rows pass untouched.

    A clip is captioned when it is ok, has no reason to be rejected, and carries frames. The columns of `COLUMNS` are filled (`events`: one a
    chunk), its `frames` nulled, and "caption" is added to its `stages`; the model's answers are added to `answers`. A clip that cannot be
    captioned becomes a failed row with the fault's code (`captioning.checks.REASONS`, or the answer's), without frames and caption.

    Args:
        config: how.
        vlm: the model that answers where the backend is "vlm": its settings, or itself.
        blur: what blurs text in frames, for a second try; None = nothing can.
        again: for captions that are renewed: the stage is called "recaption", also where it fails, so that the new row counts before the old one.

    Raises:
        ValueError: what the back end needs is missing.
    """

    def __init__(self, config: CaptionConfig | None = None, vlm: VlmConfig | Vlm | None = None, blur: Blur | None = None, again: bool = False) -> None:
        self.config, self.again = config or CaptionConfig(), again
        chosen = vlm if isinstance(vlm, VlmConfig) else VlmConfig()
        self.settings = self.config.settings(chosen)
        self.dense: Dense | None = None
        if self.config.backend == "vlm":
            self.dense = Dense(chosen, blur, vlm=None if vlm is None or isinstance(vlm, VlmConfig) else vlm)

    def __call__(self, table: pa.Table) -> pa.Table:
        """`table` with the kept clips captioned; same rows, order and schema."""
        rows = table.to_pylist()
        waiting = [i for i, row in enumerate(rows) if _waits(row)]
        if not waiting:
            return table
        for i, told in zip(waiting, self._told([rows[i] for i in waiting]), strict=True):
            rows[i] = self._row(rows[i], told)
        return pa.Table.from_pylist(rows, schema=table.schema)

    def _row(self, row: dict[str, Any], told: Told) -> dict[str, Any]:
        """One kept row, captioned or failed; never with frames."""
        done = [*row["stages"], RECAPTION if self.again else "caption"]
        row = {**row, "frames": None, **dict.fromkeys(COLUMNS), "caption_settings": self.settings}
        if told.answers:
            row["answers"] = [*(row["answers"] or []), *told.answers]
        if told.fault is not None:
            failed = {"status": "failed", "error_code": told.fault.reason, "error_detail": told.fault.detail}
            return {**row, **failed, "stages": done if self.again else row["stages"]}
        row |= told.columns | {"stages": done}
        return {**row, "caption_sha256": seal(row)}

    def _told(self, rows: list[dict[str, Any]]) -> list[Told]:
        """What becomes of each row's clip, all questions to a model in one call."""
        told, clips = [Told() for _ in rows], dict[int, Clip]()
        for i, row in enumerate(rows):
            try:
                clips[i] = _clip(row)
                if self.dense is None:
                    told[i].columns = _given(clips[i], rows[i]) if self.config.backend == "given" else _measured(clips[i])
            except ClipError as fault:
                told[i].fault = fault
                clips.pop(i, None)
        if self.dense is not None:
            for i, found in zip(clips, self.dense.describe(list(clips.values())), strict=True):
                told[i] = found
        return told


def _clip(row: Mapping[str, Any]) -> Clip:
    """What a row holds for its caption.

    Raises:
        ClipError: "caption_invalid" where its times or frames do not make a caption.
    """
    if row["chunks"] is None or row["start_s"] is None or row["end_s"] is None:
        raise ClipError("caption_invalid", f"chunks, start_s and end_s must be set, got {row['chunks']}, {row['start_s']}, {row['end_s']}")
    try:
        frames = Frames.from_bytes(row["frames"])
    except ValueError as fault:
        raise ClipError("caption_invalid", f"frames cannot be read: {fault}") from fault
    return Clip(row["clip_id"], frames, Evidence.of(frames, row["chunks"], row["end_s"] - row["start_s"], _scores(row)))


def _measured(clip: Clip) -> dict[str, Any]:
    """The columns of a caption that says what was measured.

    Raises:
        ClipError: "caption_invalid" where a chunk has nothing to measure.
    """
    evidence = clip.evidence
    caption = describe(clip.frames, len(evidence.spans), evidence.end_s, evidence.scores)
    return _columns(clip, caption.events, caption.text, "measured", MEASURED_VERSION)


def _given(clip: Clip, row: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a caption that the source brought along, and the row's provenance with the clip's own events alone.

    Raises:
        ClipError: "caption_not_given" where it tells nothing of a chunk; "caption_invalid" or "caption_unsafe" where it cannot be used.
    """
    events = fitted(given_events(row["provenance"]), row["start_s"], row["chunks"], clip.evidence.end_s)
    columns = _columns(clip, events, joined(event.text for event in events), "given", GIVEN_VERSION)
    return {**columns, "provenance": own_share(row["provenance"], row["start_s"], row["end_s"])}


def _columns(clip: Clip, events: Sequence[Event], text: str, backend: str, version: str) -> dict[str, Any]:
    """A caption's columns where no model has written it, tied to the pictures that it stands beside.

    Raises:
        ClipError: "caption_invalid" where the events break the rules.
    """
    check(events, clip.evidence.end_s)
    times = clip.frames.time_s - clip.frames.time_s[0]
    return {
        "events": [event.as_dict() for event in events],
        "caption": text,
        "caption_backend": backend,
        "prompt_version": version,
        "frames_sha256": frames_sha256(clip.frames.rgb, times.tolist()),
    }


def _waits(row: Mapping[str, Any]) -> bool:
    """Whether the row is a clip that is kept so far and still has its frames."""
    return bool(row["kind"] == "clip" and row["status"] == "ok" and not row["reject"] and row["frames"] is not None)


def _scores(row: Mapping[str, Any]) -> dict[str, float | None]:
    """The row's score columns: all that the base schema does not name."""
    base = set(clip_schema().names)
    return {name: value for name, value in row.items() if name not in base}
