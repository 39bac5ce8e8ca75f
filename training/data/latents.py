"""Latents: the format of one encoded clip: what its safetensors member and its document hold, schema pan-latent/1."""

# Shape suffixes: C channels, F latent frames, H W latent height and width, L tokens, D text width; T pixel frames.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from curation.sample import to_json
from training.data.buckets import Size
from training.data.grid import Grid
from training.model.plain import must
from training.model.spec import ChunkSpec
from training.model.vision import Look

SCHEMA, MANIFEST_VERSION = "pan-latent/1", "pan-latents/1"
MEMBERS = ("json", "safetensors", "looks.safetensors")  # of every sample, in this order; the last, three quarters of the bytes, is for the joint phase alone


@dataclass(frozen=True)
class Encoded:
    """A clip as the decoder and the backbone take it.

    Attributes:
        latents_CFHW: of the whole clip, normalised; frame 0 is the image's.
        texts: by action, [L, D] without padding; in the order in which the actions first come.
        looks: what the vision tower sees before each chunk: the image, then each chunk but the last; empty if it was not asked for.
    """

    latents_CFHW: Tensor
    texts: Mapping[str, Tensor]
    looks: tuple[Look, ...] = ()

    def to_bytes(self) -> tuple[bytes, bytes]:
        """Latents and texts, and looks, each as safetensors; the same tensors give the same bytes. Actions and the looks' clocks stand in the document."""
        from safetensors.torch import save

        tensors = {"latents": self.latents_CFHW.contiguous()}
        tensors |= {f"text.{k}": text.contiguous() for k, text in enumerate(self.texts.values())}
        looks = {f"look.{k}": torch.from_numpy(look.frames_THWC) for k, look in enumerate(self.looks)}
        return bytes(save(tensors)), bytes(save(looks))

    @classmethod
    def from_bytes(cls, told: Mapping[str, Any], data: bytes, looks: bytes | None) -> "Encoded":
        """The inverse of `to_bytes`.

        Args:
            told: the document.
            looks: None: they are not needed.

        Raises:
            ValueError: the tensors are not those of that document.
        """
        said, clocks = list(dict.fromkeys(told["actions"])), told["look_seconds"] if looks is not None else []
        whole, *texts = _tensors(data, ["latents", *(f"text.{k}" for k in range(len(said)))])
        seen = _tensors(looks, [f"look.{k}" for k in range(len(clocks))]) if looks is not None else []
        pictures = [Look(look.numpy(), None if clock == 0 else clock) for look, clock in zip(seen, clocks, strict=True)]
        return cls(whole, dict(zip(said, texts, strict=True)), tuple(pictures))


def _tensors(data: bytes, names: Sequence[str]) -> list[Tensor]:
    """The tensors `names` of safetensors that hold these and no others."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        found: dict[str, Tensor] = load(data)
    except SafetensorError as error:
        raise ValueError(f"not safetensors: {error}") from error
    must(set(names) == set(found), f"the tensors are {', '.join(sorted(found)[:8]) or 'none'}, its document speaks of {', '.join(names[:8]) or 'none'}")
    return [found[name] for name in names]


def document(raw: dict[str, Any], grid: Grid, spec: ChunkSpec, size: Size, encoded: Encoded, address: str) -> bytes:
    """What is to be known of an encoded clip, as canonical JSON: whose it is, of which MP4 and caption, and on which grid.

    Args:
        raw: the clip's pan-clip/1 document.
        size: (height, width) in px that it was encoded at.
        address: see `training.data.identity.address`.
    """
    told = {name: raw[name] for name in ("clip_id", "video_id", "clip_index", "start_s", "end_s", "caption_sha256", "binding", "provenance")}
    made = {
        "schema": SCHEMA,
        "address": address,
        "mp4_sha256": raw["mp4"]["sha256"],
        "chunks": grid.chunks,
        "actions": list(grid.actions),
        "fps": spec.fps,
        "height": size[0],
        "width": size[1],
        "latents": [str(encoded.latents_CFHW.dtype).removeprefix("torch."), *encoded.latents_CFHW.shape],
        "look_seconds": [0.0 if look.seconds is None else look.seconds for look in encoded.looks],  # 0: a picture, which has no clock
    }
    return to_json({**told, **made}).encode()


def plain(value: Any) -> Any:
    """Tuples as lists, as they come back from JSON."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value
