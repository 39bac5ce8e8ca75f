"""Footprint: the operations that are published, the memory that arithmetic gives, and what a block really keeps."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from training.diffusion.plan import PLANS
from training.footprint import (
    COMPILED,
    COMPILED_WIDE,
    EAGER,
    EAGER_WIDE,
    LANGUAGE,
    LANGUAGE_LEARNING,
    LANGUAGE_LEARNING_WIDE,
    LANGUAGE_WIDE,
    TOWER_LEARNING,
    TOWER_LEARNING_WIDE,
    Spread,
    Work,
    memory,
)
from training.held import assumed
from training.model import counts
from training.model.attention import Layout, rotary_table
from training.model.backbone import Backbone
from training.model.decoder import Block
from training.model.spec import SPECS, DecoderSpec, ModelSpec
from training.operations import backbone_flops, dialogue_tokens, operations, share, sight_tokens, tokens_per_frame

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


def test_the_largest_share_is_counted() -> None:
    assert share(8, 28) == 4 / 28
    assert share(4, 40, 1560) == 1 / 4
    assert share(16, 40, 1560) == 3 / 40
    alone = memory(STAGE_ONE, EIGHT, WORK, 0.0).activations
    assert memory(STAGE_ONE, replace(EIGHT, sequence=16, shard=160), WORK, 0.0).activations == pytest.approx(alone * 3 / 40)
    language, tower = backbone_flops(PAN, 64)
    shared, whole = operations(PAN, False, 64, 8), operations(PAN, False, 64)
    assert whole.longest == whole.executed == shared.executed
    decoder = whole.executed - 2 * language - tower
    assert shared.longest == pytest.approx(decoder / 8 + 2 * language * 4 / 28 + tower)  # the tower's work is not shared


def test_a_moving_average_is_four_bytes_a_parameter_over_the_shards() -> None:
    plain, averaged = (memory(PAN, EIGHT, replace(WORK, average=average), 0.0) for average in (False, True))
    assert averaged.optimiser - plain.optimiser == pytest.approx(4 * 19.552e9 / 8 / 1e9, rel=1e-3)
    assert averaged.total - plain.total == pytest.approx(averaged.optimiser - plain.optimiser)


def test_gathered_in_float32_blocks_are_twice_as_large_and_autocast_keeps_narrow_copies() -> None:
    block = counts.decoder_block(STAGE_ONE.decoder)
    outside = counts.decoder(STAGE_ONE.decoder) - 40 * block
    narrow = memory(STAGE_ONE, EIGHT, WORK, 0.0)
    assert narrow.weights == pytest.approx((10 * block + 8 * outside) / 1e9)
    wide = memory(STAGE_ONE, EIGHT, replace(WORK, gather="float32", compute="float32"), 0.0)
    assert wide.weights == pytest.approx((16 * block + 12 * outside) / 1e9)
    tokens = 21 * 1560
    inside = tokens * (5120 * COMPILED_WIDE[0] + 13824 * COMPILED_WIDE[2])
    assert wide.activations == pytest.approx((tokens * 5120 * 4 * 40 + inside) / 1e9)
    mixed = memory(STAGE_ONE, EIGHT, replace(WORK, gather="float32"), 0.0)
    assert mixed.weights - wide.weights == pytest.approx(2 * counts.decoder(STAGE_ONE.decoder) / 1e9)
    assert mixed.activations == narrow.activations
    assert memory(STAGE_ONE, EIGHT, replace(WORK, compute="float32"), 0.0) == narrow  # weights in bfloat16 compute in bfloat16


def test_one_gpu_alone_gathers_nothing_and_its_weights_are_float32() -> None:
    alone = Spread(replicate=1, shard=1, sequence=1, checkpointing=False)
    narrow, wide = (memory(STAGE_ONE, alone, replace(WORK, compute=compute), 0.0) for compute in ("bfloat16", "float32"))
    assert narrow.weights == pytest.approx(2 * counts.decoder(STAGE_ONE.decoder) / 1e9)
    assert wide.weights == 0
    assert wide.activations > 1.9 * narrow.activations


def test_an_optimisers_step_makes_a_number_of_each_parameter() -> None:
    short = replace(STAGE_ONE, height=32, width=32)
    assert memory(short, EIGHT, WORK, 0.0).activations == pytest.approx(4 * counts.decoder(STAGE_ONE.decoder) / 8 / 1e9)


def test_what_does_not_learn_is_held_as_it_is_stored() -> None:
    """A decoder's phase of PAN's whole model: the state's stream and the backbone are cut up with the rest, though nothing computes with them."""
    held = assumed(PAN, STAGE_ONE)
    stream, backbone = counts.decoder(PAN.decoder) - counts.decoder(STAGE_ONE.decoder), counts.backbone(PAN.backbone)
    taken = memory(STAGE_ONE, EIGHT, WORK, 0.0, held)
    assert taken.frozen == pytest.approx(2 * (stream + backbone) / 8 / 1e9, rel=1e-3)
    assert taken.weights > memory(STAGE_ONE, EIGHT, WORK, 0.0).weights
    alone = replace(EIGHT, shard=1)
    assert memory(STAGE_ONE, alone, WORK, 0.0, held).frozen == pytest.approx(2 * stream / 1e9, rel=1e-3)
    everything = memory(STAGE_ONE, alone, replace(WORK, resident=True), 0.0, held).frozen
    assert everything == pytest.approx((2 * (stream + backbone + counts.text(PAN.text)) + 4 * counts.vae(PAN.vae)) / 1e9, rel=1e-3)
    wide = replace(held, width=held.width | {"backbone": 4.0})
    assert memory(STAGE_ONE, EIGHT, WORK, 0.0, wide).frozen - taken.frozen == pytest.approx(2 * backbone / 8 / 1e9)


