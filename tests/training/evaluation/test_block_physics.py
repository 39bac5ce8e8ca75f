"""Blocks: how far a push goes, what stands in the way is shoved, the rim stops everything, and nothing ever overlaps."""

import numpy as np
import pytest

from training.evaluation.block_physics import GRAZE, Table, moved, pace
from training.evaluation.block_words import WAYS, Action, Push

TABLE = Table(side=0.2, low=0.0, high=1.0)
COLOURS = ("red", "blue", "green")
STEP = 0.3


def end(places: list[tuple[float, float]], *pushes: tuple[str, str], frames: int = 10) -> np.ndarray:
    action = Action(tuple(Push(colour, way) for colour, way in pushes))  # type: ignore[arg-type]
    return moved(TABLE, COLOURS[: len(places)], np.array(places), action, STEP, frames)[-1]


def test_a_push_goes_one_step_from_rest_to_rest() -> None:
    path = moved(TABLE, ("red",), np.array([[0.5, 0.5]]), Action((Push("red", "left"),)), STEP, 10)
    assert path.shape == (10, 1, 2)
    assert path[-1, 0] == pytest.approx([0.2, 0.5])
    speed = -np.diff(np.concatenate([[0.5], path[:, 0, 0]]))
    assert speed.min() > 0
    assert speed.argmax() in (4, 5)
    assert speed[[0, -1]].max() < 0.1 * speed.max()
    assert [pace(0), pace(0.5), pace(1)] == [0, 0.5, 1]


@pytest.mark.parametrize(("way", "there"), [("left", (0.2, 0.5)), ("right", (0.8, 0.5)), ("up", (0.5, 0.2)), ("down", (0.5, 0.8))])
def test_ways_are_the_pictures(way: str, there: tuple[float, float]) -> None:
    assert end([(0.5, 0.5)], ("red", way))[0] == pytest.approx(there)


def test_nothing_moves() -> None:
    places = [(0.3, 0.3), (0.7, 0.7)]
    assert (end(places) == np.array(places)).all()


def test_what_is_met_is_shoved_and_stops_with_the_pusher() -> None:
    # 0.1 of free way, then 0.2 together; a third that is only grazed stays.
    red, blue, green = end([(0.2, 0.5), (0.5, 0.55), (0.6, 0.5 - 0.2 * (1 - GRAZE) - 0.001)], ("red", "right"))
    assert red == pytest.approx([0.5, 0.5])
    assert blue == pytest.approx([0.7, 0.55])
    assert green == pytest.approx([0.6, 0.323])


def test_a_row_of_blocks_is_shoved_to_the_rim_and_no_further() -> None:
    red, blue, green = end([(0.3, 0.5), (0.5, 0.5), (0.75, 0.5)], ("red", "right"))
    assert (red[0], blue[0], green[0]) == pytest.approx((0.5, 0.7, 0.9))


def test_the_rim_stops_a_push() -> None:
    assert end([(0.2, 0.5)], ("red", "left"))[0] == pytest.approx([0.1, 0.5])


def test_two_at_once_and_against_each_other() -> None:
    red, blue = end([(0.5, 0.2), (0.5, 0.8)], ("red", "left"), ("blue", "right"))
    assert red == pytest.approx([0.2, 0.2])
    assert blue == pytest.approx([0.8, 0.8])
    # driven blocks give way to none: they meet in the middle of the 0.2 between them
    red, blue = end([(0.3, 0.5), (0.7, 0.5)], ("red", "right"), ("blue", "left"), frames=40)
    assert blue[0] - red[0] == pytest.approx(0.2)
    assert red[0] == pytest.approx(0.4, abs=0.01)


def test_the_frames_of_a_chunk_hardly_change_what_comes_of_it() -> None:
    places = [(0.3, 0.45), (0.55, 0.5), (0.8, 0.4)]
    fine, coarse = (end(places, ("red", "right"), ("green", "left"), frames=n) for n in (40, 8))
    assert np.abs(fine - coarse).max() < 0.01


def test_blocks_never_overlap_nor_leave_the_table() -> None:
    rng = np.random.default_rng(0)
    at = np.array([(0.2, 0.2), (0.5, 0.5), (0.8, 0.8)])
    for _ in range(100):
        chosen = rng.choice(3, int(rng.integers(1, 3)), replace=False)
        action = Action(tuple(Push(COLOURS[i], WAYS[int(rng.integers(4))]) for i in chosen))
        path = moved(TABLE, COLOURS, at, action, STEP, 8)
        apart = np.abs(path[:, :, None] - path[:, None]).max(-1)[:, ~np.eye(3, dtype=bool)]
        assert apart.min() >= TABLE.side * (1 - GRAZE) - 1e-9
        assert path.min() >= 0.1 - 1e-9
        assert path.max() <= 0.9 + 1e-9
        at = path[-1]
