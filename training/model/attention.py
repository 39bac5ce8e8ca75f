"""Which latent frames see which, the rotation that tells them apart, and three ways to attend alike: prefix-dense, FlexAttention, a dense mask.

Tensor names end in their shape: B batch, L tokens, N heads, E a head's width, F latent frames, R C rows and columns of tokens in a frame.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from types import MappingProxyType
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from training.model.plain import must

Backend = Literal["prefix_dense", "flex", "mask"]


@dataclass(frozen=True)
class Layout:
    """The latent frames of a window: condition frames, then chunks. A frame sees its own group whole, and every group before it.

    Source: PAN section 3.3.5; the condition frames as a group of their own is a choice (their keys then do not depend on the first chunk's noise).

    Raises:
        ValueError: a negative length, or nothing at all.
    """

    cond: int
    """Condition frames, 0 for none."""
    chunks: tuple[int, ...]
    """Latent frames of each chunk."""
    cond_in_first_chunk: bool = False
    """The condition frames and the first chunk are one group, and see one another."""
    causal: bool = True
    """False: all frames are one group, as in Wan."""
    cond_context: Literal["first", "own"] = "first"
    """Whose text and state the condition frames read: the first chunk's, or a context of their own, the last given (the empty text, say)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "chunks", tuple(self.chunks))
        some = self.cond >= 0 and len(self.chunks) > 0 and min(self.chunks) > 0
        must(some, f"layout: {self.cond} condition frames and chunks {self.chunks}; give at least one chunk, and no negative length")
        must(self.cond_context == "first" or self.cond > 0, "layout: cond_context 'own' without condition frames; give some, or 'first'")

    @property
    def frames(self) -> int:
        """Latent frames in all."""
        return self.cond + sum(self.chunks)

    @property
    def contexts(self) -> int:
        """How many texts, and states, a forward takes: one a chunk, and one more for condition frames with their own."""
        return len(self.chunks) + (self.cond_context == "own")

    def groups(self) -> tuple[tuple[int, int], ...]:
        """(start, stop) of each group in latent frames, in order."""
        if not self.causal:
            return ((0, self.frames),)
        lengths = [self.cond + self.chunks[0], *self.chunks[1:]] if self.cond_in_first_chunk or not self.cond else [self.cond, *self.chunks]
        return tuple(pairwise((0, *accumulate(lengths))))

    def segments(self) -> tuple[tuple[int, int, int], ...]:
        """(start, stop, context) in latent frames: the runs of frames that read the same text and state."""
        if self.cond_context == "own":
            return ((0, self.cond, len(self.chunks)), *((start, stop, index) for index, (start, stop) in enumerate(pairwise(self._edges()))))
        edges = (0, *self._edges()[1:])
        return tuple((start, stop, index) for index, (start, stop) in enumerate(pairwise(edges)))

    def cross_group(self, frame: int) -> int:
        """The context that latent frame `frame` reads."""
        return next(context for start, stop, context in self.segments() if start <= frame < stop)

    def visible_pairs(self) -> int:
        """(query frame, key frame) pairs that the mask leaves: 321 of 441 in PAN's window of 1 + 10 + 10."""
        return sum((stop - start) * stop for start, stop in self.groups())

    def _edges(self) -> tuple[int, ...]:
        """Where each chunk starts, and the end."""
        return tuple(accumulate(self.chunks, initial=self.cond))


def head_split(head_dim: int) -> tuple[int, int, int]:
    """A head's numbers that turn with the (frame, row, column): two sixths, rounded down to pairs, for each of the last two, the rest for the first.

    Source: Wan2.1, wan/modules/model.py: 44, 42, 42 of 128.
    """
    side = 2 * (head_dim // 6)
    return head_dim - 2 * side, side, side


@lru_cache(maxsize=8)
def rotary_table(head_dim: int, theta: float, size_FRC: tuple[int, int, int], first_frame: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The rotation of each token: [L, 1, E/2, 2], (cosine, sine), made in float64 and rounded once to `dtype`.

    Args:
        size_FRC: latent frames, rows and columns of tokens.
        first_frame: the time of the first frame; only differences matter to attention.

    Source: Wan2.1, rope_params and rope_apply: angle = position * theta^(-2i/width) of the axis, interleaved pairs.
    """
    with torch.inference_mode(False):  # the table is kept, and may be needed for a gradient later
        angles = []
        for axis, (width, size) in enumerate(zip(head_split(head_dim), size_FRC, strict=True)):
            rate = theta ** (-torch.arange(0, width, 2, dtype=torch.float64, device=device) / width)
            at = torch.arange(size, dtype=torch.float64, device=device) + (first_frame if axis == 0 else 0)
            shape = [1, 1, 1, -1]
            shape[axis] = size
            angles.append((at[:, None] * rate).view(shape).expand(*size_FRC, -1))
        turn_LE = torch.cat(angles, -1).flatten(0, 2)
        return torch.stack((turn_LE.cos(), turn_LE.sin()), -1).unsqueeze(1).to(dtype)


def dense(q_BLNE: Tensor, k_BLNE: Tensor, v_BLNE: Tensor, mask_LL: Tensor | None = None) -> Tensor:
    """Softmax attention of every query to every key, or to those that `mask_LL` (bool) allows; torch's fastest kernel for the device."""
    q, k, v = (x.transpose(1, 2) for x in (q_BLNE, k_BLNE, v_BLNE))
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and torch.is_grad_enabled():
        with torch.autocast("cpu", enabled=False):  # the backward pass of torch's kernel for CPUs is several times slower in bfloat16 than in float32
            return F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=mask_LL).to(q.dtype).transpose(1, 2)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask_LL).transpose(1, 2)


def attend(q_BLNE: Tensor, k_BLNE: Tensor, v_BLNE: Tensor, layout: Layout, tokens_per_frame: int, backend: Backend = "prefix_dense") -> Tensor:
    """Self-attention under the layout's mask: [B, L, N, E] like the queries.

    Queries may be those of the last groups only (their number of tokens tells); keys and values are of all frames.

    Raises:
        ValueError: the tokens do not fit the layout, the queries do not begin with a group, or there is no such back end.
    """
    tokens, asked = layout.frames * tokens_per_frame, q_BLNE.shape[1]
    must(k_BLNE.shape[1] == tokens, f"attention: {k_BLNE.shape[1]} keys for {layout.frames} latent frames of {tokens_per_frame} tokens; give {tokens}")
    if len(layout.groups()) == 1 and asked == tokens:
        return dense(q_BLNE, k_BLNE, v_BLNE)
    begins = (start * tokens_per_frame for start, _ in layout.groups())
    must(tokens - asked in begins, f"attention: {asked} queries of {tokens} tokens; give those of whole groups, the last ones")
    must(backend in BACKENDS, f"attention: there is no back end {backend!r}; there are {', '.join(BACKENDS)}")
    return BACKENDS[backend](q_BLNE, k_BLNE, v_BLNE, layout, tokens_per_frame)


def prefix_dense(q_BLNE: Tensor, k_BLNE: Tensor, v_BLNE: Tensor, layout: Layout, tokens_per_frame: int) -> Tensor:
    """One dense call a group, with keys and values up to the group's end: exactly the mask, no masked work, the fastest kernels, any device."""
    skipped = layout.frames * tokens_per_frame - q_BLNE.shape[1]
    spans = [(start * tokens_per_frame, stop * tokens_per_frame) for start, stop in layout.groups() if start * tokens_per_frame >= skipped]
    queries, stops = q_BLNE.split([stop - start for start, stop in spans], 1), [stop for _, stop in spans]
    return torch.cat([dense(q, k, v) for q, k, v in zip(queries, _Prefixes.apply(k_BLNE, *stops), _Prefixes.apply(v_BLNE, *stops), strict=True)], 1)


class _Prefixes(torch.autograd.Function):
    """The first `stop` tokens for each stop, rising to all of them; their gradients are added into one another, and no zeros are written for the rest."""

    @staticmethod
    def forward(ctx: Any, x_BLNE: Tensor, *stops: int) -> tuple[Tensor, ...]:
        return tuple(x_BLNE[:, :stop] for stop in stops)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        *shorter, whole = grads
        total = whole.clone()
        for grad in shorter:
            total[:, : grad.shape[1]].add_(grad)
        return total, *[None] * len(grads)


def masked(q_BLNE: Tensor, k_BLNE: Tensor, v_BLNE: Tensor, layout: Layout, tokens_per_frame: int) -> Tensor:
    """The reference: one call with the whole mask; it computes what it hides, and leaves the fast kernels."""
    return dense(q_BLNE, k_BLNE, v_BLNE, visible(layout, tokens_per_frame, q_BLNE.device)[-q_BLNE.shape[1] :])


@lru_cache(maxsize=8)
def visible(layout: Layout, tokens_per_frame: int, device: torch.device) -> Tensor:
    """The mask, bool [L, L]: may the row's token see the column's."""
    with torch.inference_mode(False):
        group_L = _group_of_token(layout, tokens_per_frame, device)
        return group_L[None, :] <= group_L[:, None]


def flex(q_BLNE: Tensor, k_BLNE: Tensor, v_BLNE: Tensor, layout: Layout, tokens_per_frame: int) -> Tensor:
    """FlexAttention with a block mask, compiled on a GPU.

    Raises:
        ValueError: gradients are wanted on a CPU; FlexAttention has no backward there.
    """
    from torch.nn.attention.flex_attention import flex_attention

    on_cpu = q_BLNE.device.type == "cpu"
    wanted = torch.is_grad_enabled() and any(x.requires_grad for x in (q_BLNE, k_BLNE, v_BLNE))
    must(not (on_cpu and wanted), "attention: FlexAttention has no backward on a CPU; take the back end 'prefix_dense', whose result is the same")
    attention = flex_attention if on_cpu else _compiled_flex()
    block_mask = _block_mask(layout, tokens_per_frame, q_BLNE.shape[1], q_BLNE.device)
    q, k, v = (x.transpose(1, 2) for x in (q_BLNE, k_BLNE, v_BLNE))
    mixed: Tensor = attention(q, k, v, block_mask=block_mask)
    return mixed.transpose(1, 2)


@lru_cache(maxsize=1)
def _compiled_flex() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    compiled: Callable[..., Tensor] = torch.compile(flex_attention, dynamic=False)
    return compiled


@lru_cache(maxsize=8)
def _block_mask(layout: Layout, tokens_per_frame: int, queries: int, device: torch.device) -> object:
    from torch.nn.attention.flex_attention import create_block_mask

    with torch.inference_mode(False):
        group_L = _group_of_token(layout, tokens_per_frame, device)
        skipped = len(group_L) - queries
        return create_block_mask(lambda _b, _h, q, k: group_L[k] <= group_L[q + skipped], None, None, queries, len(group_L), device=device)


def _group_of_token(layout: Layout, tokens_per_frame: int, device: torch.device) -> Tensor:
    groups = [index for index, (start, stop) in enumerate(layout.groups()) for _ in range(start, stop)]
    return torch.tensor(groups, device=device).repeat_interleave(tokens_per_frame)


BACKENDS: Mapping[str, Callable[..., Tensor]] = MappingProxyType({"prefix_dense": prefix_dense, "flex": flex, "mask": masked})
"""The ways to attend, by name."""
