"""Report: what the page and the end report say of a made output, and that nothing in the data can speak HTML."""

import hashlib
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from curation.clips import table_of
from curation.ledger import FrozenLedger
from curation.lock import hold
from curation.sink import Ledger
from curation.storage import Storage
from filters.base import Rule
from pipelines import outcome, report
from pipelines.recipe import Recipe, load
from pipelines.report_page import Bound, Card, Histogram, Page, Step, render
from pipelines.report_pictures import kept_sheet, source_sheet
from pipelines.run import RESOLVED

EVIL = "<script>alert(1)</script>\"'&\u202e"


def mp4(frames: int, width: int = 96, height: int = 64) -> bytes:
    """Frame i is a grey of 40 + 2 i, at 16 frames per second."""
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=16, options={"crf": "10", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((height, width, 3), 40 + 2 * i, np.uint8), "rgb24")))
        container.mux(stream.encode())
    return out.getvalue()


def clip(name: str, uri: str, **more: Any) -> dict[str, Any]:
    base = {
        "kind": "clip",
        "clip_id": name * 16,
        "video_id": "f" * 16,
        "video_uri": uri,
        "provenance": "{}",
        "clip_index": int(name, 16),
        "start_s": 0.0,
        "end_s": 2.5625,
    }
    place = {
        "start_pts": 0,
        "end_pts": 41 * 1024,
        "time_base": "1/16384",
        "start_frame": 0,
        "end_frame": 41,
        "chunks": 1,
        "fps": 16.0,
        "width": 96,
        "height": 64,
    }
    return base | place | {"notes": [], "stages": ["rules"]} | more


def inside(rules: list[Rule]) -> dict[str, float]:
    """A value for each judged score that all its rules pass."""
    lows = {r.score: r.low for r in rules if r.low is not None}
    highs = {r.score: r.high for r in rules if r.high is not None}
    both = {name: (low + highs[name]) / 2 for name, low in lows.items() if name in highs}
    return {n: v - 0.01 * abs(v) - 1e-3 for n, v in highs.items()} | {n: v + 0.01 * abs(v) + 1e-3 for n, v in lows.items()} | both


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """One kept clip, one static, one too short, one that failed in the cut; a duplicate and a failed video."""
    source = tmp_path / "source.mp4"
    source.write_bytes(mp4(41))
    recipe = load("local", ["filters.motion.low=0.022"])
    passing = inside([rule for e in recipe.entries() for rule in e.rules]) | {"motion_flow": 0.1}
    events = [{"start_s": 0.0, "end_s": 1.25, "text": EVIL}, {"start_s": 1.25, "end_s": 2.5625, "text": "it stops"}]
    data = mp4(41)
    cut = {
        "video": data,
        "video_sha256": hashlib.sha256(data).hexdigest(),
        "video_frames": 41,
        "video_fps": 16.0,
        "video_width": 96,
        "video_height": 64,
        "video_start_frame": 0,
    }
    words = {"events": events, "caption": "a grey " + EVIL, "caption_backend": "measured", "stages": ["rules", "detectors", "content", "caption", "cut"]}
    rows = [
        clip("0", str(source), **passing, **cut, **words),
        clip("1", str(source), **passing | {"motion_flow": 0.004}, reject=["static"]),
        clip("2", str(source), start_s=0.0, end_s=1.5, stages=[], reject=["too_short"]),
        clip("3", "/gone.mp4", **passing, status="failed", error_code="encode_error", error_detail=EVIL, stages=["rules", "detectors", "content", "caption"]),
        {"kind": "video", "video_id": "f" * 16, "video_uri": str(source), "stats": '{"clips": 4}'},
        {
            "kind": "video",
            "video_id": "f" * 16,
            "video_uri": "/twin.mp4",
            "status": "duplicate",
            "error_code": "duplicate",
            "error_detail": f"same bytes as {source}",
        },
        {"kind": "video", "video_id": "e" * 16, "video_uri": f"/{EVIL}.mp4", "status": "failed", "error_code": "truncated", "error_detail": "x"},
    ]
    out = Storage.at(tmp_path / "out")
    with hold(out) as lock:
        Ledger(out, lock.fence).write([table_of(rows, sorted(passing))])
        out.replace(RESOLVED, recipe.to_toml().encode())
    return tmp_path / "out"


