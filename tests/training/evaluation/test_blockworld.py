"""Stories of the block world: the same from the same seed, worth telling, of layouts that the splits share with none."""

from dataclasses import replace

import numpy as np
import pytest

from training.evaluation.block_words import UNIT, Action
from training.evaluation.blockworld import WORTH, Episode, World, after, episode, episodes, layout, panned

WORLD = World()


def same(a: Episode, b: Episode) -> bool:
    return a.actions == b.actions and bool((a.positions_TN2 == b.positions_TN2).all()) and bool((a.camera_T2 == b.camera_T2).all())


def test_a_story_depends_on_seed_and_number_alone() -> None:
    told = list(episodes(WORLD, 3, seed=5, count=3))
    assert same(told[2], episode(WORLD, 3, 5, 2))
    assert not same(told[0], told[1])
    assert not same(told[0], episode(WORLD, 3, 6, 0))


def test_a_longer_story_begins_like_a_shorter_one() -> None:
    short, long = episode(WORLD, 2, 0, 0), episode(WORLD, 4, 0, 0)
    assert long.actions[:2] == short.actions
    assert (long.positions_TN2[:81] == short.positions_TN2).all()


def test_shapes_and_events_are_on_pans_grid() -> None:
    story = episode(WORLD, 3, 0, 0)
    assert (story.positions_TN2.shape, story.camera_T2.shape) == ((121, 3, 2), (121, 2))
    assert story.events() == [{"start_s": (1 + 40 * k) / 16, "end_s": (41 + 40 * k) / 16, "text": str(a)} for k, a in enumerate(story.actions)]
    debug = episode(replace(WORLD, chunk_frames=8), 3, 0, 0)
    assert debug.positions_TN2.shape == (25, 3, 2)
    assert debug.events()[1]["start_s"] == 9 / 16


def test_every_named_block_moves_and_actions_are_of_all_kinds() -> None:
    kinds = {0: 0, 1: 0, 2: 0}
    for story in episodes(WORLD, 10, 1, 20):
        for k, action in enumerate(story.actions):
            start, end = story.positions_TN2[40 * k], story.positions_TN2[40 * (k + 1)]
            kinds[len(action.pushes)] += 1
            for push in action.pushes:
                i = WORLD.colours.index(push.colour)
                assert (end[i] - start[i]) @ np.array(UNIT[push.way]) >= WORTH * WORLD.step
            if not action.pushes:
                assert (start == end).all()
            assert (end == after(WORLD, start, action)[-1]).all()
    assert kinds[0] / 200 == pytest.approx(WORLD.still, abs=0.07)
    assert kinds[2] / 200 == pytest.approx(WORLD.twice, abs=0.08)


def test_blocks_are_shoved_only_where_contact_is_allowed() -> None:
    def shoved(world: World) -> int:
        found = 0
        for story in episodes(world, 10, 2, 10):
            for k, action in enumerate(story.actions):
                others = [i for i, colour in enumerate(world.colours) if colour not in action.named]
                found += bool((story.positions_TN2[40 * k, others] != story.positions_TN2[40 * (k + 1), others]).any())
        return found

    assert shoved(World(contact=False, blocks=4, side=0.15)) == 0
    assert shoved(World(contact=True, blocks=4, side=0.15)) > 5


def test_splits_share_no_arrangement() -> None:
    rng = np.random.default_rng(0)
    train, unseen = ({layout(WORLD, rng, split).cells for _ in range(300)} for split in ("train", "unseen"))
    assert train.isdisjoint(unseen)
    assert len(train) > 150
    assert len(unseen) > 100
    assert all(story.layout.split == "unseen" for story in episodes(WORLD, 1, 0, 5, "unseen"))


def test_layouts_stand_apart_on_the_table() -> None:
    rng = np.random.default_rng(0)
    for world in (WORLD, World(camera=True), World(blocks=6, side=0.12)):
        for _ in range(50):
            at = layout(world, rng).positions_N2
            apart = np.abs(at[:, None] - at[None]).max(-1)[~np.eye(world.blocks, dtype=bool)]
            assert apart.min() > world.side
            assert at.min() >= world.table.low + world.side / 2
            assert at.max() <= world.table.high - world.side / 2


def test_the_camera_pans_where_it_may_and_stays_in_reach() -> None:
    world = World(camera=True, panning=1.0)
    seen = set()
    for story in episodes(world, 10, 0, 5):
        assert np.abs(story.camera_T2).max() <= world.reach + 1e-9
        for k, action in enumerate(story.actions):
            assert action.pan is not None
            seen.add(action.pan)
            way = (story.camera_T2[40 * (k + 1)] - story.camera_T2[40 * k]) @ np.array(UNIT[action.pan])
            assert way >= world.reach / 2 - 1e-9
    assert seen == set(UNIT)
    assert not any(action.pan for story in episodes(WORLD, 10, 0, 3) for action in story.actions)
    assert (panned(world, np.zeros(2), None) == 0).all()


@pytest.mark.parametrize(
    "wrong", [{"size": 48}, {"size": 65}, {"size": 256}, {"blocks": 0}, {"blocks": 7}, {"side": 0.5}, {"twice": 0.95}, {"chunk_frames": 1}]
)
def test_a_world_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="block world"):
        World(**wrong)  # type: ignore[arg-type]


def test_a_world_survives_the_way_to_plain_values_and_back() -> None:
    world = World(size=96, camera=True, blocks=2)
    assert World.from_dict(world.to_dict()) == world
    with pytest.raises(ValueError, match="did you mean 'blocks'"):
        World.from_dict({"block": 2})
    assert Action() == Action()
