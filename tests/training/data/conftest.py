"""A few published clips, a model of debug size, and the clips' latents; made once a session, never written to."""

from pathlib import Path

import pytest

from tests.training.data import made_clips
from tests.training.data.made_latents import encode
from training.model.checkpoint import init_model, save_model
from training.model.glp import GLP
from training.model.spec import SPECS


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven clips of one to three 40-frame chunks, in two shapes."""
    tmp, out = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("clips")
    made_clips.published(out, [made_clips.clip(tmp, v, 1 + v % 3, width=64 if v % 2 else 96) for v in range(7)])
    return out


@pytest.fixture(scope="session")
def glp() -> GLP:
    """A debug model of random weights."""
    return init_model(SPECS["debug"], seed=3).eval()


@pytest.fixture(scope="session")
def model(glp: GLP, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model as a folder."""
    folder = tmp_path_factory.mktemp("model") / "debug"
    save_model(folder, glp)
    return folder


@pytest.fixture(scope="session")
def latents(clips: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clips' latents, in float32 so that they can be compared to the bit."""
    out = tmp_path_factory.mktemp("latents")
    encode(clips, out, model)
    return out
