"""Thresholds chosen on some videos and judged on others: bounds by meaning, and the few that labelled and made vices can determine.

A search over every rule's bound fits chance: the labels have three to eight clips of a vice. So most bounds stand where their meaning puts them (`MEANT`:
they take part in no choice, and cannot fit), and only the `DIALS` are set, each on its own scores, vices and good footage alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from made_vices import Made
from quality_figures import Bool, Matched

from filters.base import Entry, Rule

F64 = npt.NDArray[np.float64]
STAGES = ("rules", "detectors")
TRIES = 400
WRONG = 9.0
"""Right rejections that one wrong one outweighs: the target is that nine of ten are right."""
MADE = 8.0
"""Labelled shots that all made vices of a dial weigh as much as: about as many as the labels have of a common vice."""
SPREAD = 0.25
"""Width of a score, in log odds (or log): a clip like this one may well score a quarter more or less. Smooths what would be a count of steps."""
DOUBT = 0.05
"""Share of the good shots that may be called static, pan or zoom with as good a right: the labels' own estimate of their error on motion is 5 to 10 %."""


@dataclass(frozen=True)
class Dial:
    """Rules that share one bound, and what that bound is chosen by.

    Attributes:
        rules: "filter.key" each; a clip's score is the worst of theirs.
        vices: label reasons that it is to find.
        made: kinds of made vices that it is to find.
        doubt: share of the good shots, those deepest among the vices, that are not counted.
    """

    rules: tuple[str, ...]
    vices: tuple[str, ...]
    made: tuple[str, ...] = ()
    doubt: float = 0.0


DIALS: tuple[Dial, ...] = (
    Dial(("camera.still_high",), ("static", "lecture_slides", "screen_recording"), ("frozen picture", "two slides"), DOUBT),
    # One bound for both: what a moving camera leaves of a dead scene by parallax and lens does not ask how it moves.
    Dial(("camera.pan_high", "camera.zoom_high"), ("uniform_pan", "uniform_zoom"), ("pan over a picture", "zoom over a picture"), DOUBT),
    Dial(("scene_text.subtitle_high",), ("subtitles",), ("subtitles",)),
    Dial(("scene_text.overlay_high",), ("overlay_text_large",), ("banner",)),
    Dial(
        ("scene_text.persistent_high",),
        ("subtitles", "overlay_text", "overlay_text_large", "text_dominated"),
        ("subtitles", "banner", "page of text"),
    ),
    Dial(("scene_text.area_high",), ("text_dominated",), ("page of text",)),
)

MEANT: Mapping[str, str] = {
    "motion.low": "twice what compression alone moves in a frozen picture",
    "motion.static_share_high": "nothing moves in seven of ten samples: slides",
    "motion.high": "more than the whole diagonal a second: no point of the picture is seen in more than a few frames",
    "motion.flicker_high": "a lamp that takes half of the light, once a second",
    "color.head_high": "two of the first second's four samples: one may be a flash",
    "color.tail_high": "as at the head",
    "color.anywhere_high": "a fifth of the clip",
    "quality.brisque_high": "near the end of its scale, of 0 to 100",
    "quality.sharpness_low": "the steepest edges rise by less than 6 % of full range a px: out of focus throughout",
    "quality.dark_high": "the share of a picture that makes it one colour",
    "quality.bright_high": "the share of a picture that makes it one colour",
    "scene_text.corner_high": "three times what a small corner logo covers",
}
"""Rules whose bound is its meaning, as the catalogue has it. Whoever wrote them down had seen these labels: what that gave away no fold can show."""

#: Scores that have no upper end: their scale is the logarithm; that of all others (a share, or `FULL`) the log odds.
UNBOUNDED = frozenset({"motion_flow", "motion_flicker", "quality_sharpness"})
FULL: Mapping[str, float] = {"quality_brisque": 100.0}
LEAST = 1e-3


