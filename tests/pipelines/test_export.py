"""Export: every parameter of the 14B decoder there and back, in both of Wan's layouts; what PAN adds is not lost."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file
from torch import Tensor

from pipelines.export import export, main
from training.model.attention import Layout
from training.model.card import CARD, Card, Part
from training.model.checkpoint import init_model, open_model, save_model
from training.model.decoder import Decoder
from training.model.keymaps import decoder_shapes, renamed, to_diffusers
from training.model.parts import build_part, fill
from training.model.spec import SPECS, ModelSpec
from training.model.tensor_files import save, stored

DEBUG, PAN = SPECS["debug"], SPECS["pan_14b"]
# All of the 14B model's keys, 40 blocks with a state's stream; only the widths are small.
NARROW = replace(
    PAN,
    name="pan_narrow",
    decoder=replace(PAN.decoder, dim=240, ffn=32, text_dim=24, freq_dim=16, state_dim=16, text_tokens=16, queries=8),
    backbone=replace(DEBUG.backbone, hidden=16, heads=1, kv_heads=1, mrope_section=(2, 3, 3)),
    vae=DEBUG.vae,
    text=replace(DEBUG.text, d_model=24),
)


def random_weights(spec: ModelSpec) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=random) / 8 for name, shape in decoder_shapes(spec.decoder).items()}


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    """A PAN folder of which only the decoder is there, in shards, as a training of the 14B model would leave it."""
    folder, weights = tmp_path_factory.mktemp("narrow"), random_weights(NARROW)
    (folder / "decoder").mkdir()
    save(weights, folder / "decoder", shard_bytes=20_000_000)
    card = Card(format=1, model=NARROW, decoder=Part(), vae=Part(), text=Part(), backbone=Part())
    (folder / CARD).write_text(json.dumps(asdict(card)))
    return folder, weights


@pytest.mark.parametrize("layout", ["wan", "diffusers"])
def test_every_key_of_the_14b_decoder_there_and_back(layout: str, narrow: tuple[Path, dict[str, Tensor]], tmp_path: Path) -> None:
    folder, weights = narrow
    done = export(folder, tmp_path / "out", layout)  # type: ignore[arg-type]
    own = {name for name in weights if "state_" in name}
    assert len(weights) == 17 + 40 * 39
    assert (done.tensors, done.beside) == (len(weights), len(own)) == (1577, 482)
    assert done.bytes == sum(tensor.nbytes for tensor in weights.values())
    official = {name: tensor for name, tensor in weights.items() if name not in own}
    assert stored(tmp_path / "out").keys() == (renamed(official, to_diffusers) if layout == "diffusers" else official).keys()
    again = build_part(NARROW, "decoder")
    assert fill("decoder", again, tmp_path / "out", fresh=True) == []
    assert again.state_dict().keys() == weights.keys()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in again.state_dict().items())


def test_diffusers_opens_the_export_and_computes_the_same(tmp_path: Path) -> None:
    spec = replace(DEBUG, decoder=replace(DEBUG.decoder, dim=256, heads=2))
    model = init_model(spec, seed=0)
    with torch.no_grad():
        model.decoder.head.head.weight.normal_(std=0.1)
    save_model(tmp_path / "model", model)
    export(tmp_path / "model", tmp_path / "out", "diffusers")
    theirs = WanTransformer3DModel.from_config(WanTransformer3DModel.load_config(tmp_path / "out")).eval()
    theirs.load_state_dict(load_file(tmp_path / "out" / "diffusion_pytorch_model.safetensors"))
    random = torch.Generator().manual_seed(0)
    latents, text = torch.randn(1, 16, 3, 4, 4, generator=random), torch.randn(1, 16, 48, generator=random)
    with torch.no_grad():
        wanted = theirs(latents, torch.tensor([500.0]), text).sample
        ours = model.decoder(latents, torch.full((1, 3), 500.0), text[:, None], None, Layout(0, (3,), causal=False))
    assert wanted.std() > 0.1
    torch.testing.assert_close(ours, wanted, atol=1e-4, rtol=0)


def test_the_keys_are_those_of_diffusers_own_14b_model(narrow: tuple[Path, dict[str, Tensor]]) -> None:
    with torch.device("meta"):
        theirs = WanTransformer3DModel()
    keys = {name for name in narrow[1] if "state_" not in name}
    assert {to_diffusers(name) for name in keys} == theirs.state_dict().keys()
    shapes = {to_diffusers(name): shape for name, shape in decoder_shapes(replace(PAN.decoder, state_dim=None)).items()}
    assert shapes == {name: tuple(tensor.shape) for name, tensor in theirs.state_dict().items()}


def test_a_whole_model_becomes_self_contained(tmp_path: Path) -> None:
    model = init_model(DEBUG, seed=1)
    save_model(tmp_path / "model", model)
    save_model(tmp_path / "pointing", model, sources={"text": tmp_path / "model" / "text"})
    done = export(tmp_path / "pointing", tmp_path / "out", "pan")
    (tmp_path / "model").rename(tmp_path / "gone")
    again = open_model(tmp_path / "out")
    assert done.tensors == sum(len(stored(tmp_path / "out" / part)) for part in ("decoder", "vae", "text", "backbone"))
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in again.state_dict().items())


def test_a_narrower_dtype_halves_the_bytes(tmp_path: Path) -> None:
    save_model(tmp_path / "model", init_model(DEBUG))
    whole, half = (export(tmp_path / "model", tmp_path / name, "wan", name) for name in ("float32", "bfloat16"))
    assert half.bytes * 2 == whole.bytes


def test_a_stage_one_decoder_has_nothing_beside(tmp_path: Path) -> None:
    spec = replace(DEBUG, decoder=replace(DEBUG.decoder, state_dim=None))
    save_model(tmp_path / "model", init_model(spec))
    assert export(tmp_path / "model", tmp_path / "out", "wan").beside == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["config.json", "diffusion_pytorch_model.safetensors"]
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dim"] == 64
    other = Decoder(spec.decoder)
    assert fill("decoder", other, tmp_path / "out") == []


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model(tmp_path / "model", init_model(DEBUG))
    assert main([str(tmp_path / "model"), str(tmp_path / "wan"), "--layout", "wan", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["layout"], told["beside"]) == ("wan", 2 + 2 * 12)
    assert main([str(tmp_path / "model"), str(tmp_path / "diffusers"), "--layout", "diffusers"]) == 0
    assert "26 of them are PAN's own and lie in" in capsys.readouterr().out


def test_what_cannot_be_done_is_said_and_nothing_is_written(tmp_path: Path) -> None:
    save_model(tmp_path / "model", init_model(DEBUG))
    for arguments, told in (
        (["--layout", "onnx"], "--layout onnx: there are pan, wan, diffusers"),
        (["--dtype", "int8"], "--dtype int8: there are float32, bfloat16"),
    ):
        with pytest.raises(ValueError, match=told):
            main([str(tmp_path / "model"), str(tmp_path / "out"), *arguments])
    with pytest.raises(ValueError, match=r"no model\.json there"):
        main([str(tmp_path), str(tmp_path / "out")])
    with pytest.raises(ValueError, match="there is something already"):
        main([str(tmp_path / "model"), str(tmp_path / "model"), "--layout", "wan"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
    (tmp_path / "model" / "decoder" / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(ValueError, match="cut off"):
        main([str(tmp_path / "model"), str(tmp_path / "out"), "--layout", "wan"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
