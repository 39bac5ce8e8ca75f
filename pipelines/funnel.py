"""The funnel: how many clips each stage was given, kept, rejected and failed, counted from ledger rows."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from curation.clips import RECAPTION

#: The stream's stages in order; "split" finds the clips, the others are named as in a row's `stages`; "dedup" judges the finished clips against one another.
ORDER = ("split", "rules", "detectors", "content", "caption", "cut", "dedup")


@dataclass
class StageCount:
    """What one stage did with the clips that it was given; given = kept + rejected + failed."""

    stage: str
    given: int = 0
    kept: int = 0
    rejected: int = 0
    failed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


@dataclass
class Funnel:
    """Counts of one run: videos by how they ended, and the clips' way through the stages.

    Attributes:
        videos: "ok", "failed", "duplicate" -> count; a video counts once its own row is in the ledger.
        errors: error code of a failed video -> count.
        stages: one count for every stage that did something, in the stream's order.
        seconds: decoded seconds of the videos that are done.
    """

    videos: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    stages: list[StageCount] = field(default_factory=lambda: [StageCount(name) for name in ORDER])
    clips: int = 0

    def add(self, rows: pa.Table) -> None:
        """Counts the rows of one ledger segment, whatever order segments come in."""
        columns = ("kind", "status", "error_code", "reject", "stages")
        for kind, status, code, reject, stages in zip(*(rows[c].to_pylist() for c in columns), strict=True):
            if kind == "video":
                self.videos[status] += 1
                if status == "failed":
                    self.errors[code or "unknown"] += 1
            else:
                self._add_clip(status, code, reject or [], set(stages or ()))

    def _add_clip(self, status: str, code: str | None, reject: list[str], passed: set[str]) -> None:
        self.clips += 1
        again = status != "ok" and RECAPTION in passed  # its new caption failed: there it fell, though it had once been cut
        through = [self.stages[0], *(s for s in self.stages[1:] if s.stage in passed and not (again and s.stage == "cut"))]
        for count in through[:-1]:
            count.given, count.kept = count.given + 1, count.kept + 1
        last = through[-1]
        if status != "ok" and not again and last is not self.stages[-1]:
            last.given, last.kept = last.given + 1, last.kept + 1
            later = self.stages[self.stages.index(last) + 1 :]
            last = next(s for s in later if s.given or s.stage != "content")  # the stage that failed did not write its name
        last.given += 1
        if status != "ok":
            last.failed += 1
            last.reasons[code or status] += 1
        elif reject:
            last.rejected += 1
            last.reasons.update(reject)
        else:
            last.kept += 1

    def active(self) -> list[StageCount]:
        """The stages that were given at least one clip."""
        return [s for s in self.stages if s.given]


def count(tables: Iterable[pa.Table]) -> Funnel:
    """The funnel of all `tables` of ledger rows."""
    funnel = Funnel()
    for table in tables:
        funnel.add(table)
    return funnel


#: Of an answer's record, whose keys are sorted; a quotation mark within a text is escaped, so that no text can look like a key.
RECORD = r'"prompt_version": "(?P<prompt>[^"\\]*)".*?"reason": (?:null|"(?P<reason>[^"\\]*)")'


def answer_counts(clips: pa.Table) -> dict[str, dict[str, int]]:
    """How the questions to a vision-language model ended: prompt version -> "answered", or why there is no answer (`vlm_refused`, ...) -> count.

    Counted from the records in the rows' `answers` (`curation.vlm.Answer.record`); {} where no model was asked.
    """
    found: dict[str, Counter[str]] = {}
    for chunk in pc.extract_regex(pc.list_flatten(clips["answers"]), RECORD).chunks:
        for prompt, reason in zip(*(chunk.field(name).to_pylist() for name in ("prompt", "reason")), strict=True):
            found.setdefault(prompt, Counter())[reason or "answered"] += 1
    return {prompt: dict(sorted(counts.items())) for prompt, counts in sorted(found.items())}
