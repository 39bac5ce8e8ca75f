"""The block world: coloured blocks on a table, pushed as words say, whose truth can be read from its pixels; everything follows from a seed."""

# Shapes: N blocks in the order of `World.colours`, T frames of a film: the first, then `chunk_frames` a round. Positions are shares of the picture's
# side on the table, which a camera that pans leaves behind.

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from training.evaluation.block_physics import Positions_N2, Table, ahead, moved, pace
from training.evaluation.block_words import UNIT, WAYS, Action, Push, by_reference, naming
from training.model.plain import built, must

Rgb = tuple[int, int, int]
Split = Literal["train", "unseen"]
SPLITS: tuple[Split, ...] = get_args(Split)

#: As far apart in colour as a coarse encoder keeps them, and from the table's browns.
COLOURS: Mapping[str, Rgb] = MappingProxyType(
    {"red": (214, 44, 40), "blue": (36, 80, 214), "green": (30, 158, 66), "yellow": (240, 212, 48), "purple": (160, 56, 190), "white": (244, 244, 240)}
)
#: A push that would go less far than this share of a step, because of the rim, is not asked for: nobody could tell whether it was obeyed.
WORTH = 0.75
#: Source of the share: the usual tenth to fifth that is held out; of a thousand arrangements, two hundred.
UNSEEN_SHARE = 0.2
#: An action whose outcome hangs on less than this share of a block's side is not asked for: 1.1 px of 10.9, what two places that were read may be off.
DOUBT = 0.1
_TRIES = 200


