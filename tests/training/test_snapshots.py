"""Snapshots: they are there whole or not at all, and a damaged one is passed over."""

import errno
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from training.snapshot_faults import plain
from training.snapshots import MARKER, Snapshots, best, committed


def saved(folder: Path, steps: dict[int, float | None], keep_last: int = 9) -> Snapshots:
    snapshots = Snapshots(folder, keep_last=keep_last)
    for step, validation in steps.items():
        snapshots.save(step, {"a": torch.full((4,), float(step))}, {"step": step}, validation)
    snapshots.close()
    return snapshots


def read(snapshots: Snapshots) -> tuple[int, float] | None:
    found, held = snapshots.newest(), {"a": torch.zeros(4)}
    if found is None:
        return None
    snapshots.load(found, held)
    assert found.state == {"step": found.step}
    return found.step, held["a"][0].item()


def test_the_newest_is_read_and_what_was_copied_is_what_was_then(tmp_path: Path) -> None:
    assert read(Snapshots(tmp_path)) is None
    weight = torch.ones(4)
    snapshots = Snapshots(tmp_path)
    snapshots.save(1, {"a": weight}, {"step": 1})
    weight.fill_(7.0)  # while it is being written
    snapshots.close()
    assert read(Snapshots(tmp_path)) == (1, 1.0)
    saved(tmp_path, {2: None})
    assert read(Snapshots(tmp_path)) == (2, 2.0)


def test_without_its_marker_it_is_not_there(tmp_path: Path) -> None:
    saved(tmp_path, {1: None, 2: None})
    (tmp_path / "step_00000002" / MARKER).unlink()
    assert read(Snapshots(tmp_path)) == (1, 1.0)
    saved(tmp_path, {2: None})  # written anew over what was left
    assert read(Snapshots(tmp_path)) == (2, 2.0)


