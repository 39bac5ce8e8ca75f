"""Tests with vLLM and transformers, which only the full environment has: `make install-full`, then `.venv-full/bin/python -m pytest tests/learned`."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.learned.tiny_qwen import build

HERE = Path(__file__).parent
#: In the core environment nothing here is collected; `make test` runs both environments, and the second fails if it finds no tests.
collect_ignore_glob = [] if importlib.util.find_spec("vllm") else ["test_*.py"]
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny Qwen2.5-VL with random weights."""
    return build(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def served(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address up to /v1 of vLLM's own server with the tiny model, which it calls "tiny"; it takes pictures of up to 448 px a side."""
    log = tmp_path_factory.mktemp("server") / "log"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    quiet = {"VLLM_PLUGINS": "", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    # Without a GPU the sampler's log-probabilities would call a C++ compiler at the first request that wants them.
    quiet |= {"TORCHDYNAMO_DISABLE": "1", "VLLM_HOST_IP": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    order = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(tiny), "--served-model-name", "tiny", "--host", "127.0.0.1"]
    order += ["--port", str(port), "--dtype", "float32", "--max-model-len", "4096", "--enforce-eager", "--seed", "0", "--generation-config", "vllm"]
    order += ["--limit-mm-per-prompt", '{"image": 64, "video": 0}', "--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}']
    with log.open("w") as out:
        server = subprocess.Popen(order, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **quiet}, start_new_session=True)
    try:
        _wait(server, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _wait(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Until the server is healthy; its last words where it never is."""
    end = time.monotonic() + 500
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.5)
    raise RuntimeError(f"the server did not come up (exit {server.poll()}):\n{log.read_text()[-4000:]}")
