"""Cleanup: what killed runs left behind in an output and nothing refers to; named by default, removed on demand."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from curation.lock import hold
from curation.pack import PACK_PLAN, PACKS
from curation.plan import read_plan
from curation.segments import LEDGER, SEGMENTS
from curation.shards import MANIFEST, load_manifest
from curation.storage import SCRATCH, Storage
from pipelines import terminal

WHY = {
    "scratch": "a file that was never finished",
    "segment": "clip bytes whose rows were never committed",
    "pack": "shards that neither the manifest nor an unfinished pack names",
}


@dataclass(frozen=True)
class Orphan:
    """A file, or a pack's folder, that nothing refers to. `kind` is a key of `WHY`."""

    kind: str
    name: str
    files: int
    bytes: int


def orphans(store: Storage) -> list[Orphan]:
    """What no reader and no later run would miss, sorted by kind and name.

    Nothing that was committed is among it: a segment with its ledger file stays, though other rows have taken the place of its own.
    """
    committed = {name.removesuffix(".parquet") for name in store.names(LEDGER)}
    loose = [("scratch", f"{SCRATCH}/{name}") for name in store.names(SCRATCH)]
    loose += [("segment", f"{SEGMENTS}/{name}") for name in store.names(SEGMENTS) if name.removesuffix(".tar") not in committed]
    found = [Orphan(kind, name, 1, store.size(name) or 0) for kind, name in loose]
    for pack in sorted(set(store.folders(PACKS)) - _named(store)):
        sizes = _sizes(store, f"{PACKS}/{pack}")
        found.append(Orphan("pack", f"{PACKS}/{pack}", len(sizes), sum(sizes)))
    return sorted(found, key=lambda orphan: (orphan.kind, orphan.name))


def collect(out: str, delete: bool = False) -> dict[str, Any]:
    """Names the orphans of an output; with `delete`, removes them under its lock, so that no run is at work meanwhile.

    Raises:
        ValueError: `out` is no output of ours.
        OutputLocked: a run is writing there (only with `delete`; without it, what the run has not yet committed is named too).
    """
    store = Storage.at(out)
    read_plan(store)
    if not delete:
        return _told(out, orphans(store), deleted=False)
    before = {orphan.name: orphan for orphan in orphans(store)}
    with hold(store):  # which removes the scratch of killed runs itself
        found = {orphan.name: orphan for orphan in orphans(store)}
        for orphan in found.values():
            (store.remove_folder if orphan.kind == "pack" else store.remove)(orphan.name)
    scratch = {name: orphan for name, orphan in before.items() if orphan.kind == "scratch"}
    return _told(out, [*({**scratch, **found}).values()], deleted=True)


def text(told: dict[str, Any]) -> str:
    """The findings for people."""
    rows = [(o["kind"], o["name"], o["files"], o["bytes"]) for o in told["orphans"]]
    if not rows:
        return f"{told['out']}: nothing is left over"
    size = f"{told['bytes'] / 1e6:.1f} MB in {told['files']} files"
    kinds = "\n".join(f"{kind}: {why}" for kind, why in WHY.items() if any(row[0] == kind for row in rows))
    end = f"removed: {size}" if told["deleted"] else f"{size} could be removed; nothing was: add --delete to do so"
    return "\n\n".join([terminal.table("", ("kind", "name", "files", "bytes"), rows), kinds, end])


def _told(out: str, found: list[Orphan], deleted: bool) -> dict[str, Any]:
    totals = {"files": sum(o.files for o in found), "bytes": sum(o.bytes for o in found)}
    return {"out": out, "deleted": deleted, **totals, "orphans": [asdict(o) for o in found]}


def _named(store: Storage) -> set[str]:
    """The published pack, and one that a killed run has begun and the next will finish."""
    named = {str(load_manifest(store)["pack"])} if store.size(MANIFEST) is not None else set()
    return named | ({str(json.loads(store.read(PACK_PLAN))["pack"])} if store.size(PACK_PLAN) is not None else set())


def _sizes(store: Storage, folder: str) -> list[int]:
    inner = [size for name in store.folders(folder) for size in _sizes(store, f"{folder}/{name}")]
    return [*inner, *(store.size(f"{folder}/{name}") or 0 for name in store.names(folder))]
