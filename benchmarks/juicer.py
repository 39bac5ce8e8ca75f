"""Data-Juicer 1.6.1 in its own virtual environment: sets it up, and runs its scene split and motion filter on videos."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

RUNNER = Path(__file__).with_name("data_juicer_runner.py")
LOCK = Path(__file__).with_name("data_juicer.lock")
DEFAULT_VENV = Path(__file__).parent.parent / "build" / "data-juicer-1.6.1"


@dataclass(frozen=True)
class PeerRun:
    """What Data-Juicer used for one video.

    Attributes:
        cpu_s: CPU-seconds (user and system, with children) of both operators, imports not counted.
        by_operator: the same, an operator.
        scenes: clips that its split found.
        peak_mb: peak resident memory in MB; None where the process was killed.
        error: why it did not finish, else None.
    """

    cpu_s: float
    by_operator: dict[str, float]
    scenes: int
    peak_mb: float | None
    error: str | None


def environment(venv: Path = DEFAULT_VENV) -> Path:
    """The Python of Data-Juicer's environment, set up on the first call.

    Raises:
        ValueError: a package could not be installed; pip's last lines say why.
    """
    python, mark = venv / "bin" / "python", venv / "installed.txt"
    wanted = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    if python.is_file() and mark.is_file() and mark.read_text() == wanted:
        return python
    print(f"setting up Data-Juicer 1.6.1 in {venv} (about 0.7 GB) ...", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    done = subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--requirement", str(LOCK)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        tail = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise ValueError(f"Data-Juicer could not be installed in {venv}: pip ended with {done.returncode}\n{tail}")
    mark.write_text(wanted)
    return python


def run(python: Path, video: Path, mode: str, memory_gb: float, timeout_s: float = 1800) -> PeerRun:
    """Both operators on one video in a fresh process; see `data_juicer_runner` for the modes "like" and "default"."""
    threads = {"OMP_NUM_THREADS": "1"} if mode == "like" else {}
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")} | threads
    with tempfile.TemporaryDirectory() as folder:
        command = [str(python), str(RUNNER), str(video.resolve()), folder, "--mode", mode, "--memory-gb", str(memory_gb)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=folder, timeout=timeout_s, check=False)
        except subprocess.TimeoutExpired:
            return PeerRun(0.0, {}, 0, None, f"no end within {timeout_s:.0f} s")
    return parse(done.stdout.splitlines(), done.returncode, done.stderr)


def parse(output: Sequence[str], code: int, stderr: str = "") -> PeerRun:
    """The runner's last line; without one, the process died (out of memory, most often) and that is the result."""
    if code or not output:
        last = (stderr.strip().splitlines() or ["no message"])[-1]
        return PeerRun(0.0, {}, 0, None, f"process ended with {code}: {last[:200]}")
    found = json.loads(output[-1])
    return PeerRun(sum(found["cpu_s"].values()), found["cpu_s"], found["scenes"], found["peak_mb"], found.get("error"))
