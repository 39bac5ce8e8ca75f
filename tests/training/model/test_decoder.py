"""What must hold of the decoder whatever its weights: causality, independence, what a zero output changes, and who learns first."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tests.training.model.made_decoder import BOTH, EACH, OWN_NORM, SPEC, STATELESS, decoder_of, window_of
from training.model.attention import Backend, Layout
from training.model.decoder import Block, Decoder, Outputs, sinusoid
from training.model.spec import DecoderSpec

LAYOUT = Layout(1, (2, 2))
COND, A, B = slice(0, 1), slice(1, 3), slice(3, 5)


def change(window: dict[str, Any], frames: slice, context: int) -> dict[str, Any]:
    """The window with other latents and levels in `frames`, and another text and state for `context`."""
    torch.manual_seed(5)
    changed = {name: value.clone() for name, value in window.items()}
    changed["latents_BCFHW"][:, :, frames] += torch.randn_like(changed["latents_BCFHW"][:, :, frames])
    changed["timestep_BF"][:, frames] = 1000 - changed["timestep_BF"][:, frames]
    for name in ("text_BGND", "state_BGQS"):
        changed[name][:, context] += torch.randn_like(changed[name][:, context])
    return changed


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("backend", ["prefix_dense", "mask"])
def test_the_later_chunk_leaks_nothing_into_the_earlier(backend: str, dtype: torch.dtype) -> None:
    decoder, window = decoder_of(SPEC, dtype), window_of(SPEC, LAYOUT, dtype)
    for block in decoder.blocks:
        block.self_attn.backend = backend
    with torch.no_grad():
        before, after = decoder(**window, layout=LAYOUT), decoder(**change(window, B, 1), layout=LAYOUT)
    assert torch.equal(before[:, :, :3], after[:, :, :3])
    assert (before[:, :, B] - after[:, :, B]).abs().mean() > 0.1


def test_the_condition_frame_does_not_see_the_first_chunk() -> None:
    decoder, window = decoder_of(SPEC), window_of(SPEC, LAYOUT)
    changed = change(window, A, 0) | {name: window[name] for name in ("text_BGND", "state_BGQS")}  # whose text the condition frame reads too
    with torch.no_grad():
        before, after = decoder(**window, layout=LAYOUT), decoder(**changed, layout=LAYOUT)
        together = Layout(1, (2, 2), cond_in_first_chunk=True)
        seen = decoder(**window, layout=together) - decoder(**changed, layout=together)
    assert torch.equal(before[:, :, COND], after[:, :, COND])
    assert (before - after)[:, :, A].abs().mean() > 0.1
    assert seen[:, :, COND].abs().mean() > 1e-3


def test_without_the_mask_it_would_leak() -> None:
    decoder, window, open_layout = decoder_of(SPEC), window_of(SPEC, LAYOUT), Layout(1, (2, 2), causal=False)
    with torch.no_grad():
        leaked = decoder(**window, layout=open_layout) - decoder(**change(window, B, 1), layout=open_layout)
    assert leaked[:, :, A].abs().mean() > 1e-3


def test_dropping_the_later_chunk_changes_nothing_in_the_earlier() -> None:
    decoder, window = decoder_of(SPEC), window_of(SPEC, LAYOUT)
    shorter = {
        "latents_BCFHW": window["latents_BCFHW"][:, :, :3],
        "timestep_BF": window["timestep_BF"][:, :3],
        "text_BGND": window["text_BGND"][:, :1],
        "state_BGQS": window["state_BGQS"][:, :1],
    }
    with torch.no_grad():
        whole, short = decoder(**window, layout=LAYOUT), decoder(**shorter, layout=Layout(1, (2,)))
    assert (whole[:, :, :3] - short).abs().max() <= 1e-12


def test_a_chunk_reads_its_own_text_and_state() -> None:
    decoder, window = decoder_of(SPEC), window_of(SPEC, LAYOUT)
    for name in ("text_BGND", "state_BGQS"):
        other = change(window, B, 1)[name]
        with torch.no_grad():
            moved = (decoder(**window, layout=LAYOUT) - decoder(**window | {name: other}, layout=LAYOUT)).abs().amax((0, 1, 3, 4))
        assert (moved > 1e-6).tolist() == [False, False, False, True, True], name


def test_the_condition_frame_may_read_a_text_of_its_own() -> None:
    own = Layout(1, (2, 2), cond_context="own")
    decoder, window = decoder_of(SPEC), window_of(SPEC, own)
    other = window["text_BGND"].clone()
    other[:, 0] += 1.0  # the first chunk's
    with torch.no_grad():
        moved = (decoder(**window, layout=own) - decoder(**window | {"text_BGND": other}, layout=own)).abs().amax((0, 1, 3, 4))
    assert (moved > 1e-6).tolist() == [False, True, True, True, True]


def test_a_batch_of_two_is_two_batches_of_one() -> None:
    decoder, window = decoder_of(SPEC), window_of(SPEC, LAYOUT, batch=2)
    assert not torch.equal(window["timestep_BF"][0], window["timestep_BF"][1])
    with torch.no_grad():
        both = decoder(**window, layout=LAYOUT)
        each = torch.cat([decoder(**{name: value[i : i + 1] for name, value in window.items()}, layout=LAYOUT) for i in range(2)])
    assert (both - each).abs().max() <= 1e-12


def gradients(decoder: Decoder, window: dict[str, Any], layout: Layout = LAYOUT) -> dict[str, Tensor]:
    """Of every weight, and of the state, for a loss of fixed random weights."""
    state = window["state_BGQS"].clone().requires_grad_()
    decoder.zero_grad()
    torch.manual_seed(3)
    velocity = decoder(**window | {"state_BGQS": state}, layout=layout)
    (velocity * torch.randn_like(velocity)).sum().backward()
    return {"state": state.grad, **{name: weight.grad for name, weight in decoder.named_parameters()}}


def test_the_mask_and_the_prefixes_have_the_same_gradients() -> None:
    decoder, window = decoder_of(SPEC), window_of(SPEC, LAYOUT)
    prefix = {name: grad.clone() for name, grad in gradients(decoder, window).items()}
    for block in decoder.blocks:
        block.self_attn.backend = "mask"
    masked = gradients(decoder, window)
    assert all(grad.abs().max() > 0 for name, grad in masked.items() if not name.endswith("k.bias"))  # a key's bias cannot move a softmax, but for its norm
    assert max(float((prefix[name] - masked[name]).abs().max()) for name in prefix) <= 1e-10


def started() -> Decoder:
    """A decoder with trained-like weights whose state stream has just been made."""
    decoder = decoder_of(SPEC)
    decoder.start_state_stream()
    return decoder


def test_a_new_state_stream_leaves_the_pretrained_decoder_as_it_was() -> None:
    decoder, window, bare = started(), window_of(SPEC, LAYOUT), Decoder(STATELESS).double()
    missing, surplus = bare.load_state_dict(decoder.state_dict(), strict=False)
    assert missing == []
    assert {name.split(".")[2 if name.startswith("blocks") else 0] for name in surplus} == {"state_proj", "state_attn", "state_out"}
    with torch.no_grad():
        expected = bare(**window | {"state_BGQS": None}, layout=LAYOUT)
        assert torch.equal(decoder(**window, layout=LAYOUT), expected)
        assert torch.equal(decoder(**window | {"state_BGQS": None}, layout=LAYOUT), expected)
        assert not torch.equal(decoder_of(SPEC)(**window, layout=LAYOUT), expected)


@pytest.mark.parametrize("spec", [OWN_NORM, EACH, BOTH], ids=["own norm", "each", "both"])
def test_the_states_options_begin_as_the_default_and_leave_it(spec: DecoderSpec) -> None:
    """With the same numbers in them they compute what the shared norm and projection do; a number changed in theirs changes the velocity."""
    plain, other, window = decoder_of(SPEC), decoder_of(spec, seed=1), window_of(SPEC, LAYOUT)
    missing, surplus = other.load_state_dict(plain.state_dict(), strict=False)
    expected_new = [("state_norm", spec.state_norm == "own"), ("state_proj", spec.state_projection == "each")]
    assert {name.split(".")[2] for name in missing} == {name for name, there in expected_new if there}
    assert surplus == (["state_proj.weight", "state_proj.bias"] if spec.state_projection == "each" else [])
    own = [part for block in other.blocks for part in (block.state_norm, block.state_proj) if part is not None]
    with torch.no_grad():
        for block in other.blocks:
            if block.state_norm is not None:
                block.state_norm.load_state_dict(block.norm3.state_dict())
        for projection in other.state_projections():
            projection.load_state_dict(plain.state_proj.state_dict())
        expected = plain(**window, layout=LAYOUT)
        assert torch.equal(other(**window, layout=LAYOUT), expected)
        for part in own:
            kept = part.weight.clone()
            part.weight.mul_(1.5)
            assert (other(**window, layout=LAYOUT) - expected).abs().max() > 1e-4
            part.weight.copy_(kept)
    grads = gradients(other, window)
    assert all(grad.abs().max() > 0 for name, grad in grads.items() if not name.endswith("k.bias"))


@pytest.mark.parametrize("spec", [OWN_NORM, EACH, BOTH], ids=["own norm", "each", "both"])
def test_a_new_state_stream_with_options_adds_nothing_at_first(spec: DecoderSpec) -> None:
    decoder, window, bare = decoder_of(spec), window_of(SPEC, LAYOUT), Decoder(STATELESS).double()
    decoder.start_state_stream()
    assert bare.load_state_dict(decoder.state_dict(), strict=False)[0] == []
    for block in decoder.blocks:
        assert block.state_norm is None or (torch.equal(block.state_norm.weight, block.norm3.weight) and block.state_norm.weight is not block.norm3.weight)
        assert block.state_norm is None or torch.equal(block.state_norm.bias, block.norm3.bias)
    with torch.no_grad():
        assert torch.equal(decoder(**window, layout=LAYOUT), bare(**window | {"state_BGQS": None}, layout=LAYOUT))


def test_the_state_stream_begins_as_a_copy_of_the_texts() -> None:
    for block in started().blocks:
        copied, source = block.state_attn.state_dict(), block.cross_attn.state_dict()
        assert all(torch.equal(copied[name], source[name]) and copied[name].data_ptr() != source[name].data_ptr() for name in source)


def test_who_learns_at_the_first_step() -> None:
    """With Z (`state_out`) zero, Z alone of the state's stream has a gradient; after one step of it, everything has.

    out = x + Z y and Z = 0: dL/dZ = g y^T is not zero, but dL/dy = Z^T g is, and with it the gradient of all that makes y: the queries (through the
    state), `state_proj` and `state_attn`. So "the state projection has a gradient at step 0" is true of the stream's zero-initialised output projection Z,
    and not of the input projection `state_proj`, which like the queries waits for the second step.
    """
    decoder, window = started(), window_of(SPEC, LAYOUT)
    first = gradients(decoder, window)
    behind = [name for name in first if name == "state" or "state_attn" in name or "state_proj" in name]
    assert len(behind) == 1 + SPEC.layers * 10 + 2
    assert all(torch.count_nonzero(first[name]) == 0 for name in behind)
    assert all(first[name].abs().max() > 1e-6 for name in first if "state_out" in name)
    with torch.no_grad():
        for block in decoder.blocks:
            block.state_out.weight -= 0.1 * block.state_out.weight.grad
    second = gradients(decoder, window)
    assert all(second[name].abs().max() > 1e-9 for name in behind if not name.endswith("k.bias"))


@pytest.mark.parametrize("first_frame", [1, 10, 500])
def test_moving_the_window_in_time_changes_nothing(first_frame: int) -> None:
    decoder, window = decoder_of(SPEC), window_of(SPEC, LAYOUT)
    with torch.no_grad():
        moved = decoder(**window, layout=LAYOUT, first_frame=first_frame)
        assert (moved - decoder(**window, layout=LAYOUT)).abs().max() <= 1e-11


def test_the_order_of_frames_rows_and_columns_matters() -> None:
    decoder, window = decoder_of(SPEC), window_of(SPEC, Layout(0, (2,)))
    window["timestep_BF"][:] = 300.0
    for axis in (2, 3, 4):
        flipped = {**window, "latents_BCFHW": window["latents_BCFHW"].flip(axis)}
        with torch.no_grad():
            there_and_back = decoder(**flipped, layout=Layout(0, (2,))).flip(axis)
            assert (there_and_back - decoder(**window, layout=Layout(0, (2,)))).abs().max() > 1e-3


def test_the_padding_of_a_text_is_attended() -> None:
    decoder, window = decoder_of(SPEC), window_of(SPEC, LAYOUT)
    half = SPEC.text_tokens // 2
    unpadded = Decoder(replace(SPEC, text_tokens=half)).double()
    unpadded.load_state_dict(decoder.state_dict())
    assert torch.count_nonzero(window["text_BGND"][:, :, half:]) == 0
    with torch.no_grad():
        with_zeros, without = decoder(**window, layout=LAYOUT), unpadded(**window | {"text_BGND": window["text_BGND"][:, :, :half]}, layout=LAYOUT)
    assert (with_zeros - without).norm() > 0.01 * with_zeros.norm()


@pytest.mark.parametrize("layout", [LAYOUT, Layout(1, (2, 2), cond_in_first_chunk=True), Layout(1, (2, 2), causal=False), Layout(0, (2, 2))])
@pytest.mark.parametrize(("outputs", "frames"), [("chunks", 4), ("last_chunk", 2)])
def test_sparing_outputs_changes_none_of_the_others(layout: Layout, outputs: Outputs, frames: int) -> None:
    decoder, window = decoder_of(SPEC), window_of(SPEC, layout)
    whole, part = decoder(**window, layout=layout), decoder(**window, layout=layout, outputs=outputs)
    assert part.shape[2] == frames
    assert (whole[:, :, -frames:] - part).abs().max() <= 1e-12
    weight = decoder.blocks[0].self_attn.q.weight
    one, other = (torch.autograd.grad(velocity.square().sum(), weight)[0] for velocity in (whole[:, :, -frames:], part))
    assert (one - other).abs().max() <= 1e-10 * one.abs().max()


def test_timesteps_keep_their_precision_in_a_narrow_model() -> None:
    narrow, window = decoder_of(SPEC, torch.bfloat16), window_of(SPEC, LAYOUT, torch.bfloat16)
    with torch.no_grad():
        got = [narrow.times(torch.full((1, 5), level)) for level in (437.0, 436.0)]
    assert got[0][0].dtype == got[0][1].dtype == torch.float32
    assert not torch.equal(got[0][1], got[1][1])  # bfloat16 knows no 437
    with pytest.raises(ValueError, match=r"torch.bfloat16; give float32"):
        narrow(**window | {"timestep_BF": window["timestep_BF"].bfloat16()}, layout=LAYOUT)


@pytest.mark.parametrize("backend", ["prefix_dense", "mask"])
def test_training_after_inference(backend: Backend) -> None:
    """What is kept between calls serves a gradient, even if it was made where none could be."""
    layout, window = Layout(1, (3, 1)), window_of(SPEC, Layout(1, (3, 1)))
    decoder = Decoder(SPEC, backend).double()
    with torch.inference_mode():
        decoder(**window, layout=layout)
    assert decoder(**window, layout=layout).sum().backward() is None


def test_time_stays_wide_under_autocast() -> None:
    decoder, level = decoder_of(SPEC, torch.float32), torch.full((1, 5), 437.3)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        inside = decoder.times(level)[1]
    with torch.no_grad():
        assert torch.equal(inside, decoder.times(level)[1])


def test_autocast_is_as_near_as_narrow_weights() -> None:
    decoder, window = decoder_of(SPEC, torch.float32), window_of(SPEC, LAYOUT, torch.float32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        narrow = decoder(**window, layout=LAYOUT)
    with torch.no_grad():
        truth = decoder(**window, layout=LAYOUT)
    assert 1e-4 * truth.norm() < (narrow.float() - truth).norm() <= 2e-2 * truth.norm()


def test_checkpointed_blocks_have_the_same_gradients_to_the_bit() -> None:
    decoder, window = decoder_of(SPEC), window_of(SPEC, LAYOUT)
    plain = {name: grad.clone() for name, grad in gradients(decoder, window).items()}
    for block in decoder.blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    again = gradients(decoder, window)
    assert all(torch.equal(again[name], plain[name]) for name in plain)


def test_waves_by_hand() -> None:
    waves = sinusoid(torch.tensor([[0.0, 978.3]], dtype=torch.float64), 4)
    assert waves[0, 0].tolist() == [1.0, 1.0, 0.0, 0.0]
    angle = torch.tensor([978.3, 9.783], dtype=torch.float64)
    assert (waves[0, 1] - torch.cat((angle.cos(), angle.sin()))).abs().max() <= 1e-12


def test_patches_are_wans_convolution_and_come_back_in_order() -> None:
    decoder, latents = decoder_of(SPEC), window_of(SPEC, LAYOUT, side=6)["latents_BCFHW"]
    convolved = F.conv3d(latents, decoder.patch_embedding.weight, decoder.patch_embedding.bias, stride=SPEC.patch)
    tokens, size = decoder.patches(latents)
    assert size == (5, 3, 3)
    assert (tokens - convolved.permute(0, 2, 3, 4, 1).flatten(2, 3)).abs().max() <= 1e-12
    numbered = torch.arange(9.0 * 64).view(1, 1, 9, 64)
    row_1_column_2 = decoder.unpatched(numbered, (3, 3))[0, :, 0, 2, 5]  # of patches; inside it, row 0 and column 1
    assert row_1_column_2.tolist() == (64.0 * 5 + 16 * 1 + torch.arange(16)).tolist()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"latents_BCFHW": torch.zeros(1, 16, 4, 4, 4)}, "5 latent frames"),
        ({"latents_BCFHW": torch.zeros(1, 16, 5, 3, 4)}, r"sizes divisible by \(2, 2\)"),
        ({"timestep_BF": torch.zeros(1)}, r"give one a sample and latent frame, \(1, 5\)"),
        ({"text_BGND": torch.zeros(1, 1, 16, 48)}, r"expected \(1, 2, 16, 48\)"),
        ({"text_BGND": torch.zeros(1, 2, 9, 48)}, "padded with zeros"),
        ({"state_BGQS": torch.zeros(1, 2, 7, 64)}, r"expected \(1, 2, 8, 64\)"),
    ],
)
def test_what_does_not_fit_is_refused(changed: dict[str, Tensor], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        decoder_of(SPEC, torch.float32)(**window_of(SPEC, LAYOUT, torch.float32) | changed, layout=LAYOUT)


def test_a_state_without_a_stream_is_refused() -> None:
    window = window_of(SPEC, LAYOUT, torch.float32)
    with pytest.raises(ValueError, match="give its spec a state_dim"):
        decoder_of(STATELESS, torch.float32)(**window, layout=LAYOUT)


def test_initial_weights() -> None:
    torch.manual_seed(0)
    decoder = Decoder(replace(SPEC, dim=256))
    assert torch.count_nonzero(decoder.head.head.weight) == 0
    assert float(decoder.text_embedding[0].weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert float(decoder.blocks[0].modulation.detach().std()) == pytest.approx(1 / 16, rel=0.1)
    q = decoder.blocks[0].self_attn.q
    assert float(q.weight.detach().std()) == pytest.approx((2 / 512) ** 0.5, rel=0.02)
    assert torch.count_nonzero(q.bias) == 0


def test_a_block_compiles_whole() -> None:
    """torch.compile takes a block as one graph, forward and backward (traced here, without a code generator), and computes the same."""
    eager, window = decoder_of(SPEC, torch.float32), window_of(SPEC, LAYOUT, torch.float32)
    compiled = decoder_of(SPEC, torch.float32)
    for block in compiled.blocks:
        block.compile(backend="aot_eager", fullgraph=True, dynamic=False)
    expected, got = gradients(eager, window), gradients(compiled, window)
    assert max(float((got[name] - expected[name]).norm() / expected[name].norm()) for name in expected if not name.endswith("k.bias")) <= 1e-5


def kept_out(block: Block) -> bool:
    """Whether a compiled block leaves its self-attention to be called as it is."""
    return bool(getattr(block.self_attn.attend, "_torchdynamo_disable", False))


def test_a_back_end_set_later_is_as_one_set_at_first() -> None:
    block = Block(SPEC)
    for backend, out in (("flex", True), ("mask", False), ("prefix_dense", False), ("flex", True)):
        block.self_attn.backend = backend
        fresh = Block(SPEC, backend)
        assert block.self_attn.backend == fresh.self_attn.backend == backend
        assert block.self_attn.attend is fresh.self_attn.attend
        assert kept_out(block) is kept_out(fresh) is out


def test_a_back_end_set_where_another_attends_keeps_the_other() -> None:
    block, called = Block(SPEC), []

    def another(q: Tensor, k: Tensor, v: Tensor, layout: Layout, tokens: int, backend: Backend) -> Tensor:
        called.append(backend)
        return q

    block.self_attn.attend = another
    block.self_attn.backend = "mask"
    assert block.self_attn.attend is another
    block.self_attn.backend = "flex"
    assert kept_out(block)
    block.self_attn(torch.zeros(1, 2, 4, SPEC.dim), torch.zeros(8, 1, 8, 2), Layout(0, (2,)), 0)
    assert called == ["flex"]
