"""Planning in the block world: reach a goal layout in a few actions by imagining what each would do and taking the best, again after each."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from training.evaluation.block_fidelity import NEAR, Predictor
from training.evaluation.block_physics import Positions_N2
from training.evaluation.block_pictures import picture
from training.evaluation.block_reader import read
from training.evaluation.block_words import WAYS, Action, Push
from training.evaluation.blockworld import Split, World, after, episode
from training.model.plain import must

#: From what is seen (uint8 RGB [H, W, 3]) and the goal's places: what to do next.
Chooser = Callable[[npt.NDArray[np.uint8], Positions_N2], Action]

#: A block that an imagined film has lost is counted as so far from its goal, in shares of the picture's side: the whole picture.
LOST = 1.0
_TRIES = 50


@dataclass(frozen=True)
class Task:
    """From one layout to another that `budget` actions can reach, under a camera that rests."""

    world: World
    start_N2: Positions_N2
    goal_N2: Positions_N2
    budget: int


@dataclass(frozen=True)
class Attempt:
    """How it went.

    Attributes:
        reached: every block came near its goal, within the budget.
        actions: what was done.
        left_px: mean distance of the blocks from their goals at the end.
    """

    reached: bool
    actions: tuple[Action, ...]
    left_px: float


def task(world: World, seed: int, number: int, budget: int = 5, split: Split = "unseen") -> Task:
    """The `number`-th task of a seed: its goal is where a story of `budget` single pushes ends, if that is not where it begins.

    Raises:
        ValueError: the world lags, so that nobody sees at a chunk's end what has come of its action; or there is no such story.
    """
    must(not world.lag_frames, f"planning: in a world with lag {world.lag} an action's end is not seen when the next is chosen; give a world without")
    plain = replace(world, twice=0.0, still=0.0, panning=0.0)
    for again in range(_TRIES):
        places = episode(plain, budget, seed, number * _TRIES + again, split).positions_TN2
        if not near(world, places[0], places[-1]):
            return Task(world, places[0], places[-1], budget)
    raise ValueError(f"planning: {_TRIES} stories of {budget} pushes all end where they began; give the task more actions, or the blocks more room")


def attempt(given: Task, choose: Chooser) -> Attempt:
    """Lets a chooser act in the true world, which it sees anew after each action, until the goal is reached or the budget spent."""
    world, at, done = given.world, given.start_N2, list[Action]()
    while not near(world, at, given.goal_N2) and len(done) < given.budget:
        done.append(choose(picture(world, at), given.goal_N2))
        at = after(world, at, done[-1])[-1]
    left = float(np.linalg.norm(at - given.goal_N2, axis=1).mean()) * world.size
    return Attempt(near(world, at, given.goal_N2), tuple(done), left)


def success(tasks: Iterable[Task], choose: Chooser) -> float:
    """Share of the tasks that are solved.

    Raises:
        ValueError: there is none.
    """
    solved = [attempt(each, choose).reached for each in tasks]
    must(bool(solved), "planning: no tasks; give some")
    return float(np.mean(solved))


def near(world: World, at_N2: Positions_N2, goal_N2: Positions_N2) -> bool:
    """Whether every block is where the goal has it, as nearly as an obeyed action's."""
    return bool(np.linalg.norm(at_N2 - goal_N2, axis=1).max() <= NEAR * world.step)


def candidates(world: World) -> tuple[Action, ...]:
    """Every push of one block."""
    return tuple(Action((Push(colour, way),)) for colour in world.colours for way in WAYS)


def imagining(world: World, predict: Predictor, options: Sequence[Action] = ()) -> Chooser:
    """Chooses the action after which the predictor's film ends nearest to the goal (the first of equals).

    Args:
        predict: a world model, or `block_fidelity.simulator` for the best that can be had this way.
        options: `candidates` by default.
    """
    chosen_from = tuple(options) or candidates(world)

    def choose(seen_HWC: npt.NDArray[np.uint8], goal_N2: Positions_N2) -> Action:
        return min(chosen_from, key=lambda action: _far(world, predict(seen_HWC, [str(action)])[world.chunk_frames], goal_N2))

    return choose


def guessing(world: World, seed: int) -> Chooser:
    """Chooses at random."""
    rng, options = np.random.default_rng(seed), candidates(world)
    return lambda seen_HWC, goal_N2: options[int(rng.integers(len(options)))]


def _far(world: World, frame_HWC: npt.NDArray[np.uint8], goal_N2: Positions_N2) -> float:
    """Sum of the blocks' distances from their goals, as they are seen in a frame."""
    seen = read(world, frame_HWC).places
    return sum(float(np.linalg.norm(seen[c] - goal)) if c in seen else LOST for c, goal in zip(world.colours, goal_N2, strict=True))
