"""The decoder against diffusers' WanTransformer3DModel: the same random weights, the same window, the tolerances of the design.

diffusers computes norms, modulation, rotation and the timestep's waves in float32 even where its weights are float64: there, and only there, it is
made exact by this file, so that what is left is arithmetic and not rounding.
"""

import os
from dataclasses import replace
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from tests.training.model.made_decoder import decoder_of, window_of
from training.model.attention import Layout, head_split
from training.model.decoder import Decoder
from training.model.keymaps import renamed, to_diffusers
from training.model.spec import SPECS, DecoderSpec

os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
diffusers = pytest.importorskip("diffusers", reason="diffusers is in the development lock")

SPEC = replace(SPECS["pan_14b"].decoder, dim=256, ffn=320, heads=2, layers=3, text_dim=24, state_dim=None)  # heads of 128 and 512 texts as in both of Wan's
WAN = Layout(0, (3,), causal=False)


def theirs_of(ours: Decoder, spec: DecoderSpec, dtype: torch.dtype) -> nn.Module:
    """diffusers' decoder with the weights of `ours`; its own choice of what stays float32 in bfloat16."""
    theirs = diffusers.WanTransformer3DModel(
        num_attention_heads=spec.heads,
        attention_head_dim=spec.head_dim,
        text_dim=spec.text_dim,
        ffn_dim=spec.ffn,
        num_layers=spec.layers,
        freq_dim=spec.freq_dim,
    )
    theirs.load_state_dict(renamed(ours.state_dict(), to_diffusers))
    if dtype != torch.bfloat16:
        return theirs.to(dtype)
    for name, module in theirs.named_modules():
        narrow = not any(part in name for part in theirs._keep_in_fp32_modules)
        for parameter_name, parameter in module.named_parameters(recurse=False):
            parameter.data = parameter.data.to(dtype if narrow and parameter_name != "scale_shift_table" else torch.float32)
    return theirs


class Waves(nn.Module):
    """The timestep's waves in float64, written another way than ours: by powers of one ratio."""

    def forward(self, timestep: Tensor) -> Tensor:
        half = SPEC.freq_dim // 2
        rates = torch.exp(torch.arange(half).double() * (-torch.log(torch.tensor(10000.0).double()) / half))
        return torch.cat([torch.cos(timestep.double()[:, None] * rates), torch.sin(timestep.double()[:, None] * rates)], 1)


def exact(theirs: nn.Module) -> nn.Module:
    """`theirs` with the rotation's angles and the waves in float64."""
    angles = [torch.outer(torch.arange(1024).double(), 10000.0 ** (-torch.arange(0, width, 2).double() / width)) for width in head_split(SPEC.head_dim)]
    turned = torch.cat(angles, 1).repeat_interleave(2, 1)
    theirs.rope.freqs_cos, theirs.rope.freqs_sin = turned.cos(), turned.sin()
    theirs.condition_embedder.timesteps_proj = Waves()
    return theirs


def both(dtype: torch.dtype, timestep_BF: Tensor) -> tuple[Tensor, Tensor]:
    """The two velocities of one window of two samples."""
    ours, window = decoder_of(SPEC, torch.float32), window_of(SPEC, WAN, dtype, batch=2, side=8)
    theirs = theirs_of(ours, SPEC, dtype)
    if dtype == torch.float64:
        theirs = exact(theirs)
    float_of = Tensor.double if dtype == torch.float64 else Tensor.float
    per_frame = bool((timestep_BF != timestep_BF[:, :1]).any())
    per_token = timestep_BF.repeat_interleave(16, 1) if per_frame else timestep_BF[:, 0]
    with torch.no_grad():
        with mock.patch.object(Tensor, "float", float_of):
            expected = theirs(window["latents_BCFHW"], per_token, window["text_BGND"][:, 0], return_dict=False)[0]
        return ours.to(dtype)(**window | {"timestep_BF": timestep_BF}, layout=WAN), expected


def relative(got: Tensor, expected: Tensor) -> float:
    """The error's norm over the expected's, in float64."""
    return float((got.double() - expected.double()).norm() / expected.double().norm())


ONE_LEVEL = torch.tensor([[978.3], [437.0]]).expand(2, 3)
THREE_LEVELS = torch.tensor([[55.0, 437.0, 937.5], [55.0, 250.0, 1000.0]])


@pytest.mark.parametrize("timestep", [ONE_LEVEL, THREE_LEVELS], ids=["one level", "a level a frame"])
def test_float32(timestep: Tensor) -> None:
    got, expected = both(torch.float32, timestep)
    assert expected.std() > 0.1
    assert (got - expected).abs().max() <= 1e-4
    assert relative(got, expected) <= 2e-5


@pytest.mark.parametrize("timestep", [ONE_LEVEL, THREE_LEVELS], ids=["one level", "a level a frame"])
def test_float64(timestep: Tensor) -> None:
    got, expected = both(torch.float64, timestep)
    assert got.dtype == torch.float64
    assert relative(got, expected) <= 1e-9


@pytest.mark.parametrize("timestep", [ONE_LEVEL, THREE_LEVELS], ids=["one level", "a level a frame"])
def test_bfloat16(timestep: Tensor) -> None:
    got, expected = both(torch.bfloat16, timestep)
    truth, _ = both(torch.float64, timestep)
    assert got.dtype == torch.bfloat16
    assert relative(got, expected) <= 2e-2
    assert relative(got, truth) <= 2e-2


def test_the_comparison_can_fail() -> None:
    got, expected = both(torch.float32, ONE_LEVEL + 1.0)
    other, _ = both(torch.float32, ONE_LEVEL)
    assert relative(got, expected) <= 2e-5 < relative(other, expected)
