"""Vae: video to normalised latents and back, causal in time, whole or piece by piece; WanVae is Wan2.1's, from diffusers.

Shapes: B batch, C channels, T pixel frames, F latent frames, H W height and width (of pixels in `video`, of latents in `latents`).
Latent frame 0 stands for the first pixel frame alone, each later one for `temporal` frames: T = 1 + temporal*(F - 1).
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from training.model.spec import VaeSpec

#: What a causal convolution remembers of the frames before: nothing yet, their last ones, or Wan's mark of an upsampler that has seen the first frame alone.
Slot: TypeAlias = Tensor | str | None
Step: TypeAlias = Callable[[Tensor, list[Slot], bool], Tensor]

_FIRST_SEEN = "Rep"  # diffusers' own mark
_KIND = "kind"


class CausalStream:
    """A long video through an autoencoder in pieces, as if it were one: the causal convolutions' last frames are kept between pieces.

    Every latent frame is one step of the network, whatever the pieces: so the pieces' results equal the whole's to the bit.
    Tensors in the cache are replaced, never changed: a fork costs nothing.
    """

    def __init__(self, step: Step, slots: int, later: int, what: str) -> None:
        """`step(part, cache, is_first)` for one latent frame; `slots` cache places; each step but the first, which takes one frame, takes `later`."""
        self._step, self._later, self._what = step, later, what
        self._cache: list[Slot] = [None] * slots
        self._begun = False

    def push(self, piece_BCTHW: Tensor) -> Tensor:
        """The next frames in, their result out.

        Raises:
            ValueError: the first piece has not 1 + n*later frames, or a further piece not n*later.
        """
        frames = piece_BCTHW.shape[2]
        lead = 0 if self._begun else 1
        steps, rest = divmod(frames - lead, self._later)
        if frames < 1 or rest or steps < 0:
            form = f"1 + {self._later}n" if lead else f"{self._later}n"
            raise ValueError(f"{self._what} a piece of {frames} frames: {form} are needed, since every latent frame but the first stands for {self._later}")
        parts = piece_BCTHW.split([1] * lead + [self._later] * steps, dim=2)
        done = []
        for part in parts:
            done.append(self._step(part, self._cache, not self._begun))
            self._begun = True
        return torch.cat(done, dim=2)

    def fork(self) -> "CausalStream":
        """A second stream that goes on from here, on its own."""
        other = CausalStream(self._step, len(self._cache), self._later, self._what)
        other._cache, other._begun = list(self._cache), self._begun
        return other

    def state(self) -> dict[str, Tensor]:
        """All that goes on from here depends on, as named tensors, for a file."""
        kinds = [0 if slot is None else 1 if isinstance(slot, str) else 2 for slot in self._cache]
        return {_KIND: torch.tensor([int(self._begun), *kinds], dtype=torch.uint8)} | {
            str(i): slot.contiguous() for i, slot in enumerate(self._cache) if isinstance(slot, Tensor)
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Goes on from where `state` was taken.

        Raises:
            ValueError: the state is of another autoencoder, or incomplete.
        """
        kinds = state[_KIND].tolist() if _KIND in state else []
        wanted = {_KIND} | {str(i) for i, kind in enumerate(kinds[1:]) if kind == 2}
        if len(kinds) != 1 + len(self._cache) or wanted != state.keys():
            raise ValueError(f"{self._what} from a state of {max(len(kinds) - 1, 0)} places: this autoencoder has {len(self._cache)}; load one that it wrote")
        self._begun = bool(kinds[0])
        self._cache = [None if kind == 0 else _FIRST_SEEN if kind == 1 else state[str(i)] for i, kind in enumerate(kinds[1:])]


class Vae(Protocol):
    """A causal video autoencoder: what comes later never changes what came before.

    Attributes:
        channels: of a latent.
        temporal: pixel frames a latent frame stands for, but for the first, which stands for one.
        spatial: pixels a latent covers, a side.
    """

    channels: int
    temporal: int
    spatial: int

    def encode(self, video_BCTHW: Tensor) -> Tensor:
        """RGB in [-1, 1], T = 1 + temporal*n, sides divisible by `spatial`, to normalised latents [B, channels, 1+n, H/spatial, W/spatial]; same dtype."""
        ...

    def decode(self, latents_BCFHW: Tensor) -> Tensor:
        """The inverse, in [-1, 1]: [B, 3, 1 + temporal*(F-1), H*spatial, W*spatial]; same dtype."""
        ...

    def stream_encode(self) -> CausalStream:
        """Encodes a video piece by piece; together the pieces give what `encode` gives."""
        ...

    def stream_decode(self) -> CausalStream:
        """Decodes latents piece by piece; together the pieces give what `decode` gives."""
        ...


