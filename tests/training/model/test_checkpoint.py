"""A model on disk: whole or not there, exact, strict, and able to leave frozen parts where they are."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor

from tests.training.model.made_decoder import decoder_of, window_of
from training.model import checkpoint
from training.model.attention import Layout
from training.model.card import CARD, parts_of
from training.model.checkpoint import init_model, open_model, read_spec, save_model, start_model
from training.model.glp import GLP
from training.model.keymaps import to_diffusers
from training.model.keymaps_encoders import qwen_to_hub, umt5_to_wan
from training.model.spec import SPECS, ModelSpec
from training.model.tensor_files import save, stored
from training.model.weights import load

DEBUG, PANDORA = SPECS["debug"], SPECS["pandora_debug"]
TEXTS = replace(DEBUG, name="texts", decoder=replace(DEBUG.decoder, state_dim=None))


def tensors(glp: GLP) -> dict[str, Tensor]:
    return dict(glp.state_dict())


def same(one: GLP, other: GLP) -> bool:
    mine, theirs = tensors(one), tensors(other)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.fixture(scope="module")
def glp() -> GLP:
    return init_model(DEBUG, seed=3)


@pytest.fixture
def folder(glp: GLP, tmp_path: Path) -> Path:
    save_model(tmp_path / "model", glp)
    return tmp_path / "model"


@pytest.mark.parametrize("spec", [DEBUG, TEXTS, PANDORA], ids=lambda spec: spec.name)
def test_a_model_comes_back_as_it_was(spec: ModelSpec, tmp_path: Path) -> None:
    model = init_model(spec, seed=1)
    save_model(tmp_path / "model", model)
    again = open_model(tmp_path / "model")
    assert same(again, model)
    assert again.spec == spec == read_spec(tmp_path / "model")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == sorted((*parts_of(spec), CARD))
    assert ("backbone" in parts_of(spec)) == (spec is not TEXTS)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_seed_makes_the_model_and_leaves_the_process_numbers_alone(glp: GLP) -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    assert same(init_model(DEBUG, seed=3), glp)
    assert torch.equal(torch.rand(3), wanted)
    assert not same(init_model(DEBUG, seed=4), glp)


def test_the_dtype_is_all_parts_but_the_autoencoders_and_tables_stay_wide(folder: Path, glp: GLP) -> None:
    model = open_model(folder, "cpu", torch.bfloat16)
    kinds = {name.partition(".")[0]: parameter.dtype for name, parameter in model.named_parameters()}
    assert kinds == {"decoder": torch.bfloat16, "vae": torch.float32, "text": torch.bfloat16, "backbone": torch.bfloat16}
    assert {buffer.dtype for _, buffer in model.backbone.named_buffers()} <= {torch.float32, torch.int64}
    assert torch.equal(model.decoder.head.head.weight, glp.decoder.head.head.weight.bfloat16())
    assert torch.equal(model.decoder.head.modulation, glp.decoder.head.modulation)
    kept = {name for name, parameter in model.decoder.named_parameters() if parameter.dtype == torch.float32}
    assert {name.rpartition("blocks.0.")[2] for name in kept if not name.startswith("blocks.1.")} == {
        "head.modulation",
        "modulation",
        *(f"time_embedding.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")),
        *(f"{stream}_attn.norm_{part}.weight" for stream in ("self", "cross", "state") for part in "qk"),
        "norm3.weight",
        "norm3.bias",
    }


def test_a_narrow_decoder_is_near_with_what_is_kept_wide(tmp_path: Path) -> None:
    glp, layout = init_model(DEBUG), Layout(1, (2, 2))
    glp.decoder.load_state_dict(decoder_of(DEBUG.decoder, torch.float32).state_dict())
    save_model(tmp_path / "model", glp)
    kept = open_model(tmp_path / "model", "cpu", torch.bfloat16).decoder
    window = window_of(DEBUG.decoder, layout, torch.float32, batch=4)
    with torch.no_grad():
        truth, got = glp.decoder(**window, layout=layout), kept(**window, layout=layout)
        rounded = glp.decoder.bfloat16()(**window, layout=layout)
    near, far = ((each.float() - truth).norm() / truth.norm() for each in (got, rounded))
    assert got.dtype == torch.bfloat16
    assert near <= 1.02 * far  # most of the error is of the matrix products
    assert near <= 2e-2


def test_files_may_be_of_a_narrower_dtype(glp: GLP, tmp_path: Path) -> None:
    save_model(tmp_path / "half", glp, dtype=torch.bfloat16)
    assert {entry.dtype for entry in stored(tmp_path / "half" / "decoder").values()} == {"BF16"}


def test_a_folder_that_holds_something_is_not_written_over(folder: Path, glp: GLP) -> None:
    before = (folder / CARD).read_bytes()
    with pytest.raises(ValueError, match="there is something already; give a new folder"):
        save_model(folder, glp)
    assert (folder / CARD).read_bytes() == before


def test_a_write_that_fails_leaves_nothing(glp: GLP, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "_flush", full)
    with pytest.raises(OSError, match="No space left"):
        save_model(tmp_path / "model", glp)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"fromat": 1}, "unknown key 'fromat'; did you mean 'format'"),
        ({"format": 2}, "format 2; this version reads format 1"),
        ({"decoder": {"sorce": None}}, "decoder: unknown key 'sorce'; did you mean 'source'"),
        ({"backbone": None}, "backbone is missing, and the model has one"),
        ({"connector": {"source": None}}, "connector is given, but the model has none"),
        ({"text": {"source": "/nowhere/umt5"}}, "text.source is /nowhere/umt5, which is not there; mount it"),
        ({"decoder": {"source": None, "tokenizer": "yes"}}, "expected bool, got 'yes'"),
    ],
)
def test_model_json_is_strict(folder: Path, change: dict[str, object], text: str) -> None:
    file = folder / CARD
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ValueError, match=text):
        open_model(folder)


def test_a_width_that_does_not_fit_the_files_is_told_with_every_name(folder: Path) -> None:
    file = folder / CARD
    card = json.loads(file.read_text())
    card["model"]["decoder"]["layers"] = 3
    file.write_text(json.dumps(card))
    with pytest.raises(ValueError, match=r"not the weights of this Decoder: \d+ missing: blocks\.2\.modulation"):
        open_model(folder)


def test_no_model_json_and_a_broken_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no model\.json there"):
        open_model(tmp_path)
    (tmp_path / CARD).write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        open_model(tmp_path)


@pytest.fixture
def makers(glp: GLP, tmp_path: Path) -> dict[str, Path]:
    """Folders as Wan, diffusers, transformers and Qwen publish them, for the debug widths."""
    named = {
        "decoder": {to_diffusers(name): tensor for name, tensor in glp.decoder.state_dict().items() if "state_" not in name},
        "text": {umt5_to_wan(name): tensor for name, tensor in glp.text.network.state_dict().items()},
        "vae": dict(glp.vae.state_dict()),
        "backbone": {qwen_to_hub(name): tensor for name, tensor in glp.backbone.state_dict().items() if name != "query_embed"},
    }
    for part, weights in named.items():
        (tmp_path / "makers" / part).mkdir(parents=True)
        save(weights, tmp_path / "makers" / part, shard_bytes=200_000)
    return {part: tmp_path / "makers" / part for part in named}


def test_a_model_begins_with_its_makers_weights_and_a_state_stream_that_adds_nothing(glp: GLP, makers: dict[str, Path]) -> None:
    model = start_model(DEBUG, makers, tokenizers={}, seed=1)
    mine, theirs = tensors(model), tensors(glp)
    assert mine.keys() == theirs.keys()
    own = {name for name in mine if "state_" in name or name.endswith("query_embed")}
    assert all(torch.equal(mine[name], theirs[name]) for name in mine.keys() - own)
    for block in model.decoder.blocks:
        assert torch.equal(block.state_attn.k.weight, block.cross_attn.k.weight)
        assert block.state_out.weight.abs().max() == 0
        assert block.state_out.bias.abs().max() == 0
    queries, projection = model.backbone.query_embed, model.decoder.state_proj.weight
    assert 0.01 < queries.std() < 0.03
    assert 0.5 * (6 / 128) ** 0.5 < projection.abs().max() <= (6 / 128) ** 0.5
    assert same(start_model(DEBUG, makers, tokenizers={}, seed=1), model)
    assert not torch.equal(start_model(DEBUG, makers, tokenizers={}, seed=2).backbone.query_embed, queries)


def test_a_state_stream_with_options_begins_saves_and_opens(makers: dict[str, Path], tmp_path: Path) -> None:
    spec = replace(DEBUG, decoder=replace(DEBUG.decoder, state_norm="own", state_projection="each"))
    model = start_model(spec, makers, tokenizers={}, seed=1)
    first, second = model.decoder.blocks[:2]
    assert torch.equal(first.state_norm.weight, first.norm3.weight)
    assert 0.5 * (6 / 128) ** 0.5 < first.state_proj.weight.abs().max() <= (6 / 128) ** 0.5
    assert not torch.equal(first.state_proj.weight, second.state_proj.weight)
    assert first.state_proj.bias.abs().max() == 0
    save_model(tmp_path / "model", model)
    assert read_spec(tmp_path / "model") == spec
    assert same(open_model(tmp_path / "model"), model)


def test_a_decoder_of_the_first_phase_is_a_source_too(makers: dict[str, Path], tmp_path: Path) -> None:
    first = init_model(TEXTS, seed=8)
    save_model(tmp_path / "first", first)
    model = start_model(DEBUG, makers | {"decoder": tmp_path / "first" / "decoder"}, tokenizers={})
    assert torch.equal(model.decoder.blocks[1].ffn[0].weight, first.decoder.blocks[1].ffn[0].weight)


def test_a_half_of_a_state_stream_is_not_taken_for_none(makers: dict[str, Path], glp: GLP, tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    save({name: tensor for name, tensor in glp.decoder.state_dict().items() if not name.startswith("state_proj")}, tmp_path / "half")
    with pytest.raises(ValueError, match=r"2 missing: state_proj\.weight, state_proj\.bias"):
        start_model(DEBUG, makers | {"decoder": tmp_path / "half"}, tokenizers={})


def test_frozen_parts_may_stay_where_they_are(makers: dict[str, Path], tmp_path: Path) -> None:
    model = start_model(DEBUG, makers, tokenizers={}, seed=1)
    frozen = {part: makers[part] for part in ("text", "backbone")}
    save_model(tmp_path / "model", model, sources=frozen)
    assert stored(tmp_path / "model" / "backbone").keys() == {"query_embed"}
    assert list((tmp_path / "model" / "text").iterdir()) == []
    assert same(open_model(tmp_path / "model"), model)
    with pytest.raises(ValueError, match="no such folder"):
        save_model(tmp_path / "other", model, sources={"text": tmp_path / "nowhere"})
    assert not (tmp_path / "other").exists()


def test_a_trained_part_is_not_taken_for_the_files_it_began_with(makers: dict[str, Path], tmp_path: Path) -> None:
    model = start_model(DEBUG, makers, tokenizers={}, dtype=torch.bfloat16)
    frozen = {part: makers[part] for part in ("text", "backbone")}
    with torch.no_grad():
        model.backbone.query_embed.add_(1)  # PAN's own: saved beside
    save_model(tmp_path / "rounded", model, sources=frozen)
    with torch.no_grad():
        model.backbone.get_parameter("model.language_model.layers.2.mlp.up_proj.weight")[0, 0] += 1
    with pytest.raises(ValueError, match=r"is not what backbone is now.*: model\.language_model\.layers\.2\.mlp\.up_proj\.weight differ; save the part"):
        save_model(tmp_path / "model", model, sources=frozen)
    assert not (tmp_path / "model").exists()


def test_a_real_vocabulary_wants_its_tokenizer_before_anything_is_read(makers: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="text: a vocabulary of 256384 is not that of bytes"):
        start_model(SPECS["pan_14b"], makers, tokenizers={})
    with pytest.raises(ValueError, match="tokenizer: the model's special ids begin at 151643"):
        start_model(SPECS["pan_14b"], makers, tokenizers={"text": makers["text"]})


def test_a_connector_is_new_where_none_is_given(tmp_path: Path) -> None:
    save_model(tmp_path / "model", init_model(PANDORA, seed=1))
    sources = {part: tmp_path / "model" / part for part in ("decoder", "vae", "text", "backbone")}
    model = start_model(PANDORA, sources, tokenizers={}, seed=2)
    assert torch.equal(model.connector.state_in.weight, start_model(PANDORA, sources, tokenizers={}, seed=2).connector.state_in.weight)
    assert not torch.equal(model.connector.state_in.weight, open_model(tmp_path / "model").connector.state_in.weight)


def test_a_part_without_files_is_named(makers: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="no files for vae, backbone; give a folder for each"):
        start_model(DEBUG, {part: makers[part] for part in ("decoder", "text")}, tokenizers={})


def test_a_tokenizer_travels_with_the_model(makers: dict[str, Path], tmp_path: Path) -> None:
    words = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2, "turn": 3, "left": 4}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    (tmp_path / "words").mkdir()
    words.save(str(tmp_path / "words" / "tokenizer.json"))
    model = start_model(DEBUG, makers, tokenizers={"text": tmp_path / "words"})
    save_model(tmp_path / "model", model)
    again = open_model(tmp_path / "model")
    assert again.text.ids("turn left") == model.text.ids("turn left") == [3, 4, 1]
    assert again.backbone.tokenizer.encode("a") == [97]
    save_model(tmp_path / "twice", again)
    assert open_model(tmp_path / "twice").text.ids("left") == [4, 1]


def test_trained_weights_are_what_is_saved_and_loading_again_takes_them(folder: Path, glp: GLP, tmp_path: Path) -> None:
    model = open_model(folder)
    with torch.no_grad():
        model.backbone.query_embed.add_(1)
        model.decoder.head.head.weight.add_(1)
    save_model(tmp_path / "trained", model)
    assert same(open_model(tmp_path / "trained"), model)
    assert same(open_model(folder), glp)  # though its tensors were mapped from there
    load(model.backbone, folder / "backbone")
    assert torch.equal(model.backbone.query_embed, glp.backbone.query_embed)
