"""Sink: Ledger, the stream's end, which commits every row once, kept clips with their bytes, in segments visible whole or not at all."""

import os
import time
from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa
from ray.data import Datasink

from curation.lock import check_fence
from curation.segments import BLOBS, LEDGER, PLACE, SEGMENTS, content_id, row_key, sealed, sound, tar_of
from curation.storage import Storage

FLUSH_BYTES = 64 << 20
FLUSH_ROWS = 512


class Ledger(Datasink[list[str]]):
    """Commits every row of the stream, kept clips with their bytes.

    A write task collects rows and commits them piece by piece: first the clips' bytes as `_run/segments/<id>.tar`, then the rows as
    `_run/ledger/<id>.parquet`, the commit point. The id depends on the rows alone, so a task that runs twice commits once; a tar without
    its ledger file is garbage that nobody reads. It pickles: tasks may run anywhere that sees `out`.

    Args:
        out: the output's root.
        fence: fencing number of the lock that the run holds.
        flush_bytes: a piece is committed when its clips reach so many bytes: what a killed task loses, and its memory.
        flush_rows: or so many rows.
        rows_per_task: Ray Data hands a task at least so many rows (None = a block). More makes fewer and larger segments; what waits is lost by a kill.
        ending: what the rows' bytes are: MP4s, or latents of `pan encode`.

    Raises:
        LockLost: (from `write`) a later run holds the output.
        ValueError: (from `write`) rows that no stage may produce, such as MP4 bytes with another sha256 than their row says.
    """

    def __init__(
        self,
        out: str | os.PathLike[str] | Storage,
        fence: int,
        flush_bytes: int = FLUSH_BYTES,
        flush_rows: int = FLUSH_ROWS,
        rows_per_task: int | None = None,
        ending: str = "mp4",
    ) -> None:
        self.out, self.fence, self.ending = Storage.at(out), fence, ending
        self.flush_bytes, self.flush_rows, self.rows_per_task = flush_bytes, flush_rows, rows_per_task

    def write(self, blocks: Iterable[pa.Table], ctx: Any = None) -> list[str]:
        """Commits all rows of `blocks`; returns the segments' ids."""
        rows: list[dict[str, Any]] = []
        videos: list[bytes | None] = []
        schema, size, done = pa.schema([]), 0, []
        for block in blocks:
            schema = pa.unify_schemas([schema, pa.schema([f for f in block.schema if f.name not in BLOBS])], promote_options="permissive")
            blobs = block["video"].to_pylist() if "video" in block.column_names else [None] * block.num_rows
            for row, video in zip(block.drop_columns([n for n in BLOBS if n in block.column_names]).to_pylist(), blobs, strict=True):
                rows.append(row)
                videos.append(video)
                size += len(video or b"")
                if size >= self.flush_bytes or len(rows) >= self.flush_rows:
                    done.append(self._commit(rows, videos, schema))
                    rows, videos, size = [], [], 0
        return [*done, self._commit(rows, videos, schema)] if rows else done

    @property
    def min_rows_per_write(self) -> int | None:
        """What Ray Data asks before it starts a write task."""
        return self.rows_per_task

    def _commit(self, rows: list[dict[str, Any]], videos: list[bytes | None], schema: pa.Schema) -> str:
        """One piece: bytes first, then the rows."""
        pairs = sorted(zip(rows, videos, strict=True), key=lambda pair: row_key(pair[0]))
        segment = content_id(row for row, _ in pairs)
        tar, places = tar_of(pairs, self.ending)
        check_fence(self.out, self.fence)
        if tar:
            _put(self.out, f"{SEGMENTS}/{segment}.tar", tar, lambda old: old == tar)
        placed = [{**row, "segment": segment, **place, "fence": self.fence} for (row, _), place in zip(pairs, places, strict=True)]
        table = pa.Table.from_pylist(placed, schema=pa.schema([*schema, *PLACE]))
        stamp = {"pan.fence": str(self.fence), "pan.committed_s": repr(time.time()), "pan.tar_bytes": str(len(tar))}
        _put(self.out, f"{LEDGER}/{segment}.parquet", sealed(table, stamp), sound)
        return segment


def _put(out: Storage, name: str, data: bytes, is_sound: Callable[[bytes], bool]) -> None:
    """Commits a file named by its content: one that exists and is sound stays as it is, a damaged one is replaced."""
    if not out.create(name, data) and not is_sound(out.read(name)):
        out.replace(name, data)
