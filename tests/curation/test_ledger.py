"""The ledger: what is committed is read back once, whatever was written twice, cut, flipped or left half done."""

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs
import pytest

from curation.clips import table_of
from curation.ledger import FrozenLedger, Tail, discard
from curation.segments import DamagedSegment
from curation.sink import Ledger
from curation.storage import Storage
from tests.curation import made_rows as made

ROWS = made.corpus(videos=4, clips=3)


def test_every_row_comes_back_with_its_bytes(tmp_path: Path) -> None:
    segments = made.commit(tmp_path, ROWS, fence=3, flush_rows=5)
    ledger = FrozenLedger.read(tmp_path)
    assert sorted(segments) == [s.id for s in ledger.segments]
    assert {s.fence for s in ledger.segments} == {3}
    assert sum(s.rows for s in ledger.segments) == len(ROWS) == ledger.table.num_rows
    clips = {row["clip_id"]: row for row in ledger.clips().to_pylist()}
    wanted = {row["clip_id"]: row for row in ROWS if row["kind"] == "clip"}
    assert clips.keys() == wanted.keys()
    for key, row in clips.items():
        for name in ("caption", "reject", "stages", "start_pts", "provenance", "events", "video_sha256"):
            assert row[name] == wanted[key].get(name), name
        assert row["fence"] == 3
        if row["reject"]:
            assert row["length"] is None
        else:
            assert ledger.read_clip_bytes(row) == wanted[key]["video"]
    assert "frames" not in ledger.table.column_names
    assert "video" not in ledger.table.column_names
    assert ledger.scores() == ["motion_flow", "quality_brisque"]
    assert ledger.clips().schema.field("motion_flow").type == pa.float32()


def test_a_piece_is_committed_as_soon_as_it_is_full(tmp_path: Path) -> None:
    """A task that dies later loses only what it has not yet committed."""

    def blocks() -> object:
        for i, row in enumerate(ROWS):
            if i == 8:
                assert FrozenLedger.read(tmp_path).table.num_rows == 6
            yield made.table([row])

    Ledger(tmp_path, 1, flush_rows=3).write(blocks(), None)  # type: ignore[arg-type]
    assert len(Ledger(tmp_path / "bytes", 1, flush_bytes=1).write([made.table(ROWS)], None)) == 1 + sum("video" in row for row in ROWS)


def test_what_is_done(tmp_path: Path) -> None:
    made.commit(tmp_path, [row for row in ROWS if not (row["kind"] == "clip" and row["clip_index"] == 1 and row["video_id"] == made.video_id(2))])
    ledger = FrozenLedger.read(tmp_path)
    assert ledger.done_video_ids() == {made.video_id(n) for n in (0, 1, 3, 100)}
    assert (made.video_id(0), "/videos/again.mp4") in ledger.done()  # a duplicate is done, too
    assert (made.video_id(2), "/videos/2.mp4") not in ledger.done()
    made.commit(tmp_path, [made.clip_row(2, 1)])
    assert FrozenLedger.read(tmp_path).done_video_ids() == {made.video_id(n) for n in (0, 1, 2, 3, 100)}


def test_clips_without_their_videos_row_are_not_done(tmp_path: Path) -> None:
    made.commit(tmp_path, [made.clip_row(0, 0)])
    assert FrozenLedger.read(tmp_path).done() == set()


def test_an_empty_ledger(tmp_path: Path) -> None:
    ledger = FrozenLedger.read(tmp_path)
    assert (ledger.table.num_rows, ledger.segments, ledger.done(), ledger.scores()) == (0, (), set(), [])


def test_of_two_equal_attempts_the_smallest_segment_wins(tmp_path: Path) -> None:
    first, second = (made.commit(tmp_path, [made.clip_row(0, 1, caption=text)])[0] for text in ("one", "two"))
    assert FrozenLedger.read(tmp_path).clips()["caption"].to_pylist() == ["one" if first < second else "two"]


def test_the_row_that_came_further_wins(tmp_path: Path) -> None:
    """A clip that was rejected and later sent through the missing stages; a video that failed once and then went well."""
    made.commit(tmp_path, [made.clip_row(0, 0, kept=False), made.video_row(1, 0, "failed", error_code="io_error")])
    made.commit(tmp_path, [made.clip_row(0, 0), made.video_row(1, 0)])
    made.commit(tmp_path, [made.clip_row(0, 0, kept=False, quality_brisque=1.0), made.video_row(1, 0, "failed", error_code="timeout")])
    ledger = FrozenLedger.read(tmp_path)
    assert ledger.clips()["stages"].to_pylist() == [["rules", "detectors", "caption", "cut"]]
    assert ledger.videos()["status"].to_pylist() == ["ok"]


def test_a_video_that_two_attempts_cut_differently_is_never_mixed(tmp_path: Path) -> None:
    """The older attempt was cut short; a newer version of the splitter found other clips."""
    made.commit(tmp_path, [made.clip_row(0, 0), made.clip_row(0, 1), made.clip_row(1, 0), made.video_row(1, 1)], fence=1)
    newer = [{**made.clip_row(0, i), "clip_id": f"{i:016x}", "start_pts": i * 9} for i in range(3)]
    made.commit(tmp_path, newer[:2], fence=2)
    ledger = FrozenLedger.read(tmp_path)
    assert ledger.clips().filter(pc.equal(ledger.clips()["video_id"], made.video_id(0)))["clip_id"].to_pylist() == ["0" * 16, "0" * 15 + "1"]
    assert ledger.done_video_ids() == {made.video_id(1)}
    made.commit(tmp_path, [*newer, made.video_row(0, 3)], fence=3)
    ledger = FrozenLedger.read(tmp_path)
    assert ledger.done_video_ids() == {made.video_id(0), made.video_id(1)}
    assert ledger.clips().num_rows == 4


