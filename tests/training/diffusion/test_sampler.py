"""Solvers: exact where the flow is straight, of second order where it bends, equal to diffusers' UniPC; and guidance."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from training.diffusion.sampler import Progress, Solver, SolverName, guided
from training.diffusion.schedule import NoiseSchedule

SHAPE = (2, 3, 2, 4, 4)


def noise(seed: int = 0) -> Tensor:
    return torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def run(solver: Solver, start: Tensor, velocity: Callable[[Tensor, float], Tensor]) -> Tensor:
    chunk = Progress(start)
    for at in range(solver.steps):
        chunk = solver.step(chunk, velocity(chunk.latents_BCFHW, solver.sigmas[at].item()))
    return chunk.latents_BCFHW


class Velocity:
    """The exact velocity where data is N(0, spread^2): the flow has a closed form."""

    def __init__(self, spread: float = 0.4) -> None:
        self.spread = spread

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        variance = ((1 - sigma) * self.spread) ** 2 + sigma**2
        return x * (sigma - (1 - sigma) * self.spread**2) / variance

    def end(self, start: Tensor) -> Tensor:
        return start * self.spread


@pytest.mark.parametrize("name", ["euler", "unipc"])
def test_a_straight_flow_is_solved_exactly(name: SolverName) -> None:
    data, start = noise(1), noise(2)
    for steps in (1, 2, 10):
        end = run(Solver(NoiseSchedule().grid(steps), name), start, lambda x, sigma: start - data)
        torch.testing.assert_close(end, data, rtol=0, atol=1e-12)


def test_orders_of_convergence() -> None:
    """Halving the steps' length halves Euler's error, and divides UniPC's by four or more."""
    flow, start = Velocity(), noise()
    error = {
        name: [(run(Solver(NoiseSchedule(1.0).grid(n), name), start, flow) - flow.end(start)).abs().max().item() for n in (40, 80)]
        for name in ("euler", "unipc")
    }
    orders = {name: math.log2(coarse / fine) for name, (coarse, fine) in error.items()}
    assert 0.8 < orders["euler"] < 1.3
    assert orders["unipc"] > 1.8
    assert error["unipc"][0] < error["euler"][0] / 5


@pytest.mark.parametrize("steps", [2, 3, 10, 50])
def test_unipc_against_diffusers_with_the_same_sigmas(steps: int) -> None:
    from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

    schedule = NoiseSchedule()
    theirs = UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=5.0, solver_order=2, solver_type="bh2")
    theirs.set_timesteps(sigmas=torch.linspace(1, 0, steps + 1, dtype=torch.float64)[:-1].numpy())
    torch.testing.assert_close(theirs.sigmas.double(), schedule.grid(steps), rtol=0, atol=2e-6)
    weights = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))

    def velocity(x: Tensor, sigma: float) -> Tensor:
        return torch.tanh(torch.einsum("bcfhw,cd->bdfhw", x, weights)) * (1 + sigma)

    solver, x = Solver(schedule.grid(steps), "unipc"), noise()
    ours = Progress(x)
    for at in range(steps):
        sigma = solver.sigmas[at].item()
        x = theirs.step(velocity(x, sigma), theirs.timesteps[at], x, return_dict=False)[0]
        ours = solver.step(ours, velocity(ours.latents_BCFHW, sigma))
        torch.testing.assert_close(ours.latents_BCFHW, x, rtol=0, atol=2e-5)  # theirs is float32 in its sigmas, and starts at 1 - 1e-6


def test_each_chunk_has_a_memory_of_its_own() -> None:
    """Two chunks whose steps alternate end where each ends alone: the solver keeps nothing."""
    solver, flow = Solver(NoiseSchedule().grid(8), "unipc"), Velocity()
    one, two = Progress(noise(1)), Progress(noise(2))
    for at in range(8):
        one = solver.step(one, flow(one.latents_BCFHW, solver.sigmas[at].item()))
        two = solver.step(two, flow(two.latents_BCFHW, solver.sigmas[at].item()))
    assert torch.equal(one.latents_BCFHW, run(solver, noise(1), flow))
    assert torch.equal(two.latents_BCFHW, run(solver, noise(2), flow))


def test_a_chunk_half_done_goes_through_a_file() -> None:
    solver, flow = Solver(NoiseSchedule().grid(6), "unipc"), Velocity()
    chunk = Progress(noise())
    for at in range(3):
        chunk = solver.step(chunk, flow(chunk.latents_BCFHW, solver.sigmas[at].item()))
    again = Progress.of(chunk.tensors())
    for at in range(3, 6):
        again = solver.step(again, flow(again.latents_BCFHW, solver.sigmas[at].item()))
    assert torch.equal(again.latents_BCFHW, run(solver, noise(), flow))


def test_a_done_chunk_takes_no_step() -> None:
    solver = Solver(NoiseSchedule().grid(1))
    with pytest.raises(ValueError, match="is done"):
        solver.step(Progress(noise(), step=1), noise())


def test_latents_keep_their_dtype() -> None:
    for name in ("euler", "unipc"):
        assert run(Solver(NoiseSchedule().grid(3), name), noise().float(), Velocity()).dtype == torch.float32


def test_guidance() -> None:
    v_c, v_u = noise(1), noise(2)
    torch.testing.assert_close(guided(v_c, v_u, 4.0), 4 * v_c - 3 * v_u, rtol=0, atol=1e-12)
    torch.testing.assert_close(guided(v_c, v_u, 1.0), v_c, rtol=0, atol=1e-15)
    assert torch.equal(guided(v_c, v_u, 0.0), v_u)
