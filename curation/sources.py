"""Sources: which videos a run reads, from folders, globs, files and manifests, with where each one comes from."""

import glob
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileType
from pydantic import Field

from curation.clips import ClipError, one_line, table_of
from curation.config import Config
from curation.limits import Limits
from curation.lineage import id_of_name
from curation.opening import content_id, stamp_of, stamp_text
from curation.source_lists import LIST_SUFFIXES, rows
from curation.uris import SCHEME, WILD, glob_regex, local_path, refused, target_of, uri_of

VIDEO_SUFFIXES = tuple(".3gp .asf .avi .divx .flv .m2ts .m2v .m4v .mjpeg .mkv .mov .mp4 .mpeg .mpg .mts .mxf .ogv .rm .ts .vob .webm .wmv .y4m".split())  # noqa: SIM905

_COMPANIONS = """
.ass .bak .bib .bmp .c .cfg .css .csv .doc .docx .gif .gz .heic .htm .html .info .ini .ipynb .jpeg .jpg .js .json .jsonl .license .lock .log .lrv .m3u
.m3u8 .md .md5 .meta .mpd .ndjson .nfo .npy .npz .par2 .parquet .part .pdf .png .py .rst .sbv .sfv .sha1 .sha256 .sh .srt .ssa .sub .sup .svg .tar .tif
.tiff .tmp .toml .torrent .tsv .ttml .txt .url .vtt .webp .xml .yaml .yml .zip
"""
LICENCE_COLUMNS = ("licence", "license")


class SourcesConfig(Config):
    """Which files are taken for videos, and which of them may be used."""

    licences: tuple[str, ...] = Field(
        (), description="allow-list on the manifest's licence column, compared without case; empty allows all, a video without one too"
    )
    follow_symlinks: bool = Field(
        False, description="links are followed inside the listed folder alone, and by default not at all: a link can point at any file that the worker may read"
    )
    skip_suffixes: tuple[str, ...] = Field(
        tuple(_COMPANIONS.split()),
        description="what a folder scan leaves out: extensions lie, so every other file is taken and judged by its content; a named file is always taken",
    )


@dataclass(frozen=True)
class Source:
    """One input video. `uri` is an absolute path, s3:// or gs://, always UTF-8 (`uri_of`); `provenance` a JSON object; `origin` where we read of it.

    `stamp` is its `stamp_of` where a listing has told it for nothing.
    """

    uri: str
    provenance: str = "{}"
    origin: str = ""
    stamp: str | None = None


