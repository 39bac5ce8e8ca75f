"""Backlog: what a second run finds to do when files were touched, replaced, removed, repaired or refused since the first."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from curation import opening
from curation.clips import table_of
from curation.ledger import FrozenLedger
from curation.sink import Ledger
from curation.sources import SourcesConfig, find, identify, video_table
from pipelines import backlog
from pipelines.changed import Changed
from pipelines.exits import Exit
from tests.curation import made_rows as made


@dataclass
class Runs:
    """Runs over one folder whose stream makes two clips of whatever a file holds."""

    folder: Path
    out: Path
    fence: int = 0

    def run(self, changed: Changed = Changed.REPORT, inputs: Path | None = None, licences: tuple[str, ...] = ()) -> tuple[list[str], dict[str, Any], Exit]:
        """(names that went through the stream, what exit.json says, exit code)."""
        self.fence += 1
        config = SourcesConfig(licences=licences)
        listed = backlog.look(video_table(find([str(inputs or self.folder)], config), config), ledger := FrozenLedger.read(self.out))
        decided = backlog.Decided.nothing()
        if listed.to_read.num_rows:
            decided = backlog.decide(identify(listed.to_read), ledger, changed, self.fence)
            rows = [row for video in decided.todo.to_pylist() for row in self._split(video)]
            Ledger(self.out, self.fence).write([decided.same, table_of(rows)])
        counts: dict[str, Any] = {}
        code = backlog.tell(listed, decided, changed, counts)
        return [os.path.basename(uri) for uri in decided.todo["video_uri"].to_pylist()], counts, code

    def _split(self, video: dict[str, Any]) -> list[dict[str, Any]]:
        if video["status"] != "ok":
            return [video]
        places = {name: video[name] for name in ("video_id", "video_uri", "video_stamp", "provenance")}
        clips = [made.clip_row(1, i, clip_id=f"{video['video_id']}{i}", **places) for i in range(2)]
        return [*({**c, "video": None} for c in clips), {**video, "stats": '{"clips": 2}'}]

    def kept(self) -> dict[str, int]:
        """Clips that stand, by their file's name; no clip id comes twice."""
        found: dict[str, int] = {}
        for clip in FrozenLedger.read(self.out).clips().to_pylist():
            if clip["status"] == "ok":
                name = os.path.basename(clip["video_uri"])
                found[name] = found.get(name, 0) + 1
        return found

    def put(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    """After a first run over a.mp4 and b.mp4, which are copies, and c.mp4."""
    made_runs = Runs(tmp_path / "videos", tmp_path / "out")
    made_runs.folder.mkdir()
    for name, text in (("a.mp4", "one"), ("b.mp4", "one"), ("c.mp4", "two")):
        made_runs.put(name, text)
    assert made_runs.run() == (["a.mp4", "b.mp4", "c.mp4"], {"sources": {"changed": 0, "gone": 0, "retaken": 0, "same_bytes": 0}}, Exit.COMPLETE)
    assert made_runs.kept() == {"a.mp4": 2, "c.mp4": 2}
    return made_runs


def test_a_second_run_reads_no_byte(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a file was opened")

    monkeypatch.setattr(opening, "open_source", refuse)
    before = sorted(p.name for p in (runs.out / "_run" / "ledger").iterdir())
    assert runs.run() == ([], {"sources": {"changed": 0, "gone": 0, "retaken": 0, "same_bytes": 0}}, Exit.COMPLETE)
    assert sorted(p.name for p in (runs.out / "_run" / "ledger").iterdir()) == before


def test_a_touched_file_is_read_once_and_never_split_again(runs: Runs) -> None:
    os.utime(runs.folder / "a.mp4", ns=(1, 1))
    assert runs.run() == ([], {"sources": {"changed": 0, "gone": 0, "retaken": 0, "same_bytes": 1}}, Exit.COMPLETE)
    assert runs.run()[1]["sources"]["same_bytes"] == 0
    assert runs.kept() == {"a.mp4": 2, "c.mp4": 2}


def test_other_bytes_are_named_and_the_old_clips_stay(runs: Runs) -> None:
    path = runs.put("c.mp4", "three")
    for _ in range(2):  # it stays so until someone decides
        todo, counts, code = runs.run()
        assert (todo, code, counts["sources"]["changed"]) == ([], Exit.OVER_BUDGET, 1)
        assert list(counts["changed_sources"]) == [str(path)]
        assert "source_changed" in counts["source_changed"]
        assert "--changed replace" in counts["source_changed"]
    assert runs.run(Changed.KEEP)[2] == Exit.COMPLETE
    assert runs.kept() == {"a.mp4": 2, "c.mp4": 2}


def test_other_bytes_of_the_same_size_and_age_as_ever_are_found_where_the_time_tells(runs: Runs) -> None:
    path = runs.put("c.mp4", "owt")
    os.utime(path, ns=(5, 5))
    assert runs.run()[2] == Exit.OVER_BUDGET


def test_replace_curates_the_new_bytes_and_rejects_the_old_clips(runs: Runs) -> None:
    runs.put("c.mp4", "three")
    assert runs.run(Changed.REPLACE)[::2] == (["c.mp4"], Exit.COMPLETE)
    assert runs.kept() == {"a.mp4": 2, "c.mp4": 2}
    clips = FrozenLedger.read(runs.out).clips().to_pylist()
    assert sorted(c["error_code"] for c in clips if c["status"] == "failed") == ["source_changed"] * 2
    assert runs.run()[::2] == ([], Exit.COMPLETE)
    runs.put("c.mp4", "two")  # and back again
    assert runs.run(Changed.REPLACE)[0] == ["c.mp4"]
    assert runs.kept() == {"a.mp4": 2, "c.mp4": 2}


def test_replacing_the_owner_of_copied_bytes_leaves_them_to_the_copy(runs: Runs) -> None:
    runs.put("a.mp4", "three")
    assert runs.run(Changed.REPLACE)[0] == ["a.mp4"]
    assert runs.kept() == {"a.mp4": 2, "b.mp4": 2, "c.mp4": 2}
    assert runs.run()[::2] == ([], Exit.COMPLETE)


def test_a_duplicate_with_other_bytes_is_a_video_of_its_own(runs: Runs) -> None:
    runs.put("b.mp4", "four")
    assert runs.run()[::2] == (["b.mp4"], Exit.COMPLETE)
    assert runs.kept() == {"a.mp4": 2, "b.mp4": 2, "c.mp4": 2}


def test_a_new_file_with_the_bytes_of_a_curated_one_is_its_duplicate(runs: Runs) -> None:
    runs.put("0.mp4", "two")
    assert runs.run()[0] == ["0.mp4"]
    assert runs.kept() == {"a.mp4": 2, "c.mp4": 2}


def test_removed_files_keep_their_clips(runs: Runs) -> None:
    (runs.folder / "c.mp4").unlink()
    todo, counts, code = runs.run()
    assert (todo, counts["sources"]["gone"], code) == ([], 1, Exit.COMPLETE)
    assert runs.kept() == {"a.mp4": 2, "c.mp4": 2}


def test_an_emptied_file_has_changed(runs: Runs) -> None:
    runs.put("c.mp4", "")
    assert runs.run()[2] == Exit.OVER_BUDGET
    assert runs.run(Changed.REPLACE)[::2] == (["c.mp4"], Exit.COMPLETE)
    assert runs.kept() == {"a.mp4": 2}


def test_a_list_names_missing_files_that_are_taken_up_when_they_come(runs: Runs, tmp_path: Path) -> None:
    listed = tmp_path / "list.csv"
    late = tmp_path / "late.mp4"
    listed.write_text(f"uri\n{late}\n")
    assert runs.run(inputs=listed)[0] == ["late.mp4"]
    assert runs.run(inputs=listed)[0] == []
    late.write_text("five")
    assert runs.run(inputs=listed)[0] == ["late.mp4"]
    assert runs.kept()["late.mp4"] == 2
    late.unlink()
    assert runs.run(inputs=listed)[1]["sources"]["gone"] == 4
    assert runs.kept()["late.mp4"] == 2


def test_a_licence_that_is_refused_later_is_named_and_can_be_taken_back(runs: Runs, tmp_path: Path) -> None:
    listed = tmp_path / "list.csv"
    listed.write_text(f"uri,licence\n{runs.folder / 'c.mp4'},GPL\n")
    _, counts, code = runs.run(inputs=listed, licences=("CC0",))
    assert (code, list(counts["changed_sources"].values())) == (Exit.OVER_BUDGET, ["policy_licence: licence 'GPL' is not in the allow-list"])
    assert runs.run(Changed.REPLACE, inputs=listed, licences=("CC0",))[2] == Exit.COMPLETE
    assert runs.kept() == {"a.mp4": 2}
    listed.write_text(f"uri,licence\n{runs.folder / 'c.mp4'},CC0\n")
    assert runs.run(inputs=listed, licences=("CC0",))[0] == ["c.mp4"]
    assert runs.kept() == {"a.mp4": 2, "c.mp4": 2}


def test_a_video_that_failed_is_tried_again_when_its_file_has_changed(runs: Runs) -> None:
    failed = runs.put("d.mp4", "cut short")
    row = identify(video_table(find([str(failed)]))).to_pylist()[0]
    Ledger(runs.out, runs.fence).write([table_of([{**row, "status": "failed", "error_code": "truncated"}])])
    assert runs.run()[0] == []
    runs.put("d.mp4", "whole at last")
    assert runs.run()[0] == ["d.mp4"]
    assert runs.kept()["d.mp4"] == 2
    ends = {(os.path.basename(v["video_uri"]), v["status"]) for v in FrozenLedger.read(runs.out).videos().to_pylist()}
    assert ("d.mp4", "failed") not in ends
