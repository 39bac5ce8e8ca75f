"""Given: captions that the source brings along: timed events in a column of its list, fitted to a clip's chunks."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence

from captioning import words
from captioning.events import CHUNK_FRAMES, GRID_FPS, Event, chunk_spans, parse
from curation.clips import ClipError
from curation.sources import Source, SourceErrors

#: The column of an input list that holds a video's events, times in s since its first frame: JSON text (CSV, Parquet), or a list of objects.
COLUMN = "events"
#: Raise the number with any change of the rule by which events become a chunk's text.
GIVEN_VERSION = "given/1"
#: Of the events that only touch a chunk, one must fill so much of it to be its text: less is the tail of what was told of its neighbour.
LEAST_SHARE = 0.25


def given_events(provenance: str | None) -> list[Event]:
    """The events that a video's list tells, by time; empty where it has none.

    Args:
        provenance: the row's column of that name: JSON of all columns of the list.

    Raises:
        ClipError: "caption_invalid" where they are no events, or one ends before it starts or says nothing; "caption_unsafe" where one holds an order
            to a model, a link or markup, as any text of a stranger's.
    """
    told = json.loads(provenance or "{}").get(COLUMN)
    events = parse(told) if told not in (None, "") else []
    for index, event in enumerate(events):
        if not (math.isfinite(event.start_s) and math.isfinite(event.end_s)) or event.end_s <= event.start_s:
            raise ClipError("caption_invalid", f"event {index} must end after it starts, got {event.start_s} to {event.end_s} s")
        if not event.text:
            raise ClipError("caption_invalid", f"event {index} ({event.start_s} to {event.end_s} s) has no text; where nothing happens, let it say so")
        if what := words.unsafe(event.text):
            raise ClipError("caption_unsafe", f"event {index} holds {what}")
    return sorted(events, key=lambda event: (event.start_s, event.end_s))


def fitted(events: Sequence[Event], start_s: float, chunks: int, duration_s: float) -> list[Event]:
    """One event a chunk of a clip, times in s from the clip's start.

    A chunk's text joins, by time, the events that fill half of it or lie half inside it; where there is none, it is the one that overlaps it most
    (the first of equals), if that fills a quarter of it. Nothing is made up for a chunk of which the source tells nothing.

    Args:
        events: of the whole video, by time, in s since its first frame.
        start_s: the clip's, in the same clock.

    Raises:
        ClipError: "caption_not_given" where the source tells nothing of a chunk; "caption_invalid" where the clip has no chunks.
    """
    found = []
    for index, (begin, end) in enumerate(chunk_spans(chunks, duration_s)):
        # The frames of a chunk after the first image: an event that ends with that image is the chunk's before.
        first = max(begin, 1 / GRID_FPS)
        shares = [(_overlap(event, start_s + first, start_s + end), event) for event in events]
        texts = [e.text for overlap, e in shares if overlap >= min(e.end_s - e.start_s, end - first) / 2]
        most, nearest = max(shares, key=lambda share: share[0], default=(0.0, None))
        if not texts and nearest is not None and most >= LEAST_SHARE * CHUNK_FRAMES / GRID_FPS:
            texts = [nearest.text]
        if not texts:
            raise ClipError("caption_not_given", f"chunk {index} ({start_s + first:.4f} to {start_s + end:.4f} s of the video): {_told(events)}")
        found.append(Event(begin, end, joined(dict.fromkeys(texts))))
    return found


def joined(texts: Iterable[str]) -> str:
    """Texts as one line: sentences one after the other, phrases with semicolons between."""
    line = ""
    for text in texts:
        line += f"{' ' if line.endswith(('.', '!', '?')) else '; ' if line else ''}{text}"
    return line


def check_sources(sources: Sequence[Source]) -> None:
    """Holds the lists of a run to their column of events before anything is decoded.

    Raises:
        SourceErrors: the events of a listed video cannot be read; all such faults.
        ValueError: no video at all has events.
    """
    faults = []
    for source in sources:
        try:
            given_events(source.provenance)
        except ClipError as error:
            faults.append(f"{source.origin}: {COLUMN}: {error}")
    if faults:
        raise SourceErrors(faults)
    check_any([source.provenance for source in sources])


def check_any(provenances: Sequence[str | None]) -> None:
    """Refuses videos of which none brings events along.

    Raises:
        ValueError: there are videos, and none has any.
    """
    if provenances and not any(json.loads(provenance or "{}").get(COLUMN) for provenance in provenances):
        raise ValueError(
            f'caption.backend = "given" takes captions from the column {COLUMN!r} of an input list, and none of the {len(provenances)} videos has it: '
            'give a CSV, JSONL or Parquet list with [{"start_s": 0.0, "end_s": 2.5, "text": "..."}, ...] there, or choose another backend'
        )


def retold(sources: Sequence[Source], curated: Mapping[str, str | None]) -> list[str]:
    """The uris of which the lists now tell other events than when they were curated.

    Args:
        curated: uri -> provenance of the videos that are done.
    """
    return [s.uri for s in sources if s.uri in curated and _readable(s.provenance) != _readable(curated[s.uri])]


def _readable(provenance: str | None) -> list[Event] | None:
    """The events, or None where they cannot be read."""
    try:
        return given_events(provenance)
    except ClipError:
        return None


def own_share(provenance: str | None, start_s: float, end_s: float) -> str | None:
    """The provenance with those events alone that overlap [start_s, end_s): a long video's events stand once in its clips, not in each of them."""
    columns: Mapping[str, object] = json.loads(provenance or "{}")
    if not columns.get(COLUMN):
        return provenance
    mine = [event.as_dict() for event in given_events(provenance) if event.start_s < end_s and event.end_s > start_s]
    return json.dumps({**columns, COLUMN: mine}, sort_keys=True, allow_nan=False, ensure_ascii=False)


def _overlap(event: Event, start_s: float, end_s: float) -> float:
    return min(event.end_s, end_s) - max(event.start_s, start_s)


def _told(events: Sequence[Event]) -> str:
    """What the source does tell, for a fault's text."""
    if not events:
        return f"the source's list tells no {COLUMN}"
    return f"none of the {len(events)} given events speaks of it; they lie between {events[0].start_s:g} and {max(e.end_s for e in events):g} s"
