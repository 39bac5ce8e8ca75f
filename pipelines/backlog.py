"""Backlog: which videos a run still has to do, told from what the ledger holds."""

import pyarrow as pa
import pyarrow.compute as pc

from curation.clips import one_line
from curation.ledger import FrozenLedger
from curation.sources import mark_duplicates


def unseen(videos: pa.Table, ledger: FrozenLedger) -> pa.Table:
    """The rows whose uri has no finished video in the ledger: all that is known before any file is read."""
    done = {uri for _, uri in ledger.done()}
    return videos.filter(pa.array([uri not in done for uri in videos["video_uri"].to_pylist()], pa.bool_()))


def undone(videos: pa.Table, ledger: FrozenLedger) -> pa.Table:
    """Identified rows with duplicates marked: of the same bytes, the uri that the ledger already knows goes first, then the first by name."""
    known = ledger.table.filter(pc.not_equal(ledger.table["status"], "duplicate"))
    owners = dict(zip(known["video_id"].to_pylist(), known["video_uri"].to_pylist(), strict=True))
    rows = videos.to_pylist()
    for row in rows:
        owner = owners.get(row["video_id"], row["video_uri"])
        if row["status"] == "ok" and owner != row["video_uri"]:
            row |= {"status": "duplicate", "error_code": "duplicate", "error_detail": one_line(f"same bytes as {owner}")}
    return mark_duplicates(pa.Table.from_pylist(rows, schema=videos.schema))