class SourceErrors(ValueError):
    """All faults of the inputs at once, one line each, "where: what". `faults` holds them all; the message ends after a thousand."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        more = [f"... and {len(faults) - 1000} more"] if len(faults) > 1000 else []
        super().__init__("\n  ".join([f"{len(faults)} fault{'s' * (len(faults) > 1)} in the inputs:", *faults[:1000], *more]))


def find(inputs: Sequence[str], config: SourcesConfig | None = None) -> list[Source]:
    """The videos of folders (recursive), globs, single files and manifests (CSV, JSONL, Parquet with a `uri` column), sorted by uri.

    A file that is listed but missing, unreadable or no regular file is that item's fault, found when it is opened; what is
    reported here is what the user wrote. An existing folder without a video gives an empty list.

    Raises:
        SourceErrors: all faults of all inputs.
    """
    search = _Search(config or SourcesConfig())
    for given in inputs:
        search.add_input(given)
    if search.faults:
        raise SourceErrors(search.faults)
    return [search.found[uri] for uri in sorted(search.found)]


@dataclass
class _Search:
    """One call of `find`: what was found so far and what is wrong so far."""

    config: SourcesConfig
    found: dict[str, Source] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def add_input(self, given: str) -> None:
        scheme = SCHEME.match(given)
        if scheme and (wrong := refused(given)):
            return self.fault(given, wrong)
        path = local_path(given)
        if path is None:
            return self._add_remote(given)
        if not os.path.lexists(path):
            return self._add_glob(path) if WILD.search(path) else self.fault(given, "no such file or folder")
        if os.path.isdir(path):
            return self._add_folder(path)
        if path.lower().endswith(LIST_SUFFIXES):
            return self._add_manifest(path, path, os.path.dirname(os.path.abspath(path)))
        self.add(Source(uri_of(path), origin=given))

    def fault(self, where: str, what: str) -> None:
        self.faults.append(f"{one_line(where)}: {what}")

    def add(self, source: Source, listed: bool = False) -> None:
        """Takes a source in. A uri that one list names twice is a fault; one that a folder and a list both give keeps what the list says of it."""
        known = self.found.get(source.uri)
        if known and listed and known.provenance != "{}" and known.provenance != source.provenance:
            self.fault(source.origin, f"{one_line(source.uri)} is also listed at {one_line(known.origin)}, with another provenance")
        elif known is None or known.provenance == "{}":
            self.found[source.uri] = source

    def _add_folder(self, root: str) -> None:
        pending = [os.path.abspath(root)]
        while pending:
            try:
                entries = sorted(os.scandir(pending.pop()), key=lambda e: e.name)
            except OSError as error:
                self.fault(os.fsdecode(error.filename or root), f"cannot list this folder: {error.strerror}")
                continue
            pending += [e.path for e in entries if e.is_dir(follow_symlinks=False) and not e.name.startswith(".")]
            for entry in entries:
                if self._taken(entry):
                    self.add(Source(uri_of(self._resolved(entry.path, root)), origin=root))

    def _taken(self, entry: os.DirEntry[str]) -> bool:
        """Every file but hidden ones and known companions; a folder, or a link to one, only where its name says video: it gets its row as no regular file."""
        suffix = os.path.splitext(entry.name)[1].lower()
        if entry.name.startswith(".") or suffix in self.config.skip_suffixes:
            return False
        return suffix in VIDEO_SUFFIXES or not entry.is_dir()

    def _resolved(self, path: str, root: str) -> str:
        """The target of a link that stays inside `root`, where links are followed; else `path`."""
        if not self.config.follow_symlinks or not os.path.islink(path):
            return path
        real, inside = os.path.realpath(path), os.path.realpath(root)
        return os.path.join(os.path.abspath(root), os.path.relpath(real, inside)) if os.path.commonpath([real, inside]) == inside else path

    def _add_glob(self, pattern: str) -> None:
        names = sorted(glob.glob(pattern, recursive=True))
        if not names:
            self.fault(pattern, "no such file or folder, and as a pattern it matches nothing")
        for name in names:
            suffix = os.path.splitext(name)[1].lower()
            if suffix in VIDEO_SUFFIXES or not (os.path.isdir(name) or suffix in self.config.skip_suffixes):
                self.add(Source(uri_of(name), origin=pattern))

    def _add_remote(self, given: str) -> None:
        """A bucket's folder, glob, manifest or object."""
        base = given[: m.start()].rsplit("/", 1)[0] if (m := WILD.search(given)) else given.rstrip("/")
        try:
            system, path = FileSystem.from_uri(base)
            info = system.get_file_info(path)
            if info.type == FileType.NotFound:
                return self.fault(given, "no such object, folder or bucket")
            if info.type == FileType.Directory:
                return self._add_objects(given, base, path, system.get_file_info(FileSelector(path, recursive=True)))
        except (OSError, pa.ArrowException) as error:
            return self.fault(given, one_line(str(error), 200))
        if path.lower().endswith(LIST_SUFFIXES):
            return self._add_manifest(given, given, given.rsplit("/", 1)[0])
        self.add(Source(given, origin=given, stamp=stamp_text(info)))

    def _add_objects(self, given: str, base: str, path: str, infos: Iterable[FileInfo]) -> None:
        pattern = re.compile(glob_regex(given)) if WILD.search(given) else None
        before = len(self.found)
        for info in infos:
            uri, name = base + info.path[len(path) :], info.base_name
            hidden = name.startswith(".") or os.path.splitext(name)[1].lower() in self.config.skip_suffixes
            if info.type == FileType.File and not hidden and (pattern is None or pattern.fullmatch(uri)):
                self.add(Source(uri, origin=given, stamp=stamp_text(info)))
        if pattern and len(self.found) == before:
            self.fault(given, "this pattern matches nothing")

    def _add_manifest(self, name: str, uri: str, folder: str) -> None:
        """Every row of a list, each fault with its line (of a Parquet file: its row, from 1)."""
        first: dict[str, int] = {}
        buckets: dict[str, list[int]] = {}
        for line, row in rows(name, uri, self.fault):
            where = f"{name}:{line}"
            target, wrong = target_of(row.pop("uri", None), folder)
            if target is None:
                self.fault(where, wrong)
                continue
            target = target if local_path(target) is None else uri_of(self._resolved(local_path(target) or "", folder))
            if target in first:
                self.fault(where, f"{one_line(target)} is listed twice, first in line {first[target]}")
                continue
            try:
                provenance = json.dumps(row, sort_keys=True, default=str, allow_nan=False, ensure_ascii=False)
                provenance.encode()
                self.add(Source(target, provenance, where), listed=True)
            except ValueError as error:
                self.fault(where, f"{one_line(str(error), 100)}: provenance must be JSON in UTF-8")
            first[target] = line
            if local_path(target) is None:
                buckets.setdefault("/".join(target.split("/")[:3]), []).append(line)
        for bucket, lines in buckets.items():
            self._check_bucket(name, bucket, lines)

    def _check_bucket(self, name: str, bucket: str, lines: Sequence[int]) -> None:
        try:
            system, path = FileSystem.from_uri(bucket)
            wrong = "no such bucket" if system.get_file_info(path).type == FileType.NotFound else ""
        except (OSError, pa.ArrowException) as error:
            wrong = one_line(str(error), 200)
        for line in lines if wrong else ():
            self.fault(f"{name}:{line}", f"{bucket}: {wrong}")


