"""Lineage: whichever of two files under one name counts, no clip is lost without a reason and none is counted twice."""

from pathlib import Path
from typing import Any

from curation.ledger import FrozenLedger
from curation.lineage import Known, id_of_name
from tests.curation import made_rows as made


def rows_of(video: int, clips: int = 2, **changes: Any) -> list[dict[str, Any]]:
    return [*(made.clip_row(video, i, **changes) for i in range(clips)), made.video_row(video, clips, **changes)]


def ended(ledger: FrozenLedger) -> dict[tuple[str, str], tuple[str, str | None]]:
    return {(v["video_id"], v["video_uri"]): (v["status"], v["error_code"]) for v in ledger.videos().to_pylist()}


def clips_of(ledger: FrozenLedger) -> set[tuple[str, str, str, str | None]]:
    return {(c["video_id"], c["video_uri"], c["status"], c["error_code"]) for c in ledger.clips().to_pylist()}


OLD, NEW = made.video_id(1), made.video_id(2)


def test_the_file_that_was_there_last_counts_and_the_old_clips_say_why_not(tmp_path: Path) -> None:
    made.commit(tmp_path, rows_of(1, video_uri="/a.mp4", video_stamp="5-1"), fence=1)
    made.commit(tmp_path, rows_of(2, video_uri="/a.mp4", video_stamp="6-2@2"), fence=2)
    ledger = FrozenLedger.read(tmp_path)
    assert ended(ledger) == {(OLD, "/a.mp4"): ("failed", "source_changed"), (NEW, "/a.mp4"): ("ok", None)}
    assert clips_of(ledger) == {(OLD, "/a.mp4", "failed", "source_changed"), (NEW, "/a.mp4", "ok", None)}
    assert ledger.sources == {"/a.mp4": Known(NEW, "ok", frozenset({"6-2"}))}
    assert len(made.kept_of(ledger)) == 2


def test_the_order_of_the_rows_in_the_ledger_is_the_tables(tmp_path: Path) -> None:
    made.commit(tmp_path, [*rows_of(1), *rows_of(3)], fence=1)
    made.commit(tmp_path, rows_of(2, video_uri="/videos/1.mp4"), fence=2)
    table = FrozenLedger.read(tmp_path).table
    keys = [(r["kind"], r["video_id"], r["clip_index"] or 0) for r in table.to_pylist()]
    assert keys == sorted(keys)


def test_bytes_that_another_name_still_holds_belong_to_that_name(tmp_path: Path) -> None:
    twin = made.video_row(1, 0, "duplicate", video_uri="/b.mp4", error_code="duplicate", video_stamp="5-9", provenance='{"licence": "MIT"}')
    made.commit(tmp_path, [*rows_of(1, video_uri="/a.mp4"), twin], fence=1)
    made.commit(tmp_path, rows_of(2, video_uri="/a.mp4"), fence=2)
    ledger = FrozenLedger.read(tmp_path)
    assert ended(ledger) == {(OLD, "/b.mp4"): ("ok", None), (NEW, "/a.mp4"): ("ok", None)}
    assert clips_of(ledger) == {(OLD, "/b.mp4", "ok", None), (NEW, "/a.mp4", "ok", None)}
    assert {c["provenance"] for c in ledger.clips().to_pylist() if c["video_id"] == OLD} == {'{"licence": "MIT"}'}
    assert ledger.sources["/b.mp4"] == Known(OLD, "ok", frozenset({"5-9"}))
    assert ledger.done_video_ids() == {OLD, NEW}


def test_a_duplicate_that_got_other_bytes_leaves_no_trace_of_the_old(tmp_path: Path) -> None:
    twin = made.video_row(1, 0, "duplicate", video_uri="/b.mp4", error_code="duplicate")
    made.commit(tmp_path, [*rows_of(1, video_uri="/a.mp4"), twin], fence=1)
    made.commit(tmp_path, rows_of(2, video_uri="/b.mp4"), fence=2)
    assert ended(FrozenLedger.read(tmp_path)) == {(OLD, "/a.mp4"): ("ok", None), (NEW, "/b.mp4"): ("ok", None)}


def test_the_old_bytes_back_again_count_again(tmp_path: Path) -> None:
    for fence, video in ((1, 1), (2, 2), (3, 1)):
        made.commit(tmp_path, rows_of(video, video_uri="/a.mp4", video_stamp=f"5-1@{fence}"), fence=fence)
    ledger = FrozenLedger.read(tmp_path)
    assert ended(ledger) == {(OLD, "/a.mp4"): ("ok", None), (NEW, "/a.mp4"): ("failed", "source_changed")}
    assert ledger.clips().num_rows == 4
    assert len(made.kept_of(ledger)) == 2


def test_a_name_that_could_not_be_read_says_nothing_of_its_bytes(tmp_path: Path) -> None:
    """Neither before the bytes were read, nor after."""
    name = {"kind": "video", "video_id": id_of_name("/a.mp4"), "video_uri": "/a.mp4"}
    unread = {**name, "status": "failed", "error_code": "io_error", "video_stamp": "unreadable"}
    made.commit(tmp_path, [unread], fence=1)
    assert ended(FrozenLedger.read(tmp_path)) == {(id_of_name("/a.mp4"), "/a.mp4"): ("failed", "io_error")}
    made.commit(tmp_path, rows_of(1, video_uri="/a.mp4"), fence=2)
    assert ended(FrozenLedger.read(tmp_path)) == {(OLD, "/a.mp4"): ("ok", None)}
    made.commit(tmp_path, [{**unread, "video_stamp": "missing"}], fence=3)
    assert ended(FrozenLedger.read(tmp_path)) == {(OLD, "/a.mp4"): ("ok", None)}


def test_clips_of_an_unfinished_attempt_on_other_bytes_are_no_clips_of_the_new(tmp_path: Path) -> None:
    made.commit(tmp_path, rows_of(1, video_uri="/a.mp4")[:1], fence=1)
    made.commit(tmp_path, rows_of(2, video_uri="/a.mp4"), fence=2)
    ledger = FrozenLedger.read(tmp_path)
    assert ended(ledger) == {(NEW, "/a.mp4"): ("ok", None)}
    assert clips_of(ledger) == {(OLD, "/a.mp4", "failed", "source_changed"), (NEW, "/a.mp4", "ok", None)}


def test_a_ledger_from_before_stamps_reads(tmp_path: Path) -> None:
    from curation.sink import Ledger

    Ledger(tmp_path, 1).write([made.table(rows_of(1)).drop_columns(["video_stamp"])])
    assert FrozenLedger.read(tmp_path).sources == {"/videos/1.mp4": Known(OLD, "ok", frozenset())}
