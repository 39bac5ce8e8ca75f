"""Inspect: an output in numbers and pictures of letters: funnel, reasons, scores, sizes; its clips by condition; one clip in full."""

import ast
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation.clips import one_line
from curation.segments import PLACE
from curation.shards import MANIFEST, load_manifest, read_table
from pipelines import expressions, terminal
from pipelines.funnel import answer_counts
from pipelines.outcome import Outcome, funnel_of, outcome, reason_counts
from pipelines.report import histograms

HIDDEN = ("kind", "stats", "reject", "frames", "video", *(field.name for field in PLACE))
FIRST = ("clip_id", "kept", "reasons", "video_uri", "start_s", "duration_s")
DURATIONS_S = (0.0, 2.5, 5.0, 7.5, 10.0, 15.0, 20.0, 25.0)
FRAME_RATES = (0.0, 10.0, 16.0, 24.0, 25.0, 30.0, 50.0, 60.0)


def clip_table(found: Outcome) -> pa.Table:
    """One row a clip: what the ledger knows, and under the present thresholds `kept`, `reasons` and `lacks` (stages still to do).

    `split` and `shard` are null until the clip is published.
    """
    clips, verdicts = found.clips, found.verdicts
    kept = [not reasons and not lacks for reasons, lacks in zip(verdicts.reasons, verdicts.lacks, strict=True)]
    texts = pa.list_(pa.string())
    added = {
        "kept": pa.array(kept, pa.bool_()),
        "reasons": pa.array(verdicts.reasons, texts),
        "lacks": pa.array(verdicts.lacks, texts),
        "duration_s": pc.subtract(clips["end_s"], clips["start_s"]),
        **_published(found),
    }
    names = [name for name in clips.column_names if name not in HIDDEN]
    table = pa.table({**{name: clips[name] for name in names}, **added})
    return table.select([*FIRST, *(name for name in table.column_names if name not in FIRST)])


def overview(found: Outcome) -> dict[str, Any]:
    """The whole output in numbers."""
    clips = clip_table(found)
    chosen = clips.filter(clips["kept"])
    status = Counter(found.videos["status"].to_pylist())
    return {
        "out": found.name,
        "published": found.ledger.out.size(MANIFEST) is not None,
        "videos": {name: status[name] for name in ("ok", "failed", "duplicate")},
        "video_errors": _counted(found.videos.filter(pc.equal(found.videos["status"], "failed"))["error_code"]),
        "clips": {
            "found": clips.num_rows,
            "kept": chosen.num_rows,
            "rejected": sum(map(bool, found.verdicts.reasons)),
            "pending": len(found.verdicts.pending()),
        },
        "hours": {"found": _hours(clips), "kept": _hours(chosen)},
        "funnel": [asdict(step) for step in funnel_of(found)],
        "reasons": dict(reason_counts(found)),
        "answers": answer_counts(found.clips),
        "scores": [asdict(one) for one in histograms(found)],
        "kept_resolution": _counted([f"{w}x{h}" for w, h in zip(chosen["width"].to_pylist(), chosen["height"].to_pylist(), strict=True)]),
        "kept_fps": _binned(chosen["fps"].to_pylist(), FRAME_RATES),
        "kept_duration_s": _binned(chosen["duration_s"].to_pylist(), DURATIONS_S),
        "splits": load_manifest(found.ledger.out)["splits"] if found.ledger.out.size(MANIFEST) is not None else {},
    }


def overview_text(found: Outcome) -> str:
    """The overview for people."""
    o = overview(found)
    clips, hours, videos = o["clips"], o["hours"], o["videos"]
    head = {
        "output": o["out"] + ("" if o["published"] else "  (nothing published yet)"),
        "videos": f"{videos['ok']} ok, {videos['failed']} failed, {videos['duplicate']} duplicates",
        "clips": f"{clips['kept']} kept of {clips['found']}" + (f", {clips['pending']} still lack stages" if clips["pending"] else ""),
        "hours": f"{hours['kept']:.3f} kept of {hours['found']:.3f}",
    }
    steps = [(s["stage"], s["given"], s["kept"], s["rejected"], s["failed"]) for s in o["funnel"]]
    shards = [(name, s["shards"], s["samples"], s["bytes"]) for name, s in o["splits"].items()]
    asked = [(prompt, answer, n) for prompt, counts in o["answers"].items() for answer, n in counts.items()]
    parts = [
        terminal.facts(head),
        terminal.table("funnel", ("stage", "in", "kept", "rejected", "failed"), steps),
        terminal.table("reasons", ("reason", "clips"), o["reasons"].items()),
        terminal.table("questions to the model", ("prompt", "answer", "questions"), asked),
        terminal.table("failed videos", ("error", "videos"), o["video_errors"].items()),
        terminal.table("kept clips by size", ("width x height", "clips"), o["kept_resolution"].items()),
        terminal.table("kept clips by source frames per second", ("fps", "clips"), o["kept_fps"].items()),
        terminal.table("kept clips by length", ("seconds", "clips"), o["kept_duration_s"].items()),
        terminal.table("shards", ("split", "shards", "samples", "bytes"), shards),
        *(terminal.histogram(one) for one in histograms(found)),
    ]
    return "\n\n".join(part for part in parts if part)


