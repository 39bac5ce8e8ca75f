"""The block world's pictures: flat colours with exact edges, so that a place between two pixels can be read back from them."""

import numpy as np
import numpy.typing as npt

from training.evaluation.block_physics import Positions_N2
from training.evaluation.blockworld import COLOURS, Rgb, World

Frame_HWC = npt.NDArray[np.uint8]

#: As bright as the planks, so that the rim's share of a pixel can be told on both of its sides.
FLOOR: Rgb = (148, 152, 158)
RIM: Rgb = (58, 44, 36)
PLANKS: tuple[Rgb, Rgb] = ((188, 160, 126), (176, 148, 116))
#: Width of the table's rim as a share of the picture's side: 1.9 px at 64.
RIM_WIDTH = 0.03
PLANK_COUNT = 6


def picture(world: World, positions_N2: Positions_N2, camera_2: npt.ArrayLike = (0.0, 0.0)) -> Frame_HWC:
    """One frame, uint8 RGB [H, W, 3]: floor, rim, planks, and the blocks in their order."""
    canvas = _table(world, np.asarray(camera_2, np.float64))
    return _finished(_with_blocks(canvas, world, positions_N2 - np.asarray(camera_2)))


def film(world: World, positions_TN2: npt.NDArray[np.float64], camera_T2: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Every frame of blocks and a camera that move (an episode's `positions_TN2` and `camera_T2`), uint8 RGB [T, H, W, 3]."""
    rest, canvas, frames = None, np.empty(0), []
    for positions_N2, camera_2 in zip(positions_TN2, camera_T2, strict=True):
        if rest is None or (camera_2 != rest).any():
            rest, canvas = camera_2, _table(world, camera_2)
        frames.append(_finished(_with_blocks(canvas.copy(), world, positions_N2 - camera_2)))
    return np.stack(frames)


def _table(world: World, camera_2: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The scene without blocks, float64 [H, W, 3]."""
    canvas = np.empty((world.size, world.size, 3))
    canvas[:] = FLOOR
    low, high, (x, y) = world.table.low, world.table.high, camera_2
    _fill(canvas, low - RIM_WIDTH - x, high + RIM_WIDTH - x, low - RIM_WIDTH - y, high + RIM_WIDTH - y, RIM)
    for k in range(PLANK_COUNT):
        top, bottom = (low + (high - low) * n / PLANK_COUNT - y for n in (k, k + 1))
        _fill(canvas, low - x, high - x, top, bottom, PLANKS[k % 2])
    return canvas


def _with_blocks(canvas: npt.NDArray[np.float64], world: World, seen_N2: Positions_N2) -> npt.NDArray[np.float64]:
    half = world.side / 2
    for colour, (x, y) in zip(world.colours, seen_N2, strict=True):
        _fill(canvas, x - half, x + half, y - half, y + half, COLOURS[colour])
    return canvas


def _fill(canvas: npt.NDArray[np.float64], left: float, right: float, top: float, bottom: float, rgb: Rgb) -> None:
    """A rectangle, in shares of the side; a pixel that it covers in part takes its colour in part."""
    size = len(canvas)
    rows, columns = _covered(top * size, bottom * size, size), _covered(left * size, right * size, size)
    inside = np.ix_(np.flatnonzero(rows), np.flatnonzero(columns))
    cover = np.outer(rows[rows > 0], columns[columns > 0])[..., None]
    canvas[inside] += cover * (np.array(rgb) - canvas[inside])


def _covered(begin: float, end: float, size: int) -> npt.NDArray[np.float64]:
    """The share of each of `size` pixels that [begin, end) covers."""
    edges = np.arange(size)
    covered: npt.NDArray[np.float64] = np.clip(np.minimum(edges + 1, end) - np.maximum(edges, begin), 0.0, 1.0)
    return covered


def _finished(canvas: npt.NDArray[np.float64]) -> Frame_HWC:
    return np.round(canvas).astype(np.uint8)
