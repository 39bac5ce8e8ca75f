"""Backlog: which videos a run still has to do, and which of the done ones are no longer the files that they were."""

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from captioning.given import retold
from curation.clips import one_line, table_of
from curation.ledger import FrozenLedger
from curation.opening import stamp_of
from curation.sources import Source, mark_duplicates
from curation.uris import local_path
from pipelines.changed import Changed
from pipelines.exits import Exit

log = logging.getLogger("pan.backlog")

READERS = 32  # an object store answers many questions at once, and each takes some 20 ms
NAMED = 20  # files that exit.json and the end report name; the log names them all
#: What reading a file says where it is merely not there: no word on its bytes.
ABSENT = ("io_error", "not_regular_file")


@dataclass(frozen=True)
class Listed:
    """The inputs against the ledger, before any file is read.

    Attributes:
        todo: rows of videos that are not done.
        suspects: rows of done videos whose size or time is not the one that was written down, or whose licence is now refused.
        gone: done videos that are missing or unreadable now: their clips stay.
    """

    todo: pa.Table
    suspects: pa.Table
    gone: list[str]

    @property
    def to_read(self) -> pa.Table:
        """The rows whose bytes have to be looked at."""
        return pa.concat_tables([self.todo, self.suspects])


@dataclass(frozen=True)
class Decided:
    """What has to be done, after the files were read.

    Attributes:
        todo: identified rows for the stream, duplicates marked.
        same: the ledger's rows of videos whose bytes are known after all, with the stamp that they have now.
        changed: done videos that have other bytes now, and what lies there.
        retaken: videos that failed or were duplicates before, and have other bytes now: they are done anew.
    """

    todo: pa.Table
    same: pa.Table
    changed: dict[str, str]
    retaken: list[str]

    @classmethod
    def nothing(cls) -> "Decided":
        """Where no file had to be read."""
        return cls(table_of([]), table_of([]), {}, [])


def look(videos: pa.Table, ledger: FrozenLedger) -> Listed:
    """Compares names, and of the names that are done size and time: one `stat` a file, no byte of it.

    Args:
        videos: from `curation.sources.video_table`.
    """
    done = {uri for _, uri in ledger.done()}
    rows = videos.to_pylist()
    known = [row for row in rows if row["video_uri"] in done]
    stamps = dict(zip((row["video_uri"] for row in known), _stamps(known), strict=True))
    todo, suspects, gone = [], [], sorted(done - {row["video_uri"] for row in rows})
    for row in rows:
        uri = row["video_uri"]
        if uri not in done:
            todo.append(row)
            continue
        before = ledger.sources[uri]
        if row["status"] == "failed":  # the allow-list refuses it: nothing is read
            if before.status != "failed":
                suspects.append(row)
        elif stamps[uri] in before.stamps:
            continue
        elif stamps[uri] in ("missing", "unreadable"):
            gone.append(uri)
        else:
            suspects.append(row)
    return Listed(pa.Table.from_pylist(todo, schema=videos.schema), pa.Table.from_pylist(suspects, schema=videos.schema), gone)


def decide(read: pa.Table, ledger: FrozenLedger, changed: Changed, fence: int) -> Decided:
    """What to do with each row that was read: the stream's rows, with duplicates of what the ledger knows marked.

    Args:
        read: `Listed.to_read` with ids, from `stream.identified`.
        changed: whether other bytes take the place of curated ones.
        fence: of this run. Rows of a known name carry it in their stamp, so that they differ from older ones about the same bytes.
    """
    done = {uri for _, uri in ledger.done()}
    rows = {(row["video_id"], row["video_uri"]): row for row in ledger.videos().to_pylist()}
    begun = _begun(ledger, read["video_uri"])
    todo, same, found, retaken = [], [], dict[str, str](), []
    for row in read.to_pylist():
        pair, uri, before = (row["video_id"], row["video_uri"]), row["video_uri"], ledger.sources.get(row["video_uri"])
        row["video_stamp"] = f"{row['video_stamp']}@{fence}" if row["video_stamp"] and (before or uri in begun) else row["video_stamp"]
        if before is None or uri not in done:
            todo.append(row)
            retaken += [uri] if begun.get(uri, {pair[0]}) != {pair[0]} else []
        elif pair[0] == before.video_id and row["status"] != "failed":
            same.append({**rows[pair], "video_stamp": row["video_stamp"]})
        elif before.status == "ok" and (changed is not Changed.REPLACE or row["error_code"] in ABSENT):
            found[uri] = f"video {before.video_id} is now {pair[0]}" if row["status"] != "failed" else f"{row['error_code']}: {row['error_detail']}"
        else:
            todo.append(row)
            retaken.append(uri)
    marked = mark_duplicates(_owned(todo, ledger, set(retaken), read.schema))
    return Decided(marked, table_of(same), found, retaken)


