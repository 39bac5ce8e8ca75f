"""Verify: reads a published output again and says everything that is not as the manifest, the ledger and the schema promise."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from curation.binding import faults, problems
from curation.ledger import FrozenLedger
from curation.pack import MANIFEST_VERSION, PACK_PLAN, PACKS, SPLITS, Manifest, manifest_files
from curation.sample import schema
from curation.segments import DamagedSegment
from curation.shards import MANIFEST, MEMBERS, UnsafeShard, load_manifest, read_shard, read_table
from curation.storage import Storage

KINDS = {
    "no_manifest": "nothing is published here, or the manifest cannot be read",
    "missing": "a file that the manifest names is not there",
    "size": "a file has another size than the manifest says",
    "sha256": "a file's bytes are not those that were published",
    "unlisted": "a file lies in the pack that no manifest names",
    "bad_shard": "a shard cannot be read safely",
    "bad_sample": "a sample's document, caption or MP4 do not agree with each other or with the schema",
    "unbound": "a caption does not belong to its clip: another one's, or changed since it was written",
    "duplicate_key": "a clip is in more than one place",
    "split_leak": "one source video has clips in two splits",
    "sidecar": "a sidecar or the index does not describe its shard",
    "ledger": "the ledger and what is published do not agree",
    "damaged_segment": "a committed segment's bytes are not those that were written",
}


@dataclass(frozen=True)
class Problem:
    """One fault: its kind (a key of `KINDS`), the file or clip, and what is wrong."""

    kind: str
    where: str
    what: str


@dataclass
class Report:
    """What `verify` found.

    Attributes:
        ok: whether nothing is wrong (exit code 0, else 3).
        fast: whether only presence and sizes were looked at.
        files, samples, segments: how many were looked at.
    """

    fast: bool
    files: int = 0
    samples: int = 0
    segments: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Nothing is wrong."""
        return not self.problems

    def add(self, kind: str, where: str, what: str) -> None:
        """Notes a fault."""
        assert kind in KINDS
        self.problems.append(Problem(kind, where, what))

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"ok": self.ok, **asdict(self)}


def verify(out: str | os.PathLike[str] | Storage, fast: bool = False) -> Report:
    """Every sha256, every sample, every key, the splits, the ledger against the manifest; `fast`: presence and sizes alone.

    It reads everything once and changes nothing. A fault never stops it: all are reported.
    """
    store, report = Storage.at(out), Report(fast)
    manifest = _manifest(store, report)
    if manifest is None:
        return report
    sound = check_files(store, manifest, report)
    if fast:
        return report
    samples: dict[str, Seen] = {}
    for shard in manifest["shards"]:
        if shard["path"] in sound:
            for key, seen in _shard(store, shard, report, shard["sidecar"]["path"] in sound):
                if key in samples:
                    report.add("duplicate_key", key, f"it is in {samples[key].path} and in {shard['path']}")
                samples[key] = seen
    _leaks(samples, manifest, report)
    _indexes(store, manifest, sound, report)
    _ledger(store, manifest, samples, sound, report)
    return report


def _manifest(store: Storage, report: Report) -> Manifest | None:
    try:
        manifest = load_manifest(store)
    except ValueError as error:  # absent, or no JSON
        report.add("no_manifest", MANIFEST, str(error))
        return None
    if manifest.get("schema") != MANIFEST_VERSION:
        report.add("no_manifest", MANIFEST, f"its schema is {manifest.get('schema')!r}; this version reads {MANIFEST_VERSION}")
        return None
    return manifest


def check_files(store: Storage, manifest: Manifest, report: Report) -> set[str]:
    """The paths of the manifest's files that are there in full and, unless the report is fast, unchanged; notes the others, and files that it does not name."""
    sound = {entry["path"] for entry in manifest_files(manifest) if _file(store, entry, report)}
    _unlisted(store, manifest, report)
    return sound


