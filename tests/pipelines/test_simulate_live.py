"""The terminal: typed actions become pieces and a film; moments are kept, left and come back to; nothing that is typed ends it."""

from pathlib import Path

from pipelines import simulate, simulate_live
from tests.pipelines.films import times
from training.sampling import Sampling

FEW = Sampling(steps=2)


def terminal(debug_model: Path, tmp_path: Path, lines: list[str]) -> tuple[list[str], int]:
    """What the terminal says to these lines, and the frames of the film."""
    said: list[str] = []
    plan = simulate.planned(str(debug_model / "model"), str(debug_model / "image.png"), [], str(tmp_path / "film.mp4"), None, FEW, interactive=True)
    live = simulate_live.Terminal(plan, simulate.loaded(plan, "cpu", None), said.append)
    return said, live.run(lines)


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


def test_a_session_is_saved_and_taken_up_in_the_terminal(debug_model: Path, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    file = tmp_path / "session"
    terminal(debug_model, tmp_path / "one", ["go left", f":save {file}", "stop"])
    _, frames = terminal(debug_model, tmp_path / "two", [f":load {file}", "stop"])
    assert frames == 16
    assert (tmp_path / "one" / "film.2.mp4").read_bytes() == (tmp_path / "two" / "film.2.mp4").read_bytes()


def test_the_terminal_answers_what_it_cannot_do_and_goes_on(debug_model: Path, tmp_path: Path) -> None:
    said, frames = terminal(
        debug_model, tmp_path, [":go nowhere", ":back", ":dance", ":load /nowhere", "x" * 5000, f":save {tmp_path}", ":save " + "s" * 300, "stop"]
    )
    assert frames == 9
    told = "\n".join(said)
    assert "':go nowhere' cannot be done here; kept are none" in told
    assert "':back' cannot be done here" in told
    assert "no session can be read there" in told
    assert "has 5000 characters" in told
    assert f"{tmp_path}: a folder is there" in told
    assert "File name too long" in told
    assert [path.name for path in tmp_path.parent.iterdir() if path.suffix == ".part"] == []
