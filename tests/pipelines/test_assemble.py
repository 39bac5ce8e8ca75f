"""Assemble: Wan's and Qwen's folders become a model that begins its training; a debug model has random weights; what is missing is named."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipelines.assemble import main
from tests.training.model.worlds import bpe
from training.model import spec as specs
from training.model.checkpoint import init_model, open_model
from training.model.keymaps import to_diffusers
from training.model.keymaps_encoders import qwen_to_hub
from training.model.spec import SPECS, ModelSpec
from training.model.tensor_files import save

DEBUG = SPECS["debug"]


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[ModelSpec, Path, Path]:
    """A model called small, and its makers' folders: Wan's for diffusers and Qwen's, each with a tokenizer's file."""
    wan, qwen = tmp_path / "wan", tmp_path / "qwen"
    for folder in (qwen, wan / "tokenizer"):
        folder.mkdir(parents=True)
    ids = bpe(qwen)
    (wan / "tokenizer" / "tokenizer.json").write_bytes((qwen / "tokenizer.json").read_bytes())
    spec = replace(DEBUG, name="small", backbone=replace(DEBUG.backbone, ids=ids, vocab=1024), text=replace(DEBUG.text, vocab=1024))
    monkeypatch.setattr(specs, "SPECS", {**SPECS, "small": spec})
    made = init_model(spec, seed=5)
    named = {
        wan / "transformer": {to_diffusers(name): tensor for name, tensor in made.decoder.state_dict().items() if "state_" not in name},
        wan / "text_encoder": dict(made.text.network.state_dict()),
        wan / "vae": dict(made.vae.state_dict()),
        qwen: {qwen_to_hub(name): tensor for name, tensor in made.backbone.state_dict().items() if name != "query_embed"},
    }
    for folder, weights in named.items():
        folder.mkdir(exist_ok=True)
        save(weights, folder)
    return spec, wan, qwen


def test_from_its_makers_folders(small: tuple[ModelSpec, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec, wan, qwen = small
    out = tmp_path / "model"
    assert main([str(out), "--model", "small", "--wan", str(wan), "--qwen", str(qwen), "--link", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["model"], sorted(told["linked"])) == ("small", ["backbone", "text", "vae"])
    assert told["parameters"]["decoder"] == sum(p.numel() for p in init_model(spec).decoder.parameters())
    model, wanted = open_model(out), init_model(spec, seed=5)
    assert torch.equal(model.decoder.blocks[0].ffn[0].weight, wanted.decoder.blocks[0].ffn[0].weight)
    assert torch.equal(model.decoder.blocks[0].state_attn.q.weight, wanted.decoder.blocks[0].cross_attn.q.weight)
    assert model.decoder.blocks[0].state_out.weight.abs().max() == 0
    assert not (out / "vae" / "model.safetensors").exists()


def test_a_debug_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "a"), "--model", "debug", "--random", "--seed", "3"]) == 0
    assert "debug, parameters: decoder" in capsys.readouterr().out
    assert torch.equal(open_model(tmp_path / "a").decoder.state_proj.weight, init_model(DEBUG, seed=3).decoder.state_proj.weight)
    with pytest.raises(ValueError, match="there is something already"):
        main([str(tmp_path / "a"), "--model", "debug", "--random"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--model", "debug"], "one of the two"),
        (["--model", "debug", "--random", "--wan", "."], "one of the two"),
        (["--model", "debug", "--random", "--qwen", "."], "--random --qwen .: random weights"),
        (["--model", "debug", "--random", "--link"], "--random --link: random weights"),
        (["--model", "debug", "--random", "--seed", "-1"], "--seed -1: it must lie in"),
        (["--model", "debug", "--random", "--seed", str(2**63)], f"--seed {2**63}: it must lie in"),
        (["--model", "pan_15b", "--random"], "there are debug"),
        (["--model", "debug", "--random", "--dtype", "int8"], "there are float32 and bfloat16"),
        (["--model", "debug", "--wan", "/nowhere"], "/nowhere: no such folder"),
    ],
)
def test_what_is_wrong_is_said(words: list[str], says: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=says):
        main([str(tmp_path / "out"), *words])
    assert not (tmp_path / "out").exists()


def test_qwens_folder_is_asked_for(small: tuple[ModelSpec, Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name its folder with --qwen"):
        main([str(tmp_path / "out"), "--model", "small", "--wan", str(small[1])])


def test_the_help_names_every_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    assert [name for name in SPECS if not re.search(rf"\b{name}\b", told)] == []
