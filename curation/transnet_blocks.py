"""TransNetV2's blocks of convolutions, by Winograd's algorithm: half the processor time of unfolding, exact up to rounding."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from curation.frames import F32, U8
from curation.winograd import Tiling

DILATIONS = (1, 2, 4, 8)
"""In time, of the four branches of a block. Source: T. Soucek, J. Lokoc, "TransNet V2", arXiv 2008.04838, figure 1."""

BATCH_NORM_EPSILON = 1e-3

COLUMNS = Tiling.of(4)
"""Tiles are four columns wide, so that maps lie as float32 [row, phase, channel, frame, tile] with column = 4 x tile + phase: what one product or sum
takes is contiguous, whatever it is of: rows, columns or frames that are shifted."""

Arrays = Mapping[str, npt.NDArray[Any]]


def merged(weights: Arrays, name: str) -> tuple[F32, F32]:
    """A block's convolutions as one: (float32 [9, 12 F, C] by (y, x), float32 [4 F] to add), batch normalisation within.

    A block is four branches side by side, each a 3 x 3 convolution to 2 F channels and then one over three frames, 1, 2, 4 or 8 apart, to F. Nothing
    lies between the two, so three products per input channel remain, and the shifts in time become sums. Rows 0..4F-1 are the middle frame's of
    all branches; then follow each branch's earlier and later frame. (Smaller ranks than the full ones were tried, of the kernels and of the maps that
    they see: there are none; 1 % of the energy is in the last tenth of either.)
    """
    factor = weights[f"{name}.bn.weight"] / np.sqrt(weights[f"{name}.bn.running_var"] + BATCH_NORM_EPSILON)
    width = len(factor) // len(DILATIONS)
    middle, sides = [], []
    for branch, d in enumerate(DILATIONS):
        spatial = weights[f"{name}.Conv3D_{d}.layers.0.weight"][:, :, 0].astype(np.float64)
        temporal = weights[f"{name}.Conv3D_{d}.layers.1.weight"][..., 0, 0] * factor[branch * width : (branch + 1) * width, None, None]
        taps = [(temporal[..., t] @ spatial.reshape(len(spatial), -1)).reshape(width, *spatial.shape[1:]) for t in range(3)]
        middle.append(taps[1])
        sides += [taps[0], taps[2]]
    kernel = np.concatenate(middle + sides).astype(np.float32).transpose(2, 3, 0, 1)
    bias = weights[f"{name}.bn.bias"] - weights[f"{name}.bn.running_mean"] * factor
    return kernel.reshape(9, *kernel.shape[2:]), bias.astype(np.float32)


def _join(products: F32, out: F32) -> None:
    """The middle frame's products and, shifted, the earlier and later ones' (float32 [12 F, T, W], spoilt, to [4 F, T, W]); 0 beyond the ends.

    Each branch is shifted as one long row, after what would come into the next channel was set to 0: NumPy adds such rows more than twice as fast.
    """
    width, (time, across) = len(products) // 12, products.shape[1:]
    flat, totals = products.reshape(12, -1), out.reshape(4, -1)
    for branch, (dilation, total) in enumerate(zip(DILATIONS, totals, strict=True)):
        step, side = min(dilation, time), 4 + 2 * branch
        products[side * width : (side + 1) * width, time - step :] = 0
        products[(side + 1) * width : (side + 2) * width, :step] = 0
        shift, middle, earlier, later = step * across, flat[branch], flat[side], flat[side + 1]
        total[:shift] = middle[:shift]
        np.add(middle[shift:], earlier[:-shift], out=total[shift:])
        total[:-shift] += later[shift:]


@dataclass(frozen=True)
class FirstBlock:
    """The block that sees pictures: three channels are too few for Winograd.

    Attributes:
        kernel: float32 [12 F, 27], columns by (x, y, channel); bias: float32 [4 F].
    """

    kernel: F32
    bias: F32

    @classmethod
    def of(cls, weights: Arrays, name: str) -> "FirstBlock":
        """From the package's names."""
        kernel, bias = merged(weights, name)
        return cls(np.ascontiguousarray(kernel.reshape(3, 3, -1, 3).transpose(2, 1, 0, 3).reshape(-1, 27)), bias)

    def __call__(self, frames: U8, tile_rows: int) -> F32:
        """Maps of uint8 [T, H, W, 3], at least 0, for a block with tiles so high: a row of zeros above, and some below."""
        (time, height, width), tile = frames.shape[:3], COLUMNS.size
        padded = np.zeros((height + 2, 3, time, width + 2), np.float32)
        padded[1:-1, ..., 1:-1] = frames.transpose(1, 3, 0, 2) / np.float32(255)
        shifted = np.stack([padded[..., k : k + width - tile + 1 : tile] for k in range(tile + 2)])
        out = empty_maps(height, tile_rows, (len(self.bias), time, width // tile))
        products, total = _room(len(self.kernel), time, width // tile), _room(len(self.bias), time, width // tile)
        for row in range(height):
            for phase in range(tile):
                columns = shifted[phase : phase + 3, row : row + 3].reshape(27, -1)
                np.matmul(self.kernel, columns, out=products.reshape(len(products), -1))
                _join(products, total)
                total += self.bias[:, None, None]
                np.maximum(total, 0, out=out[row + 1, phase])
        return out


@dataclass(frozen=True)
class Block:
    """A block of 64 channels and more.

    Attributes:
        rows: the tiling of rows.
        kernel: float32 [rows.size + 2, COLUMNS.size + 2, 12 F, C], at the points; bias: float32 [4 F].
    """

    rows: Tiling
    kernel: F32
    bias: F32

    @classmethod
    def of(cls, weights: Arrays, name: str, tile_rows: int) -> "Block":
        """From the package's names."""
        (kernel, bias), rows = merged(weights, name), Tiling.of(tile_rows)
        at_points: F32 = np.kron(rows.kernel, COLUMNS.kernel).astype(np.float32) @ kernel.reshape(9, -1)
        return cls(rows, at_points.reshape(len(rows.kernel), len(COLUMNS.kernel), *kernel.shape[1:]), bias)

    def tiles(self, maps: F32, height: int) -> Iterator[tuple[int, F32]]:
        """(first row, float32 [rows, phase, 4 F, T, W]), at least 0, for each row of tiles until `height`; the array is used again for the next.

        Args:
            maps: as `empty_maps` makes them, made for tiles as high as these.
        """
        (across, down, outer), (phases, channels, time, width) = (len(COLUMNS.kernel), len(self.rows.kernel), len(self.bias)), maps.shape[1:]
        values, values_spare = _room(down, *maps.shape[1:]), _room(3, *maps.shape[1:])
        points, left, right = _room(across, channels, time, width), _room(channels, time, width), _room(channels, time, width)
        products, total = _room(3 * outer, time, width), _room(across, outer, time, width)
        halfway, out, out_spare = _room(down, phases, outer, time, width), _room(self.rows.size, phases, outer, time, width), _room(phases, outer, time, width)
        for top in range(0, height, self.rows.size):
            self.rows.into(maps[top : top + down], values, values_spare)
            for i, row in enumerate(values):
                # Shifted as one long row, then the edge is made good: rows of a few tiles each would take longer.
                left.reshape(-1)[1:], right.reshape(-1)[:-1] = row[-1].reshape(-1)[:-1], row[0].reshape(-1)[1:]
                left[..., 0] = right[..., -1] = 0
                COLUMNS.into([left, *row, right], points, values_spare[:, 0])
                for kernel, values_there, joined in zip(self.kernel[i], points.reshape(across, channels, -1), total, strict=True):
                    np.matmul(kernel, values_there, out=products.reshape(3 * outer, -1))
                    _join(products, joined)
                if i == 1:  # what is added where x = y = 1 is added to all outputs
                    total[1] += self.bias[:, None, None]
                COLUMNS.back(total, halfway[i], out_spare[0])
            self.rows.back(halfway, out, out_spare)
            np.maximum(out, 0, out=out)
            yield top, out[: height - top]


def _room(*shape: int) -> F32:
    return np.empty(shape, np.float32)


def empty_maps(height: int, tile_rows: int, inner: tuple[int, int, int]) -> F32:
    """Zeros for maps of [channel, frame, tile] `inner`: float32 [1 + rows + 1, phase, *inner], rows being enough for whole tiles."""
    return np.zeros((-(-height // tile_rows) * tile_rows + 2, COLUMNS.size, *inner), np.float32)


def halved(block: Block, maps: F32, height: int) -> F32:
    """Maps plus what the block makes of them, averaged over 2 x 2: float32 [height // 2, 2, 4 F, T, W]; an odd last row is dropped."""
    rows = height // 2
    out = _room(rows, COLUMNS.size // 2, *maps.shape[2:])
    for top, made in block.tiles(maps, 2 * rows):
        made += maps[top + 1 : top + 1 + len(made)]
        pairs = made[::2] + made[1::2]
        pairs[:, ::2] += pairs[:, 1::2]
        np.multiply(pairs[:, ::2], np.float32(0.25), out=out[top // 2 : (top + len(made)) // 2])
    return out


def stack(first: Block, second: Block, pooled: F32) -> F32:
    """Two blocks on what the stack before gave, as `halved` gives it."""
    rows, _, channels, time, width = pooled.shape
    tile = COLUMNS.size
    maps = empty_maps(rows, first.rows.size, (channels, time, width // 2))
    for phase in range(tile):  # column 2 x tile + phase of the narrower maps
        maps[1 : rows + 1, phase] = pooled[:, phase % 2, ..., phase // 2 :: 2]
    inner = empty_maps(rows, second.rows.size, (len(first.bias), time, width // 2))
    for top, made in first.tiles(maps, rows):
        inner[top + 1 : top + 1 + len(made)] = made
    return halved(second, inner, rows)
