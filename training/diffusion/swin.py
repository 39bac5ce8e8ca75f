"""Causal Swin-DPM: a window of chunks at different noise levels behind a noised condition frame, and other plans to compare it with."""

# Shape suffixes: B batch, C channels, F latent frames of a window, H W latent height and width, G chunks of a window.

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from training.diffusion.plan import WindowPlan
from training.diffusion.schedule import NoiseSchedule, timestep
from training.model.attention import Layout
from training.model.spec import ChunkSpec


def layout(plan: WindowPlan, spec: ChunkSpec, chunks: int | None = None) -> Layout:
    """What sees what in a window of `chunks` chunks, a full one by default."""
    lengths = (spec.chunk_latents,) * (plan.chunks if chunks is None else chunks)
    context: Literal["first", "own"] = "own" if plan.cond_context == "null" else "first"
    return Layout(spec.cond_latents, lengths, cond_in_first_chunk=plan.cond_in_first_chunk, causal=plan.causal, cond_context=context)


def cond_sigma(plan: WindowPlan, schedule: NoiseSchedule, first: bool = False) -> float:
    """The condition frame's noise share; `first`: where it is a clip's first image."""
    noise = plan.first_cond_noise if first and plan.first_cond_noise is not None else plan.cond_noise
    share: float = noise if plan.cond_space == "sigma" else schedule.sigma(torch.tensor(noise, dtype=torch.float64)).item()
    return share


@dataclass(frozen=True)
class Levels:
    """The noise in a batch of windows.

    Attributes:
        sigma_BF: float64 noise shares, condition frame first; 1 where a chunk is not there.
        present_BG: bool, whether the chunk is there; one that is not is seen by nobody who is, and never enters a loss.
        loss_BF: bool, the latent frames that are learnt from.
        layout: what sees what; chunks that no window of the batch has are left out of it, so F and G may be less than a full window's.
    """

    sigma_BF: Tensor
    present_BG: Tensor
    loss_BF: Tensor
    layout: Layout

    @property
    def timestep_BF(self) -> Tensor:
        """float32, what the decoder is told."""
        return timestep(self.sigma_BF)


def first_windows(plan: WindowPlan, batch: int, generator: torch.Generator) -> Tensor:
    """bool [B]: which windows of a batch shall begin at their clip's first frame, by the plan's `first_share`."""
    return torch.rand(batch, generator=generator, dtype=torch.float64) < plan.first_share


def start_of_window(plan: WindowPlan, spec: ChunkSpec, latents: int, first: bool, generator: torch.Generator, *, most_context: int | None = None) -> int:
    """Where in a clip of `latents` latent frames, encoded whole, a training window begins: its condition's first latent frame.

    The causal autoencoder makes of a clip's beginning what it makes of the beginning alone, so a window at latent j carries 4 j frames of true context: the
    same as encoding each window behind that many frames and dropping them, as PAN does, at a fraction of the work.

    Args:
        first: the window begins at the clip's first frame, whose latent stands for one frame; otherwise uniform over what is left.
        most_context: latent frames of context at most; 30 imitates PAN, which pads with 0 to 122 frames (of which 120 fit whole latents). None: any.

    Raises:
        ValueError: the clip is shorter than a window, or has no room for one in mid-stream.

    Source: PAN (arXiv 2511.09057v3), section 3.3.4.
    """
    window = layout(plan, spec).frames
    last = latents - window
    if last < (0 if first else 1):
        raise ValueError(f"a clip of {latents} latent frames has no window of {window}{'' if first else ' behind its first'}; take a longer clip")
    if first:
        return 0
    return 1 + int(torch.randint(last if most_context is None else min(last, max(1, most_context)), (), generator=generator))


