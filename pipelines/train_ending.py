"""Train ending: why a training ended, in words, and the command that comes next."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines import again

WHY = {"epochs": "all epochs are done", "steps": "loop.steps is reached", "stopped early": "validation got no better for as long as loop.patience allows"}
NEXT = {"decoder": "joint", "alignment": "tuning"}


def told(asked: Mapping[str, Any], ending: str) -> str:
    """Two lines for people; the second is missing where nothing follows.

    Args:
        asked: out, shards, model and settings of the run. ending: as the training loop calls it.
    """
    from training.model.card import read_spec

    out, phase, spec = Path(asked["out"]), asked["settings"]["phase"], read_spec(Path(asked["model"]))
    model = out / "model"
    line = f"{model}: trained in phase {phase}; it ended because {WHY[ending]}"
    if phase == "matching":
        return line  # for comparison alone
    following = NEXT.get(phase)
    if following == "joint" and spec.decoder.state_dim is None:
        following = None  # it has no state stream
    if following is None:
        return f"{line}\nnext: {again.text(['pan', 'simulate', str(model), '--image', 'IMAGE', '--action', 'TEXT', '--out', 'film.mp4'])}"
    words = ["pan", "train", out.with_name(f"{out.name}_{following}"), "--shards", asked["shards"], "--model", model, "--phase", following]
    return f"{line}\nnext: {again.text([str(word) for word in words])}"
