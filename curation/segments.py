"""Segments: the format of one committed piece of the ledger: clip bytes in a tar, rows in a Parquet file that seals itself."""

import hashlib
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.sample import to_json
from curation.shards import TarWriter
from curation.storage import Storage

LEDGER, SEGMENTS = "_run/ledger", "_run/segments"
BLOBS = ("frames", "video")
#: Which segment a row was committed in and under which fencing number, and where its MP4 lies: byte range (null length = it has none) and segment,
#: which is another one where a renewed caption was committed without the bytes (`curation.renewal`; filled by the reader, null in the file).
PLACE = (
    pa.field("segment", pa.string()),
    pa.field("offset", pa.int64()),
    pa.field("length", pa.int64()),
    pa.field("fence", pa.int64()),
    pa.field("video_segment", pa.string()),
)
VOLATILE = ("cpu_s", "wall_s")  # keys of `stats` that differ from attempt to attempt: no part of a row's identity, and of no published file
_SEAL = b"pan-sha256-"
_NO_SHA = _SEAL + b"0" * 64


class DamagedSegment(OSError):
    """A committed segment's bytes are not what was written: a fault of the storage. Taken out of the ledger, its items are done again.

    Attributes:
        segment: its id.
    """

    def __init__(self, segment: str, what: str) -> None:
        super().__init__(f"ledger segment {segment}: {what}; what it holds has to be done again")
        self.segment = segment


def row_key(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """What a row is about: ("clip", clip_id, "") or ("video", video_id, video_uri): two files with the same bytes are two rows."""
    if row["kind"] == "clip":
        return ("clip", row["clip_id"], "")
    return ("video", row["video_id"], row["video_uri"])


def content_id(rows: Iterable[Mapping[str, Any]]) -> str:
    """Thirty-two hex digits of what the rows say, MP4 bytes by their sha256, without what differs from attempt to attempt."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(to_json({**_finite(row), "stats": stable_stats(row)}).encode())
    return digest.hexdigest()[:32]


def stable_stats(row: Mapping[str, Any]) -> str | None:
    """The row's `stats` without `VOLATILE` keys."""
    if row["stats"] is None:
        return None
    return to_json({key: value for key, value in json.loads(row["stats"]).items() if key not in VOLATILE})


def sealed(table: pa.Table, stamp: Mapping[str, str]) -> bytes:
    """`table` as Parquet that holds `stamp` and the sha256 of its own bytes, so that any flipped bit is found."""
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, table.schema, compression="zstd") as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({**stamp, "pan.sha256": _NO_SHA.decode()})
    data = sink.getvalue()
    at = data.rfind(_SEAL)
    return data[:at] + _SEAL + hashlib.sha256(data).hexdigest().encode() + data[at + len(_NO_SHA) :]


def sound(data: bytes) -> bool:
    """Whether sealed bytes are as they were written."""
    at = data.rfind(_SEAL)
    rest, seal = data[at + len(_NO_SHA) :], data[at : at + len(_NO_SHA)]
    return at >= 0 and seal == _SEAL + hashlib.sha256(data[:at] + _NO_SHA + rest).hexdigest().encode()


def tar_of(pairs: Sequence[tuple[dict[str, Any], bytes | None]], ending: str = "mp4") -> tuple[bytes, list[dict[str, int | None]]]:
    """The clips' bytes as one tar (empty if there are none) and each row's byte range in it; `ending` says what they are."""
    sink = io.BytesIO()
    tar = TarWriter(sink)
    places: list[dict[str, int | None]] = []
    for row, video in pairs:
        if video is None:
            places.append({"offset": None, "length": None})
            continue
        if hashlib.sha256(video).hexdigest() != row["video_sha256"]:
            raise ValueError(f"clip {row['clip_id']}: the {ending}'s sha256 is not its row's video_sha256")
        member = tar.add(f"{row['clip_id']}.{ending}", video)
        places.append({"offset": member.offset, "length": member.size})
    if tar.members:
        tar.close()
    return sink.getvalue(), places


def _finite(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with non-finite floats as text: a broken score must not stop its commit; the rules reject it as not measured."""
    return {key: repr(value) if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}


@dataclass(frozen=True)
class Segment:
    """One committed piece: sha256 of its ledger file, rows, bytes of its clips' tar, under which fence and when (unix time) it was committed."""

    id: str
    sha256: str
    rows: int
    tar_bytes: int
    fence: int
    committed_s: float


def read_segment(out: Storage, segment: str) -> tuple[Segment, pa.Table]:
    """A segment's facts and rows.

    Raises:
        DamagedSegment: its ledger file is torn or changed, or its tar is not there in full.
    """
    data = out.read(f"{LEDGER}/{segment}.parquet")
    if not sound(data):
        raise DamagedSegment(segment, "its ledger file is damaged")
    file = pq.ParquetFile(pa.BufferReader(data))
    stamp = {key.decode(): value.decode() for key, value in file.metadata.metadata.items()}
    tar_bytes = int(stamp["pan.tar_bytes"])
    if tar_bytes and out.size(f"{SEGMENTS}/{segment}.tar") != tar_bytes:
        raise DamagedSegment(segment, f"its tar of {tar_bytes} bytes is missing or cut")
    table = file.read()
    facts = Segment(segment, hashlib.sha256(data).hexdigest(), table.num_rows, tar_bytes, int(stamp["pan.fence"]), float(stamp["pan.committed_s"]))
    return facts, table
