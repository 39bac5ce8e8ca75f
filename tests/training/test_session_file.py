"""A session's file: what is no session, or not a whole one, is refused before anything is made of it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.training.made_world import picture, world
from training.model.glp import GLP
from training.rollout import Session
from training.sampling import Sampling
from training.session_file import opened


@pytest.fixture(scope="module")
def model() -> GLP:
    return world()


@pytest.fixture
def saved(model: GLP, tmp_path: Path) -> Path:
    session = Session(model, Sampling(steps=2, guidance=1.0))
    session.start(picture())
    session.step("go")
    session.save(tmp_path / "whole")
    return tmp_path / "whole"


def test_a_whole_file_has_its_chunks(saved: Path) -> None:
    told, held = opened(saved)
    assert told["chunks"] == [0, 1]
    assert told["actions"] == ["go"]
    assert held["chunk.1.progress.latents"].shape == (1, 16, 2, 8, 8)


@pytest.mark.parametrize("lacking", ["seen", "chunk.0.condition", "chunk.1.progress.latents"])
def test_a_tensor_that_is_missing_is_named(lacking: str, saved: Path, model: GLP, tmp_path: Path) -> None:
    told, _ = opened(saved)
    held = {name: tensor for name, tensor in load_file(saved).items() if name != lacking}
    save_file(held, tmp_path / "part", {"pan": json.dumps(told)})
    with pytest.raises(ValueError, match=f"a session without {lacking}"):
        Session.load(tmp_path / "part", model)


@pytest.mark.parametrize("told", [None, {}, [1], {"model": 1, "sampling": {}, "actions": [], "chunks": [0]}])
def test_what_tells_no_session_is_none(told: Any, model: GLP, tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "file", {"pan": json.dumps(told)})
    with pytest.raises(ValueError, match="but not a session's"):
        Session.load(tmp_path / "file", model)


def test_words_that_are_no_json_and_a_session_without_chunks(saved: Path, model: GLP, tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "words", {"pan": "{"})
    with pytest.raises(ValueError, match="no session can be read there"):
        Session.load(tmp_path / "words", model)
    told, held = opened(saved)
    save_file(held, tmp_path / "none", {"pan": json.dumps(told | {"chunks": []})})
    with pytest.raises(ValueError, match="a session without chunks"):
        Session.load(tmp_path / "none", model)
