"""Latent pack: a frozen ledger of latents as shards that mirror those of the clips, with a row for every clip and a manifest; a pure function."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa

from curation.build import Contents, Folder
from curation.ledger import FrozenLedger, discard
from curation.lock import check_fence
from curation.pack import PACKS, SPLITS, Manifest, point_at, published
from curation.sample import digest
from curation.segments import DamagedSegment
from curation.shards import MANIFEST, TarWriter, load_manifest, parquet_bytes, read_members
from curation.storage import Storage
from training.data.latents import MANIFEST_VERSION, MEMBERS, SCHEMA
from training.data.samples import Entry

LINKED = ("samples.parquet",)
_FACTS = [("video_id", pa.string()), ("binding", pa.string()), ("address", pa.string()), ("chunks", pa.int32()), ("height", pa.int32()), ("width", pa.int32())]
_PLACES = [(f"{name}_{what}", kind) for name in MEMBERS for what, kind in (("offset", pa.int64()), ("size", pa.int64()), ("sha256", pa.string()))]
_SIDECAR = pa.schema([("key", pa.string()), *_FACTS, *_PLACES])
_SAMPLES = pa.schema([(n, pa.string()) for n in ("key", "address", "split", "status", "reason", "detail", "source_shard", "shard")])


@dataclass(frozen=True)
class Wanted:
    """A published clip, and where its latents are kept."""

    split: str
    entry: Entry
    address: str


def publish(ledger: FrozenLedger, wanted: Sequence[Wanted], source: Mapping[str, Any], encoder: Mapping[str, Any], null: bytes, fence: int) -> Manifest:
    """Publishes the latents of exactly the clips `wanted`; returns the manifest. Call it again after a kill, or any number of times.

    A shard holds the encoded clips of one shard of clips, in its order. A clip that could not be encoded is in `samples.parquet` with the reason.

    Args:
        ledger: holds a row for each of `wanted`.
        wanted: in the order of the clips' shards.
        source: what is said of the clips' own pack.
        encoder: its identity.
        null: the empty text, encoded, as safetensors.
        fence: number of the lock that the run holds.

    Raises:
        LockLost: a later run holds the output.
        ValueError: a clip that was never encoded.
        DamagedSegment: latents are not those that were committed. The segment is then out of the ledger: the same command, run again, does its clips again.
    """
    out, rows = ledger.out, {row["clip_id"]: row for row in ledger.clips().to_pylist()}
    if lacking := [want.entry.key for want in wanted if want.address not in rows]:
        raise ValueError(f"{len(lacking)} clips were never encoded, {lacking[0]} the first: run the same command again")
    shards = _shards(wanted, rows)
    samples = parquet_bytes(_samples(wanted, rows, shards))
    asked = {"source": dict(source), "encoder": digest(dict(encoder)), "samples": hashlib.sha256(samples).hexdigest()}
    shas = [rows[want.address]["video_sha256"] for want in wanted]
    pack_id = digest({**asked, "bytes": shas, "null": hashlib.sha256(null).hexdigest()})[:12]
    manifest = published(out, pack_id)
    if manifest is None:
        folder = Folder(out, f"{PACKS}/{pack_id}")
        try:
            listed = [_shard(folder, ledger, shard, rows) for shard in shards]
        except DamagedSegment as error:
            discard(out, error.segment)
            raise
        manifest = {
            "schema": MANIFEST_VERSION,
            "sample_schema": SCHEMA,
            "pack": pack_id,
            "encoder": dict(encoder),
            "source": dict(source),
            "shards": listed,
            "splits": {split: folder.index(split, listed) for split in SPLITS},
            "files": {"samples": folder.file("samples.parquet", samples, len(wanted)), "null": folder.file("null.safetensors", null, None)},
            "totals": {"clips": sum(entry["samples"] for entry in listed), "bytes": sum(entry["bytes"] for entry in listed)},
            "failed": failures(wanted, rows),
        }
        check_fence(out, fence)
        out.replace(MANIFEST, (json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode())
    point_at(out, pack_id, LINKED)
    return manifest


def failures(wanted: Sequence[Wanted], rows: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Reason: how many of the clips failed for it."""
    found = (rows[want.address] for want in wanted)
    return dict(sorted(Counter(str(row["error_code"]) for row in found if row["status"] != "ok").items()))


