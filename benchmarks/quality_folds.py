"""Thresholds chosen on some videos and judged on others: every rule's threshold, where it makes the fewest mistakes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from quality_figures import Bool, Matched

from filters.base import Entry, Rule

STAGES = ("rules", "detectors")
CANDIDATES, ROUNDS = 60, 2
WRONG = 9.0
"""Right rejections that one wrong one outweighs: the target is that nine of ten are right."""


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

    def choose(self, only: Bool) -> dict[str, float]:
        """Thresholds on the shots `only`, begun with every rule off: each rule in turn, twice.

        A rule's bound is the one with the fewest mistakes, shot by shot: good footage that it rejects (`WRONG` times), and footage with a
        vice that its reason stands for which neither it nor another rule rejects. Vices of others earn it nothing: with as many rules as
        these and so few videos, a search for the targets themselves fits chance. Of the longest run of equally good bounds it takes the
        middle, where other videos have most room; a rule without labelled vices to find stays off.
        """
        clips = only[self.matched.main] & ~self.dead
        share = clips / np.maximum(np.bincount(self.matched.main[clips], minlength=len(only)), 1)[self.matched.main]
        good = share * self.matched.good[self.matched.main]
        bounds = {name: -np.inf if rule.low is not None else np.inf for _, name, rule in self.rules}
        out = {name: self.outside(rule, bounds[name]) for _, name, rule in self.rules}
        for _ in range(ROUNDS):
            for _, name, rule in self.rules:
                vices = [rule.reason] if rule.reason in self.matched.vices else self.stands_for[rule.reason]
                bearing = [self.matched.vices[v] for v in vices if v in self.matched.vices]
                bears = share * (np.any(bearing, axis=0)[self.matched.main] if bearing else 0.0)
                others = np.any([o for n, o in out.items() if n != name], axis=0)
                tries = sorted([*_spread(self.values[rule.score][clips]), -np.inf if rule.low is not None else np.inf])
                found = [self.outside(rule, b) & ~others for b in tries]
                costs = np.array([WRONG * (good * f).sum() - (bears * f).sum() for f in found])
                bounds[name] = tries[_middle(costs <= costs.min() + 1e-9)]
                out[name] = self.outside(rule, bounds[name])
        return bounds


def _middle(good: Bool) -> int:
    """The middle of the longest run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], good, [False]]).astype(int)))
    first, last = max(zip(edges[::2], edges[1::2], strict=True), key=lambda run: run[1] - run[0])
    return int((first + last - 1) // 2)


def _spread(values: npt.NDArray[np.float64]) -> list[float]:
    """Up to `CANDIDATES` bounds between the values, evenly spread over their ranks."""
    known = np.unique(values[np.isfinite(values)])
    middles = (known[1:] + known[:-1]) / 2
    return [float(x) for x in middles[np.unique(np.linspace(0, len(middles) - 1, CANDIDATES).astype(int))]] if len(middles) else []


def left_out(verdicts: Verdicts, groups: Sequence[int]) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """Figures in which each shot's clips are judged by thresholds chosen without its group; and those thresholds, a group.

    Args:
        groups: a group a shot, aligned with `verdicts.matched.shots`; shots of one source must share one.
    """
    matched, of_shot = verdicts.matched, np.array(groups)
    kept, said, chosen = np.zeros(len(matched.clips), bool), dict[str, Bool](), []
    for group in sorted(set(groups)):
        bounds = verdicts.choose(of_shot != group)
        mine, (fold_kept, fold_said) = of_shot[matched.main] == group, verdicts.judge(bounds)
        kept |= fold_kept & mine
        for reason, where in fold_said.items():
            said[reason] = said.get(reason, np.zeros_like(kept)) | (where & mine)
        chosen.append(bounds)
    return matched.figures(kept, said, verdicts.stands_for), chosen