def tell(listed: Listed, decided: Decided, changed: Changed, counts: dict[str, Any]) -> Exit:
    """Says what became of files that are not what they were, in the log, in `counts` (exit.json), and by code 3 where someone has to decide."""
    counts["sources"] = {"changed": len(decided.changed), "gone": len(listed.gone), "retaken": len(decided.retaken), "same_bytes": decided.same.num_rows}
    for uri, what in decided.changed.items():
        log.warning("source_changed: %s: %s; its clips are those of the old bytes", one_line(uri), what)
    for uri in decided.retaken:
        log.warning("source_changed: %s was read anew: it has other bytes than when it was last read", one_line(uri))
    if listed.gone:
        log.warning("%d curated files are not there any more, such as %s; their clips stay", len(listed.gone), one_line(listed.gone[0]))
    if not decided.changed:
        return Exit.COMPLETE
    counts["changed_sources"] = dict(sorted(decided.changed.items())[:NAMED])
    if changed is Changed.KEEP:
        return Exit.COMPLETE
    first = one_line(min(decided.changed))
    counts["source_changed"] = (
        f"source_changed: {len(decided.changed)} curated files have other bytes now, such as {first}; their clips are still those of the old bytes. "
        "Run again with --changed replace to curate the new bytes and drop the old clips, or with --changed keep to leave it so"
    )
    return Exit.OVER_BUDGET


def tell_retold(sources: Sequence[Source], ledger: FrozenLedger, counts: dict[str, Any]) -> Exit:
    """Says which curated videos' given events are others in the lists now, in `counts` (exit.json), and by code 3: their captions are still the old ones."""
    rows = ledger.videos().select(["video_uri", "provenance", "status"]).to_pylist()
    names = retold(sources, {row["video_uri"]: row["provenance"] for row in rows if row["status"] == "ok"})
    if not names:
        return Exit.COMPLETE
    counts["events_changed"] = (
        f"events_changed: the lists tell other events of {len(names)} curated videos than when they were curated, such as {one_line(min(names))}; "
        "their captions are still those of the old events. Curate them into another --out, or give the old events again"
    )
    return Exit.OVER_BUDGET


def _begun(ledger: FrozenLedger, uris: pa.ChunkedArray) -> dict[str, set[str]]:
    """The video ids of the clips that the ledger holds of these names, finished or not."""
    clips = ledger.clips().select(["video_uri", "video_id", "error_code"])
    clips = clips.filter(pc.is_in(clips["video_uri"], uris.combine_chunks()))
    found: dict[str, set[str]] = {}
    for uri, video, code in zip(*(clips[name].to_pylist() for name in clips.column_names), strict=True):
        if code != "source_changed":
            found.setdefault(uri, set()).add(video)
    return found


def _owned(todo: list[dict[str, Any]], ledger: FrozenLedger, retaken: set[str], schema: pa.Schema) -> pa.Table:
    """Rows whose bytes the ledger knows under another name, which still holds them, as duplicates of that."""
    owners = {
        row["video_id"]: row["video_uri"]
        for row in ledger.videos().select(["video_id", "video_uri", "status", "error_code"]).to_pylist()
        if row["status"] != "duplicate" and row["error_code"] != "source_changed" and row["video_uri"] not in retaken
    }
    for row in todo:
        owner = owners.get(row["video_id"], row["video_uri"])
        if row["status"] == "ok" and owner != row["video_uri"]:
            row |= {"status": "duplicate", "error_code": "duplicate", "error_detail": one_line(f"same bytes as {owner}")}
    return pa.Table.from_pylist(todo, schema=schema)


def _stamps(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each row's stamp: what the listing said, else asked of the file; of remote files many at once."""

    def ask(row: Mapping[str, Any]) -> str:
        return row["video_stamp"] or stamp_of(row["video_uri"])

    if all(row["video_stamp"] or local_path(row["video_uri"]) is not None for row in rows):
        return [ask(row) for row in rows]
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(ask, rows))
