"""Sequence parallelism for the decoder, after Ulysses: each rank holds a share of every frame's tokens, and while it attends a share of the heads.

Since every frame is split, so is every group (condition, chunk A, chunk B): all ranks have equal work in each chunk, and attention to a chunk's own text and
state needs no other rank. Around self-attention one all-to-all gathers all tokens of some heads, and another brings them back. Shares need not be even.

Shapes: B batch, F latent frames, P tokens of a frame (p a rank's), L = F * P tokens (l a rank's), N heads (n a rank's), E a head's width, D width.
Source: DeepSpeed-Ulysses (arXiv 2309.14509); PAN (arXiv 2511.09057v3), section 4.2.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from training.model.plain import must


def shares(whole: int, ranks: int) -> list[int]:
    """`whole` in `ranks` parts that differ by one at most, larger ones first.

    Raises:
        ValueError: there are more ranks than things to share.
    """
    must(whole >= ranks, f"parallel.sequence {ranks}: there are only {whole} heads, or tokens of a frame, to share; take at most as many ranks")
    return [whole // ranks + (rank < whole % ranks) for rank in range(ranks)]


@dataclass(frozen=True)
class Ring:
    """The ranks that share a window.

    Attributes:
        rank: this one's place; ranks: how many there are.
        group: their process group.
    """

    rank: int
    ranks: int
    group: Any = field(repr=False)

    @classmethod
    def of(cls, group: Any) -> "Ring":
        """From a process group that this process is in."""
        import torch.distributed as dist

        return cls(dist.get_rank(group), dist.get_world_size(group), group)

    def own(self, x: Tensor, axis: int) -> Tensor:
        """This rank's share of what all ranks have whole."""
        return x.split(shares(x.shape[axis], self.ranks), axis)[self.rank]


class _AllToAll(torch.autograd.Function):
    """Flat pieces to each rank for flat pieces from each; backward sends the gradients the way back."""

    @staticmethod
    def forward(ctx: Any, sent: Tensor, to: Sequence[int], fro: Sequence[int], group: Any) -> Tensor:
        ctx.way = (fro, to, group)
        return _exchanged(sent, to, fro, group)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        return _exchanged(gradients[0], *ctx.way), None, None, None


def _exchanged(sent: Tensor, to: Sequence[int], fro: Sequence[int], group: Any) -> Tensor:
    import torch.distributed as dist

    got = sent.new_empty(sum(fro))
    dist.all_to_all_single(got, sent.contiguous(), list(fro), list(to), group=group)
    return got


class _Gather(torch.autograd.Function):
    """All ranks' shares of an axis put together; backward keeps the rank's own, since every rank goes on alike from the whole."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, lengths: Sequence[int], axis: int, ring: Ring) -> Tensor:
        import torch.distributed as dist

        ctx.way = (lengths, axis, ring.rank)
        first = own.movedim(axis, 0)
        padded = torch.cat([first, first.new_zeros(max(lengths) - len(first), *first.shape[1:])]).contiguous()
        parts = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(parts, padded, group=ring.group)
        return torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)]).movedim(0, axis)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        lengths, axis, rank = ctx.way
        return gradients[0].split(list(lengths), axis)[rank].contiguous(), None, None, None


def to_heads(x_BlNE: Tensor, whole: int, ring: Ring) -> Tensor:
    """From a rank's tokens with all heads to all tokens with its heads, [B, L, n, E]; `whole` is P."""
    tokens, heads = shares(whole, ring.ranks), shares(x_BlNE.shape[2], ring.ranks)
    x_BFpNE = x_BlNE.unflatten(1, (-1, tokens[ring.rank]))
    pieces = x_BFpNE.split(heads, 3)
    each = x_BFpNE.shape[0] * x_BFpNE.shape[1] * x_BFpNE.shape[4]
    fro = [each * count * heads[ring.rank] for count in tokens]
    got = _AllToAll.apply(torch.cat([piece.reshape(-1) for piece in pieces]), [piece.numel() for piece in pieces], fro, ring.group)
    shape = x_BFpNE.shape
    parts = [part.view(shape[0], shape[1], count, heads[ring.rank], shape[4]) for part, count in zip(got.split(fro), tokens, strict=True)]
    return torch.cat(parts, 2).flatten(1, 2)


