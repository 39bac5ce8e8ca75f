"""The decoder's small steps between its matrix products: norms, modulation, gates and the rotation, computed wide, rounded once, few passes over memory.

Wide is float32, or float64 in a float64 model: whatever a checkpoint's weights were rounded to, these steps never are narrower.
Tensor names end in their shape: B batch, F latent frames, P tokens in a frame, L tokens, D width, N heads, E a head's width.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def wide(x: Tensor) -> Tensor:
    """`x` in float32, or float64 where it is."""
    return x if x.dtype == torch.float64 else x.float()


def wide_linear(linear: nn.Linear, x: Tensor) -> Tensor:
    """The linear map in float32 or wider, whatever its weights are."""
    return F.linear(x, wide(linear.weight), wide(linear.bias))


def layer_normed(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """LayerNorm with its weights, in `x`'s dtype."""
    return F.layer_norm(wide(x), norm.normalized_shape, wide(norm.weight), wide(norm.bias), norm.eps).to(x.dtype)


def modulated(x_BFPD: Tensor, shift_BF1D: Tensor, scale_BF1D: Tensor, eps: float) -> Tensor:
    """LayerNorm without weights, scaled by 1 + `scale` and shifted, a frame each; in `x`'s dtype."""
    plain = F.layer_norm(wide(x_BFPD), x_BFPD.shape[-1:], eps=eps)
    return torch.addcmul(shift_BF1D, plain, 1 + scale_BF1D).to(x_BFPD.dtype)


def gated(x_BFPD: Tensor, change_BFPD: Tensor, gate_BF1D: Tensor) -> Tensor:
    """`x` plus the gated change; in `x`'s dtype."""
    return torch.addcmul(wide(x_BFPD), wide(change_BFPD), gate_BF1D).to(x_BFPD.dtype)


def rms_normed(norm: nn.RMSNorm, x: Tensor, heads: int, table: Tensor | None = None) -> Tensor:
    """RMSNorm over all heads together, then the rotation by `table` if there is one; in `x`'s dtype, as heads of a sequence.

    Args:
        x: [B, ..., D], the axes between of L tokens.
        table: `attention.rotary_table`'s, [L, 1, E/2, 2].

    Returns:
        [B, L, N, E].
    """
    turned: Tensor = _NormedAndTurned.apply(x, wide(norm.weight), table, heads, norm.eps)
    return turned


class _NormedAndTurned(torch.autograd.Function):
    """y = R(x * r * w), r = (mean(x^2) + eps)^(-1/2) of each token, R the rotation of each pair: one step with a gradient by hand.

    torch's own RMSNorm on a CPU is four passes over fresh memory forward and ten backward, and keeps wide copies for them; this keeps `x` alone, as it came.
    Backward, with u = R^-1(dy) and t = u * x * r: dw = sum of t over tokens, dx = r * (u * w - x * r * mean(t * w)).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_D: Tensor, table: Tensor | None, heads: int, eps: float) -> Tensor:
        values, width = wide(x), x.shape[-1]
        rate = torch.linalg.vector_norm(values, dim=-1, keepdim=True).square_().div_(width).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight_D, rate)
        ctx.table = table
        split = (values * rate).mul_(weight_D).view(x.shape[0], -1, heads, width // heads)
        return (split if table is None else rotated(split, table)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        x, weight_D, rate = ctx.saved_tensors
        u = (wide(dy) if ctx.table is None else rotated(dy, ctx.table, back=True)).reshape(x.shape)
        unit = wide(x) * rate
        t = u * unit
        along = (t @ weight_D).unsqueeze(-1).div_(-x.shape[-1])
        dx = torch.addcmul(u * weight_D, unit, along).mul_(rate)
        return dx.to(x.dtype), t.flatten(0, -2).sum(0), None, None, None


def rotated(x_BLNE: Tensor, table: Tensor, back: bool = False) -> Tensor:
    """`x_BLNE` turned by `table` (`attention.rotary_table`'s), or back, in the table's dtype: numbers 2i and 2i+1 of a head are one complex number.

    In eager mode it is one complex product, one pass over the memory; torch.compile knows no complex numbers, but fuses the real form.
    """
    pairs = x_BLNE.to(table.dtype).unflatten(-1, (-1, 2))
    if not torch.compiler.is_compiling():
        turn = torch.view_as_complex(table)
        return torch.view_as_real(torch.view_as_complex(pairs) * (turn.conj() if back else turn)).flatten(-2)
    (even, odd), (cos, sin) = pairs.unbind(-1), table.unbind(-1)
    sin = -sin if back else sin
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)
