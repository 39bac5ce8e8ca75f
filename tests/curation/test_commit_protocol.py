"""The commit protocol: killed at every single write, twice, raced, duplicated or taken over, it leads to the same clips and the same bytes."""

import hashlib
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from curation import storage
from curation.ledger import FrozenLedger
from curation.lock import LockLost, OutputLocked, acquire
from curation.pack import manifest_files, pack
from curation.segments import DamagedSegment
from curation.shards import load_manifest
from tests.curation import made_rows as made

ROWS = made.corpus(videos=3, clips=2)
TIGHTER = made.PLAN.model_copy(update={"thresholds": {"motion": {"low": 0.5}}})

NUMBERS = st.lists(st.integers(0, len(ROWS) - 1), min_size=1, max_size=6, unique=True)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A place in memory where there is one: these tests write thousands of small files, and a killed process loses no page of the system's."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as path:
        yield Path(path)


def run(out: Path) -> None:
    """A whole run: curate and pack."""
    made.curate(out, ROWS)


def rejudge(out: Path) -> None:
    """Judges a finished output again: clips that move less than 0.5 go."""
    lock = acquire(out)
    ledger = FrozenLedger.read(out)
    kept = [row["clip_id"] for row in ledger.clips().to_pylist() if row["motion_flow"] >= 0.5]
    reasons = {row["clip_id"]: [] if row["motion_flow"] >= 0.5 else ["static"] for row in ledger.clips().to_pylist()}
    pack(ledger, kept, TIGHTER, reasons, {"kept": len(kept)}, lock.fence)
    lock.release()


def points(work: Callable[[Path], None], out: Path, start: Path | None = None) -> list[str]:
    """The names of all write points of `work`, in order."""
    fresh(out, start)
    storage.kill_at = 1 << 60
    storage.reached.clear()
    try:
        work(out)
    finally:
        storage.kill_at = 0
    return list(storage.reached)


def fresh(out: Path, start: Path | None) -> None:
    """`out` emptied, or as `start`."""
    shutil.rmtree(out, ignore_errors=True)
    if start is not None:
        shutil.copytree(start, out, symlinks=True)


def check_reader(out: Path) -> None:
    """Whoever reads the manifest, at whatever moment, finds each file that it names, with the bytes that it promises."""
    if (out / "manifest.json").exists():
        for entry in manifest_files(load_manifest(out)):
            assert hashlib.sha256((out / entry["path"]).read_bytes()).hexdigest() == entry["sha256"], entry["path"]


def test_the_hook_is_off_unless_asked_for() -> None:
    assert storage.kill_at == 0


@pytest.mark.slow
@pytest.mark.parametrize("work", [run, rejudge])
def test_killed_at_every_write_point_and_taken_up(work: Callable[[Path], None], folder: Path) -> None:
    start = None
    if work is rejudge:
        start = folder / "start"
        fresh(start, None)
        run(start)
    names = points(work, folder / "reference", start)
    wanted = made.published(folder / "reference")
    out = folder / "out"
    for point, name in enumerate(names, 1):
        fresh(out, start)
        assert made.die_at(point, lambda: work(out)), f"point {point} ({name}) was not reached"
        check_reader(out)
        work(out)
        assert made.published(out) == wanted, f"killed at point {point}: {name}"
    fresh(out, start)
    assert not made.die_at(len(names) + 1, lambda: work(out))
    assert len(names) > (100 if work is run else 80)


@pytest.mark.parametrize("seed", range(5))
def test_killed_again_and_again(seed: int, folder: Path) -> None:
    chance = random.Random(seed)
    out = folder / "again"
    fresh(out, None)
    kills = 0
    while kills < 5 and made.die_at(chance.randint(1, 150), lambda: run(out)):
        kills += 1
        check_reader(out)
    run(out)
    fresh(folder / "reference", None)
    run(folder / "reference")
    assert made.published(out) == made.published(folder / "reference")


def test_a_second_run_writes_nothing(folder: Path) -> None:
    out = folder / "twice"
    run(out)
    before = made.published(out)
    ledger = sorted(p.name for p in (out / "_run/ledger").iterdir())
    stamps = {p: p.stat().st_mtime_ns for p in (out / "packs").rglob("*")}
    run(out)
    assert made.published(out) == before
    assert sorted(p.name for p in (out / "_run/ledger").iterdir()) == ledger
    assert {p: p.stat().st_mtime_ns for p in (out / "packs").rglob("*")} == stamps


def test_the_block_layout_leaves_no_trace(folder: Path) -> None:
    wanted = None
    for number, flush_rows in enumerate((1, 3, 100)):
        out = folder / f"layout{number}"
        rows = list(ROWS)
        random.Random(number).shuffle(rows)
        made.commit(out, rows, fence=0, flush_rows=flush_rows)
        run(out)
        wanted = wanted or made.published(out)
        assert made.published(out) == wanted


