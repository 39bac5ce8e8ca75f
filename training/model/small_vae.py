"""SmallVae: a causal video autoencoder of ours, small enough to be trained on a CPU, for tests and the debug models.

Time is folded into channels: a latent frame and the `temporal` pixel frames it stands for are one position everywhere inside, so that causality is
a matter of the convolutions alone, each of which sees its own latent frame and two before it. The first frame stands in `temporal` times.
Shapes as in training/model/vae.py; N channels inside.
"""

import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.model.spec import VaeSpec
from training.model.vae import CausalStream, Slot, check_latents, check_video, denormalised, normalised

_PATCH = 2  # px a side that are folded into channels before the first convolution: it works on a quarter of the positions
_CERTAIN, _LITTLE = -6.0, 0.1  # before training: log variance of the latents, and a factor of what the convolutions add to the shortcuts
_PAST = 2  # latent frames that a temporal convolution sees behind its own


class Past:
    """What the temporal convolutions remember, handed out in the order of their calls; without a cache each starts from zeros."""

    def __init__(self, cache: list[Slot] | None) -> None:
        self._cache, self._next = cache, 0

    def before(self, x_BNFHW: Tensor) -> Tensor:
        """`x` with the two latent frames before it in front; remembers its own last two."""
        kept = None if self._cache is None else self._cache[self._next]
        if not isinstance(kept, Tensor):
            kept = x_BNFHW.new_zeros(*x_BNFHW.shape[:2], _PAST, *x_BNFHW.shape[3:])
        joined = torch.cat([kept, x_BNFHW], dim=2)
        if self._cache is not None:
            self._cache[self._next] = joined[:, :, -_PAST:].contiguous()
            self._next += 1
        return joined


class CausalConv(nn.Conv3d):
    """A 3x3x3 convolution over its own and the two latent frames before."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__(n_in, n_out, 3, padding=(0, 1, 1))

    def forward(self, x_BNFHW: Tensor, past: Past) -> Tensor:
        """[B, n_in, F, H, W] to [B, n_out, F, H, W]."""
        return super().forward(past.before(x_BNFHW))


class ChannelNorm(nn.Module):
    """Root-mean-square norm over the channels of each position alone: a norm over time would let the future into the past."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(n, 1, 1, 1))

    def forward(self, x_BNFHW: Tensor) -> Tensor:
        """The same shape."""
        return x_BNFHW * torch.rsqrt(x_BNFHW.square().mean(dim=1, keepdim=True) + 1e-6) * self.gain


