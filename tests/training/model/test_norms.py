"""The steps between the matrix products: against torch's own, in value and gradient, and in what stays wide."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.model.attention import rotary_table
from training.model.norms import gated, layer_normed, modulated, rms_normed, rotated, wide_linear

TABLE = rotary_table(8, 10000.0, (2, 2, 3), 3, torch.device("cpu"), torch.float64)


def tokens(*shape: int) -> Tensor:
    torch.manual_seed(0)
    return (3 * torch.randn(*shape, dtype=torch.float64)).requires_grad_()


def weighted(kind: type[nn.RMSNorm] | type[nn.LayerNorm], width: int) -> nn.Module:
    norm = kind(width, eps=1e-3).double()  # so large that it matters
    with torch.no_grad():
        for weight in norm.parameters():
            weight.add_(torch.linspace(-0.5, 0.5, width))
    return norm


@pytest.mark.parametrize("table", [None, TABLE], ids=["plain", "turned"])
def test_rms_norm_is_torchs_in_value_and_gradient(table: Tensor | None) -> None:
    norm, x, ahead = weighted(nn.RMSNorm, 16), tokens(2, 12, 16), torch.randn(2, 12, 2, 8, dtype=torch.float64)
    split = norm(x).unflatten(-1, (2, 8))
    expected, got = split if table is None else rotated(split, table), rms_normed(norm, x, 2, table)
    assert (got - expected).abs().max() <= 1e-13
    inputs = [x, norm.weight]
    for one, other in zip(torch.autograd.grad(got, inputs, ahead), torch.autograd.grad(expected, inputs, ahead), strict=True):
        assert other.abs().max() > 0.1
        assert (one - other).abs().max() <= 1e-12


def test_rms_norm_by_differences() -> None:
    """The gradient by hand, checked by finite differences and not by torch's formula; frames and tokens may be two axes."""
    norm = weighted(nn.RMSNorm, 16)
    assert torch.autograd.gradcheck(
        lambda x, weight: rms_normed(_with(norm, weight), x, 2, TABLE), (tokens(1, 2, 6, 16), norm.weight.detach().requires_grad_())
    )


def _with(norm: nn.Module, weight: Tensor) -> nn.RMSNorm:
    """`norm`'s numbers with another weight."""
    other = nn.RMSNorm(16, norm.eps)
    del other.weight
    other.weight = weight
    return other


def test_turning_back_undoes_turning() -> None:
    x = tokens(1, 12, 2, 8).detach()
    assert (rotated(rotated(x, TABLE), TABLE, back=True) - x).abs().max() <= 1e-14
    assert (rotated(x, TABLE) - x).abs().max() > 0.1


def test_modulation_and_gate_by_hand() -> None:
    x, change = tokens(1, 2, 3, 8).detach(), torch.randn(1, 2, 3, 8, dtype=torch.float64)
    shift, scale = torch.randn(2, 1, 2, 1, 8, dtype=torch.float64)
    plain = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt()
    assert (modulated(x, shift, scale, 1e-6) - (plain * (1 + scale) + shift)).abs().max() <= 1e-12
    assert (gated(x, change, scale) - (x + change * scale)).abs().max() <= 1e-12
    norm = weighted(nn.LayerNorm, 8)
    assert (layer_normed(norm, x) - norm(x)).abs().max() <= 1e-12


def test_narrow_tokens_are_rounded_once() -> None:
    """bfloat16 in, bfloat16 out: no further from float64 than one rounding, which is 2^-9 of the value."""
    x = tokens(1, 2, 6, 16).detach().bfloat16()
    shift, scale = torch.randn(2, 1, 2, 1, 16)
    truth = modulated(x.double(), shift.double(), scale.double(), 1e-6)
    assert ((modulated(x, shift, scale, 1e-6).double() - truth).abs() <= 2**-8 * truth.abs() + 1e-6).all()
    norm = weighted(nn.RMSNorm, 16)
    turned = rms_normed(norm, x.double(), 2, TABLE)
    narrow = rms_normed(norm.float(), x, 2, TABLE.float())
    assert narrow.dtype == torch.bfloat16
    assert (narrow.double() - turned).norm() <= 2**-8 * turned.norm()


def test_wide_linear_does_not_round_its_input() -> None:
    linear = nn.Linear(8, 8).bfloat16()
    x = torch.randn(4, 8)
    assert torch.equal(wide_linear(linear, x), F.linear(x, linear.weight.float(), linear.bias.float()))
