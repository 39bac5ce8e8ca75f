"""Opening: a file's stamp, and that a file which was replaced since it was identified is not taken for what it was."""

import os
from pathlib import Path

import pytest

from curation import opening
from curation.clips import ClipError
from curation.limits import Limits
from curation.opening import check_unchanged, stamp_of
from curation.shots import SplitConfig, SplitVideo
from curation.sources import find, identify, video_table
from tests.curation.bad_media import make_video


def test_a_stamp_tells_size_and_time_or_why_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"abc")
    os.utime(path, ns=(7, 7))
    assert stamp_of(str(path)) == stamp_of(f"file://{path}") == "3-7"
    assert stamp_of(str(tmp_path / "none.mp4")) == "missing"
    assert stamp_of("nosuch://bucket/a.mp4") == "unreadable"
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert stamp_of(str(path)) == "unreadable"


def test_a_file_is_read_again_only_where_its_stamp_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"abc")
    row = identify(video_table(find([str(path)]))).to_pylist()[0]
    os.utime(path, ns=(7, 7))
    check_unchanged(row)
    check_unchanged({**row, "video_stamp": None})
    path.write_bytes(b"abd")
    with pytest.raises(ClipError, match="source_changed"):
        check_unchanged(row)
    monkeypatch.setattr(opening, "content_id", lambda *_: pytest.fail("it was read"))
    check_unchanged({**row, "video_stamp": f"{stamp_of(str(path))}@3"})


def test_a_video_that_was_replaced_since_it_was_identified_is_not_split(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", 24)
    row = identify(video_table(find([str(path)])))
    make_video(path, 30)
    tables = list(SplitVideo(SplitConfig(), Limits())(row))
    assert [(r["kind"], r["status"], r["error_code"]) for t in tables for r in t.to_pylist()] == [("video", "failed", "source_changed")]
