"""Thresholds chosen on some videos and judged on others: every rule's threshold, by coordinate search over all scores of all clips."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from quality_figures import Bool, Matched

from filters.base import Entry, Rule

STAGES = ("rules", "detectors")
CANDIDATES, ROUNDS = 24, 2


@dataclass(frozen=True)
class Targets:
    """What the figures should reach. Reasons that these filters own, vices that they should find."""

    kept: float
    right: float
    dropped: float
    reasons: tuple[str, ...]
    vices: tuple[str, ...]

    def misses(self, figures: Mapping[str, Any]) -> float:
        """How far the figures are from the targets, summed; less is better. A thousandth of each figure itself breaks ties."""
        pairs = [(figures[name], self.kept) for name in ("good_shots", "good_kept", "still", "moving")]
        pairs += [(figures["precision"].get(reason, {}).get("right"), self.right) for reason in self.reasons]
        pairs += [(figures["recall"].get(vice, {}).get("dropped"), self.dropped) for vice in self.vices]
        known = [(value, target) for value, target in pairs if value is not None]
        bad = figures["bad_kept"] or 0.0
        return float(sum(max(0.0, target - value) for value, target in known) + 0.2 * bad - 0.001 * sum(value for value, _ in known))


class Verdicts:
    """Verdicts under any thresholds on clips whose scores are all known; stage by stage, as in the stream.

    Args:
        matched: the clips beside their labels.
        entries: the filters; their rules' bounds are the first thresholds.
        rows: the clips' rows aligned with `matched.clips`: every score column, and `reject` with the splitter's own reasons.
    """

    def __init__(self, matched: Matched, entries: Sequence[Entry], rows: Sequence[Mapping[str, Any]], stands_for: Mapping[str, Sequence[str]]) -> None:
        self.matched, self.stands_for = matched, stands_for
        self.rules: list[tuple[str, str, Rule]] = [(e.stage, f"{e.name}.{r.key}", r) for e in entries for r in e.rules]
        self.split = {reason: np.array([reason in row["reject"] for row in rows], bool) for reason in sorted({x for row in rows for x in row["reject"]})}
        self.dead: Bool = np.array([bool(row["reject"]) for row in rows], bool)
        values = {rule.score: [row.get(rule.score) for row in rows] for _, _, rule in self.rules}
        self.values = {name: np.array([np.nan if v is None else v for v in column], float) for name, column in values.items()}

    def bounds(self) -> dict[str, float]:
        """The entries' own thresholds, "filter.key"."""
        return {name: float(rule.low if rule.low is not None else rule.high) for _, name, rule in self.rules}  # type: ignore[arg-type]

    def outside(self, rule: Rule, bound: float) -> Bool:
        """Clips that the rule rejects with this bound; a score that was not measured rejects."""
        values = self.values[rule.score]
        outside: Bool = np.isnan(values) | (values < bound if rule.low is not None else values > bound)
        return outside

    def judge(self, bounds: Mapping[str, float]) -> tuple[Bool, dict[str, Bool]]:
        """(kept, clips a reason)."""
        said, rejected = {reason: where.copy() for reason, where in self.split.items()}, self.dead.copy()
        for stage in STAGES:
            before = rejected.copy()
            for where, name, rule in self.rules:
                if where == stage:
                    out = self.outside(rule, bounds[name]) & ~before
                    said[rule.reason] = said.get(rule.reason, np.zeros_like(out)) | out
                    rejected |= out
        return ~rejected, said

    def figures(self, bounds: Mapping[str, float], only: Bool | None = None) -> dict[str, Any]:
        """The scorer's figures under these thresholds on the shots `only`."""
        return self.matched.figures(*self.judge(bounds), self.stands_for, only)

    def choose(self, only: Bool, targets: Targets) -> dict[str, float]:
        """Thresholds by coordinate search on the shots `only`, begun with every rule off.

        Each rule in turn takes the best of `CANDIDATES` bounds spread over its score's values there, or stays off; the middle one of equally
        good neighbours, which is where other videos have most room.
        """
        clips = only[self.matched.main] & ~self.dead
        bounds = {name: -np.inf if rule.low is not None else np.inf for _, name, rule in self.rules}
        for _ in range(ROUNDS):
            for _, name, rule in self.rules:
                tries = [*_spread(self.values[rule.score][clips]), bounds[name], -np.inf if rule.low is not None else np.inf]
                tries = sorted(set(tries))
                costs = np.array([targets.misses(self.figures({**bounds, name: b}, only)) for b in tries])
                best = np.flatnonzero(costs <= costs.min() + 1e-9)
                bounds[name] = tries[int(best[len(best) // 2])]
        return bounds


def _spread(values: npt.NDArray[np.float64]) -> list[float]:
    """Up to `CANDIDATES` bounds between the values, evenly spread over their ranks."""
    known = np.unique(values[np.isfinite(values)])
    middles = (known[1:] + known[:-1]) / 2
    return [float(x) for x in middles[np.unique(np.linspace(0, len(middles) - 1, CANDIDATES).astype(int))]] if len(middles) else []


def left_out(verdicts: Verdicts, groups: Sequence[int], targets: Targets) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """Figures in which each shot's clips are judged by thresholds chosen without its group; and those thresholds, a group.

    Args:
        groups: a group a shot, aligned with `verdicts.matched.shots`; shots of one source must share one.
    """
    matched, of_shot = verdicts.matched, np.array(groups)
    kept, said, chosen = np.zeros(len(matched.clips), bool), dict[str, Bool](), []
    for group in sorted(set(groups)):
        bounds = verdicts.choose(of_shot != group, targets)
        mine, (fold_kept, fold_said) = of_shot[matched.main] == group, verdicts.judge(bounds)
        kept |= fold_kept & mine
        for reason, where in fold_said.items():
            said[reason] = said.get(reason, np.zeros_like(kept)) | (where & mine)
        chosen.append(bounds)
    return matched.figures(kept, said, verdicts.stands_for), chosen
