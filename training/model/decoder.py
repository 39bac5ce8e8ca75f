"""g: Wan2.1's diffusion transformer with a noise level a latent frame, a text and a state a chunk, and PAN's second cross-attention stream.

Parameters bear Wan's own names, so that its weights load as they are; PAN adds `state_proj`, `blocks.i.state_attn` and `blocks.i.state_out`,
and by option `blocks.i.state_norm`, or a `blocks.i.state_proj` in the place of the shared one.
Norms, modulation and everything about time are computed in float32 whatever the weights are, and rounded once; the matrix products are in the weights' dtype.

Tensor names end in their shape: B batch, C latent channels, F latent frames, H W latent rows and columns, P tokens in a frame, L = F*P tokens, D width,
G contexts (one a chunk), N text tokens, Q queries, S the state's width.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.model.attention import Backend, Layout, attend, dense, rotary_table
from training.model.norms import gated, layer_normed, modulated, rms_normed, wide, wide_linear
from training.model.plain import must
from training.model.spec import DecoderSpec

Outputs = Literal["all", "chunks", "last_chunk"]


class Attention(nn.Module):
    """The six parts that Wan's self- and cross-attention share; queries and keys are normalised over all heads together."""

    def __init__(self, dim: int, heads: int, eps: float) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))
        self.norm_q, self.norm_k = nn.RMSNorm(dim, eps), nn.RMSNorm(dim, eps)
        self.heads = heads


class SelfAttention(Attention):
    """Tokens attend to tokens, as the layout allows; `backend` says how, and changes no result."""

    def __init__(self, dim: int, heads: int, eps: float, backend: Backend) -> None:
        super().__init__(dim, heads, eps)
        self._backend = backend
        self.attend = _attend_by(backend)  # training.parallel_sequence puts another in its place where ranks share a window

    @property
    def backend(self) -> Backend:
        """How it is computed; setting it also keeps FlexAttention out of a compiled block, or lets the others in."""
        return self._backend

    @backend.setter
    def backend(self, backend: Backend) -> None:
        own = self.attend is _attend_by(self._backend)
        if own:
            self.attend = _attend_by(backend)
        elif backend == "flex":  # another's, around what was ours
            self.attend = torch.compiler.disable(self.attend)
        self._backend = backend

    def forward(self, x_BFPD: Tensor, table: Tensor, layout: Layout, first: int) -> Tensor:
        """The mixed tokens of the frames from `first` on: [B, F - first, P, D]."""
        tokens, asking = x_BFPD.shape[2], x_BFPD[:, first:] if first else x_BFPD
        q = rms_normed(self.norm_q, self.q(asking), self.heads, table[first * tokens :])
        k = rms_normed(self.norm_k, self.k(x_BFPD), self.heads, table)
        v = self.v(x_BFPD).view(k.shape)
        return self.o(self.attend(q, k, v, layout, tokens, self._backend).reshape(asking.shape))


class CrossAttention(Attention):
    """Tokens attend to the context of their chunk, every entry of it: Wan's text is padded with zeros, and they are attended."""

    def forward(self, x_BFPD: Tensor, context_BGND: Tensor, layout: Layout, first: int) -> Tensor:
        """[B, F - first, P, D]; `x_BFPD` holds the frames from `first` on."""
        q = rms_normed(self.norm_q, self.q(x_BFPD), self.heads)
        k = rms_normed(self.norm_k, self.k(context_BGND).flatten(0, 1), self.heads).unflatten(0, context_BGND.shape[:2])
        v = self.v(context_BGND).view(k.shape)
        segments = [(stop - max(start, first), context) for start, stop, context in layout.segments() if stop > first]
        queries, keys, values = q.split([frames * x_BFPD.shape[2] for frames, _ in segments], 1), k.unbind(1), v.unbind(1)
        parts = [dense(queries[index], keys[context], values[context]) for index, (_, context) in enumerate(segments)]
        return self.o(torch.cat(parts, 1).reshape(x_BFPD.shape))


