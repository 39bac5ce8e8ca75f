"""Pack: a frozen ledger and the ids of the kept clips to shards, sidecars and a manifest; the same bytes from whatever run."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curation.build import Build, Contents, Folder, published_columns
from curation.clips import SCHEMA_VERSION
from curation.config import Config
from curation.dedup import Member, split_keys, table_of
from curation.ledger import FrozenLedger, discard, score_names
from curation.lock import check_fence
from curation.sample import digest, provenance_of, schema
from curation.segments import DamagedSegment, row_key, stable_stats
from curation.shards import MANIFEST, load_manifest, parquet_bytes
from curation.storage import Storage

PACK_PLAN, PACKS = "_run/pack_plan.json", "packs"
MANIFEST_VERSION = "pan-manifest/1"
SPLITS = ("train", "val")
SAMPLE_OVERHEAD_BYTES = 8192  # what JSON, caption, headers and padding of a sample take, about: shards are filled by MP4 bytes plus this

Manifest = dict[str, Any]


class PackPlan(Config):
    """How kept clips become shards. A change makes another pack; the ledger stays."""

    seed: int = Field(0, description="order of the clips: by sha256(seed|clip_id), so that a shard is a fair sample")
    target_bytes: int = Field(1 << 30, ge=1 << 10, description="a shard is closed before it would exceed this; loaders and object stores like about 1 GiB")
    val_share: float = Field(0.02, ge=0, lt=1, description="share of source videos (by sha256 of their id, never split) that make the val split")
    thresholds: dict[str, Any] = Field(default_factory=dict, description="the rules' thresholds under which clips were kept; written into the manifest")
    plan_digest: str = Field("", description="digest of the run's plan: inputs, settings, code version")
    recipe_digest: str = Field("", description="digest of the resolved recipe")


def pack(
    ledger: FrozenLedger,
    kept: Sequence[str],
    plan: PackPlan,
    reasons: Mapping[str, Sequence[str]] | None = None,
    summary: Mapping[str, Any] | None = None,
    fence: int | None = None,
    duplicates: Sequence[Member] | None = None,
) -> Manifest:
    """Publishes exactly the clips `kept`; returns the manifest. Call it again after a kill, or any number of times.

    Shards go under `packs/<id>`, whose id depends on everything in them, so that what a published manifest names is never
    overwritten: a reader of the old manifest reads the old pack until the new manifest, written last, has replaced it. Only then does the
    link `shards` move to the new pack (`shards/train/pan-train-000000.tar` always works locally), and only then are other packs removed.

    Args:
        ledger: as read; where an interrupted pack of the same request has frozen a list of segments, that list is used.
        kept: ids of the clips that no rule rejects and that have an MP4.
        reasons: why each clip that is not kept was rejected; without it, the ledger's `reject` (of a failed row its error code).
        summary: the run's funnel and counts, for the manifest; nothing of it may depend on time, host or worker count.
        fence: number of the lock that the run holds: it is checked before the manifest is published.
        duplicates: the groups that were looked for among the kept clips and those they stand for, recorded as duplicates.parquet; videos that share a
            group go into the same split. None where none were looked for.

    Raises:
        LockLost: a later run holds the output.
        ValueError: a kept clip that is unknown, comes twice, failed, has no MP4, or whose video failed; a rejected clip without a reason.
        DamagedSegment: a kept clip's bytes are not those that were committed. The segment is then out of the ledger: the same command,
            run again, does its items again.
    """
    out = ledger.out
    request = _request(ledger, kept, plan, reasons)
    ledger = _frozen(ledger, request)
    clips = ledger.clips()
    rows = _kept_rows(ledger, clips, kept)
    keys = split_keys(member for member in duplicates or () if member.clip_id in rows)
    shards = _shards(rows, plan, keys)
    tables = {"clips": _clip_table(clips, shards, reasons), "videos": _video_table(ledger.videos())}
    tables |= {"duplicates": table_of(duplicates)} if duplicates is not None else {}
    files = {name: parquet_bytes(table) for name, table in tables.items()}
    shas = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    pack_id = digest({"request": request, "summary": dict(summary or {}), "files": shas, "schema": schema()})[:12]
    _freeze(ledger, request, pack_id, plan, shards)
    manifest = published(out, pack_id)
    if manifest is None:
        folder = Folder(out, f"{PACKS}/{pack_id}")
        listed = _built(ledger, clips, folder, plan, rows, shards)
        manifest = _manifest(plan, pack_id, rows, listed, dict(summary or {}))
        manifest["splits"] = {split: folder.index(split, listed) for split in SPLITS}
        manifest["files"] = {name: folder.file(f"{name}.parquet", files[name], tables[name].num_rows) for name in sorted(files)}
        manifest["files"]["schema"] = folder.file("pan-clip-1.schema.json", (json.dumps(schema(), indent=1) + "\n").encode(), None)
        if fence is not None:
            check_fence(out, fence)
        out.replace(MANIFEST, (json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode())
    point_at(out, pack_id, ("clips.parquet", "videos.parquet"))
    return manifest


def _request(ledger: FrozenLedger, kept: Sequence[str], plan: PackPlan, reasons: Mapping[str, Sequence[str]] | None) -> str:
    """Digest of what is asked for: the plan, the verdicts, and which clips and videos there are and how they ended, not what else is said of them."""
    rows = ledger.table.select(["kind", "clip_id", "video_id", "video_uri", "status"]).to_pylist()
    about = sorted([*row_key(row), row["status"]] for row in rows)
    said = sorted([clip, *why] for clip, why in (reasons or {}).items())
    return digest({"plan": plan.model_dump(), "kept": sorted(kept), "reasons": said, "rows": about})


def _frozen(ledger: FrozenLedger, request: str) -> FrozenLedger:
    """The ledger as an interrupted pack of the same request froze it: what was committed twice since then must not change its bytes."""
    if ledger.out.size(PACK_PLAN) is None:
        return ledger
    before = json.loads(ledger.out.read(PACK_PLAN))
    ids = [segment["id"] for segment in before["segments"]]
    if before["request"] != request or not set(ids) <= {segment.id for segment in ledger.segments}:
        return ledger
    return FrozenLedger.read(ledger.out, only=ids)


def _freeze(ledger: FrozenLedger, request: str, pack_id: str, plan: PackPlan, shards: Sequence[Contents]) -> None:
    """Writes down what this pack is of, for `_frozen` of a later attempt."""
    frozen = {
        "request": request,
        "pack": pack_id,
        "plan": plan.model_dump(),
        "segments": [{"id": s.id, "sha256": s.sha256} for s in ledger.segments],
        "shards": [{"name": s.name, "split": s.split, "clips": list(s.clip_ids)} for s in shards],
    }
    text = (json.dumps(frozen, indent=1, sort_keys=True) + "\n").encode()
    if ledger.out.size(PACK_PLAN) is None or ledger.out.read(PACK_PLAN) != text:
        ledger.out.replace(PACK_PLAN, text)


def _built(
    ledger: FrozenLedger, clips: pa.Table, folder: Folder, plan: PackPlan, rows: Mapping[str, Mapping[str, Any]], shards: Sequence[Contents]
) -> list[dict[str, Any]]:
    """Writes the shards into the pack's folder; what the manifest says of each.

    Raises:
        DamagedSegment: as `pack`.
    """
    measured = [name for name in score_names(clips) if all(row[name] is not None for row in rows.values())]
    build = Build(ledger, folder, plan.thresholds, measured, _provenance_names(ledger.videos(), clips), published_columns(clips).schema)
    try:
        return [build.shard(shard, [rows[clip] for clip in shard.clip_ids]) for shard in shards]
    except DamagedSegment as error:
        discard(ledger.out, error.segment)
        raise


def _kept_rows(ledger: FrozenLedger, clips: pa.Table, kept: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The kept clips' rows by id; refuses what may not be published."""
    wanted = set(kept)
    if len(wanted) != len(kept):
        raise ValueError("a kept clip comes twice")
    rows = {row["clip_id"]: row for row in clips.filter(pc.is_in(clips["clip_id"], pa.array(sorted(wanted), pa.string()))).to_pylist()}
    statuses: dict[str, set[str]] = {}
    for video, status in zip(ledger.videos()["video_id"].to_pylist(), ledger.videos()["status"].to_pylist(), strict=True):
        statuses.setdefault(video, set()).add(status)
    for clip in sorted(wanted):
        row = rows.get(clip)
        if row is None:
            raise ValueError(f"clip {clip} is kept, but the ledger does not know it")
        if row["status"] != "ok":
            raise ValueError(f"clip {clip} is kept, but its row is {row['status']} ({row['error_code']})")
        if "ok" not in statuses.get(row["video_id"], set()):
            raise ValueError(f"clip {clip} is kept, but its video {row['video_id']} is not done or failed: judge its clips as video_failed")
        if row["length"] is None:
            raise ValueError(f"clip {clip} is kept, but has no MP4: send it through the missing stages first")
        if row["caption_sha256"] is None:
            raise ValueError(f"clip {clip} is kept, but its caption bears no seal, as an older version wrote them: renew the captions with `pan recaption`")
    return rows


