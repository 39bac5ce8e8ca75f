"""Storage: the one place that writes an output; whole files appear at once or not at all, locally and in object stores."""

import hashlib
import io
import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from pyarrow import fs

SCRATCH = "_run/tmp"
BLOCK_BYTES = 1 << 20

#: Off in production. Tests set it (or PAN_KILL_AT before the import) to die by SIGKILL at the n-th write point.
kill_at = int(os.environ.get("PAN_KILL_AT", "0"))
reached: list[str] = []


def kill_point(name: str) -> None:
    """Called before and after every effect on the file system; does nothing unless PAN_KILL_AT=n, when the n-th call kills this process."""
    if not kill_at:
        return
    reached.append(name)
    if len(reached) == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)


class Storage:
    """An output's root, named by a path or a uri (file://, s3://, gs:// through pyarrow.fs); names inside it use "/".

    Locally a file is written beside nothing that anyone reads (`_run/tmp`), flushed to the disk, and then renamed or linked into place.
    Object stores know no rename: a finished object is uploaded in one call and its size is checked. pyarrow has no conditional put, so there
    `create` looks first and writes then: two writers within the same moment may both succeed. What is written by `create` is
    therefore either named by its content (ledger, segments) or checked again (lock, plan).

    Raises:
        ValueError: a uri that pyarrow.fs does not know.
    """

    def __init__(self, root: str | os.PathLike[str], filesystem: fs.FileSystem | None = None) -> None:
        text = os.fspath(root)
        if filesystem is None and "://" in text and not text.startswith("file://"):
            filesystem, text = fs.FileSystem.from_uri(text)
        self.filesystem = filesystem
        self.root = text.removeprefix("file://") if filesystem is None else text.rstrip("/")

    @classmethod
    def at(cls, out: "str | os.PathLike[str] | Storage") -> "Storage":
        """`out` itself if it is a Storage, else the Storage of that path or uri."""
        return out if isinstance(out, Storage) else cls(out)

    @property
    def local(self) -> bool:
        """Whether the root lies in this machine's file system, with rename, links and fsync."""
        return self.filesystem is None

    def path(self, name: str) -> str:
        """The full path of `name`."""
        return f"{self.root}/{name}" if name else self.root

    def size(self, name: str) -> int | None:
        """Bytes of the file `name`; None where there is none."""
        if self.filesystem is None:
            path = Path(self.path(name))
            return path.stat().st_size if path.is_file() else None
        info = self.filesystem.get_file_info(self.path(name))
        return int(info.size) if info.type == fs.FileType.File else None

    def read(self, name: str) -> bytes:
        """The whole file.

        Raises:
            FileNotFoundError: there is none.
        """
        with self.open(name) as source:
            return source.read()

    def open(self, name: str) -> BinaryIO:
        """A seekable file, open for reading."""
        if self.filesystem is None:
            return open(self.path(name), "rb")
        return cast(BinaryIO, self.filesystem.open_input_file(self.path(name)))

    def names(self, folder: str) -> list[str]:
        """Names of the files in `folder`, sorted, without the folder; empty where the folder does not exist."""
        if self.filesystem is None:
            path = Path(self.path(folder))
            return sorted(entry.name for entry in path.iterdir() if entry.is_file()) if path.is_dir() else []
        found = self.filesystem.get_file_info(fs.FileSelector(self.path(folder), allow_not_found=True))
        return sorted(info.base_name for info in found if info.type == fs.FileType.File)

    def folders(self, folder: str) -> list[str]:
        """Names of the folders in `folder`, sorted; links do not count."""
        if self.filesystem is None:
            path = Path(self.path(folder))
            return sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.is_symlink()) if path.is_dir() else []
        found = self.filesystem.get_file_info(fs.FileSelector(self.path(folder), allow_not_found=True))
        return sorted(info.base_name for info in found if info.type == fs.FileType.Directory)

    def replace(self, name: str, data: bytes) -> None:
        """Puts `data` under `name`, whole or not at all, whatever was there."""
        if self.filesystem is not None:
            return self._upload(name, io.BytesIO(data), len(data))
        with self.scratch() as path:
            write_file(path, data)
            self.publish(path, name)

    def create(self, name: str, data: bytes) -> bool:
        """Puts `data` under `name` unless that exists; says whether it did. Atomic locally; see the class for object stores."""
        if self.filesystem is not None:
            if self.size(name) is not None:
                return False
            self._upload(name, io.BytesIO(data), len(data))
            return True
        with self.scratch() as path:
            write_file(path, data)
            target = self._target(name)
            kill_point(f"link {name}")
            try:
                os.link(path, target)
            except FileExistsError:
                return False
            _sync(target.parent)
            kill_point(f"linked {name}")
        return True

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """The path of a local file yet to be written, on the output's own disk where that is local; gone afterwards unless published."""
        folder = Path(self.path(SCRATCH)) if self.filesystem is None else Path(tempfile.gettempdir())
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / uuid.uuid4().hex
        try:
            yield path
        finally:
            kill_point("unlink scratch")
            path.unlink(missing_ok=True)

    def publish(self, path: Path, name: str) -> None:
        """Moves the finished and flushed local file `path` to `name`: a rename, or an upload."""
        if self.filesystem is not None:
            with path.open("rb") as source:
                return self._upload(name, source, path.stat().st_size)
        target = self._target(name)
        kill_point(f"rename {name}")
        os.replace(path, target)
        _sync(target.parent)
        kill_point(f"renamed {name}")

    def remove(self, name: str) -> None:
        """Removes the file `name`, if it is there."""
        kill_point(f"remove {name}")
        if self.filesystem is None:
            Path(self.path(name)).unlink(missing_ok=True)
        elif self.size(name) is not None:
            self.filesystem.delete_file(self.path(name))
        kill_point(f"removed {name}")

    def remove_folder(self, folder: str) -> None:
        """Removes `folder` and all files in it, file by file."""
        for inner in self.folders(folder):
            self.remove_folder(f"{folder}/{inner}")
        for name in self.names(folder):
            self.remove(f"{folder}/{name}")
        if self.filesystem is None:
            shutil.rmtree(self.path(folder), ignore_errors=True)
        elif self.filesystem.get_file_info(self.path(folder)).type == fs.FileType.Directory:
            self.filesystem.delete_dir(self.path(folder))

    def link(self, name: str, target: str) -> None:
        """Points the symbolic link `name` at `target` (relative to the link's folder) in one step; nothing on object stores, which have none."""
        path = Path(self.path(name))
        if self.filesystem is not None or (path.is_symlink() and os.readlink(path) == target):
            return
        with self.scratch() as fresh:
            kill_point(f"symlink {name}")
            fresh.symlink_to(target)
            os.replace(fresh, path)
            _sync(path.parent)
            kill_point(f"symlinked {name}")

    def sha256(self, name: str) -> str:
        """The file's sha256 in hex, read in blocks."""
        digest = hashlib.sha256()
        with self.open(name) as source:
            while block := source.read(BLOCK_BYTES):
                digest.update(block)
        return digest.hexdigest()

    def _target(self, name: str) -> Path:
        target = Path(self.path(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def _upload(self, name: str, source: BinaryIO, size: int) -> None:
        """One finished object in one go. An upload that fails half-way may leave a short object: its size is checked and it is removed."""
        assert self.filesystem is not None
        path = self.path(name)
        if isinstance(self.filesystem, fs.LocalFileSystem):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        kill_point(f"upload {name}")
        with self.filesystem.open_output_stream(path) as sink:
            shutil.copyfileobj(source, cast(Any, sink), 8 * BLOCK_BYTES)
        if self.size(name) != size:
            self.filesystem.delete_file(path)
            raise OSError(f"{path}: {size} bytes were sent, but the store did not keep them all; the object was removed")
        kill_point(f"uploaded {name}")


def write_file(path: Path, data: bytes) -> None:
    """Writes a new local file and flushes it to the disk."""
    kill_point("open scratch")
    with path.open("xb") as sink:
        middle = len(data) // 2 if kill_at else len(data)
        sink.write(data[:middle])
        sink.flush()
        kill_point("half written scratch")
        sink.write(data[middle:])
        flush(sink)
    kill_point("written scratch")


def flush(sink: BinaryIO) -> None:
    """The file's bytes are on the disk when this returns."""
    sink.flush()
    os.fsync(sink.fileno())


def _sync(folder: Path) -> None:
    """The folder's entries are on the disk when this returns."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
