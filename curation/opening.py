"""A file opened safely: no link, no pipe, no name that a library could take for a protocol; and its content's identity."""

import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, cast
from urllib.parse import unquote_to_bytes

from pyarrow.fs import FileInfo, FileSystem, FileType

from curation.clips import ClipError
from curation.limits import Limits


@dataclass(frozen=True)
class Source:
    """An opened file: its bytes, its size in bytes, a function that tells its present (size, modification time), bytes to read at once."""

    file: BinaryIO
    size: int
    stamp: Callable[[], tuple[int, int]]
    block: int = 256 << 10  # a call into Python costs little against it; an object store's request is dearer


def open_source(uri: str, max_bytes: int = Limits().max_bytes) -> Source:
    """Opens a path, a `file://` URI (percent-escapes stand for bytes), or an object store's URI (s3, gs, abfs, hf, ...).

    Raises:
        ClipError: not_regular_file, io_error.
    """
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", uri)
    try:
        if scheme and scheme[1].lower() != "file":
            return _open_object(uri)
        path = unquote_to_bytes(uri[len("file://") :]) if scheme else os.fsencode(uri)
        source = _open_local(path)
    except (OSError, ValueError) as error:
        raise ClipError("io_error", f"{type(error).__name__}: {error}") from error
    if source.size > max_bytes:
        source.file.close()
        raise ClipError("io_error", f"{source.size} bytes, allowed are {max_bytes}")
    return source


def _open_local(path: bytes) -> Source:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a symbolic link; a socket
            raise ClipError("not_regular_file", error.strerror or "") from error
        raise
    state = os.fstat(fd)
    if not stat.S_ISREG(state.st_mode):
        os.close(fd)
        raise ClipError("not_regular_file", f"mode {stat.filemode(state.st_mode)}")

    def stamp() -> tuple[int, int]:
        now = os.fstat(fd)
        return now.st_size, now.st_mtime_ns

    return Source(cast(BinaryIO, os.fdopen(fd, "rb", buffering=0)), state.st_size, stamp)


def _open_object(uri: str) -> Source:
    store, path = FileSystem.from_uri(uri)

    def stamp() -> tuple[int, int]:
        info = store.get_file_info(path)
        return info.size or 0, info.mtime_ns or 0

    file = store.open_input_file(path)
    return Source(cast(BinaryIO, file), file.size(), stamp, block=1 << 20)


def stamp_of(uri: str) -> str:
    """What tells from outside whether a file may have changed: "<size>-<modification time in ns>", or "unreadable" or "missing"; no byte is read.

    An object store's listing has both; where its objects are replaced, their time changes. A link is not followed: it has a stamp of its own.
    """
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", uri)
    try:
        if scheme and scheme[1].lower() != "file":
            store, name = FileSystem.from_uri(uri)
            return stamp_text(store.get_file_info(name))
        path = unquote_to_bytes(uri[len("file://") :]) if scheme else os.fsencode(uri)
        state = os.lstat(path)
        return f"{state.st_size}-{state.st_mtime_ns}" if stat.S_ISLNK(state.st_mode) or os.access(path, os.R_OK) else "unreadable"
    except FileNotFoundError:
        return "missing"
    except (OSError, ValueError):
        return "unreadable"


def stamp_text(info: FileInfo) -> str:
    """`stamp_of` from what a listing of an object store has said already."""
    return "missing" if info.type == FileType.NotFound else f"{info.size or 0}-{info.mtime_ns or 0}"


def check_unchanged(row: Mapping[str, Any], limits: Limits | None = None) -> None:
    """Makes sure that a row's file still holds the bytes that its `video_id` names: by `video_stamp`, and only where that differs by reading it.

    Raises:
        ClipError: source_changed; io_error and not_regular_file where it can no longer be read.
    """
    if row.get("video_stamp") is None or stamp_of(row["video_uri"]) == row["video_stamp"].partition("@")[0]:
        return
    found, _, _ = content_id(row["video_uri"], limits)
    if found != row["video_id"]:
        raise ClipError("source_changed", f"it held video {row['video_id']} when the run began, now it holds {found}; run again to take the new bytes")


def content_id(uri: str, limits: Limits | None = None) -> tuple[str, str, int]:
    """(video_id, sha256 in hex, bytes) of a file's content; video_id is the first 16 digits of the sha256.

    Raises:
        ClipError: not_regular_file, io_error, source_changed.
    """
    source, digest, count = open_source(uri, (limits or Limits()).max_bytes), hashlib.sha256(), 0
    with source.file as file:
        before = source.stamp()
        try:
            while block := file.read(1 << 20):
                digest.update(block)
                count += len(block)
            after = source.stamp()
        except OSError as error:
            raise ClipError("io_error", str(error)) from error
        if after != before or count != source.size:
            raise ClipError("source_changed", f"{before} became {after} while {count} bytes were read")
    return digest.hexdigest()[:16], digest.hexdigest(), count
