"""The block world's physics: blocks on a table that push what stands in their way, and stop at its rim."""

# Positions are float64 [N, 2], the blocks' centres as (x, y) in shares of the picture's side, x to the right and y down.

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.evaluation.block_words import UNIT, Action

Positions_N2 = npt.NDArray[np.float64]

#: Blocks that overlap sideways by less than this share of their side pass each other: their edges are rounded, and positions that were read have errors.
GRAZE = 0.12
#: Steps of motion a chunk at least: simultaneous pushes then hardly depend on which comes first.
LEAST_STEPS = 40


@dataclass(frozen=True)
class Table:
    """Where blocks can be.

    Attributes:
        side: of a block.
        low, high: the rim's inner edges, the same in x and y.
    """

    side: float
    low: float
    high: float

    def room(self, at: float, sign: int) -> float:
        """How far a block's centre can go before the rim stops it; never negative."""
        half = self.side / 2
        return max(0.0, self.high - half - at if sign > 0 else at - self.low - half)


def pace(share: float) -> float:
    """How much of a movement is done after a share of its time: it starts and ends at rest.

    Source: Flash and Hogan (1985), the minimum-jerk movement of a hand: 10 t^3 - 15 t^4 + 6 t^5.
    """
    return share**3 * (10 + share * (6 * share - 15))


def moved(table: Table, colours: Sequence[str], start_N2: Positions_N2, action: Action, step: float, frames: int) -> npt.NDArray[np.float64]:
    """Where the blocks are at the end of each frame of the action, [frames, N, 2].

    Each named block is driven by `step`; what it meets is shoved along for as long as it is met (friction stops it at once), a driven block
    gives way to none, and at the rim everything stops.

    Args:
        table: its rim and the blocks' side.
        colours: the blocks' names, in the order of `start_N2`.
        step: how far a push goes where nothing is in the way.

    Raises:
        KeyError: a block is named that is not there.
    """
    index = {colour: i for i, colour in enumerate(colours)}
    driven = {index[push.colour]: UNIT[push.way] for push in action.pushes}
    fine = max(1, math.ceil(LEAST_STEPS / frames))
    at, told = start_N2.astype(np.float64).copy(), []
    for k in range(frames * fine):
        distance = step * (pace((k + 1) / (frames * fine)) - pace(k / (frames * fine)))
        for i, (x, y) in driven.items():
            axis, sign = (0, x) if x else (1, y)
            shove(table, at, i, axis, sign, room(table, at, i, axis, sign, distance, driven.keys() - {i}))
        if (k + 1) % fine == 0:
            told.append(at.copy())
    return np.stack(told)


def room(table: Table, at_N2: Positions_N2, i: int, axis: int, sign: int, distance: float, held: Set[int]) -> float:
    """How much of `distance` block `i` can go, with all that it shoves; `held` blocks are not to be shoved."""
    can = min(distance, table.room(float(at_N2[i, axis]), sign))
    for j, gap in ahead(table, at_N2, i, axis, sign):
        if gap < can:
            can = min(can, gap + (0.0 if j in held else room(table, at_N2, j, axis, sign, can - gap, held)))
    return can


def shove(table: Table, at_N2: Positions_N2, i: int, axis: int, sign: int, distance: float) -> None:
    """Moves block `i` by `distance`, which there is room for, and what is in its way."""
    for j, gap in ahead(table, at_N2, i, axis, sign):
        if gap < distance:
            shove(table, at_N2, j, axis, sign, distance - gap)
    at_N2[i, axis] += sign * distance


def ahead(table: Table, at_N2: Positions_N2, i: int, axis: int, sign: int) -> list[tuple[int, float]]:
    """The blocks in block `i`'s way with the gap before each, never negative."""
    along, across = sign * (at_N2[:, axis] - at_N2[i, axis]), np.abs(at_N2[:, 1 - axis] - at_N2[i, 1 - axis])
    return [(int(j), max(0.0, float(along[j]) - table.side)) for j in np.flatnonzero((along > 0) & (across < table.side * (1 - GRAZE))) if j != i]
