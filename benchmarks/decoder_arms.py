"""The same work twice: our decoder's blocks and diffusers' on the same weights and the same tokens, forward and backward.

Two jobs. *dense*: what diffusers is made for, one noise level, one text, all frames see one another. *window*: PAN's, a condition frame and two chunks,
three noise levels, a text a chunk, no chunk sees a later one. diffusers does the second with what it has: a timestep a token (the form that it takes for Wan
2.2), both texts behind one another, and masks for self- and cross-attention, which its attention takes but its blocks do not hand on: a processor does.
The condition frame's velocity is not wanted, as in training; ours leaves it out of the last block.

Tensor names end in their shape: B batch, C channels, F latent frames, P tokens in a frame, L tokens, D width, G texts, N text tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from training.model.attention import Layout, rotary_table, visible
from training.model.decoder import Decoder
from training.model.keymaps import renamed, to_diffusers
from training.model.spec import DecoderSpec

CPU = torch.device("cpu")
Run = Callable[[], Tensor]


@dataclass(frozen=True)
class Work:
    """Layers and tokens: `spec` has no state stream, which diffusers does not know."""

    spec: DecoderSpec
    batch: int
    frames: tuple[int, int, int]
    """Condition frames, and of each chunk."""
    rows: int
    """Of tokens in a frame, and columns."""

    @property
    def tokens_per_frame(self) -> int:
        """Tokens a latent frame."""
        return self.rows**2

    def layout(self, windowed: bool) -> Layout:
        """PAN's window, or all frames together."""
        cond, *chunks = self.frames
        return Layout(cond, tuple(chunks)) if windowed else Layout(0, (sum(self.frames),), causal=False)


class Masked:
    """diffusers' attention with a mask that its block has no argument for."""

    def __init__(self, mask: Tensor) -> None:
        from diffusers.models.transformers.transformer_wan import WanAttnProcessor

        self.mask, self.process = mask, WanAttnProcessor()

    def __call__(self, attn: nn.Module, hidden: Tensor, encoder: Tensor | None = None, _mask: None = None, rotary: Any = None) -> Tensor:
        """The processor's own call."""
        return self.process(attn, hidden, encoder, self.mask, rotary)


def theirs(spec: DecoderSpec) -> dict[str, int]:
    """What diffusers calls our widths."""
    widths = {"num_attention_heads": spec.heads, "attention_head_dim": spec.head_dim, "ffn_dim": spec.ffn, "num_layers": spec.layers}
    return {"text_dim": spec.text_dim, "freq_dim": spec.freq_dim, **widths}


