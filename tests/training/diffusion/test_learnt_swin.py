"""What training teaches, sampling finds: a small decoder learns two worlds with PAN's windows, and rolls each out by its actions alone."""

import pytest
import torch

from tests.training.made_world import DEBUG, world
from training.diffusion.chunks import ChunkSampler, Context
from training.diffusion.sampler import Solver, SolverName
from training.model.glp import GLP, Window

SIDE, CHUNKS, STEPS = 2, 3, 250
MADE = torch.Generator().manual_seed(0)
IMAGE = torch.randn(1, 16, 1, SIDE, SIDE, generator=MADE)
CLIPS = torch.cat([IMAGE.expand(2, -1, -1, -1, -1), torch.randn(2, 16, 2 * CHUNKS, SIDE, SIDE, generator=MADE)], 2)
"""Two futures of one image, three chunks of two latent frames each."""
TEXTS = torch.randn(2, CHUNKS, DEBUG.text.tokens, DEBUG.text.d_model, generator=MADE)
NULL = torch.zeros(DEBUG.text.tokens, DEBUG.text.d_model)


@pytest.fixture(scope="module")
def learnt() -> GLP:
    """A decoder that has seen the first window of each clip and the one behind its first chunk."""
    model, generator = world(states=False), torch.Generator().manual_seed(0)
    latents = torch.cat([CLIPS[:, :, :5], CLIPS[:, :, 2:]]).repeat(4, 1, 1, 1, 1)
    texts = torch.cat([TEXTS[:, :2], TEXTS[:, 1:]]).repeat(4, 1, 1, 1)
    window = Window(latents, texts, None, torch.tensor([True, True, False, False] * 4), NULL)
    optimizer = torch.optim.Adam(model.decoder.parameters())
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=STEPS)
    for _ in range(STEPS):
        optimizer.zero_grad()
        model.window_loss(window, generator, dropped=0).loss.backward()
        optimizer.step()
        rate.step()
    return model


@pytest.mark.parametrize(("name", "steps"), [("euler", 20), ("unipc", 10)])
@pytest.mark.parametrize("clip", [0, 1])
def test_actions_decide_which_future_comes(clip: int, name: SolverName, steps: int, learnt: GLP) -> None:
    """Latents have variance 1: what knows nothing is 2 away from either future, the mean of both 0.5; levels, signs and masks must agree."""
    solver = Solver(learnt.schedule.grid(steps), name)
    sampler = ChunkSampler(velocity=learnt.velocity, plan=learnt.plan, schedule=learnt.schedule, spec=DEBUG.chunks, solver=solver, guidance=1.0)
    past = sampler.begin(IMAGE)
    for number in (0, 1):
        with torch.no_grad():
            past = sampler.following(past, Context(TEXTS[clip, number], NULL))
        frames = slice(1 + 2 * number, 3 + 2 * number)
        right, wrong = ((past[-1].latents_BCFHW - CLIPS[k : k + 1, :, frames]).square().mean().item() for k in (clip, 1 - clip))
        assert right < 0.7
        assert wrong > 1.6
