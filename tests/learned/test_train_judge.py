"""The judge is trained on a tiny model: the loss falls, held-out screens are told from nature, and vLLM with the adapter says what the trainer says."""

import json
import math
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from curation.judge_labels import frames_of_label, read_labels
from curation.limits import Limits
from curation.shots import SplitConfig
from curation.vlm import VlmConfig
from curation.vlm_engine import Engine
from filters.content import PROPERTIES, ContentSettings
from filters.content_vlm import Asked, margin, question
from pipelines import recipe
from pipelines.judge_model import JudgeModel, LoraConfig
from pipelines.train_judge import Job, TrainJudge, train
from tests.learned.made_clips import write_labels

CLIPS = 160


@pytest.fixture(scope="module")
def job(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    labels = write_labels(tmp_path_factory.mktemp("clips"), CLIPS)
    loaded = recipe.load("local", [f"vlm.model={tiny}", "vlm.dtype=float32", "vlm.max_pictures=4", "vlm.max_model_len=1024"])
    settings = TrainJudge(epochs=6, batch=8, rate=0.005, test_share=0.3, lora=LoraConfig(rank=8, alpha=16.0, dropout=0.0))
    return Job(settings, loaded.vlm, loaded, labels.parent, tuple(read_labels(labels, PROPERTIES)))


@pytest.fixture(scope="module")
def trained(job: Job, ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("judge")
    return out, train(job, out)


def test_it_learns_screens(trained: tuple[Path, dict[str, Any]]) -> None:
    out, found = trained
    assert found["loss"][-1] < 0.6 * found["loss"][0]
    row = found["properties"]["screen_recording"]
    assert row["accuracy"] >= 0.85
    assert row["recall_95"][0] <= row["recall"] <= row["recall_95"][1]
    assert json.loads((out / "evaluation.json").read_text())["properties"] == found["properties"]
    assert not found["skipped"]


def test_vllm_with_the_adapter_gives_the_trainers_margins_and_another_verdict(job: Job, trained: tuple[Path, dict[str, Any]]) -> None:
    out, _ = trained
    clips = job.part("test")[:6]
    frames = [frames_of_label(clip, job.folder, SplitConfig(), Limits()) for clip in clips]
    questions = [question("screen_recording", shown, f"{k}") for k, shown in enumerate(frames)]
    adapted = job.vlm.model_copy(update={"adapter": str(out)})
    reference = JudgeModel(job.vlm, LoraConfig(), out)
    reference.network.eval()
    wanted = [float(reference.margin(one).detach()) for one in questions]
    said = {name: _margins(config, questions) for name, config in (("plain", job.vlm), ("adapted", adapted))}
    assert said["adapted"] == pytest.approx(wanted, abs=2e-3)
    assert np.abs(np.subtract(said["plain"], said["adapted"])).max() > 0.2
    assert [m > 0 for m in said["plain"]] != [m > 0 for m in said["adapted"]]


def _margins(config: VlmConfig, questions: list[Any]) -> list[float]:
    engine = Engine(config)
    try:
        found = [margin(answer) for answer in engine.answer(questions)]
    finally:
        engine.runner.close()
    assert all(value is not None and math.isfinite(value) for value in found)
    return [float(value) for value in found if value is not None]


def test_content_takes_the_calibration_beside_the_adapter_and_refuses_another_models(job: Job, trained: tuple[Path, dict[str, Any]]) -> None:
    out, _ = trained
    adapted = job.vlm.model_copy(update={"adapter": str(out)})
    lines = Asked(ContentSettings(backend="vlm", vlm=adapted), vlm=_Silent()).lines
    assert set(lines) == {"screen_recording"}
    with pytest.raises(ValueError, match="was fitted for model"):
        Asked(ContentSettings(backend="vlm", calibration=str(out / "calibration.json"), vlm=job.vlm.model_copy(update={"model": "other"})), vlm=_Silent())


@pytest.mark.timeout(900)  # two groups of workers come up one after the other, each importing torch and transformers
def test_two_workers_share_what_they_learn_and_go_on_after_one_is_killed(job: Job, ray_local: None, tmp_path: Path) -> None:
    """An odd number of clips and one that is no video: no worker waits for another's; the killed one's epoch is done again from the last checkpoint."""
    labels = write_labels(tmp_path / "clips", 41)
    (labels.parent / "0003.mp4").write_bytes(b"no video")
    settings = job.settings.model_copy(update={"workers": 2, "epochs": 3, "batch": 4, "failures": 1, "test_share": 0.2, "calibration_share": 0.0})
    shared = Job(settings, job.vlm, job.recipe, labels.parent, tuple(read_labels(labels, PROPERTIES)))
    out = tmp_path / "out"
    killer = Killer(out / "run")
    killer.start()
    found = train(shared, out)
    killer.join(10)
    assert killer.killed
    assert found["loss"][-1] < found["loss"][0]
    assert [text.split(":")[0] for text in found["skipped"]] == ["0003.mp4"]
    assert (out / "adapter_model.safetensors").is_file()


class Killer(threading.Thread):
    """Kills one of the training workers as soon as the first epoch's checkpoint lies on disk."""

    def __init__(self, run: Path) -> None:
        super().__init__(daemon=True)
        self.run_folder, self.killed = run, False

    def run(self) -> None:
        end = time.monotonic() + 240
        while time.monotonic() < end and not list(self.run_folder.glob("train_judge/checkpoint_*/progress.json")):
            time.sleep(0.05)
        workers = [p for p in psutil.process_iter(["cmdline"]) if "RayTrainWorker" in " ".join(p.info["cmdline"] or [])]
        if workers:
            workers[-1].kill()
            self.killed = True


class _Silent:
    def answer(self, questions: Any) -> list[Any]:
        return []
