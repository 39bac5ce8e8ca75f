"""CaptionClips: kept clips get events and lose their frames, other rows pass untouched, a fault becomes a row."""

from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from captioning.caption import CaptionClips, CaptionConfig
from captioning.events import check, parse
from curation.clips import table_of

SCORES = ["camera_zoom", "scene_text_median_area"]


@pytest.fixture(scope="module")
def blob(made: Any) -> bytes:
    return bytes(made.frames_of(lambda t: made.look(25 * (t - 2.5)), 5.0625).to_bytes())


def row(blob: bytes | None, **rest: Any) -> dict[str, Any]:
    clip = {"clip_id": "0" * 16, "video_id": "1" * 16, "video_uri": "a.mp4", "chunks": 2, "start_s": 7.0, "end_s": 12.0625, "frames": blob}
    return {**clip, "stages": ["split", "rules"], **rest}


def captioned(*rows: dict[str, Any]) -> list[dict[str, Any]]:
    table = table_of(rows, SCORES)
    out = CaptionClips()(table)
    assert out.schema.equals(table.schema)
    return list(out.to_pylist())


def test_a_kept_clip_gets_its_caption_and_loses_its_frames(blob: bytes) -> None:
    (found,) = captioned(row(blob, scene_text_median_area=0.02))
    assert found["frames"] is None
    assert found["stages"] == ["split", "rules", "caption"]
    assert (found["caption_backend"], found["prompt_version"]) == ("measured", "measured/1")
    events = parse(found["events"])
    check(events, 5.0625)
    assert len(events) == 2
    assert all("pans right" in event.text for event in events)
    assert found["caption"].startswith("The camera pans right")
    assert found["caption"].endswith("Text is visible in the scene.")
    assert found["status"] == "ok"


def test_other_rows_pass_untouched(blob: bytes) -> None:
    rows = [
        row(blob, reject=["static"]),
        row(blob, status="failed", error_code="decode"),
        row(None),
        {"kind": "video", "video_id": "1" * 16, "video_uri": "a.mp4", "stats": "{}"},
    ]
    assert captioned(*rows) == table_of(rows, SCORES).to_pylist()


def test_rows_keep_their_order_and_number(blob: bytes) -> None:
    rows = [row(blob, clip_id="a" * 16), row(None, clip_id="b" * 16, reject=["static"]), row(blob, clip_id="c" * 16)]
    found = captioned(*rows)
    assert [r["clip_id"][0] for r in found] == ["a", "b", "c"]
    assert [r["caption"] is not None for r in found] == [True, False, True]


@pytest.mark.parametrize(
    ("rest", "says"),
    [
        ({"chunks": 0}, "nothing to caption"),
        ({"chunks": None}, "must be set"),
        ({"chunks": 9}, "9 chunks need more"),
        ({"end_s": None}, "must be set"),
        ({"frames": b"no frames"}, "frames cannot be read"),
    ],
)
def test_a_fault_becomes_a_failed_row_beside_good_ones(blob: bytes, rest: dict[str, Any], says: str) -> None:
    bad, good = captioned(row(blob, **rest), row(blob))
    assert (bad["status"], bad["error_code"], bad["frames"], bad["events"]) == ("failed", "caption_invalid", None, None)
    assert says in bad["error_detail"]
    assert "caption" not in bad["stages"]
    assert good["status"] == "ok"
    assert good["events"]


def test_an_empty_table_stays_empty() -> None:
    table = table_of([], SCORES)
    assert CaptionClips()(table).equals(table)
    assert isinstance(table, pa.Table)


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(ValidationError):
        CaptionConfig(backend="guess")  # type: ignore[arg-type]