def test_a_backbone_that_learns_takes_its_state_its_gradients_and_half_again_the_work() -> None:
    plain = assumed(PAN, PAN)
    learns = replace(plain, learning=plain.learning | {"backbone": counts.backbone(PAN.backbone)}, hears=True, sees=True)
    one, other = (memory(PAN, EIGHT, WORK, 0.0, held) for held in (plain, learns))
    assert other.optimiser - one.optimiser == pytest.approx(12 * counts.backbone(PAN.backbone) / 8 / 1e9)
    assert other.frozen == 0
    assert other.weights > one.weights
    assert other.activations > one.activations
    language, tower = backbone_flops(PAN, 64)
    assert operations(PAN, False, 64, 1, learns).useful - operations(PAN, False, 64).useful == pytest.approx(language + 2 * tower)


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


def block_keeps(dim: int, ffn: int, state: bool, compiled: bool, kind: torch.dtype = torch.bfloat16) -> float:
    spec = DecoderSpec(dim=dim, ffn=ffn, heads=dim // 32, layers=1, state_dim=64 if state else None, text_dim=32, text_tokens=8, queries=8)
    torch.manual_seed(0)
    block = Block(spec).to(kind)
    layout, places = Layout(1, (4, 4)), 64
    x = torch.randn(1, layout.frames, places, dim, dtype=kind, requires_grad=True)
    time = torch.randn(1, layout.frames, 6, dim)
    text, states = (torch.randn(1, 2, 8, dim, dtype=kind) for _ in range(2))
    table = rotary_table(32, 1e4, (layout.frames, 8, 8), 0, torch.device("cpu"), torch.float32)
    run = torch.compile(block, backend="aot_eager_decomp_partition") if compiled else block
    return kept(block, [text, states, table], layout.frames * places, lambda: run(x, time, text, states if state else None, table, layout))


@pytest.fixture
def gpus_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention as a GPU computes it, in the precision that it is given; on a CPU ours keeps float32 copies of a bfloat16 block's."""

    def dense(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        return nn.functional.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)), attn_mask=mask).transpose(1, 2)

    for module in ("attention", "decoder"):
        monkeypatch.setattr(f"training.model.{module}.dense", dense)