def _file(store: Storage, entry: Mapping[str, Any], report: Report) -> bool:
    """Whether the file is there in full (and, unless fast, unchanged)."""
    report.files += 1
    size = store.size(entry["path"])
    if size is None:
        report.add("missing", entry["path"], "it is not there")
    elif size != entry["bytes"]:
        report.add("size", entry["path"], f"{size} bytes instead of {entry['bytes']}")
    elif not report.fast and store.sha256(entry["path"]) != entry["sha256"]:
        report.add("sha256", entry["path"], "its bytes have changed since it was published")
    else:
        return True
    return False


def _unlisted(store: Storage, manifest: Manifest, report: Report) -> None:
    folder = f"{PACKS}/{manifest['pack']}"
    listed = {entry["path"] for entry in manifest_files(manifest)}
    for inner in (folder, *(f"{folder}/{split}" for split in SPLITS)):
        for name in store.names(inner):
            if f"{inner}/{name}" not in listed:
                report.add("unlisted", f"{inner}/{name}", "the manifest does not name it")


@dataclass(frozen=True)
class Seen:
    """A sound sample: its video, its shard, its caption's seal."""

    video_id: str
    path: str
    caption_sha256: str


def _shard(store: Storage, shard: Mapping[str, Any], report: Report, with_sidecar: bool) -> Iterator[tuple[str, Seen]]:
    """(clip_id, what was seen) of each sound sample; notes what is wrong with the others."""
    from jsonschema import Draft202012Validator

    validator = Draft202012Validator(schema())
    rows = {row["key"]: row for row in read_table(store, shard["sidecar"]["path"]).to_pylist()} if with_sidecar else None
    count = 0
    with store.open(shard["path"]) as source:
        try:
            for sample, members in read_shard(source):
                count += 1
                doc = sample.document
                wrong = [("bad_sample", f"{'/'.join(map(str, e.absolute_path))}: {e.message}"[:300]) for e in validator.iter_errors(doc)]
                wrong = wrong or problems(sample)
                for kind, line in wrong:
                    report.add(kind, f"{shard['path']}:{sample.key}", line)
                if rows is not None:
                    _row(rows.pop(sample.key, None), doc, members, f"{shard['sidecar']['path']}:{sample.key}", report)
                if not wrong:
                    yield sample.key, Seen(doc["video_id"], shard["path"], doc["caption_sha256"])
        except UnsafeShard as error:
            report.add("bad_shard", shard["path"], str(error))
    report.samples += count
    if count != shard["samples"]:
        report.add("bad_shard", shard["path"], f"{count} samples instead of {shard['samples']}")
    for key in rows or {}:
        report.add("sidecar", f"{shard['sidecar']['path']}:{key}", "the shard has no such sample")


def _row(row: Mapping[str, Any] | None, doc: Mapping[str, Any], members: Mapping[str, Any], where: str, report: Report) -> None:
    """A sidecar's row against its sample."""
    if row is None:
        return report.add("sidecar", where, "the sample has no row")
    for ending in MEMBERS:
        said, is_at = (row[f"{ending}_offset"], row[f"{ending}_size"]), (members[ending].offset, members[ending].size)
        if said != is_at:
            report.add("sidecar", where, f".{ending} is said to lie at {said}, it lies at {is_at}")
    for name in ("caption", "video_id", "caption_sha256", "binding"):
        if row[name] != doc.get(name):
            report.add("sidecar", where, f"{name} is not the sample's")


def _leaks(samples: Mapping[str, Seen], manifest: Manifest, report: Report) -> None:
    split_of = {shard["path"]: shard["split"] for shard in manifest["shards"]}
    splits: dict[str, set[str]] = {}
    for seen in samples.values():
        splits.setdefault(seen.video_id, set()).add(split_of[seen.path])
    for video, found in sorted(splits.items()):
        if len(found) > 1:
            report.add("split_leak", video, f"clips in {' and '.join(sorted(found))}")