@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_a_damaged_one_is_passed_over_and_named(tmp_path: Path, damage: str) -> None:
    saved(tmp_path, {1: None, 2: None})
    file = next((tmp_path / "step_00000002").glob("*.distcp"))
    held = bytearray(file.read_bytes())
    held[len(held) // 2] ^= 1
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(held[:-1] if damage == "cut" else held)
    with pytest.warns(UserWarning, match=r"step 2 is passed over"):
        assert read(Snapshots(tmp_path)) == (1, 1.0)


def test_a_damaged_best_one_is_passed_over_for_the_next_best(tmp_path: Path) -> None:
    saved(tmp_path, {1: 0.5, 2: 0.3, 3: 0.9}, keep_last=3)
    file = next((tmp_path / "step_00000002").glob("*.distcp"))
    held = bytearray(file.read_bytes())
    held[len(held) // 2] ^= 1
    file.write_bytes(held)
    with pytest.warns(UserWarning, match=r"step 2 is passed over"):
        found = Snapshots(tmp_path).best()
    assert found is not None
    assert found.step == 1


def test_a_damaged_one_counts_no_more_and_those_written_after_it_was_found_are_kept(tmp_path: Path) -> None:
    """Steps 1 and 3 are damaged, the best and the newest of all: what follows on step 2 is not pruned for their sake."""
    saved(tmp_path, {1: 0.1, 2: 0.9, 3: 0.5})
    for step in (1, 3):
        next((tmp_path / f"step_0000000{step}").glob("*.distcp")).write_bytes(b"")
    snapshots = Snapshots(tmp_path, keep_last=1)
    with pytest.warns(UserWarning, match=r"step 3 is passed over"):
        assert read(snapshots) == (2, 2.0)
    with pytest.warns(UserWarning, match=r"step 1 is passed over"):
        assert snapshots.best() == committed(tmp_path)[0]
    saved(tmp_path, {1: 0.7}, keep_last=1)  # a step before that of the damaged newest
    assert [each.step for each in committed(tmp_path)] == [1, 2]


def test_what_a_killed_run_left_is_swept_and_what_is_being_written_is_not(tmp_path: Path) -> None:
    saved(tmp_path, {1: None, 2: None})
    (tmp_path / "step_00000002" / MARKER).unlink()
    snapshots = Snapshots(tmp_path)
    snapshots.save(3, {"a": torch.ones(4)}, {"step": 3})
    snapshots.sweep()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_00000001", "step_00000003"]
    assert read(snapshots) == (3, 1.0)


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    saved(tmp_path, {1: 0.9, 2: 0.3, 3: 0.5, 4: None, 5: 0.4}, keep_last=2)
    there = committed(tmp_path)
    assert [each.step for each in there] == [2, 4, 5]
    found = best(there)
    assert found is not None
    assert found.step == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_00000002", "step_00000004", "step_00000005"]


def test_a_marker_that_was_cut_off_is_passed_over_and_named(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path, keep_last=3)
    for step in (1, 2):
        snapshots.save(step, {"x": torch.full((3,), float(step))}, {}, 0.5)
    snapshots.settle()
    marker = tmp_path / "step_00000002" / MARKER
    marker.write_text(marker.read_text("utf-8")[:20])
    with pytest.warns(UserWarning, match="is no JSON"):
        found = snapshots.newest()
    assert found is not None
    assert found.step == 1


@pytest.mark.parametrize("lost", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_never_the_best_and_the_true_best_is_kept(tmp_path: Path, lost: float) -> None:
    saved(tmp_path, {1: lost, 2: 0.3, 3: lost, 4: 0.5, 5: lost}, keep_last=1)
    assert [each.step for each in committed(tmp_path)] == [2, 5]
    found = Snapshots(tmp_path).best()
    assert found is not None
    assert (found.step, found.validation) == (2, 0.3)


def test_where_no_validation_is_a_number_there_is_no_best_and_the_newest_are_kept(tmp_path: Path) -> None:
    saved(tmp_path, {1: math.nan, 2: None, 3: math.nan}, keep_last=2)
    assert [each.step for each in committed(tmp_path)] == [2, 3]
    assert Snapshots(tmp_path).best() is None


def test_a_disk_that_is_full_while_a_checkpoint_is_written_is_the_storages_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On one rank torch hides it behind a RuntimeError of its own, and both in a fault that is no Exception."""

    class Full:
        """A file of a full disk."""

        def write(self, data: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    snapshots = saved(tmp_path, {1: None})
    written = torch.distributed.checkpoint.filesystem._write_item

    def full(transforms: Any, stream: Any, *rest: Any) -> Any:
        stream.write = Full().write
        return written(transforms, stream, *rest)

    monkeypatch.setattr("torch.distributed.checkpoint.filesystem._write_item", full)
    snapshots = Snapshots(tmp_path)
    snapshots.save(2, {"a": torch.ones(4)}, {"step": 2})
    with pytest.raises(OSError, match="step_00000002 could not be written on rank 0: No space left on device") as met:
        snapshots.settle()
    assert met.value.errno == errno.ENOSPC
    assert [each.step for each in committed(tmp_path)] == [1]


@pytest.mark.parametrize(("held", "text"), [({"b": torch.zeros(4)}, "Missing key"), ({"a": torch.zeros(5)}, "Size mismatch")])
def test_a_checkpoint_of_other_parameters_is_the_users_fault(tmp_path: Path, held: dict[str, torch.Tensor], text: str) -> None:
    snapshots = saved(tmp_path, {1: None})
    found = snapshots.newest()
    assert found is not None
    assert found.tensors == {"a"}
    with pytest.raises(ValueError, match=rf"step_00000001 could not be read on rank 0: .*{text}.* take the run up with the settings that it began with"):
        snapshots.load(found, held)


def test_of_several_ranks_faults_the_storages_is_told_and_a_bug_stays_one() -> None:
    short = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598")
    told = plain(Path("step"), "written", {0: ZeroDivisionError("its absence"), 3: short})
    assert isinstance(told, OSError)
    assert "on rank 3: the file is shorter than what was written, as on a full disk" in str(told)
    told = plain(Path("step"), "written", {1: ZeroDivisionError("ours")})
    assert type(told) is RuntimeError
    assert str(told) == "checkpoint step could not be written on rank 1: ZeroDivisionError: ours"
