"""Event: a timed piece of a caption; the chunk grid that events live on, and what makes a list of them valid."""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from curation.clips import ClipError, one_line

#: Source: PAN section 4 (Causal Swin-DPM): a chunk is 10 latent frames = 40 pixel frames, and the clip's first frame stands before them.
CHUNK_FRAMES, GRID_FPS = 40, 16

#: Times within this of a bound count as on it: the rows' times are float64, the grid's steps are exact in binary.
SLACK_S = 1e-6


@dataclass(frozen=True)
class Event:
    """What happens between two moments of a clip.

    Attributes:
        start_s, end_s: s from the clip's first frame, start_s < end_s.
        text: one line of plain text, not empty.
    """

    start_s: float
    end_s: float
    text: str

    def as_dict(self) -> dict[str, float | str]:
        """The struct of the `events` column."""
        return {"start_s": self.start_s, "end_s": self.end_s, "text": self.text}


def chunk_spans(chunks: int, duration_s: float) -> list[tuple[float, float]]:
    """[start, end) in s of each chunk of a clip of 1 + 40 N frames at 16 per second; the single first frame belongs to the first chunk.

    A clip's last source frame may end up to one frame before the grid does: the last span ends with the clip, never after.

    Raises:
        ClipError: "caption_invalid" where the clip has no chunk, or is too short for its last one.
    """
    if chunks < 1:
        raise ClipError("caption_invalid", f"a clip of {chunks} chunks has nothing to caption; at least 1 is needed")
    edges = [0.0, *((1 + CHUNK_FRAMES * (k + 1)) / GRID_FPS for k in range(chunks))]
    if not math.isfinite(duration_s) or duration_s <= edges[-2]:
        raise ClipError("caption_invalid", f"{chunks} chunks need more than {edges[-2]:.4f} s, the clip has {duration_s} s")
    edges[-1] = min(edges[-1], duration_s)
    return list(itertools.pairwise(edges))


def parse(raw: str | Sequence[Mapping[str, Any]]) -> list[Event]:
    """Events from a row's `events` column, or from JSON: a list of objects with `start_s`, `end_s` and `text`; other keys are errors.

    Raises:
        ClipError: "caption_invalid" where it is not such a list.
    """
    try:
        items = json.loads(raw) if isinstance(raw, str) else raw
    except json.JSONDecodeError as fault:
        raise ClipError("caption_invalid", f"not JSON: {fault}") from fault
    if not isinstance(items, Sequence) or isinstance(items, str):
        raise ClipError("caption_invalid", f"events must be a list, got {type(items).__name__}")
    return [_event(index, item) for index, item in enumerate(items)]


def _event(index: int, item: Any) -> Event:
    """One checked event of a parsed list; its text becomes one line."""
    if not isinstance(item, Mapping) or set(item) != {"start_s", "end_s", "text"}:
        raise ClipError("caption_invalid", f"event {index} must have exactly start_s, end_s and text, got {item!r}")
    start, end, text = item["start_s"], item["end_s"], item["text"]
    if any(isinstance(t, bool) or not isinstance(t, int | float) for t in (start, end)) or not isinstance(text, str):
        raise ClipError("caption_invalid", f"event {index}: start_s and end_s must be numbers and text a string, got {item!r}")
    return Event(float(start), float(end), one_line(" ".join(text.split()), limit=4000))


def check(events: Sequence[Event], duration_s: float) -> None:
    """Holds events to the rules: at least one, inside [0, duration_s], each with a length and a text, ordered by start; overlap is allowed.

    Raises:
        ClipError: "caption_invalid", naming the first event that breaks a rule and the rule.
    """
    if not events:
        raise ClipError("caption_invalid", "no events")
    before = 0.0
    for index, event in enumerate(events):
        if not (math.isfinite(event.start_s) and math.isfinite(event.end_s)) or event.end_s <= event.start_s:
            raise ClipError("caption_invalid", f"event {index} must end after it starts, got {event.start_s} to {event.end_s} s")
        if event.start_s < 0 or event.end_s > duration_s + SLACK_S:
            raise ClipError("caption_invalid", f"event {index} ({event.start_s} to {event.end_s} s) lies outside the clip of {duration_s} s")
        if event.start_s < before:
            raise ClipError("caption_invalid", f"event {index} starts at {event.start_s} s, before its predecessor at {before} s")
        if not event.text.strip() or event.text != one_line(event.text, limit=len(event.text)):
            raise ClipError("caption_invalid", f"event {index} must have a text of one printable line, got {event.text!r}")
        before = event.start_s


def fit(events: Sequence[Event], chunks: int, duration_s: float) -> list[Event]:
    """One event a chunk, from events at any times: a chunk's text joins, in time order, the events that fill half of it or lie half inside it.

    Raises:
        ClipError: "caption_invalid" where the events break `check`'s rules, or a chunk is left without one.
    """
    check(events, duration_s)
    fitted = []
    for k, (start, end) in enumerate(chunk_spans(chunks, duration_s)):
        texts = [e.text for e in events if min(e.end_s, end) - max(e.start_s, start) >= min(e.end_s - e.start_s, end - start) / 2 > 0]
        if not texts:
            raise ClipError("caption_invalid", f"no event speaks of chunk {k} ({start} to {end} s)")
        fitted.append(Event(start, end, " ".join(dict.fromkeys(texts))))
    return fitted
