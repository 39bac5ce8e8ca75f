"""Decoders whose every weight is random, and windows for them."""

from dataclasses import replace
from typing import Any

import torch

from training.model.attention import Layout
from training.model.decoder import Decoder
from training.model.spec import SPECS, DecoderSpec

SPEC = SPECS["debug"].decoder
STATELESS = replace(SPEC, state_dim=None)
"""The debug decoder as Wan has it."""
OWN_NORM, EACH, BOTH = replace(SPEC, state_norm="own"), replace(SPEC, state_projection="each"), replace(SPEC, state_norm="own", state_projection="each")
"""The debug decoder with a norm of the state's own, with a projection of states in each block, and with both."""


def decoder_of(spec: DecoderSpec, dtype: torch.dtype = torch.float64, seed: int = 0) -> Decoder:
    """A decoder with weights as after training: those that begin at zero or tiny (head, text, time, the state's output) count as much as the others."""
    torch.manual_seed(seed)
    decoder = Decoder(spec).to(dtype)
    with torch.no_grad():
        for name, weight in decoder.named_parameters():
            if name.endswith("bias") or "norm" in name:
                weight.add_(0.1 * torch.randn_like(weight))
            elif name.startswith(("head.head", "text_embedding", "time_embedding")) or "state_out" in name:
                weight.normal_(std=weight.shape[1] ** -0.5)
    return decoder


def window_of(spec: DecoderSpec, layout: Layout, dtype: torch.dtype = torch.float64, batch: int = 1, side: int = 4, seed: int = 1) -> dict[str, Any]:
    """Random latents `side` x `side`, a timestep a group, texts of which half is padding, and states: the decoder's first four arguments by name."""
    torch.manual_seed(seed)
    latents = torch.randn(batch, spec.in_channels, layout.frames, side, side).to(dtype)
    timestep = torch.cat([(torch.rand(batch, 1) * 1000).expand(batch, stop - start) for start, stop in layout.groups()], 1)
    text = torch.randn(batch, layout.contexts, spec.text_tokens, spec.text_dim).to(dtype)
    text[:, :, spec.text_tokens // 2 :] = 0
    state = None if spec.state_dim is None else torch.randn(batch, layout.contexts, spec.queries, spec.state_dim).to(dtype)
    return {"latents_BCFHW": latents, "timestep_BF": timestep, "text_BGND": text, "state_BGQS": state}