class WanVae(nn.Module):
    """Wan2.1's autoencoder (4x8x8, 16 channels) as diffusers keeps it, with the latents' normalisation, and in pieces.

    `network` is diffusers' `AutoencoderKLWan`, in whatever dtype it is moved to; results come in the dtype of what is given.
    """

    def __init__(self, spec: VaeSpec) -> None:
        """Random weights of the widths in `spec`.

        Raises:
            ValueError: a compression other than Wan's.
        """
        from diffusers import AutoencoderKLWan

        super().__init__()
        if (spec.kind, spec.temporal, spec.spatial) != ("wan", 4, 8):
            raise ValueError(f"vae: kind {spec.kind!r} of {spec.temporal}x{spec.spatial}x{spec.spatial}: Wan's compresses 4x8x8; use kind 'small' for another")
        self.spec = spec
        self.channels, self.temporal, self.spatial = spec.channels, spec.temporal, spec.spatial
        self.network = AutoencoderKLWan(base_dim=spec.base_dim, z_dim=spec.channels, latents_mean=list(spec.mean), latents_std=list(spec.std))
        kind = type(self.network.quant_conv)  # each causal convolution inside has one place in the cache, in the order of the calls
        self._encoder_slots = sum(isinstance(module, kind) for module in self.network.encoder.modules())
        self._decoder_slots = sum(isinstance(module, kind) for module in self.network.decoder.modules())

    def encode(self, video_BCTHW: Tensor) -> Tensor:
        """See `Vae.encode`; the mean of the posterior, never a sample. Source: Wan2.1, wan/modules/vae.py, `WanVAE.encode`."""
        check_video(video_BCTHW, self.temporal, self.spatial)
        return self.stream_encode().push(video_BCTHW)

    def decode(self, latents_BCFHW: Tensor) -> Tensor:
        """See `Vae.decode`."""
        check_latents(latents_BCFHW, self.channels)
        return self.stream_decode().push(latents_BCFHW)

    def stream_encode(self) -> CausalStream:
        """See `Vae.stream_encode`."""
        return CausalStream(self._encode_step, self._encoder_slots, self.temporal, "encoding")

    def stream_decode(self) -> CausalStream:
        """See `Vae.stream_decode`."""
        return CausalStream(self._decode_step, self._decoder_slots, 1, "decoding")

    def _encode_step(self, part_BCTHW: Tensor, cache: list[Slot], first: bool) -> Tensor:
        """One latent frame [B, channels, 1, h, w] of one or `temporal` pixel frames."""
        hidden = self.network.encoder(part_BCTHW.to(self._dtype), feat_cache=cache, feat_idx=[0])
        mean_BCFHW = self.network.quant_conv(hidden)[:, : self.channels]
        return normalised(mean_BCFHW, self.spec).to(part_BCTHW.dtype)

    def _decode_step(self, part_BCFHW: Tensor, cache: list[Slot], first: bool) -> Tensor:
        """One or `temporal` pixel frames of one latent frame."""
        hidden = self.network.post_quant_conv(denormalised(part_BCFHW, self.spec).to(self._dtype))
        video = self.network.decoder(hidden, feat_cache=cache, feat_idx=[0], first_chunk=first)
        return video.clamp(-1, 1).to(part_BCFHW.dtype)

    @property
    def _dtype(self) -> Any:
        """Of the weights."""
        return self.network.quant_conv.weight.dtype


def build_vae(spec: VaeSpec) -> nn.Module:
    """The autoencoder that `spec` names, a `Vae`, with random weights."""
    if spec.kind == "wan":
        return WanVae(spec)
    from training.model.small_vae import SmallVae

    return SmallVae(spec)


def normalised(latents_BCFHW: Tensor, spec: VaeSpec) -> Tensor:
    """(latents - mean) / std, a channel at a time, in float32 at least."""
    mean, std = _moments(latents_BCFHW, spec)
    return (latents_BCFHW - mean) / std


def denormalised(latents_BCFHW: Tensor, spec: VaeSpec) -> Tensor:
    """The inverse of `normalised`."""
    mean, std = _moments(latents_BCFHW, spec)
    return latents_BCFHW * std + mean


def _moments(like: Tensor, spec: VaeSpec) -> tuple[Tensor, Tensor]:
    """Mean and deviation [channels, 1, 1, 1]; float32 at least, so that bfloat16 weights do not round them."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    mean, std = (torch.tensor(values, dtype=dtype, device=like.device).view(-1, 1, 1, 1) for values in (spec.mean, spec.std))
    return mean, std


def check_video(video_BCTHW: Tensor, temporal: int, spatial: int) -> None:
    """Refuses what an autoencoder would cut silently.

    Raises:
        ValueError: not five axes of three colours, no 1 + temporal*n frames, or sides that `spatial` does not divide.
    """
    shape = list(video_BCTHW.shape)
    if video_BCTHW.ndim != 5 or shape[1] != 3 or not video_BCTHW.is_floating_point():
        raise ValueError(f"encoding a video of {shape}, {video_BCTHW.dtype}: [batch, 3, frames, height, width] of floats in [-1, 1] is needed")
    frames, height, width = shape[2:]
    if frames < 1 or (frames - 1) % temporal:
        fits = 1 + (frames - 1) // temporal * temporal
        raise ValueError(f"encoding {frames} frames: 1 + {temporal}n are needed, or the tail would be lost; give {max(fits, 1)} or {fits + temporal} of them")
    if height % spatial or width % spatial or not height or not width:
        raise ValueError(f"encoding frames of {height}x{width} px: both sides must be multiples of {spatial}; resize or crop them first")


def check_latents(latents_BCFHW: Tensor, channels: int) -> None:
    """Refuses latents of another autoencoder.

    Raises:
        ValueError: not five axes, no frame, or another number of channels.
    """
    shape = list(latents_BCFHW.shape)
    if latents_BCFHW.ndim != 5 or shape[1] != channels or shape[2] < 1 or not latents_BCFHW.is_floating_point():
        raise ValueError(f"decoding latents of {shape}, {latents_BCFHW.dtype}: [batch, {channels}, frames, height, width] of floats is needed")
