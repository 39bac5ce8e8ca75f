"""Whether the judge can be trained: a tiny Qwen2.5-VL of random weights learns to tell made screen recordings from made natural motion, under Ray Train."""

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

CLIPS, EPOCHS, WANTED = 240, 8, 0.9
#: Four pictures a clip and rank 8: some 14 000 weights learn, and a clip takes about 60 ms of one core.
SETTINGS = {"epochs": EPOCHS, "batch": 8, "rate": 0.005, "test_share": 0.3, "lora": {"rank": 8, "alpha": 16.0, "dropout": 0.0}}


def learned() -> dict[str, dict[str, Any]]:
    """Trains, prints the figures, returns them for the benchmark's last line.

    Raises:
        ValueError: the environment lacks what training needs.
    """
    try:
        import peft  # noqa: F401
        import ray
        import transformers  # noqa: F401
    except ImportError as fault:
        raise ValueError(f"--train needs the full environment: make install-full, then .venv-full/bin/python benchmarks/judge.py --train ({fault})") from fault
    from curation.judge_labels import read_labels
    from filters.content import PROPERTIES
    from pipelines import cluster, recipe
    from pipelines.judge_worth import text
    from pipelines.train_judge import Job, TrainJudge, train
    from tests.learned.made_clips import write_labels
    from tests.learned.tiny_qwen import build

    folder = Path(tempfile.mkdtemp(prefix="judge"))
    try:
        labels, model = write_labels(folder / "clips", CLIPS), build(folder / "tiny")
        sets = [f"vlm.model={model}", "vlm.dtype=float32", "vlm.max_pictures=4"]
        loaded = recipe.load("local", sets)
        job = Job(TrainJudge.model_validate(SETTINGS), loaded.vlm, loaded, labels.parent, tuple(read_labels(labels, PROPERTIES)))
        cluster.authenticate()
        cluster.connect(2)
        began = time.perf_counter()
        found = train(job, folder / "judge")
        print(f"{found['clips']} clips, {time.perf_counter() - began:.0f} s of a shared machine\n{text(found)}")
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
    row, loss = found["properties"]["screen_recording"], found["loss"]
    return {
        "trained_accuracy": {"value": row["accuracy"], "target": WANTED, "met": row["accuracy"] >= WANTED, "of": row["clips"], "interval": row["accuracy_95"]},
        "loss_last_of_first": {"value": round(loss[-1] / loss[0], 3), "target": 1.0, "met": loss[-1] < loss[0]},
    }
