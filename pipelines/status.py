"""Status: how far a run has come, told from its committed ledger alone, while it works and after it died."""

import json
import socket
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation.ledger import FrozenLedger
from curation.lock import current, last_fence
from curation.plan import read_plan
from curation.shards import MANIFEST, load_manifest
from curation.storage import Storage
from pipelines import terminal
from pipelines.funnel import StageCount, answer_counts, count
from pipelines.run import EXIT


def status(out: str, now: float | None = None) -> dict[str, Any]:
    """Counts a stage, how videos ended, last commit, who holds the output, how the last command ended.

    Raises:
        ValueError: `out` is no output of ours.
    """
    store = Storage.at(out)
    plan = read_plan(store)
    ledger = FrozenLedger.read(store)
    funnel = count([ledger.table])
    now = time.time() if now is None else now
    commits = [segment.committed_s for segment in ledger.segments]
    ended = json.loads(store.read(EXIT)) if store.size(EXIT) is not None else None
    owner = owner_of(store, now)
    return {
        "out": str(out),
        "state": state(owner, ended, now),
        "inputs": plan.get("inputs", []),
        "videos": {name: funnel.videos[name] for name in ("ok", "failed", "duplicate")},
        "failed": _failures(ledger.videos()),
        "clips": funnel.clips,
        "clip_failures": _failures(ledger.clips()),
        "stages": [_stage(stage) for stage in funnel.active()],
        "answers": answer_counts(ledger.clips()),
        "segments": len(ledger.segments),
        "damaged_segments": list(ledger.damaged),
        "last_commit_age_s": round(now - max(commits), 1) if commits else None,
        "clips_per_s": round(funnel.clips / (max(commits) - min(commits)), 3) if commits and max(commits) > min(commits) else None,
        "owner": owner,
        "exit": ended,
        "published": _published(store),
    }


def _stage(stage: StageCount) -> dict[str, Any]:
    counts = {"stage": stage.stage, "in": stage.given, "kept": stage.kept, "rejected": stage.rejected, "failed": stage.failed}
    return {**counts, "reasons": dict(stage.reasons.most_common())}


def _failures(rows: pa.Table) -> dict[str, int]:
    """Error codes of the failed rows, the most frequent first."""
    failed = rows.filter(pc.equal(rows["status"], "failed"))
    return dict(Counter(code or "unknown" for code in failed["error_code"].to_pylist()).most_common())


def owner_of(store: Storage, now: float) -> dict[str, Any] | None:
    """The last run that held the output; None if there was none."""
    fence = last_fence(store)
    if not fence:
        return None
    record = current(store, fence)
    age = now - float(record["heartbeat_s"])
    gone = record["host"] == socket.gethostname() and not Path(f"/proc/{record['pid']}").exists()
    alive = not record["released"] and not gone and age <= float(record["lease_s"])
    return {"host": record["host"], "pid": record["pid"], "fence": fence, "last_sign_of_life_s": round(age, 1), "released": record["released"], "alive": alive}


def state(owner: dict[str, Any] | None, ended: dict[str, Any] | None, now: float) -> str:
    """One word for what is going on; a command that was told to stop may leave the lock behind, but says so after its last sign of life.

    Args:
        owner: of `owner_of`. ended: exit.json.
        now: seconds since 1970, the same that `owner_of` was told.
    """
    if owner and owner["alive"]:
        return "running"
    if owner and not owner["released"] and (ended is None or now - ended["ended_s"] > owner["last_sign_of_life_s"] + 0.1):
        return "died"
    return str(ended["name"]) if ended else "begun"


def _published(store: Storage) -> dict[str, Any] | None:
    """The manifest's totals, if there is a manifest."""
    if store.size(MANIFEST) is None:
        return None
    manifest = load_manifest(store)
    return {"pack": manifest["pack"], "shards": len(manifest["shards"]), **manifest["totals"]}


def text(told: dict[str, Any]) -> str:
    """The status for people."""
    owner, ended, published, videos = told["owner"], told["exit"], told["published"], told["videos"]
    age = told["last_commit_age_s"]
    head: dict[str, Any] = {
        "output": told["out"],
        "state": told["state"],
        **({"videos": f"{videos['ok']} ok, {videos['failed']} failed, {videos['duplicate']} duplicates"} if any(videos.values()) or told["inputs"] else {}),
        "clips": told["clips"],
        "last commit": "none yet" if age is None else f"{age:.0f} s ago, {told['segments']} segments",
    }
    if owner and not owner["released"]:
        head["held by"] = f"process {owner['pid']} on {owner['host']}, last sign of life {owner['last_sign_of_life_s']:.0f} s ago"
    if ended:
        head["last ended"] = f"{ended['reason']} (exit code {ended['code']})"
    if ended and ended["resume_command"] and told["state"] != "running":
        head["resume with"] = ended["resume_command"]
    if published:
        size = f"{published['hours']} h" if "hours" in published else f"{published['bytes'] / 1e6:.1f} MB of latents"
        head["published"] = f"{published['clips']} clips, {size}, {published['shards']} shards (pack {published['pack']})"
    stages = [(s["stage"], s["in"], s["kept"], s["rejected"], s["failed"]) for s in told["stages"]]
    reasons = [(s["stage"], reason, n) for s in told["stages"] for reason, n in s["reasons"].items()]
    asked = [(prompt, answer, n) for prompt, counts in told["answers"].items() for answer, n in counts.items()]
    parts = [
        terminal.facts(head),
        terminal.table("stages", ("stage", "in", "kept", "rejected", "failed"), stages),
        terminal.table("why clips were rejected or failed", ("stage", "reason", "clips"), reasons),
        terminal.table("questions to the model", ("prompt", "answer", "questions"), asked),
        terminal.table("failed videos", ("error", "videos"), told["failed"].items()),
        terminal.table("damaged ledger segments (run the same command again)", ("segment",), [(name,) for name in told["damaged_segments"]]),
    ]
    return "\n\n".join(part for part in parts if part)
