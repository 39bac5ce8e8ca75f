"""Action fidelity: the true simulator is right throughout, a copy is right only where nothing was to move, and each kind of disobedience is found."""

from dataclasses import replace

import numpy as np
import pytest

from training.evaluation.block_fidelity import copy_of_start, fidelity, simulator, steps
from training.evaluation.block_pictures import film, picture
from training.evaluation.block_words import Action, Push
from training.evaluation.blockworld import Episode, Layout, World, after, episode, episodes

WORLD = World(chunk_frames=8)


def told(world: World, at: list[tuple[float, float]], *actions: Action) -> Episode:
    """A story of our own, under a camera that rests."""
    positions = [np.array(at)[None]]
    for action in actions:
        positions.append(after(world, positions[-1][-1], action))
    joined = np.concatenate(positions)
    return Episode(world, Layout((0,), joined[0]), actions, joined, np.zeros((len(joined), 2)))


@pytest.mark.parametrize("world", [WORLD, replace(WORLD, camera=True, panning=0.6), replace(WORLD, blocks=5, side=0.13)], ids=["plain", "camera", "five"])
def test_the_true_simulator_obeys_and_the_copy_does_not(world: World) -> None:
    stories = list(episodes(world, 10, 0, 6, "unseen"))
    best = fidelity(simulator(world), stories)
    assert best.obeyed == 1.0
    assert best.steps == 60
    assert max(e for e in best.error_px_R if e is not None) < 2.5  # what the first image does not tell grows at contacts
    assert best.lost_R == (0.0,) * 10
    idle = np.mean([not action.pushes and action.pan is None for story in stories for action in story.actions])
    assert fidelity(copy_of_start(world), stories).obeyed == pytest.approx(idle)
    assert idle < 0.25


def test_the_copys_error_grows_as_the_blocks_go_away() -> None:
    errors = fidelity(copy_of_start(WORLD), episodes(WORLD, 8, 0, 8)).error_px_R
    assert errors[0] is not None
    assert errors[-1] is not None
    assert errors[0] == pytest.approx(0.37 * 12.8, abs=2.0)  # about one push in three blocks
    assert errors[-1] > 2 * errors[0]


RED = Action((Push("red", "right"),))
AT = [(0.3, 0.3), (0.7, 0.3), (0.5, 0.75)]


def judged(end: list[tuple[float, float]], action: Action = RED) -> bool:
    """Whether a film that ends with the blocks there counts as obeyed."""
    story = told(WORLD, AT, action)
    frames = film(WORLD, story.positions_TN2, story.camera_T2)
    frames[-1] = picture(WORLD, np.array(end))
    (step,) = steps(frames, story)
    return step.obeyed


def test_each_disobedience_is_found() -> None:
    right = [(0.5, 0.3), AT[1], AT[2]]
    assert judged(right)
    assert judged([(0.5 + 0.25 * WORLD.step, 0.3), *AT[1:]])  # nearly
    assert not judged(AT)  # nothing moved
    assert not judged([(0.3, 0.5), *AT[1:]])  # the wrong way
    assert not judged([(0.1, 0.3), *AT[1:]])  # the opposite way
    assert not judged([AT[0], (0.7, 0.5), AT[2]])  # another block
    assert not judged([(0.5, 0.3), (0.7, 0.5), AT[2]])  # another one too
    assert not judged([(0.7, 0.55), *AT[1:]])  # much too far
    assert not judged(right, Action())  # although nothing was to move
    assert not judged([(0.5, 0.3), (0.7, 0.3), (0.7, 0.3)])  # one lies under another: it is not seen


def test_a_shoved_block_has_to_go_along() -> None:
    action, at = Action((Push("red", "right"), Push("green", "up"))), [(0.3, 0.3), (0.5, 0.3), (0.5, 0.75)]
    story = told(WORLD, at, action)
    frames = film(WORLD, story.positions_TN2, story.camera_T2)
    assert story.positions_TN2[-1, 1, 0] == pytest.approx(0.67, abs=0.01)
    assert steps(frames, story)[0].obeyed
    frames[-1] = picture(WORLD, np.array([(0.5, 0.3), (0.5, 0.3), (0.5, 0.55)]))  # red went through blue
    assert not steps(frames, story)[0].obeyed


def test_a_step_is_judged_from_where_the_film_was_not_from_where_it_should_have_been() -> None:
    story = told(WORLD, AT, RED, Action((Push("green", "up"),)))
    frames = film(WORLD, story.positions_TN2, story.camera_T2)
    strayed = np.array([AT[0], AT[1], AT[2]])  # red did not move in the first round; the second is obeyed all the same
    frames[8] = picture(WORLD, strayed)
    frames[16] = picture(WORLD, after(WORLD, strayed, story.actions[1])[-1])
    first, second = steps(frames, story)
    assert (first.obeyed, second.obeyed) == (False, True)
    assert second.errors_px["red"] == pytest.approx(0.2 * 64, abs=0.5)
    assert second.errors_px["green"] == pytest.approx(0.0, abs=0.5)


def test_films_and_stories_that_cannot_be_judged_are_refused() -> None:
    story = episode(WORLD, 2, 0, 0)
    with pytest.raises(ValueError, match="17 are needed"):
        steps(np.zeros((9, 64, 64, 3), np.uint8), story)
    with pytest.raises(ValueError, match="all of the same number"):
        fidelity(copy_of_start(WORLD), [story, episode(WORLD, 3, 0, 0)])
    with pytest.raises(ValueError, match="give some"):
        fidelity(copy_of_start(WORLD), [])


def test_a_block_at_the_rim_does_not_obey_by_staying_there() -> None:
    at = [(0.3, 0.3), (0.7, 0.3), (0.5, 0.75)]
    story = told(WORLD, at, Action((Push("red", "left"),)))
    frames = film(WORLD, story.positions_TN2, story.camera_T2)
    assert steps(frames, story)[0].obeyed
    frames[0] = frames[-1] = picture(WORLD, np.array([(0.13, 0.3), *at[1:]]))  # nowhere to go
    assert not steps(frames, story)[0].obeyed
