"""How much the decoder computes and holds: floating-point operations of a forward, by the mask that is really attended, and parameters.

A multiplication and an addition are two operations; only matrix products are counted, as is the custom (norms and modulation are below 1 %).
"""

import math
from dataclasses import dataclass, fields

from training.model.attention import Layout
from training.model.keymaps import decoder_shapes
from training.model.spec import DecoderSpec


@dataclass(frozen=True, kw_only=True)
class DecoderFlops:
    """Operations of one forward of one sample, by part."""

    self_projections: float
    self_attention: float
    text_projections: float
    text_attention: float
    state_projections: float
    state_attention: float
    ffn: float
    embeddings: float
    """Patches, texts, states, time, and the head: once, not a layer."""

    @property
    def total(self) -> float:
        """All of them."""
        return float(sum(getattr(self, each.name) for each in fields(self)))

    @property
    def blocks(self) -> float:
        """All but the embeddings: what the figures in papers count."""
        return self.total - self.embeddings

    def training(self, recomputed: float = 0.0) -> float:
        """Forward and backward, which is two forwards; and the share of the forward that activation checkpointing computes again (1.0: all of it)."""
        return (3.0 + recomputed) * self.total


def forward_flops(
    spec: DecoderSpec, layout: Layout, tokens_per_frame: int, *, state: bool | None = None, texts: int | None = None, routed: bool = True
) -> DecoderFlops:
    """Operations of a forward of one window, every output wanted.

    Args:
        tokens_per_frame: 1560 at 480 x 832.
        state: is the state's stream used? By default, where the spec has one.
        texts: how many texts, and states, the window has; by default one a context of the layout.
        routed: each chunk attends to its own text and state, as the decoder does; False counts every chunk against all of them, as a dense mask would.
    """
    used = spec.state_dim is not None if state is None else state
    dim, frames, contexts = spec.dim, layout.frames, layout.contexts if texts is None else texts
    tokens, seen = frames * tokens_per_frame, 1 if routed else contexts
    per_layer = 2.0 * spec.layers

    def cross(entries: int) -> tuple[float, float]:
        """Projections and attention of one cross-attention stream."""
        return per_layer * 2 * dim * dim * (tokens + contexts * entries), per_layer * 2 * tokens * seen * entries * dim

    text, states = cross(spec.text_tokens), cross(spec.queries) if used else (0.0, 0.0)
    gate = per_layer * tokens * dim * dim if used else 0.0
    return DecoderFlops(
        self_projections=per_layer * 4 * tokens * dim * dim,
        self_attention=per_layer * 2 * layout.visible_pairs() * tokens_per_frame**2 * dim,
        text_projections=text[0],
        text_attention=text[1],
        state_projections=states[0] + gate,
        state_attention=states[1],
        ffn=per_layer * 2 * tokens * dim * spec.ffn,
        embeddings=2.0 * _embedding_products(spec, tokens, frames, contexts, used),
    )


def _embedding_products(spec: DecoderSpec, tokens: int, frames: int, contexts: int, state: bool) -> float:
    """Multiplications outside the blocks."""
    dim, volume = spec.dim, math.prod(spec.patch)
    patches = tokens * volume * dim * (spec.in_channels + spec.out_channels)
    texts = contexts * spec.text_tokens * dim * (spec.text_dim + dim)
    projections = spec.layers if spec.state_projection == "each" else 1
    states = projections * contexts * spec.queries * (spec.state_dim or 0) * dim if state else 0
    return float(patches + texts + states + frames * dim * (spec.freq_dim + 7 * dim))


def parameters(spec: DecoderSpec) -> int:
    """How many numbers the decoder learns."""
    return sum(math.prod(shape) for shape in decoder_shapes(spec).values())
