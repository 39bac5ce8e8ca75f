"""NoiseSchedule: how much noise a place in the schedule means; the one object that training and sampling share."""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

#: What a decoder is told of a noise share sigma: 1000 sigma, however many training indices there are. Source: Wan2.1, `num_train_timesteps`.
TIMESTEPS = 1000.0


@dataclass(frozen=True)
class NoiseSchedule:
    """Places in the schedule, `index` in [0, 1], and the noise shares sigma in [0, 1] that they stand for: 0 is data, 1 is noise.

    x_sigma = (1 - sigma) x + sigma eps, and the velocity is eps - x: Wan's sign. The paper's k of its equation 7 is 1 - sigma; the k of its sections 3.3.3
    and 3.3.5 is `index`, the only reading under which they agree with one another.

    Args:
        shift: bends the schedule towards noise: sigma = s i / (1 + (s - 1) i). The paper gives none; 5 is Wan's own default for sampling.
        steps: discrete indices 1/steps, 2/steps, ..., 1 from which training draws; PAN's 1000.

    Raises:
        ValueError: `shift` is not above 0, or `steps` is below 2.

    Source: PAN (arXiv 2511.09057v3), section 3.3.1; the shift: Esser et al. 2024 (arXiv 2403.03206), section 5.3.2.
    """

    shift: float = 5.0
    steps: int = 1000

    def __post_init__(self) -> None:
        if not self.shift > 0:
            raise ValueError(f"schedule: shift {self.shift}; it must be above 0 (1 leaves the schedule straight, Wan's default is 5)")
        if self.steps < 2:
            raise ValueError(f"schedule: {self.steps} steps; at least 2 are needed")

    def sigma(self, index: Tensor) -> Tensor:
        """Noise shares at `index`, of the same shape and dtype; 0 at 0 and 1 at 1, exactly."""
        return self.shift * index / (1 + (self.shift - 1) * index)

    def index(self, sigma: Tensor) -> Tensor:
        """The inverse of `sigma`."""
        return sigma / (self.shift - (self.shift - 1) * sigma)

    def training_sigmas(self) -> Tensor:
        """float64 [steps]: what training draws from, each as often as any other, from least to most noise."""
        return self.sigma(torch.arange(1, self.steps + 1, dtype=torch.float64) / self.steps)

    def grid(self, steps: int) -> Tensor:
        """float64 [steps + 1]: the noise shares that sampling passes, from 1 to 0, evenly spaced in `index`.

        Raises:
            ValueError: `steps` is below 1.
        """
        if steps < 1:
            raise ValueError(f"sampling takes at least 1 step, not {steps}")
        return self.sigma(torch.arange(steps, -1, -1, dtype=torch.float64) / steps)


def timestep(sigma: Tensor) -> Tensor:
    """float32 of the same shape: what the decoder is told. Never bfloat16, which knows no 437 and no 997."""
    return (TIMESTEPS * sigma.double()).float()


def agree(trained: NoiseSchedule, sampled: NoiseSchedule) -> bool:
    """Whether a model that was trained with one schedule is sampled with the same; warns, with both shifts, where it is not."""
    if trained.shift != sampled.shift:
        warnings.warn(
            f"the model was trained with shift {trained.shift:g} and is sampled with shift {sampled.shift:g}: two chunks half a schedule apart then meet at "
            f"noise levels that they never met in training; sample with shift {trained.shift:g}",
            stacklevel=2,
        )
    return trained.shift == sampled.shift
