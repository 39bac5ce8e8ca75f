"""Names of parameters: Wan's, diffusers' and back, over the whole list of the 14B model."""

from dataclasses import replace

import pytest
import torch

from tests.training.model.made_decoder import BOTH, EACH, OWN_NORM, SPEC, decoder_of
from training.model.decoder import Decoder
from training.model.keymaps import decoder_shapes, from_diffusers, renamed, to_diffusers
from training.model.parts import own_names
from training.model.spec import SPECS

WIDE = SPECS["pan_14b"].decoder
WAN_14B = replace(WIDE, state_dim=None)


LISTED = {"PAN 14B": WIDE, "Wan 14B": WAN_14B, "debug": SPEC, "Pandora": SPECS["pandora_recipe"].decoder, "own norm": OWN_NORM, "each": EACH, "both": BOTH}


@pytest.mark.parametrize("name", LISTED)
def test_the_list_is_the_modules(name: str) -> None:
    spec = LISTED[name]
    with torch.device("meta"):
        module = Decoder(spec)
    shapes = {name: tuple(weight.shape) for name, weight in module.state_dict().items()}
    assert shapes == decoder_shapes(spec)
    there = renamed(shapes, to_diffusers)
    assert renamed(there, from_diffusers) == shapes
    ours = {name for name in shapes if own_names("decoder")(name)}
    assert ours == shapes.keys() - decoder_shapes(replace(spec, state_dim=None)).keys()
    assert ours <= there.keys()


def test_diffusers_has_the_same_names_and_shapes_at_14b() -> None:
    diffusers = pytest.importorskip("diffusers", reason="diffusers is in the development lock")
    with torch.device("meta"):
        theirs = diffusers.WanTransformer3DModel(num_attention_heads=40, text_dim=4096, ffn_dim=13824, num_layers=40)
    expected = {name: tuple(weight.shape) for name, weight in theirs.state_dict().items()}
    assert renamed(decoder_shapes(WAN_14B), to_diffusers) == expected
    assert renamed(expected, from_diffusers) == decoder_shapes(WAN_14B)


def test_round_trip_of_the_whole_14b_list_at_small_width() -> None:
    narrow = decoder_of(replace(WIDE, dim=32, ffn=8, heads=4, text_dim=4, state_dim=4, freq_dim=8), torch.float32)
    weights = narrow.state_dict()
    there = renamed(weights, to_diffusers)
    back = renamed(there, from_diffusers)
    assert len(weights) == len(there) == 40 * (3 * 10 + 4 + 2 + 2 + 1) + 17  # three streams, feed-forward, norm3, state_out, modulation
    assert back.keys() == weights.keys()
    assert all(back[name] is weight for name, weight in weights.items())


@pytest.mark.parametrize(
    ("wan", "diffusers"),
    [
        ("text_embedding.2.bias", "condition_embedder.text_embedder.linear_2.bias"),
        ("time_projection.1.weight", "condition_embedder.time_proj.weight"),
        ("head.modulation", "scale_shift_table"),
        ("head.head.weight", "proj_out.weight"),
        ("blocks.39.modulation", "blocks.39.scale_shift_table"),
        ("blocks.10.norm3.weight", "blocks.10.norm2.weight"),
        ("blocks.0.self_attn.o.bias", "blocks.0.attn1.to_out.0.bias"),
        ("blocks.0.self_attn.norm_q.weight", "blocks.0.attn1.norm_q.weight"),
        ("blocks.7.cross_attn.k_img.weight", "blocks.7.attn2.add_k_proj.weight"),
        ("blocks.7.cross_attn.norm_k_img.weight", "blocks.7.attn2.norm_added_k.weight"),
        ("blocks.1.ffn.0.weight", "blocks.1.ffn.net.0.proj.weight"),
        ("img_emb.proj.4.bias", "condition_embedder.image_embedder.norm2.bias"),
        ("blocks.3.state_attn.norm_k.weight", "blocks.3.state_attn.norm_k.weight"),
        ("state_proj.weight", "state_proj.weight"),
    ],
)
def test_names(wan: str, diffusers: str) -> None:
    assert to_diffusers(wan) == diffusers
    assert from_diffusers(diffusers) == wan


@pytest.mark.parametrize(
    "key", ["blocks.0.norm1.weight", "blocks.x.norm3.weight", "patch_embedding.scale", "model.embed_tokens.weight", "blocks.0.self_attn.q"]
)
def test_foreign_keys_are_refused(key: str) -> None:
    with pytest.raises(ValueError, match="is it another model's checkpoint"):
        to_diffusers(key)


def test_layouts_do_not_mix() -> None:
    with pytest.raises(ValueError, match="is not one of diffusers'"):
        from_diffusers("blocks.0.norm3.weight")
    with pytest.raises(ValueError, match="2 parameters would get 1 names"):
        renamed({"a": 1, "b": 2}, lambda _: "c")
