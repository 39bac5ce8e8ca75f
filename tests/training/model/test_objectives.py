"""Losses: values by hand, masks that mask, weights of mean one, tallies that add up."""

import math

import pytest
import torch

from training.diffusion.schedule import NoiseSchedule
from training.model import objectives

SCHEDULE = NoiseSchedule()


def test_the_flow_loss_is_the_mean_over_the_frames_that_count() -> None:
    target = torch.zeros(2, 3, 4, 2, 2)
    velocity = torch.zeros_like(target)
    velocity[0, :, 0] = 100.0  # the condition frame: never counted
    velocity[0, :, 1] = 1.0
    velocity[0, :, 2] = 2.0
    velocity[1, :, 3] = 100.0  # of a chunk that is not there
    error = objectives.errors(velocity, target)
    assert error.shape == (2, 4)
    counted = torch.tensor([[False, True, True, True], [False, True, True, False]])
    assert objectives.flow_matching(error, counted).item() == pytest.approx((1 + 4) / 5)
    weight = torch.tensor([[1.0, 2.0, 0.5, 1.0], [1.0, 1.0, 1.0, 1.0]])
    assert objectives.flow_matching(error, counted, weight).item() == pytest.approx((2 + 2) / 5)
    with pytest.raises(ValueError, match="every chunk"):
        objectives.flow_matching(error, torch.zeros(2, 4, dtype=torch.bool))


def test_masked_frames_give_no_gradient_even_if_they_are_not_numbers() -> None:
    velocity = torch.randn(1, 2, 3, 2, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    target = torch.zeros(1, 2, 3, 2, 2)
    target[:, :, 2] = math.inf
    objectives.flow_matching(objectives.errors(velocity, target), torch.tensor([[False, True, False]])).backward()
    assert velocity.grad is not None
    torch.testing.assert_close(velocity.grad[:, :, 1], velocity.detach()[:, :, 1] * 2 / 8)
    assert torch.equal(velocity.grad[:, :, 0], torch.zeros(1, 2, 2, 2))


def test_half_precision_is_compared_in_single() -> None:
    velocity, target = torch.full((1, 1, 1, 64, 64), 256.0, dtype=torch.bfloat16), torch.full((1, 1, 1, 64, 64), 257.0)
    assert objectives.errors(velocity, target).tolist() == [[1.0]]


def test_the_bell_has_mean_one_over_what_training_draws() -> None:
    weight = objectives.bell(SCHEDULE.training_sigmas(), SCHEDULE)
    assert weight.mean().item() == pytest.approx(1.0, abs=1e-12)
    assert weight.min().item() == 0.0
    assert SCHEDULE.training_sigmas()[weight.argmax()].item() == pytest.approx(0.5, abs=2e-3)
    assert objectives.weights(SCHEDULE.training_sigmas(), SCHEDULE) is None
    by_hand = [math.exp(-2 * (s.item() - 0.5) ** 2) for s in SCHEDULE.training_sigmas()]
    spread = [value - min(by_hand) for value in by_hand]
    assert weight[700].item() == pytest.approx(spread[700] * 1000 / sum(spread), rel=1e-9)


def test_training_fills_the_noise_buckets_equally() -> None:
    sigma = SCHEDULE.training_sigmas()[:, None]
    found = objectives.by_noise(torch.ones(1000, 1), sigma, torch.ones(1000, 1, dtype=torch.bool), SCHEDULE)
    assert found.count.tolist() == [100] * 10
    assert found.mean().tolist() == [1.0] * 10


def test_buckets_and_chunks_say_where_the_loss_comes_from() -> None:
    sigma = SCHEDULE.sigma(torch.tensor([[0.01, 0.3, 0.3, 0.8, 0.8]], dtype=torch.float64))
    error = torch.tensor([[50.0, 1.0, 3.0, 5.0, 7.0]])
    counted = torch.tensor([[False, True, True, True, True]])
    noise = objectives.by_noise(error, sigma, counted, SCHEDULE, buckets=2)
    assert (noise.mean().tolist(), noise.count.tolist()) == ([2.0, 6.0], [2, 2])
    chunk = objectives.by_chunk(error, counted, 1, (2, 2))
    assert chunk.mean().tolist() == [2.0, 6.0]
    counted[0, 3:] = False
    less = objectives.by_chunk(error, counted, 1, (2, 2))
    assert less.count.tolist() == [2, 0]
    assert math.isnan(less.mean()[1].item())
    both = chunk + less
    assert (both.mean().tolist(), both.count.tolist()) == ([2.0, 6.0], [4, 2])


def test_alignment_compares_as_many_tokens_as_there_are_queries() -> None:
    wanted = torch.zeros(2, 5, 3)
    wanted[:, 3:] = 9.0
    predicted = torch.full((2, 3, 3), 2.0, requires_grad=True)
    loss = objectives.alignment(predicted, wanted)
    assert loss.item() == 4.0
    loss.backward()
    with pytest.raises(ValueError, match="at least 6"):
        objectives.alignment(torch.zeros(2, 6, 3), wanted)


def test_latent_matching_stops_the_gradient_of_what_is_wanted() -> None:
    made = torch.Generator().manual_seed(1)
    predicted, wanted = (torch.randn(2, 4, 8, generator=made).requires_grad_() for _ in range(2))
    objectives.latent_matching(predicted, wanted).backward()
    assert predicted.grad is not None
    assert predicted.grad.abs().max() > 0
    assert wanted.grad is None
    assert objectives.latent_matching(3 * wanted + 1, wanted).item() < 1e-6  # scale and offset do not count
