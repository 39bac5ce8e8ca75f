"""Optim: AdamW on float32 master weights, a cosine with warm-up, one clip for the global norm, a moving average, and a guard against bad steps."""

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from curation.config import Config
from training.model.plain import must

_PLAIN = ("modulation", "query")  # Wan's tables and learned queries: like norms and biases they are drawn to no zero


class OptimSettings(Config):
    """How a model learns. Source of the defaults: PAN (arXiv 2511.09057v3), section 4.2; what it leaves out is said."""

    lr: float = Field(1e-5, gt=0, le=1, description="peak learning rate; PAN's, of both phases")
    query_lr: float = Field(1.0, gt=0, le=1e4, description="the queries' rate is so many times `lr`; PAN gives none, and 1e-5 is slow for fresh queries")
    backbone_lr: float = Field(1.0, gt=0, le=1e4, description="the rate of a backbone that learns along (`also`) is so many times `lr`; PAN's is frozen")
    warmup: float = Field(0.05, ge=0, lt=1, description="share of all steps in which the rate rises from 0; PAN's")
    min_lr: float = Field(0.0, ge=0, le=1, description="share of `lr` at which the cosine ends; PAN gives none")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW's; PAN gives none")
    beta2: float = Field(0.95, ge=0, lt=1, description="AdamW's; PAN gives none, 0.95 is usual for large transformers")
    eps: float = Field(1e-8, gt=0, description="AdamW's; PAN gives none")
    weight_decay: float = Field(0.01, ge=0, le=1, description="of matrices alone: no norm, bias, modulation or query; PAN gives none")
    clip: float = Field(0.05, gt=0, description="most that the gradient's norm over all parameters may be; PAN's")
    ema: float = Field(0.0, ge=0, lt=1, description="decay of a moving average of the weights; 0 keeps none, as PAN, 0.9999 is usual")
    spike: float = Field(20.0, gt=1, description="a gradient's norm so many times the recent median is a spike, and its step is skipped")
    window: int = Field(100, ge=4, description="good steps that the recent median is of; until a fifth of them are there nothing is a spike")
    most_bad: int = Field(10, ge=1, description="so many skipped steps in a row end the run")


class OverBudget(RuntimeError):
    """A run has met more faults than its settings allow: it ends, and its checkpoints stay."""


class TrainingDiverged(OverBudget):
    """Too many bad steps in a row."""


def adamw(named: Iterable[tuple[str, nn.Parameter]], settings: OptimSettings) -> torch.optim.AdamW:
    """The optimiser of the parameters that learn; each group knows its share of the rate as "scale".

    Raises:
        ValueError: nothing learns, or a parameter that does is narrower than float32.
    """
    from torch.distributed.tensor import DTensor

    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in named:
        if parameter.requires_grad:
            must(parameter.dtype.itemsize >= 4, f"optim: {name} is {parameter.dtype}; master weights are float32 (phases.prepare brings them there)")
            decay = settings.weight_decay if decays(name, parameter) else 0.0
            groups.setdefault((decay, _share(name, settings)), []).append(parameter)
    must(bool(groups), "optim: no parameter learns; prepare the model for a phase first")
    tables = [{"params": members, "weight_decay": decay, "scale": scale} for (decay, scale), members in groups.items()]
    quick = all(parameter.device.type == "cpu" and not isinstance(parameter, DTensor) for members in groups.values() for parameter in members)
    kernel: dict[str, bool] = {"fused" if quick else "foreach": True}  # on a CPU one pass over memory instead of ten: a quarter of the time
    return torch.optim.AdamW(tables, lr=settings.lr, betas=(settings.beta1, settings.beta2), eps=settings.eps, **kernel)


def _share(name: str, settings: OptimSettings) -> float:
    """How many times `lr` a parameter's rate is."""
    if "query_embed" in name:
        return settings.query_lr
    return settings.backbone_lr if name.startswith("backbone.") else 1.0


def decays(name: str, parameter: Tensor) -> bool:
    """Whether weight decay is for this parameter: for matrices and convolutions alone."""
    return parameter.ndim > 1 and not any(word in name for word in _PLAIN)


def rate(step: int, steps: int, settings: OptimSettings) -> float:
    """The share of the peak rate in step `step` (0 is the first) of `steps`: a straight rise over the warm-up, then half a cosine down to `min_lr`."""
    rising = math.ceil(settings.warmup * steps)
    if step < rising:
        return (step + 1) / rising
    through = min((step - rising) / max(steps - rising, 1), 1.0)
    return settings.min_lr + (1 - settings.min_lr) * 0.5 * (1 + math.cos(math.pi * through))


def lesson_rate(step: int, steps: int) -> float:
    """As `rate`, for the short lessons of small models: the rise over a twentieth of the steps cuts half a cosine that goes down to 0 over all of them."""
    return min((step + 1) * 20 / steps, 0.5 * (1 + math.cos(math.pi * step / steps)))


def set_rate(optimiser: torch.optim.Optimizer, share: float, settings: OptimSettings) -> float:
    """Sets every group's rate for the next step; returns the main one."""
    for group in optimiser.param_groups:
        group["lr"] = settings.lr * share * group["scale"]
    return settings.lr * share


