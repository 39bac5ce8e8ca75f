"""Outcome: what a run made of its videos under the recipe's present thresholds, and the clips that show it best."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from curation.clips import one_line
from curation.ledger import FrozenLedger
from curation.storage import Storage
from filters.base import Rule
from pipelines.judge import Verdicts, funnel, judge_ledger
from pipelines.recipe import Recipe, loads
from pipelines.report_page import Step, number
from pipelines.run import RESOLVED, resolved

#: Reasons that no threshold on a score gives, and where they come from.
UNRULED = {
    "too_short": "a shot shorter than split.min_chunks",
    "remainder": "what a shot has left when it is cut to the grid of 40 frames at 16 per second",
    "transition": "frames of a dissolve, fade or wipe",
    "video_failed": "its video could not be decoded to the end",
}


@dataclass(frozen=True)
class Outcome:
    """A finished output: its ledger and recipe, and what the recipe's thresholds say of each clip."""

    ledger: FrozenLedger
    recipe: Recipe
    clips: pa.Table
    videos: pa.Table
    verdicts: Verdicts

    @property
    def name(self) -> str:
        """The output as one would type it."""
        root = self.ledger.out.root
        return min((root, os.path.relpath(root)), key=len) if self.ledger.out.local else root

    def rules(self) -> list[Rule]:
        """The recipe's rules."""
        return [rule for entry in self.recipe.entries() for rule in entry.rules]

    def kept(self) -> list[int]:
        """Row numbers of the kept clips."""
        return [i for i, (r, m) in enumerate(zip(self.verdicts.reasons, self.verdicts.lacks, strict=True)) if not r and not m]


def outcome(out: str | os.PathLike[str] | Storage) -> Outcome:
    """Reads an output of `pan curate`.

    Raises:
        ValueError: it is none.
    """
    store = Storage.at(out)
    recipe = loads(resolved(store), f"{store.root}/{RESOLVED}")
    ledger = FrozenLedger.read(store)
    clips, videos = ledger.clips(), ledger.videos()
    return Outcome(ledger, recipe, clips, videos, judge_ledger(ledger, recipe.entries(), recipe.dedup))


def funnel_of(found: Outcome) -> list[Step]:
    """The funnel under the present thresholds."""
    return [Step(s.stage, s.given, s.kept, s.rejected, s.failed) for s in funnel(found.clips, found.videos, found.verdicts).active()]


def reason_counts(found: Outcome) -> list[tuple[str, int]]:
    """Reasons, the most frequent first."""
    counts = Counter(reason for reasons in found.verdicts.reasons for reason in reasons)
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def choose_kept(found: Outcome, most: int) -> list[tuple[dict[str, Any], list[str]]]:
    """At most `most` kept clips, first one of each video, then the second of each; no reasons beside them."""
    turn: Counter[str] = Counter()
    ranked = []
    for i in found.kept():
        video = found.clips["video_id"][i].as_py()
        ranked.append((turn[video], i))
        turn[video] += 1
    return [(_row(found, i), []) for _, i in sorted(ranked)[:most]]


def choose_rejected(found: Outcome, most: int) -> list[tuple[dict[str, Any], list[str]]]:
    """At most `most` rejected clips, each with its reasons and the values that decided: one for each reason, then a second for each."""
    queues: dict[str, list[int]] = {name: [] for name, _ in reason_counts(found)}
    for i, reasons in enumerate(found.verdicts.reasons):
        if reasons:
            queues[min(reasons, key=lambda r: (len(queues[r]), r))].append(i)
    chosen: list[int] = []
    while len(chosen) < most and any(queues.values()):
        for queue in queues.values():
            chosen += [queue.pop(0)] if queue and len(chosen) < most else []
    return [(row := _row(found, i), [explain(reason, row, found.rules()) for reason in found.verdicts.reasons[i]]) for i in chosen]


def explain(reason: str, row: Mapping[str, Any], rules: Sequence[Rule]) -> str:
    """One reason with the value and the threshold that decided, such as "static: motion_flow 0.004 is below 0.022"."""
    decided = [
        f"{r.score} {number(row[r.score])} is {side_of(r)}" for r in rules if r.reason == reason and row.get(r.score) is not None and r.judge(row[r.score])
    ]
    if decided:
        return f"{reason}: {', '.join(decided)}"
    if reason == row["error_code"]:
        return one_line(f"{reason}: {row['error_detail'] or 'no detail'}", 300)
    return f"{reason}: the piece is {row['end_s'] - row['start_s']:.2f} s long" if reason in UNRULED else reason


def side_of(rule: Rule) -> str:
    """Where a value lies that the rule rejects."""
    return f"below {number(rule.low)}" if rule.low is not None else f"above {number(rule.high or 0.0)}"


def _row(found: Outcome, i: int) -> dict[str, Any]:
    row: dict[str, Any] = found.clips.slice(i, 1).to_pylist()[0]
    return row