def scaled(score: str, value: Any) -> F64:
    """A score on the scale on which equal steps mean equal factors."""
    if score in UNBOUNDED:
        return np.asarray(np.log(np.maximum(value, LEAST)), np.float64)
    share = np.clip(np.asarray(value, np.float64) / FULL.get(score, 1.0), LEAST, 1 - LEAST)
    return np.asarray(np.log(share / (1 - share)), np.float64)


def unscaled(score: str, value: float) -> float:
    """`scaled`'s inverse."""
    return float(np.exp(value)) if score in UNBOUNDED else FULL.get(score, 1.0) / (1 + float(np.exp(-value)))


def beyond(value: F64, bound: F64) -> F64:
    """Chance that a clip like one with this scaled score lies beyond the bound: 0.5 at it."""
    return np.asarray(1 / (1 + np.exp(np.clip((bound - value) / SPREAD, -60, 60))), np.float64)


class Verdicts:
    """Verdicts under any thresholds on clips whose scores are all known; stage by stage, as in the stream.

    Args:
        matched: the clips beside their labels.
        entries: the filters; their rules' bounds are the first thresholds.
        rows: the clips' rows aligned with `matched.clips`: every score column, and `reject` with the splitter's own reasons.
        stands_for: the label reasons that each reason stands for.
        made: made vices of any of the videos.
        dials: which bounds are chosen; those of other rules stay the entries' own.
    """

    def __init__(
        self,
        matched: Matched,
        entries: Sequence[Entry],
        rows: Sequence[Mapping[str, Any]],
        stands_for: Mapping[str, Sequence[str]],
        made: Sequence[Made] = (),
        dials: Sequence[Dial] = DIALS,
    ) -> None:
        self.matched, self.stands_for, self.made, self.dials = matched, stands_for, made, dials
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

    def catches(self, made: Made, bounds: Mapping[str, float]) -> bool:
        """Whether a made vice is rejected for its reason."""
        mine = [(name, rule) for _, name, rule in self.rules if rule.reason == made.reason]
        return any(made.scores[r.score] < bounds[n] if r.low is not None else made.scores[r.score] > bounds[n] for n, r in mine)

    def choose(self, only: Bool) -> dict[str, float]:
        """Thresholds on the shots `only`: the entries' own, and each dial where it costs least.

        A bound costs the good footage beyond it (`WRONG` times) and the footage with its vice before it, labelled (each shot counts once, all of its
        clips together) and made (from the videos of `only`; `MADE` shots' worth), each clip smeared over `SPREAD`. Between well separated
        scores that is the middle of the gap, moved towards the vices as good footage outnumbers them.
        """
        clips = only[self.matched.main] & ~self.dead
        share = clips / np.maximum(np.bincount(self.matched.main[clips], minlength=len(only)), 1)[self.matched.main]
        videos = {shot.video for shot, ours in zip(self.matched.shots, only, strict=True) if ours}
        bounds, known = self.bounds(), {name: rule for _, name, rule in self.rules}
        for dial in self.dials:
            rules = [known[name] for name in dial.rules if name in known]
            if rules and (worst := self._worst(dial, rules, clips, share, videos)):
                sign = -1.0 if rules[0].low is not None else 1.0
                bounds |= {name: unscaled(known[name].score, sign * worst.bound()) for name in dial.rules}
        return bounds

    def _worst(self, dial: Dial, rules: Sequence[Rule], clips: Bool, share: F64, videos: set[str]) -> "_Sides | None":
        """Good footage and vices with what they score at worst under `rules`; None where there is no vice to go by."""
        sign = -1.0 if rules[0].low is not None else 1.0
        worst = np.max([sign * scaled(rule.score, self.values[rule.score]) for rule in rules], axis=0)
        shot, fine = self.matched.main, clips & ~np.isnan(worst)
        bears = np.any([self.matched.vices[v] for v in dial.vices if v in self.matched.vices] or [np.zeros_like(self.matched.good)], axis=0)
        good, bad = fine & self.matched.good[shot], fine & (bears & self.matched.bad_shot)[shot]
        made = [max(float(sign * scaled(r.score, m.scores[r.score])) for r in rules) for m in self.made if m.kind in dial.made and m.video in videos]
        vice, weight = np.concatenate([worst[bad], made]), np.concatenate([share[bad], np.full(len(made), MADE / max(len(made), 1))])
        return _Sides(worst[good], without(worst[good], share[good], dial.doubt), vice, weight) if len(vice) and good.any() else None


