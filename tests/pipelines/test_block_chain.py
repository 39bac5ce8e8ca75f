"""A world model that learns: minutes of training in a world of two blocks, and it moves the one that it is told to, on tables that it has never seen."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.block_chain import BACKBONE, CLIPS, FIRST, LATENTS, ROOT, TELLS, VAE, Chain, OtherRun, claim, clips_of, code, computing, settings
from tests.training.data.made_clips import clip, mp4, published
from tests.training.data.made_latents import encode
from training.evaluation.block_fidelity import Predictor, copy_of_start, fidelity, simulator
from training.evaluation.block_model import plain_vae
from training.evaluation.block_pictures import film
from training.evaluation.blockworld import Episode, World, episodes
from training.evaluation.predictors import predictor
from training.model.checkpoint import open_model
from training.model.small_vae import SmallVae
from training.run import RunSettings
from training.sampling import Sampling

WORLD = World(blocks=2, side=0.2, step=0.25, contact=False, twice=0.0, chunk_frames=4, fps=1.6)
#: Of all films the decoder learns; of the first ones the autoencoder.
FILMS, VAE_FILMS, STEPS = 60, 40, 2000


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """A chain whose clips were cut and published without Ray, and whose decoder has been through its phase."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so small a model is no quicker on two
    folder = tmp_path_factory.mktemp("block_chain")
    chain = Chain(folder=folder, world=WORLD, films=FILMS, vae_steps=90, vae_films=VAE_FILMS, backbone_steps=0)
    rows = []
    for number, story in enumerate(episodes(chain.filmed, 8, 1, FILMS)):
        frames = film(chain.filmed, story.positions_TN2, story.camera_T2)
        told = {"events": story.events(), "caption": " ".join(str(action) for action in story.actions)}
        rows.append(clip(folder, number, 8, data=mp4(folder, frames), **told))
    published(folder / CLIPS, rows)
    chain.model(folder / FIRST, WORLD, "swin", 0.055, 0)
    encode(folder / CLIPS, folder / LATENTS, folder / FIRST)
    chain.train(folder / "decoder", folder / FIRST, "decoder", STEPS)
    yield chain
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_obeys_what_it_is_told_far_better_than_nothing_or_what_another_is_told(trained: Chain) -> None:
    """The true physics under another story's actions obeys a quarter of its own: a push in a random direction, or of the wrong block, is no obedience."""
    model = open_model(trained.folder / "decoder" / "model").eval()
    model.backbone = None  # it has been through its first phase alone
    stories = list(episodes(WORLD, 1, 5, 30, "unseen"))
    sampling = Sampling(steps=8, guidance=2.0)
    told, untold = (predictor(model, WORLD, sampling, actions_told=each) for each in (True, False))
    found = fidelity(told, stories)
    copied, nothing = (fidelity(other, stories).obeyed for other in (copy_of_start(WORLD), untold))
    another = fidelity(exchanged(told, stories), stories).obeyed
    assert fidelity(exchanged(simulator(WORLD), stories), stories).obeyed < 0.4
    assert found.obeyed >= max(copied, nothing, another) + 0.4
    assert found.lost_R[0] <= 0.1


def exchanged(predict: Predictor, stories: Sequence[Episode]) -> Predictor:
    """The same predictor, told the actions of the next story in the place of each one's own."""
    others = iter([*stories[1:], stories[0]])
    return lambda image, actions: predict(image, next(others).words)


@pytest.mark.slow
def test_a_phase_that_is_done_is_not_trained_again(trained: Chain) -> None:
    out = trained.folder / "decoder"
    before = (out / "model" / "decoder" / "model.safetensors").stat().st_mtime_ns
    seconds = trained.train(out, trained.folder / FIRST, "decoder", STEPS)
    assert seconds == json.loads((out / "done.json").read_text("utf-8"))["cpu_s"] > 0
    assert (out / "model" / "decoder" / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.slow
def test_clips_on_the_models_clock_are_the_stories(trained: Chain) -> None:
    shown = clips_of(trained.folder / CLIPS, WORLD, 2)
    assert [each.shape for each in shown] == [(1 + 8 * 4, 64, 64, 3)] * 2
    true = [film(WORLD, story.positions_TN2, story.camera_T2) for story in episodes(WORLD, 8, 1, FILMS)]
    for each in shown:
        nearest, other, *_ = sorted((float(np.abs(each.astype(float) - film_THWC).mean()), number) for number, film_THWC in enumerate(true))
        off = [float(np.abs(a.astype(float) - b).mean()) for a, b in ((each[1:], true[nearest[1]][:-1]), (each[:-1], true[nearest[1]][1:]))]
        assert nearest[0] < 0.5 * other[0]  # what is left is what the MP4 has lost: as much in every frame
        assert nearest[0] < 0.85 * min(off)  # a frame early or late


@pytest.mark.parametrize(("phase", "learns"), [("decoder", ()), ("joint", ()), ("matching", ())])
def test_settings_of_a_phase(phase: str, learns: tuple[str, ...]) -> None:
    made = RunSettings(**settings(phase, 7, {"loop.seed": 3, "optim.lr": 1e-4}))
    assert (made.loop.steps, made.loop.seed, made.optim.lr, made.also) == (7, 3, 1e-4, learns)


def test_the_backbone_is_taught_once_and_every_model_has_it(tmp_path: Path) -> None:
    chain = Chain(folder=tmp_path, world=WORLD, films=2, backbone_steps=2, backbone_stories=2)
    torch.save({"spec": asdict(plain_vae()), "weights": SmallVae(plain_vae()).state_dict(), "cpu_s": 0.0}, tmp_path / VAE)
    for name, seed in (("one", 1), ("other", 2)):
        chain.model(tmp_path / name, WORLD, "swin", 0.055, seed)
        written = (tmp_path / BACKBONE).stat().st_mtime_ns
    one, other = (open_model(tmp_path / name) for name in ("one", "other"))
    taught = torch.load(tmp_path / BACKBONE, weights_only=True)
    assert taught["cpu_s"] > 0
    assert all(torch.equal(value, taught["weights"][name]) for model in (one, other) for name, value in model.backbone.state_dict().items())
    assert not torch.equal(one.decoder.blocks[0].ffn[0].weight, other.decoder.blocks[0].ffn[0].weight)
    chain.model(tmp_path / "third", WORLD, "last_frames", 0.0, 3)
    assert (tmp_path / BACKBONE).stat().st_mtime_ns == written


def test_what_was_trained_otherwise_is_not_taken_for_what_is_asked(tmp_path: Path) -> None:
    out, asked = tmp_path / "run", {"phase": "decoder", "steps": 10, "changes": {"optim.lr": 1e-3, "also": ("a", "b")}, "code": code()}
    claim(out, asked)
    claim(out, asked)
    for name, value in (("steps", 20), ("changes", {}), ("code", "0" * 16)):
        with pytest.raises(OtherRun, match=f"run was trained with other {name} than is asked for now"):
            claim(out, asked | {name: value})
    (tmp_path / "older").mkdir()
    with pytest.raises(OtherRun, match="other phase and steps and changes and code"):
        claim(tmp_path / "older", asked)
    assert {ROOT / "training" / "loop.py", ROOT / "training" / "model" / "glp.py", ROOT / "pipelines" / "block_chain.py"} <= set(computing())
    assert not {ROOT / "training" / f"{name}.py" for name in TELLS} & set(computing())


def test_every_file_that_is_said_to_take_no_part_is_there() -> None:
    assert all((ROOT / "training" / f"{name}.py").is_file() for name in TELLS)
