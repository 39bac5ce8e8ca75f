"""Publish: the rules' verdict on the frozen ledger, packed into shards and a manifest; the last step of curate and rejudge."""

import json
import os
from collections import Counter
from collections.abc import Container, Iterable
from typing import Any

import pyarrow as pa

from curation.clips import BASE_FIELDS
from curation.ledger import FrozenLedger
from curation.pack import pack
from curation.storage import Storage
from pipelines.exits import Exit
from pipelines.funnel import answer_counts
from pipelines.judge import Verdicts, funnel, judge_ledger
from pipelines.recipe import Recipe, load, loads
from pipelines.run import RESOLVED, Run, resolved


def publish(held: Run, recipe: Recipe, counts: dict[str, Any]) -> Exit:
    """Judges the ledger, packs what is kept, writes the report; fills `counts` for exit.json."""
    from pipelines.report import write_report

    ledger = FrozenLedger.read(held.out)
    found = judge_ledger(ledger, recipe.entries(), recipe.dedup)
    _captions_alike(ledger, found)
    reasons = dict(zip(found.clip_ids, found.reasons, strict=True))
    reasons |= {clip: [f"not_completed:{stage}" for stage in lacks] for clip, lacks in found.pending().items()}
    backends = {e.name: said for e in recipe.entries() if (said := getattr(e.settings, "backend", None))} | {"caption": recipe.caption.backend}
    summary = {**summary_of(ledger, found), "backends": backends}
    pack(ledger, found.kept(), recipe.pack_plan(held.plan_digest), {c: r for c, r in reasons.items() if r}, summary, held.lock.fence, found.duplicates)
    counts |= summary
    if held.out.local:
        write_report(held.out.root)
    over = recipe.budget.exceeded(summary["videos"], summary["video_errors"])
    counts |= {"over_budget": over} if over else {}
    return Exit.OVER_BUDGET if over else Exit.COMPLETE


def _captions_alike(ledger: FrozenLedger, found: Verdicts) -> None:
    """One dataset's captions are written one way.

    Raises:
        ValueError: they are not, as after a `pan recaption` that was stopped.
    """
    kept, clips = set(found.kept()), ledger.clips()
    ways = {s for c, s in zip(clips["clip_id"].to_pylist(), clips["caption_settings"].to_pylist(), strict=True) if c in kept}
    if len(ways) > 1:
        raise ValueError(
            f"the kept clips' captions were written in {len(ways)} different ways: run `pan recaption {ledger.out.root}`, which renews the older ones"
        )


def to_complete(ledger: FrozenLedger, found: Verdicts) -> pa.Table:
    """The rows of clips that nothing rejects but that lack stages, ready for the stream: without reasons, frames and place."""
    pending = found.pending()
    clips = ledger.clips()
    rows = clips.filter(pa.array([c in pending for c in clips["clip_id"].to_pylist()], pa.bool_()))
    fields = [*BASE_FIELDS, *(pa.field(name, pa.float32()) for name in ledger.scores())]
    return pa.Table.from_pylist([{**row, "reject": []} for row in rows.to_pylist()], schema=pa.schema(fields))


def summary_of(ledger: FrozenLedger, found: Verdicts) -> dict[str, Any]:
    """The funnel for the manifest: nothing in it depends on time, host or worker count."""
    way = funnel(ledger.clips(), ledger.videos(), found)
    return {
        "videos": dict(sorted(way.videos.items())),
        "video_errors": dict(sorted(way.errors.items())),
        "clips": way.clips,
        "decode": decode_of(ledger.videos()),
        "reasons": dict(sorted(Counter(r for rs in found.reasons for r in rs).items())),
        "caption_flags": caption_flags(ledger, set(found.kept())),
        "answers": answer_counts(ledger.clips()),
        "stages": [{"stage": s.stage, "in": s.given, "kept": s.kept, "rejected": s.rejected, "failed": s.failed} for s in way.active()],
    }


def caption_flags(ledger: FrozenLedger, kept: Container[str]) -> dict[str, int]:
    """How many kept clips' captions bear each flag (`captioning.checks.Found`)."""
    clips = ledger.clips()
    texts = [text for clip, text in zip(clips["clip_id"].to_pylist(), clips["structure"].to_pylist(), strict=True) if text and clip in kept]
    return dict(sorted(Counter(flag for text in texts for flag in json.loads(text)["flags"]).items()))


def decode_of(videos: pa.Table) -> dict[str, Any]:
    """Frames decoded per source frame in the analysis pass: 1.0, since a rejected clip is never opened again; kept clips are, once, to be cut."""
    stats = [json.loads(text) for text in videos["stats"].to_pylist() if text]
    source, decoded = (sum(s[name] for s in stats) for name in ("source_frames", "frames_decoded"))
    return {"source_frames": source, "frames_decoded": decoded, "per_source_frame": round(decoded / source, 6) if source else None}


def recipe_of(out: str | os.PathLike[str] | Storage, name: str | None = None, sets: Iterable[str] = ()) -> Recipe:
    """The recipe `name`, by default the one that `out` was last judged with, with `sets` on top.

    Raises:
        ValueError: `out` is no output, or the settings are at fault.
    """
    if name is not None:
        return load(name, list(sets))
    store = Storage.at(out)
    return loads(resolved(store), f"{store.root}/{RESOLVED}", sets)
