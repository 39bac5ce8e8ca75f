"""The block world's reader: every block's place from a frame's pixels, also where a codec or a model has blurred them."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from training.evaluation.block_pictures import FLOOR, PLANKS, RIM, RIM_WIDTH, Frame_HWC
from training.evaluation.blockworld import COLOURS, Rgb, World
from training.model.plain import must

#: A patch of a block's colour is the block where its area is this share of the true one, at least and at most.
LEAST_AREA, MOST_AREA = 0.35, 1.8
#: In so many of the lines across the table the rim must be seen for the camera's place to be known, and the floor on both sides of it must add up to what
#: there is, to this share of the picture's side (2.6 px of 64).
LEAST_RIM, FLOOR_NEAR = 0.5, 0.04
#: RGB to luma and colour differences, luma counting threefold: codecs halve the colours' resolution, and shift them by up to half a px.
SPACE = np.array([[0.2126, 0.7152, 0.0722], [-0.1146, -0.3854, 0.5], [0.5, -0.4542, -0.0458]]).T * (3.0, 1.0, 1.0)


@dataclass(frozen=True)
class Reading:
    """What a frame shows.

    Attributes:
        places: colour -> centre (x, y) on the table, in shares of the picture's side; a block that is not seen whole, or twice, is left out.
        camera: the middle of the view, from the table's; None where the rim is not seen (then the places are the picture's).
    """

    places: dict[str, npt.NDArray[np.float64]]
    camera: npt.NDArray[np.float64] | None

    def positions_N2(self, world: World) -> npt.NDArray[np.float64] | None:
        """All blocks in the world's order, or None where one is missing."""
        return np.stack([self.places[c] for c in world.colours]) if self.places.keys() >= set(world.colours) else None


def read(world: World, frame_HWC: Frame_HWC) -> Reading:
    """Where the blocks are in a frame, uint8 RGB [H, W, 3].

    Each pixel goes to the nearest of the world's colours; of each block's colour the largest patch is taken, and its centre is that of the
    colour's share in the pixels in and around it.

    Raises:
        ValueError: another size than the world's.
    """
    must(frame_HWC.shape == (world.size, world.size, 3), f"block world: a frame {list(frame_HWC.shape)}, the world's are {world.size}x{world.size} px")
    rgb = frame_HWC.astype(np.float64)
    palette = np.array([*(COLOURS[c] for c in world.colours), RIM, FLOOR, *PLANKS], np.float64)  # blocks first, then the rim
    nearest = ((rgb[:, :, None] - palette) ** 2).sum(-1).argmin(-1)
    camera = _camera(world, rgb) if world.camera else np.zeros(2)
    patches = {i: patch for i in range(world.blocks) if (patch := _patch(world, nearest == i)) is not None}
    places = {}
    for i, patch in patches.items():
        others = np.any([nearest == world.blocks, *(other for j, other in patches.items() if j != i)], axis=0)  # the rim first
        places[world.colours[i]] = _centre(rgb, patch, others, COLOURS[world.colours[i]]) / world.size + (0.0 if camera is None else camera)
    return Reading(places, camera)


def _patch(world: World, of_colour_HW: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_] | None:
    """The largest patch of a block's colour, bool [H, W], where it has about the block's area, and there is no second one that could be the block."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(of_colour_HW.astype(np.uint8), connectivity=4)
    if len(stats) < 2:
        return None
    areas = stats[1:, cv2.CC_STAT_AREA] / (world.side * world.size) ** 2
    best = int(np.argmax(areas))
    patch: npt.NDArray[np.bool_] = labels == 1 + best
    return patch if LEAST_AREA <= areas[best] <= MOST_AREA and (np.delete(areas, best) < LEAST_AREA).all() else None


def _centre(rgb: npt.NDArray[np.float64], patch_HW: npt.NDArray[np.bool_], others_HW: npt.NDArray[np.bool_], colour: Rgb) -> npt.NDArray[np.float64]:
    """A block's centre in px: pixels around its patch hold its colour in part, and count by their share of the way from the planks' to it."""
    around = cv2.dilate(patch_HW.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & ~others_HW
    seen, plank, own = rgb @ SPACE, np.mean(PLANKS, 0) @ SPACE, np.array(colour) @ SPACE
    return _middle(np.clip((seen - plank) @ (own - plank) / ((own - plank) @ (own - plank)), 0, 1) * around)


def _middle(weight_HW: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(x, y) of the centre of mass, in px; a pixel's centre lies half a px behind its index."""
    rows, columns = np.indices(weight_HW.shape) + 0.5
    middle: npt.NDArray[np.float64] = np.array([(columns * weight_HW).sum(), (rows * weight_HW).sum()]) / weight_HW.sum()
    return middle


def _camera(world: World, rgb: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | None:
    """Where the camera looks: half of how much more floor is seen on one side of the table than on the other; no block covers the rim's outer edge."""
    light = np.mean((*PLANKS, FLOOR))
    rim_HW = np.clip((light - rgb.mean(-1)) / (light - np.mean(RIM)), 0, 1)
    middle = slice(int(0.3 * world.size), int(0.7 * world.size))  # these lines cross the table wherever the camera looks
    whole = (1 - (world.table.high - world.table.low) - 2 * RIM_WIDTH) * world.size
    found = []
    for lines in (rim_HW[middle], rim_HW.T[middle]):
        before, behind = _floor(lines), _floor(lines[:, ::-1])
        if before is None or behind is None or abs(before + behind - whole) > FLOOR_NEAR * world.size:
            return None
        found.append((behind - before) / 2 / world.size)
    return np.array(found)


def _floor(rim_LP: npt.NDArray[np.float64]) -> float | None:
    """How many px of floor lie before the rim, from the share of rim in the px of some lines; None where most lines show none."""
    first = (rim_LP > 0.5).argmax(1)
    seen = np.flatnonzero(first > 0)
    if len(seen) < LEAST_RIM * len(rim_LP):
        return None
    at = first[seen]
    return float(np.median(at + 1 - rim_LP[seen, at] - rim_LP[seen, at - 1]))
