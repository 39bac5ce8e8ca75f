"""Samples: one published sample, raw or encoded, read by its byte ranges; nothing gets by whose hash is not the manifest's."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from curation.binding import Unbound, check
from curation.shards import MEMBERS as CLIP_MEMBERS
from curation.shards import Sample, UnsafeShard, read_range, sample_of
from curation.storage import Storage
from training.data import latents

Kind = Literal["clips", "latents"]


class BadSample(ValueError):
    """A sample is not what its manifest says, or cannot be used: names the shard and the key."""


@dataclass(frozen=True)
class Entry:
    """Where one sample lies, and what it must hash to.

    Attributes:
        key: its clip's id.
        shard: the tar's path in the folder.
        places: (offset, size) of each member in the tar: json, mp4, txt of a clip; json, safetensors, looks.safetensors of an encoded one.
        seals: sha256 by name: of a clip "mp4", "caption" and their "binding"; of an encoded one each member's.
        document_sha256: of a clip's document; None where it was published before sidecars told it. It is no seal: with the thresholds under which a clip
            was kept it changes, what is learnt of the clip does not.
    """

    key: str
    shard: str
    places: tuple[tuple[int, int], ...]
    seals: Mapping[str, str]
    document_sha256: str | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any], shard: str, kind: Kind) -> "Entry":
        """From a sidecar's row."""
        members: tuple[str, ...] = CLIP_MEMBERS if kind == "clips" else latents.MEMBERS
        clip = {"mp4": "video_sha256", "caption": "caption_sha256", "binding": "binding"}
        seals = {what: row[column] for what, column in (clip if kind == "clips" else {name: f"{name}_sha256" for name in members}).items()}
        places = tuple((row[f"{name}_offset"], row[f"{name}_size"]) for name in members)
        return cls(row["key"], shard, places, seals, row.get("json_sha256") if kind == "clips" else None)

    def bad(self, what: str) -> BadSample:
        """The error about this sample."""
        return BadSample(f"{self.shard}: sample {self.key}: {what}")


def read_clip(store: Storage, entry: Entry) -> Sample:
    """A raw sample, whose MP4, caption and document belong together and to the manifest.

    Raises:
        BadSample: they do not.
    """
    document, mp4, text = _members(store, entry)
    if entry.document_sha256 is not None:
        _held(entry, "json", hashlib.sha256(document).hexdigest(), entry.document_sha256)
    try:
        sample = sample_of(entry.key, mp4, document, text)
        check(sample)
    except (UnsafeShard, Unbound) as error:
        raise entry.bad(str(error)) from error
    told = {"mp4": sample.document["mp4"]["sha256"], "caption": sample.document["caption_sha256"], "binding": sample.document["binding"]}
    _same(entry, told)
    return sample


def read_encoded(store: Storage, entry: Entry, looks: bool = True) -> tuple[Mapping[str, Any], latents.Encoded]:
    """An encoded sample's document and tensors.

    Args:
        looks: with what the vision tower sees; else those bytes are not read.

    Raises:
        BadSample: their bytes are not those that were published.
    """
    names = latents.MEMBERS if looks else latents.MEMBERS[:2]
    members = _members(store, entry, len(names))
    _same(entry, {name: hashlib.sha256(data).hexdigest() for name, data in zip(names, members, strict=True)})
    document = json.loads(members[0])
    try:
        return document, latents.Encoded.from_bytes(document, members[1], members[2] if looks else None)
    except ValueError as error:
        raise entry.bad(str(error)) from error


def sidecar_rows(store: Storage, shard: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows of a manifest's shard, a sample each.

    Raises:
        BadSample: the sidecar's bytes are not those that were published.
    """
    beside = shard["sidecar"]
    data = store.read(beside["path"]) if store.size(beside["path"]) is not None else b""
    if hashlib.sha256(data).hexdigest() != beside["sha256"]:
        raise BadSample(f"{beside['path']}: its bytes are not those that the manifest was published with; `pan verify {store.root}` says what else is damaged")
    for batch in pq.ParquetFile(pa.BufferReader(data)).iter_batches():
        yield from batch.to_pylist()


def _members(store: Storage, entry: Entry, count: int | None = None) -> list[bytes]:
    """The bytes of the first `count` members; of all by default."""
    try:
        with store.open(entry.shard) as source:
            return [read_range(source, offset, size) for offset, size in entry.places[:count]]
    except (UnsafeShard, FileNotFoundError) as error:
        raise entry.bad(str(error)) from error


def _same(entry: Entry, found: Mapping[str, str]) -> None:
    for what, sha256 in found.items():
        _held(entry, what, sha256, entry.seals[what])


def _held(entry: Entry, what: str, sha256: str, told: str) -> None:
    if sha256 != told:
        raise entry.bad(f"the sha256 of its {what} is {sha256[:12]}, but {str(told)[:12]} by the manifest: it was damaged or exchanged")
