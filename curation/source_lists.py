"""Source lists: the rows of a CSV, JSONL or Parquet file with its lines' numbers, and every fault in it."""

import csv
import io
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileSystem

from curation.clips import one_line
from curation.uris import local_path

LIST_SUFFIXES = (".csv", ".jsonl", ".ndjson", ".parquet")

Row = tuple[int, dict[str, Any]]
Fault = Callable[[str, str], None]


def rows(name: str, uri: str, fault: Fault) -> Iterator[Row]:
    """Each row with the number of its line (of a Parquet file: of its row, from 1), as a dict with the key "uri".

    A byte order mark, CRLF and blank lines are no faults; what is one goes to `fault(where, what)` and the reading goes on.
    """
    path = local_path(uri)
    try:
        if path is not None and not stat.S_ISREG(os.stat(path).st_mode):
            return fault(name, "a manifest must be a regular file")
        with _opened(uri) as stream:
            if name.lower().endswith(".parquet"):
                yield from _parquet_rows(name, stream, fault)
            else:
                text = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="" if name.lower().endswith(".csv") else None)
                yield from (_csv_rows if name.lower().endswith(".csv") else _jsonl_rows)(name, text, fault)
    except (OSError, pa.ArrowException) as error:
        fault(name, one_line(str(error), 200))


def _opened(uri: str) -> io.BufferedReader:
    path = local_path(uri)
    if path is not None:
        return open(path, "rb")
    system, key = FileSystem.from_uri(uri)
    return io.BufferedReader(system.open_input_file(key))


def _csv_rows(name: str, text: Iterable[str], fault: Fault) -> Iterator[Row]:
    reader = csv.reader(text, strict=True)
    try:
        yield from _records(name, reader, fault)
    except csv.Error as error:
        fault(f"{name}:{reader.line_num}", f"{error}; the rest of the list was not read")


def _records(name: str, reader: Any, fault: Fault) -> Iterator[Row]:
    header = [column.strip() for column in next((row for row in reader if row), [])]
    if "uri" not in header or len(set(header)) < len(header):
        had = ", ".join(map(one_line, header)) or "nothing"
        return fault(f"{name}:{max(reader.line_num, 1)}", f"the header must name the column uri, and none twice; it has: {had}")
    line = reader.line_num + 1
    while (row := next(reader, None)) is not None:
        if len(row) == len(header):
            yield line, dict(zip(header, row, strict=True))
        elif any(cell.strip() for cell in row):
            fault(f"{name}:{line}", f"{len(row)} fields, but the header has {len(header)}")
        line = reader.line_num + 1


def _jsonl_rows(name: str, text: Iterable[str], fault: Fault) -> Iterator[Row]:
    for line, content in enumerate(text, 1):
        if not content.strip():
            continue
        try:
            row = json.loads(content)
        except ValueError as error:
            fault(f"{name}:{line}", f"not JSON: {error}")
            continue
        if isinstance(row, dict):
            yield line, row
        else:
            fault(f"{name}:{line}", f"not a JSON object but {type(row).__name__}")


def _parquet_rows(name: str, stream: io.BufferedReader, fault: Fault) -> Iterator[Row]:
    table = pq.ParquetFile(stream)
    if "uri" not in table.schema_arrow.names:
        return fault(name, f"no column uri; it has: {', '.join(map(one_line, table.schema_arrow.names))}")
    line = 1
    for batch in table.iter_batches():
        for row in batch.to_pylist():
            yield line, row
            line += 1