def test_score_columns_may_differ_between_segments(tmp_path: Path) -> None:
    made.commit(tmp_path, [made.clip_row(0, 1)])
    row = {**made.clip_row(1, 1), "scene_text_area": 0.25}
    Ledger(tmp_path, 1).write([table_of([row], [*made.SCORES, "scene_text_area"])])
    ledger = FrozenLedger.read(tmp_path)
    assert ledger.scores() == ["motion_flow", "quality_brisque", "scene_text_area"]
    assert sorted(ledger.clips()["scene_text_area"].to_pylist(), key=str) == [0.25, None]


def test_a_score_that_is_not_a_number_does_not_stop_the_commit(tmp_path: Path) -> None:
    made.commit(tmp_path, [made.clip_row(0, 1, motion_flow=float("nan"))])
    value = FrozenLedger.read(tmp_path).clips()["motion_flow"].to_pylist()[0]
    assert value != value


def test_bytes_that_are_not_the_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sha256 is not its row's"):
        made.commit(tmp_path, [{**made.clip_row(0, 1), "video": b"other"}])
    assert FrozenLedger.read(tmp_path).table.num_rows == 0


@pytest.mark.parametrize("at", [0.0, 0.3, 0.6, 0.9, 0.999])
def test_any_flipped_bit_of_a_segment_is_found_and_its_items_done_again(tmp_path: Path, at: float) -> None:
    names = made.commit(tmp_path, ROWS, flush_rows=8)
    path = tmp_path / "_run/ledger" / f"{names[0]}.parquet"
    good = path.read_bytes()
    data = bytearray(good)
    data[int(at * len(data))] ^= 1
    path.write_bytes(data)
    ledger = FrozenLedger.read(tmp_path)
    assert len(ledger.segments) == len(names) - 1
    assert len(ledger.damaged) == 1
    assert names[0] in ledger.damaged[0]
    assert ledger.table.num_rows == len(ROWS) - 8
    assert len(ledger.done()) < 6
    made.commit(tmp_path, ROWS, flush_rows=8)  # done again: the same name, which is mended
    assert FrozenLedger.read(tmp_path).damaged == ()
    assert FrozenLedger.read(tmp_path).table.num_rows == len(ROWS)


@pytest.mark.parametrize("cut", [0, 1, 100])
def test_a_cut_ledger_file_or_tar_is_found(tmp_path: Path, cut: int) -> None:
    name, *_ = made.commit(tmp_path, [made.clip_row(0, 1)])
    tar = tmp_path / "_run/segments" / f"{name}.tar"
    tar.write_bytes(tar.read_bytes()[:-1024])
    assert FrozenLedger.read(tmp_path).table.num_rows == 0
    made.commit(tmp_path, [made.clip_row(0, 1)])
    assert FrozenLedger.read(tmp_path).table.num_rows == 1
    path = tmp_path / "_run/ledger" / f"{name}.parquet"
    path.write_bytes(path.read_bytes()[:cut])
    assert FrozenLedger.read(tmp_path).table.num_rows == 0


def test_damaged_clip_bytes_are_found_when_they_are_read_and_can_be_discarded(tmp_path: Path) -> None:
    name, *_ = made.commit(tmp_path, [made.clip_row(0, 1), made.video_row(0, 1)])
    tar = tmp_path / "_run/segments" / f"{name}.tar"
    data = bytearray(tar.read_bytes())
    data[700] ^= 1
    tar.write_bytes(data)
    ledger = FrozenLedger.read(tmp_path)
    with pytest.raises(DamagedSegment, match="done again") as found:
        ledger.read_clip_bytes(ledger.clips().to_pylist()[0])
    discard(tmp_path, found.value.segment)
    assert FrozenLedger.read(tmp_path).done() == set()
    with pytest.raises(DamagedSegment, match="gone"):
        FrozenLedger.read(tmp_path, only=[name])


def test_a_tar_without_its_ledger_file_is_garbage_that_nobody_reads(tmp_path: Path) -> None:
    Storage(tmp_path).create("_run/segments/abc.tar", b"x")
    assert FrozenLedger.read(tmp_path).segments == ()


def test_the_tail_gives_each_segment_once(tmp_path: Path) -> None:
    tail = Tail(tmp_path)
    assert tail.fresh() == []
    made.commit(tmp_path, ROWS[:4])
    assert [t.num_rows for t in tail.fresh()] == [4]
    assert tail.fresh() == []
    made.commit(tmp_path, ROWS[4:6])
    assert [t.num_rows for t in tail.fresh()] == [2]


def test_in_an_object_store(tmp_path: Path) -> None:
    out = Storage(tmp_path / "bucket", pyarrow.fs.LocalFileSystem())
    first = Ledger(out, 1, flush_rows=4).write([made.table(ROWS)])
    assert Ledger(out, 1, flush_rows=4).write([made.table(ROWS)]) == first
    ledger = FrozenLedger.read(out)
    assert ledger.table.num_rows == len(ROWS)
    row = next(row for row in ledger.clips().to_pylist() if row["length"])
    assert hashlib.sha256(ledger.read_clip_bytes(row)).hexdigest() == row["video_sha256"]


@pytest.mark.ray
def test_as_the_sink_of_a_ray_dataset(tmp_path: Path, ray_local: None) -> None:
    import ray

    data = ray.data.from_arrow([made.table([row]) for row in ROWS]).map_batches(lambda t: t, batch_format="pyarrow", batch_size=None)
    data.write_datasink(Ledger(tmp_path, 1, rows_per_task=8))
    ledger = FrozenLedger.read(tmp_path)
    assert ledger.table.num_rows == len(ROWS)
    assert len(ledger.segments) <= 3
    assert len(ledger.done()) == 6