def to_tokens(x_BLnE: Tensor, whole: int, heads: int, ring: Ring) -> Tensor:
    """The way back: from all tokens with a rank's heads to its tokens with all `heads`, [B, l, N, E]."""
    tokens, mine = shares(whole, ring.ranks), shares(heads, ring.ranks)
    x_BFPnE = x_BLnE.unflatten(1, (-1, whole))
    pieces = x_BFPnE.split(tokens, 2)
    each = x_BFPnE.shape[0] * x_BFPnE.shape[1] * x_BFPnE.shape[4]
    fro = [each * tokens[ring.rank] * count for count in mine]
    got = _AllToAll.apply(torch.cat([piece.reshape(-1) for piece in pieces]), [piece.numel() for piece in pieces], fro, ring.group)
    shape = x_BFPnE.shape
    parts = [part.view(shape[0], shape[1], tokens[ring.rank], count, shape[4]) for part, count in zip(got.split(fro), mine, strict=True)]
    return torch.cat(parts, 3).flatten(1, 2)


class SharedAttention:
    """In the place of `attention.attend`: the same result on a rank's tokens, by all tokens of its heads."""

    def __init__(self, attend: Any, ring: Ring) -> None:
        self._attend, self._ring, self.whole = attend, ring, 0

    def __call__(self, q_BlNE: Tensor, k_BlNE: Tensor, v_BlNE: Tensor, layout: Any, tokens_per_frame: int, backend: Any) -> Tensor:
        """[B, l, N, E]; `tokens_per_frame` are the rank's."""
        ring, heads, width = self._ring, q_BlNE.shape[2], q_BlNE.shape[3]
        if q_BlNE.shape == k_BlNE.shape:  # one exchange for all three
            q, k, v = to_heads(torch.cat([q_BlNE, k_BlNE, v_BlNE], 3), self.whole, ring).split(width, 3)
        else:
            q = to_heads(q_BlNE, self.whole, ring)
            k, v = to_heads(torch.cat([k_BlNE, v_BlNE], 3), self.whole, ring).split(width, 3)
        return to_tokens(self._attend(q, k, v, layout, self.whole, backend), self.whole, heads, ring)


def share_sequence(decoder: nn.Module, group: Any) -> None:
    """Makes a decoder compute its rank's share of every frame's tokens, and give the whole velocity on every rank of the group; in place.

    Of the decoder it takes four names: `patches` (latents to tokens [B, F, P, D] and their numbers), `turns` (the rotation of each token), `unpatched` (tokens
    to the velocity), and `attend` of each module that has one. Gradients of its parameters are then a rank's part, to be summed over the group.
    """
    ring = Ring.of(group)
    patches, turns, unpatched = decoder.patches, decoder.turns, decoder.unpatched
    shared = []
    for module in decoder.modules():
        if hasattr(module, "attend"):
            module.attend = SharedAttention(module.attend, ring)
            shared.append(module.attend)

    def own_patches(latents_BCFHW: Tensor) -> Any:
        x_BFPD, size_FRC = patches(latents_BCFHW)
        for attention in shared:
            attention.whole = x_BFPD.shape[2]
        return ring.own(x_BFPD, 2).contiguous(), size_FRC

    def own_turns(size_FRC: Any, *given: Any) -> Tensor:
        return ring.own(turns(size_FRC, *given).unflatten(0, (size_FRC[0], -1)), 1).flatten(0, 1)

    def whole_unpatched(out_BFpO: Tensor, size_RC: Any) -> Any:
        return unpatched(_Gather.apply(out_BFpO, shares(size_RC[0] * size_RC[1], ring.ranks), 2, ring), size_RC)

    decoder.patches, decoder.turns, decoder.unpatched = own_patches, own_turns, whole_unpatched
