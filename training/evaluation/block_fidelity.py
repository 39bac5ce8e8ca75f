"""Action fidelity in the block world: did the named block move as told, and did the others stay, round after round of a predicted film."""

# R rounds; a film of R rounds is uint8 [1 + R * chunk_frames, H, W, 3], its first frame the given image.

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.evaluation.block_pictures import film, picture
from training.evaluation.block_reader import Reading, read
from training.evaluation.block_words import Action, by_name, named_in, parse
from training.evaluation.blockworld import Episode, World, after, panned
from training.model.plain import must

Film_THWC = npt.NDArray[np.uint8]

#: From the first image, uint8 RGB [H, W, 3], and the rounds' actions in words: the film that is predicted.
Predictor = Callable[[npt.NDArray[np.uint8], Sequence[str]], Film_THWC]

#: A block is where it should be if it is no further off than this share of a push. A block that did not move when it should have is off by 0.75 of a
#: push at least (`blockworld.WORTH`), and the reader by a twelfth (1 px of 12.8).
NEAR = 0.35
#: Where the true physics would take a named block (or the camera) less far than this share from where it is seen, the film strayed before: such a round
#: is not obeyed. Otherwise a film in which blocks have gone to the rim would obey by doing nothing.
CAN = 0.45
#: For a stricter look at the same rounds: how far off a block may be that was pushed or shoved, and one that was to stay, as shares of a push. All blocks off
#: by a third of a push in any direction, round after round, obey within `NEAR`, and hardly ever within these; the reader is good to a twelfth.
NEAR_MOVED, NEAR_STILL = 0.25, 0.15


@dataclass(frozen=True)
class Step:
    """One round of a predicted film.

    Attributes:
        obeyed: each named block, each that it shoves, each other one, and the camera, is where the action takes it from where it was seen before.
        strictly: and within `NEAR_MOVED` and `NEAR_STILL`, with every block seen in every frame of the round.
        errors_px: colour -> px between where the block is seen and where the whole story so far should have brought it; None: it is not seen.
    """

    action: Action
    obeyed: bool
    strictly: bool
    errors_px: dict[str, float | None]


@dataclass(frozen=True)
class Fidelity:
    """What many films of equally many rounds came to.

    Attributes:
        obeyed_R: share of the films whose r-th round was obeyed; obeyed: over all rounds.
        strictly_R, strictly: the same of `Step.strictly`.
        rounds_S: of each film its rounds, "1" for an obeyed one and "0" for another.
        error_px_R: mean px between seen and true places after round r, over the blocks that are seen; None where none is.
        lost_R: share of the blocks that are not seen after round r.
        steps: how many rounds were judged.
    """

    obeyed_R: tuple[float, ...]
    obeyed: float
    strictly_R: tuple[float, ...]
    strictly: float
    rounds_S: tuple[str, ...]
    error_px_R: tuple[float | None, ...]
    lost_R: tuple[float, ...]
    steps: int


def obeyed(world: World, action: Action, before: Reading, then: Reading, moved: float = NEAR, still: float = NEAR) -> bool:
    """Whether the blocks and the camera went from where they were seen to where the action takes them, which the true physics says.

    Args:
        moved, still: how far off a block may be that the action moves, and another, as shares of a push.
    """
    start, end = before.positions_N2(world), then.positions_N2(world)
    if start is None or end is None or before.camera is None or then.camera is None:
        return False
    goal, view = after(world, start, action)[-1], panned(world, before.camera, action.pan)[-1]
    named = [i for i, colour in enumerate(world.colours) if colour in action.named]
    able = [np.linalg.norm(goal[named] - start[named], axis=1) / world.step, [np.abs(view - before.camera).max() / world.reach] if action.pan else []]
    most_N = np.where((goal != start).any(1), moved, still)
    near = (np.linalg.norm(end - goal, axis=1) <= most_N * world.step).all()
    looks = not world.camera or np.abs(then.camera - view).max() <= moved * world.reach
    return bool((np.concatenate(able) >= CAN).all() and near and looks)


def strictly(world: World, action: Action, film_THWC: Film_THWC, before: Reading, then: Reading) -> bool:
    """Whether it was obeyed within `NEAR_MOVED` and `NEAR_STILL`, and every block is seen in each frame of the round.

    Args:
        film_THWC: the round's frames but its last.
    """
    if not obeyed(world, action, before, then, NEAR_MOVED, NEAR_STILL):
        return False
    return all(read(world, frame_HWC).positions_N2(world) is not None for frame_HWC in film_THWC)