class Residual(nn.Module):
    """x + conv(conv(x)): the first within the frame, the second through time."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = ChannelNorm(n), ChannelNorm(n)
        self.within = nn.Conv3d(n, n, (1, 3, 3), padding=(0, 1, 1))
        self.through = CausalConv(n, n)

    def forward(self, x_BNFHW: Tensor, past: Past) -> Tensor:
        """The same shape."""
        hidden = self.within(functional.silu(self.norm1(x_BNFHW)))
        return x_BNFHW + self.through(functional.silu(self.norm2(hidden)), past)


class SmallEncoder(nn.Module):
    """Folded pixels [B, 3*temporal*4, F, H/2, W/2] to mean and log variance [B, 2*channels, F, H/spatial, W/spatial]."""

    def __init__(self, spec: VaeSpec) -> None:
        super().__init__()
        widths = stage_widths(spec)
        self.enter = CausalConv(3 * spec.temporal * _PATCH**2, widths[0])
        self.blocks = nn.ModuleList(Residual(n) for n in widths)
        self.down = nn.ModuleList(nn.Conv3d(a, b, (1, 2, 2), stride=(1, 2, 2)) for a, b in itertools.pairwise(widths))
        self.norm = ChannelNorm(widths[-1])
        self.leave = nn.Conv3d(widths[-1], 2 * spec.channels, 1)
        self._side = spec.spatial // _PATCH
        self.shortcut = nn.Conv3d(3 * spec.temporal * spec.spatial**2, 2 * spec.channels, 1)

    def forward(self, x_BNFHW: Tensor, past: Past) -> Tensor:
        """See the class."""
        linear_BNFHW = self.shortcut(fold(x_BNFHW, 1, self._side))
        x_BNFHW = self.enter(x_BNFHW, past)
        for index, block in enumerate(self.blocks):
            x_BNFHW = block(x_BNFHW, past)
            if index < len(self.down):
                x_BNFHW = self.down[index](x_BNFHW)
        return linear_BNFHW + self.leave(functional.silu(self.norm(x_BNFHW)))


class SmallDecoder(nn.Module):
    """Latents [B, channels, F, h, w] to folded pixels [B, 3*temporal*4, F, H/2, W/2]."""

    def __init__(self, spec: VaeSpec) -> None:
        super().__init__()
        widths = stage_widths(spec)[::-1]
        self.enter = CausalConv(spec.channels, widths[0])
        self.blocks = nn.ModuleList(Residual(n) for n in widths)
        self.up = nn.ModuleList(nn.Conv3d(a, 4 * b, 1) for a, b in itertools.pairwise(widths))
        self.norm = ChannelNorm(widths[-1])
        self.leave = nn.Conv3d(widths[-1], 3 * spec.temporal * _PATCH**2, (1, 3, 3), padding=(0, 1, 1))
        self._side = spec.spatial // _PATCH
        self.shortcut = nn.Conv3d(spec.channels, 3 * spec.temporal * spec.spatial**2, 1)

    def forward(self, x_BNFHW: Tensor, past: Past) -> Tensor:
        """See the class."""
        linear_BNFHW = unfold(self.shortcut(x_BNFHW), 1, self._side)
        x_BNFHW = self.enter(x_BNFHW, past)
        for index, block in enumerate(self.blocks):
            x_BNFHW = block(x_BNFHW, past)
            if index < len(self.up):
                x_BNFHW = unfold(self.up[index](x_BNFHW), 1, 2)
        return linear_BNFHW + self.leave(functional.silu(self.norm(x_BNFHW)))


class SmallVae(nn.Module):
    """A `Vae` of some hundred thousand parameters; `forward` and `reconstruct` are for its training.

    Any compression of `temporal` x `spatial` x `spatial` with `spatial` a power of two from 2 on, such as 4x8x8 or 4x4x4.
    `base_dim` is the width at half the picture's size; it doubles with each halving, up to four times.
    """

    def __init__(self, spec: VaeSpec) -> None:
        """Random weights; `spec.mean` and `spec.std` normalise the latents, as measured after a training (0 and 1 before).

        Raises:
            ValueError: `spatial` is no power of two, or `temporal` under 1.
        """
        super().__init__()
        if spec.kind != "small" or spec.temporal < 1 or spec.spatial < _PATCH or spec.spatial & (spec.spatial - 1):
            raise ValueError(f"vae: kind {spec.kind!r} of {spec.temporal}x{spec.spatial}x{spec.spatial}: SmallVae wants temporal >= 1 and spatial 2, 4, 8, ...")
        self.spec = spec
        self.channels, self.temporal, self.spatial = spec.channels, spec.temporal, spec.spatial
        self.encoder, self.decoder = SmallEncoder(spec), SmallDecoder(spec)
        self.begin_as_low_pass()

    def begin_as_low_pass(self) -> None:
        """The shortcuts keep each latent's lowest frequencies, and little is added to them: a training begins with blurred pictures, not with noise."""
        low, volume = low_frequencies(self.spec), self.temporal * self.spatial**2
        with torch.no_grad():
            self.encoder.shortcut.weight.zero_()
            self.encoder.shortcut.weight[: self.channels] = (low / volume**0.5).to(self._dtype)
            self.decoder.shortcut.weight.copy_((low * volume**0.5).transpose(0, 1))
            for part in (self.encoder, self.decoder):
                for last in (part.leave.weight, part.leave.bias, part.shortcut.bias):
                    last.mul_(_LITTLE)
            self.encoder.shortcut.bias[self.channels :] = _CERTAIN

    def forward(self, video_BCTHW: Tensor) -> tuple[Tensor, Tensor]:
        """The posterior's mean and log variance, [B, channels, F, h, w] each and not normalised: all latent frames in one pass, for training.

        Raises:
            ValueError: as `Vae.encode`.
        """
        check_video(video_BCTHW, self.temporal, self.spatial)
        first_BCTHW = video_BCTHW[:, :, :1].expand(-1, -1, self.temporal - 1, -1, -1)
        mean_BCFHW, log_variance_BCFHW = self._posterior(torch.cat([first_BCTHW, video_BCTHW], dim=2), None)
        return mean_BCFHW, log_variance_BCFHW

    def reconstruct(self, latents_BCFHW: Tensor) -> Tensor:
        """Pixels of latents that are not normalised: one pass and no clamp, for training; [B, 3, T, H, W]."""
        check_latents(latents_BCFHW, self.channels)
        return self._pixels(latents_BCFHW, None)[:, :, self.temporal - 1 :]

    def encode(self, video_BCTHW: Tensor) -> Tensor:
        """See `Vae.encode`; the mean of the posterior. Equal to `forward` within float rounding (1e-5 in float32)."""
        check_video(video_BCTHW, self.temporal, self.spatial)
        return self.stream_encode().push(video_BCTHW)

    def decode(self, latents_BCFHW: Tensor) -> Tensor:
        """See `Vae.decode`."""
        check_latents(latents_BCFHW, self.channels)
        return self.stream_decode().push(latents_BCFHW)

    def stream_encode(self) -> CausalStream:
        """See `Vae.stream_encode`."""
        return CausalStream(self._encode_step, _slots(self.encoder), self.temporal, "encoding")

    def stream_decode(self) -> CausalStream:
        """See `Vae.stream_decode`."""
        return CausalStream(self._decode_step, _slots(self.decoder), 1, "decoding")

    def _encode_step(self, part_BCTHW: Tensor, cache: list[Slot], first: bool) -> Tensor:
        """One latent frame of one or `temporal` pixel frames."""
        group_BCTHW = part_BCTHW.expand(-1, -1, self.temporal, -1, -1) if first else part_BCTHW
        mean_BCFHW, _ = self._posterior(group_BCTHW.to(self._dtype), cache)
        return normalised(mean_BCFHW, self.spec).to(part_BCTHW.dtype)

    def _decode_step(self, part_BCFHW: Tensor, cache: list[Slot], first: bool) -> Tensor:
        """One or `temporal` pixel frames of one latent frame."""
        video_BCTHW = self._pixels(denormalised(part_BCFHW, self.spec).to(self._dtype), cache)
        return video_BCTHW[:, :, self.temporal - 1 if first else 0 :].clamp(-1, 1).to(part_BCFHW.dtype)

    def _posterior(self, groups_BCTHW: Tensor, cache: list[Slot] | None) -> tuple[Tensor, Tensor]:
        """Mean and log variance of `temporal` pixel frames a latent frame."""
        moments = self.encoder(fold(groups_BCTHW, self.temporal, _PATCH), Past(cache))
        mean_BCFHW, log_variance_BCFHW = moments.chunk(2, dim=1)
        return mean_BCFHW, log_variance_BCFHW.clamp(-20, 10)

    def _pixels(self, latents_BCFHW: Tensor, cache: list[Slot] | None) -> Tensor:
        """`temporal` pixel frames a latent frame."""
        return unfold(self.decoder(latents_BCFHW, Past(cache)), self.temporal, _PATCH)

    @property
    def _dtype(self) -> Any:
        """Of the weights."""
        return self.decoder.leave.weight.dtype


