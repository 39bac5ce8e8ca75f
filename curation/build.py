"""Folder, Build: the files of one pack, made shard by shard; what is already there in full is left alone."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeAlias

import pyarrow as pa

from curation.binding import faults
from curation.ledger import FrozenLedger, score_names
from curation.sample import digest, document, to_json
from curation.segments import BLOBS, PLACE, DamagedSegment
from curation.shards import MEMBERS, TarWriter, parquet_bytes, read_shard
from curation.storage import Storage, flush, kill_point

Fill: TypeAlias = Callable[[TarWriter], pa.Table]


@dataclass(frozen=True)
class Contents:
    """What one shard will hold, in order."""

    split: str
    number: int
    clip_ids: tuple[str, ...]

    @property
    def name(self) -> str:
        """The shard's name without an ending."""
        return f"pan-{self.split}-{self.number:06d}"


@dataclass(frozen=True)
class Folder:
    """The files of one pack, under `path` of an output; what is already there in full is left as it is."""

    out: Storage
    path: str

    def tar(self, split: str, name: str, fill: Fill, check: Callable[[BinaryIO], None]) -> dict[str, Any]:
        """One tar and its sidecar, made locally, read back, then published; its entry in the manifest.

        Args:
            fill: adds the members and gives the sidecar, a row a sample; called again where the tar has to be written.
            check: reads the tar back before anyone else can; raises where it is not as it was written.
        """
        out, path = self.out, f"{self.path}/{split}/{name}.tar"
        there = out.size(path) is not None and out.sha256(path)
        tar = TarWriter(None)  # a finished shard is recognised by its hash
        sidecar = fill(tar) if there else None
        if sidecar is None or tar.sha256.hexdigest() != there:
            with out.scratch() as scratch:
                kill_point("open scratch")
                with scratch.open("xb") as sink:
                    tar = TarWriter(sink)
                    sidecar = fill(tar)
                    flush(sink)
                kill_point("written scratch")
                with scratch.open("rb") as source:
                    check(source)
                out.publish(scratch, path)
        beside = self.file(f"{split}/{name}.parquet", parquet_bytes(sidecar), None)
        return {
            "name": f"{name}.tar",
            "path": path,
            "split": split,
            "samples": sidecar.num_rows,
            "bytes": tar.size,
            "sha256": tar.sha256.hexdigest(),
            "md5": tar.md5.hexdigest(),
            "sidecar": beside,
        }

    def file(self, name: str, data: bytes, rows: int | None) -> dict[str, Any]:
        """A small file of the pack; its entry in the manifest."""
        out, path, sha = self.out, f"{self.path}/{name}", hashlib.sha256(data).hexdigest()
        if out.size(path) != len(data) or out.sha256(path) != sha:
            out.replace(path, data)
        return {"path": path, "sha256": sha, "bytes": len(data)} | ({} if rows is None else {"rows": rows})

    def index(self, split: str, listed: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The split's index for `wids`, and its summary for the manifest."""
        shards = [entry for entry in listed if entry["split"] == split]
        shardlist = [{"url": e["name"], "md5sum": e["md5"], "nsamples": e["samples"], "filesize": e["bytes"]} for e in shards]
        wids = {"__kind__": "wids-shard-index-v1", "wids_version": 1, "name": f"pan-{split}", "shardlist": shardlist}
        summary: dict[str, Any] = {"shards": len(shards), "samples": sum(e["samples"] for e in shards), "bytes": sum(e["bytes"] for e in shards)}
        if not shards:
            return {**summary, "urls": None, "index": None}
        last = len(shards) - 1
        numbers = f"{{000000..{last:06d}}}" if last else "000000"
        index = self.file(f"{split}/index.json", (json.dumps(wids, indent=1) + "\n").encode(), None)
        return {**summary, "urls": f"{self.path}/{split}/pan-{split}-{numbers}.tar", "index": index}


@dataclass(frozen=True)
class Build:
    """Makes a pack's shards of clips."""

    ledger: FrozenLedger
    folder: Folder
    thresholds: Mapping[str, Any]
    scores: list[str]
    provenance: list[str]
    columns: pa.Schema

    def shard(self, shard: Contents, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """One shard; its entry in the manifest."""
        return self.folder.tar(shard.split, shard.name, lambda tar: self._fill(tar, rows), lambda source: _check(source, shard))

    def _fill(self, tar: TarWriter, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
        thresholds, listed = digest(self.thresholds), []
        for row in rows:
            if wrong := faults(row):
                raise DamagedSegment(row["segment"], f"clip {row['clip_id']}: {wrong[0]}")
            sample = document(row, self.scores, self.provenance, thresholds)
            data = {"json": to_json(sample).encode(), "mp4": self.ledger.read_clip_bytes(row), "txt": sample["caption"].encode()}
            entry: dict[str, Any] = {"key": row["clip_id"], **row, "provenance": to_json(sample["provenance"]), "binding": sample["binding"]}
            entry["json_sha256"] = hashlib.sha256(data["json"]).hexdigest()  # the MP4 and the caption have seals of their own
            for ending in MEMBERS:
                member = tar.add(f"{row['clip_id']}.{ending}", data[ending])
                entry |= {f"{ending}_offset": member.offset, f"{ending}_size": member.size}
            listed.append(entry)
        tar.close()
        base = [column for column in self.columns if column.name not in ("reject", "status", "error_code", "error_detail")]
        places = [(f"{ending}_{what}", pa.int64()) for ending in MEMBERS for what in ("offset", "size")]
        fields = [("key", pa.string()), *((c.name, c.type) for c in base), ("binding", pa.string()), ("json_sha256", pa.string()), *places]
        return pa.Table.from_pylist(listed, schema=pa.schema(fields))


def _check(source: Any, shard: Contents) -> None:
    """Reads a shard back before anyone else can."""
    keys = tuple(sample.key for sample, _ in read_shard(source))
    if keys != shard.clip_ids:
        raise RuntimeError(f"{shard.name} reads back with other samples than were written; the disk is not to be trusted")


def published_columns(clips: pa.Table) -> pa.Table:
    """A clip table without what depends on the run: segments, offsets, fences; score columns last and sorted."""
    hidden = {*BLOBS, *(f.name for f in PLACE), "kind", "stats", "video_stamp", "embedding"}
    scores = score_names(clips)
    return clips.select([*(n for n in clips.column_names if n not in hidden and n not in scores), *scores])