class Block(nn.Module):
    """Self-attention, cross-attention to the text and to the state, feed-forward; the first and the last shifted, scaled and gated by time.

    Source: Wan2.1, wan/modules/model.py; the state's stream: PAN figure 2.
    """

    def __init__(self, spec: DecoderSpec, backend: Backend = "prefix_dense") -> None:
        super().__init__()
        self.eps = spec.eps
        self.modulation = nn.Parameter(torch.randn(1, 6, spec.dim) / math.sqrt(spec.dim))
        self.self_attn = SelfAttention(spec.dim, spec.heads, spec.eps, backend)
        self.norm3 = nn.LayerNorm(spec.dim, spec.eps)
        self.cross_attn = CrossAttention(spec.dim, spec.heads, spec.eps)
        self.ffn = nn.Sequential(nn.Linear(spec.dim, spec.ffn), nn.GELU("tanh"), nn.Linear(spec.ffn, spec.dim))
        if spec.state_dim is not None:
            self.state_attn = CrossAttention(spec.dim, spec.heads, spec.eps)
            self.state_out = nn.Linear(spec.dim, spec.dim)
            self.state_norm = nn.LayerNorm(spec.dim, spec.eps) if spec.state_norm == "own" else None
            self.state_proj = nn.Linear(spec.state_dim, spec.dim) if spec.state_projection == "each" else None

    def forward(self, x_BFPD: Tensor, time_BF6D: Tensor, text_BGND: Tensor, state_BGQD: Tensor | None, table: Tensor, layout: Layout, first: int = 0) -> Tensor:
        """The frames from `first` on, [B, F - first, P, D]: those before only lend their keys and values.

        Args:
            time_BF6D: the projected time, float32.
            text_BGND: the embedded texts, state_BGQD: the projected states, or the states as they are where the block projects them itself; None
                leaves the state's stream out.
            table: `rotary_table`.
            first: a group's first frame.
        """
        shift1, scale1, gate1, shift2, scale2, gate2 = (wide(self.modulation) + time_BF6D).unsqueeze(3).unbind(2)
        mixed = self.self_attn(modulated(x_BFPD, shift1, scale1, self.eps), table, layout, first)
        if first:
            x_BFPD, gate1, shift2, scale2, gate2 = (part[:, first:] for part in (x_BFPD, gate1, shift2, scale2, gate2))
        x_BFPD = gated(x_BFPD, mixed, gate1)
        before, asking = x_BFPD, layer_normed(self.norm3, x_BFPD)
        x_BFPD = x_BFPD + self.cross_attn(asking, text_BGND, layout, first)
        if state_BGQD is not None:
            asking = asking if self.state_norm is None else layer_normed(self.state_norm, before)
            state_BGQD = state_BGQD if self.state_proj is None else self.state_proj(state_BGQD)
            x_BFPD = x_BFPD + self.state_out(self.state_attn(asking, state_BGQD, layout, first))
        return gated(x_BFPD, self.ffn(modulated(x_BFPD, shift2, scale2, self.eps)), gate2)


class Head(nn.Module):
    """Tokens to the velocity of their patch."""

    def __init__(self, spec: DecoderSpec) -> None:
        super().__init__()
        self.eps = spec.eps
        self.head = nn.Linear(spec.dim, spec.out_channels * math.prod(spec.patch))
        self.modulation = nn.Parameter(torch.randn(1, 2, spec.dim) / math.sqrt(spec.dim))

    def forward(self, x_BFPD: Tensor, time_BFD: Tensor) -> Tensor:
        """[B, F, P, patch * C]."""
        shift, scale = (wide(self.modulation) + time_BFD.unsqueeze(2)).unsqueeze(3).unbind(2)
        return self.head(modulated(x_BFPD, shift, scale, self.eps))


