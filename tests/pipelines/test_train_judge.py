"""Training the judge, without a model: the split by source, label weights, the schedule, calibration, figures with intervals; and the user's mistakes."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from curation.judge_labels import LabelledClip
from filters.content_vlm import Line
from pipelines import recipe
from pipelines.judge_worth import calibrated, evaluated, text
from pipelines.train_judge import PARTS, Job, TrainJudge, main, schedule


def clip(source: int, **labels: bool) -> LabelledClip:
    return LabelledClip.model_validate({"clip": {"video": f"{source}.mp4"}, "source": f"film {source}", "labels": labels})


def job(clips: list[LabelledClip], **settings: object) -> Job:
    loaded = recipe.load("local")
    return Job(TrainJudge(**settings), loaded.vlm, loaded, Path(), tuple(clips))  # type: ignore[arg-type]


def test_no_source_stands_in_two_parts_and_nothing_is_lost() -> None:
    clips = [clip(k % 60, lecture=bool(k % 2)) for k in range(180)]
    parts = {name: job(clips, test_share=0.3, calibration_share=0.2).part(name) for name in PARTS}
    groups = [{c.group for c in part} for part in parts.values()]
    assert sum(len(part) for part in parts.values()) == 180
    assert len(groups[0] | groups[1] | groups[2]) == sum(map(len, groups))
    assert all(groups)


def test_rare_labels_weigh_as_much_as_common_ones() -> None:
    clips = [clip(k, lecture=k % 10 == 0, low_quality=True) for k in range(400)]
    made = job(clips)
    weights, count = made.weights(), {truth: sum(c.labels["lecture"] is truth for c in made.part("train")) for truth in (True, False)}
    assert weights["lecture", True] * count[True] == pytest.approx(weights["lecture", False] * count[False])
    assert weights["low_quality", True] == 0.5  # labelled one way only: nothing to weigh it against
    assert set(job(clips, balance=False).weights().values()) == {1.0}


def test_the_rate_rises_and_falls() -> None:
    rates = [schedule(k, 100) for k in range(100)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[-1] < 0.01


def answers(margins: list[float], truth: list[bool], clips_a_source: int = 1) -> list[dict[str, object]]:
    return [
        {"group": f"film {k // clips_a_source}", "labels": {"lecture": t}, "margins": {"lecture": m}}
        for k, (m, t) in enumerate(zip(margins, truth, strict=True))
    ]


def test_a_property_that_is_labelled_one_way_only_gets_no_line() -> None:
    assert set(calibrated(answers([1.0, -1.0], [True, False]))) == {"lecture"}
    assert calibrated(answers([1.0, -1.0], [True, True])) == {}


def test_figures_and_their_intervals() -> None:
    rng = np.random.default_rng(0)
    truth = [bool(v) for v in rng.random(400) < 0.4]
    margins = [(2.0 if t else -2.0) * (1 if rng.random() < 0.9 else -1) for t in truth]
    row = evaluated(answers(margins, truth), {})["lecture"]
    right = [t for m, t in zip(margins, truth, strict=True) if m > 0]
    assert row["precision"] == round(sum(right) / len(right), 4)
    assert row["recall"] == round(sum(right) / sum(truth), 4)
    assert row["precision_95"][0] < row["precision"] < row["precision_95"][1]
    assert 0.05 < row["precision_95"][1] - row["precision_95"][0] < 0.15
    few = evaluated(answers(margins, truth, clips_a_source=40), {})["lecture"]
    assert few["sources"] == 10
    assert evaluated(answers(margins, truth), {"lecture": Line(offset=-50.0)})["lecture"]["recall"] == 0.0
    assert evaluated(answers(margins, truth), {"lecture": Line(offset=-50.0)})["lecture"]["precision"] is None


def test_the_table_shows_what_is_undefined_as_such() -> None:
    found = {"properties": evaluated(answers([-1.0, -2.0], [False, False]), {}), "loss": [0.7, 0.5], "skipped": []}
    line = text(found).splitlines()[1].split()
    assert line[:4] == ["lecture", "2", "-", "-"]
    assert "0.700, 0.500" in text(found)


@pytest.mark.parametrize(
    ("lines", "options", "message"),
    [
        (["{}"], ["--set", 'vlm.model=""'], "vlm.model is empty"),
        (["{}"], ["--set", "vlm.model=m"], "line 1: clip"),
        (None, ["--set", "vlm.model=m"], "cannot be read"),
        (["{}"], ["--set", "vlm.model=m", "--train", "epoch=3"], "epoch"),
    ],
)
def test_a_users_mistake_ends_with_2_and_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: object, options: list[str], message: str) -> None:
    path = tmp_path / "labels.jsonl"
    if lines is not None:
        path.write_text("\n".join(map(str, lines)) + "\n")
    assert main([str(path), "--out", str(tmp_path / "out"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# A trainer whose fit has begun, and is told to stop.
STOPPED = """
import os, signal, sys, time
from pipelines import cluster, train_judge

class Trainer:
    def fit(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(600)

cluster.connect = lambda cpus: None
train_judge.read_labels = lambda path, names: []
train_judge.train = lambda job, out: cluster.fitted(Trainer())
sys.exit(train_judge.main(sys.argv[1:]))
"""


def test_ctrl_c_ends_a_training_at_once_and_says_how_to_go_on(tmp_path: Path) -> None:
    given = ["a b.jsonl", "--out", str(tmp_path / "out"), "--set", "vlm.model=m", "--train", "epochs=3"]
    told = subprocess.run([sys.executable, "-c", STOPPED, *given], capture_output=True, text=True, timeout=120, check=False)
    assert told.returncode == 75, told.stderr
    left = json.loads((tmp_path / "out" / "_run" / "exit.json").read_text("utf-8"))
    again = shlex.split(left["resume_command"])
    assert (left["name"], again[3:6]) == ("interrupted", given[:3])
    assert {"--recipe", "pan", "vlm.model=m", "epochs=3"} <= set(again)