def split_of(video_id: str, val_share: float) -> str:
    """ "train" or "val", by the video's id alone: no source ever straddles two splits, in this run or in a later one."""
    return "val" if int(hashlib.sha256(video_id.encode()).hexdigest()[:13], 16) < val_share * 16**13 else "train"


def _shards(rows: Mapping[str, Mapping[str, Any]], plan: PackPlan, keys: Mapping[str, str]) -> list[Contents]:
    """Which clips lie in which shard, in which order; `keys` gives the video that decides for those whose clips have duplicates."""
    order = sorted(rows, key=lambda clip: hashlib.sha256(f"{plan.seed}|{clip}".encode()).hexdigest())
    shards = []
    for split in SPLITS:
        filled: list[list[str]] = []
        size = 0
        for clip in (c for c in order if split_of(keys.get(rows[c]["video_id"], rows[c]["video_id"]), plan.val_share) == split):
            more = rows[clip]["length"] + SAMPLE_OVERHEAD_BYTES
            if not filled or size + more > plan.target_bytes:
                filled.append([])
                size = 0
            filled[-1].append(clip)
            size += more
        shards += [Contents(split, number, tuple(ids)) for number, ids in enumerate(filled)]
    return shards


def _clip_table(clips: pa.Table, shards: Sequence[Contents], reasons: Mapping[str, Sequence[str]] | None) -> pa.Table:
    """Every clip that was ever found: its row, its scores, whether it is kept, why not, and in which shard it lies."""
    shard_of = {clip: shard for shard in shards for clip in shard.clip_ids}
    decided = []
    for clip, reject, status, code in zip(*(clips[name].to_pylist() for name in ("clip_id", "reject", "status", "error_code")), strict=True):
        said = list(reasons[clip]) if reasons is not None and clip in reasons else [code or status] if status != "ok" else list(reject)
        if clip not in shard_of and not said:
            raise ValueError(f"clip {clip} is not kept, but nothing says why")
        shard = shard_of.get(clip)
        decided.append({"kept": shard is not None, "reasons": [] if shard else said, "split": shard and shard.split, "shard": shard and shard.name})
    fields = [("kept", pa.bool_()), ("reasons", pa.list_(pa.string())), ("split", pa.string()), ("shard", pa.string())]
    added = pa.Table.from_pylist(decided, schema=pa.schema(fields))
    table = published_columns(clips).drop_columns(["reject"])
    return pa.table({**{name: table[name] for name in table.column_names}, **{name: added[name] for name in added.column_names}})


