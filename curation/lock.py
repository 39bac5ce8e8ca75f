"""Lock: one run owns an output at a time, by a lease that it renews and a fencing number that only grows."""

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from curation.storage import SCRATCH, Storage

LOCK = "_run/lock.json"
CLAIMS = "_run/locks"
LEASE_S = 120.0  # four missed heartbeats: longer than a pause of a busy head node, short enough to wait for by hand

Clock = Callable[[], float]


class OutputLocked(RuntimeError):
    """Another run owns the output.

    Attributes:
        owner: its record: host, pid, fence, heartbeat_s, lease_s.
    """

    def __init__(self, owner: dict[str, Any], now: float) -> None:
        age = max(0.0, now - float(owner["heartbeat_s"]))
        super().__init__(
            f"the output is locked by another run: process {owner['pid']} on {owner['host']}, last seen {age:.0f} s ago. "
            f"Wait for it, or stop it: the lock falls {owner['lease_s']:.0f} s after its last sign of life, at once if it died on this machine."
        )
        self.owner = owner


class LockLost(RuntimeError):
    """A later run has taken the output over; this one must write no more."""


class Lock:
    """An output held under `fence`; see `hold`."""

    def __init__(self, out: Storage, record: dict[str, Any], clock: Clock = time.time) -> None:
        self.out, self.record, self.clock = out, record, clock
        self.fence = int(record["fence"])

    def heartbeat(self) -> None:
        """Renews the lease.

        Raises:
            LockLost: a later run holds the output.
        """
        check_fence(self.out, self.fence)
        self.record = {**self.record, "heartbeat_s": self.clock()}
        self.out.replace(LOCK, _json(self.record))

    def release(self) -> None:
        """Gives the output free; nothing happens if a later run holds it."""
        if last_fence(self.out) == self.fence:
            self.record = {**self.record, "released": True}
            self.out.replace(LOCK, _json(self.record))


def acquire(out: str | os.PathLike[str] | Storage, lease_s: float = LEASE_S, clock: Clock = time.time) -> Lock:
    """Takes the output, from nobody, from a run that released it, that died on this machine, or whose lease is over.

    Each attempt claims the next fencing number by creating `_run/locks/<fence>.json`, which only one run can: two that take over at once
    cannot both win. (On object stores: within the limits of `Storage.create`.)

    Raises:
        OutputLocked: its owner is alive.
    """
    store = Storage.at(out)
    last = last_fence(store)
    if last and not _free(record := current(store, last), clock()):
        raise OutputLocked(record, clock())
    mine = {**_me(), "fence": last + 1, "lease_s": lease_s, "heartbeat_s": clock(), "released": False}
    if not store.create(_claim(last + 1), _json(mine)):
        raise OutputLocked(current(store, last_fence(store)), clock())
    store.replace(LOCK, _json(mine))
    for name in store.names(CLAIMS):
        if name < f"{last + 1:09d}":
            store.remove(f"{CLAIMS}/{name}")
    for name in store.names(SCRATCH):  # what killed runs left half written; one that is taken over may write no more anyway
        store.remove(f"{SCRATCH}/{name}")
    return Lock(store, mine, clock)


@contextmanager
def hold(out: str | os.PathLike[str] | Storage, lease_s: float = LEASE_S) -> Iterator[Lock]:
    """The output is ours inside the block; a thread renews the lease.

    Raises:
        OutputLocked: its owner is alive (exit code 6).
    """
    lock = acquire(out, lease_s)
    done = threading.Event()
    beat = threading.Thread(target=_beat, args=(lock, done), name="pan-lock", daemon=True)
    beat.start()
    try:
        yield lock
    finally:
        done.set()
        beat.join()
        lock.release()


def check_fence(out: Storage, fence: int) -> None:
    """Asked before every commit.

    Raises:
        LockLost: a run with a later fencing number has taken the output over.
    """
    last = last_fence(out)
    if last > fence:
        raise LockLost(f"run {last} has taken {out.root} over; run {fence} stops writing. What it has committed stays valid.")


def last_fence(out: Storage) -> int:
    """The highest fencing number ever claimed; 0 for a new output."""
    return max((int(Path(name).stem) for name in out.names(CLAIMS)), default=0)


def current(out: Storage, fence: int) -> dict[str, Any]:
    """The record of the run that claimed `fence`: its last heartbeat, or its claim where it has not come to that."""
    for name in (LOCK, _claim(fence)):
        if out.size(name) is not None:
            record: dict[str, Any] = json.loads(out.read(name))
            if record["fence"] == fence:
                return record
    raise LockLost(f"the claim {fence} on {out.root} vanished while it was read: another run is starting")


def _free(record: dict[str, Any], now: float) -> bool:
    """Released, its lease over (or its clock far from ours), or its process gone from this very machine."""
    if record["released"] or abs(now - float(record["heartbeat_s"])) > float(record["lease_s"]):
        return True
    here = _me()
    same_machine = all(record[key] == here[key] for key in ("host", "boot", "pids"))
    return same_machine and _started(int(record["pid"])) != record["started"]


def _me() -> dict[str, Any]:
    """Who we are: enough to tell later, on the same machine, whether this very process still lives."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    pids = Path("/proc/self/ns/pid")
    return {
        "host": socket.gethostname(),
        "boot": boot.read_text().strip() if boot.exists() else "",
        "pids": os.readlink(pids) if pids.is_symlink() else "",
        "pid": os.getpid(),
        "started": _started(os.getpid()),
    }


def _started(pid: int) -> str:
    """The process's start time in kernel ticks, which tells it from a later one of the same number; "" if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _beat(lock: Lock, done: threading.Event) -> None:
    while not done.wait(float(lock.record["lease_s"]) / 4):
        try:
            lock.heartbeat()
        except LockLost:
            return


def _claim(fence: int) -> str:
    return f"{CLAIMS}/{fence:09d}.json"


def _json(record: dict[str, Any]) -> bytes:
    return json.dumps(record, indent=1, sort_keys=True).encode()
