"""Ledger: the append-only memory of a run, read as it stands at one moment: every clip and every video once."""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation.clips import clip_schema
from curation.lineage import Known, known, replaced, settle
from curation.renewal import bytes_at, lend, renewed
from curation.segments import BLOBS, LEDGER, PLACE, SEGMENTS, DamagedSegment, Segment, read_segment, row_key
from curation.storage import Storage

log = logging.getLogger("pan.ledger")

Out = str | os.PathLike[str] | Storage


@dataclass(frozen=True)
class FrozenLedger:
    """What was committed at one moment, each clip and each video once.

    Of two rows about the same thing the one that came further wins: a caption renewed more often, status "ok" before others, then more stages
    passed (a clip that `rejudge` sent through the missing stages), then the lexicographically smallest segment id: the same choice in
    whatever order they were committed.
    Of two attempts that cut a video differently, the newest counts; of two files that lay under one name, the one that was there last (`curation.lineage`).

    Attributes:
        segments: the sound segments, by id.
        damaged: ids of segments that are not sound, with what is wrong; their items count as not done.
        table: all rows, clips by (video_id, clip_index, clip_id) and then videos by (video_id, video_uri).
        sources: what each source's name stands for.
    """

    out: Storage
    segments: tuple[Segment, ...]
    damaged: tuple[str, ...]
    table: pa.Table
    sources: Mapping[str, Known]

    @classmethod
    def read(cls, out: Out, only: Iterable[str] | None = None) -> "FrozenLedger":
        """The ledger as it now stands, or exactly the segments `only`.

        Raises:
            DamagedSegment: one of `only` is damaged or gone.
        """
        store = Storage.at(out)
        names = sorted(only) if only is not None else [n.removesuffix(".parquet") for n in store.names(LEDGER) if n.endswith(".parquet")]
        segments, tables, damaged = [], [], []
        for name in names:
            try:
                if only is not None and store.size(f"{LEDGER}/{name}.parquet") is None:
                    raise DamagedSegment(name, "it is gone")
                facts, table = read_segment(store, name)
            except DamagedSegment as error:
                if only is not None:
                    raise
                log.warning("%s", error)
                damaged.append(str(error))
                continue
            segments.append(facts)
            tables.append(table)
        merged = pa.concat_tables([_empty(), *tables], promote_options="permissive") if tables else _empty()
        table, sources = _once(merged)
        return cls(store, tuple(segments), tuple(damaged), table, sources)

    def clips(self) -> pa.Table:
        """One row a clip."""
        return self.table.filter(pc.equal(self.table["kind"], "clip"))

    def videos(self) -> pa.Table:
        """One row a video, duplicates (same video_id, other uri) and failed ones among them."""
        return self.table.filter(pc.equal(self.table["kind"], "video"))

    def scores(self) -> list[str]:
        """The score columns, sorted."""
        return score_names(self.table)

    def done(self) -> set[tuple[str, str]]:
        """(video_id, video_uri) of videos with nothing left to do: failed, duplicate, or ok with all the clips that the splitter found."""
        found: dict[str, list[int]] = {}
        clips = self.clips()
        for video, index in zip(clips["video_id"].to_pylist(), clips["clip_index"].to_pylist(), strict=True):
            found.setdefault(video, []).append(index)
        videos = self.videos().select(["video_id", "video_uri", "status", "stats"]).to_pylist()
        return {
            (v["video_id"], v["video_uri"])
            for v in videos
            if v["status"] != "ok" or sorted(found.get(v["video_id"], [])) == list(range(json.loads(v["stats"])["clips"]))
        }

    def done_video_ids(self) -> set[str]:
        """Ids of the videos that are done; see `done`."""
        rows = zip(self.videos()["video_id"].to_pylist(), self.videos()["video_uri"].to_pylist(), self.videos()["status"].to_pylist(), strict=True)
        done = self.done()
        return {video for video, uri, status in rows if status != "duplicate" and (video, uri) in done}

    def read_clip_bytes(self, row: Mapping[str, Any]) -> bytes:
        """The MP4 of one clip row.

        Raises:
            ValueError: the clip was never cut.
            DamagedSegment: its bytes are not those that were committed.
        """
        if row["length"] is None:
            raise ValueError(f"clip {row['clip_id']} has no MP4: the stage that cuts it has not run")
        return clip_bytes(self.out, row)


