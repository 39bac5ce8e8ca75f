"""Sequence parallelism for the language model: each rank holds a run of a dialogue's tokens, and while it attends a share of the heads.

It is transformers' own language model, reached by its registry of attentions. What is cached, as in a session, stays whole on every rank.

Shapes: B dialogues, L tokens (l a rank's), N heads, E a head's width, S the model's width.
Source: DeepSpeed-Ulysses (arXiv 2309.14509); PAN (arXiv 2511.09057v3), section 4.2: 28 heads over 4 ranks, and section 5.2: over 8, unevenly.
"""

from typing import Any

import torch
from torch import Tensor, nn

from training.parallel_sequence import Ring, shares, to_heads, to_tokens

NAME = "pan_shared"


class _GatherSum(torch.autograd.Function):
    """All ranks' tokens put together; backward adds up the ranks' gradients, for each goes on with a part of what follows, and keeps the rank's own tokens."""

    @staticmethod
    def forward(ctx: Any, own_BlS: Tensor, lengths: list[int], ring: Ring) -> Tensor:
        import torch.distributed as dist

        ctx.way = (lengths, ring)
        padded = nn.functional.pad(own_BlS, (0, 0, 0, max(lengths) - own_BlS.shape[1])).contiguous()
        parts = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(parts, padded, group=ring.group)
        return torch.cat([part[:, :length] for part, length in zip(parts, lengths, strict=True)], 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        import torch.distributed as dist

        lengths, ring = ctx.way
        whole = gradients[0].contiguous().clone()
        dist.all_reduce(whole, group=ring.group)
        return whole.split(lengths, 1)[ring.rank].contiguous(), None, None


class SharedAttention:
    """Causal attention of all of a dialogue's tokens by a rank's heads; keys and values are repeated first, so that any number of heads can be shared out."""

    def __init__(self, ring: Ring) -> None:
        self._ring, self.whole = ring, 0

    def __call__(self, module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, scaling: float | None = None, **_: Any) -> tuple[Tensor, None]:
        """As transformers calls it: [B, N, l, E] in, [B, l, N, E] out."""
        times, heads, width = query.shape[1] // key.shape[1], query.shape[1], query.shape[3]
        key, value = (x.repeat_interleave(times, 1) for x in (key, value))
        together = torch.cat([query, key, value], 3).transpose(1, 2)
        q, k, v = to_heads(together, self.whole, self._ring).transpose(1, 2).split(width, 3)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling)
        return to_tokens(mixed.transpose(1, 2), self.whole, heads, self._ring), None


def share_language(language: nn.Module, group: Any) -> None:
    """Makes a language model of transformers compute its rank's tokens, and give all hidden states on every rank of the group; in place."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ring = Ring.of(group)
    attention, plain, usual = SharedAttention(ring), language.forward, language.config._attn_implementation
    ALL_ATTENTION_FUNCTIONS.register(NAME, attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, lambda *_, **__: None)  # causal, and nothing is padded in front
    language.config._attn_implementation = NAME

    def forward(*, inputs_embeds: Tensor, position_ids: Tensor, past_key_values: Any = None, **options: Any) -> Any:
        if past_key_values is not None:
            language.config._attn_implementation = usual
            try:
                return plain(inputs_embeds=inputs_embeds, position_ids=position_ids, past_key_values=past_key_values, **options)
            finally:
                language.config._attn_implementation = NAME
        attention.whole = inputs_embeds.shape[1]
        own = {"inputs_embeds": ring.own(inputs_embeds, 1), "position_ids": ring.own(position_ids, 2)}
        found = plain(**own, past_key_values=None, **options)
        found.last_hidden_state = _GatherSum.apply(found.last_hidden_state, shares(attention.whole, ring.ranks), ring)
        return found

    language.forward = forward
