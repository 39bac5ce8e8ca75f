"""Explain: one clip's way through the stream: each stage, each rule with its value and threshold, and what decided."""

from collections.abc import Iterator
from typing import Any

from curation.clips import one_line
from filters.base import Entry
from pipelines import terminal
from pipelines.inspect_shards import clip_row
from pipelines.judge import STAGES
from pipelines.outcome import Outcome, outcome


def explanation(found: Outcome, clip_id: str) -> dict[str, Any]:
    """The decision trace of one clip under the output's present thresholds.

    Raises:
        ValueError: no such clip.
    """
    row = clip_row(found, clip_id)
    stages = [_split(row), *(_stage(name, row, found) for name in STAGES)]
    state = "kept" if row["kept"] else "rejected" if row["reasons"] else "pending"
    places = ("clip_id", "video_uri", "video_id", "clip_index", "start_s", "end_s", "chunks", "split", "shard")
    failure = {name: row[name] for name in ("status", "error_code", "error_detail")}
    return {**{name: row[name] for name in places}, "state": state, "reasons": row["reasons"], "lacks": row["lacks"], **failure, "stages": stages}


def _split(row: dict[str, Any]) -> dict[str, Any]:
    """What the splitter made of the clip."""
    refused = [reason for reason in row["reasons"] if not row["stages"] or not set(row["stages"]) & set(STAGES)]
    said = "failed" if row["status"] != "ok" and not row["stages"] else "rejected" if refused and row["status"] == "ok" else "kept"
    return {"stage": "split", "did": said, "rules": []}


def _stage(name: str, row: dict[str, Any], found: Outcome) -> dict[str, Any]:
    """What one stage said, or that the clip never came there."""
    entries = found.recipe.entries(name) if name not in ("caption", "cut") else ()
    if name not in row["stages"]:
        if name == _failed_at(row, found):
            return {"stage": name, "did": f"failed: {row['error_code']}", "rules": []}
        return {"stage": name, "did": "did not run on this clip" if entries or name in ("caption", "cut") else "has no enabled filter", "rules": []}
    rules = [rule for entry in entries for rule in _rules(entry, row)]
    return {"stage": name, "did": "rejected" if any(rule["verdict"] != "pass" for rule in rules) else "kept", "rules": rules}


def _failed_at(row: dict[str, Any], found: Outcome) -> str | None:
    """The stage that a failed row failed in: the first with work to do whose name it does not bear."""
    if row["status"] == "ok" or not row["stages"]:
        return None
    working = [name for name in STAGES if name in ("caption", "cut") or found.recipe.entries(name)]
    return next((name for name in working if name not in row["stages"]), None)


def _rules(entry: Entry, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Each rule of one filter on this clip."""
    units = {f"{entry.name}_{score}": unit for score, unit in entry.scores.items()}
    for rule in entry.rules:
        value = row.get(rule.score)
        reason = rule.judge(value)
        yield {
            "key": f"filters.{entry.name}.{rule.key}",
            "score": rule.score,
            "value": value,
            "unit": units.get(rule.score, ""),
            "must_be": "at least" if rule.low is not None else "at most",
            "threshold": rule.low if rule.low is not None else rule.high,
            "verdict": "pass" if reason is None else "not measured" if reason.startswith("not_measured:") else "fail",
            "reason": reason,
        }


def text(told: dict[str, Any]) -> str:
    """The trace for people."""
    span = f"{told['start_s']:.2f} to {told['end_s']:.2f} s of {told['video_uri']}"
    head: dict[str, Any] = {"clip": told["clip_id"], "from": span, "verdict": told["state"]}
    if told["reasons"]:
        head["reasons"] = told["reasons"]
    if told["status"] != "ok":
        head["fault"] = f"{told['error_code']}: {told['error_detail'] or ''}"
    if told["lacks"]:
        head["still lacks"] = told["lacks"]
    if told["shard"]:
        head["shard"] = f"{told['split']}/{told['shard']}"
    rows = [
        (stage["stage"], rule["key"].removeprefix("filters."), rule["value"], f"{rule['must_be']} {terminal.cell(rule['threshold'])}", _said(rule))
        for stage in told["stages"]
        for rule in stage["rules"]
    ]
    ways = "\n".join(f"  {stage['stage']:<10} {one_line(stage['did'])}" for stage in told["stages"])
    return "\n\n".join([terminal.facts(head), ways, terminal.table("", ("stage", "rule", "value", "must be", "verdict"), rows)]).rstrip()


def _said(rule: dict[str, Any]) -> str:
    return "pass" if rule["verdict"] == "pass" else f"{rule['verdict']}: {rule['reason']}"


def report(out: str, clip_id: str) -> tuple[dict[str, Any], str]:
    """What `pan explain OUT CLIP` says, as a dict and as text.

    Raises:
        ValueError: no output of ours, or no such clip.
    """
    told = explanation(outcome(out), clip_id)
    return told, text(told)
