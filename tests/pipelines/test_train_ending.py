"""Train ending: why it ended, and a next command that is whole."""

import json
import shlex
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from pipelines import train_ending
from training.model.card import CARD, Card, Part, parts_of, read_card
from training.model.spec import SPECS, ModelSpec


def asked(folder: Path, phase: str, spec: ModelSpec) -> dict[str, Any]:
    """A run of a model whose card alone is there."""
    folder.mkdir(parents=True)
    (folder / CARD).write_text(json.dumps(asdict(Card(format=1, model=spec, **{part: Part() for part in parts_of(spec)}))))
    return {"out": "/mnt/a run", "shards": "s3://latents", "model": str(folder), "settings": {"phase": phase}}


@pytest.mark.parametrize(
    ("phase", "spec", "following"),
    [
        ("decoder", "debug", ["train", "/mnt/a run_joint", "--shards", "s3://latents", "--model", "/mnt/a run/model", "--phase", "joint"]),
        ("joint", "debug", ["simulate", "/mnt/a run/model", "--image", "IMAGE", "--action", "TEXT", "--out", "film.mp4"]),
        ("alignment", "pandora_debug", ["train", "/mnt/a run_tuning", "--shards", "s3://latents", "--model", "/mnt/a run/model", "--phase", "tuning"]),
    ],
)
def test_the_next_command_follows_on_the_phase(tmp_path: Path, phase: str, spec: str, following: list[str]) -> None:
    why, command = train_ending.told(asked(tmp_path / "m", phase, SPECS[spec]), "epochs").splitlines()
    assert why == f"/mnt/a run/model: trained in phase {phase}; it ended because all epochs are done"
    assert shlex.split(command) == ["next:", "pan", *following]


def test_nothing_follows_on_a_comparison_and_no_joint_phase_on_a_model_without_states(tmp_path: Path) -> None:
    (line,) = train_ending.told(asked(tmp_path / "m", "matching", SPECS["debug"]), "steps").splitlines()
    assert line.endswith("because loop.steps is reached")
    without = replace(SPECS["debug"], name="without", decoder=replace(SPECS["debug"].decoder, state_dim=None))
    why, command = train_ending.told(asked(tmp_path / "w", "decoder", without), "stopped early").splitlines()
    assert why.endswith("because validation got no better for as long as loop.patience allows")
    assert command.startswith("next: pan simulate ")


def test_a_runs_folder_is_told_from_its_model(tmp_path: Path) -> None:
    asked(tmp_path / "run" / "model", "decoder", SPECS["debug"])
    with pytest.raises(ValueError, match=r"run: no model\.json there; .*run/model has one, as a run's folder has: give that"):
        read_card(tmp_path / "run")
    with pytest.raises(ValueError, match=r"no model\.json there; give a folder of `pan assemble`"):
        read_card(tmp_path)
