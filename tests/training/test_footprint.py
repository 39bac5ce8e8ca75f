"""Footprint: the operations that are published, the memory that arithmetic gives, and what a block really keeps."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from training.diffusion.plan import PLANS
from training.footprint import COMPILED, EAGER, LANGUAGE, Spread, Work, backbone_flops, dialogue_tokens, memory, operations, sight_tokens, tokens_per_frame
from training.model import counts
from training.model.attention import Layout, rotary_table
from training.model.backbone import Backbone
from training.model.decoder import Block
from training.model.spec import SPECS, DecoderSpec, ModelSpec

PAN = SPECS["pan_14b"]
STAGE_ONE = replace(PAN, decoder=replace(PAN.decoder, state_dim=None))
WORK = Work(windows=1, compiled=True, resident=False, action_tokens=64)
EIGHT = Spread(replicate=1, shard=8, sequence=1, checkpointing=True)


def test_tokens_are_the_papers() -> None:
    assert tokens_per_frame(PAN) == 1560
    assert tokens_per_frame(replace(PAN, height=720, width=1280)) == 3600
    assert sight_tokens(PAN) == (510, 1530)
    assert dialogue_tokens(PAN, 64) == 510 + 9 * 1530 + 10 * (256 + 64 + 13)


def test_operations_are_those_that_were_derived_from_the_paper() -> None:
    assert operations(STAGE_ONE, False, 64).useful / 1e15 == pytest.approx(4.3, abs=0.05)
    language, tower = backbone_flops(PAN, 64)
    assert (language + tower) / 1e15 == pytest.approx(0.34, rel=0.15)
    joint = operations(PAN, False, 64)
    assert (joint.useful - 2 * language - tower) / 1e15 == pytest.approx(5.0, abs=0.1)
    twice = operations(PAN, True, 64)
    assert twice.useful == joint.useful == joint.executed
    assert twice.executed - twice.useful == pytest.approx((joint.useful - 2 * language - tower) / 3 + language)


def test_what_the_models_plan_lets_see_is_counted() -> None:
    """Wan's own window hides nothing: 441 pairs of frames instead of 321."""
    whole = replace(STAGE_ONE, window=PLANS["full_window"])
    pairs = 120 * 1560**2 * 4 * 5120 * 40
    assert operations(whole, False, 64).useful - operations(STAGE_ONE, False, 64).useful == pytest.approx(3 * pairs)


def test_model_state_is_16_bytes_a_parameter_over_the_shards() -> None:
    for spec, published in ((PAN, 39.1), (STAGE_ONE, 28.6)):
        taken = memory(spec, EIGHT, WORK, 0.0)
        assert taken.optimiser + taken.gradients == pytest.approx(published, abs=0.05)
    copies = memory(PAN, replace(EIGHT, replicate=8, shard=1), WORK, 0.0)
    assert copies.optimiser == pytest.approx(8 * memory(PAN, EIGHT, WORK, 0.0).optimiser)
    assert memory(PAN, EIGHT, WORK, 0.0).frozen == pytest.approx(2 * counts.backbone(PAN.backbone) / 8 / 1e9)
    assert memory(STAGE_ONE, EIGHT, WORK, 0.0).frozen == 0
    held = memory(STAGE_ONE, EIGHT, replace(WORK, resident=True), 0.0)
    assert held.frozen == pytest.approx((2 * counts.text(PAN.text) + 4 * counts.vae(PAN.vae)) / 1e9)
    assert held.total == pytest.approx(held.frozen + memory(STAGE_ONE, EIGHT, WORK, 0.0).total)


def test_checkpointed_activations_are_what_lies_between_blocks_and_one_inside() -> None:
    tokens = 21 * 1560
    between = tokens * 5120 * 2 * 40 / 1e9
    assert between == pytest.approx(13.4, abs=0.05)
    inside = tokens * (5120 * COMPILED[0] + 13824 * COMPILED[2]) / 1e9
    assert memory(STAGE_ONE, EIGHT, WORK, 0.0).activations == pytest.approx(between + inside)
    whole = replace(EIGHT, checkpointing=False)
    assert memory(STAGE_ONE, whole, WORK, 0.0).activations == pytest.approx(40 * inside)
    assert memory(STAGE_ONE, replace(whole, sequence=4), WORK, 0.0).activations == pytest.approx(10 * inside)
    assert memory(STAGE_ONE, whole, replace(WORK, windows=3), 0.0).activations == pytest.approx(120 * inside)
    assert memory(STAGE_ONE, whole, replace(WORK, compiled=False), 0.0).activations > 1.25 * 40 * inside


def kept(module: nn.Module, given: list[Any], tokens: int, run: Any) -> float:
    """Bytes a token that autograd saves of `run()`, beside the module's parameters and what is given."""
    theirs = {tensor.untyped_storage().data_ptr() for tensor in (*module.parameters(), *given)}
    sizes: dict[int, int] = {}
    held = []  # so that no address is used twice

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in theirs:
            sizes[storage.data_ptr()] = storage.nbytes()
        held.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(sizes.values()) / tokens


def block_keeps(dim: int, ffn: int, state: bool, compiled: bool) -> float:
    spec = DecoderSpec(dim=dim, ffn=ffn, heads=dim // 32, layers=1, state_dim=64 if state else None, text_dim=32, text_tokens=8, queries=8)
    torch.manual_seed(0)
    block = Block(spec).to(torch.bfloat16)
    layout, places = Layout(1, (4, 4)), 64
    x = torch.randn(1, layout.frames, places, dim, dtype=torch.bfloat16, requires_grad=True)
    time = torch.randn(1, layout.frames, 6, dim)
    text, states = (torch.randn(1, 2, 8, dim, dtype=torch.bfloat16) for _ in range(2))
    table = rotary_table(32, 1e4, (layout.frames, 8, 8), 0, torch.device("cpu"), torch.float32)
    run = torch.compile(block, backend="aot_eager_decomp_partition") if compiled else block
    return kept(block, [text, states, table], layout.frames * places, lambda: run(x, time, text, states if state else None, table, layout))


@pytest.mark.parametrize(("state", "compiled"), [(False, False), (True, False), (True, True)])
def test_a_decoders_block_keeps_what_is_planned(state: bool, compiled: bool) -> None:
    plain, stateful, ffn = COMPILED if compiled else EAGER
    for dim, wide in ((256, 512),) if compiled else ((256, 512), (512, 1024)):
        planned = dim * (stateful if state else plain) + wide * ffn
        assert block_keeps(dim, wide, state, compiled) == pytest.approx(planned, rel=0.03)


def language_keeps(spec: ModelSpec, layers: int) -> float:
    torch.manual_seed(0)
    language = Backbone(replace(spec.backbone, layers=layers)).to(torch.bfloat16).model.language_model
    x = torch.randn(1, 256, spec.backbone.hidden, dtype=torch.bfloat16, requires_grad=True)
    where = torch.arange(256)[None, None].expand(3, 1, 256)
    return kept(language, [], 256, lambda: language(inputs_embeds=x, position_ids=where, use_cache=False))


def test_a_layer_of_the_frozen_language_model_keeps_what_is_planned() -> None:
    debug = SPECS["debug"]
    spec = replace(debug, backbone=replace(debug.backbone, intermediate=256))
    b, (hidden, intermediate, keys) = spec.backbone, LANGUAGE
    planned = b.hidden * hidden + b.intermediate * intermediate + b.hidden // b.heads * b.kv_heads * keys
    assert language_keeps(spec, 3) - language_keeps(spec, 2) == pytest.approx(planned, rel=0.05)