def draw(plan: WindowPlan, schedule: NoiseSchedule, spec: ChunkSpec, first_B: Tensor, generator: torch.Generator) -> Levels:
    """Noise levels for a batch of training windows, on the generator's device.

    In mid-stream the first chunk's index is uniform over the first `span` of the schedule, and each chunk lies its offset above it. A first window must be
    learnt from pure noise on, so the first chunk's index is uniform over the whole schedule, and a later chunk is there only if its own index is at most 1.

    Args:
        first_B: bool, whether the window begins at its clip's first frame (`first_windows`).

    Raises:
        ValueError: the plan is bidirectional and its windows hold different numbers of chunks: those that are not there would be seen.
    """
    steps, offsets = schedule.steps, torch.tensor(plan.offsets, dtype=torch.float64, device=generator.device)
    first_B1 = first_B.to(generator.device)[:, None]
    usual = _numbers(plan, schedule)
    top_B1 = torch.where(first_B1, steps, usual)
    uniform_BG = torch.rand((len(first_B), plan.chunks if plan.independent else 1), generator=generator, dtype=torch.float64, device=generator.device)
    number_BG = torch.minimum((uniform_BG * top_B1).floor() + 1, top_B1)
    if plan.offset_space == "index":
        place_BG = number_BG + steps * offsets
        present_BG = place_BG <= steps
        sigma_BG = schedule.sigma(place_BG.clamp(max=steps) / steps)
    else:
        sigma_BG = schedule.sigma(number_BG / steps) + offsets
        present_BG = sigma_BG <= 1
    if not plan.causal and not bool(present_BG.all()):
        raise ValueError(f"plan {plan.name}: a bidirectional window must hold all its chunks; make it causal, or draw no first windows")
    sigma_BG = torch.where(present_BG, sigma_BG, torch.ones_like(sigma_BG))
    sigma_BG[:, : plan.clean] = cond_sigma(plan, schedule)
    return levels(plan, schedule, spec, sigma_BG, present_BG, first_B1[:, 0])


def _numbers(plan: WindowPlan, schedule: NoiseSchedule) -> int:
    """How many indices the first chunk of a full window can have: PAN's 500 of 1000."""
    top = torch.tensor(plan.span, dtype=torch.float64)
    share: float = (top if plan.offset_space == "index" else schedule.index(top)).item()
    return math.floor(schedule.steps * share + 1e-9)


def levels(
    plan: WindowPlan, schedule: NoiseSchedule, spec: ChunkSpec, sigma_BG: Tensor, present_BG: Tensor | None = None, first_B: Tensor | None = None
) -> Levels:
    """Windows whose chunks have the noise shares `sigma_BG`; training draws them, sampling takes them from its grid.

    Args:
        sigma_BG: float64; with fewer chunks than the plan's for a window that is not full.
        present_BG: which chunks are there; all by default.
        first_B: which windows begin at their clip's first image; none by default.
    """
    present_BG = torch.ones_like(sigma_BG, dtype=torch.bool) if present_BG is None else present_BG
    chunks = int(present_BG.any(0).sum())
    cond_BF = torch.full((len(sigma_BG), spec.cond_latents), cond_sigma(plan, schedule), dtype=torch.float64, device=sigma_BG.device)
    if first_B is not None:
        cond_BF[first_B.to(cond_BF.device)] = cond_sigma(plan, schedule, first=True)
    sigma_BF = torch.cat([cond_BF, sigma_BG[:, :chunks].repeat_interleave(spec.chunk_latents, 1)], 1)
    learnt_BG = present_BG[:, :chunks].clone()
    learnt_BG[:, : plan.clean] = False
    loss_BF = torch.cat([torch.zeros_like(cond_BF, dtype=torch.bool), learnt_BG.repeat_interleave(spec.chunk_latents, 1)], 1)
    return Levels(sigma_BF, present_BG[:, :chunks], loss_BF, layout(plan, spec, chunks))


def noised(latents_BCFHW: Tensor, noise_BCFHW: Tensor, sigma_BF: Tensor) -> Tensor:
    """(1 - sigma) x + sigma eps, at least float32."""
    kind = torch.promote_types(latents_BCFHW.dtype, torch.float32)
    sigma = sigma_BF.to(kind)[:, None, :, None, None]
    return (1 - sigma) * latents_BCFHW.to(kind) + sigma * noise_BCFHW.to(kind)


def target(latents_BCFHW: Tensor, noise_BCFHW: Tensor) -> Tensor:
    """The velocity eps - x that the decoder shall say, the same at every level."""
    kind = torch.promote_types(latents_BCFHW.dtype, torch.float32)
    return noise_BCFHW.to(kind) - latents_BCFHW.to(kind)
