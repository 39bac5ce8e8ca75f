"""Teach VAE: a small video autoencoder learns to give back a corpus' own pictures, before anything is encoded with it."""

# Shapes: B videos, C colours, T frames, H W px.

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor

from curation.config import Config
from training.model.plain import must
from training.model.small_vae import SmallVae
from training.model.spec import VaeSpec
from training.optim import lesson_rate

Film_THWC = npt.NDArray[np.uint8]


class TeachSettings(Config):
    """How the autoencoder learns; the defaults are chosen on 64 px films of the block world."""

    steps: int = Field(500, ge=1, description="optimiser steps; 400 already give blocks back within a px of 64")
    batch: int = Field(8, ge=1, description="videos a step")
    latents: int = Field(3, ge=2, description="latent frames of a video, the first of a single frame among them")
    lr: float = Field(2e-3, gt=0, le=1, description="peak learning rate, of a cosine with a twentieth of warm-up")
    absolute: float = Field(0.1, ge=0, description="weight of the absolute error beside the squared one: edges become sharper")
    certain: float = Field(1e-6, ge=0, description="weight of the posterior's distance to N(0, 1): a trace, latents are normalised afterwards")
    clip: float = Field(1.0, gt=0, description="most that the gradient's norm may be")
    seed: int = Field(0, ge=0, description="of the weights, the videos' order and the noise")


def teach(spec: VaeSpec, films: Sequence[Film_THWC], settings: TeachSettings, told: Callable[[int, float], None] = lambda step, db: None) -> SmallVae:
    """A new autoencoder that has learnt on `films`, in evaluation mode; its spec holds its latents' mean and deviation.

    One deviation is given for all channels: the flow then spends its effort on what changes the picture most, not on the finest detail as on the coarsest.

    Args:
        spec: of kind "small"; its `mean` and `std` are measured anew.
        films: uint8 RGB [T, H, W, 3] on the model's clock.
        told: called with each hundredth step and its reconstruction's PSNR, dB.

    Raises:
        ValueError: a film is shorter than a video of the training.
    """
    frames = 1 + (settings.latents - 1) * spec.temporal
    must(bool(films) and all(len(film) >= frames for film in films), f"teaching an autoencoder: videos of {frames} frames are needed, a film has less")
    order = np.random.default_rng(settings.seed)
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        vae = SmallVae(replace(spec, mean=(0.0,) * spec.channels, std=(1.0,) * spec.channels))
        learner = torch.optim.AdamW(vae.parameters(), lr=settings.lr, betas=(0.9, 0.95), weight_decay=0.0)
        for step in range(settings.steps):
            for group in learner.param_groups:
                group["lr"] = settings.lr * lesson_rate(step, settings.steps)
            db = _learnt(vae, learner, _drawn(films, frames, spec.temporal, settings.batch, order), settings)
            if (step + 1) % 100 == 0:
                told(step + 1, db)
    return measured(vae.eval(), [film[:frames] for film in films[:64]])


def measured(vae: SmallVae, films: Sequence[Film_THWC]) -> SmallVae:
    """The autoencoder with the mean of each latent channel, and one deviation for all, as these films have them."""
    with torch.no_grad():
        means_CN = torch.cat([vae(as_video([film]))[0][0].flatten(1) for film in films], 1)
    spread = float(means_CN.var(1).mean().sqrt())
    vae.spec = replace(vae.spec, mean=tuple(means_CN.mean(1).tolist()), std=(spread,) * vae.spec.channels)
    return vae


def as_video(films: Sequence[Film_THWC]) -> Tensor:
    """Films of one length as [B, 3, T, H, W] in [-1, 1]."""
    return torch.from_numpy(np.stack(films)).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def _drawn(films: Sequence[Film_THWC], frames: int, temporal: int, batch: int, order: np.random.Generator) -> Tensor:
    """Random pieces of random films, each beginning where a latent frame ends."""
    chosen = [films[int(number)] for number in order.integers(len(films), size=batch)]
    begins = [temporal * int(order.integers(1 + (len(film) - frames) // temporal)) for film in chosen]
    return as_video([film[begin : begin + frames] for film, begin in zip(chosen, begins, strict=True)])


def _learnt(vae: SmallVae, learner: torch.optim.Optimizer, video_BCTHW: Tensor, settings: TeachSettings) -> float:
    """One step; the PSNR that it found, dB."""
    mean, log_variance = vae(video_BCTHW)
    made = vae.reconstruct(mean + torch.randn_like(mean) * (0.5 * log_variance).exp())
    squared = (made - video_BCTHW).square().mean()
    distance = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    loss = squared + settings.absolute * (made - video_BCTHW).abs().mean() + settings.certain * distance
    learner.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(vae.parameters(), settings.clip)
    learner.step()
    return 10 * math.log10(4 / float(squared.detach()))
