"""Events: whatever the clip, one a chunk, ordered and inside it; every broken rule is refused by name."""

import itertools
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captioning.events import Event, check, chunk_spans, fit, parse
from curation.clips import ClipError

CHUNKS = st.integers(1, 40)


def refusal(events: list[Event], duration_s: float = 5.0625) -> str:
    with pytest.raises(ClipError) as caught:
        check(events, duration_s)
    assert caught.value.reason == "caption_invalid"
    return caught.value.detail


@settings(deadline=None, max_examples=60)
@given(chunks=CHUNKS, missing=st.floats(0, 0.9))
def test_the_grid_covers_the_clip_once(chunks: int, missing: float) -> None:
    duration = (1 + 40 * chunks) / 16 - missing
    spans = chunk_spans(chunks, duration)
    assert len(spans) == chunks
    assert spans[0][0] == 0.0
    assert spans[-1][1] == duration
    assert all(before[1] == after[0] for before, after in itertools.pairwise(spans))
    assert all(end - start == 2.5 for start, end in spans[1:-1])


def test_the_first_frame_belongs_to_the_first_chunk() -> None:
    assert chunk_spans(2, 5.0625) == [(0.0, 2.5625), (2.5625, 5.0625)]


def test_a_clip_that_runs_on_ends_its_last_chunk_on_the_grid() -> None:
    assert chunk_spans(1, 2.7) == [(0.0, 2.5625)]


@pytest.mark.parametrize(("chunks", "duration"), [(0, 3.0), (-1, 3.0), (2, 2.5625), (1, 0.0), (1, math.nan), (1, math.inf)])
def test_a_grid_that_does_not_fit_is_refused(chunks: int, duration: float) -> None:
    with pytest.raises(ClipError, match="caption_invalid"):
        chunk_spans(chunks, duration)


def test_overlap_is_allowed() -> None:
    check([Event(0, 4, "a"), Event(0, 2, "b"), Event(1, 5.0625, "c")], 5.0625)


@pytest.mark.parametrize(
    ("events", "says"),
    [
        ([], "no events"),
        ([Event(1, 1, "a")], "must end after it starts"),
        ([Event(2, 1, "a")], "must end after it starts"),
        ([Event(math.nan, 1, "a")], "must end after it starts"),
        ([Event(-0.1, 1, "a")], "outside the clip"),
        ([Event(0, 5.1, "a")], "outside the clip"),
        ([Event(1, 2, "a"), Event(0.5, 3, "b")], "before its predecessor"),
        ([Event(0, 1, " ")], "printable line"),
        ([Event(0, 1, "a\nb")], "printable line"),
    ],
)
def test_each_broken_rule_is_named(events: list[Event], says: str) -> None:
    assert says in refusal(events)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0.01, 5)), min_size=1, max_size=8))
def test_what_check_lets_pass_is_ordered_and_inside(pairs: list[tuple[float, float]]) -> None:
    events = [Event(start, start + length, "it moves") for start, length in pairs]
    try:
        check(events, 5.0625)
    except ClipError:
        assert any(e.end_s > 5.0625 for e in events) or [e.start_s for e in events] != sorted(e.start_s for e in events)
    else:
        assert all(0 <= e.start_s < e.end_s <= 5.0625 + 1e-6 for e in events)
        assert [e.start_s for e in events] == sorted(e.start_s for e in events)


@settings(deadline=None, max_examples=60)
@given(chunks=CHUNKS, data=st.data())
def test_fit_gives_one_event_a_chunk_inside_the_clip(chunks: int, data: st.DataObject) -> None:
    duration = (1 + 40 * chunks) / 16
    starts = sorted(data.draw(st.lists(st.floats(0, duration - 0.02), max_size=6)))
    extra = [Event(s, min(duration, s + 0.01 + data.draw(st.floats(0, 9))), f"event {i}") for i, s in enumerate(starts)]
    fitted = fit([Event(0.0, duration, "throughout"), *extra], chunks, duration)
    assert [(e.start_s, e.end_s) for e in fitted] == chunk_spans(chunks, duration)
    assert all(e.text.startswith("throughout") for e in fitted)
    check(fitted, duration)
    assert fit(fitted, chunks, duration) == fitted


def test_fit_puts_each_text_where_it_belongs() -> None:
    events = [Event(0, 2.4, "waits"), Event(2.3, 5.0625, "runs"), Event(3, 4, "falls")]
    assert [e.text for e in fit(events, 2, 5.0625)] == ["waits", "runs falls"]


def test_fit_refuses_a_chunk_nobody_speaks_of() -> None:
    with pytest.raises(ClipError, match="no event speaks of chunk 1"):
        fit([Event(0, 2.5, "waits")], 2, 5.0625)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.builds(Event, st.floats(0, 9), st.floats(0, 9), st.sampled_from(["it moves", "a door opens", "é"])), max_size=5))
def test_parse_reads_back_what_a_row_holds(events: list[Event]) -> None:
    rows = [event.as_dict() for event in events]
    assert parse(rows) == parse(json.dumps(rows)) == events


def test_parse_makes_one_line_of_a_text() -> None:
    assert parse('[{"start_s": 0, "end_s": 1, "text": " it\\n  falls\\u0000 "}]') == [Event(0.0, 1.0, "it falls\\x00")]


@pytest.mark.parametrize(
    "raw",
    ["{", "{}", '"text"', "[1]", '[{"start_s": 0, "end_s": 1}]', '[{"start_s": "0", "end_s": 1, "text": "a"}]', '[{"start_s": true, "end_s": 1, "text": "a"}]'],
)
def test_parse_refuses_what_is_no_list_of_events(raw: str) -> None:
    with pytest.raises(ClipError) as caught:
        parse(raw)
    assert caught.value.reason == "caption_invalid"
