"""An official Qwen2.5-VL folder, sharded and named as on the hub, becomes a backbone that computes what transformers computes with it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2_5_VLForConditionalGeneration

from tests.training.model.worlds import SPEC, dialogue, lively, spec
from training.model.backbone import Backbone, qwen_config
from training.model.dialogue import turns
from training.model.keymaps_encoders import qwen_from_hub
from training.model.weights import empty_weights, load


@pytest.fixture(scope="module")
def official() -> Any:
    """transformers' own whole model, with lively weights."""
    model = Qwen2_5_VLForConditionalGeneration(qwen_config(SPEC)).eval()
    given = lively(seed=3).state_dict()
    model.load_state_dict({name: tensor for name, tensor in given.items() if name != "query_embed"})
    return model


@pytest.fixture(scope="module")
def folder(official: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("qwen")
    official.save_pretrained(path, max_shard_size="200KB")
    assert len(list(path.glob("model-*.safetensors"))) > 3
    return path


def opened(folder: Path, **options: Any) -> tuple[Backbone, list[str]]:
    with empty_weights():
        backbone = Backbone(spec(lm_head=options.pop("lm_head", True))).eval()
    left = load(backbone, folder, keymap=qwen_from_hub, absent=lambda name: name == "query_embed", **options)
    backbone.reset_queries(torch.Generator().manual_seed(0))
    return backbone, left


def test_it_computes_what_transformers_computes(official: Any, folder: Path) -> None:
    backbone, left = opened(folder)
    assert left == ["query_embed"]
    said = dialogue(1, 1)
    script = turns(said, SPEC, backbone.tokenizer)
    ids = torch.tensor([[number for turn in script for number in turn.ids]])
    sight = said.rounds[0].sight
    kinds = (ids == SPEC.ids.image).int()
    given = {"pixel_values": sight.patches_NP, "image_grid_thw": torch.tensor([sight.grid]), "mm_token_type_ids": kinds}
    with torch.no_grad():
        backbone.query_embed.copy_(backbone.model.language_model.embed_tokens.weight[SPEC.ids.pad])  # so that queries are ordinary tokens
        whole = official.model(input_ids=ids, **given).last_hidden_state
        torch.testing.assert_close(backbone([said])[0, 0], whole[ids == SPEC.ids.pad], atol=1e-5, rtol=0)
        torch.testing.assert_close(backbone.lm_head.weight, official.lm_head.weight, atol=0, rtol=0)


def test_new_queries_are_small_and_reproducible(folder: Path) -> None:
    one, other = (opened(folder)[0].query_embed for _ in range(2))
    assert torch.equal(one, other)
    assert one.std().item() == pytest.approx(SPEC.query_std, rel=0.1)


def test_without_the_head_the_rest_is_the_same(folder: Path) -> None:
    backbone, _ = opened(folder, lm_head=False, unused=lambda name: name == "lm_head.weight")
    whole, _ = opened(folder)
    with torch.no_grad():
        assert torch.equal(backbone([dialogue(1, 2)]), whole([dialogue(1, 2)]))


def test_in_bfloat16_the_rotary_tables_are_not(folder: Path) -> None:
    backbone, _ = opened(folder, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in backbone.parameters()} == {torch.bfloat16}
    exact, _ = opened(folder)
    for (name, table), (_, wanted) in zip(backbone.named_buffers(), exact.named_buffers(), strict=True):
        assert torch.equal(table, wanted), name
    with torch.no_grad():
        assert torch.isfinite(backbone([dialogue(1, 2)])).all()


def test_what_a_folder_lacks_or_has_too_much_is_named(folder: Path, tmp_path: Path) -> None:
    tensors = {name: tensor for file in folder.glob("model-*.safetensors") for name, tensor in load_file(file).items()}
    del tensors["model.norm.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.language_model\.norm\.weight"):
        opened(tmp_path)
    with pytest.raises(ValueError, match="lm_head"):
        opened(folder, lm_head=False)
