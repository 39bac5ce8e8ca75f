"""Windows: PAN's levels as the paper gives them, training's levels those of sampling, and every other plan as an instance."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from training.diffusion.plan import PLANS, WindowPlan
from training.diffusion.schedule import NoiseSchedule
from training.diffusion.swin import Levels, cond_sigma, draw, first_windows, levels, noised, start_of_window, target
from training.model.spec import ChunkSpec

SPEC, SCHEDULE, PAN = ChunkSpec(), NoiseSchedule(), PLANS["causal_swin"]
MANY = 4000


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(plan: WindowPlan, first: bool, spec: ChunkSpec = SPEC, schedule: NoiseSchedule = SCHEDULE, batch: int = MANY) -> Levels:
    return draw(plan, schedule, spec, torch.full((batch,), first), seeded())


def index_BG(found: Levels, spec: ChunkSpec = SPEC, schedule: NoiseSchedule = SCHEDULE) -> Tensor:
    """Each chunk's place in the schedule."""
    return schedule.index(found.sigma_BF[:, spec.cond_latents :: spec.chunk_latents])


def test_a_window_in_mid_stream_has_two_chunks_half_a_schedule_apart() -> None:
    found = drawn(PAN, first=False)
    assert found.sigma_BF.shape == (MANY, 21)
    assert (found.layout.cond, found.layout.chunks, found.layout.causal) == (1, (10, 10), True)
    index = index_BG(found)
    torch.testing.assert_close(index[:, 1] - index[:, 0], torch.full((MANY,), 0.5, dtype=torch.float64), rtol=0, atol=1e-12)
    numbers = (index[:, 0] * 1000).round().long()
    assert (numbers.min().item(), numbers.max().item()) == (1, 500)
    assert numbers.bincount()[1:].float().std() < 2 * (MANY / 500) ** 0.5  # uniform
    assert bool(found.present_BG.all())
    assert torch.equal(found.loss_BF[0], torch.tensor([False] + [True] * 20))


def test_levels_in_training_are_those_that_sampling_passes() -> None:
    """Every pair of levels that a sampling window of 50 steps has is one that training can draw; in sigma space, with a shift, none is."""
    grid = SCHEDULE.grid(50)
    pairs = {(round(a, 12), round(b, 12)) for a, b in zip(grid[25:-1].tolist(), grid[:25].tolist(), strict=True)}
    for space, common in (("index", len(pairs)), ("sigma", 0)):
        plan = WindowPlan(name="pan", offset_space=space)  # type: ignore[arg-type]
        found = drawn(plan, first=False, batch=20_000).sigma_BF
        trained = {(round(a, 12), round(b, 12)) for a, b in zip(found[:, 1].tolist(), found[:, 11].tolist(), strict=True)}
        assert len(pairs & trained) == common, space


def test_in_sigma_space_the_noise_shares_are_half_apart() -> None:
    found = drawn(WindowPlan(name="pan", offset_space="sigma"), first=False).sigma_BF
    torch.testing.assert_close(found[:, 11] - found[:, 1], torch.full((MANY,), 0.5, dtype=torch.float64), rtol=0, atol=1e-12)
    assert found[:, 1].max() <= 0.5
    assert found[:, 1].max() > 0.49
    straight = NoiseSchedule(1.0)
    same = [drawn(WindowPlan(name="pan", offset_space=s), first=False, schedule=straight).sigma_BF for s in ("index", "sigma")]  # type: ignore[arg-type]
    torch.testing.assert_close(same[0], same[1], rtol=0, atol=1e-12)  # without a shift the spaces are one


def test_a_first_window_starts_from_noise_and_has_its_second_chunk_only_in_the_lower_half() -> None:
    found = drawn(PAN, first=True)
    numbers = (index_BG(found)[:, 0] * 1000).round().long()
    assert numbers.min().item() <= 3
    assert numbers.max().item() >= 998
    assert torch.equal(found.present_BG[:, 1], numbers <= 500)
    assert 0.45 < found.present_BG[:, 1].double().mean().item() < 0.55
    assert torch.equal(found.loss_BF[:, 11:].any(1), found.present_BG[:, 1])
    assert bool(found.loss_BF[:, 1:11].all())
    assert bool((found.sigma_BF[~found.present_BG[:, 1]][:, 11:] == 1).all())


def test_chunks_that_no_window_has_are_left_out() -> None:
    for seed in range(100):
        found = draw(PAN, SCHEDULE, SPEC, torch.tensor([True]), seeded(seed))
        assert found.sigma_BF.shape[1] == found.layout.cond + sum(found.layout.chunks) == (21 if index_BG(found)[0, 0] <= 0.5 else 11)


def test_the_condition_frame_carries_a_trace_of_noise() -> None:
    found = drawn(PAN, first=False, batch=2)
    assert found.sigma_BF[:, 0].tolist() == [0.055, 0.055]
    assert found.timestep_BF[:, 0].tolist() == [55.0, 55.0]
    assert found.timestep_BF.dtype == torch.float32
    shares = [cond_sigma(WindowPlan(name="pan", cond_space="index"), NoiseSchedule(s)) for s in (2.0, 3.0, 5.0)]
    assert [round(share, 3) for share in shares] == [0.104, 0.149, 0.225]


