"""The terminal: typed actions become pieces and a film; moments are kept, left and come back to; nothing that is typed ends it."""

import weakref
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from pipelines import simulate, simulate_live
from tests.pipelines.films import times
from training.rollout import Frames_THWC, Session, film
from training.sampling import Sampling

FEW = Sampling(steps=2)


def terminal(debug_model: Path, tmp_path: Path, lines: list[str]) -> tuple[list[str], int]:
    """What the terminal says to these lines, and the frames of the film."""
    said: list[str] = []
    return said, opened(debug_model, tmp_path, said).run(lines)


def opened(debug_model: Path, tmp_path: Path, said: list[str]) -> simulate_live.Terminal:
    """A terminal that has taken no line yet."""
    plan = simulate.planned(str(debug_model / "model"), str(debug_model / "image.png"), [], str(tmp_path / "film.mp4"), None, FEW, interactive=True)
    return simulate_live.Terminal(plan, simulate.loaded(plan, "cpu", None), said.append)


def test_actions_that_are_typed_become_pieces_and_a_film(debug_model: Path, tmp_path: Path) -> None:
    _, frames = terminal(debug_model, tmp_path, ["go left", "stop", "", ":quit", "never"])
    assert frames == len(times(tmp_path / "film.mp4")) == 1 + 2 * 8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["film.1.mp4", "film.2.mp4", "film.mp4"]
    assert len(times(tmp_path / "film.1.mp4")) == 8
    plain = tmp_path / "plain.mp4"
    given = ["--image", str(debug_model / "image.png"), "--steps", "2", "--action", "go left", "--action", "stop"]
    assert simulate.main([str(debug_model / "model"), *given, "--out", str(plain)]) == 0
    assert plain.read_bytes() == (tmp_path / "film.mp4").read_bytes()


def test_moments_are_kept_left_and_come_back_to(debug_model: Path, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    terminal(debug_model, tmp_path / "one", ["go left", "stop"])
    lines = ["go left", ":fork here", "go right", ":back", "go up", "go down", ":go here", "stop"]
    _, frames = terminal(debug_model, tmp_path / "two", lines)
    assert frames == 1 + 2 * 8
    assert (tmp_path / "one" / "film.mp4").read_bytes() == (tmp_path / "two" / "film.mp4").read_bytes()


def test_no_futures_piece_takes_the_place_of_anothers(debug_model: Path, tmp_path: Path) -> None:
    said, _ = terminal(debug_model, tmp_path, [":fork here", "go left", ":back", "go right", ":go here", "stop"])
    pieces = [tmp_path / f"film.{number}.mp4" for number in (1, 2, 3)]
    assert len({piece.read_bytes() for piece in pieces}) == 3
    assert [line.split()[0] for line in said if ".mp4)" in line] == ["1", "1", "1"]
    assert "Pieces are numbered as they are made" in said[0]


def test_few_moments_stay_on_the_device_and_the_others_come_back_to_the_bit(debug_model: Path, tmp_path: Path) -> None:
    live = opened(debug_model, tmp_path, [])
    resting = Path(live._store._place.name)
    for line in ("go left", "stop", ":fork kept", "go up", "go down", "jump"):
        live._take(line)
    assert [moment.session is not None for moment in live._moments] == [False, False, False, True, True, True]
    assert len(list(resting.iterdir())) == 3
    left = [weakref.ref(moment.session) for moment in live._moments[3:]]
    for line in (":back", ":back", ":back", ":back", "turn"):
        live._take(line)
    assert [session() for session in left] == [None, None, None]  # what nothing comes back to holds nothing
    assert np.array_equal(np.concatenate(live._moments[-1].film), straight(live, "go left", "turn"))
    for line in (":go kept", "turn"):
        live._take(line)
    assert np.array_equal(np.concatenate(live._moments[-1].film), straight(live, "go left", "stop", "turn"))
    live.run([])
    assert not resting.exists()


def test_a_moment_that_cannot_be_put_away_stays_and_nothing_is_lost(debug_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    live = opened(debug_model, tmp_path, said)
    monkeypatch.setattr(Session, "save", Mock(side_effect=ValueError("no space left")))
    for line in ("go left", "stop", "go up"):
        live._take(line)
    assert [moment.session is not None for moment in live._moments] == [True] * 4
    assert "  an older moment stays on the device: no space left" in said
    monkeypatch.undo()
    live._take("go on")
    assert [moment.session is not None for moment in live._moments] == [False, False, True, True, True]


def straight(live: simulate_live.Terminal, *actions: str) -> Frames_THWC:
    """The film of these actions alone."""
    return np.concatenate(list(film(Session(live._model, FEW), live._plan.image_HWC, actions)))


def test_a_session_is_saved_and_taken_up_in_the_terminal(debug_model: Path, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    file = tmp_path / "session"
    terminal(debug_model, tmp_path / "one", ["go left", f":save {file}", "stop"])
    _, frames = terminal(debug_model, tmp_path / "two", [f":load {file}", "stop"])
    assert frames == 16
    assert (tmp_path / "one" / "film.2.mp4").read_bytes() == (tmp_path / "two" / "film.1.mp4").read_bytes()


def test_the_terminal_answers_what_it_cannot_do_and_goes_on(debug_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [":go nowhere", ":back", ":dance", ":load /nowhere", "x" * 5000, f":save {tmp_path}", ":save " + "s" * 300, "stop and do not go on"]
    said, frames = terminal(debug_model, tmp_path, lines)
    assert "pan: warning: this action has 21 tokens, of which debug hears the first 15" in capsys.readouterr().err
    assert frames == 9
    told = "\n".join(said)
    assert "':go nowhere' cannot be done here; kept are none" in told
    assert "':back' cannot be done here" in told
    assert "no session can be read there" in told
    assert "has 5000 characters" in told
    assert f"{tmp_path}: a folder is there" in told
    assert "File name too long" in told
    assert [path.name for path in tmp_path.parent.iterdir() if path.suffix == ".part"] == []
