"""`pan plan`: a table or JSON where a training fits, code 2 with the reason where it does not, and clear words for wrong numbers."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from pipelines.plan import main
from training.model.card import CARD, Card, Part
from training.model.spec import SPECS


def test_the_table_has_every_part_of_memory(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", "pan_14b", "--gpus", "8", "--memory", "141"]) == 0
    shown = capsys.readouterr().out
    assert "decoder 19.551 B, vae 126.9 M, text 5.681 B, backbone 7.747 B, queries 0.9 M; 19.552 B learn" in shown
    head = next(line for line in shown.splitlines() if line.lstrip().startswith("replicate"))
    assert head.split()[4:11] == ["optimiser", "gradients", "weights", "activations", "frozen", "reserve", "total"]
    assert len(shown.splitlines()) > 6


def test_json_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--memory", "141", "--phase", "decoder", "--tflops", "1000", "--utilisation", "0.5", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["parameters"]["decoder"] == told["learning"] == 14_288_491_584
    best = told["options"][0]
    assert sum(size for part, size in best["memory"].items() if part != "total") == pytest.approx(best["memory"]["total"], abs=0.05)
    assert best["petaflops"] == pytest.approx(4.324, abs=0.001)
    assert best["seconds_a_step"] == pytest.approx(best["petaflops_executed"] * 1e15 / (best["sequence"] * 0.5e15), abs=0.01)
    assert best["windows_a_step"] == 8 // best["sequence"]


def test_what_cannot_fit_ends_with_2_and_says_what_would(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--gpus", "8", "--memory", "141", "--replicate", "8", "--shard", "1"]) == 2
    shown = capsys.readouterr()
    assert "does not fit: the least that any way takes is 4" in shown.out
    assert "would fit: the same GPUs with replicate 1 x shard 8" in shown.out
    assert "does not fit" in shown.err
    assert main(["--gpus", "1", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["fits"] is False


def test_a_folder_is_a_model_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = SPECS["debug"]
    (tmp_path / CARD).write_text(json.dumps(asdict(Card(format=1, model=spec, decoder=Part(), vae=Part(), text=Part(), backbone=Part()))))
    assert main(["--model", str(tmp_path), "--gpus", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == "debug"


def test_another_size_is_another_work(capsys: pytest.CaptureFixture[str]) -> None:
    works = []
    for size in ("832x480", "1280x720"):
        assert main(["--memory", "288", "--size", size, "--json"]) == 0
        works.append(json.loads(capsys.readouterr().out)["options"][0]["petaflops"])
    assert works[1] > 3 * works[0]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--model", "pan_14"], r"neither a model \(.*\) nor a folder with a model\.json; did you mean pan_14b\?"),
        (["--gpus", "0", "--phase", "third"], r"--gpus 0: .*; --phase third: input should be 'decoder' or 'joint'"),
        (["--size", "832"], "--size 832: WIDTHxHEIGHT in px is needed"),
        (["--size", "830x480"], "multiples of 16 and 16"),
        (["--gpus", "64", "--sequence", "64"], "sequence 64: there are only 40 heads of the decoder"),
        (["--utilisation", "1.5"], "a share of it up to 1"),
        (["--tflops", "0"], "--tflops 0 --utilisation 0.4: a speed above 0"),
        (["--tflops", "inf"], "a speed above 0"),
    ],
)
def test_wrong_numbers_are_told(arguments: list[str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        main(arguments)
