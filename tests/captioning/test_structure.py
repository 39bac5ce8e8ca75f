"""Structure: the schema takes exactly one entry a chunk, times come to lie on the grid, the JSON is canonical."""

import json
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from captioning.events import chunk_spans
from captioning.structure import MOVES, Dense, OffGrid, Shot, canonical, events, fitted, schema

SPANS = chunk_spans(2, 5.0625)
RUNS = [{"start_s": 0.3, "end_s": 5.08, "action": "runs  to\nthe left"}, {"start_s": 0.0, "end_s": 1.0, "action": "barks"}]


def answer(**changes: Any) -> dict[str, Any]:
    return {
        "camera": [{"start_s": 1.0, "end_s": 3.02, "moves": ["pan_left", "tilt_up"]}, {"start_s": 0, "end_s": 2.5, "moves": ["zoom_in"]}],
        "actors": [{"name": "the dog", "actions": RUNS}],
        "chunks": [{"chunk": 0, "action": "A dog runs in."}, {"chunk": 1, "action": "The dog leaps."}],
        "caption": "A dog runs in and leaps.",
    } | changes


def test_the_schema_asks_for_each_chunk_once() -> None:
    jsonschema.validate(answer(), schema(2))
    jsonschema.validate({k: v for k, v in answer().items() if k in ("chunks", "caption")}, schema(2))
    for bad in (
        answer(chunks=answer()["chunks"][:1]),
        answer(chunks=[*answer()["chunks"], {"chunk": 1, "action": "Once more."}]),
        answer(extra=1),
        answer(camera=[{"start_s": 0.0, "end_s": 1.0, "moves": ["fly"]}]),
        answer(caption=""),
        {"caption": "A dog runs in."},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, schema(2))
    text = json.dumps(schema(3))
    assert "title" not in text
    assert "description" not in text
    assert '"maximum": 2' in text


def test_times_come_to_lie_on_the_grid_and_overlaps_stay() -> None:
    found = fitted(Dense.model_validate(answer()), SPANS)
    assert [(s.start_s, s.end_s, s.moves) for s in found.camera] == [(0.0, 2.5, ("zoom_in",)), (1.0, 3.0, ("pan_left", "tilt_up"))]
    first, second = found.actors[0].actions
    assert (first.start_s, first.end_s, first.action) == (0.3125, 5.0625, "runs to the left")
    assert second.end_s > first.start_s  # they overlap


@pytest.mark.parametrize(
    "changes",
    [
        {"chunks": [{"chunk": 1, "action": "A dog runs in."}, {"chunk": 0, "action": "The dog leaps."}]},
        {"chunks": [{"chunk": 0, "action": "A dog runs in."}]},
        {"camera": [{"start_s": 1.0, "end_s": 5.2, "moves": ["zoom_in"]}]},
        {"camera": [{"start_s": 3.0, "end_s": 1.0, "moves": ["zoom_in"]}]},
        {"camera": [{"start_s": 3.0, "end_s": 3.01, "moves": ["zoom_in"]}]},
        {"actors": [{"name": "it", "actions": [{"start_s": 6.0, "end_s": 7.0, "action": "runs"}]}]},
    ],
)
def test_what_is_off_the_grid_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(OffGrid):
        fitted(Dense.model_validate(answer(**changes)), SPANS)


def test_a_static_camera_does_nothing_else() -> None:
    with pytest.raises(ValidationError, match="does nothing else"):
        Shot(start_s=0, end_s=1, moves=("static", "zoom_in"))


def test_events_are_the_chunks() -> None:
    found = events(fitted(Dense.model_validate(answer()), SPANS), SPANS)
    assert [(e.start_s, e.end_s, e.text) for e in found] == [(0.0, 2.5625, "A dog runs in."), (2.5625, 5.0625, "The dog leaps.")]


def test_the_same_answer_gives_the_same_json() -> None:
    dense = fitted(Dense.model_validate(answer()), SPANS)
    text = canonical(dense, SPANS, ["b", "a", "a"])
    assert text == canonical(dense, SPANS, ["a", "b"])
    loaded = json.loads(text)
    assert loaded["schema"] == "pan-structure/1"
    assert loaded["flags"] == ["a", "b"]
    assert loaded["chunks"][1] == {"start_s": 2.5625, "end_s": 5.0625, "action": "The dog leaps."}
    assert '"end_s": 1.0' in text


def test_every_pan_move_is_known() -> None:
    assert len(set(MOVES)) == len(MOVES) == 18
