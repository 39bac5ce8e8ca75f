"""Planning: goals can be reached, imagining with the truth reaches them far more often than chance, and a world model that sees no change does not."""

import numpy as np
import pytest

from training.evaluation.block_fidelity import copy_of_start, simulator
from training.evaluation.block_words import Action, Push
from training.evaluation.blockworld import World, after
from training.evaluation.planning import Task, attempt, candidates, guessing, imagining, near, success, task

WORLD = World(chunk_frames=2, blocks=2, contact=False)
TASKS = [task(WORLD, 0, number, budget=3) for number in range(8)]


def test_a_task_is_the_same_again_and_has_something_to_do() -> None:
    again = task(WORLD, 0, 3, budget=3)
    assert (again.start_N2 == TASKS[3].start_N2).all()
    assert (again.goal_N2 == TASKS[3].goal_N2).all()
    assert not any(near(WORLD, each.start_N2, each.goal_N2) for each in TASKS)


def test_the_truth_inside_the_loop_beats_chance_and_a_model_that_sees_no_change() -> None:
    assert success(TASKS, imagining(WORLD, simulator(WORLD))) >= 0.85
    assert success(TASKS, guessing(WORLD, 0)) <= 0.4
    assert success(TASKS, imagining(WORLD, copy_of_start(WORLD))) <= 0.4


def test_an_attempt_ends_at_the_goal_or_with_the_budget() -> None:
    start = np.array([(0.3, 0.3), (0.7, 0.7)])
    push = Action((Push("red", "right"),))
    goal = after(WORLD, start, push)[-1]
    found = attempt(Task(WORLD, start, goal, 5), imagining(WORLD, simulator(WORLD)))
    assert (found.reached, found.actions) == (True, (push,))
    assert found.left_px == pytest.approx(0.0)
    away = attempt(Task(WORLD, start, goal, 2), lambda seen, wanted: Action((Push("blue", "up"),)))
    assert (away.reached, len(away.actions)) == (False, 2)
    assert away.left_px > 10


def test_a_lost_block_is_no_way_to_a_goal() -> None:
    """A predictor that films an empty table for one action does not make that action look good."""
    start = np.array([(0.3, 0.3), (0.7, 0.7)])
    goal = after(WORLD, start, Action((Push("red", "right"),)))[-1]
    true = simulator(WORLD)

    def forgetful(image: np.ndarray, actions: object) -> np.ndarray:
        film = true(image, actions)  # type: ignore[arg-type]
        return np.full_like(film, 160) if actions == ["push the blue block up"] else film

    assert attempt(Task(WORLD, start, goal, 1), imagining(WORLD, forgetful)).reached


def test_candidates_are_all_single_pushes() -> None:
    assert len(set(candidates(World()))) == 12
    with pytest.raises(ValueError, match="no tasks"):
        success([], guessing(WORLD, 0))
