"""Shards: the format of one tar of samples and its sidecar: write one, open many, trust none."""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.storage import Storage

MANIFEST = "manifest.json"
MEMBERS = ("json", "mp4", "txt")  # of every sample, in this order
REFUSED = (".pyd", ".pkl", ".pickle", ".pt", ".pth")  # loading one of these can run code. Source: webdataset autodecode, python's pickle documentation
MEMBER_LIMIT_BYTES = 4 << 30
BLOCK = tarfile.BLOCKSIZE


class UnsafeShard(ValueError):
    """A tar that no honest writer of ours made: the text names the member and what is wrong with it."""


@dataclass(frozen=True)
class Member:
    """One file in a tar: its bytes are [offset, offset + size)."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True)
class Sample:
    """One sample of a shard: the clip's MP4, its pan-clip/1 document, its caption."""

    key: str
    mp4: bytes
    document: dict[str, Any]
    text: str


@dataclass
class TarWriter:
    """A reproducible USTAR: mtime, uid and gid 0, mode 0444; the same members give the same bytes.

    With `sink` None nothing is written: sizes, offsets and digests alone are found.
    """

    sink: BinaryIO | None
    size: int = 0
    members: list[Member] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sha256, self.md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)

    def add(self, name: str, data: bytes) -> Member:
        """Appends one file.

        Raises:
            ValueError: a name that USTAR cannot hold.
        """
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), 0o444
        self._write(info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict"))
        member = Member(name, self.size, len(data))
        self._write(data)
        self._write(bytes(-len(data) % BLOCK))
        self.members.append(member)
        return member

    def close(self) -> None:
        """Ends the archive with its two empty blocks; the file stays open."""
        self._write(bytes(2 * BLOCK))

    def _write(self, data: bytes) -> None:
        self.sha256.update(data)
        self.md5.update(data)
        self.size += len(data)
        if self.sink is not None:
            self.sink.write(data)


def read_members(source: BinaryIO, limit_bytes: int = MEMBER_LIMIT_BYTES) -> Iterator[Member]:
    """The files of a tar in their order; nothing is unpacked.

    Raises:
        UnsafeShard: a compressed or broken tar, one that ends too early, a link, device or folder, a name that is absolute or holds "..",
            a control character or a pickle's ending, a member beyond `limit_bytes`.
    """
    end = 0
    try:
        with tarfile.open(fileobj=source, mode="r:", format=tarfile.USTAR_FORMAT) as tar:
            for info in tar:
                if wrong := _wrong(info, limit_bytes):
                    raise UnsafeShard(f"member {info.name[:200]!r}: {wrong}")
                end = info.offset_data + info.size + -info.size % BLOCK
                yield Member(info.name, info.offset_data, info.size)
    except tarfile.TarError as error:
        raise UnsafeShard(f"not a sound tar: {error}") from error
    source.seek(end)
    if source.read(2 * BLOCK) != bytes(2 * BLOCK):
        raise UnsafeShard(f"the tar ends too early, after {end} bytes: its two closing blocks are not there")


def _wrong(info: tarfile.TarInfo, limit_bytes: int) -> str:
    """What forbids reading this member, or ""."""
    if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
        return "only plain files are read, no link, device or folder"
    if info.name.startswith("/") or ".." in info.name.split("/") or "\\" in info.name:
        return "the name leads out of the archive"
    if not info.name.isprintable():
        return "the name holds control characters"
    if info.name.lower().endswith(REFUSED):
        return "pickles are never read"
    return f"{info.size} bytes are more than the limit of {limit_bytes}" if info.size > limit_bytes else ""


def read_shard(source: BinaryIO, limit_bytes: int = MEMBER_LIMIT_BYTES) -> Iterator[tuple[Sample, dict[str, Member]]]:
    """The samples of one shard with where their members lie.

    Raises:
        UnsafeShard: as `read_members`; also a sample without exactly the members json, mp4, txt in this order, or a key that comes twice.
    """
    seen: set[str] = set()
    members = list(read_members(source, limit_bytes))
    for start in range(0, len(members), len(MEMBERS)):
        group = members[start : start + len(MEMBERS)]
        key = group[0].name.partition(".")[0]
        if [m.name for m in group] != [f"{key}.{ending}" for ending in MEMBERS]:
            raise UnsafeShard(f"sample {key!r}: members {[m.name for m in group]}, not {', '.join(MEMBERS)}")
        if key in seen:
            raise UnsafeShard(f"sample {key!r} comes twice")
        seen.add(key)
        document, mp4, text = (read_range(source, m.offset, m.size) for m in group)
        yield sample_of(key, mp4, document, text), dict(zip(MEMBERS, group, strict=True))


def sample_of(key: str, mp4: bytes, document: bytes, text: bytes) -> Sample:
    """A sample from its members' bytes.

    Raises:
        UnsafeShard: the document is not a JSON object, or a text is not UTF-8.
    """
    try:
        loaded = json.loads(document)
        if not isinstance(loaded, dict):
            raise UnsafeShard(f"sample {key!r}: the document is not a JSON object")
        return Sample(key, mp4, loaded, text.decode())
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnsafeShard(f"sample {key!r}: {error}") from error


def read_range(source: BinaryIO, offset: int, size: int) -> bytes:
    """Exactly `size` bytes from `offset`.

    Raises:
        UnsafeShard: the file ends before.
    """
    source.seek(offset)
    data = source.read(size)
    if len(data) != size:
        raise UnsafeShard(f"{size} bytes were promised at {offset}, {len(data)} are there")
    return data


def parquet_bytes(table: pa.Table) -> bytes:
    """`table` as Parquet: the same rows give the same bytes (fixed settings, no dictionary of chance, no creation time)."""
    sink = io.BytesIO()
    pq.write_table(table.combine_chunks(), sink, compression="zstd", row_group_size=1 << 16, write_page_checksum=True)
    return sink.getvalue()


def load_manifest(out: str | os.PathLike[str] | Storage) -> dict[str, Any]:
    """The published manifest.

    Raises:
        ValueError: there is no such folder, or nothing has been published here.
    """
    store = Storage.at(out)
    if store.local and not Path(store.root).is_dir():
        raise ValueError(f"there is no folder {store.root}: give one that `pan curate` or `pan encode` wrote")
    if store.size(MANIFEST) is None:
        raise ValueError(f"{store.root} has no {MANIFEST}: nothing has been published there yet")
    manifest: dict[str, Any] = json.loads(store.read(MANIFEST))
    return manifest


def read_table(out: str | os.PathLike[str] | Storage, name: str) -> pa.Table:
    """A Parquet file of the output, such as a sidecar or the manifest's list of clips."""
    with Storage.at(out).open(name) as source:
        return pq.read_table(source)


def sidecar(out: str | os.PathLike[str] | Storage, shard: dict[str, Any]) -> pa.Table:
    """The sidecar of one of the manifest's shards: a row a sample, with `{member}_offset` and `{member}_size` for json, mp4, txt."""
    return read_table(out, shard["sidecar"]["path"])


def open_sample(out: str | os.PathLike[str] | Storage, clip_id: str) -> Sample:
    """The published sample of one clip, read by its byte ranges alone.

    Raises:
        KeyError: the clip is in no published shard.
    """
    store = Storage.at(out)
    for shard in load_manifest(store)["shards"]:
        table = sidecar(store, shard)
        found = table.filter(pc.equal(table["key"], clip_id)).to_pylist()
        if found:
            with store.open(shard["path"]) as source:
                document, mp4, text = (read_range(source, found[0][f"{m}_offset"], found[0][f"{m}_size"]) for m in MEMBERS)
            return sample_of(clip_id, mp4, document, text)
    raise KeyError(f"{clip_id} is in no published shard")