def total_norm(gradients: Iterable[Tensor]) -> Tensor:
    """The 2-norm of all gradients together, float32 scalar, the same on every rank; sharded ones are summed over their shards."""
    from torch.distributed import all_reduce
    from torch.distributed.tensor import DTensor, Shard

    whole: list[Tensor] = []
    pieces: dict[Any, list[Tensor]] = {}
    for gradient in gradients:
        if isinstance(gradient, DTensor):
            split = [axis for axis, placed in enumerate(gradient.placements) if isinstance(placed, Shard)]
            groups = tuple(gradient.device_mesh.get_group(axis) for axis in split)
            pieces.setdefault(groups, []).append(_square(gradient.to_local()))
        else:
            whole.append(_square(gradient))
    sums = [torch.stack(whole).sum()] if whole else []
    for groups, squares in pieces.items():
        found = torch.stack(squares).sum()
        for group in groups:
            all_reduce(found, group=group)
        sums.append(found)
    return torch.stack(sums).sum().sqrt()


def _square(gradient: Tensor) -> Tensor:
    """The sum of squares; of an empty shard 0."""
    return gradient.detach().float().square().sum()


def scale_(gradients: Iterable[Tensor], factor: float) -> None:
    """Multiplies the gradients in place."""
    from torch.distributed.tensor import DTensor

    local = [g.to_local() if isinstance(g, DTensor) else g for g in gradients]
    torch._foreach_mul_(local, factor)


class Guard:
    """Tells good steps from bad ones: a loss or gradient that is no number, or a gradient far above the recent ones.

    Its memory is part of a checkpoint, so that a run that is taken up judges as one that never stopped.
    """

    def __init__(self, settings: OptimSettings) -> None:
        self._settings = settings
        self.norms: list[float] = []
        self.row = self.not_finite = self.spikes = 0

    @property
    def skipped(self) -> int:
        """Steps that were skipped in all."""
        return self.not_finite + self.spikes

    def good(self, loss: float, norm: float) -> bool:
        """Whether this step may change the weights; takes it into account.

        Raises:
            TrainingDiverged: `most_bad` bad steps in a row.
        """
        why = self._fault(loss, norm)
        if why is None:
            self.norms, self.row = [*self.norms, norm][-self._settings.window :], 0
            return True
        self._bad(why, "Take the run up with a lower optim.lr, or look at the samples of these steps (samples/)")
        return False

    def empty(self) -> None:
        """Takes into account a step for which no rank had a sample to learn from: it changes nothing, as a bad one.

        Raises:
            TrainingDiverged: `most_bad` such or other bad steps in a row.
        """
        self._bad("no sample to learn from", "See by `pan verify` what is wrong with the shards and mend them; samples that fail their check are left out")

    @property
    def learnt(self) -> bool:
        """Whether there ever was a good step."""
        return bool(self.norms)

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"norms": self.norms, "row": self.row, "not_finite": self.not_finite, "spikes": self.spikes}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse."""
        self.norms, self.row, self.not_finite, self.spikes = list(state["norms"]), state["row"], state["not_finite"], state["spikes"]

    def _bad(self, why: str, do: str) -> None:
        """Counts a bad step in the row."""
        self.row += 1
        if self.row >= self._settings.most_bad:
            raise TrainingDiverged(f"{self.row} bad steps in a row, the last with {why}; the weights are those of before the first of them. {do}")

    def _fault(self, loss: float, norm: float) -> str | None:
        """What is wrong with a step; counts it."""
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self.not_finite += 1
            return f"a loss of {loss} and a gradient's norm of {norm}"
        if len(self.norms) * 5 >= self._settings.window:
            usual = statistics.median(self.norms)
            if norm > self._settings.spike * usual > 0:
                self.spikes += 1
                return f"a gradient's norm of {norm:.3g}, {norm / usual:.0f} times the recent median"
        return None


class Average:
    """An exponential moving average of the parameters that learn, float32, sharded as they are."""

    def __init__(self, named: Iterable[tuple[str, nn.Parameter]], decay: float) -> None:
        self.decay = decay
        self.shadow = {name: parameter.detach().clone() for name, parameter in named if parameter.requires_grad}

    def update(self, named: Iterable[tuple[str, nn.Parameter]]) -> None:
        """After a good step."""
        with torch.no_grad():
            for name, parameter in named:
                if name in self.shadow:
                    self.shadow[name].lerp_(parameter.detach(), 1 - self.decay)

    @contextmanager
    def in_place(self, named: Iterable[tuple[str, nn.Parameter]]) -> Iterator[None]:
        """The parameters are their average while the block runs, and to the bit what they were after it."""
        kept = {name: parameter for name, parameter in named if name in self.shadow}
        last = {name: parameter.detach().clone() for name, parameter in kept.items()}
        with torch.no_grad():
            for name, parameter in kept.items():
                parameter.copy_(self.shadow[name])
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in kept.items():
                    parameter.copy_(last[name])


def gradients(optimiser: torch.optim.Optimizer) -> Iterator[Tensor]:
    """The gradients of what learns, of those parameters that have one."""
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                yield parameter.grad


def tensors(optimiser: torch.optim.Optimizer | None, learning: Iterable[tuple[str, nn.Parameter]], average: Average | None) -> dict[str, Any]:
    """What a checkpoint holds, by name: weights, the optimiser's moments (made where it has none yet), and their moving average."""
    held: dict[str, Any] = {}
    for name, parameter in learning:
        held[f"weights.{name}"] = parameter.detach()
        if average is not None:
            held[f"average.{name}"] = average.shadow[name]
        if optimiser is not None:
            state = optimiser.state[parameter]
            if not state:
                state |= {"step": torch.tensor(0.0), "exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.zeros_like(parameter)}
            held |= {f"adamw.{name}.{kind}": value for kind, value in state.items()}
    return held
