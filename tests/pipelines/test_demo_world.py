"""Demo world: its folder is one run's own, its film and figures tell what was judged, and the command that it ends with works."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from curation.lock import hold
from pipelines import demo_world, simulate
from pipelines.block_chain import Chain
from pipelines.demo_world import FIGURES, FILM, FIRST_PICTURE, LINE, SHOWN, STAMP, beside, filmed
from pipelines.exits import Exit
from tests.pipelines.films import times
from training.evaluation.block_fidelity import Predictor, copy_of_start, simulator, steps
from training.evaluation.block_model import block_spec, plain_vae, write_model
from training.evaluation.block_pictures import film, picture
from training.evaluation.blockworld import Episode, World, episodes
from training.model.small_vae import SmallVae

WORLD = World(blocks=2, contact=False, chunk_frames=4, fps=1.6)
GREEN, RED, GREY = (0, 120, 0), (190, 0, 0), (90, 90, 90)


def stories(count: int, rounds: int = 3) -> list[Episode]:
    return list(episodes(WORLD, rounds, 3, count, "unseen"))


def true(story: Episode) -> npt.NDArray[np.uint8]:
    return film(WORLD, story.positions_TN2, story.camera_T2)


def first(story: Episode) -> npt.NDArray[np.uint8]:
    return picture(WORLD, story.positions_TN2[0], story.camera_T2[0])


def untrained(folder: Path) -> None:
    vae = SmallVae(plain_vae())
    write_model(folder, block_spec(WORLD, vae.spec), vae, 0)


def shown(path: Path) -> list[npt.NDArray[np.uint8]]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def judged(predict: Predictor, told: list[Episode]) -> list[list[bool]]:
    """[story][round]: whether it was obeyed."""
    return [[step.obeyed for step in steps(predict(first(story), story.words), story)] for story in told]


def half(image: npt.NDArray[np.uint8], actions: Any) -> npt.NDArray[np.uint8]:
    """Obeys the first action alone, and then nothing moves."""
    made = simulator(WORLD)(image, actions[:1])
    return np.concatenate([made, np.repeat(made[-1:], (len(actions) - 1) * WORLD.chunk_frames, 0)])


@pytest.mark.parametrize("predict", [simulator(WORLD), copy_of_start(WORLD), half], ids=["obeys", "copies", "obeys_once"])
def test_the_figures_are_those_of_the_judged_steps(predict: Predictor, tmp_path: Path) -> None:
    told = stories(2)
    found = filmed(tmp_path, predict, told)
    right, copied = np.array(judged(predict, told), float), np.array(judged(copy_of_start(WORLD), told), float)
    assert (found["obeyed"], found["copy"], found["steps"]) == (right.mean(), copied.mean(), 6)
    assert found["by_round"] == [round(share, 2) for share in right.mean(0).tolist()]
    assert json.loads((tmp_path / FIGURES).read_text("utf-8")) == {**found, "error_px": list(found["error_px"])}


def test_the_film_shows_every_frame_of_every_story_and_the_picture_is_the_first(tmp_path: Path) -> None:
    told = stories(2)
    filmed(tmp_path, simulator(WORLD), told)
    frames = shown(tmp_path / FILM)
    assert [frame.shape for frame in frames] == [(SHOWN + LINE, 2 * SHOWN, 3)] * 2 * (1 + 3 * 4)
    assert times(tmp_path / FILM) == pytest.approx([k / 4 for k in range(len(frames))])
    with Image.open(tmp_path / FIRST_PICTURE) as saved:
        assert (saved.format, saved.mode) == ("PNG", "RGB")
        assert np.array_equal(np.asarray(saved), first(told[0]))
    left = frames[0][:SHOWN, :SHOWN].reshape(64, 4, 64, 4, 3).mean((1, 3))
    assert np.abs(left - first(told[0])).mean() < 3.0


def test_imagined_is_left_and_true_right_and_the_last_frame_of_an_action_says_whether_it_was_obeyed() -> None:
    (story,) = stories(1)
    made = half(first(story), story.words)
    verdicts = steps(made, story)
    assert [step.obeyed for step in verdicts] == [True, False, True]  # the last: nothing is to move
    frames = list(beside(made, true(story), story, verdicts))
    assert len(frames) == 1 + 3 * 4
    for k, frame in enumerate(frames):
        assert np.array_equal(frame[:SHOWN:4, :SHOWN:4], made[k])
        assert np.array_equal(frame[:SHOWN:4, SHOWN::4], true(story)[k])
        words = frame[SHOWN:].reshape(-1, 3)
        darkest = tuple(words[words.astype(int).sum(1).argmin()].tolist())
        assert darkest == (GREY if k == 0 else {4: GREEN, 8: RED, 12: GREEN}.get(k, (20, 20, 20)))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the chain was asked for; it prepares nothing, and what it trains is untrained. The film is the truth's."""
    found: list[str] = []

    def prepare(chain: Chain) -> None:
        found.append(f"prepare {chain.films}")
        (chain.folder / "raw" / "videos").mkdir(parents=True, exist_ok=True)
        (chain.folder / "raw" / "videos" / "train_1_000000.mp4").touch()

    def train(chain: Chain, out: Path, model: Path, phase: str, count: int, changes: Mapping[str, Any]) -> float:
        found.append(f"{phase} {count} {model.relative_to(chain.folder)} {out.relative_to(chain.folder)}")
        if not (out / "model").exists():
            untrained(out / "model")
        return 0.0

    monkeypatch.setattr(Chain, "prepare", prepare)
    monkeypatch.setattr(Chain, "train", train)
    monkeypatch.setattr(demo_world, "opened", lambda model, world: simulator(world))
    return found