def masks(layout: Layout, tokens_per_frame: int, text_tokens: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Which token each token may see, [L, L], and which text's tokens, [L, G * N]; bool."""
    context_L = torch.tensor([layout.cross_group(frame) for frame in range(layout.frames)], device=device).repeat_interleave(tokens_per_frame)
    cross = context_L[:, None] == torch.arange(layout.contexts, device=device).repeat_interleave(text_tokens)[None, :]
    return visible(layout, tokens_per_frame, device), cross


def shut(model: nn.Module, own: Tensor, cross: Tensor) -> None:
    """Puts the masks into diffusers' decoder; all blocks share them."""
    for block in model.blocks:
        block.attn1.set_processor(Masked(own))
        block.attn2.set_processor(Masked(cross))


class Pair:
    """Our decoder and diffusers' with one set of weights, and their runs.

    Args:
        windowed: PAN's window, else the dense job.
    """

    def __init__(self, work: Work, windowed: bool) -> None:
        from diffusers import WanTransformer3DModel  # here, not above: the GPU's part needs none

        torch.manual_seed(0)
        self.work, self.windowed, self.layout, spec = work, windowed, work.layout(windowed), work.spec
        self.ours = Decoder(spec)
        nn.init.xavier_uniform_(self.ours.head.head.weight)
        with torch.device("meta"):
            self.theirs = WanTransformer3DModel(**theirs(spec))
        self.theirs.load_state_dict(renamed(self.ours.state_dict(), to_diffusers), assign=True)
        self.theirs.rope = WanTransformer3DModel(num_attention_heads=1, attention_head_dim=spec.head_dim, ffn_dim=8, num_layers=0).rope  # no weights
        if windowed:
            shut(self.theirs, *masks(self.layout, work.tokens_per_frame, spec.text_tokens, CPU))

    def slices(self) -> tuple[Run, Run]:
        """Whole decoders of few layers, (ours, diffusers'): embeddings, blocks, head; forward and backward."""
        work, spec, layout = self.work, self.work.spec, self.layout
        latents_BCFHW = torch.randn(work.batch, spec.in_channels, layout.frames, 2 * work.rows, 2 * work.rows)
        levels = torch.rand(work.batch, len(layout.groups())) * 1000
        timestep_BF = torch.cat([levels[:, i : i + 1].expand(-1, stop - start) for i, (start, stop) in enumerate(layout.groups())], 1)
        text_BGND = torch.randn(work.batch, layout.contexts, spec.text_tokens, spec.text_dim)
        per_token = timestep_BF.repeat_interleave(work.tokens_per_frame, 1) if self.windowed else timestep_BF[:, 0]

        def ours() -> Tensor:
            return _learned(self.ours, self.ours(latents_BCFHW, timestep_BF, text_BGND, None, layout, outputs="chunks"))

        def theirs() -> Tensor:
            return _learned(self.theirs, self.theirs(latents_BCFHW, per_token, text_BGND.flatten(1, 2), return_dict=False)[0][:, :, layout.cond :])

        return ours, theirs

    def blocks(self) -> tuple[Run, Run]:
        """The blocks alone, (ours, diffusers'), with gradients to tokens, time and texts as inside a decoder; forward and backward."""
        work, spec, layout = self.work, self.work.spec, self.layout
        x_BFPD = torch.randn(work.batch, layout.frames, work.tokens_per_frame, spec.dim, requires_grad=True)
        level_BG6D = torch.randn(work.batch, len(layout.groups()), 6, spec.dim)
        time_BF6D = torch.cat([level_BG6D[:, i : i + 1].expand(-1, stop - start, -1, -1) for i, (start, stop) in enumerate(layout.groups())], 1)
        text_BGND = torch.randn(work.batch, layout.contexts, spec.text_tokens, spec.dim, requires_grad=True)
        table = rotary_table(spec.head_dim, spec.rope_theta, (layout.frames, work.rows, work.rows), 0, CPU, torch.float32)
        turns = self.theirs.rope(torch.empty(1, 1, layout.frames, 2 * work.rows, 2 * work.rows))
        ours_time = time_BF6D.clone().requires_grad_()
        theirs_time = (time_BF6D.repeat_interleave(work.tokens_per_frame, 1) if self.windowed else time_BF6D[:, 0]).clone().requires_grad_()

        def ours() -> Tensor:
            x = x_BFPD
            for block in self.ours.blocks:
                x = block(x, ours_time, text_BGND, None, table, layout, layout.cond if block is self.ours.blocks[-1] else 0)
            return _learned(self.ours, x, x_BFPD, ours_time, text_BGND)

        def theirs() -> Tensor:
            x = x_BFPD.flatten(1, 2)
            for block in self.theirs.blocks:
                x = block(x, text_BGND.flatten(1, 2), theirs_time, turns)
            return _learned(self.theirs, x[:, layout.cond * work.tokens_per_frame :], x_BFPD, theirs_time, text_BGND)

        return ours, theirs


def _learned(module: nn.Module, out: Tensor, *inputs: Tensor) -> Tensor:
    """`out`, after its backward; gradients begin anew, as an optimiser leaves them."""
    module.zero_grad()
    for each in inputs:
        each.grad = None
    out.square().mean().backward()
    return out.detach()
