"""The job as a cluster runs it: `ray job submit` against a local head with token authentication."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.training.data import made_clips
from tests.training.data.made_latents import encode
from training.model.checkpoint import init_model, save_model
from training.model.spec import SPECS
from training.phases import read_history

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).with_name("ray"))


def free_ports(count: int) -> list[int]:
    """Ports outside Ray's own worker range (10002-19999) that nobody listens on."""
    found: list[int] = []
    for port in range(23000 + os.getpid() % 2000, 32000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no free ports")


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """A head with token authentication, in a folder of its own, ended by pid; yields the environment of a client."""
    temp = tempfile.mkdtemp(prefix="panh", dir="/tmp")
    gcs, dashboard, agent, agent_grpc, client, metrics = free_ports(6)
    token = "0123456789abcdef" * 4
    environment = {
        **{k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"},
        "HOME": temp,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    head = [RAY, "start", "--head", "--block", f"--port={gcs}", f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1"]
    head += [f"--dashboard-agent-listen-port={agent}", f"--dashboard-agent-grpc-port={agent_grpc}", f"--ray-client-server-port={client}"]
    head += [f"--metrics-export-port={metrics}", f"--temp-dir={temp}", "--num-cpus=2", "--object-store-memory=300000000", "--disable-usage-stats"]
    log = Path(temp) / "head.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(head, env=environment, stdout=sink, stderr=sink, start_new_session=True)
    try:
        yield {**environment, "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}", "HEAD_LOG": str(log)}
    finally:
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        for child in [*children, process]:
            try:
                os.kill(child.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        process.wait()
        shutil.rmtree(temp, ignore_errors=True)


def submit(environment: dict[str, str], *arguments: str, script: str = "curate") -> subprocess.CompletedProcess[str]:
    command = [RAY, "job", "submit", "--working-dir", str(ROOT), "--", "python", f"pipelines/{script}.py", *arguments]
    for _ in range(30):  # the head answers before the agent that starts jobs does
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, cwd=environment["HOME"])
        if "No available agent" not in done.stdout + done.stderr:
            break
        time.sleep(2)
    return done


def wait_until_up(environment: dict[str, str]) -> None:
    """Asks for the list of jobs until the head answers."""
    for _ in range(30):
        listed = subprocess.run([RAY, "job", "list"], env=environment, capture_output=True, text=True, timeout=60)
        if listed.returncode == 0:
            return
    raise AssertionError(listed.stderr[-2000:] + Path(environment["HEAD_LOG"]).read_text()[-2000:])


@pytest.mark.timeout(600)
def test_curate_under_ray_job_submit(cluster: dict[str, str], corpus: Path, tmp_path: Path) -> None:
    wait_until_up(cluster)
    out = tmp_path / "out"
    done = submit(cluster, str(corpus), "--out", str(out))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["totals"]["clips"] == 2
    assert manifest["summary"]["videos"] == {"duplicate": 1, "failed": 1, "ok": 3}
    assert json.loads((out / "_run" / "exit.json").read_text())["code"] == 0

    refused = submit(cluster, str(corpus), "--out", str(out), "--set", "split.sample_fps=2")
    assert refused.returncode == 1, "ray job submit flattens every failure to 1"
    assert json.loads((out / "_run" / "exit.json").read_text())["code"] == 2, "exit.json tells which it was"

    intruder = submit({**cluster, "RAY_AUTH_TOKEN": "f" * 64}, str(corpus), "--out", str(tmp_path / "other"))
    assert intruder.returncode != 0
    assert not (tmp_path / "other").exists()


@pytest.mark.timeout(600)
def test_train_under_ray_job_submit(cluster: dict[str, str], tmp_path: Path) -> None:
    model, clips, latents, out = (tmp_path / name for name in ("model", "clips", "latents", "out"))
    save_model(model, init_model(SPECS["debug"], seed=3))
    made_clips.published(clips, [made_clips.clip(tmp_path, v, 2, width=64) for v in range(3)])
    encode(clips, latents, model)
    wait_until_up(cluster)
    sets = ("loop.windows=2", "loop.validate_every=0", "loop.epochs=2", "loop.log_every=1", "data.workers=0")
    given = [str(out), "--shards", str(latents), "--model", str(model), *(word for each in sets for word in ("--set", each))]
    done = submit(cluster, *given, script="train")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert json.loads((out / "_run" / "exit.json").read_text())["code"] == 0
    assert read_history(out / "model") == ("decoder",)

    refused = submit(cluster, *given, "--set", "loop.seed=1", script="train")
    assert refused.returncode == 1, "ray job submit flattens every failure to 1"
    told = json.loads((out / "_run" / "exit.json").read_text())
    assert (told["code"], told["name"]) == (2, "usage"), "exit.json tells which it was"
    assert "is a run with seed 0, this one has 1" in told["reason"]

    absent = submit(cluster, *given[:-2], "--set", "workers.gpus=1", script="train")
    assert absent.returncode == 1
    assert json.loads((out / "_run" / "exit.json").read_text())["code"] == 4
