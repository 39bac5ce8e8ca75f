"""Encoder: a clip's MP4 and actions to latents, text embeddings and the vision tower's pictures; frozen parts, chunk by chunk."""

# Shape suffixes: B batch (1), C channels, F latent frames, T pixel frames, H W pixels or latent rows and columns.

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from curation.shards import Sample
from training.data.buckets import bucket_for
from training.data.grid import Grid, grid_of
from training.data.identity import EncodeSettings, sizes_of
from training.data.latents import Encoded, document
from training.data.pixels import Frames_THWC, pieces
from training.model.checkpoint import open_part
from training.model.spec import ModelSpec
from training.model.vision import look_at


class Encoder:
    """The frozen encoders of a model: its autoencoder and its text encoder.

    A clip is encoded whole: by the autoencoder's causality a window that begins later then holds the context that PAN pads its windows with.

    Args:
        spec: the model.
        vae, text: its parts.
        settings: how clips become latents.

    Source: PAN (arXiv 2511.09057v3), 3.3.4.
    """

    def __init__(self, spec: ModelSpec, vae: nn.Module, text: nn.Module, settings: EncodeSettings | None = None, device: Any = "cpu") -> None:
        self.spec, self.settings, self.device = spec, settings or EncodeSettings(), torch.device(device)
        self._vae, self._text = vae.eval(), text.eval()
        self._kind = getattr(torch, self.settings.dtype)
        self._sizes = sizes_of(spec, self.settings)

    @classmethod
    def open(cls, folder: Path, spec: ModelSpec, settings: EncodeSettings, device: Any = "cpu") -> "Encoder":
        """The encoders of the model in `folder`; nothing else of it is read."""
        vae = open_part(folder, "vae", device=device)
        return cls(spec, vae, open_part(folder, "text", device=device, dtype=getattr(torch, settings.compute)), settings, device)

    def encode(self, sample: Sample, address: str) -> tuple[Encoded, bytes]:
        """A clip, and its document.

        Raises:
            ClipError: the clip's fault: it cannot be decoded, does not fit the model's grid, is too small.
        """
        grid = grid_of(sample.document, self.spec.chunks)
        mp4 = sample.document["mp4"]
        size = bucket_for(mp4["height"], mp4["width"], self._sizes, self.settings.most_enlarged)
        encoded = self._encoded(sample.mp4, grid, size)
        return encoded, document(sample.document, grid, self.spec.chunks, size, encoded, address)

    def text(self, action: str) -> Tensor:
        """An action's embedding [L, D], without padding, in the dtype that is stored."""
        with torch.inference_mode():
            states: Tensor = self._text.encode_unpadded([action])[0]
        return states.to("cpu", self._kind)

    def _encoded(self, mp4: bytes, grid: Grid, size: tuple[int, int]) -> Encoded:
        spec, stream = self.spec, self._vae.stream_encode()
        latents, looks = [], []
        for number, piece in enumerate(pieces(mp4, grid, spec.chunks, size)):
            with torch.inference_mode():
                latents.append(stream.push(as_video(piece, self.device))[0].to("cpu", self._kind))
            if self.settings.vision and number < grid.chunks:
                looks.append(look_at(piece, spec.chunks.fps, spec.backbone.vision))
        texts = {action: self.text(action) for action in dict.fromkeys(grid.actions)}
        return Encoded(torch.cat(latents, 1), texts, tuple(looks))


def as_video(frames_THWC: Frames_THWC, device: Any, dtype: Any = torch.float32) -> Tensor:
    """uint8 RGB frames as an autoencoder takes them: [1, 3, T, H, W] in [-1, 1]."""
    video = torch.from_numpy(np.ascontiguousarray(frames_THWC)).permute(3, 0, 1, 2)[None].to(device, dtype)
    return video / 127.5 - 1
