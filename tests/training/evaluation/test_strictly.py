"""Strictly: what obeys by the wider measure without moving as a block would is found by the narrower one."""

import numpy as np
import pytest

from training.evaluation.block_fidelity import NEAR, NEAR_STILL, Film_THWC, Predictor, fidelity, simulator, steps
from training.evaluation.block_pictures import film, picture
from training.evaluation.block_reader import read
from training.evaluation.blockworld import COLOURS, Episode, World, episodes

WORLD = World(blocks=2, contact=False, chunk_frames=4)
STORIES = list(episodes(WORLD, 4, 0, 5, "unseen"))


def drifting(share: float) -> Predictor:
    """Truth, but that in each round every block goes by so large a share of a push besides, some way or other."""

    def predict(image_HWC: Film_THWC, actions: object) -> Film_THWC:
        (story,) = (each for each in STORIES if np.array_equal(picture(WORLD, each.positions_TN2[0]), image_HWC))
        rng, at = np.random.default_rng(1), story.positions_TN2.copy()
        for k in range(len(story.actions)):
            ways = rng.uniform(0, 2 * np.pi, WORLD.blocks)
            at[1 + k * WORLD.chunk_frames :] += share * WORLD.step * np.stack([np.cos(ways), np.sin(ways)], 1)
        return film(WORLD, np.clip(at, WORLD.table.low + WORLD.side / 2, WORLD.table.high - WORLD.side / 2), story.camera_T2)

    return predict


def test_the_truth_obeys_strictly_and_each_film_tells_its_rounds() -> None:
    found = fidelity(simulator(WORLD), STORIES)
    assert (found.obeyed, found.strictly, found.strictly_R) == (1.0, 1.0, (1.0,) * 4)
    assert found.rounds_S == ("1111",) * 5


def test_blocks_that_all_drift_obey_and_not_strictly() -> None:
    found = fidelity(drifting((NEAR + NEAR_STILL) / 2), STORIES)
    assert found.obeyed > 0.8
    assert found.strictly < 0.2
    assert sum(map(int, "".join(found.rounds_S))) == round(found.obeyed * found.steps)
    assert fidelity(drifting(0.5 * NEAR_STILL), STORIES).strictly > 0.9


def shown(story: Episode) -> Film_THWC:
    """The true film."""
    return film(WORLD, story.positions_TN2, story.camera_T2)


def test_a_round_whose_frames_between_show_nothing_is_not_obeyed_strictly() -> None:
    frames = shown(STORIES[0])
    frames[np.arange(len(frames)) % WORLD.chunk_frames == 2] = 0
    assert [(step.obeyed, step.strictly) for step in steps(frames, STORIES[0])] == [(True, False)] * 4
    whole = shown(STORIES[0])
    whole[2] = 0  # of the first round alone
    assert [(step.obeyed, step.strictly) for step in steps(whole, STORIES[0])] == [(True, False), *[(True, True)] * 3]


def test_a_block_that_is_left_behind_as_well_is_not_seen() -> None:
    """The film shows it at its old place and at its new one, a little smaller there: no one knows where it is."""
    frame = picture(WORLD, np.array([(0.3, 0.3), (0.7, 0.6)]))
    assert read(WORLD, frame).places.keys() == {"red", "blue"}
    ghost, side = frame.copy(), round(0.88 * WORLD.side * WORLD.size)
    ghost[40 : 40 + side, 10 : 10 + side] = COLOURS["red"]
    assert read(WORLD, ghost).places.keys() == {"blue"}
    speck = frame.copy()
    speck[40:43, 10:13] = COLOURS["red"]  # as decoders leave them
    assert read(WORLD, speck).places["red"] == pytest.approx(read(WORLD, frame).places["red"])
