"""Renewal: rows whose caption was written again: they count before the older ones, and use the MP4 bytes that those were committed with."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from curation.clips import RECAPTION

Bytes = tuple[str, str]  # (clip_id, sha256 of its MP4)


def renewed(row: Mapping[str, Any]) -> int:
    """How often the row's caption was renewed."""
    return int(row["stages"].count(RECAPTION))


def bytes_at(rows: Sequence[Mapping[str, Any]]) -> dict[Bytes, int]:
    """The number of the row that each MP4 was committed with: of several, that in the lexicographically smallest segment."""
    found: dict[Bytes, int] = {}
    for i, row in enumerate(rows):
        if row["length"] is not None:
            key = (row["clip_id"], row["video_sha256"])
            found[key] = min(i, found.get(key, i), key=lambda n: (rows[n]["segment"], n))
    return found


def lend(table: pa.Table, chosen: Sequence[int], where: Mapping[Bytes, int]) -> pa.Table:
    """The chosen rows of a ledger, each with the place of its MP4: its own, or that of the row which was committed with the same bytes."""
    rows = table.take(pa.array(chosen, pa.int64()))
    of = [(clip, sha) for clip, sha in zip(rows["clip_id"].to_pylist(), rows["video_sha256"].to_pylist(), strict=True)]
    own = [length is not None for length in rows["length"].to_pylist()]
    at = [i if has else where.get(key) for i, key, has in zip(chosen, of, own, strict=True)]
    holders = table.select(["segment", "offset", "length"]).take(pa.array(at, pa.int64()))
    for name, source in (("video_segment", "segment"), ("offset", "offset"), ("length", "length")):
        rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), holders[source].combine_chunks())
    return rows