@dataclass(frozen=True)
class _Sides:
    """Scaled scores (the higher the worse) and weights of good footage and of vices."""

    good: F64
    good_weight: F64
    vice: F64
    vice_weight: F64

    def bound(self) -> float:
        """Where it costs least (`Verdicts.choose`)."""
        every = np.concatenate([self.good, self.vice])
        tries = np.linspace(every.min() - SPREAD, every.max() + SPREAD, TRIES)
        lost = (self.good_weight[:, None] * beyond(self.good[:, None], tries)).sum(axis=0)
        missed = (self.vice_weight[:, None] * (1 - beyond(self.vice[:, None], tries))).sum(axis=0)
        return float(tries[int(np.argmin(WRONG * lost + missed))])


def without(worst: F64, weight: F64, doubt: float) -> F64:
    """The weights less a share `doubt` of their sum, taken from the highest scores."""
    left, rest = doubt * float(weight.sum()), weight.astype(np.float64)
    for i in np.argsort(-worst):
        taken = min(left, float(rest[i]))
        rest[i], left = rest[i] - taken, left - taken
    return rest


@dataclass
class LeftOut:
    """What thresholds chosen without a group make of it, over all groups.

    Attributes:
        figures: the scorer's figures.
        chosen: thresholds a group.
        made: kind of made vice -> whether each was rejected for its reason.
    """

    figures: dict[str, Any]
    chosen: list[dict[str, float]] = field(default_factory=list)
    made: dict[str, list[bool]] = field(default_factory=dict)


def left_out(verdicts: Verdicts, groups: Sequence[int]) -> LeftOut:
    """Judges each shot's clips, and what was made of its video, by thresholds chosen without its group.

    Args:
        groups: a group a shot, aligned with `verdicts.matched.shots`; shots of one source must share one.
    """
    matched, of_shot, result = verdicts.matched, np.array(groups), LeftOut({})
    kept, said = np.zeros(len(matched.clips), bool), dict[str, Bool]()
    for group in sorted(set(groups)):
        bounds = verdicts.choose(of_shot != group)
        mine, (fold_kept, fold_said) = of_shot[matched.main] == group, verdicts.judge(bounds)
        kept |= fold_kept & mine
        for reason, where in fold_said.items():
            said[reason] = said.get(reason, np.zeros_like(kept)) | (where & mine)
        videos = {shot.video for shot, g in zip(matched.shots, groups, strict=True) if g == group}
        for made in verdicts.made:
            if made.video in videos:
                result.made.setdefault(made.kind, []).append(verdicts.catches(made, bounds))
        result.chosen.append(bounds)
    result.figures = matched.figures(kept, said, verdicts.stands_for)
    return result


def shaken(verdicts: Verdicts, bounds: Mapping[str, float], by: float = 1.5, draws: int = 200) -> dict[str, float]:
    """Mean good_shots and good_kept, and the share of draws with good_shots >= 0.92, when every bound is off by a random factor of up to `by`."""
    rng, found = np.random.default_rng(0), []
    for _ in range(draws):
        off = {n: unscaled(r.score, float(scaled(r.score, bounds[n])) + rng.uniform(-1, 1) * float(np.log(by))) for _, n, r in verdicts.rules}
        figures = verdicts.figures(off)
        found.append((figures["good_shots"], figures["good_kept"]))
    shots, kept = np.array(found, float).T
    return {"good_shots": float(shots.mean()), "good_kept": float(kept.mean()), "enough": float((shots >= 0.92).mean())}
