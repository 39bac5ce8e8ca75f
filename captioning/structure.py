"""Structure: a dense caption as a model gives it and as a sample keeps it: chunks, actors and camera stretches on the 16 fps grid."""

import math
from collections.abc import Sequence
from typing import Any, Literal, cast, get_args

from pydantic import Field, field_validator

from captioning.events import GRID_FPS, SLACK_S, Event
from curation.config import Config
from curation.sample import to_json

STRUCTURE_VERSION = "pan-structure/1"

Move = Literal[
    "static",
    "pan_left",
    "pan_right",
    "tilt_up",
    "tilt_down",
    "track_left",
    "track_right",
    "dolly_up",
    "dolly_down",
    "dolly_forward",
    "dolly_backward",
    "zoom_in",
    "zoom_out",
    "roll_left",
    "roll_right",
    "orbit_left",
    "orbit_right",
    "unstable",
]
MOVES: tuple[str, ...] = get_args(Move)


class OffGrid(ValueError):
    """A time outside the clip, an interval that ends before it starts or is shorter than the grid's step, or chunks that are not those of the clip."""


class Span(Config):
    """A stretch of the clip, s from its start."""

    start_s: float = Field(ge=0, le=1000)
    end_s: float = Field(ge=0, le=1000)


class Action(Span):
    """What an actor does in a stretch."""

    action: str = Field(min_length=3, max_length=240)


class Actor(Config):
    """Who or what acts, and when; the intervals may overlap."""

    name: str = Field(min_length=2, max_length=80)
    actions: tuple[Action, ...] = Field(min_length=1, max_length=12)


class Shot(Span):
    """What the camera does in a stretch: several moves may hold at once."""

    moves: tuple[Move, ...] = Field(min_length=1, max_length=4)

    @field_validator("moves")
    @classmethod
    def _at_rest_or_moving(cls, moves: tuple[Move, ...]) -> tuple[Move, ...]:
        if "static" in moves and len(moves) > 1:
            raise ValueError(f"a camera that is static does nothing else, got {list(moves)}")
        return moves


class Chunk(Config):
    """The action of one chunk."""

    chunk: int = Field(ge=0, le=999)
    action: str = Field(min_length=3, max_length=400)


class Dense(Config):
    """What a model answers about one clip."""

    camera: tuple[Shot, ...] = Field((), max_length=24)
    actors: tuple[Actor, ...] = Field((), max_length=8)
    chunks: tuple[Chunk, ...] = Field(min_length=1)
    caption: str = Field(min_length=10, max_length=1200)

    def texts(self) -> list[str]:
        """Every text of the answer."""
        return [self.caption, *(c.action for c in self.chunks), *(a.name for a in self.actors), *(x.action for a in self.actors for x in a.actions)]


def schema(chunks: int) -> dict[str, Any]:
    """JSON Schema of the answer about a clip of `chunks` chunks: exactly one entry a chunk."""
    whole = Dense.model_json_schema()
    entries = whole["properties"]["chunks"]
    entries["minItems"] = entries["maxItems"] = chunks
    whole["$defs"]["Chunk"]["properties"]["chunk"]["maximum"] = chunks - 1
    return cast(dict[str, Any], _plain(whole))


def _plain(node: Any) -> Any:
    """The schema without titles, descriptions and defaults, which a grammar does not need."""
    if isinstance(node, dict):
        properties = node.get("properties", {})
        kept = {k: _plain(v) for k, v in node.items() if k not in ("title", "description", "default", "properties")}
        return kept | ({"properties": {k: _plain(v) for k, v in properties.items()}} if properties else {})
    return [_plain(item) for item in node] if isinstance(node, list) else node


def fitted(answer: Dense, spans: Sequence[tuple[float, float]]) -> Dense:
    """The answer with its times on the grid of 1/16 s and its texts as single lines.

    A model knows times to a quarter of a second at best, so the nearest step of the grid is meant; one that lies up to a step outside the clip is
    its end. What is further off is no rounding.

    Raises:
        OffGrid: the chunks are not 0, 1, ..., each once and in order, or a time lies outside the clip, or an interval has no length.
    """
    if [c.chunk for c in answer.chunks] != list(range(len(spans))):
        raise OffGrid(f"chunks must be numbered 0 to {len(spans) - 1}, each once and in order, got {[c.chunk for c in answer.chunks]}")
    end_s = spans[-1][1]
    camera = tuple(Shot(**_on_grid(shot, end_s, "camera"), moves=shot.moves) for shot in answer.camera)
    actors = tuple(
        Actor(name=one_line_of(actor.name), actions=tuple(Action(**_on_grid(a, end_s, actor.name), action=one_line_of(a.action)) for a in actor.actions))
        for actor in answer.actors
    )
    chunks = tuple(Chunk(chunk=c.chunk, action=one_line_of(c.action)) for c in answer.chunks)
    return Dense(camera=_ordered(camera), actors=actors, chunks=chunks, caption=one_line_of(answer.caption))


def _on_grid(span: Span, end_s: float, whose: str) -> dict[str, float]:
    """start_s and end_s on the grid."""
    start, end = (min(round(t * GRID_FPS) / GRID_FPS, end_s) for t in (span.start_s, span.end_s))
    if span.end_s > end_s + 1 / GRID_FPS + SLACK_S or not math.isfinite(span.end_s):
        raise OffGrid(f"{whose}: {span.start_s} to {span.end_s} s lies outside the clip of {end_s:.4f} s")
    if end - start < 1 / GRID_FPS - SLACK_S and not (end == end_s and start < end):
        raise OffGrid(f"{whose}: {span.start_s} to {span.end_s} s has no length on the grid of 1/{GRID_FPS} s")
    return {"start_s": start, "end_s": end}


def _ordered(shots: Sequence[Shot]) -> tuple[Shot, ...]:
    return tuple(sorted(shots, key=lambda shot: (shot.start_s, shot.end_s)))


def one_line_of(text: str) -> str:
    """The text with every run of white space, line ends among it, as one space."""
    return " ".join(text.split())


def events(answer: Dense, spans: Sequence[tuple[float, float]]) -> list[Event]:
    """The plain rendering that PAN trains on: one event a chunk with its action."""
    return [Event(start, end, chunk.action) for (start, end), chunk in zip(spans, answer.chunks, strict=True)]


def canonical(answer: Dense, spans: Sequence[tuple[float, float]], flags: Sequence[str]) -> str:
    """The JSON text of the row's `structure`: the same answer gives the same bytes."""
    chunks = [{"start_s": start, "end_s": end, "action": chunk.action} for (start, end), chunk in zip(spans, answer.chunks, strict=True)]
    whole = answer.model_dump(mode="json") | {"chunks": chunks, "flags": sorted(set(flags)), "schema": STRUCTURE_VERSION}
    return to_json(whole)
