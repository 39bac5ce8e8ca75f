"""Lineage: which bytes each source's name stands for now, where a file was replaced under its name between two runs."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

#: Codes of a row that says nothing of the bytes: it never stands against what an earlier run has read.
UNREAD = frozenset({"io_error"})

Pair = tuple[str, str]  # (video_id, video_uri)


@dataclass(frozen=True)
class Known:
    """What the ledger says of one source name.

    Attributes:
        video_id: of the bytes that it stands for; of the name where they could not be read.
        status: of the video's row: "ok", "failed" or "duplicate".
        stamps: every `curation.opening.stamp_of` under which these bytes were seen there; empty = none was written down.
    """

    video_id: str
    status: str
    stamps: frozenset[str]


def known(rows: Iterable[Mapping[str, Any]], settled: Iterable[Mapping[str, Any]]) -> dict[str, Known]:
    """By source name, from all video rows ever committed and from the settled ones."""
    stamps: dict[Pair, set[str]] = {}
    for row in rows:
        if row["kind"] == "video" and row["video_stamp"] is not None:
            stamps.setdefault((row["video_id"], row["video_uri"]), set()).add(row["video_stamp"].partition("@")[0])
    found: dict[str, Known] = {}
    for row in sorted(settled, key=lambda row: row["error_code"] != "source_changed"):  # what is there now stands against what was
        if row["kind"] == "video":
            found[row["video_uri"]] = Known(row["video_id"], row["status"], frozenset(stamps.get((row["video_id"], row["video_uri"]), ())))
    return found


def replaced(rows: Iterable[Mapping[str, Any]]) -> set[Pair]:
    """What a later run has found replaced: pairs whose name stands for other bytes under a newer fence."""
    fences: dict[str, dict[str, int]] = {}
    for row in rows:
        if row["error_code"] in UNREAD and row["video_id"] == id_of_name(row["video_uri"]):
            fences.setdefault(row["video_uri"], {}).setdefault(row["video_id"], -1)
            continue
        known_here = fences.setdefault(row["video_uri"], {})
        known_here[row["video_id"]] = max(row["fence"], known_here.get(row["video_id"], 0))
    return {(video, uri) for uri, ids in fences.items() if len(ids) > 1 for video, fence in ids.items() if fence < max(ids.values())}


def id_of_name(uri: str) -> str:
    """The video_id of a source whose bytes could not be read."""
    return hashlib.sha256(uri.encode()).hexdigest()[:16]


def settle(table: pa.Table, old: set[Pair]) -> pa.Table:
    """Each name to the bytes that it stands for now.

    The clips of bytes that no name holds any more stay, failed as "source_changed", and so does their video's row. Bytes that another name
    holds too (it was the duplicate) belong to that name from now on. A row that is about nothing but the old bytes goes.

    Args:
        table: each clip and each video once.
        old: from `replaced`.
    """
    if not old:
        return table
    affected = {video for video, _ in old}
    rows = table.to_pylist()
    mine: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["video_id"] in affected:
            mine.setdefault(row["video_id"], []).append(row)
    gone = {id(row) for group in mine.values() for row in _settled(group, old)}
    return pa.Table.from_pylist([row for row in rows if id(row) not in gone], schema=table.schema)


def _settled(rows: list[dict[str, Any]], old: set[Pair]) -> list[dict[str, Any]]:
    """Changes the rows of one video in place; returns those that go."""
    clips, videos = ([row for row in rows if row["kind"] == kind] for kind in ("clip", "video"))
    stale = [row for row in videos if (row["video_id"], row["video_uri"]) in old]
    living = [row for row in videos if row not in stale]
    owner = next((row for row in (*living, *stale) if row["status"] == "ok"), None)
    if any(row is owner for row in living):
        return stale
    if owner is not None and living:
        heir = min(living, key=lambda row: str(row["video_uri"]))
        for row in (owner, *clips):
            row |= {name: heir[name] for name in ("video_uri", "video_stamp", "provenance")}
        return [heir, *(row for row in stale if row is not owner)]
    mark = {"status": "failed", "error_code": "source_changed", "error_detail": "other bytes lie under its name now"}
    for row in clips:
        row |= mark
    if not clips:
        return [*stale, *living] if owner is None and living else stale
    lasting = owner or min(stale, key=lambda row: str(row["video_uri"]), default=None)
    if lasting is not None:
        lasting |= mark
    return [row for row in videos if row is not lasting]
