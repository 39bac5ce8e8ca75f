"""The lock: one owner at a time; a dead one's lock falls at once on this machine and after its lease elsewhere."""

import json
import os
from pathlib import Path

import pytest

from curation.lock import LOCK, LockLost, OutputLocked, acquire, check_fence, hold, last_fence
from curation.storage import Storage


def test_the_second_is_told_who_holds_it(tmp_path: Path) -> None:
    with hold(tmp_path) as lock:
        assert lock.fence == 1
        with pytest.raises(OutputLocked, match=f"process {os.getpid()} on ") as refused, hold(tmp_path):
            raise AssertionError("two hold it")
        assert refused.value.owner["pid"] == os.getpid()
    with hold(tmp_path) as lock:
        assert lock.fence == 2


def test_it_is_released_when_the_run_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), hold(tmp_path):
        raise ZeroDivisionError
    acquire(tmp_path).release()


def elsewhere(out: Path, **changes: object) -> None:
    """Makes the lock another machine's."""
    record = json.loads((out / LOCK).read_text())
    (out / LOCK).write_text(json.dumps({**record, "host": "elsewhere", **changes}))


def test_another_machines_lock_falls_after_its_lease(tmp_path: Path) -> None:
    acquire(tmp_path, lease_s=60, clock=lambda: 1000.0)
    elsewhere(tmp_path, pid=999_999_999)
    with pytest.raises(OutputLocked, match="on elsewhere, last seen 59 s ago"):
        acquire(tmp_path, clock=lambda: 1059.0)
    assert acquire(tmp_path, clock=lambda: 1061.0).fence == 2


def test_a_heartbeat_renews_the_lease(tmp_path: Path) -> None:
    now = [1000.0]
    lock = acquire(tmp_path, lease_s=60, clock=lambda: now[0])
    now[0] = 1050.0
    lock.heartbeat()
    elsewhere(tmp_path)
    with pytest.raises(OutputLocked):
        acquire(tmp_path, clock=lambda: 1100.0)


def test_a_process_that_died_here_holds_nothing(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        acquire(tmp_path)
        os._exit(0)
    os.waitpid(child, 0)
    assert acquire(tmp_path).fence == 2


def test_what_a_killed_run_left_half_written_goes(tmp_path: Path) -> None:
    Storage(tmp_path).create("_run/tmp/half", b"x")
    acquire(tmp_path)
    assert Storage(tmp_path).names("_run/tmp") == []


def test_a_clock_that_jumped_far_back_does_not_lock_for_ever(tmp_path: Path) -> None:
    acquire(tmp_path, lease_s=60, clock=lambda: 9e9)
    assert acquire(tmp_path, lease_s=60, clock=lambda: 1000.0).fence == 2


def test_a_claim_without_a_lock_file_counts(tmp_path: Path) -> None:
    """Killed between the claim and lock.json: its claim is its record."""
    acquire(tmp_path, lease_s=60, clock=lambda: 1000.0)
    (tmp_path / LOCK).unlink()
    with pytest.raises(OutputLocked):
        acquire(tmp_path, clock=lambda: 1001.0)


def test_the_fence_stops_the_one_that_was_taken_over(tmp_path: Path) -> None:
    old = acquire(tmp_path, lease_s=60, clock=lambda: 1000.0)
    acquire(tmp_path, lease_s=60, clock=lambda: 2000.0)
    assert last_fence(Storage(tmp_path)) == 2
    check_fence(Storage(tmp_path), 2)
    with pytest.raises(LockLost, match="run 2 has taken"):
        check_fence(Storage(tmp_path), old.fence)