def test_a_quarter_of_the_windows_are_first_ones() -> None:
    assert first_windows(PAN, MANY, seeded()).double().mean().item() == pytest.approx(0.25, abs=0.03)
    assert not first_windows(WindowPlan(name="pan", first_share=0.0), MANY, seeded()).any()


def test_a_window_begins_at_the_clips_first_frame_or_anywhere_behind_it() -> None:
    made = seeded()
    assert start_of_window(PAN, SPEC, 31, True, made) == 0
    starts = [start_of_window(PAN, SPEC, 31, False, made) for _ in range(500)]
    assert set(starts) == set(range(1, 11))
    assert {start_of_window(PAN, SPEC, 101, False, made, most_context=30) for _ in range(1000)} == set(range(1, 31))
    assert start_of_window(PAN, SPEC, 21, True, made) == 0
    for latents, first in ((21, False), (20, True)):
        with pytest.raises(ValueError, match=f"a clip of {latents} latent frames has no window of 21"):
            start_of_window(PAN, SPEC, latents, first, made)


def test_last_frame_conditioning_is_one_chunk_over_the_whole_schedule() -> None:
    for first in (False, True):
        found = drawn(PLANS["last_frame"], first)
        assert found.layout.chunks == (10,)
        assert index_BG(found).min() < 0.01
        assert index_BG(found).max() > 0.99


def test_the_full_window_is_bidirectional_at_one_level() -> None:
    found = drawn(PLANS["full_window"], first=True, batch=50)
    assert not found.layout.causal
    assert torch.equal(found.sigma_BF[:, 1], found.sigma_BF[:, 20])
    with pytest.raises(ValueError, match="must hold all its chunks"):
        drawn(WindowPlan(name="swin", causal=False), first=True)
    assert drawn(WindowPlan(name="swin", causal=False), first=False).layout.chunks == (10, 10)  # the Matrix's window, not causal


def test_four_chunks_a_quarter_apart() -> None:
    spec = ChunkSpec(window_chunks=4)
    index = index_BG(drawn(PLANS["magi"], False, spec), spec)
    torch.testing.assert_close(index - index[:, :1], torch.tensor([0, 0.25, 0.5, 0.75], dtype=torch.float64).expand(MANY, 4), rtol=0, atol=1e-12)
    assert index[:, 0].max().item() == pytest.approx(0.25)
    found = drawn(PLANS["magi"], True, spec)
    assert sorted(set(found.present_BG.sum(1).tolist())) == [1, 2, 3, 4]


def test_forcing_with_independent_levels_and_with_a_clean_past() -> None:
    index = index_BG(drawn(PLANS["diffusion_forcing"], False))
    assert abs(torch.corrcoef(index.T)[0, 1].item()) < 0.05
    found = drawn(PLANS["teacher_forcing"], False)
    assert found.sigma_BF[:, :11].unique().tolist() == [0.055]
    assert torch.equal(found.loss_BF[0], torch.tensor([False] * 11 + [True] * 10))
    assert index_BG(found)[:, 1].min() < 0.01


def test_sampling_asks_for_its_levels_by_value() -> None:
    found = levels(PAN, SCHEDULE, SPEC, SCHEDULE.grid(50)[None, 5:6])
    assert found.layout.chunks == (10,)
    assert found.sigma_BF[0].tolist() == [0.055] + [SCHEDULE.grid(50)[5].item()] * 10


def test_noised_latents_and_their_velocity() -> None:
    x, noise = torch.randn(2, 3, 21, 4, 4, generator=seeded(1)), torch.randn(2, 3, 21, 4, 4, generator=seeded(2))
    found = drawn(PAN, first=False, batch=2)
    sigma = found.sigma_BF.float()[:, None, :, None, None]
    mixed = noised(x, noise, found.sigma_BF)
    torch.testing.assert_close(mixed, (1 - sigma) * x + sigma * noise)
    torch.testing.assert_close(mixed - sigma * target(x, noise), x)  # Wan's sign: down the velocity lies the data
    torch.testing.assert_close(mixed + (1 - sigma) * target(x, noise), noise)
    assert noised(x.bfloat16(), noise.bfloat16(), found.sigma_BF).dtype == torch.float32


def test_the_same_seed_draws_the_same_levels() -> None:
    one, two = (draw(PAN, SCHEDULE, SPEC, torch.tensor([True, False]), seeded(3)) for _ in range(2))
    assert torch.equal(one.sigma_BF, two.sigma_BF)


def test_first_windows_may_have_another_condition_noise() -> None:
    plan = replace(PLANS["causal_swin"], first_cond_noise=0.01)
    first = torch.tensor([True, False, True])
    drawn = draw(plan, NoiseSchedule(), ChunkSpec(chunk_latents=2), first, torch.Generator().manual_seed(0))
    assert drawn.sigma_BF[:, 0].tolist() == [0.01, 0.055, 0.01]
    with pytest.raises(ValueError, match=r"first_cond_noise 1\.5"):
        replace(plan, first_cond_noise=1.5)