def video_table(sources: Sequence[Source], config: SourcesConfig | None = None) -> pa.Table:
    """One narrow row a source: video_uri, video_stamp (null where finding it did not tell), provenance, status, error_code, error_detail.

    What the licence allow-list forbids fails here as "policy_licence", before a byte of it is read.
    """
    allowed = {licence.strip().casefold() for licence in (config or SourcesConfig()).licences}
    found = [{"video_uri": s.uri, "video_stamp": s.stamp, "provenance": s.provenance, **_licence_verdict(json.loads(s.provenance), allowed)} for s in sources]
    text = ("video_uri", "video_stamp", "provenance", "status", "error_code", "error_detail")
    return pa.Table.from_pylist(found, schema=pa.schema([(name, pa.string()) for name in text]))


def _licence_verdict(provenance: Mapping[str, Any], allowed: set[str]) -> dict[str, str]:
    licence = next((str(provenance[c]) for c in LICENCE_COLUMNS if provenance.get(c)), "")
    if not allowed or licence.strip().casefold() in allowed:
        return {"status": "ok"}
    detail = f"licence {licence!r} is not in the allow-list" if licence else "no licence is given, and there is an allow-list"
    return {"status": "failed", "error_code": "policy_licence", "error_detail": one_line(detail)}


def identify(table: pa.Table, limits: Limits | None = None) -> pa.Table:
    """`video_table`'s rows as the stream's video rows, each with its video_id; per row and pure, so Ray can spread it.

    It reads each file once; the operating system's cache serves the decode that follows where the file fits. A row
    that cannot be read fails with its reason, and its id is that of its uri.
    """
    found = []
    for row in table.to_pylist():
        row |= {"kind": "video", "video_id": id_of_name(row["video_uri"])}
        if row["status"] == "ok":
            row["video_stamp"] = stamp_of(row["video_uri"])  # before a byte is read: what changes from now on shows
            try:
                video_id, _, size = content_id(row["video_uri"], limits)
                if not size:  # it has no content to be known by: two empty files are not the same video
                    raise ClipError("unsupported_container", "the file is empty")
                row["video_id"] = video_id
            except ClipError as error:
                row |= {"status": "failed", "error_code": error.reason, "error_detail": error.detail}
        found.append(row)
    return table_of(found)


def mark_duplicates(table: pa.Table) -> pa.Table:
    """Of the "ok" rows that share a video_id, all but the first by uri become status "duplicate", whatever the rows' order; nothing else changes.

    It needs the columns video_id, video_uri, status, error_code and error_detail alone, at once: some 150 bytes a row, so ten
    million videos fit a driver of 4 GB. Beyond that, `groupby("video_id").map_groups(mark_duplicates)` gives the same rows.
    """
    good = pc.equal(table["status"], "ok")
    order = table.select(["video_id", "video_uri"]).filter(good).sort_by([("video_id", "ascending"), ("video_uri", "ascending")])
    first = order.group_by("video_id", use_threads=False).aggregate([("video_uri", "first")])
    uri = first["video_uri_first"].combine_chunks().take(pc.index_in(table["video_id"], first["video_id"].combine_chunks()))
    twin = pc.and_(good, pc.fill_null(pc.not_equal(uri, table["video_uri"]), False))
    detail = pc.utf8_slice_codeunits(pc.binary_join_element_wise("same bytes as", uri, " "), 0, 500)
    for name, value in (("status", "duplicate"), ("error_code", "duplicate"), ("error_detail", detail)):
        column = pc.if_else(twin, value, table[name])
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), column)
    return table
