"""Folders as their makers' own libraries write them fill our parts strictly; what is not a part's is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from transformers import UMT5Config, UMT5EncoderModel, UMT5ForConditionalGeneration

from training.model.decoder import Decoder
from training.model.parts import build_part, fill, makers
from training.model.spec import SPECS, VaeSpec
from training.model.tensor_files import save, stored
from training.model.text import TextEncoder
from training.model.vae import WanVae
from training.model.weights import empty_weights

DEBUG = SPECS["debug"]
WAN = replace(
    DEBUG,
    name="wan",
    decoder=replace(DEBUG.decoder, dim=256, heads=2, state_dim=None),
    vae=VaeSpec(base_dim=8),
)


def test_a_decoder_that_diffusers_saved_in_shards(tmp_path: Path) -> None:
    d = WAN.decoder
    torch.manual_seed(0)
    theirs = WanTransformer3DModel(
        num_attention_heads=d.heads, attention_head_dim=d.head_dim, text_dim=d.text_dim, freq_dim=d.freq_dim, ffn_dim=d.ffn, num_layers=d.layers
    )
    theirs.save_pretrained(tmp_path, max_shard_size="500KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    with empty_weights():
        ours = build_part(WAN, "decoder")
    assert isinstance(ours, Decoder)
    assert fill("decoder", ours, tmp_path) == []
    assert torch.equal(ours.blocks[1].ffn[2].weight, theirs.blocks[1].ffn.net[2].weight)
    assert torch.equal(ours.blocks[0].norm3.weight, theirs.blocks[0].norm2.weight)
    assert not any(parameter.is_meta for parameter in ours.parameters())


def test_an_autoencoder_that_diffusers_saved(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = AutoencoderKLWan(base_dim=8).eval()
    theirs.save_pretrained(tmp_path)
    with empty_weights():
        ours = WanVae(WAN.vae)
    assert fill("vae", ours, tmp_path) == []
    clip = torch.rand(1, 3, 5, 16, 16) * 2 - 1
    mean = theirs.encode(clip).latent_dist.mode()
    wanted = (mean - torch.tensor(WAN.vae.mean).view(16, 1, 1, 1)) / torch.tensor(WAN.vae.std).view(16, 1, 1, 1)
    torch.testing.assert_close(ours.encode(clip), wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("whole", [False, True], ids=["encoder", "with the decoder that we do without"])
def test_a_text_encoder_that_transformers_saved(whole: bool, tmp_path: Path) -> None:
    t = WAN.text
    config = UMT5Config(vocab_size=t.vocab, d_model=t.d_model, d_kv=t.d_kv, d_ff=t.d_ff, num_heads=t.heads, num_layers=t.layers, num_decoder_layers=1)
    torch.manual_seed(0)
    theirs = (UMT5ForConditionalGeneration if whole else UMT5EncoderModel)(config).eval()
    theirs.save_pretrained(tmp_path)
    assert any(name.startswith("decoder.") for name in stored(tmp_path)) == whole
    with empty_weights():
        ours = TextEncoder(t).eval()
    assert fill("text", ours, tmp_path) == []
    ids = torch.tensor([ours.ids("turn left")])
    encoder = theirs.get_encoder() if whole else theirs
    torch.testing.assert_close(ours.encode_unpadded(["turn left"])[0], encoder(input_ids=ids).last_hidden_state[0], atol=1e-5, rtol=0)


def test_another_parts_files_are_refused(tmp_path: Path) -> None:
    save(dict(WanVae(WAN.vae).network.state_dict()), tmp_path)
    for part in ("decoder", "text"):
        with pytest.raises(ValueError, match=r"not the weights of this .*: \d+ missing: .*; 194 surplus: "):
            fill(part, build_part(WAN, part), tmp_path)


def test_makers_folders_by_their_names(tmp_path: Path) -> None:
    for name in ("transformer", "vae", "text_encoder", "tokenizer"):
        (tmp_path / "diffusers" / name).mkdir(parents=True)
    (tmp_path / "qwen").mkdir()
    sources, tokenizers = makers(tmp_path / "diffusers", tmp_path / "qwen")
    assert {part: path.name for part, path in sources.items()} == {"decoder": "transformer", "vae": "vae", "text": "text_encoder", "backbone": "qwen"}
    assert {part: path.name for part, path in tokenizers.items()} == {"text": "tokenizer", "backbone": "qwen"}
    assert makers(tmp_path / "diffusers")[0].keys() == {"decoder", "vae", "text"}


def test_wans_own_folder_has_pickles_and_says_where_to_get_better(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "WanModel"}))
    (tmp_path / "Wan2.1_VAE.pth").write_bytes(b"")
    with pytest.raises(ValueError, match=r"its autoencoder and text encoder are pickles \(Wan2\.1_VAE\.pth\).*give Wan2\.1's folder for diffusers"):
        makers(tmp_path)
    with pytest.raises(ValueError, match="no such folder"):
        makers(tmp_path / "nowhere")
