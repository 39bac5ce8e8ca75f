"""Report: what a run made of its videos, as report.html in the output and as a screenful of text at its end."""

import hashlib
import os
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from curation.clips import one_line
from curation.storage import Storage
from filters.base import Rule
from pipelines.outcome import UNRULED, Outcome, choose_kept, choose_rejected, funnel_of, outcome, reason_counts, side_of
from pipelines.report_page import Bound, Card, Histogram, Page, number, render

PAGE = "report.html"
VERSION = 1  # raise it when the page changes: old pages are then written again
KEPT_CARDS, REJECTED_CARDS, VIDEO_ROWS, BINS = 24, 12, 200, 40


def write_report(out: str | os.PathLike[str] | Storage) -> str:
    """Writes report.html into the output, one file that needs nothing else; returns its path. A page that already tells this outcome stays.

    Raises:
        ValueError: `out` is not an output of `pan curate`.
    """
    found = outcome(out)
    store, stamp = found.ledger.out, stamp_of(found)
    if store.size(PAGE) is None or stamp not in store.read(PAGE)[:1000].decode("utf-8", "replace"):
        store.replace(PAGE, render(page_of(found), stamp).encode())
    return store.path(PAGE)


def stamp_of(found: Outcome) -> str:
    """Sixteen hex digits of what the page depends on: the ledger's segments, the verdicts' settings, and the page's own version."""
    parts = [str(VERSION), found.recipe.to_toml(), *(segment.id for segment in found.ledger.segments), *found.ledger.damaged]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def end_report(out: str | os.PathLike[str] | Storage) -> str:
    """The run in some twenty-five lines of plain text: funnel, three kept clips, three rejected ones, where it lies, what to try next.

    Raises:
        ValueError: `out` is not an output of `pan curate`.
    """
    found = outcome(out)
    lines = [headline(found), ""]
    steps = funnel_of(found)
    lines += [f"  {'stage':<10}{'in':>7}{'kept':>7}{'rejected':>10}{'failed':>8}"] if steps else []
    lines += [f"  {s.stage:<10}{s.given:>7}{s.kept:>7}{s.rejected:>10}{s.failed:>8}" for s in steps]
    reasons = reason_counts(found)
    lines += ["", "rejected for: " + ", ".join(f"{name} {n}" for name, n in reasons[:8])] if reasons else []
    unused = Counter(found.videos["error_code"].drop_null().to_pylist())
    lines += ["videos not used: " + ", ".join(f"{name} {n}" for name, n in sorted(unused.items()))] if unused else []
    for title, rows in (("kept", choose_kept(found, 3)), ("rejected", choose_rejected(found, 3))):
        lines += ["", title] if rows else []
        for row, why in rows:
            lines.append(f"  {row['clip_id']}  {_base(row['video_uri'])}  {row['start_s']:.2f}-{row['end_s']:.2f} s")
            lines += [f"      {text}" for text in why or [one_line(row["caption"] or "", 240)]]
    lines += ["", f"output: {one_line(found.name)}   page: {one_line(found.name)}/{PAGE}", "next:"]
    return "\n".join([*lines, *(f"  {command}" for command in next_commands(found))])


def headline(found: Outcome) -> str:
    """Kept clips and seconds of all, and how the videos ended."""
    kept, total = found.kept(), found.clips.num_rows
    status = Counter(found.videos["status"].to_pylist())
    others = "".join(f", {n} {word}" for word, n in (("failed", status["failed"]), ("duplicate", status["duplicate"])) if n)
    pending = len(found.verdicts.pending())
    return (
        f"{len(kept)} of {total} clips kept ({_seconds(found, kept):.1f} s of {_seconds(found, range(total)):.1f} s), "
        f"from {found.videos.num_rows} videos{others}" + (f"; {pending} clips still lack stages" if pending else "")
    )


def page_of(found: Outcome) -> Page:
    """All that report.html says."""
    status = Counter(found.videos["status"].to_pylist())
    kept, rejected = choose_kept(found, KEPT_CARDS), choose_rejected(found, REJECTED_CARDS)
    facts = (
        ("clips kept", f"{len(found.kept())} of {found.clips.num_rows}"),
        ("seconds kept", f"{_seconds(found, found.kept()):.1f} of {_seconds(found, range(found.clips.num_rows)):.1f}"),
        ("videos", f"{found.videos.num_rows}"),
        ("failed", f"{status['failed']}"),
        ("duplicates", f"{status['duplicate']}"),
        ("captions by", ", ".join(sorted({str(r["caption_backend"]) for r, _ in kept if r["caption_backend"]})) or "none"),
    )
    notes = [f"{len(found.kept()) - len(kept)} more clips were kept than are shown."] if len(found.kept()) > len(kept) else []
    notes += [f"{len(found.verdicts.pending())} clips lack stages: run the same command again."] if found.verdicts.pending() else []
    notes += [f"{len(found.ledger.damaged)} ledger segments are damaged and were left out."] if found.ledger.damaged else []
    return Page(
        title=headline(found),
        facts=facts,
        funnel=tuple(funnel_of(found)),
        reasons=tuple((name, n, _rule_text(found, name)) for name, n in reason_counts(found)),
        histograms=tuple(histograms(found)),
        kept=tuple(_kept_card(found, row) for row, _ in kept),
        rejected=tuple(_rejected_cards(rejected)),
        videos=tuple(_video_rows(found)),
        next_commands=tuple(next_commands(found)),
        notes=tuple(notes),
    )