def listing(found: Outcome, where: str | None, sort: Sequence[str], limit: int | None) -> pa.Table:
    """The clips that `where` chooses, sorted, at most `limit`.

    Raises:
        ValueError: an expression or a column that is none.
    """
    table = clip_table(found)
    table = expressions.where(table, where) if where else table
    table = expressions.sort(table, sort)
    return table if limit is None else table.slice(0, limit)


def listing_text(table: pa.Table, where: str | None, sort: Sequence[str]) -> str:
    """The chosen clips for people: the first columns and those that were asked about."""
    asked = [node.id for node in ast.walk(ast.parse(where.strip(), mode="eval")) if isinstance(node, ast.Name)] if where else []
    names = list(dict.fromkeys([*FIRST, *(key.removeprefix("-") for key in sort), *asked]))
    rows = [[_base(row[name]) if name == "video_uri" else row[name] for name in names] for row in table.select(names).to_pylist()]
    return terminal.table("", ["video" if name == "video_uri" else name for name in names], rows) or "no clip"


def clip_row(found: Outcome, clip_id: str) -> dict[str, Any]:
    """One clip's row of `clip_table`; an id may be shortened as long as it stays unique.

    Raises:
        ValueError: no clip, or several, have this id.
    """
    table = clip_table(found)
    matches = [i for i, name in enumerate(table["clip_id"].to_pylist()) if name.startswith(clip_id)]
    if len(matches) != 1 or not clip_id:
        raise ValueError(f"clip {clip_id!r}: {len(matches)} clips of {found.name} have this id; `pan inspect {found.name} ls` lists them")
    row: dict[str, Any] = table.slice(matches[0], 1).to_pylist()[0]
    return row


def clip_text(row: Mapping[str, Any]) -> str:
    """One clip's row for people, what is not known left out."""
    events = [(e["start_s"], e["end_s"], e["text"]) for e in row["events"] or []]
    known = {name: value for name, value in row.items() if value not in (None, []) and name != "events"}
    return terminal.facts(known) + ("\n\n" + terminal.table("events", ("from s", "to s", "text"), events) if events else "")


def _published(found: Outcome) -> dict[str, pa.Array]:
    """Split and shard of each clip as the manifest's clip list has them."""
    out, ids = found.ledger.out, found.clips["clip_id"].to_pylist()
    places: dict[str, tuple[str | None, str | None]] = {}
    if out.size(MANIFEST) is not None:
        listed = read_table(out, load_manifest(out)["files"]["clips"]["path"]).select(["clip_id", "split", "shard"])
        places = {row["clip_id"]: (row["split"], row["shard"]) for row in listed.to_pylist()}
    return {name: pa.array([places.get(clip, (None, None))[i] for clip in ids], pa.string()) for i, name in enumerate(("split", "shard"))}


def _hours(clips: pa.Table) -> float:
    return round((pc.sum(clips["duration_s"]).as_py() or 0.0) / 3600, 6)


def _counted(values: Any) -> dict[str, int]:
    """How often each value comes, the most frequent first."""
    found = Counter(str(value) for value in (values.to_pylist() if hasattr(values, "to_pylist") else values))
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _binned(values: Sequence[float | None], edges: Sequence[float]) -> dict[str, int]:
    """Counts by interval [edge, next edge); empty intervals left out."""
    names = [f"{low:g} to {high:g}" for low, high in itertools.pairwise(edges)] + [f"{edges[-1]:g} or more"]
    found = Counter(sum(value >= edge for edge in edges) - 1 for value in values if value is not None)
    return {names[i]: found[i] for i in sorted(found)}


def _base(uri: str) -> str:
    return one_line(uri.rstrip("/").rpartition("/")[2] or uri, 40)


def report(out: str, view: str, clip: str | None, where: str | None, sort: Sequence[str], limit: int | None) -> tuple[Any, str]:
    """What `pan inspect OUT [VIEW]` says: as JSON-like value and as text.

    Raises:
        ValueError: no such view, or arguments that the view does not take.
    """
    if (view == "show") != (clip is not None) or view not in ("overview", "ls", "show"):
        raise ValueError(
            f"pan inspect {out} {view}: write `pan inspect OUT`, `pan inspect OUT ls [--where … --sort … --limit …]` or `pan inspect OUT show CLIP`"
        )
    found = outcome(out)
    if view == "overview":
        return overview(found), overview_text(found)
    if view == "show":
        row = clip_row(found, clip or "")
        return row, clip_text(row)
    table = listing(found, where, sort, limit)
    return table.to_pylist(), listing_text(table, where, sort)
