"""Operations and parameters, against the figures of the design: 14B at 480 x 832, one window of 21 latent frames."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.training.model.made_decoder import SPEC, window_of
from training.model.attention import Layout
from training.model.decoder import Decoder
from training.model.flops import forward_flops, parameters
from training.model.spec import SPECS, DecoderSpec

WIDE, SMALL = SPECS["pan_14b"].decoder, SPECS["pan_1_3b"].decoder
WINDOW, DENSE = Layout(1, (10, 10)), Layout(0, (21,), causal=False)


@pytest.mark.parametrize(
    ("spec", "layout", "tokens", "options", "teraflops"),
    [
        (WIDE, DENSE, 1560, {"state": False}, 1678),
        (WIDE, WINDOW, 1560, {"state": False, "texts": 1}, 1439),
        (WIDE, WINDOW, 1560, {"routed": False}, 1677),  # as the design counted: each chunk against both texts and states
        (WIDE, WINDOW, 1560, {}, 1656),  # each chunk against its own
        (WIDE, Layout(1, (10,)), 1560, {}, 754),
        (SMALL, WINDOW, 1560, {"state": False}, 229),
    ],
)
def test_forward(spec: DecoderSpec, layout: Layout, tokens: int, options: dict[str, object], teraflops: int) -> None:
    assert round(forward_flops(spec, layout, tokens, **options).blocks / 1e12) == teraflops  # type: ignore[arg-type]


def test_a_step_of_training() -> None:
    assert forward_flops(WIDE, WINDOW, 3600, routed=False).training() / 1e15 == pytest.approx(17.4, abs=0.05)
    flops = forward_flops(WIDE, WINDOW, 1560)
    assert flops.training(recomputed=1.0) == 4 * flops.total
    assert (flops.total - flops.blocks) / flops.total < 1e-3


def test_counted_by_torch() -> None:
    """torch's own counter sees the same products, where attention is written as two of them."""
    layout = Layout(1, (2, 2))
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        Decoder(SPEC)(**window_of(SPEC, layout, torch.float32), layout=layout)
    assert counter.get_total_flops() == forward_flops(SPEC, layout, 4).total


def test_parameters() -> None:
    assert round(parameters(WIDE) / 1e9, 2) == 19.55
    assert round(parameters(replace(WIDE, state_dim=None)) / 1e9, 3) == 14.288
    assert round(parameters(replace(SMALL, state_dim=None)) / 1e9, 3) == 1.419
