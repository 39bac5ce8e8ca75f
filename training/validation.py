"""Validation: the loss on held-out windows with noise that never changes, and when to stop for it."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from training.model.glp import GLP
from training.parallel import World
from training.phases import Phase
from training.step import Batch, LossSettings, Sums, errors, seeded


def validate(glp: GLP, phase: Phase, batches: Iterable[Batch], settings: LossSettings, seed: int, mesh: World, device: Any = "cpu") -> Sums:
    """What the loss is on these batches: each window under noise of its own, which is the same whenever it is asked, in whatever batch and on whatever rank.

    No text is dropped. Windows are computed one by one.

    Raises:
        ValueError: there is no batch, or nothing in all of them, on all ranks, that a loss could be measured on.
    """
    found: Sums | None = None
    training, _ = glp.training, glp.eval()
    try:
        for batch in batches:
            for number, key in enumerate(batch.keys):
                with torch.no_grad():
                    _, sums, _ = errors(glp, phase, batch.only(number).to(device), seeded(seed, "validation", key), settings, dropped=0.0)
                found = sums if found is None else found + sums
    finally:
        glp.train(training)
    if found is None:
        raise ValueError("validation: there is no window to validate on; curate with pack.val_share above 0, or set loop.validate_every to 0")
    every = found.reduced(mesh.data)
    if float(every.weight) == 0:  # its mean would be NaN, which is no verdict on the weights
        raise ValueError(
            "validation: the held-out windows hold nothing to measure a loss on: every sample of them failed its check and was left out (data.bad is skip)"
            f"{' or has no next observation to match' if phase.objective == 'matching' else ''}; "
            "see by `pan verify` what is wrong with the shards and mend them, or set loop.validate_every to 0"
        )
    return every


@dataclass
class Stopping:
    """Early stopping: remembers the best validation, and how long ago it was.

    Args:
        patience: so many validations without a better one end the run; 0: never.
        least: what a better one must be better by, a share.
    """

    patience: int = 0
    least: float = 0.0
    best: float = math.inf
    waited: int = 0

    def told(self, loss: float) -> bool:
        """Takes a validation in; whether to stop."""
        if loss < self.best * (1 - self.least):
            self.best, self.waited = loss, 0
        else:
            self.waited += 1
        return self.over

    @property
    def over(self) -> bool:
        """Whether the last validations say that the run has ended; also after it was taken up."""
        return 0 < self.patience <= self.waited

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"best": None if math.isinf(self.best) else self.best, "waited": self.waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse."""
        self.best, self.waited = math.inf if state["best"] is None else state["best"], state["waited"]
