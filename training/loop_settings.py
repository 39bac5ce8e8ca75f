"""Loop settings: how long a run trains, what it does beside, and all else that its steps depend on."""

from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from curation.config import Config
from training.optim import OptimSettings
from training.parallel import ParallelSettings
from training.step import LossSettings


class LoopSettings(Config):
    """How long a run trains, and what it does beside."""

    epochs: int = Field(5, ge=1, description="PAN's, of its first phase; its second stopped after 1 by validation")
    steps: int | None = Field(None, ge=1, description="stop after so many steps, whatever the epoch; the schedule ends there too")
    windows: int = Field(960, ge=1, description="windows an optimiser step, of all ranks together; PAN's 960 GPUs")
    batch: int = Field(1, ge=1, description="windows that a rank computes at once; what is lacking to `windows` is accumulated")
    seed: int = Field(0, ge=0, description="of the samples' order, the noise, and everything else that is drawn")
    log_every: int = Field(10, ge=1, description="steps between two lines of progress")
    validate_every: int = Field(500, ge=0, description="steps between two validations; 0: none")
    validation_windows: int = Field(
        256, ge=1, description="held-out windows in a validation, of all ranks together: always the same ones, under the same noise"
    )
    patience: int = Field(0, ge=0, description="validations without a better one that end the run; 0: never. PAN stopped its second phase so")
    save_every: int = Field(500, ge=1, description="steps between two checkpoints")
    keep_last: int = Field(2, ge=1, description="of the newest checkpoints so many are kept, and the best one")
    export: Literal["best", "last"] = Field("best", description="which weights become the model: those of the best validated checkpoint, or the last")
    samples: bool = Field(True, description="write down which samples each step learnt from, in samples/: where a step was bad, they are looked at")
    films_every: int = Field(0, ge=0, description="steps between two films of what the model makes of an image and actions; 0: none")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that a run's steps depend on."""

    loop: LoopSettings = field(default_factory=LoopSettings)
    optim: OptimSettings = field(default_factory=OptimSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    parallel: ParallelSettings = field(default_factory=ParallelSettings)
