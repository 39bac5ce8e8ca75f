"""Latent verify: reads published latents again and says everything that is not as the manifest and the ledger promise."""

import os
from collections.abc import Mapping
from typing import Any

from curation.ledger import FrozenLedger
from curation.segments import DamagedSegment
from curation.shards import MANIFEST, UnsafeShard, load_manifest, read_members
from curation.storage import Storage
from curation.verify import Report, check_files
from training.data.latents import MANIFEST_VERSION, MEMBERS
from training.data.samples import BadSample, Entry, read_encoded, sidecar_rows


def verify(out: str | os.PathLike[str] | Storage, fast: bool = False) -> Report:
    """Every sha256, every sample, every key, and the ledger's own bytes; `fast`: presence and sizes alone. A fault never stops it: all are reported."""
    store, report = Storage.at(out), Report(fast)
    try:
        manifest = load_manifest(store)
    except ValueError as error:
        report.add("no_manifest", MANIFEST, str(error))
        return report
    if manifest.get("schema") != MANIFEST_VERSION:
        report.add("no_manifest", MANIFEST, f"its schema is {manifest.get('schema')!r}; latents of this version are {MANIFEST_VERSION}")
        return report
    sound = check_files(store, manifest, report)
    if fast:
        return report
    seen: dict[str, str] = {}
    for shard in manifest["shards"]:
        if {shard["path"], shard["sidecar"]["path"]} <= sound:
            _shard(store, shard, seen, report)
    _ledger(store, report)
    return report


def _shard(store: Storage, shard: Mapping[str, Any], seen: dict[str, str], report: Report) -> None:
    try:
        with store.open(shard["path"]) as source:
            members = {member.name: (member.offset, member.size) for member in read_members(source)}
    except UnsafeShard as error:
        return report.add("bad_shard", shard["path"], str(error))
    rows = list(sidecar_rows(store, shard))
    for row in rows:
        entry = Entry.of(row, shard["path"], "latents")
        where = f"{shard['path']}:{entry.key}"
        report.samples += 1
        if tuple(members.pop(f"{entry.key}.{name}", None) for name in MEMBERS) != entry.places:
            report.add("sidecar", where, "its members do not lie where the sidecar says")
        if entry.key in seen:
            report.add("duplicate_key", entry.key, f"it is in {seen[entry.key]} and in {shard['path']}")
        seen[entry.key] = shard["path"]
        try:
            document, _ = read_encoded(store, entry)
        except BadSample as error:
            report.add("bad_sample", where, str(error))
            continue
        if (document["clip_id"], document["binding"], document["address"]) != (entry.key, row["binding"], row["address"]):
            report.add("unbound", where, "its document is of another clip, or of another caption")
    if members or len(rows) != shard["samples"]:
        report.add("bad_shard", shard["path"], f"{len(rows)} samples and {len(members)} further members instead of {shard['samples']} samples")


def _ledger(store: Storage, report: Report) -> None:
    ledger = FrozenLedger.read(store)
    report.segments = len(ledger.segments)
    for what in ledger.damaged:
        report.add("damaged_segment", what.split(":")[0].removeprefix("ledger segment "), what)
    for row in ledger.clips().to_pylist():
        try:
            if row["length"] is not None:
                ledger.read_clip_bytes(row)
        except DamagedSegment as error:
            report.add("damaged_segment", error.segment, str(error))
