"""A lag: what an action does comes after its words, so that blocks are under way where two chunks meet, and each round is judged where its motion ends."""

from collections.abc import Sequence

import numpy as np
import pytest

from training.evaluation.block_fidelity import fidelity, simulator, steps
from training.evaluation.block_horizon import horizon
from training.evaluation.block_pictures import film
from training.evaluation.blockworld import World, episode, episodes
from training.evaluation.planning import task

AT_ONCE = World(blocks=2, contact=False, chunk_frames=8, still=0.0)
MIDWAY = World(blocks=2, contact=False, chunk_frames=8, still=0.0, lag=0.5)


def test_a_story_is_the_same_only_later() -> None:
    soon, late = episode(AT_ONCE, 3, 0, 1), episode(MIDWAY, 3, 0, 1)
    assert late.words == soon.words
    assert (late.positions_TN2[4:] == soon.positions_TN2[:-4]).all()
    assert (late.positions_TN2[:4] == soon.positions_TN2[0]).all()
    assert late.events() == soon.events()


def test_blocks_are_under_way_where_chunks_meet_and_at_rest_between() -> None:
    def speed(world: World, first: int) -> float:
        stories = episodes(world, 5, 0, 5)
        return float(np.mean([np.abs(s.positions_TN2[first + 1 :: 8] - s.positions_TN2[first:-1:8]).max((1, 2)).mean() for s in stories]))

    assert speed(MIDWAY, 8) > 0.02
    assert speed(MIDWAY, 4) < 0.005
    assert speed(AT_ONCE, 8) < 0.005


def test_rounds_are_judged_from_rest_to_rest_and_the_last_is_left_out() -> None:
    stories = list(episodes(MIDWAY, 6, 0, 4, "unseen"))
    found = fidelity(simulator(MIDWAY), stories)
    assert found.obeyed_R == (1.0,) * 5
    assert fidelity(simulator(AT_ONCE), stories).obeyed < 0.5  # a film that is too early


def test_a_block_that_stops_at_the_join_has_not_obeyed() -> None:
    story = episode(MIDWAY, 2, 0, 0)
    frames = film(MIDWAY, story.positions_TN2, story.camera_T2)
    assert [step.obeyed for step in steps(frames, story)] == [True]
    frames[9:] = frames[8]
    assert [step.obeyed for step in steps(frames, story)] == [False]


def test_a_lagging_worlds_true_films_are_rougher_at_joins_and_a_stutter_there_is_rougher_still() -> None:
    """What moves across a join accelerates there and rests elsewhere; without a lag both are alike, so a film's joins are held against the truth's joins."""
    true = simulator(MIDWAY)

    def stuttering(image: np.ndarray, actions: Sequence[str]) -> np.ndarray:
        made = true(image, actions)
        made[9::8] = made[8:-1:8]  # each chunk's first frame is the one before it
        return made

    late, held, soon = (horizon(predict, episodes(world, 4, 0, 3)) for predict, world in ((true, MIDWAY), (stuttering, MIDWAY), (simulator(AT_ONCE), AT_ONCE)))
    assert late.true_joins is not None
    assert late.true_elsewhere is not None
    assert late.true_joins < late.true_elsewhere - 0.1  # a smaller score is rougher
    assert soon.true_joins == pytest.approx(soon.true_elsewhere, abs=0.05)
    assert (late.joins, late.elsewhere) == pytest.approx((late.true_joins, late.true_elsewhere), abs=0.02)
    assert held.joins is not None
    assert held.joins < late.joins - 0.1
    assert held.elsewhere == pytest.approx(late.elsewhere, abs=1e-6)


def test_nobody_plans_where_an_actions_end_is_not_seen() -> None:
    with pytest.raises(ValueError, match=r"lag 0\.5"):
        task(MIDWAY, 0, 0)


def test_a_lag_is_a_share_of_a_chunk() -> None:
    with pytest.raises(ValueError, match="lag 1"):
        World(lag=1.0)
    assert World.from_dict(World(lag=0.25).to_dict()).lag == 0.25
    old = World().to_dict()
    del old["lag"]
    assert World.from_dict(old).lag == 0.0