def clip_bytes(out: Storage, row: Mapping[str, Any]) -> bytes:
    """The MP4 of a clip row that has one.

    Raises:
        DamagedSegment: its bytes are not those that were committed.
    """
    with out.open(f"{SEGMENTS}/{row['video_segment']}.tar") as source:
        source.seek(row["offset"])
        data = source.read(row["length"])
    if hashlib.sha256(data).hexdigest() != row["video_sha256"]:
        raise DamagedSegment(row["video_segment"], f"the bytes of clip {row['clip_id']} are damaged")
    return data


def discard(out: Out, segment: str) -> None:
    """Takes a damaged segment out of the ledger, so that its items are done again by the next run."""
    store = Storage.at(out)
    store.remove(f"{LEDGER}/{segment}.parquet")
    store.remove(f"{SEGMENTS}/{segment}.tar")


def score_names(table: pa.Table) -> list[str]:
    """The columns of a ledger or clip table that are scores: those that `clip_schema()` does not name; sorted."""
    base = set(clip_schema().names) | {field.name for field in PLACE}
    return sorted(name for name in table.column_names if name not in base)


def _empty() -> pa.Table:
    """A ledger without rows."""
    return pa.schema([*(f for f in clip_schema() if f.name not in BLOBS), *PLACE]).empty_table()


SOURCE_COLUMNS = ("kind", "clip_id", "video_id", "video_uri", "video_stamp", "clip_index")
COLUMNS = (*SOURCE_COLUMNS, "status", "error_code", "stages", "segment", "fence", "length", "video_sha256")


def _once(table: pa.Table) -> tuple[pa.Table, dict[str, Known]]:
    """Each clip and each video once, in the order of `FrozenLedger.table`; and what each source's name stands for."""
    columns = table.select(list(COLUMNS)).to_pylist()
    newest, where = _torn(columns), bytes_at(columns)
    best: dict[tuple[str, str, str], tuple[Any, int]] = {}
    for i, row in enumerate(columns):
        if row["status"] != "duplicate" and row["fence"] < newest.get(row["video_id"], 0):
            continue
        if renewed(row) and (row["clip_id"], row["video_sha256"]) not in where:
            continue  # a renewed caption whose MP4 was lost with the segment that held it: both are made again
        again = 0 if row["status"] == "ok" else -row["fence"]  # what failed twice failed as it did last
        key, rank = row_key(row), (-renewed(row), row["status"] != "ok", -len(row["stages"]), again, row["segment"], i)
        if key not in best or rank < best[key][0]:
            best[key] = (rank, i)

    def place(row: Mapping[str, Any]) -> tuple[Any, ...]:
        return (row["kind"], row["video_id"], row["clip_index"] if row["kind"] == "clip" else 0, *row_key(row)[1:])

    once = lend(table, sorted((i for _, i in best.values()), key=lambda i: place(columns[i])), where)
    if old := replaced(columns):
        once = settle(once, old)
        rows = once.select(list(COLUMNS)).to_pylist()
        once = once.take(pa.array(sorted(range(len(rows)), key=lambda i: place(rows[i])), pa.int64()))
    return once, known(columns, once.select(list(COLUMNS)).to_pylist())


def _torn(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Videos that two attempts cut differently (another version or machine), with the newest attempt's fence.

    Two clips with one number tell them. Their older rows do not count, lest pieces of both be published; what the newest attempt did not
    finish is done again.
    """
    at: dict[tuple[str, int], str] = {}
    torn: set[str] = set()
    newest: dict[str, int] = {}
    for row in rows:
        if row["kind"] == "clip" and at.setdefault((row["video_id"], row["clip_index"]), row["clip_id"]) != row["clip_id"]:
            torn.add(row["video_id"])
        if row["status"] != "duplicate":
            newest[row["video_id"]] = max(row["fence"], newest.get(row["video_id"], 0))
    return {video: newest[video] for video in torn}


class Tail:
    """Follows a ledger while it grows: `fresh` gives what was committed since the last call (a clip that was committed twice comes twice)."""

    def __init__(self, out: Out) -> None:
        self.out = Storage.at(out)
        self.seen: dict[str, Segment] = {}

    def fresh(self) -> list[pa.Table]:
        """The rows of each new sound segment."""
        names = {name.removesuffix(".parquet") for name in self.out.names(LEDGER)}
        tables = []
        for name in sorted(names - self.seen.keys()):
            try:
                self.seen[name], table = read_segment(self.out, name)
            except DamagedSegment:  # FrozenLedger.read reports it; its items are done again
                continue
            tables.append(table)
        return tables