@dataclass(frozen=True, kw_only=True)
class World:
    """What a block world is like; its films also depend on a seed and an episode's number.

    Raises:
        ValueError: the blocks do not fit, or a number is out of its range.
    """

    size: int = 64
    """px of the picture's side: 64 (the least that curation takes) to 128."""
    blocks: int = 3
    side: float = 0.17
    """Of a block, as a share of the picture's."""
    step: float = 0.2
    """How far a push goes where nothing is in the way."""
    contact: bool = True
    """Blocks may be pushed against others, which are shoved along; without it no push that is asked for touches another."""
    camera: bool = False
    """The camera may pan, by up to `reach` from the middle; the table is smaller then, so that it stays in view."""
    reach: float = 0.1
    twice: float = 0.2
    """Share of the actions that push two blocks at once."""
    still: float = 0.1
    """Share of the actions in which nothing moves."""
    panning: float = 0.3
    """Share of the actions during which the camera pans, where it may."""
    chunk_frames: int = 40
    """Frames an action takes: PAN's chunk."""
    fps: float = 16.0
    named: Literal["always", "once"] = "always"
    """"once": a story's first action says which of the two blocks is "it", and nothing moves; all later ones speak of "it" and "the other one". Neither the
    picture nor an action alone tells then what is meant: who obeys has kept the beginning."""
    lag: float = 0.0
    """What an action does comes this share of a chunk after its words. Above 0 blocks are under way where two chunks meet, and the last action's motion is cut
    off; it is not judged then."""

    def __post_init__(self) -> None:
        must(64 <= self.size <= 128 and self.size % 2 == 0, f"block world: size {self.size}; it must be even, 64 to 128 px")
        must(self.named in ("always", "once"), f'block world: blocks named {self.named!r}; they are named "always" or "once"')
        must(self.named == "always" or self.blocks == 2, f"block world: {self.blocks} blocks named once; with one of two, the other is the other one")
        must(1 <= self.blocks <= len(COLOURS), f"block world: {self.blocks} blocks; there are 1 to {len(COLOURS)} colours")
        must(0.1 <= self.side <= 0.3 and 0.05 <= self.step <= 0.5, f"block world: side {self.side} and step {self.step}; they must be 0.1-0.3 and 0.05-0.5")
        must(0.04 <= self.reach <= 0.12, f"block world: reach {self.reach}; it must be 0.04 to 0.12: less cannot be told, with more the rim leaves the picture")
        shares = (self.twice, self.still, self.panning)
        must(
            all(0.0 <= share <= 1.0 for share in shares) and self.twice + self.still <= 1,
            f"block world: shares {shares} must be 0 to 1, the first two together",
        )
        must(0.0 <= self.lag < 1.0, f"block world: lag {self.lag}; it is a share of a chunk, 0 to below 1")
        must(
            self.chunk_frames >= 2 and self.fps > 0,
            f"block world: {self.chunk_frames} frames a chunk at {self.fps} a second; give at least 2 and a rate above 0",
        )
        must(
            self.cells**2 >= 2 * self.blocks,
            f"block world: {self.blocks} blocks of side {self.side} do not fit on {self.cells}x{self.cells} cells; make them smaller",
        )

    @property
    def colours(self) -> tuple[str, ...]:
        """The blocks' names."""
        return tuple(COLOURS)[: self.blocks]

    @property
    def table(self) -> Table:
        """The rim's inner edges, and the blocks' side."""
        margin = self.reach + 0.05 if self.camera else 0.04
        return Table(self.side, margin, 1 - margin)

    @property
    def cells(self) -> int:
        """Cells a side of the grid that layouts are drawn on: each holds a block and a quarter of its side."""
        return int((self.table.high - self.table.low) / (1.25 * self.side))

    @property
    def lag_frames(self) -> int:
        """Frames between words and what they do."""
        return round(self.lag * self.chunk_frames)

    def delayed(self, values_TD: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """What is in each frame, [T, ...], where without a lag it would be `values_TD`: the first stays for as long, and the last are cut off."""
        then: npt.NDArray[np.float64] = values_TD[np.maximum(np.arange(len(values_TD)) - self.lag_frames, 0)]
        return then

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "World":
        """The inverse of `to_dict`.

        Raises:
            ValueError: it is no table, a key is unknown or missing, or a value is of another kind.
        """
        must(isinstance(data, Mapping), f"block world: expected a table of keys, got {data!r}")
        given = {"named": "always", "lag": 0.0, **data}  # a world of before there was a choice
        made = built(cls, given, "block world")
        lacking = [f.name for f in fields(cls) if f.name not in given]
        must(not lacking, f"block world: {', '.join(lacking)} must be given")
        return made


@dataclass(frozen=True)
class Layout:
    """Where the blocks begin: in which cell each stands (row by row), and where exactly."""

    cells: tuple[int, ...]
    positions_N2: Positions_N2

    @property
    def split(self) -> Split:
        """Which part of all arrangements this one belongs to."""
        return split_of(self.cells)


@dataclass(frozen=True)
class Episode:
    """One story: a layout, what is done, and where everything is in each frame.

    Attributes:
        positions_TN2: the blocks on the table.
        camera_T2: the middle of the view, from the table's.
        it: the block that the first action names, in a world that names them once.
    """

    world: World
    layout: Layout
    actions: tuple[Action, ...]
    positions_TN2: npt.NDArray[np.float64]
    camera_T2: npt.NDArray[np.float64]
    it: str | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """What each action is told in."""
        if self.it is None:
            return tuple(map(str, self.actions))
        (other,) = set(self.world.colours) - {self.it}
        return naming(self.it), *(by_reference(str(action), self.it, other) for action in self.actions[1:])

    @property
    def captions(self) -> tuple[str, ...]:
        """What comes of each action, whatever it was told in, as short as it can be said: "red left blue up", "camera down", "nothing"; "it is red"."""
        told = [" ".join([*(f"{p.colour} {p.way}" for p in a.pushes), *([f"camera {a.pan}"] if a.pan else [])]) or "nothing" for a in self.actions]
        return tuple(told if self.it is None else [f"it is {self.it}", *told[1:]])

    def events(self) -> list[dict[str, float | str]]:
        """The actions as timed events, s since the film's first frame: action k is in the frames 1 + 40 k to 40 + 40 k."""
        frames, fps = self.world.chunk_frames, self.world.fps
        return [{"start_s": (1 + frames * k) / fps, "end_s": (1 + frames * (k + 1)) / fps, "text": text} for k, text in enumerate(self.words)]


@lru_cache(maxsize=1 << 16)
def split_of(cells: tuple[int, ...]) -> Split:
    """Which part of all arrangements this one, a cell a block, belongs to; a pure function of the cells, so no arrangement is in both."""
    first = hashlib.sha256(json.dumps(cells).encode()).digest()[:4]
    return "unseen" if int.from_bytes(first, "big") < UNSEEN_SHARE * 2**32 else "train"


def arrangement(world: World, at_N2: Positions_N2) -> tuple[int, ...]:
    """The cell in whose bounds each block's centre lies, row by row."""
    low, pitch = world.table.low, (world.table.high - world.table.low) / world.cells
    columns, rows = np.clip((at_N2 - low) // pitch, 0, world.cells - 1).astype(int).T.tolist()
    return tuple(column + row * world.cells for column, row in zip(columns, rows, strict=True))


def shows(world: World, positions_TN2: npt.NDArray[np.float64], split: Split) -> bool:
    """Whether the blocks are in an arrangement of that split in any of the frames."""
    return any(split_of(arrangement(world, at_N2)) == split for at_N2 in positions_TN2)


def layout(world: World, rng: np.random.Generator, split: Split = "train") -> Layout:
    """A random layout of that split: no two blocks in one cell, each somewhere in its cell."""
    low, pitch = world.table.low, (world.table.high - world.table.low) / world.cells
    for _ in range(_TRIES):
        cells = rng.permutation(world.cells**2)[: world.blocks]
        slack = rng.uniform(-0.45, 0.45, (world.blocks, 2)) * (pitch - world.side)
        found = Layout(tuple(int(c) for c in cells), low + pitch * (np.stack([cells % world.cells, cells // world.cells], 1) + 0.5) + slack)
        if found.split == split:
            return found
    raise ValueError(f"block world: no {split} layout in {_TRIES} tries: with {world.blocks} blocks on {world.cells}x{world.cells} cells there are too few")


def episode(world: World, rounds: int, seed: int, number: int, split: Split = "train", *, apart: bool = False) -> Episode:
    """The `number`-th episode of a seed: the same on every machine, whatever else is made.

    Args:
        split: of the arrangement that it begins with; what is done may lead to any.
        apart: no frame shows an arrangement of the other split; an action that would is not asked for.
    """
    rng = np.random.default_rng([seed, number, SPLITS.index(split)])
    start = layout(world, rng, split)
    at, view, actions = start.positions_N2, np.zeros(2), list[Action]()
    positions, camera = [at[None]], [view[None]]
    it = world.colours[int(rng.integers(world.blocks))] if world.named == "once" else None
    for r in range(rounds):
        action, blocks = (Action(), after(world, at, Action())) if it and r == 0 else _drawn(world, at, rng, _other(split) if apart else None)
        pan = _pan(world, view, rng)
        views = panned(world, view, pan)
        actions.append(Action(action.pushes, pan))  # type: ignore[arg-type]
        positions.append(blocks)
        camera.append(views)
        at, view = blocks[-1], views[-1]
    return Episode(world, start, tuple(actions), world.delayed(np.concatenate(positions)), world.delayed(np.concatenate(camera)), it)


def episodes(world: World, rounds: int, seed: int, count: int, split: Split = "train", *, apart: bool = False) -> Iterator[Episode]:
    """The first `count` episodes of a seed."""
    return (episode(world, rounds, seed, number, split, apart=apart) for number in range(count))


def _other(split: Split) -> Split:
    return "train" if split == "unseen" else "unseen"


def after(world: World, at_N2: Positions_N2, action: Action) -> npt.NDArray[np.float64]:
    """Where the blocks are in each frame of the action, [chunk_frames, N, 2]."""
    return moved(world.table, world.colours, at_N2, action, world.step, world.chunk_frames)


def panned(world: World, view_2: npt.NDArray[np.float64], pan: str | None) -> npt.NDArray[np.float64]:
    """The camera in each frame of an action, [chunk_frames, 2]: it goes by `reach`, and not beyond it."""
    done = np.array([pace((k + 1) / world.chunk_frames) for k in range(world.chunk_frames)])
    goal = np.clip(view_2 + world.reach * np.array(UNIT[pan] if pan else (0, 0)), -world.reach, world.reach)
    return view_2 + done[:, None] * (goal - view_2)


def _drawn(world: World, at_N2: Positions_N2, rng: np.random.Generator, shunned: Split | None = None) -> tuple[Action, npt.NDArray[np.float64]]:
    """A random action that is worth asking for, and what comes of it, none of which is an arrangement that is shunned; nothing where there is none."""
    chance = rng.random()
    pushes = 0 if chance < world.still else 2 if chance < world.still + world.twice and world.blocks > 1 else 1
    for _ in range(_TRIES if pushes else 0):
        chosen = rng.choice(world.blocks, pushes, replace=False)
        action = Action(tuple(Push(world.colours[int(i)], WAYS[int(rng.integers(4))]) for i in chosen))
        found = after(world, at_N2, action)
        if _worth(world, at_N2, action, found[-1]) and (shunned is None or not shows(world, found, shunned)):
            return action, found
    return Action(), after(world, at_N2, Action())


def _worth(world: World, start_N2: Positions_N2, action: Action, end_N2: Positions_N2) -> bool:
    """Whether every named block goes far enough, and touches no other where there is to be no contact."""
    for push in action.pushes:
        i, way = world.colours.index(push.colour), np.array(UNIT[push.way])
        if (end_N2[i] - start_N2[i]) @ way < WORTH * world.step:
            return False
    unnamed = [i for i, colour in enumerate(world.colours) if colour not in action.named]
    touches = bool((end_N2[unnamed] != start_N2[unnamed]).any() or not _apart(world, end_N2))
    return (world.contact or not touches) and _plain(world, start_N2, action, end_N2)


def _plain(world: World, start_N2: Positions_N2, action: Action, end_N2: Positions_N2) -> bool:
    """Whether blocks a little smaller or larger end nearly as they do: no edge is missed by so little that nobody could see who shoves whom."""
    for scale in (1 - DOUBT, 1 + DOUBT):
        table = replace(world.table, side=world.side * scale)
        other = moved(table, world.colours, start_N2, action, world.step, 1)[-1]
        if np.abs(other - end_N2).max() > DOUBT * world.side + 1e-9:
            return False
    return True


def _apart(world: World, at_N2: Positions_N2) -> bool:
    """Whether no two blocks touch."""
    return all(gap > 0 for i in range(len(at_N2)) for axis in (0, 1) for sign in (-1, 1) for _, gap in ahead(world.table, at_N2, i, axis, sign))


def _pan(world: World, view_2: npt.NDArray[np.float64], rng: np.random.Generator) -> str | None:
    """Where the camera goes, out of the ways that are left to it; usually nowhere."""
    if not world.camera or rng.random() >= world.panning:
        return None
    open_ways: Sequence[str] = [way for way in WAYS if (view_2 * np.array(UNIT[way])).sum() < world.reach / 2]
    return open_ways[int(rng.integers(len(open_ways)))]