def test_a_duplicated_task_commits_once(folder: Path) -> None:
    out = folder / "duplicate"
    first = made.commit(out, ROWS, 0)
    before = {p.name: p.read_bytes() for p in (out / "_run/ledger").iterdir()}
    again = [{**row, "stats": row["stats"].replace('"cpu_s": ', '"cpu_s": 1')} if row.get("stats") else row for row in ROWS]
    assert again != ROWS
    assert made.commit(out, again, 9) == first
    assert {p.name: p.read_bytes() for p in (out / "_run/ledger").iterdir()} == before


def test_a_killed_pack_keeps_its_frozen_segments(folder: Path) -> None:
    """A caption that a late, duplicated task commits with other words after the pack has begun changes nothing."""
    out, start = folder / "late", folder / "start_late"
    made.commit(start, ROWS, 0, flush_rows=1)
    frozen = points(run, out, start).index("renamed _run/pack_plan.json") + 1
    wanted = made.published(out)
    fresh(out, start)
    assert made.die_at(frozen, lambda: run(out))
    made.commit(out, [{**row, "caption": "other words"} for row in ROWS if row["kind"] == "clip"], 5, flush_rows=1)
    changed = {row["caption"] for row in FrozenLedger.read(out).clips().to_pylist()}
    assert "other words" in changed  # some of the late rows would win if they were asked
    run(out)
    assert made.published(out) == wanted


def test_two_runs_on_one_output(folder: Path) -> None:
    out = folder / "two"
    lock = acquire(out, clock=lambda: 1000.0)
    with pytest.raises(OutputLocked, match="another run") as refused:
        acquire(out, clock=lambda: 1001.0)
    assert refused.value.owner["fence"] == lock.fence == 1


def test_takeover_after_the_lease_fences_the_old_run_off(folder: Path) -> None:
    out = folder / "takeover"
    old = acquire(out, lease_s=60, clock=lambda: 1000.0)
    made.commit(out, ROWS[:2], old.fence)
    new = acquire(out, lease_s=60, clock=lambda: 1061.0)
    assert (old.fence, new.fence) == (1, 2)
    with pytest.raises(LockLost, match="run 2 has taken"):
        made.commit(out, ROWS[2:4], old.fence)
    with pytest.raises(LockLost):
        old.heartbeat()
    old.release()  # must not set the new run's output free
    with pytest.raises(OutputLocked):
        acquire(out, lease_s=60, clock=lambda: 1062.0)
    ledger = FrozenLedger.read(out)
    with pytest.raises(LockLost):
        pack(ledger, [], made.PLAN, {c: ["static"] for c in ledger.clips()["clip_id"].to_pylist()}, fence=old.fence)
    assert not (out / "manifest.json").exists()
    made.commit(out, ROWS, new.fence)
    new.release()
    run(out)
    run(folder / "alone")
    assert made.published(out) == made.published(folder / "alone")


def test_damaged_clip_bytes_are_done_again(folder: Path) -> None:
    """Found when the pack reads them: that run ends with the fault of the storage, the next one mends it."""
    out = folder / "damaged"
    lock = acquire(out)
    segments = made.commit(out, ROWS, lock.fence)
    lock.release()
    tar = next(path for path in (out / "_run/segments" / f"{s}.tar" for s in segments) if path.exists())
    data = bytearray(tar.read_bytes())
    data[600] ^= 1
    tar.write_bytes(data)
    with pytest.raises(DamagedSegment, match=tar.stem):
        run(out)
    assert not (out / "manifest.json").exists()
    run(out)
    run(folder / "undamaged")
    assert made.published(out) == made.published(folder / "undamaged")


class Interleavings(RuleBasedStateMachine):
    """Any order of commits, repeats, kills, packs and takeovers of two writers ends where an undisturbed run ends."""

    @initialize()
    def begin(self) -> None:
        self.home = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        self.out, self.fences = self.home / "out", [0]

    @rule(numbers=NUMBERS, flush_rows=st.integers(1, 4), writer=st.integers(0, 1))
    def commit(self, numbers: list[int], flush_rows: int, writer: int) -> None:
        fence = self.fences[-1 - writer % len(self.fences)]
        try:
            made.commit(self.out, [ROWS[n] for n in numbers], fence, flush_rows)
        except LockLost:
            assert fence < self.fences[-1]

    @rule(point=st.integers(1, 40), numbers=NUMBERS)
    def commit_killed(self, point: int, numbers: list[int]) -> None:
        made.die_at(point, lambda: made.commit(self.out, [ROWS[n] for n in numbers], self.fences[-1], 2))

    @rule(point=st.integers(1, 250))
    def run_killed(self, point: int) -> None:
        self.fences = [0] if not self.out.exists() else self.fences
        made.die_at(point, lambda: run(self.out))
        self.fences.append(max(int(p.stem) for p in [*(self.out / "_run/locks").glob("*.json"), Path("0")]))

    @invariant()
    def readers_see_whole_packs(self) -> None:
        if hasattr(self, "out"):
            check_reader(self.out)

    def teardown(self) -> None:
        if hasattr(self, "out"):
            run(self.out)
            run(self.home / "alone")
            assert made.published(self.out) == made.published(self.home / "alone")
            shutil.rmtree(self.home)


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(max_examples=8, stateful_step_count=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
