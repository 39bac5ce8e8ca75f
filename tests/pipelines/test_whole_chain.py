"""The whole chain as a user runs it: films of the block world, curated, encoded, both phases trained on a local Ray with two workers, and simulated."""

import json
import os
import subprocess
import sys
from pathlib import Path

import av
import pytest
import torch

from training.data.index import Index
from training.data.samples import read_encoded
from training.model.card import read_spec
from training.model.checkpoint import open_model
from training.phases import PHASES, chosen
from training.seen import read_seen
from training.trackers import read_log

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1500)]
EPOCHS = 6
#: A corpus this small has no split to validate on.
SHORT = [
    word
    for each in ("loop.windows=2", f"loop.epochs={EPOCHS}", "loop.log_every=1", "loop.validate_every=0", "data.workers=0", "optim.lr=2e-3")
    for word in ("--set", each)
]
TWO_WORKERS = ["--cpus", "4", "--set", "workers.least=2"]


def pan(*words: str) -> str:
    """`pan WORDS`, which must succeed; what it printed."""
    done = subprocess.run([sys.executable, "-m", "pipelines.cli", *words], capture_output=True, text=True, timeout=600, cwd=ROOT, env=dict(os.environ))
    assert done.returncode == 0, f"pan {' '.join(words)}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def told(world: Path) -> list[list[str]]:
    """The actions of each film of a raw corpus, in their order."""
    return [[event["text"] for event in json.loads(line)["events"]] for line in (world / "videos.jsonl").read_text("utf-8").splitlines()]


def encoded(latents: Path, model: Path) -> tuple[list[str], list[list[str]]]:
    """The keys of what was encoded, and the actions of each, as a training reads them."""
    index = Index.read(latents, read_spec(model))
    return [each.entry.key for each in index.samples], [read_encoded(index.store, each.entry, looks=False)[0]["actions"] for each in index.samples]


def changed(before: Path, after: Path) -> tuple[set[str], list[str]]:
    """The parameters that differ between two models, and the names of all."""
    old, new = (dict(open_model(folder).named_parameters()) for folder in (before, after))
    return {name for name, value in old.items() if not torch.equal(value, new[name])}, list(old)


def test_raw_films_to_a_film_that_was_imagined(tmp_path: Path) -> None:
    world, clips, latents, model = (str(tmp_path / name) for name in ("world", "clips", "latents", "model"))
    pan("blockworld", world, "--videos", "2", "--rounds", "2", "--seed", "5")
    pan("curate", f"{world}/videos.jsonl", "--out", clips, "--recipe", "blockworld", "--cpus", "2")
    kept = json.loads(pan("inspect", clips, "--json"))
    assert kept["clips"]["kept"] == 2
    pan("assemble", model, "--model", "blockworld", "--random")
    assert "2 clips of latents" in pan("encode", clips, latents, "--model", model, "--cpus", "2")
    pan("verify", latents)
    decoder, joint = str(tmp_path / "decoder"), str(tmp_path / "joint")
    pan("train", decoder, "--shards", latents, "--model", model, "--phase", "decoder", *TWO_WORKERS, *SHORT)
    pan("train", joint, "--shards", latents, "--model", f"{decoder}/model", "--phase", "joint", *TWO_WORKERS, *SHORT)
    losses = dict[str, list[float]]()
    keys, actions = encoded(tmp_path / "latents", tmp_path / "model")
    assert sorted(actions) == sorted(told(tmp_path / "world"))
    for phase, before in (("decoder", tmp_path / "model"), ("joint", tmp_path / "decoder" / "model")):
        run = tmp_path / phase
        assert {file.name for file in (run / "samples").iterdir()} == {"rank_0.jsonl", "rank_1.jsonl"}
        assert [sorted(seen) for seen in read_seen(run / "samples").values()] == [sorted(keys)] * EPOCHS
        moved, names = changed(before, run / "model")
        assert moved == set(chosen(names, PHASES[phase].trained, PHASES[phase].frozen))
        log = read_log(run)
        losses[phase] = [loss for _, loss in log["loss"]]
        assert (len(losses[phase]), log["skipped_steps"][-1][1]) == (EPOCHS, 0)
    assert sum(losses["joint"][-3:]) / 3 < losses["decoder"][0] - 0.1  # a model that answers 0, as at its beginning, stays where it began
    assert json.loads((tmp_path / "joint" / "model" / "history.json").read_text()) == {"phases": ["decoder", "joint"]}
    picture, film = tmp_path / "first.png", tmp_path / "film.mp4"
    with av.open(next((tmp_path / "world" / "videos").iterdir())) as source:
        next(source.decode(video=0)).to_image().save(picture)
    pan(
        "simulate",
        f"{joint}/model",
        "--image",
        str(picture),
        "--action",
        "push the red block left",
        "--action",
        "nothing moves",
        "--steps",
        "4",
        "--out",
        str(film),
    )
    with av.open(film) as made:
        assert sum(1 for _ in made.decode(video=0)) == 1 + 2 * 8