@pytest.mark.usefixtures("gpus_attention")
@pytest.mark.parametrize(("state", "compiled"), [(False, False), (True, False), (True, True)])
def test_a_decoders_block_keeps_what_is_planned(state: bool, compiled: bool) -> None:
    plain, stateful, ffn = COMPILED if compiled else EAGER
    for dim, wide in ((256, 512),) if compiled else ((256, 512), (512, 1024)):
        planned = dim * (stateful if state else plain) + wide * ffn
        assert block_keeps(dim, wide, state, compiled) == pytest.approx(planned, rel=0.03)


@pytest.mark.parametrize(("state", "compiled"), [(False, False), (True, False), (True, True)])
def test_a_decoders_block_keeps_what_is_planned_in_float32(state: bool, compiled: bool) -> None:
    plain, stateful, ffn = COMPILED_WIDE if compiled else EAGER_WIDE
    assert block_keeps(256, 512, state, compiled, torch.float32) == pytest.approx(256 * (stateful if state else plain) + 512 * ffn, rel=0.03)


def language_keeps(spec: ModelSpec, layers: int, kind: torch.dtype, learns: bool) -> float:
    torch.manual_seed(0)
    language = Backbone(replace(spec.backbone, layers=layers), train_all=learns).to(kind).model.language_model
    x = torch.randn(1, 256, spec.backbone.hidden, dtype=kind, requires_grad=True)
    where = torch.arange(256)[None, None].expand(3, 1, 256)
    return kept(language, [], 256, lambda: language(inputs_embeds=x, position_ids=where, use_cache=False))


@pytest.mark.parametrize(
    ("kind", "learns", "each"),
    [
        (torch.bfloat16, False, LANGUAGE),
        (torch.float32, False, LANGUAGE_WIDE),
        (torch.bfloat16, True, LANGUAGE_LEARNING),
        (torch.float32, True, LANGUAGE_LEARNING_WIDE),
    ],
)
def test_a_layer_of_the_language_model_keeps_what_is_planned(kind: torch.dtype, learns: bool, each: tuple[float, float, float]) -> None:
    debug = SPECS["debug"]
    spec = replace(debug, backbone=replace(debug.backbone, intermediate=256))
    b, (hidden, intermediate, keys) = spec.backbone, each
    planned = b.hidden * hidden + b.intermediate * intermediate + b.hidden // b.heads * b.kv_heads * keys
    assert language_keeps(spec, 3, kind, learns) - language_keeps(spec, 2, kind, learns) == pytest.approx(planned, rel=0.05)


def tower_keeps(spec: ModelSpec, depth: int, kind: torch.dtype) -> float:
    torch.manual_seed(0)
    b = replace(spec.backbone, vision=replace(spec.backbone.vision, depth=depth, full_attention_layers=(0,)))
    tower = Backbone(b, train_all=True).to(kind).model.visual
    patches = torch.randn(64, 3 * b.vision.temporal_patch * b.vision.patch**2, dtype=kind)
    return kept(tower, [patches], 64, lambda: tower(patches, grid_thw=torch.tensor([[1, 8, 8]])))


@pytest.mark.parametrize(("kind", "each"), [(torch.bfloat16, TOWER_LEARNING), (torch.float32, TOWER_LEARNING_WIDE)])
def test_a_block_of_a_tower_that_learns_keeps_what_is_planned(kind: torch.dtype, each: tuple[float, float]) -> None:
    spec = SPECS["debug"]
    planned = spec.backbone.vision.hidden * each[0] + spec.backbone.vision.intermediate * each[1]
    assert tower_keeps(spec, 3, kind) - tower_keeps(spec, 2, kind) == pytest.approx(planned, rel=0.1)
