"""Objectives: the losses of the world model, as pure functions; and where in the schedule and in the window a loss comes from."""

# Shape suffixes: B batch, C channels, F latent frames of a window, H W latent height and width, N tokens, D width, G chunks of a window, K noise buckets.

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from training.diffusion.schedule import TIMESTEPS, NoiseSchedule

Weighting = Literal["none", "bell"]


@dataclass(frozen=True)
class Tally:
    """Sums that can be added up over batches and workers before a mean is taken.

    Attributes:
        total: float64 sums, one an entry (a noise bucket, a chunk).
        count: how many latent frames each sum holds.
    """

    total: Tensor
    count: Tensor

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.total + other.total, self.count + other.count)

    def mean(self) -> Tensor:
        """float64, NaN where nothing was counted."""
        return self.total / self.count


def errors(velocity_BCFHW: Tensor, target_BCFHW: Tensor) -> Tensor:
    """float32 [B, F] (or float64): the mean squared error of each latent frame; everything else is made of these."""
    kind = torch.promote_types(target_BCFHW.dtype, torch.float32)
    return (velocity_BCFHW.to(kind) - target_BCFHW.to(kind)).square().mean((1, 3, 4))


def flow_matching(error_BF: Tensor, loss_BF: Tensor, weight_BF: Tensor | None = None) -> Tensor:
    """The flow-matching loss: the mean of `errors` over the latent frames that are learnt from.

    Args:
        loss_BF: bool, which they are (`Levels.loss_BF`): no condition frame, and no chunk that is not there.
        weight_BF: a weight a frame; none in PAN.

    Raises:
        ValueError: there is no frame to learn from.

    Source: PAN (arXiv 2511.09057v3), equations 7 to 9.
    """
    if not bool(loss_BF.any()):
        raise ValueError("a loss over no latent frame: every chunk of the batch is masked")
    weighted_BF = error_BF if weight_BF is None else error_BF * weight_BF.to(error_BF.dtype)
    return torch.where(loss_BF, weighted_BF, torch.zeros_like(weighted_BF)).sum() / loss_BF.sum()


def bell(sigma_BF: Tensor, schedule: NoiseSchedule) -> Tensor:
    """float64, like `sigma_BF`: more weight to the middle of the schedule, none at its emptiest point, and 1 on average over what training draws.

    Source: DiffSynth-Studio and Self-Forcing: exp(-2 ((t - 500) / 1000)^2), its least value over the schedule taken off, divided by its mean.
    """

    def raw(sigma: Tensor) -> Tensor:
        return torch.exp(-2 * ((TIMESTEPS * sigma.double() - TIMESTEPS / 2) / TIMESTEPS).square())

    drawn = raw(schedule.training_sigmas().to(sigma_BF.device))
    return ((raw(sigma_BF) - drawn.min()) / (drawn - drawn.min()).mean()).clamp(min=0.0)


def weights(sigma_BF: Tensor, schedule: NoiseSchedule, weighting: Weighting = "none") -> Tensor | None:
    """What each latent frame's error weighs; None where all weigh the same, PAN's choice."""
    return None if weighting == "none" else bell(sigma_BF, schedule)


def by_noise(error_BF: Tensor, sigma_BF: Tensor, loss_BF: Tensor, schedule: NoiseSchedule, buckets: int = 10) -> Tally:
    """[K] errors by where in the schedule they lie, from least to most noise; equal widths in index, so that training fills them equally.

    The mean over all levels hides progress: nearly all of it is decided by how often the hard levels were drawn.
    """
    index_BF = schedule.index(sigma_BF.double())
    bucket_BF = (torch.ceil(index_BF * buckets - 1e-9).long() - 1).clamp(0, buckets - 1)
    return _tally(error_BF, bucket_BF, loss_BF, buckets)


def by_chunk(error_BF: Tensor, loss_BF: Tensor, cond: int, lengths: tuple[int, ...]) -> Tally:
    """[G] errors by chunk of the window, earliest first; `cond` condition frames, then chunks of `lengths` latent frames."""
    chunk_F = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)).to(error_BF.device)
    return _tally(error_BF[:, cond:], chunk_F.expand(len(error_BF), -1), loss_BF[:, cond:], len(lengths))


def _tally(error_BF: Tensor, entry_BF: Tensor, loss_BF: Tensor, entries: int) -> Tally:
    counted = entry_BF[loss_BF]
    total = torch.zeros(entries, dtype=torch.float64, device=error_BF.device)
    return Tally(total.index_add(0, counted, error_BF.detach()[loss_BF].double()), torch.bincount(counted, minlength=entries))


def alignment(predicted_BND: Tensor, wanted_BMD: Tensor) -> Tensor:
    """Pandora's first phase: the mean squared distance of what the connector says and what the text encoder says of the caption, token by token.

    Args:
        predicted_BND: the connector's N tokens.
        wanted_BMD: the text encoder's, zero-padded to at least N; what follows is not compared.

    Raises:
        ValueError: there are fewer wanted tokens than predicted ones.

    Source: Pandora (arXiv 2406.09455), section 3.2.
    """
    tokens = predicted_BND.shape[-2]
    if wanted_BMD.shape[-2] < tokens:
        raise ValueError(f"alignment of {tokens} tokens with {wanted_BMD.shape[-2]}; pad the text to at least {tokens}")
    return (predicted_BND.float() - wanted_BMD[..., :tokens, :].detach().float()).square().mean()


def latent_matching(predicted_BND: Tensor, wanted_BND: Tensor) -> Tensor:
    """A joint-embedding loss for comparison: the predicted next state against the encoder's state of what came, whose gradient is stopped.

    Smooth L1 of both, normalised a token, so that neither can win by growing or shrinking. It lies on the states and not on the pixels; PAN argues that such a
    loss alone lets states collapse, and grounds them in the decoder's loss instead. Source: the form of V-JEPA's (arXiv 2404.08471); PAN, section 2.
    """
    predicted, wanted = (torch.nn.functional.layer_norm(x.float(), x.shape[-1:]) for x in (predicted_BND, wanted_BND.detach()))
    return torch.nn.functional.smooth_l1_loss(predicted, wanted)