def run(folder: Path, films: int = 20, count: int = 100) -> int:
    return demo_world.main([str(folder), "--films", str(films), "--steps", str(count), "--stories", "1"])


WHOLE = ["prepare 20", "decoder 100 first decoder", "joint 20 decoder/model joint"]


def test_the_command_that_it_ends_with_works_as_it_is(tmp_path: Path, asked: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a folder"
    assert run(out) == 0
    assert asked == WHOLE
    *_, told, place, then = capsys.readouterr().out.splitlines()
    assert told.startswith("obeyed 100% of 10 actions (a film in which nothing moves: ")
    assert place == f"film: {out / FILM}   imagined left, true right"
    pan, command, *words = shlex.split(then.removeprefix("next: "))
    assert (Path(pan).name, command) == ("pan", "simulate")
    assert words[words.index("--action") + 1] == stories(1)[0].words[0]
    assert simulate.main(words) == 0
    made, wanted = shown(out / "film.mp4"), first(stories(1)[0])
    assert [frame.shape for frame in made] == [(64, 64, 3)] * (1 + 4)
    assert np.abs(made[0].astype(float) - wanted).mean() < 5.0  # through x264


def test_a_models_own_rollout_is_filmed(tmp_path: Path) -> None:
    untrained(tmp_path / "model")
    found = filmed(tmp_path, demo_world.opened(tmp_path / "model", WORLD), stories(1, rounds=2))
    assert (found["steps"], len(shown(tmp_path / FILM))) == (2, 1 + 2 * 4)
    assert found["obeyed"] == np.mean(found["by_round"]) < 1.0  # nobody has taught it


def test_a_stopped_run_is_taken_up_and_one_with_other_numbers_is_not(
    tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"

    def stopped(chain: Chain) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Chain, "prepare", stopped)
        with pytest.raises(KeyboardInterrupt):
            demo_world.command(out, 20, 100, 1)
    assert sorted(each.name for each in out.iterdir()) == ["_run", STAMP]
    assert json.loads((out / STAMP).read_text("utf-8")) == {"world": WORLD.to_dict(), "films": 20, "steps": 100}
    assert run(out, films=30) == 2
    assert asked == []
    assert run(out) == 0
    assert run(out) == 0
    assert asked == WHOLE * 2
    before = {path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
    capsys.readouterr()
    assert run(out, films=30, count=200) == 2
    assert asked == WHOLE * 2
    assert {path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()} == before
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        f"demo-world: {out} was made with --films 20 (this run: 30) and --steps 100 (this run: 200), and what is there would not be made again: give another "
        "folder (python -m pipelines.demo_world FOLDER), remove this one, or ask for the earlier numbers: --films 20 --steps 100\n"
    )


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"holiday.txt": ""}, "holds what this command did not make (holiday.txt): give another folder (python"),
        ({f"{k}.txt": "" for k in range(5)}, "did not make (0.txt, 1.txt, 2.txt, ...): give another folder"),
        ({"raw/videos/train_1_000000.mp4": "", "clips/manifest.json": ""}, "was made by an earlier version of this command, which did not note with which"),
        ({STAMP: '{"films": 2'}, f"{STAMP} is damaged, so nobody can tell"),
        ({STAMP: "[]"}, f"{STAMP} is damaged, so nobody can tell"),
        ({STAMP: json.dumps({"world": {**WORLD.to_dict(), "blocks": 3}, "films": 20, "steps": 100})}, "was made with another world, and what is there"),
    ],
    ids=["foreign", "much_foreign", "earlier_version", "cut_stamp", "other_stamp", "another_world"],
)
def test_a_folder_of_something_else_is_refused(files: dict[str, str], told: str, tmp_path: Path, asked: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "demo"
    for name, text in files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(text, "utf-8")
    assert run(out) == 2
    said = capsys.readouterr().err
    assert told in said
    assert ("remove this one" in said) == ("did not make" not in said)  # nobody is told to remove what is not ours
    assert "earlier numbers" not in said
    assert (said.count("\n"), asked) == (1, [])
    assert {str(path.relative_to(out)): path.read_text("utf-8") for path in out.rglob("*") if path.is_file()} == files


def test_a_file_is_no_folder_and_an_empty_folder_is_taken(tmp_path: Path, asked: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert run(tmp_path / "file") == 2
    assert capsys.readouterr().err == f"demo-world: {tmp_path / 'file'} is a file: give a folder\n"
    out = tmp_path / "demo"
    out.mkdir()
    (out / f".{STAMP}.part").write_text("{", "utf-8")  # a run that was stopped while it wrote its stamp
    assert run(out) == 0
    assert asked == WHOLE


def test_a_folder_is_filled_by_one_command_at_a_time(tmp_path: Path, asked: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "new") == 0
    asked.clear()
    with hold(tmp_path / "new"):
        assert run(tmp_path / "new") == Exit.LOCKED
    assert "demo-world: the output is locked by another run" in capsys.readouterr().err
    assert asked == []
    assert run(tmp_path / "new") == 0
