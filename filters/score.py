"""ScoreClips: measures every kept clip with a list of filters, judges it, and drops the frames of what is rejected."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation.clips import ClipError
from curation.frames import Frames
from filters.base import Entry, Filter, verdict

Scores = dict[str, float | None]


class ScoreClips:
    """One scoring stage of the stream: pa.Table -> pa.Table, each row in its place.

    A row is measured when it is a clip with status "ok", no reason yet, its frames, and this stage not yet behind it
    (`rejudge` sends clips through the stages that they lack; what is known of them stays). Its score columns are filled, the
    entries' rules judge them, their reasons are appended to `reject`, `frames` is nulled if there are any, and the stage's
    name is appended to `stages`. Every other row passes untouched, with null scores. A score that a filter could not
    measure (ClipError, or a number that is not finite) stays null and its rules reject as "not_measured:{column}".

    The output's schema is the input's followed by the entries' columns (float32) in the entries' order.

    Raises:
        ValueError: two entries have the same name, or none is given.
    """

    def __init__(self, entries: Sequence[Entry], stage_name: str) -> None:
        names = [entry.name for entry in entries]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"{stage_name}: needs at least one filter, each once, got {names}")
        self.entries, self.stage_name = tuple(entries), stage_name
        self.filters: list[Filter] = [entry.build() for entry in entries]  # here, so that weights load once a worker
        self.columns = [column for entry in entries for column in entry.columns()]
        self.rules = [rule for entry in entries for rule in entry.rules]

    def __call__(self, table: pa.Table) -> pa.Table:
        rows = table.select(["kind", "clip_id", "status", "reject", "stages", "answers"]).to_pylist()
        for row, blob in zip(rows, _blobs(table["frames"]), strict=True):
            row["frames"] = blob
        todo = [i for i, row in enumerate(rows) if is_open(row) and self.stage_name not in row["stages"]]
        scored, records = self._measure([rows[i] for i in todo])
        measured, said = dict(zip(todo, scored, strict=True)), dict(zip(todo, records, strict=True))
        for i, scores in measured.items():
            row = rows[i]
            row["reject"] = row["reject"] + verdict(scores, self.rules)
            row["stages"] = row["stages"] + [self.stage_name]
            row["answers"] = [*(row["answers"] or []), *said[i]] or None
        new = dict[str, pa.Array | pa.ChunkedArray]()
        if measured:
            new |= {name: pa.array([row[name] for row in rows], table.schema.field(name).type) for name in ("reject", "stages", "answers")}
        if any(rows[i]["reject"] for i in measured):
            stays = pa.array([i not in measured or not row["reject"] for i, row in enumerate(rows)])
            new["frames"] = pc.if_else(stays, table["frames"], pa.scalar(None, pa.large_binary()))
        before = set(table.column_names)
        for column in self.columns:
            known = table[column].to_pylist() if column in before else [None] * len(rows)
            new[column] = pa.array([measured[i][column] if i in measured else known[i] for i in range(len(rows))], pa.float32())
        return _with(table, new)

    def _measure(self, rows: Sequence[Mapping[str, Any]]) -> tuple[list[Scores], list[list[str]]]:
        """(scores, records of a model's answers) of each row."""
        clips = []
        for row in rows:
            try:
                clips.append(Frames.from_bytes(row["frames"]))
            except Exception as error:
                error.add_note(f"clip {row['clip_id']}: its frames could not be read back")
                raise
        found: list[Scores] = [{} for _ in rows]
        records: list[list[str]] = [[] for _ in rows]
        for entry, filter_ in zip(self.entries, self.filters, strict=True):
            ids = [str(row["clip_id"]) for row in rows]
            for scores, said, (raw, answers) in zip(found, records, _asked_of(filter_, clips, ids), strict=True):
                said += answers
                for name, column in zip(entry.scores, entry.columns(), strict=True):
                    value = raw.get(name)
                    scores[column] = float(value) if value is not None and math.isfinite(value) else None
        return found, records


def _blobs(column: pa.ChunkedArray) -> Iterator[memoryview | None]:
    """Each value of a large_binary column as a view of the table's own memory: a scalar or a list would be a copy of all pictures."""
    for chunk in column.chunks:
        _, places, data = chunk.buffers()
        for i, there in enumerate(chunk.is_valid().to_pylist(), chunk.offset):
            first, end = memoryview(places).cast("q")[i : i + 2].tolist() if there else (0, 0)
            yield memoryview(data)[first:end] if there else None


def is_open(row: Mapping[str, Any]) -> bool:
    """Whether a row still has to be judged: a clip, without a fault or reason, with its frames."""
    return bool(row["kind"] == "clip" and row["status"] == "ok" and not row["reject"] and row["frames"] is not None)


def _asked_of(filter_: Filter, clips: Sequence[Frames], ids: Sequence[str]) -> list[tuple[dict[str, float], list[str]]]:
    """Each clip's raw scores and the records of a model's answers; none of these where the filter asks no model."""
    score_asked = getattr(filter_, "score_asked", None)
    if score_asked is None or not clips:
        return [(scores, []) for scores in _scores_of(filter_, clips, ids)]
    try:
        return list(score_asked(clips, ids))
    except Exception as error:
        error.add_note(f"filter {type(filter_).__name__}, clips {', '.join(ids)}")
        raise


def _scores_of(filter_: Filter, clips: Sequence[Frames], ids: Sequence[str]) -> list[dict[str, float]]:
    """Each clip's raw scores; {} for a clip that the filter cannot measure (ClipError)."""
    score_many = getattr(filter_, "score_many", None)
    if score_many is not None and clips:
        try:
            return list(score_many(clips))
        except ClipError:
            pass  # one of them is at fault: find out which, one by one
        except Exception as error:
            error.add_note(f"filter {type(filter_).__name__}, clips {', '.join(ids)}")
            raise
    return [_score_of(filter_, clip, clip_id) for clip, clip_id in zip(clips, ids, strict=True)]


def _score_of(filter_: Filter, clip: Frames, clip_id: str) -> dict[str, float]:
    try:
        return filter_.score(clip)
    except ClipError:
        return {}
    except Exception as error:
        error.add_note(f"filter {type(filter_).__name__}, clip {clip_id}")
        raise


def _with(table: pa.Table, new: Mapping[str, pa.Array | pa.ChunkedArray]) -> pa.Table:
    """`table` with the columns in the places where they are already, else at the end; in one step, as each alone costs as much as all."""
    columns: dict[str, Any] = dict(zip(table.column_names, table.columns, strict=True))
    fields = {field.name: field for field in table.schema}
    columns |= new
    fields |= {name: pa.field(name, values.type) for name, values in new.items() if name not in fields}
    return pa.Table.from_arrays(list(columns.values()), schema=pa.schema(list(fields.values()), table.schema.metadata))