def _video_table(videos: pa.Table) -> pa.Table:
    """Every source video, how it ended and what was counted in it."""
    stats = [stable_stats(row) for row in videos.select(["stats"]).to_pylist()]
    names = ("video_id", "video_uri", "provenance", "status", "error_code", "error_detail", "fps", "width", "height", "notes")
    return pa.table({**{name: videos[name] for name in names}, "stats": pa.array(stats, pa.string())})


def _provenance_names(videos: pa.Table, clips: pa.Table) -> list[str]:
    """Every provenance column of any video, sorted: each sample has them all."""
    texts = {*videos["provenance"].to_pylist(), *clips["provenance"].to_pylist()}
    return sorted({name for text in texts for name in provenance_of({"provenance": text})})


def _manifest(plan: PackPlan, pack_id: str, rows: Mapping[str, Mapping[str, Any]], listed: list[dict[str, Any]], summary: dict[str, Any]) -> Manifest:
    seconds = math.fsum(float(row["end_s"]) - float(row["start_s"]) for row in rows.values())
    return {
        "schema": MANIFEST_VERSION,
        "sample_schema": SCHEMA_VERSION,
        "pack": pack_id,
        "plan": plan.model_dump(),
        "shards": listed,
        "totals": {
            "clips": len(rows),
            "videos": len({row["video_id"] for row in rows.values()}),
            "hours": round(seconds / 3600, 6),
            "bytes": sum(entry["bytes"] for entry in listed),
        },
        "summary": summary,
    }


def published(out: Storage, pack_id: str) -> Manifest | None:
    """The manifest, if this very pack is published, all its files are there with their sizes, and the small ones (`files`) with their very bytes.

    Otherwise whoever publishes makes it again, and so mends what was damaged; shards and sidecars are too many to be read each time: `pan verify` does.
    """
    if out.size(MANIFEST) is None:
        return None
    manifest = load_manifest(out)
    if manifest["pack"] != pack_id:
        return None
    whole = all(out.size(entry["path"]) == entry["bytes"] for entry in manifest_files(manifest))
    return manifest if whole and all(out.sha256(entry["path"]) == entry["sha256"] for entry in manifest["files"].values()) else None


def manifest_files(manifest: Manifest) -> list[dict[str, Any]]:
    """Every file that a manifest names: path, sha256, bytes."""
    indexes = [split["index"] for split in manifest["splits"].values() if split["index"]]
    return [*manifest["shards"], *(shard["sidecar"] for shard in manifest["shards"]), *manifest["files"].values(), *indexes]


def point_at(out: Storage, pack_id: str, names: Sequence[str]) -> None:
    """After the manifest: the links for people and globs (the shards, and the pack's files `names`), then the packs that no manifest names any more."""
    out.link("shards", f"{PACKS}/{pack_id}")
    for name in names:
        out.link(name, f"shards/{name}")
    for other in out.folders(PACKS):
        if other != pack_id:
            out.remove_folder(f"{PACKS}/{other}")
