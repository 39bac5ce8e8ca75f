"""pan simulate: a checkpoint, an image and actions become a film; what is wrong is told before a model is loaded."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipelines import simulate
from tests.pipelines.films import times
from tests.training.made_world import DEBUG, PANDORA, wider, world
from tests.training.model.worlds import bpe
from training.model.checkpoint import init_model, save_model
from training.model.glp import GLP
from training.model.spec import ModelSpec
from training.sampling import Sampling

ROOT = Path(__file__).parents[2]
FEW = Sampling(steps=2)


def run(*arguments: str) -> int:
    return simulate.main(list(arguments))


def test_a_film_from_the_command_line(debug_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "film.mp4"
    command = [sys.executable, "-m", "pipelines.cli", "simulate", str(debug_model / "model"), "--image", str(debug_model / "image.png")]
    actions = ["--action", "go left", "--action", "stop", "--action", "go on"]
    done = subprocess.run(
        [*command, *actions, "--steps", "2", "--out", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{out}: 25 frames, 1.6 s"
    assert times(out) == pytest.approx([k / 16 for k in range(1 + 3 * 8)])
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


def test_a_new_model_makes_a_film_before_it_has_learnt_anything(debug_model: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "model", init_model(DEBUG))
    out = tmp_path / "film.mp4"
    assert run(str(tmp_path / "model"), "--image", str(debug_model / "image.png"), "--action", "go", "--steps", "2", "--out", str(out)) == 0
    assert len(times(out)) == 1 + 8


@pytest.mark.parametrize(("spec", "steps"), [(wider(decoder=replace(DEBUG.decoder, state_dim=None)), 2), (PANDORA, 3)], ids=["texts", "pandora"])
def test_models_of_other_kinds_make_films_too(spec: ModelSpec, steps: int, debug_model: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "model", world(spec, states=spec is PANDORA))
    out = tmp_path / "film.mp4"
    given = ["--image", str(debug_model / "image.png"), "--out", str(out), "--steps", str(steps), "--solver", "unipc", "--guidance", "1"]
    assert run(str(tmp_path / "model"), *given, "--action", "go left", "--action", "stop") == 0
    assert len(times(out)) == 1 + 2 * 8


def test_the_same_seed_gives_the_same_bytes(debug_model: Path, tmp_path: Path) -> None:
    films = []
    given = [str(debug_model / "model"), "--image", str(debug_model / "image.png"), "--action", "go", "--steps", "2"]
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        out = tmp_path / f"{name}.mp4"
        assert run(*given, "--seed", seed, "--out", str(out)) == 0
        films.append(out.read_bytes())
    assert films[0] == films[1]
    assert films[0] != films[2]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"--action": None}, "there is no action"),
        ({"--action": "  "}, "action 1 of 1 is empty"),
        ({"--action": "go " * 3000}, "action 1 of 1 has 9000 characters"),
        ({"--action": "go\x07"}, "cannot be printed"),
        ({"--negative": "dull " * 1000}, "--negative has 5000 characters"),
        ({"--negative": "dull\x07"}, "--negative, 'dull\\\\x07', holds signs that cannot be printed"),
        ({"--seed": "-1"}, "seed -1: it must lie in"),
        ({"--seed": str(2**63)}, f"seed {2**63}: it must lie in"),
        ({"--image": "nowhere.png"}, "--image nowhere.png cannot be read: No such file or directory"),
        ({"--image": "{folder}/model/model.json"}, "not a picture; give a PNG, JPEG or WebP file"),
        ({"--image": "{folder}/cut.png"}, "cannot be read"),
        ({"--out": "film.avi"}, "a film is an MP4"),
        ({"--out": "nowhere/film.mp4"}, "there is no folder nowhere"),
        ({"--steps": "3"}, "--steps 3: debug denoises a chunk in 2 places of its window; give a multiple of 2"),
        ({"--steps": "0"}, "steps 0"),
        ({"--solver": "heun"}, "there are euler and unipc"),
        ({"--size": "60x64"}, "--size 60x64: width and height must be multiples of 16 and 16"),
        ({"--size": "large"}, "give WIDTHxHEIGHT"),
        ({"checkpoint": "{folder}"}, "no model.json there"),
    ],
)
def test_what_is_wrong_is_told_before_a_model_is_loaded(changed: dict[str, str | None], told: str, debug_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def loaded(*_: object) -> GLP:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(simulate, "loaded", loaded)
    whole = (debug_model / "image.png").read_bytes()
    (debug_model / "cut.png").write_bytes(whole[: len(whole) // 2])
    given = {"checkpoint": "{folder}/model", "--image": "{folder}/image.png", "--action": "go", "--out": "{folder}/film.mp4"} | changed
    arguments = [str(given.pop("checkpoint"))] + [word for name, value in given.items() if value is not None for word in (name, value)]
    with pytest.raises(ValueError, match="(?s)" + told.replace("(", r"\(")):
        run(*(argument.replace("{folder}", str(debug_model)) for argument in arguments))
    assert not (debug_model / "film.mp4").exists()


def test_a_bad_action_costs_no_heavy_import(debug_model: Path) -> None:
    code = (
        "import sys\nfrom pipelines import simulate\n"
        f"try: simulate.main([{str(debug_model / 'model')!r}, '--image', 'nowhere.png', '--action', 'go', '--out', '/tmp/film.mp4'])\n"
        "except ValueError as error: print(error, sorted({'torch', 'transformers', 'av'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.stdout == "--image nowhere.png cannot be read: No such file or directory []\n", done.stderr


def test_another_shift_than_trainings_is_warned_of(debug_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [str(debug_model / "model"), "--image", str(debug_model / "image.png"), "--action", "go", "--steps", "4"]
    with warnings.catch_warnings(record=True) as others:
        assert run(*given, "--shift", "3", "--out", str(tmp_path / "a.mp4")) == 0
    assert others == []  # said once, in the command's own words
    assert "pan: warning: --shift 3, but debug was trained with shift 5" in capsys.readouterr().err
    assert run(*given, "--shift", "5", "--out", str(tmp_path / "b.mp4")) == 0
    assert "warning" not in capsys.readouterr().err
    assert (tmp_path / "a.mp4").read_bytes() != (tmp_path / "b.mp4").read_bytes()


def planned(model: Path, folder: Path, *actions: str, negative: str = "") -> simulate.Plan:
    return simulate.planned(str(model), str(folder / "image.png"), actions, str(folder / "film.mp4"), None, replace(FEW, negative=negative))


def test_a_text_that_will_be_cut_is_warned_of(debug_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model of bytes keeps 15 and the end; one with a tokenizer's file counts with that."""
    planned(debug_model / "model", debug_model, "go  on &amp; on, on", "x" * 15)  # 14 and 15 bytes, cleaned
    assert capsys.readouterr().err == ""
    planned(debug_model / "model", debug_model, "go", "ö" * 8, negative="n" * 20)
    says = "has {} tokens, of which debug hears the first 15; say it in fewer words\n"
    assert capsys.readouterr().err == f"pan: warning: action 2 of 2 {says.format(16)}pan: warning: --negative {says.format(20)}"
    model = tmp_path / "model"
    shutil.copytree(debug_model / "model", model)
    bpe(model / "text")
    card = json.loads((model / "model.json").read_text())
    card["text"]["tokenizer"] = True
    (model / "model.json").write_text(json.dumps(card))
    planned(model, debug_model, "move the cup", "assistant assistant assistant", "q" * 17)
    assert capsys.readouterr().err == f"pan: warning: action 3 of 3 {says.format(17)}"


def test_a_device_that_is_not_here_is_told(debug_model: Path, tmp_path: Path) -> None:
    given = [str(debug_model / "model"), "--image", str(debug_model / "image.png"), "--action", "go", "--steps", "2", "--out", str(tmp_path / "film.mp4")]
    with pytest.raises(ValueError, match="--device cuda:99: not here"):
        run(*given, "--device", "cuda:99")
    with pytest.raises(ValueError, match="--device meta: nothing is computed there"):
        run(*given, "--device", "meta")
    assert run(*given, "--device", "cpu:0") == 0
    with pytest.raises(ValueError, match="--dtype int8"):
        run(*given, "--dtype", "int8")


def test_the_model_samples_what_was_saved(debug_model: Path) -> None:
    plan = simulate.planned(str(debug_model / "model"), str(debug_model / "image.png"), ["go"], str(debug_model / "film.mp4"), None, FEW)
    model, first = simulate.loaded(plan, "cpu", "float32"), world()
    assert not model.training
    for name, weight in first.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name
    assert json.loads((debug_model / "model" / "model.json").read_text())["model"]["name"] == "debug"
