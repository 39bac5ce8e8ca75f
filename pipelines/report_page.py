"""Report page: one self-contained HTML file, no script and nothing loaded; every text that came with the data is escaped."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from curation.clips import one_line


@dataclass(frozen=True)
class Card:
    """One clip as people see it. `jpeg` is its contact sheet, `events` are (start_s, end_s, text) from the clip's start."""

    clip_id: str
    source: str
    span: tuple[float, float]
    jpeg: bytes | None
    reasons: tuple[str, ...] = ()
    caption: str = ""
    caption_backend: str = ""
    events: tuple[tuple[float, float, str], ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Bound:
    """One threshold on a histogram's axis: what lies on its `side` ("below" or "above") is rejected for `reason`."""

    value: float
    side: str
    reason: str


@dataclass(frozen=True)
class Histogram:
    """Counts of one score in equal bins from `low` to `high`; what lies outside is counted in the end bins."""

    name: str
    unit: str
    low: float
    high: float
    kept: tuple[int, ...]
    rejected: tuple[int, ...]
    bounds: tuple[Bound, ...] = ()
    missing: int = 0


@dataclass(frozen=True)
class Step:
    """One stage of the funnel."""

    stage: str
    given: int
    kept: int
    rejected: int
    failed: int


@dataclass(frozen=True)
class Page:
    """All that the page says."""

    title: str
    facts: tuple[tuple[str, str], ...]
    funnel: tuple[Step, ...]
    reasons: tuple[tuple[str, int, str], ...]
    histograms: tuple[Histogram, ...]
    kept: tuple[Card, ...]
    rejected: tuple[Card, ...]
    videos: tuple[tuple[str, str, str], ...]
    next_commands: tuple[str, ...]
    notes: tuple[str, ...] = ()


def text(value: str, limit: int = 2000) -> str:
    """`value` as HTML text: one line, control and bidi characters made visible, markup made harmless."""
    return html.escape(one_line(value, limit), quote=True)


def number(value: float) -> str:
    """Three significant digits, without an exponent where that can be read."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def render(page: Page, stamp: str = "") -> str:
    """The whole document; `stamp` says what it was made from."""
    parts = [
        f"<header><h1>{text(page.title)}</h1>{_facts(page.facts)}</header>",
        *(f'<p class="note">{text(note)}</p>' for note in page.notes),
        _section("Funnel", "What each stage was given and what it let through.", _funnel(page.funnel)),
        _section("Reasons", "Why clips were rejected or failed. A clip may have several reasons.", _reasons(page.reasons)),
        _section("Kept clips", "Six moments each; below them the caption's events in time.", _cards(page.kept, "No clip was kept.")),
        _section("Rejected clips", "Examples for each reason, with the value that decided.", _cards(page.rejected, "No clip was rejected.")),
        _section("Scores", "Every measured clip; lines are thresholds, the shaded side is rejected.", _histograms(page.histograms)),
        _section("Videos without clips", "Sources that failed, or that hold the same bytes as another one.", _videos(page.videos)),
        _section("Next", "", "<pre>" + "\n".join(text(c) for c in page.next_commands) + "</pre>"),
    ]
    style = files("pipelines").joinpath("report.css").read_text("utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        f'<meta name="pan-outcome" content="{text(stamp)}"><meta name="color-scheme" content="light dark">'
        f"<title>{text(page.title)}</title><style>{style}</style></head>\n"
        "<body><main>" + "\n".join(part for part in parts if part) + "</main></body></html>\n"
    )


def _section(title: str, lead: str, body: str) -> str:
    head = f"<h2>{text(title)}</h2>" + (f'<p class="lead">{text(lead)}</p>' if lead else "")
    return f"<section>{head}{body}</section>" if body else ""


def _facts(facts: Sequence[tuple[str, str]]) -> str:
    return '<dl class="facts">' + "".join(f"<div><dt>{text(k)}</dt><dd>{text(v)}</dd></div>" for k, v in facts) + "</dl>"


def _funnel(steps: Sequence[Step]) -> str:
    most = max((s.given for s in steps), default=0)
    if not most:
        return "<p>No clip came into the funnel.</p>"
    rows = []
    for s in steps:
        bars = "".join(
            f'<i class="{name}" style="width:{100 * n / most:.2f}%"></i>' for name, n in (("kept", s.kept), ("rejected", s.rejected), ("failed", s.failed))
        )
        cells = "".join(f"<td>{n}</td>" for n in (s.given, s.kept, s.rejected, s.failed))
        rows.append(f'<tr><th scope="row">{text(s.stage)}</th><td class="bar"><span>{bars}</span></td>{cells}</tr>')
    head = '<tr><th scope="col">stage</th><th class="bar"></th>' + "".join(f'<th scope="col">{n}</th>' for n in ("in", "kept", "rejected", "failed")) + "</tr>"
    return f'<div class="wide"><table class="funnel"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table></div>'


def _reasons(reasons: Sequence[tuple[str, int, str]]) -> str:
    if not reasons:
        return "<p>None.</p>"
    most = max(n for _, n, _ in reasons)
    rows = "".join(
        f'<tr><th scope="row">{text(name)}</th><td class="bar"><span><i class="rejected" style="width:{100 * n / most:.2f}%"></i></span></td><td>{n}</td>'
        f'<td class="why">{text(why)}</td></tr>'
        for name, n, why in reasons
    )
    head = '<tr><th scope="col">reason</th><th class="bar"></th><th scope="col">clips</th><th scope="col" class="why">rule</th></tr>'
    return f'<div class="wide"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>'


def _cards(cards: Sequence[Card], none: str) -> str:
    return '<div class="cards">' + "".join(map(_card, cards)) + "</div>" if cards else f"<p>{text(none)}</p>"


def _card(card: Card) -> str:
    start, end = card.span
    name = card.source.rstrip("/").rpartition("/")[2] or card.source
    if card.jpeg:
        picture = f'<img alt="{text(f"six moments of clip {card.clip_id}")}" src="data:image/jpeg;base64,{base64.b64encode(card.jpeg).decode()}">'
    else:
        picture = f'<div class="nopicture">{text(card.note or "no picture")}</div>'
    reasons = "".join(f"<li>{text(r)}</li>" for r in card.reasons)
    caption = f'<p class="caption">{text(card.caption)}</p>' if card.caption else ""
    backend = f" · caption: {text(card.caption_backend)}" if card.caption_backend else ""
    return (
        f"<article>{picture}<h3><code>{text(card.clip_id)}</code></h3>"
        f'<p class="where" title="{text(card.source)}">{text(name, 120)} · {start:.2f}–{end:.2f} s ({end - start:.2f} s){backend}</p>'
        + (f'<ul class="reasons">{reasons}</ul>' if reasons else "")
        + caption
        + _timeline(card.events, end - start)
        + "</article>"
    )


def _timeline(events: Sequence[tuple[float, float, str]], duration: float) -> str:
    """Each event as a bar at its time, with its text."""
    if not events or duration <= 0:
        return ""
    items = []
    for start, end, words in events:
        left, width = 100 * start / duration, max(100 * (end - start) / duration, 0.5)
        items.append(
            f'<li><span class="track"><i style="left:{min(left, 99.5):.2f}%;width:{min(width, 100 - min(left, 99.5)):.2f}%"></i></span>'
            f"<span><b>{start:.1f}–{end:.1f} s</b> {text(words)}</span></li>"
        )
    return '<ol class="events">' + "".join(items) + "</ol>"


def _histograms(histograms: Sequence[Histogram]) -> str:
    if not histograms:
        return "<p>No score was measured.</p>"
    legend = '<p class="legend"><i class="kept"></i> kept <i class="rejected"></i> rejected <i class="line"></i> threshold</p>'
    groups = [[h for h in histograms if h.bounds], [h for h in histograms if not h.bounds]]
    judged, others = ('<div class="histograms">' + "".join(map(_histogram, group)) + "</div>" if group else "" for group in groups)
    return legend + judged + (f"<details><summary>{len(groups[1])} scores without a threshold</summary>{others}</details>" if others else "")


def _histogram(h: Histogram) -> str:
    """Stacked bars, kept below rejected, in a 300 x 120 drawing."""
    width, height, floor = 300.0, 120.0, 100.0
    most, step = max(max(a + b for a, b in zip(h.kept, h.rejected, strict=True)), 1), width / len(h.kept)
    span = (h.high - h.low) or 1.0
    marks = []
    for bound in h.bounds:
        x = min(max((bound.value - h.low) / span, 0.0), 1.0) * width
        shade = (0.0, x) if bound.side == "below" else (x, width - x)
        marks.append(f'<rect class="shade" x="{shade[0]:.1f}" y="0" width="{shade[1]:.1f}" height="{floor:.0f}"/>')
        marks.append(f'<line class="line" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{floor:.0f}"/>')
    bars = []
    for i, (kept, rejected) in enumerate(zip(h.kept, h.rejected, strict=True)):
        low = floor - floor * kept / most
        for name, n, y in (("kept", kept, low), ("rejected", rejected, low - floor * rejected / most)):
            if n:
                bars.append(f'<rect class="{name}" x="{i * step + 0.5:.1f}" y="{y:.1f}" width="{step - 1:.1f}" height="{floor * n / most:.1f}"/>')
    words = ", ".join(f"{b.side} {number(b.value)}: {b.reason}" for b in h.bounds) or "no threshold"
    missing = f", {h.missing} not measured" if h.missing else ""
    return (
        f'<figure><figcaption><b>{text(h.name)}</b> <span>{text(h.unit)}</span></figcaption><svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'aria-label="{text(f"{h.name}: {words}")}">{"".join(marks)}{"".join(bars)}<line class="axis" x1="0" x2="{width:.0f}" y1="100" y2="100"/>'
        f'<text x="0" y="115">{number(h.low)}</text><text x="{width:.0f}" y="115" text-anchor="end">{number(h.high)}</text></svg>'
        f"<p>{text(words)}{missing} · tallest bar {most}</p></figure>"
    )


def _videos(videos: Sequence[tuple[str, str, str]]) -> str:
    if not videos:
        return ""
    rows = "".join(
        f'<tr><th scope="row" class="uri">{text(uri)}</th><td class="why">{text(code)}</td><td class="why">{text(why)}</td></tr>' for uri, code, why in videos
    )
    return f'<div class="wide"><table><tbody>{rows}</tbody></table></div>'
