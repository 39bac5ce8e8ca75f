"""Blocks by Winograd's algorithm against the convolutions as they are written."""

import numpy as np

from curation.frames import F32
from curation.transnet_blocks import BATCH_NORM_EPSILON, DILATIONS, Arrays, Block, FirstBlock, empty_maps, halved, stack

NAME = "block"


def weights_of(channels: int, width: int) -> Arrays:
    """A block's random weights by the package's names."""
    rng, outer = np.random.default_rng(channels), 4 * width
    found = {f"{NAME}.bn.{part}": rng.uniform(0.5, 1.5, outer).astype(np.float32) for part in ("weight", "bias", "running_mean", "running_var")}
    for d in DILATIONS:
        found[f"{NAME}.Conv3D_{d}.layers.0.weight"] = rng.standard_normal((2 * width, channels, 1, 3, 3)).astype(np.float32) / np.float32(3 * channels**0.5)
        found[f"{NAME}.Conv3D_{d}.layers.1.weight"] = rng.standard_normal((width, 2 * width, 3, 1, 1)).astype(np.float32) / np.float32(3 * width**0.5)
    return found


def plain(weights: Arrays, x: F32) -> F32:
    """The block's maps of float32 [T, H, W, C], tap by tap."""
    time, height, width, _ = x.shape
    padded, branches = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), []
    for d in DILATIONS:
        spatial, temporal = (weights[f"{NAME}.Conv3D_{d}.layers.{i}.weight"] for i in (0, 1))
        middle = sum(padded[:, i : i + height, j : j + width] @ spatial[:, :, 0, i, j].T for i in range(3) for j in range(3))
        long = np.pad(middle, ((d, d), (0, 0), (0, 0), (0, 0)))
        branches.append(sum(long[t * d : t * d + time] @ temporal[:, :, t, 0, 0].T for t in range(3)))
    mean, var, scale, bias = (weights[f"{NAME}.bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    found: F32 = np.maximum((np.concatenate(branches, -1) - mean) / np.sqrt(var + BATCH_NORM_EPSILON) * scale + bias, 0).astype(np.float32)
    return found


def pool(x: F32) -> F32:
    """Means over 2 x 2 of float32 [T, H, W, C], an odd last row dropped."""
    rows = x.shape[1] // 2
    found: F32 = x[:, : 2 * rows].reshape(len(x), rows, 2, x.shape[2] // 2, 2, -1).mean((2, 4))
    return found


def laid_out(x: F32, phases: int) -> F32:
    """float32 [T, H, W, C] as [row, phase, channel, frame, tile]."""
    time, height, width, channels = x.shape
    return np.asarray(x.reshape(time, height, width // phases, phases, channels).transpose(1, 3, 4, 0, 2))


def test_the_first_block_is_its_convolutions() -> None:
    weights, frames = weights_of(3, 2), np.random.default_rng(5).integers(0, 256, (11, 5, 8, 3), np.uint8)
    maps = FirstBlock.of(weights, NAME)(frames, 4)
    assert maps.shape == (1 + 8 + 1, 4, 8, 11, 2)
    np.testing.assert_allclose(maps[1:6], laid_out(plain(weights, frames.astype(np.float32) / np.float32(255)), 4), atol=1e-5)
    assert not maps[0].any()
    assert not maps[6:].any()


def test_a_stack_is_its_convolutions_and_means() -> None:
    # 7 rows: the last tile is not full, and pooling drops a row that the second block still sees.
    before = np.random.default_rng(6).uniform(0, 1, (11, 7, 8, 5)).astype(np.float32)
    one, two = weights_of(5, 2), weights_of(8, 2)
    for rows in (4, 6):
        found = stack(Block.of(one, NAME, rows), Block.of(two, NAME, rows), np.ascontiguousarray(laid_out(before, 2)))
        inner = plain(one, before)
        np.testing.assert_allclose(found, laid_out(pool(plain(two, inner) + inner), 2), atol=1e-4)


def test_no_frames_but_one_and_a_row_of_tiles_alone() -> None:
    weights, x = weights_of(8, 2), np.random.default_rng(7).uniform(0, 1, (1, 4, 4, 8)).astype(np.float32)
    maps = empty_maps(4, 4, (8, 1, 1))
    maps[1:5] = laid_out(x, 4)
    np.testing.assert_allclose(halved(Block.of(weights, NAME, 4), maps, 4), laid_out(pool(plain(weights, x) + x), 2), atol=1e-5)