class Tags(HTMLParser):
    """All tags and attributes of a page, and whether every tag is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "rect", "line"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_end_report_tells_the_funnel_the_clips_and_the_reasons(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made.parent)
    text = report.end_report(made)
    lines = text.splitlines()
    assert lines[0] == "1 of 4 clips kept (2.6 s of 9.2 s), from 3 videos, 1 failed, 1 duplicate"
    table = {line.split()[0]: [int(n) for n in line.split()[1:]] for line in lines[3 : lines.index("", 3)]}
    assert table["split"] == [4, 3, 1, 0]
    assert table["rules"] == [3, 2, 1, 0]
    assert table["cut"] == [2, 1, 0, 1]
    assert "rejected for: encode_error 1, static 1, too_short 1" in lines
    assert "videos not used: duplicate 1, truncated 1" in lines
    assert "      static: motion_flow 0.004 is below 0.022" in lines
    assert "      too_short: the piece is 1.50 s long" in lines
    assert any("source.mp4  0.00-2.56 s" in line for line in lines)
    assert "output: out   page: out/report.html" in lines
    assert "\u202e" not in text
    assert len(lines) < 40


def test_the_page_is_whole_self_contained_and_escaped(made: Path) -> None:
    page = Path(report.write_report(made)).read_text("utf-8")
    tags = Tags(page)
    assert tags.open == []
    assert not [t for t, _ in tags.seen if t in ("script", "link", "iframe", "object", "form")]
    assert not [a for _, attrs in tags.seen for a in attrs if a.startswith("on")]
    links = [v for _, attrs in tags.seen for k, v in attrs.items() if k in ("src", "href")]
    assert links
    assert all(str(v).startswith("data:image/jpeg;base64,") for v in links)
    assert "alert(1)" in page
    assert "\u202e" not in page
    assert "@import" not in page
    assert "url(" not in page


def test_the_page_shows_each_part(made: Path) -> None:
    page = Path(report.write_report(made)).read_text("utf-8")
    for words in (
        "1 of 4 clips kept",
        "static: motion_flow 0.004 is below 0.022",
        "encode_error",
        "same bytes as",
        "it stops",
        "caption: measured",
        "truncated",
    ):
        assert words in page
    assert page.count("<article>") == 4
    assert page.count("data:image/jpeg") == 3  # the source of the fourth is gone
    assert "no picture: io_error" in page
    assert '<line class="line"' in page


def test_a_contact_sheet_holds_six_moments_in_order(made: Path) -> None:
    ledger = FrozenLedger.read(made)
    row = next(r for r in ledger.clips().to_pylist() if r["video_sha256"])
    for jpeg, note in (kept_sheet(ledger, row), source_sheet(row)):
        assert jpeg is not None, note
        picture = np.asarray(Image.open(io.BytesIO(jpeg)).convert("L"), np.float64)
        greys = [float(picture[32 + 66 * r, 48 + 98 * c]) for r in range(2) for c in range(3)]
        wanted = [40 + 2 * round(40 * k / 7) for k in range(1, 7)]
        assert np.abs(np.array(greys) - wanted).max() < 4


def test_a_changed_threshold_moves_clips_in_the_report_without_a_new_run(made: Path) -> None:
    out = Storage.at(made)
    text = out.read(RESOLVED).decode()
    changed = re.sub(r"(\[filters\.motion\](?:\n(?!\[).*)*?\nlow = )[\d.]+", r"\g<1>0.2", text)
    assert changed != text
    out.replace(RESOLVED, changed.encode())
    found = outcome.outcome(made)
    assert found.kept() == []
    assert dict(outcome.reason_counts(found))["static"] == 2
    steps = {s.stage: (s.given, s.kept, s.rejected) for s in outcome.funnel_of(found)}
    assert steps["rules"] == (3, 1, 2)  # the clip that was kept leaves at the rules now


def test_another_folder_is_no_output(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not an output of `pan curate`"):
        report.write_report(tmp_path)


def test_an_empty_run_has_a_page_and_an_end_report(tmp_path: Path) -> None:
    Storage.at(tmp_path).replace(RESOLVED, Recipe().to_toml().encode())
    assert report.end_report(tmp_path).splitlines()[0] == "0 of 0 clips kept (0.0 s of 0.0 s), from 0 videos"
    page = Path(report.write_report(tmp_path)).read_text("utf-8")
    assert "No clip was kept." in page
    assert Tags(page).open == []


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"a_b": 0.5}, "vice: a_b 0.5 is below 1"),
        ({"a_b": 1234.5}, "vice: a_b 1,234 is above 1,000"),
        ({"a_b": None}, "vice"),
    ],
)
def test_explain_names_the_value_and_the_bound_that_decided(row: dict[str, float | None], text: str) -> None:
    rules = [Rule("low", "a_b", "vice", low=1.0), Rule("high", "a_b", "vice", high=1000.0), Rule("c", "a_c", "other", low=1.0)]
    assert outcome.explain("vice", {"error_code": None, "a_c": 0.0, **row}, rules) == text


def test_a_histogram_draws_bars_and_threshold_to_scale() -> None:
    drawn = Histogram("x_y", "s", 0.0, 10.0, (0, 3), (1, 1), (Bound(2.5, "below", "slow"),), 7)
    card = Card("c", "s3://b/ä.mp4", (1.0, 2.0), None)
    page = render(Page("t", (), (Step("split", 5, 3, 1, 1),), (("slow", 1, "x_y below 2.5"),), (drawn,), (card,), (), (), ()))
    assert '<line class="line" x1="75.0" x2="75.0" y1="0" y2="100"/>' in page
    assert '<rect class="shade" x="0.0" y="0" width="75.0" height="100"/>' in page
    assert '<rect class="kept" x="150.5" y="25.0" width="149.0" height="75.0"/>' in page
    assert '<rect class="rejected" x="150.5" y="0.0" width="149.0" height="25.0"/>' in page
    assert "below 2.5: slow, 7 not measured" in page
    assert "ä.mp4 · 1.00–2.00 s (1.00 s)" in page


def test_a_page_is_written_again_only_when_the_outcome_changed(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(report.write_report(made))
    content = page.read_bytes()
    monkeypatch.setattr(report, "page_of", lambda found: pytest.fail("the page was made again"))
    assert Path(report.write_report(made)).read_bytes() == content
    monkeypatch.undo()
    page.unlink()
    assert Path(report.write_report(made)).read_bytes() == content
    out = Storage.at(made)
    out.replace(RESOLVED, load("local", ["filters.motion.low=0.2"]).to_toml().encode())
    assert "0 of 4 clips kept" in Path(report.write_report(made)).read_text("utf-8")
