"""The miniature of the block world: it reads every word, tells actions apart, and arms of a comparison share what they must share."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from training.data.identity import widths
from training.evaluation.block_model import ACTION_S, block_spec, plain_vae, vocabulary, write_model, write_tokenizer
from training.evaluation.block_words import WAYS, Action, Push
from training.evaluation.blockworld import COLOURS, World
from training.model import text
from training.model.checkpoint import open_model
from training.model.small_vae import SmallVae
from training.model.tensor_files import stored

WORLD = World(blocks=2, chunk_frames=4, fps=1.6)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two seeds of one spec."""
    folders = [tmp_path_factory.mktemp("models") / f"seed_{seed}" for seed in (0, 1)]
    vae = SmallVae(plain_vae())
    for seed, folder in enumerate(folders):
        write_model(folder, block_spec(WORLD, vae.spec), vae, seed)
    return folders


def test_every_action_is_whole_words_and_no_two_read_alike(tmp_path: Path) -> None:
    reader = text.open_tokenizer(write_tokenizer(tmp_path))
    pushes = [Push(colour, way) for colour in COLOURS for way in WAYS]
    actions = [Action(), *(Action((push,)) for push in pushes), *(Action((pushes[0], other)) for other in pushes[4:])]
    actions += [replace(action, pan=way) for action in actions for way in WAYS]
    read = {tuple(reader.encode(str(action))) for action in actions}
    assert len(read) == len(actions)
    assert all(vocabulary()["<unk>"] not in ids and len(ids) < 16 for ids in read)


def test_who_goes_where_is_heard_in_every_direction_word(models: list[Path]) -> None:
    glp = open_model(models[0])
    with torch.no_grad():
        one, other = glp.text.encode_unpadded(["push the red block left and the blue block up", "push the blue block left and the red block up"])
    left = glp.text.ids("push the red block left and the blue block up").index(vocabulary()["left"])
    assert float(torch.nn.functional.cosine_similarity(one[left], other[left], dim=0)) < 0.98


def test_seeds_share_autoencoder_and_text_and_nothing_else(models: list[Path]) -> None:
    one, other = (open_model(folder) for folder in models)
    same = {part: all(torch.equal(a, b) for a, b in zip(getattr(one, part).parameters(), getattr(other, part).parameters(), strict=True)) for part in PARTS}
    assert same == {"vae": True, "text": True, "decoder": False, "backbone": False}
    assert stored(models[0] / "text").keys() == stored(models[1] / "text").keys()


PARTS = ("vae", "text", "decoder", "backbone")


def test_arms_take_the_same_latents() -> None:
    specs = [block_spec(WORLD, plain_vae()), block_spec(WORLD, plain_vae(), history="last_frames"), block_spec(WORLD, plain_vae(), cond_noise=0.0)]
    assert len({str(widths(spec)) for spec in specs}) == 1
    assert [spec.plan.chunks for spec in specs] == [2, 1, 2]
    assert [spec.plan.cond_noise for spec in specs] == [0.055, 0.055, 0.0]


@pytest.mark.parametrize("latents", [1, 2])
def test_a_chunk_lasts_as_long_as_an_action(latents: int) -> None:
    chunks = block_spec(WORLD, plain_vae(), chunk_latents=latents).chunks
    assert chunks.chunk_frames / chunks.fps == ACTION_S


def test_another_autoencoder_is_refused(tmp_path: Path) -> None:
    vae = SmallVae(replace(plain_vae(), base_dim=8))
    with pytest.raises(ValueError, match="its autoencoder is to be"):
        write_model(tmp_path / "model", block_spec(WORLD, plain_vae()), vae, 0)
