"""Filter measures, Rule judges, Entry ties one filter to its rules; a score that is missing fails closed."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from curation.config import Config
from curation.frames import Frames


class Filter(Protocol):
    """Measures a clip. It never sees a threshold.

    `scores` maps each score's name (without the filter's own, which is put before it in the table) to its unit.
    A filter that gains from batches also offers `score_many(clips: Sequence[Frames]) -> list[dict[str, float]]`, and one that asks a
    model `score_asked(clips: Sequence[Frames], clip_ids: Sequence[str]) -> list[tuple[dict[str, float], list[str]]]`: scores, and the
    answers' records for the row's `answers`. Where a score is missing from the dict it is null, "not measured", and fails closed.
    """

    scores: ClassVar[Mapping[str, str]]

    def score(self, frames: Frames) -> dict[str, float]:
        """One finite float a name of `scores`; pure: the same frames give the same floats."""
        ...


@dataclass(frozen=True)
class Rule:
    """Rejects a clip for `reason` when its `score` lies outside [low, high], or was not measured.

    Attributes:
        key: the threshold's name in a recipe, within the filter's own table ("low" of filters.motion.low).
        score: column, "{filter}_{score}".
        low, high: the one bound that `key` sets; the other is None.
    """

    key: str
    score: str
    reason: str
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        if (self.low is None) == (self.high is None):
            raise ValueError(f"Rule {self.key!r} on {self.score}: exactly one of low and high must be set, got {self.low} and {self.high}")

    def judge(self, value: float | None) -> str | None:
        """The reason to reject, or None. A missing or non-finite value rejects as "not_measured:{score}"."""
        if value is None or not math.isfinite(value):
            return f"not_measured:{self.score}"
        outside = value < self.low if self.low is not None else value > self.high  # type: ignore[operator]
        return self.reason if outside else None


@dataclass(frozen=True)
class Entry:
    """One line of the catalogue: a filter, where it runs, and the rules that judge it.

    Attributes:
        name: the filter's name: its recipe table and its columns' prefix.
        stage: "rules" (CPU, cheap), "detectors" (networks), "content" (vision-language model); each runs only on what the one before kept.
        make: builds the filter, from `settings` where there are any; called once a worker, so that weights load there.
        scores: as the filter's own, repeated here so that reading the catalogue imports no model.
        settings: what else the filter can be told (back end, weights): keys of its recipe table beside the thresholds, and part of the plan. A
            field named `vlm` is not in the table: it gets the recipe's own `[vlm]`.
        enabled: whether it runs where a recipe says nothing.
    """

    name: str
    stage: Literal["rules", "detectors", "content"]
    make: Callable[..., Filter]
    scores: Mapping[str, str]
    rules: tuple[Rule, ...]
    settings: Config | None = None
    enabled: bool = True

    def build(self) -> Filter:
        """The filter."""
        return self.make() if self.settings is None else self.make(self.settings)

    def columns(self) -> list[str]:
        """The score columns, "{filter}_{score}"."""
        return [f"{self.name}_{score}" for score in self.scores]


def verdict(scores: Mapping[str, float | None], rules: Iterable[Rule]) -> list[str]:
    """All reasons to reject, each once, in the rules' order; empty = keep."""
    found = (rule.judge(scores.get(rule.score)) for rule in rules)
    return list(dict.fromkeys(reason for reason in found if reason))