def _indexes(store: Storage, manifest: Manifest, sound: set[str], report: Report) -> None:
    for split, facts in manifest["splits"].items():
        if facts["index"] and facts["index"]["path"] in sound:
            index = json.loads(store.read(facts["index"]["path"]))
            wanted = [(s["name"], s["md5"], s["samples"], s["bytes"]) for s in manifest["shards"] if s["split"] == split]
            if [(s["url"], s["md5sum"], s["nsamples"], s["filesize"]) for s in index["shardlist"]] != wanted:
                report.add("sidecar", facts["index"]["path"], "it does not list the manifest's shards")


def _ledger(store: Storage, manifest: Manifest, samples: Mapping[str, Seen], sound: set[str], report: Report) -> None:
    """The frozen segments are unchanged; what they hold is what is listed; what is listed as kept is in the shards."""
    frozen = json.loads(store.read(PACK_PLAN)) if store.size(PACK_PLAN) is not None else None
    if frozen is None or frozen["pack"] != manifest["pack"]:
        return report.add("ledger", PACK_PLAN, "it is missing, or belongs to a pack that was not finished: run curate or rejudge again")
    report.segments = len(frozen["segments"])
    try:
        ledger = FrozenLedger.read(store, only=[segment["id"] for segment in frozen["segments"]])
    except DamagedSegment as error:
        return report.add("damaged_segment", error.segment, str(error))
    now = {segment.id: segment.sha256 for segment in ledger.segments}
    for segment in frozen["segments"]:
        if now[segment["id"]] != segment["sha256"]:
            report.add("damaged_segment", segment["id"], "its ledger file is not the one that was frozen")
    for row in ledger.clips().to_pylist():
        if row["caption_sha256"] is not None:
            for what in faults(row):
                report.add("unbound", f"{row['segment']}:{row['clip_id']}", what)
        try:
            if row["length"] is not None:
                ledger.read_clip_bytes(row)
        except DamagedSegment as error:
            report.add("damaged_segment", f"{error.segment}:{row['clip_id']}", str(error))
    if manifest["files"]["clips"]["path"] in sound:
        _listed(read_table(store, manifest["files"]["clips"]["path"]), ledger, samples, report)
    if manifest["files"]["videos"]["path"] in sound:
        videos = read_table(store, manifest["files"]["videos"]["path"]).select(["video_id", "video_uri"]).to_pylist()
        if videos != ledger.videos().select(["video_id", "video_uri"]).to_pylist():
            report.add("ledger", manifest["files"]["videos"]["path"], "it does not list the ledger's videos")


def _listed(clips: pa.Table, ledger: FrozenLedger, samples: Mapping[str, Seen], report: Report) -> None:
    listed = {row["clip_id"]: row for row in clips.select(["clip_id", "kept", "reasons", "video_sha256"]).to_pylist()}
    known = {row["clip_id"]: row for row in ledger.clips().select(["clip_id", "video_sha256", "caption_sha256"]).to_pylist()}
    if len(listed) != clips.num_rows:
        report.add("duplicate_key", "clips.parquet", "a clip is listed twice")
    for clip in sorted(listed.keys() ^ known.keys()):
        report.add("ledger", clip, "it is in the ledger, but not listed" if clip in known else "it is listed, but not in the ledger")
    for clip, row in sorted(listed.items()):
        if row["kept"] != (clip in samples):
            report.add(
                "ledger", clip, "it is listed as kept, but no sound sample holds it" if row["kept"] else "it is listed as rejected, but a shard holds it"
            )
        if not row["kept"] and not row["reasons"]:
            report.add("ledger", clip, "it is rejected, but nothing says why")
        if clip in known and row["video_sha256"] != known[clip]["video_sha256"]:
            report.add("ledger", clip, "its MP4 is not the ledger's")
        if clip in known and clip in samples and samples[clip].caption_sha256 != known[clip]["caption_sha256"]:
            report.add("unbound", clip, "its caption is not the ledger's")
    for clip in sorted(samples.keys() - listed.keys()):
        report.add("ledger", clip, "a shard holds it, but it is not listed")
