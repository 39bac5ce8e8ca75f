"""Train status: how far a training has come, told from its folder alone, while it works and after it died."""

import json
import time
from pathlib import Path
from typing import Any

from curation.storage import Storage
from pipelines import terminal
from pipelines.run import EXIT
from pipelines.status import owner_of, state

IDENTITY, LOG, MARKERS = "run.json", "log.jsonl", "snapshots/step_*/COMMITTED"


def is_run(out: str) -> bool:
    """Whether the folder is a run of `pan train`."""
    return "://" not in out and (Path(out) / IDENTITY).is_file()


def status(out: str, now: float | None = None) -> dict[str, Any]:
    """Phase, last step and its line, checkpoints, who holds the folder, and how the last command ended.

    Raises:
        ValueError: `out` is no run of `pan train`.
    """
    folder, store, now = Path(out), Storage.at(out), time.time() if now is None else now
    if not is_run(out):
        raise ValueError(f"{out} is no run of `pan train`: it has no {IDENTITY}")
    told, last = json.loads((folder / IDENTITY).read_text("utf-8")), _last(folder / LOG)
    steps = [json.loads(marker.read_text("utf-8"))["step"] for marker in sorted(folder.glob(MARKERS))]
    ended = json.loads(store.read(EXIT)) if store.size(EXIT) is not None else None
    owner = owner_of(store, now)
    return {
        "out": str(out),
        "state": state(owner, ended, now),
        "phase": told["phase"],
        "shards": told["shards"],
        "step": last.get("step"),
        "line": last.get("line") or None,
        "last_sign_age_s": round(now - last["time"], 1) if last else None,
        "checkpoints": steps,
        "model": str(folder / "model") if (folder / "model").is_dir() else None,
        "owner": owner,
        "exit": ended,
    }


def _last(log: Path) -> dict[str, Any]:
    """The log's last whole line that says something to people; {} if there is none."""
    texts = log.read_text("utf-8").splitlines() if log.is_file() else []
    entries = (json.loads(text) for text in reversed(texts) if text.endswith("}"))
    found: dict[str, Any] = next((entry for entry in entries if entry["line"]), {})
    return found


def text(told: dict[str, Any]) -> str:
    """The status for people."""
    owner, ended = told["owner"], told["exit"]
    head: dict[str, Any] = {"run": told["out"], "state": told["state"], "phase": told["phase"], "shards": told["shards"]}
    head["last line"] = "none yet" if told["line"] is None else f"{told['line']}  ({told['last_sign_age_s']:.0f} s ago)"
    head["checkpoints"] = ", ".join(f"step {step}" for step in told["checkpoints"]) or "none yet"
    if told["model"]:
        head["trained model"] = told["model"]
    if owner and not owner["released"]:
        head["held by"] = f"process {owner['pid']} on {owner['host']}, last sign of life {owner['last_sign_of_life_s']:.0f} s ago"
    if ended and told["state"] not in ("running", "died"):
        head["last ended"] = f"{ended['reason']} (exit code {ended['code']})"
        if ended["resume_command"]:
            head["resume with"] = ended["resume_command"]
    return terminal.facts(head)