Shard = tuple[Contents, tuple[Wanted, ...]]


def _shards(wanted: Sequence[Wanted], rows: Mapping[str, Mapping[str, Any]]) -> list[Shard]:
    """One shard for each shard of clips of which any could be encoded."""
    by_source: dict[tuple[str, str], list[Wanted]] = {}
    for want in wanted:
        if rows[want.address]["status"] == "ok":
            by_source.setdefault((want.split, want.entry.shard), []).append(want)
    shards, numbers = [], Counter[str]()
    for (split, _), group in by_source.items():
        shards.append((Contents(split, numbers[split], tuple(want.entry.key for want in group)), tuple(group)))
        numbers[split] += 1
    return shards


def _samples(wanted: Sequence[Wanted], rows: Mapping[str, Mapping[str, Any]], shards: Sequence[Shard]) -> pa.Table:
    """Every clip: whether it was encoded, why not, and in which shards it lies."""
    place = {key: contents.name for contents, _ in shards for key in contents.clip_ids}
    found = []
    for want in wanted:
        row, key = rows[want.address], want.entry.key
        told = {"status": row["status"], "reason": row["error_code"], "detail": row["error_detail"], "shard": place.get(key)}
        found.append({"key": key, "address": want.address, "split": want.split, "source_shard": want.entry.shard.rsplit("/", 1)[-1], **told})
    return pa.Table.from_pylist(found, schema=_SAMPLES)


def _shard(folder: Folder, ledger: FrozenLedger, shard: Shard, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    contents, group = shard

    def fill(tar: TarWriter) -> pa.Table:
        listed = [_add(tar, want.entry.key, rows[want.address], ledger) for want in group]
        tar.close()
        return pa.Table.from_pylist(listed, schema=_SIDECAR)

    def check(source: BinaryIO) -> None:
        names = [member.name for member in read_members(source)]
        if names != [f"{key}.{member}" for key in contents.clip_ids for member in MEMBERS]:
            raise RuntimeError(f"{contents.name} reads back with other samples than were written; the disk is not to be trusted")

    return folder.tar(contents.split, contents.name, fill, check)


def _add(tar: TarWriter, key: str, row: Mapping[str, Any], ledger: FrozenLedger) -> dict[str, Any]:
    """One sample's members; its row in the sidecar."""
    tensors, looks = ledger.read_clip_bytes(row), row["looks_bytes"]
    data = dict(zip(MEMBERS, (row["document"].encode(), tensors[: len(tensors) - looks], tensors[len(tensors) - looks :]), strict=True))
    document = json.loads(row["document"])
    entry = {"key": key, **{name: document[name] for name, _ in _FACTS}}
    for name in MEMBERS:
        member = tar.add(f"{key}.{name}", data[name])
        entry |= {f"{name}_offset": member.offset, f"{name}_size": member.size, f"{name}_sha256": hashlib.sha256(data[name]).hexdigest()}
    return entry


def kept_null(out: Storage, copies: Sequence[str]) -> bytes | None:
    """The empty text's embedding as it was published last, from whichever of its copies is whole: another machine's would make another pack of all latents.

    Args:
        copies: where else than in the pack it may lie.

    Returns:
        None: nothing was published yet, or no copy is what the manifest says.
    """
    if out.size(MANIFEST) is None:
        return None
    told = load_manifest(out)["files"]["null"]
    found = (out.read(path) for path in (*copies, told["path"]) if out.size(path) is not None)
    return next((data for data in found if hashlib.sha256(data).hexdigest() == told["sha256"]), None)


def null_of(out: Storage, manifest: Mapping[str, Any]) -> bytes:
    """The empty text's embedding, as safetensors.

    Raises:
        ValueError: its bytes are not those that were published.
    """
    told = manifest["files"]["null"]
    data = out.read(told["path"])
    if hashlib.sha256(data).hexdigest() != told["sha256"]:
        raise ValueError(f"{told['path']}: its bytes are not those that the manifest was published with; run the same `pan encode` again")
    return data