class Decoder(nn.Module):
    """The velocity of a window of noised latents, given its noise levels, texts and states.

    Args:
        spec: the widths.
        backend: how self-attention is computed; the result does not depend on it.
    """

    def __init__(self, spec: DecoderSpec, backend: Backend = "prefix_dense") -> None:
        super().__init__()
        self.spec = spec
        self.patch_embedding = nn.Conv3d(spec.in_channels, spec.dim, spec.patch, spec.patch)
        self.text_embedding = nn.Sequential(nn.Linear(spec.text_dim, spec.dim), nn.GELU("tanh"), nn.Linear(spec.dim, spec.dim))
        self.time_embedding = nn.Sequential(nn.Linear(spec.freq_dim, spec.dim), nn.SiLU(), nn.Linear(spec.dim, spec.dim))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(spec.dim, 6 * spec.dim))
        self.blocks = nn.ModuleList(Block(spec, backend) for _ in range(spec.layers))
        self.head = Head(spec)
        self.state_proj = nn.Linear(spec.state_dim, spec.dim) if spec.state_dim is not None and spec.state_projection == "shared" else None
        self.initialise()

    def forward(
        self,
        latents_BCFHW: Tensor,
        timestep_BF: Tensor,
        text_BGND: Tensor,
        state_BGQS: Tensor | None,
        layout: Layout,
        *,
        first_frame: int = 0,
        outputs: Outputs = "all",
    ) -> Tensor:
        """The velocity, noise minus latents, [B, C, F, H, W] in the weights' dtype.

        Args:
            latents_BCFHW: noised latents, normalised.
            timestep_BF: 1000 * sigma of each latent frame, float32 or float64: bfloat16 would round 437 to 436.
            text_BGND: texts zero-padded to `text_tokens`, one a context of the layout.
            state_BGQS: states, one a context; None leaves the state's stream out.
            first_frame: the time of the window's first frame in the rotation; the result does not depend on it.
            outputs: "chunks" and "last_chunk" spare the work that only the other frames' velocity needs, and return the last frames only.

        Raises:
            ValueError: shapes that do not fit the layout or the spec, or timesteps of a narrow dtype.
        """
        self._check(latents_BCFHW, timestep_BF, text_BGND, state_BGQS, layout)
        dtype, first = self.patch_embedding.weight.dtype, first_output(layout, outputs)
        skipped = first if first in dict(layout.groups()) else 0  # inside a group none can be skipped
        x_BFPD, size_FRC = self.patches(latents_BCFHW.to(dtype))
        time_BFD, time_BF6D = self.times(timestep_BF)
        text = self.text_embedding(text_BGND.to(dtype))
        state = None if state_BGQS is None else state_BGQS.to(dtype)
        state = state if state is None or self.state_proj is None else self.state_proj(state)
        table = self.turns(size_FRC, first_frame, x_BFPD)
        for index, block in enumerate(self.blocks):
            x_BFPD = block(x_BFPD, time_BF6D, text, state, table, layout, skipped if index == len(self.blocks) - 1 else 0)
        return self.unpatched(self.head(x_BFPD[:, first - skipped :], time_BFD[:, first:]), size_FRC[1:])

    def patches(self, latents_BCFHW: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        """The patches' tokens [B, F, P, D], and how many frames, rows and columns of them; Wan's convolution written as the matrix product that it is."""
        _, high, across = self.spec.patch
        pieces = latents_BCFHW.unflatten(4, (-1, across)).unflatten(3, (-1, high))  # [B, C, F, rows, high, columns, across]
        tokens = pieces.permute(0, 2, 3, 5, 1, 4, 6)
        size_FRC = (tokens.shape[1], tokens.shape[2], tokens.shape[3])
        return F.linear(tokens.flatten(4).flatten(2, 3), self.patch_embedding.weight.flatten(1), self.patch_embedding.bias), size_FRC

    def turns(self, size_FRC: tuple[int, int, int], first_frame: int, like: Tensor) -> Tensor:
        """The rotation of each token of so many frames, rows and columns (`rotary_table`)."""
        return rotary_table(self.spec.head_dim, self.spec.rope_theta, size_FRC, first_frame, like.device, wide(like[:0]).dtype)

    def unpatched(self, out_BFPO: Tensor, size_RC: tuple[int, int]) -> Tensor:
        """The inverse order: [B, F, P, patch * C] to [B, C, F, H, W]; a token's numbers are (row, column, channel)."""
        _, high, across = self.spec.patch
        pieces = out_BFPO.unflatten(3, (high, across, -1)).unflatten(2, size_RC)  # [B, F, rows, columns, high, across, C]
        return pieces.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)

    def times(self, timestep_BF: Tensor) -> tuple[Tensor, Tensor]:
        """The embedded time [B, F, D] and its projection [B, F, 6, D], float32 (float64 in a float64 model), also under autocast."""
        with torch.autocast(timestep_BF.device.type, enabled=False):
            waves = sinusoid(timestep_BF, self.spec.freq_dim).to(wide(self.time_embedding[0].weight[:0]).dtype)
            time_BFD = wide_linear(self.time_embedding[2], F.silu(wide_linear(self.time_embedding[0], waves)))
            return time_BFD, wide_linear(self.time_projection[1], F.silu(time_BFD)).unflatten(2, (6, -1))

    def initialise(self) -> None:
        """Wan's initial weights: Xavier's, 0.02 normal for text and time, a zero head; and a zero output of the state's stream."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.patch_embedding.weight.flatten(1))
        for embedding in (*self.text_embedding, *self.time_embedding):
            if isinstance(embedding, nn.Linear):
                nn.init.normal_(embedding.weight, std=0.02)
        nn.init.zeros_(self.head.head.weight)
        self.start_state_stream()

    def state_projections(self) -> list[nn.Linear]:
        """What brings a state to the decoder's width: one for all blocks, one for each, or none without a state stream."""
        if self.spec.state_dim is None:
            return []
        return [self.state_proj] if self.state_proj is not None else [block.state_proj for block in self.blocks]

    def start_state_stream(self) -> None:
        """Makes the state's stream a copy of the text's with an output of zero: the decoder then computes what it did without it.

        Source: PAN section 3.3.2 and figure 2.
        """
        for block in self.blocks if self.spec.state_dim is not None else ():
            block.state_attn.load_state_dict(block.cross_attn.state_dict())
            if block.state_norm is not None:
                block.state_norm.load_state_dict(block.norm3.state_dict())
            nn.init.zeros_(block.state_out.weight)
            nn.init.zeros_(block.state_out.bias)

    def _check(self, latents: Tensor, timestep: Tensor, text: Tensor, state: Tensor | None, layout: Layout) -> None:
        spec, (batch, channels, frames, *size) = self.spec, latents.shape
        sized = channels == spec.in_channels and frames == layout.frames and all(n % p == 0 for n, p in zip(size, spec.patch[1:], strict=True))
        wanted = f"{spec.in_channels} channels, {layout.frames} latent frames, sizes divisible by {spec.patch[1:]}"
        must(sized, f"decoder: latents {tuple(latents.shape)}; expected {wanted}")
        must(timestep.shape == (batch, frames), f"decoder: timesteps {tuple(timestep.shape)}; give one a sample and latent frame, {(batch, frames)}")
        must(timestep.dtype in (torch.float32, torch.float64), f"decoder: timesteps are {timestep.dtype}; give float32, since a narrower type rounds them")
        texts, states = ((batch, layout.contexts, *each) for each in ((spec.text_tokens, spec.text_dim), (spec.queries, spec.state_dim)))
        must(text.shape == texts, f"decoder: text {tuple(text.shape)}; expected {texts}: a context a chunk, padded with zeros")
        if state is not None:
            must(spec.state_dim is not None, "decoder: a state for a decoder without a state stream; give its spec a state_dim")
            must(state.shape == states, f"decoder: state {tuple(state.shape)}; expected {states}: a context a chunk")


@lru_cache(maxsize=3)
def _attend_by(backend: Backend) -> Callable[..., Tensor]:
    """`attend`; for FlexAttention kept out of a compiled block: it is compiled by itself, with a block mask made once and not in each call of the block."""
    uncompiled: Callable[..., Tensor] = torch.compiler.disable(attend) if backend == "flex" else attend
    return uncompiled


def first_output(layout: Layout, outputs: Outputs) -> int:
    """The first latent frame whose velocity is asked for."""
    return {"all": 0, "chunks": layout.cond, "last_chunk": layout.frames - layout.chunks[-1]}[outputs]


def sinusoid(timestep: Tensor, width: int) -> Tensor:
    """[..., width] float64, cosines and then sines of the timestep at rates from 1 down to nearly 1/10000.

    Source: Wan2.1, sinusoidal_embedding_1d.
    """
    half = width // 2
    rate = 10000.0 ** (-torch.arange(half, dtype=torch.float64, device=timestep.device) / half)
    angle = timestep.double().unsqueeze(-1) * rate
    return torch.cat((angle.cos(), angle.sin()), -1)