def histograms(found: Outcome) -> Iterator[Histogram]:
    """One for each measured score, those with a threshold first."""
    kept = np.zeros(found.clips.num_rows, bool)
    kept[found.kept()] = True
    entries = [(entry, score) for entry in found.recipe.entries() for score in entry.scores]
    judged, stages = {rule.score for rule in found.rules()}, found.clips["stages"].to_pylist()
    for entry, score in sorted(entries, key=lambda pair: f"{pair[0].name}_{pair[1]}" not in judged):
        name = f"{entry.name}_{score}"
        if name not in found.clips.column_names:
            continue
        values = np.asarray(found.clips[name].to_numpy(zero_copy_only=False), np.float64)
        measured = np.isfinite(values)
        bounds = tuple(_bound(rule) for rule in found.rules() if rule.score == name)
        if measured.any():
            low, high = _range(values[measured], [b.value for b in bounds])
            bars = [np.histogram(values[measured & which].clip(low, high), BINS, (low, high))[0].tolist() for which in (kept, ~kept)]
            asked = np.array([entry.stage in passed for passed in stages])
            yield Histogram(name, entry.scores[score], low, high, tuple(bars[0]), tuple(bars[1]), bounds, int((asked & ~measured).sum()))


def next_commands(found: Outcome) -> list[str]:
    """Three commands to try, with this output's names in them."""
    name = shlex.quote(one_line(found.name))
    clip = next((row["clip_id"] for rows in (choose_rejected(found, 1), choose_kept(found, 1)) for row, _ in rows), None)
    tried = next(
        (f"--set filters.{e.name}.{r.key}={number((r.low if r.low is not None else r.high or 0.0) / 2)}" for e in found.recipe.entries() for r in e.rules), ""
    )
    return [
        *([f"pan explain {name} {clip}   # every rule, value and threshold for one clip"] if clip else []),
        *([f"pan rejudge {name} {tried} --dry-run   # what another threshold would change, without decoding"] if tried else []),
        f"pan verify {name}   # every checksum, every sample",
    ]


def _base(uri: str) -> str:
    return one_line(uri.rstrip("/").rpartition("/")[2] or uri, 60)


def _seconds(found: Outcome, rows: Sequence[int]) -> float:
    length = np.asarray(found.clips["end_s"].to_numpy()) - np.asarray(found.clips["start_s"].to_numpy())
    return float(length[list(rows)].sum()) if len(rows) else 0.0


def _bound(rule: Rule) -> Bound:
    return Bound(rule.low, "below", rule.reason) if rule.low is not None else Bound(rule.high or 0.0, "above", rule.reason)


def _rule_text(found: Outcome, reason: str) -> str:
    """What a reason's rules ask, or where it comes from."""
    asked = [f"{rule.score} {side_of(rule)}" for rule in found.rules() if rule.reason == reason]
    if reason.startswith("not_measured:"):
        return "the score could not be measured, and what is not measured is not kept"
    return " or ".join(asked) or UNRULED.get(reason, "a stage failed; the clip's own line says how")


def _range(values: "np.typing.NDArray[np.float64]", bounds: Sequence[float]) -> tuple[float, float]:
    """The axis: the middle 98 % of the values and all thresholds, with a little air."""
    low, high = np.quantile(values, [0.01, 0.99])
    low, high = min([low, *bounds]), max([high, *bounds])
    air = (high - low) * 0.04 or max(abs(high) * 0.1, 0.01)
    return float(low - air if low < 0 or low - air > 0 else 0.0), float(high + air)


def _kept_card(found: Outcome, row: Mapping[str, Any]) -> Card:
    from pipelines.report_pictures import kept_sheet

    jpeg, note = kept_sheet(found.ledger, row)
    events = tuple((float(e["start_s"]), float(e["end_s"]), str(e["text"])) for e in row["events"] or ())
    return Card(row["clip_id"], row["video_uri"], (row["start_s"], row["end_s"]), jpeg, (), row["caption"] or "", row["caption_backend"] or "", events, note)


def _rejected_cards(rejected: Sequence[tuple[dict[str, Any], list[str]]]) -> Iterator[Card]:
    """Their pictures come from the sources, as long as the page's share of decoding lasts."""
    from pipelines.report_pictures import DECODE_PIXELS, cost, source_sheet

    left = DECODE_PIXELS
    for row, reasons in rejected:
        left -= cost(row)
        jpeg, note = source_sheet(row) if left >= 0 else (None, "no picture: too long to decode again for this page")
        yield Card(row["clip_id"], row["video_uri"], (row["start_s"], row["end_s"]), jpeg, tuple(reasons), note=note)


def _video_rows(found: Outcome) -> list[tuple[str, str, str]]:
    rows = [r for r in found.videos.select(["video_uri", "status", "error_code", "error_detail"]).to_pylist() if r["status"] != "ok"]
    shown = [(r["video_uri"], r["error_code"] or r["status"], r["error_detail"] or "") for r in rows[:VIDEO_ROWS]]
    return [*shown, (f"and {len(rows) - VIDEO_ROWS} more", "", "")] if len(rows) > VIDEO_ROWS else shown
