"""The encoders' names: complete, one to one, and what Wan's and the hub's files really call them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from training.model.keymaps_encoders import qwen_from_hub, qwen_to_hub, umt5_from_wan, umt5_to_wan, vae_from_wan, vae_to_wan
from training.model.spec import SPECS, TextSpec, VaeSpec
from training.model.tensor_files import save
from training.model.text import TextEncoder
from training.model.vae import WanVae
from training.model.weights import empty_weights, load

TEXT = SPECS["debug"].text


def test_every_parameter_of_the_vae_has_a_name_of_wans_and_diffusers_own_converter_agrees() -> None:
    with torch.device("meta"):
        network = WanVae(VaeSpec(base_dim=8)).network
    keys = list(network.state_dict())
    assert len(keys) == 194
    official = [vae_to_wan(key) for key in keys]
    assert len(set(official)) == 194
    assert [vae_from_wan(key) for key in official] == keys
    assert convert_wan_vae_to_diffusers(dict(zip(official, keys, strict=True))) == {key: key for key in keys}
    assert "decoder.upsamples.3.time_conv.weight" in official
    assert "encoder.downsamples.3.shortcut.bias" in official
    assert "decoder.head.0.gamma" in official


def test_a_vae_in_wans_names_encodes_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vae = WanVae(VaeSpec(base_dim=8))
    save({vae_to_wan(name): tensor for name, tensor in vae.network.state_dict().items()}, tmp_path)
    with empty_weights():
        other = WanVae(VaeSpec(base_dim=8))
    load(other.network, tmp_path, keymap=vae_from_wan)
    clip = torch.rand(1, 3, 5, 16, 16) * 2 - 1
    assert torch.equal(other.encode(clip), vae.encode(clip))


def test_every_parameter_of_umt5_has_a_name_of_wans() -> None:
    with torch.device("meta"):
        network = TextEncoder(replace(TEXT, layers=24)).network
    keys = [key for key in network.state_dict() if key != "encoder.embed_tokens.weight"]
    official = [umt5_to_wan(key) for key in keys]
    assert len(set(official)) == len(keys) == 24 * 10 + 2
    assert [umt5_from_wan(key) for key in official] == keys
    assert umt5_to_wan("encoder.embed_tokens.weight") == "token_embedding.weight"
    assert umt5_from_wan("blocks.7.pos_embedding.embedding.weight") == "encoder.block.7.layer.0.SelfAttention.relative_attention_bias.weight"
    assert umt5_from_wan("blocks.7.ffn.gate.0.weight") == "encoder.block.7.layer.1.DenseReluDense.wi_0.weight"
    assert sum(p.numel() for p in _whole_umt5().parameters()) == 5_680_910_336


def _whole_umt5() -> TextEncoder:
    with torch.device("meta"):
        return TextEncoder(TextSpec())


def test_umt5_in_wans_names_encodes_the_same_and_its_embedding_is_held_once(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = TextEncoder(TEXT).eval()
    tensors = {umt5_to_wan(name): tensor for name, tensor in encoder.network.state_dict().items()}
    assert len(tensors) == len(encoder.network.state_dict()) - 1
    save(tensors, tmp_path)
    with empty_weights():
        other = TextEncoder(TEXT).eval()
    load(other.network, tmp_path, keymap=umt5_from_wan)
    assert torch.equal(other.encode(["turn left"]), encoder.encode(["turn left"]))
    assert other.network.encoder.embed_tokens.weight is other.network.shared.weight


def test_qwens_files_and_memory(tmp_path: Path) -> None:
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 64,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]},
        },
        vision_config={"depth": 2, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 16, "fullatt_block_indexes": [1]},
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config)
    keys = list(model.state_dict())
    hub = [qwen_to_hub(key) for key in keys]
    assert [qwen_from_hub(key) for key in hub] == keys
    assert [qwen_from_hub(key) for key in keys] == keys
    assert {
        "visual.patch_embed.proj.weight",
        "model.layers.1.self_attn.q_proj.bias",
        "model.embed_tokens.weight",
        "model.norm.weight",
        "lm_head.weight",
    } <= set(hub)
    save(dict(zip(hub, model.state_dict().values(), strict=True)), tmp_path)
    with empty_weights():
        other = Qwen2_5_VLForConditionalGeneration(config)
    load(other, tmp_path, keymap=qwen_from_hub)
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(other.eval()(input_ids=ids).logits, model.eval()(input_ids=ids).logits)


@pytest.mark.parametrize(
    ("keymap", "key"),
    [
        (vae_from_wan, "encoder.downsamples.0.residual.1.weight"),
        (vae_from_wan, "blocks.0.modulation"),
        (vae_to_wan, "decoder.up_blocks.9.resnets.0.conv1.weight"),
        (umt5_from_wan, "decoder.blocks.0.attn.q.weight"),
        (umt5_from_wan, "blocks.0.attn.z.weight"),
        (umt5_to_wan, "lm_head.weight"),
        (qwen_from_hub, "query_embed"),
        (qwen_from_hub, "model.layers.weight"),
        (qwen_to_hub, "model.layers.0.mlp.up_proj.weight"),
    ],
)
def test_another_models_name_is_refused(keymap: object, key: str) -> None:
    with pytest.raises(ValueError, match="is not a parameter of"):
        keymap(key)  # type: ignore[operator]
