"""pan simulate: a checkpoint, an image and actions become a film; what is wrong is told before a model is loaded; moments can be come back to."""

import json
import os
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from curation.limits import Limits
from curation.video import Video
from pipelines import simulate, simulate_live, start_image
from tests.training.made_world import DEBUG, PANDORA, picture, wider, world
from training.model.checkpoint import init_model, save_model
from training.model.glp import GLP
from training.model.spec import ModelSpec
from training.sampling import Sampling

ROOT = Path(__file__).parents[2]
FEW = Sampling(steps=2)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a debug model, `model`, and a picture, `image.png`."""
    folder = tmp_path_factory.mktemp("place")
    save_model(folder / "model", world())  # lively: a new model's decoder says nothing, and no action would matter
    Image.fromarray(picture(height=90, width=120)).save(folder / "image.png")
    return folder


def times(film: Path) -> list[float]:
    """When each frame of a film is shown, in s."""
    with Video(str(film), Limits(min_frames=1, min_side_px=2, max_fps=1e3)) as video:
        return [picture.time_s for picture in video.pictures()]


def run(*arguments: str) -> int:
    return simulate.main(list(arguments))


def test_a_film_from_the_command_line(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "film.mp4"
    command = [sys.executable, "-m", "pipelines.cli", "simulate", str(place / "model"), "--image", str(place / "image.png")]
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


def test_a_new_model_makes_a_film_before_it_has_learnt_anything(place: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "model", init_model(DEBUG))
    out = tmp_path / "film.mp4"
    assert run(str(tmp_path / "model"), "--image", str(place / "image.png"), "--action", "go", "--steps", "2", "--out", str(out)) == 0
    assert len(times(out)) == 1 + 8


@pytest.mark.parametrize(("spec", "steps"), [(wider(decoder=replace(DEBUG.decoder, state_dim=None)), 2), (PANDORA, 3)], ids=["texts", "pandora"])
def test_models_of_other_kinds_make_films_too(spec: ModelSpec, steps: int, place: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "model", world(spec, states=spec is PANDORA))
    out = tmp_path / "film.mp4"
    given = ["--image", str(place / "image.png"), "--out", str(out), "--steps", str(steps), "--solver", "unipc", "--guidance", "1"]
    assert run(str(tmp_path / "model"), *given, "--action", "go left", "--action", "stop") == 0
    assert len(times(out)) == 1 + 2 * 8


def test_the_same_seed_gives_the_same_bytes(place: Path, tmp_path: Path) -> None:
    films = []
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        out = tmp_path / f"{name}.mp4"
        assert run(str(place / "model"), "--image", str(place / "image.png"), "--action", "go", "--steps", "2", "--seed", seed, "--out", str(out)) == 0
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
        ({"--image": "nowhere.png"}, "--image nowhere.png cannot be read: No such file or directory"),
        ({"--image": "{place}/model/model.json"}, "not a picture; give a PNG, JPEG or WebP file"),
        ({"--image": "{place}/cut.png"}, "cannot be read"),
        ({"--out": "film.avi"}, "a film is an MP4"),
        ({"--out": "nowhere/film.mp4"}, "there is no folder nowhere"),
        ({"--steps": "3"}, "--steps 3: debug denoises a chunk in 2 places of its window; give a multiple of 2"),
        ({"--steps": "0"}, "steps 0"),
        ({"--solver": "heun"}, "there are euler and unipc"),
        ({"--size": "60x64"}, "--size 60x64: width and height must be multiples of 16 and 16"),
        ({"--size": "large"}, "give WIDTHxHEIGHT"),
        ({"checkpoint": "{place}"}, "no model.json there"),
    ],
)
def test_what_is_wrong_is_told_before_a_model_is_loaded(changed: dict[str, str | None], told: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def loaded(*_: object) -> GLP:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(simulate, "loaded", loaded)
    whole = (place / "image.png").read_bytes()
    (place / "cut.png").write_bytes(whole[: len(whole) // 2])
    given = {"checkpoint": "{place}/model", "--image": "{place}/image.png", "--action": "go", "--out": "{place}/film.mp4"} | changed
    arguments = [str(given.pop("checkpoint"))] + [word for name, value in given.items() if value is not None for word in (name, value)]
    with pytest.raises(ValueError, match="(?s)" + told.replace("(", r"\(")):
        run(*(argument.replace("{place}", str(place)) for argument in arguments))
    assert not (place / "film.mp4").exists()


def test_a_bad_action_costs_no_heavy_import(place: Path) -> None:
    code = (
        "import sys\nfrom pipelines import simulate\n"
        f"try: simulate.main([{str(place / 'model')!r}, '--image', 'nowhere.png', '--action', 'go', '--out', '/tmp/film.mp4'])\n"
        "except ValueError as error: print(error, sorted({'torch', 'transformers', 'av'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.stdout == "--image nowhere.png cannot be read: No such file or directory []\n", done.stderr


def test_another_shift_than_trainings_is_warned_of(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [str(place / "model"), "--image", str(place / "image.png"), "--action", "go", "--steps", "4"]
    with warnings.catch_warnings(record=True) as others:
        assert run(*given, "--shift", "3", "--out", str(tmp_path / "a.mp4")) == 0
    assert others == []  # said once, in the command's own words
    assert "pan: warning: --shift 3, but debug was trained with shift 5" in capsys.readouterr().err
    assert run(*given, "--shift", "5", "--out", str(tmp_path / "b.mp4")) == 0
    assert "warning" not in capsys.readouterr().err
    assert (tmp_path / "a.mp4").read_bytes() != (tmp_path / "b.mp4").read_bytes()


def test_a_device_that_is_not_here_is_told(place: Path, tmp_path: Path) -> None:
    given = [str(place / "model"), "--image", str(place / "image.png"), "--action", "go", "--steps", "2", "--out", str(tmp_path / "film.mp4")]
    with pytest.raises(ValueError, match="--device cuda:99: not here"):
        run(*given, "--device", "cuda:99")
    with pytest.raises(ValueError, match="--dtype int8"):
        run(*given, "--dtype", "int8")


def test_the_picture_is_turned_upright_cropped_and_never_stretched(tmp_path: Path) -> None:
    made = np.zeros((100, 200, 3), np.uint8)
    made[:, 100:] = 255  # the right half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    Image.fromarray(made).save(tmp_path / "turned.png", exif=exif)
    upright = start_image.opened(str(tmp_path / "turned.png"))
    assert upright.size == (100, 200)
    assert np.asarray(upright)[150].min() == 255  # white is below now
    wide = wider(height=64, width=96)
    assert start_image.film_size(wide, None, upright) == (64, 96)
    assert start_image.film_size(wide, None, Image.fromarray(made)) == (96, 64)
    assert start_image.film_size(wide, "32x16", upright) == (32, 16)
    fitted = start_image.fitted(Image.fromarray(made), 64, 64)
    assert (fitted.shape, fitted.dtype) == ((64, 64, 3), np.uint8)
    assert fitted[:, :28].max() < 8
    assert fitted[:, 36:].min() > 247


def terminal(place: Path, tmp_path: Path, lines: list[str]) -> tuple[list[str], int]:
    """What the terminal says to these lines, and the frames of the film."""
    said: list[str] = []
    plan = simulate.planned(str(place / "model"), str(place / "image.png"), [], str(tmp_path / "film.mp4"), None, FEW, interactive=True)
    live = simulate_live.Terminal(plan, simulate.loaded(plan, "cpu", None), said.append)
    return said, live.run(lines)


def test_actions_that_are_typed_become_pieces_and_a_film(place: Path, tmp_path: Path) -> None:
    _, frames = terminal(place, tmp_path, ["go left", "stop", "", ":quit", "never"])
    assert frames == len(times(tmp_path / "film.mp4")) == 1 + 2 * 8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["film.1.mp4", "film.2.mp4", "film.mp4"]
    assert len(times(tmp_path / "film.1.mp4")) == 8
    plain = tmp_path / "plain.mp4"
    given = ["--image", str(place / "image.png"), "--steps", "2", "--action", "go left", "--action", "stop"]
    assert run(str(place / "model"), *given, "--out", str(plain)) == 0
    assert plain.read_bytes() == (tmp_path / "film.mp4").read_bytes()


def test_moments_are_kept_left_and_come_back_to(place: Path, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    terminal(place, tmp_path / "one", ["go left", "stop"])
    lines = ["go left", ":fork here", "go right", ":back", "go up", "go down", ":go here", "stop"]
    _, frames = terminal(place, tmp_path / "two", lines)
    assert frames == 1 + 2 * 8
    assert (tmp_path / "one" / "film.mp4").read_bytes() == (tmp_path / "two" / "film.mp4").read_bytes()


def test_a_session_is_saved_and_taken_up_in_the_terminal(place: Path, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    file = tmp_path / "session"
    terminal(place, tmp_path / "one", ["go left", f":save {file}", "stop"])
    _, frames = terminal(place, tmp_path / "two", [f":load {file}", "stop"])
    assert frames == 16
    assert (tmp_path / "one" / "film.2.mp4").read_bytes() == (tmp_path / "two" / "film.1.mp4").read_bytes()


def test_the_terminal_answers_what_it_cannot_do_and_goes_on(place: Path, tmp_path: Path) -> None:
    said, frames = terminal(place, tmp_path, [":go nowhere", ":back", ":dance", ":load /nowhere", "x" * 5000, "stop"])
    assert frames == 9
    told = "\n".join(said)
    assert "':go nowhere' cannot be done here; kept are none" in told
    assert "':back' cannot be done here" in told
    assert "no session can be read there" in told
    assert "has 5000 characters" in told


def test_the_model_samples_what_was_saved(place: Path) -> None:
    plan = simulate.planned(str(place / "model"), str(place / "image.png"), ["go"], str(place / "film.mp4"), None, FEW)
    model, first = simulate.loaded(plan, "cpu", "float32"), world()
    assert not model.training
    for name, weight in first.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name
    assert json.loads((place / "model" / "model.json").read_text())["model"]["name"] == "debug"
