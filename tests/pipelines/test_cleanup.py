"""Cleanup: whatever a killed run leaves is found, nothing else is; named first, removed on demand, never under a run that lives."""

import json
from pathlib import Path

import pytest

from curation.lock import OutputLocked, acquire
from curation.plan import write_plan
from curation.storage import SCRATCH
from curation.verify import verify
from pipelines.cleanup import collect, text
from tests.curation import made_rows as made

ROWS = made.corpus(videos=4)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A published output with one orphan of each kind."""
    write_plan(tmp_path, {"inputs": []})
    made.curate(tmp_path, ROWS)
    (tmp_path / SCRATCH).mkdir(exist_ok=True)
    for name, data in ((f"{SCRATCH}/half", b"12"), (f"_run/segments/{'0' * 32}.tar", b"345"), ("packs/0123456789ab/train/pan-train-000000.tar", b"6789")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return tmp_path


def files(out: Path) -> set[str]:
    return {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file() and "lock" not in p.name and "locks" not in p.parts}


ORPHANS = [("pack", "packs/0123456789ab", 1, 4), ("scratch", f"{SCRATCH}/half", 1, 2), ("segment", f"_run/segments/{'0' * 32}.tar", 1, 3)]


def test_orphans_are_named_and_nothing_is_changed(out: Path) -> None:
    before = files(out)
    told = collect(str(out))
    assert [tuple(o.values()) for o in told["orphans"]] == ORPHANS
    assert (told["files"], told["bytes"], told["deleted"]) == (3, 9, False)
    assert "add --delete" in text(told)
    assert files(out) == before


def test_deleted_are_the_orphans_alone(out: Path) -> None:
    before = files(out)
    told = collect(str(out), delete=True)
    assert sorted(o["name"] for o in told["orphans"]) == sorted(name for _, name, _, _ in ORPHANS)
    assert before - files(out) == {"packs/0123456789ab/train/pan-train-000000.tar", ORPHANS[1][1], ORPHANS[2][1]}
    assert not (out / "packs/0123456789ab").exists()
    assert verify(out).problems == []
    assert collect(str(out))["orphans"] == []
    assert text(collect(str(out))).endswith("nothing is left over")


def test_an_unfinished_pack_stays(out: Path) -> None:
    plan = json.loads((out / "_run/pack_plan.json").read_text())
    (out / "_run/pack_plan.json").write_text(json.dumps({**plan, "pack": "0123456789ab"}))
    assert [o["kind"] for o in collect(str(out))["orphans"]] == ["scratch", "segment"]


def test_nothing_is_removed_under_a_run_that_lives(out: Path) -> None:
    lock = acquire(out)
    before = files(out)
    with pytest.raises(OutputLocked):
        collect(str(out), delete=True)
    assert files(out) | {ORPHANS[1][1]} == before | {ORPHANS[1][1]}
    lock.release()


@pytest.mark.parametrize("point", range(1, 26, 4))
def test_what_a_run_killed_anywhere_leaves_is_removed_and_the_next_run_gives_the_same(point: int, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    made.curate(whole, ROWS)
    out = tmp_path / "out"
    write_plan(out, {"inputs": []})
    assert made.die_at(point, lambda: made.curate(out, ROWS))
    collect(str(out), delete=True)
    made.curate(out, ROWS)
    assert made.published(out) == made.published(whole)


def test_a_folder_that_is_no_output_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not an output"):
        collect(str(tmp_path))
