"""A run in memory: a loader's stand-in with windows of noise, and trainers of the debug model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tests.training.made_world import DEBUG
from tests.training.model.worlds import dialogue
from training.loop import Trainer
from training.loop_settings import LoopSettings, Settings
from training.model.checkpoint import init_model
from training.model.glp import GLP, Window
from training.model.spec import ModelSpec
from training.optim import OptimSettings
from training.parallel import ParallelSettings
from training.phases import PHASES, prepare
from training.step import LossSettings


@dataclass(frozen=True)
class Batch:
    """As training.data gives it."""

    window: Window
    dialogues: Sequence[Any] | None = None
    keys: Sequence[str] = ("",)

    def with_states(self, states_BRQS: torch.Tensor) -> Window:
        """The last rounds' states."""
        return replace(self.window, state_BGQS=states_BRQS[:, -self.window.text_BGND.shape[1] :])

    def only(self, number: int) -> "Batch":
        """One of them."""
        dialogues = None if self.dialogues is None else self.dialogues[number : number + 1]
        return replace(self, window=self.window.only(number), dialogues=dialogues, keys=self.keys[number : number + 1])

    def to(self, device: Any, dtype: Any = None) -> "Batch":
        """It stays."""
        return self


def window(seed: int, spec: ModelSpec = DEBUG, side: int = 4, batch: int = 1) -> Window:
    """Windows of noise that `seed` names, in the middle of a stream."""
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(batch, spec.vae.channels, spec.chunks.window_latents, side, side, generator=generator)
    text = torch.randn(batch, spec.chunks.window_chunks, spec.text.tokens, spec.text.d_model, generator=generator)
    return Window(latents, text, None, torch.zeros(batch, dtype=torch.bool), torch.zeros(spec.text.tokens, spec.text.d_model))


class Data:
    """Some windows, over and over, in an order that the epoch decides; ranks take turns."""

    def __init__(self, count: int = 4, *, joint: bool = False, rank: int = 0, ranks: int = 1, spec: ModelSpec = DEBUG, first: int = 0) -> None:
        self._all = [Batch(window(first + n, spec), [dialogue(n, spec.chunks.window_chunks)] if joint else None, (f"s{n}",)) for n in range(count)]
        self._rank, self._ranks = rank, ranks
        self.epoch = self.position = 0
        self.seen: list[tuple[int, int]] = []
        self.skipped: dict[str, str] = {}

    @property
    def epoch_steps(self) -> int:
        """Of a whole epoch."""
        return -(-len(self._all) // self._ranks)

    def __len__(self) -> int:
        return -(-(len(self._all) - self.position) // self._ranks)

    def __iter__(self) -> Iterator[Batch]:
        epoch = self.epoch
        while self.epoch == epoch:
            number = (self.position + self._rank + epoch) % len(self._all)
            self.seen.append((epoch, number))
            self.position += self._ranks
            if self.position >= len(self._all):
                self.epoch, self.position = epoch + 1, 0
            yield self._all[number]

    def state_dict(self) -> dict[str, Any]:
        """The place."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: Any) -> None:
        """Back to the place."""
        self.epoch, self.position = state["epoch"], state["position"]


def model(phase: str = "decoder", spec: ModelSpec = DEBUG) -> GLP:
    """The debug model, ready for a phase."""
    glp = init_model(spec, seed=1)
    history = PHASES[phase].after[:1]
    prepare(glp, PHASES[phase], history)
    return glp


def settings(**changes: Any) -> Settings:
    """Settings under which the debug model learns fast, exactly, on one core; loop's and optim's fields by name."""
    loop = {"epochs": 4, "windows": 2, "log_every": 2, "validate_every": 0, "save_every": 1000} | changes
    optim = {"lr": 3e-3, "clip": 1.0} | {name: loop.pop(name) for name in list(loop) if name in OptimSettings.model_fields}
    loss = LossSettings(compute="float32", dropped=0.0)
    parallel = ParallelSettings(checkpoint=False, gather="float32")
    return Settings(loop=LoopSettings(**loop), optim=OptimSettings(**optim), loss=loss, parallel=parallel)


def trainer(
    folder: Path, phase: str = "decoder", *, data: Data | None = None, held: Data | None = None, watchers: Sequence[Any] = (), films: Any = None, **changes: Any
) -> Trainer:
    """A trainer of the debug model on windows in memory."""
    data = data or Data(joint=PHASES[phase].data == "joint")
    return Trainer(model(phase), PHASES[phase], data, folder, settings(**changes), held=held, watchers=watchers, films=films)


def weights(glp: GLP) -> dict[str, torch.Tensor]:
    """A copy of what learns."""
    return {name: p.detach().clone() for name, p in glp.named_parameters() if p.requires_grad}