def steps(film_THWC: Film_THWC, story: Episode) -> list[Step]:
    """Each round of a film of the story's actions, from rest to rest; where the world lags, the last is cut off before its end and left out.

    Raises:
        ValueError: the film is too short, or of another size.
    """
    world, found = story.world, []
    wanted = 1 + len(story.actions) * world.chunk_frames
    must(len(film_THWC) >= wanted, f"block world: a film of {len(film_THWC)} frames for {len(story.actions)} actions; {wanted} are needed")
    before = read(world, film_THWC[0])
    for k, action in enumerate(story.actions[: -1 if world.lag_frames else None]):
        last = (k + 1) * world.chunk_frames + world.lag_frames
        then = read(world, film_THWC[last])
        true = dict(zip(world.colours, story.positions_TN2[last], strict=True))
        errors = {c: float(np.linalg.norm(then.places[c] - true[c])) * world.size if c in then.places else None for c in world.colours}
        does = obeyed(world, action, before, then)
        found.append(Step(action, does, does and strictly(world, action, film_THWC[last - world.chunk_frames + 1 : last], before, then), errors))
        before = then
    return found


def fidelity(predict: Predictor, stories: Iterable[Episode]) -> Fidelity:
    """How well a predictor obeys: it sees each story's first frame and its actions, and nothing else of it.

    Raises:
        ValueError: there is no story, or they have different numbers of rounds.
    """
    judged = [steps(predict(picture(story.world, story.positions_TN2[0], story.camera_T2[0]), story.words), story) for story in stories]
    return summary(judged)


def summary(judged: Sequence[Sequence[Step]]) -> Fidelity:
    """The figures over films that were judged step by step.

    Raises:
        ValueError: as `fidelity`.
    """
    must(len({len(story) for story in judged}) == 1, f"block world: stories of {sorted({len(s) for s in judged})} rounds; give some, all of the same number")
    rounds = list(zip(*judged, strict=True))
    right = np.array([[step.obeyed for step in column] for column in rounds], float)
    strict = np.array([[step.strictly for step in column] for column in rounds], float)
    errors = [[error for step in column for error in step.errors_px.values()] for column in rounds]
    seen = [[e for e in column if e is not None] for column in errors]
    return Fidelity(
        obeyed_R=tuple(right.mean(1).tolist()),
        obeyed=float(right.mean()),
        strictly_R=tuple(strict.mean(1).tolist()),
        strictly=float(strict.mean()),
        rounds_S=tuple("".join("01"[step.obeyed] for step in story) for story in judged),
        error_px_R=tuple(float(np.mean(column)) if column else None for column in seen),
        lost_R=tuple(1 - len(s) / len(e) for s, e in zip(seen, errors, strict=True)),
        steps=right.size,
    )


def copy_of_start(world: World) -> Predictor:
    """The baseline that every model must beat: nothing ever changes. It is right where nothing was to move."""
    return lambda image_HWC, actions: np.repeat(image_HWC[None], 1 + len(actions) * world.chunk_frames, axis=0)


def simulator(world: World) -> Predictor:
    """The truth, from what the first image shows: what a model that has understood the world would film."""

    def predict(image_HWC: npt.NDArray[np.uint8], actions: Sequence[str]) -> Film_THWC:
        shown = read(world, image_HWC)
        at, view = shown.positions_N2(world), shown.camera if shown.camera is not None else np.zeros(2)
        must(at is not None, "block world: the first image does not show every block; give one of this world's")
        assert at is not None
        positions, cameras = [at[None]], [view[None]]
        for action in meant(world, actions):
            positions.append(after(world, positions[-1][-1], action))
            cameras.append(panned(world, cameras[-1][-1], action.pan))
        drawn = film(world, world.delayed(np.concatenate(positions)), world.delayed(np.concatenate(cameras)))
        return np.concatenate([image_HWC[None], drawn[1:]])

    return predict


def meant(world: World, words: Sequence[str]) -> list[Action]:
    """The actions that a story's words tell, each in the light of those before it."""
    found, it = list[Action](), None
    for text in words:
        if it is None and (it := named_in(text)) is not None:
            found.append(Action())
            continue
        other = next((colour for colour in world.colours if colour != it), "")
        found.append(parse(by_name(text, it, other) if it else text))
    return found
