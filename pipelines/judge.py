"""Judge: the recipe's rules over the ledger's scores; says of each clip kept, rejected and why, or which stages it still lacks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.dedup import DedupConfig, Member, rejected
from curation.dedup import find as duplicates_among
from curation.ledger import FrozenLedger
from filters.base import Entry, Rule
from pipelines.funnel import Funnel, count

#: Every stage that a kept clip has passed, in the stream's order. Filter stages without an enabled filter do nothing.
STAGES = ("rules", "detectors", "content", "caption", "cut")


@dataclass(frozen=True)
class Verdicts:
    """One verdict a clip row, aligned with the judged table.

    Attributes:
        clip_ids: the rows' ids.
        reasons: why each is rejected, in the rules' order; empty = not rejected.
        lacks: the stages each would still have to pass before it can be kept; empty for a rejected clip.
        fell_at: the stage whose rules reject it; None if it is kept, or fell by what no threshold changes.
        duplicates: the groups among the clips that the rules keep; None where they were not looked for.
    """

    clip_ids: list[str]
    reasons: list[list[str]]
    lacks: list[list[str]]
    fell_at: list[str | None]
    duplicates: tuple[Member, ...] | None = None

    def kept(self) -> list[str]:
        """Ids of clips that nothing rejects and that lack nothing."""
        return [c for c, r, m in zip(self.clip_ids, self.reasons, self.lacks, strict=True) if not r and not m]

    def pending(self) -> dict[str, list[str]]:
        """Ids of clips that nothing rejects so far, with the stages they lack."""
        return {c: m for c, r, m in zip(self.clip_ids, self.reasons, self.lacks, strict=True) if not r and m}


def judge(clips: pa.Table, entries: Sequence[Entry], failed_videos: frozenset[str] = frozenset()) -> Verdicts:
    """Verdicts on the ledger's clip rows under the thresholds of `entries`.

    What the splitter and failed stages said stands. What a rule once said is said again from the scores, stage by stage as in the
    stream: a clip that the cheap rules reject is not asked what the detectors, which never saw it, would say.

    Args:
        clips: rows of kind "clip", as FrozenLedger gives them.
        entries: the recipe's enabled filters with its thresholds.
        failed_videos: ids of videos whose decoding failed; their clips are rejected as "video_failed".
    """
    ids = clips["clip_id"].to_pylist()
    done = [frozenset(s) for s in clips["stages"].to_pylist()]
    reasons = _unruled(clips, done, failed_videos)
    lacks: list[list[str]] = [[] for _ in ids]
    fell_at: list[str | None] = [None] * len(ids)
    for stage in STAGES:
        rules = [rule for entry in entries if entry.stage == stage for rule in entry.rules]
        if stage not in ("caption", "cut") and not rules:
            continue
        said = _rule_reasons(clips, rules)
        for i, passed in enumerate(done):
            if reasons[i]:
                continue
            if stage not in passed:
                lacks[i].append(stage)
            elif said[i]:
                reasons[i], fell_at[i] = said[i], stage
    return Verdicts(ids, reasons, [[] if r else m for r, m in zip(reasons, lacks, strict=True)], fell_at)


def judge_ledger(ledger: FrozenLedger, entries: Sequence[Entry], dedup: DedupConfig | None = None) -> Verdicts:
    """Verdicts on all clips of a ledger; those of a video that failed, or whose own row never came, are "video_failed".

    With `dedup` enabled, what the rules keep is then judged among itself: all of a group but its best are "near_duplicate".
    """
    videos, clips = ledger.videos(), ledger.clips()
    good = {v for v, status in zip(videos["video_id"].to_pylist(), videos["status"].to_pylist(), strict=True) if status == "ok"}
    found = judge(clips, entries, frozenset(clips["video_id"].to_pylist()) - good)
    return _without_duplicates(clips, found, dedup) if dedup is not None and dedup.enabled else found


def _without_duplicates(clips: pa.Table, found: Verdicts, config: DedupConfig) -> Verdicts:
    kept = set(found.kept())
    names = [n for n in ("clip_id", "video_id", "width", "height", "quality_brisque", "embedding", "content_sha256") if n in clips.column_names]
    members = duplicates_among(clips.filter(pa.array([c in kept for c in found.clip_ids], pa.bool_())).select(names), config)
    out = rejected(members, config)
    reasons = [list(out.get(clip, said)) if clip in kept else said for clip, said in zip(found.clip_ids, found.reasons, strict=True)]
    fell_at = ["dedup" if clip in out else stage for clip, stage in zip(found.clip_ids, found.fell_at, strict=True)]
    return Verdicts(found.clip_ids, reasons, found.lacks, fell_at, tuple(members))


def funnel(clips: pa.Table, videos: pa.Table, verdicts: Verdicts) -> Funnel:
    """The clips' way through the stages under these verdicts: a clip leaves at the first stage that rejects it, though it may once have passed more."""
    ways = []
    kept = set(verdicts.kept()) if verdicts.duplicates is not None else set()
    for clip, passed, stage in zip(verdicts.clip_ids, clips["stages"].to_pylist(), verdicts.fell_at, strict=True):
        if stage == "dedup" or clip in kept:
            ways.append([*passed, "dedup"])
        else:
            ways.append(passed if stage is None else [s for s in passed if s not in STAGES or STAGES.index(s) <= STAGES.index(stage)])
    columns = {"reject": verdicts.reasons, "stages": ways}
    judged = clips.select(["kind", "status", "error_code"])
    for name, values in columns.items():
        judged = judged.append_column(name, pa.array(values, pa.list_(pa.string())))
    return count([judged, videos])


def _unruled(clips: pa.Table, done: list[frozenset[str]], failed_videos: frozenset[str]) -> list[list[str]]:
    """Reasons that no threshold changes: too short, a remainder, a failed stage, a failed video."""
    columns = (clips[name].to_pylist() for name in ("reject", "status", "error_code", "video_id"))
    found = []
    for passed, reject, status, code, video in zip(done, *columns, strict=True):
        if status != "ok":
            found.append([code or status])
        elif reject and not passed & set(STAGES):
            found.append(list(reject))
        elif video in failed_videos:
            found.append(["video_failed"])
        else:
            found.append([])
    return found


def _rule_reasons(clips: pa.Table, rules: Sequence[Rule]) -> list[list[str]]:
    """What the rules of one stage say of each row; a score that is null rejects as "not_measured:…"."""
    said: list[list[str]] = [[] for _ in range(clips.num_rows)]
    for rule in rules:
        values = _floats(clips, rule.score)
        bad = np.isnan(values)
        outside = values < rule.low if rule.low is not None else values > (np.inf if rule.high is None else rule.high)
        for i in np.flatnonzero(bad | outside):
            reason = f"not_measured:{rule.score}" if bad[i] else rule.reason
            if reason not in said[i]:
                said[i].append(reason)
    return said


def _floats(clips: pa.Table, name: str) -> npt.NDArray[np.float64]:
    """A score column as float64 with NaN where it was not measured (or no stage has ever measured it)."""
    if name not in clips.column_names:
        return np.full(clips.num_rows, np.nan)
    column = pc.fill_null(clips[name].cast(pa.float64()), float("nan"))
    values: npt.NDArray[np.float64] = np.asarray(column.to_numpy(), np.float64)
    return np.where(np.isfinite(values), values, np.nan)
