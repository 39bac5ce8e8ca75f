"""Tests with vLLM and transformers, which only the full environment has: `make install-full`, then `.venv-full/bin/python -m pytest tests/learned`."""

import importlib.util
import os
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