def low_frequencies(spec: VaeSpec) -> Tensor:
    """[channels, 3 * temporal * spatial^2, 1, 1, 1]: orthonormal cosines over a latent's pixels, a colour each, in the order that `fold` gives the pixels."""
    sizes = (spec.temporal, spec.spatial, spec.spatial)
    waves = [torch.cos(math.pi * torch.outer(torch.arange(n), torch.arange(n) + 0.5) / n) for n in sizes]
    waves = [wave / wave.norm(dim=1, keepdim=True) for wave in waves]
    order = sorted(itertools.product(*map(range, sizes)), key=lambda k: (sum(f * f / n for f, n in zip(k, sizes, strict=True)), k))
    filters = torch.zeros(spec.channels, 3, *sizes)
    for channel, (place, color) in enumerate(itertools.islice(itertools.product(order, range(3)), spec.channels)):
        filters[channel, color] = torch.einsum("t,h,w->thw", *(wave[k] for wave, k in zip(waves, place, strict=True)))
    return fold(fold(filters, spec.temporal, _PATCH), 1, spec.spatial // _PATCH)


def stage_widths(spec: VaeSpec) -> list[int]:
    """Channels inside at H/2, H/4, ... H/spatial."""
    return [spec.base_dim * min(2**stage, 4) for stage in range(spec.spatial.bit_length() - 1)]


def fold(x_BNTHW: Tensor, temporal: int, side: int) -> Tensor:
    """[B, N, T, H, W] to [B, N*temporal*side*side, T/temporal, H/side, W/side]: blocks into channels."""
    b, n, t, h, w = x_BNTHW.shape
    blocks = x_BNTHW.reshape(b, n, t // temporal, temporal, h // side, side, w // side, side)
    return blocks.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(b, -1, t // temporal, h // side, w // side)


def unfold(x_BNFHW: Tensor, temporal: int, side: int) -> Tensor:
    """The inverse of `fold`."""
    b, _, f, h, w = x_BNFHW.shape
    blocks = x_BNFHW.reshape(b, -1, temporal, side, side, f, h, w)
    return blocks.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(b, blocks.shape[1], f * temporal, h * side, w * side)


def _slots(module: nn.Module) -> int:
    """Cache places that a pass through `module` takes."""
    return sum(isinstance(part, CausalConv) for part in module.modules())
