"""Solvers from noise to latents, Euler and UniPC, each with a memory of its own per chunk; and classifier-free guidance."""

# Shape suffixes: B batch, C channels, F latent frames, H W latent height and width.

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

SolverName = Literal["euler", "unipc"]

#: The data share of pure noise in logarithms, where it is zero. Source: diffusers' flow UniPC starts at sigma 1 - 1e-6 for the same reason.
LEAST_DATA = 1e-6


@dataclass(frozen=True)
class Progress:
    """How far one chunk is denoised. Immutable, so that futures that fork from it share it.

    Attributes:
        latents_BCFHW: what the decoder sees next.
        step: steps that were taken.
        data_BCFHW: the clean latents that the last steps predicted, oldest first; a multistep solver's memory.
        from_BCFHW: where the last step began, after its correction; None before the first.
    """

    latents_BCFHW: Tensor
    step: int = 0
    data_BCFHW: tuple[Tensor, ...] = ()
    from_BCFHW: Tensor | None = field(default=None)

    def tensors(self) -> dict[str, Tensor]:
        """Everything by name, for a file."""
        held = {"latents": self.latents_BCFHW, "step": torch.tensor(self.step)} | {f"data.{k}": data for k, data in enumerate(self.data_BCFHW)}
        return held if self.from_BCFHW is None else held | {"from": self.from_BCFHW}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "Progress":
        """The inverse of `tensors`."""
        data = tuple(tensors[f"data.{k}"] for k in range(sum(name.startswith("data.") for name in tensors)))
        return cls(tensors["latents"], int(tensors["step"]), data, tensors.get("from"))


@dataclass(frozen=True)
class Solver:
    """Takes a chunk along a grid of noise shares.

    Args:
        sigmas: float64 [N + 1], from 1 to 0 (`NoiseSchedule.grid`).
        name: "euler", first order; "unipc", a predictor and corrector of order 2 on the same grid, which needs fewer steps.
    """

    sigmas: Tensor
    name: SolverName = "euler"

    @property
    def steps(self) -> int:
        """N."""
        return len(self.sigmas) - 1

    def step(self, chunk: Progress, velocity_BCFHW: Tensor) -> Progress:
        """One step on, along the velocity that the decoder gave for `chunk.latents_BCFHW`. Latents keep their dtype; coefficients are float64.

        Raises:
            ValueError: the chunk is done.
        """
        if chunk.step >= self.steps:
            raise ValueError(f"a chunk of {self.steps} steps is done; there is no step {chunk.step + 1}")
        if self.name == "euler":
            sigma, following = self.sigmas[chunk.step].item(), self.sigmas[chunk.step + 1].item()
            return Progress(chunk.latents_BCFHW + (following - sigma) * velocity_BCFHW, chunk.step + 1)
        return self._unipc(chunk, velocity_BCFHW)

    def _unipc(self, chunk: Progress, velocity_BCFHW: Tensor) -> Progress:
        """UniPC of order 2 with B(h) = e^h - 1, on predictions of the data.

        The decoder's answer first corrects the step that led here, then predicts the next. The first and the last step are of order 1.
        Source: Zhao et al. 2023 (arXiv 2302.04867), algorithms 5 and 7; Wan2.1's default solver.
        """
        at, here = chunk.step, chunk.latents_BCFHW
        data = here - self.sigmas[at].item() * velocity_BCFHW
        if chunk.from_BCFHW is not None:
            here = self._corrected(chunk, data)
        known = (*chunk.data_BCFHW, data)[-2:]
        step = _Step.between(self.sigmas, at)
        change = 0.5 * (known[0] - data) / step.ratio if self._order(at) == 2 else 0.0
        return Progress(step.end(here, data, change), at + 1, known, here)

    def _corrected(self, chunk: Progress, data_BCFHW: Tensor) -> Tensor:
        """The chunk as it would be here, had the last step known the data predicted here."""
        assert chunk.from_BCFHW is not None
        step, base = _Step.between(self.sigmas, chunk.step - 1), chunk.data_BCFHW[-1]
        change = 0.5 * (data_BCFHW - base)
        if self._order(chunk.step - 1) == 2:
            older, newer = step.corrector_weights()
            change = older * (chunk.data_BCFHW[-2] - base) / step.ratio + newer * (data_BCFHW - base)
        return step.end(chunk.from_BCFHW, base, change)

    def _order(self, at: int) -> int:
        """The order of step `at`."""
        return min(2, at + 1, self.steps - at)


@dataclass(frozen=True)
class _Step:
    """One step's coefficients, with lambda = log(data share / noise share).

    Attributes:
        kept: sigma's ratio, end to begin: the share of where it begins in where it ends. h: minus lambda's growth. grown: e^h - 1.
        ratio: lambda's way back to the step before, against its growth in this one; NaN where there is none.
    """

    kept: float
    h: float
    grown: float
    ratio: float

    @classmethod
    def between(cls, sigmas: Tensor, at: int) -> "_Step":
        """The step from `sigmas[at]` to `sigmas[at + 1]`."""
        begin, end = sigmas[at].item(), sigmas[at + 1].item()
        h = _log_ratio(begin) - _log_ratio(end)
        ratio = (_log_ratio(sigmas[at - 1].item()) - _log_ratio(begin)) / -h if at else math.nan
        return cls(end / begin, h, (end / begin - 1) / (1 - end), ratio)

    def end(self, begin: Tensor, data: Tensor, change: Tensor | float = 0.0) -> Tensor:
        """Where the step ends: exactly, if the predicted data does not change on the way; else with the `change` that the order's formula tells."""
        return self.kept * begin + (1 - self.kept) * (data + change)

    def corrector_weights(self) -> tuple[float, float]:
        """Weights of the difference to the older and to the newer prediction: they solve the order conditions of order 2."""
        phi = self.grown / self.h - 1
        first, second = phi / self.grown, 2 * (phi / self.h - 0.5) / self.grown
        older = (first - second) / (1 - self.ratio)
        return older, first - older


def _log_ratio(sigma: float) -> float:
    """log(data share / noise share)."""
    return math.inf if sigma == 0 else math.log(max(1 - sigma, LEAST_DATA) / sigma)


def guided(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """v_u + scale (v_c - v_u): 1 is no guidance, PAN samples with 4. Source: Ho and Salimans 2022; PAN, section 5."""
    return unconditional + scale * (conditional - unconditional)
