"""The whole chain as a user runs it: films of the block world, curated, encoded, both phases trained on a local Ray with two workers, and simulated."""

import json
import os
import subprocess
import sys
from pathlib import Path

import av
import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1500)]
#: A corpus this small has no split to validate on.
SHORT = ["--set", "loop.windows=2", "--set", "loop.epochs=1", "--set", "loop.validate_every=0", "--set", "data.workers=0"]
TWO_WORKERS = ["--cpus", "4", "--set", "workers.least=2"]


def pan(*words: str) -> str:
    """`pan WORDS`, which must succeed; what it printed."""
    done = subprocess.run([sys.executable, "-m", "pipelines.cli", *words], capture_output=True, text=True, timeout=600, cwd=ROOT, env=dict(os.environ))
    assert done.returncode == 0, f"pan {' '.join(words)}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout


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
    for run in (decoder, joint):
        assert {file.name for file in Path(run, "samples").iterdir()} == {"rank_0.jsonl", "rank_1.jsonl"}
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
