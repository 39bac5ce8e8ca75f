"""NoiseSchedule: the closed form exactly, the grids of Wan and diffusers within the bounds of their own rounding."""

import numpy as np
import pytest
import torch

from training.diffusion.schedule import NoiseSchedule, agree, timestep


@pytest.mark.parametrize("shift", [1.0, 2.0, 3.0, 5.0, 8.0])
@pytest.mark.parametrize("steps", [1, 7, 10, 50])
def test_the_grid_is_the_closed_form_exactly(shift: float, steps: int) -> None:
    index = [k / steps for k in range(steps, -1, -1)]
    expected = [shift * i / (1 + (shift - 1) * i) for i in index]
    assert NoiseSchedule(shift).grid(steps).tolist() == expected
    assert expected[0] == 1.0
    assert expected[-1] == 0.0


def test_sampling_passes_only_noise_shares_that_training_draws() -> None:
    schedule = NoiseSchedule()
    trained = schedule.training_sigmas()
    assert len(trained) == 1000
    for steps in (10, 50):  # whose indices are among the 1000
        assert set(schedule.grid(steps)[:-1].tolist()) <= set(trained.tolist())


def test_half_the_schedule_is_where_the_paper_puts_it() -> None:
    half = torch.tensor(0.5, dtype=torch.float64)
    assert [round(NoiseSchedule(s).sigma(half).item(), 3) for s in (2.0, 3.0, 5.0)] == [0.667, 0.75, 0.833]
    assert [round(NoiseSchedule(s).index(half).item(), 3) for s in (2.0, 3.0, 5.0)] == [0.333, 0.25, 0.167]
    sigma = torch.linspace(0, 1, 101, dtype=torch.float64)
    torch.testing.assert_close(NoiseSchedule().sigma(NoiseSchedule().index(sigma)), sigma, rtol=0, atol=1e-15)


@pytest.mark.parametrize("steps", [10, 50])
def test_against_wans_own_unipc_grid(steps: int) -> None:
    """Wan2.1's `FlowUniPCMultistepScheduler`: linspace from 0.999 to 0 without its end, shifted, then 0."""
    straight = np.linspace(0.999, 0.0, steps + 1)[:-1]
    wans = np.append(5 * straight / (1 + 4 * straight), 0.0)
    assert np.abs(NoiseSchedule().grid(steps).numpy() - wans).max() < 5e-4


@pytest.mark.parametrize("steps", [10, 50])
def test_against_diffusers_unipc_grid(steps: int) -> None:
    from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

    theirs = UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=5.0)
    theirs.set_timesteps(steps)
    assert (NoiseSchedule().grid(steps) - theirs.sigmas.double()).abs().max() < 5e-3
    assert theirs.timesteps.dtype == torch.int64  # they round what they tell the network; we do not
    assert timestep(NoiseSchedule().grid(10))[1].item() == pytest.approx(978.2609, abs=1e-4)


def test_timesteps_are_float32_whatever_the_latents_are() -> None:
    told = timestep(torch.tensor([0.055, 0.437, 0.997], dtype=torch.float64))
    assert told.dtype == torch.float32
    assert told.tolist() == [55.0, 437.0, 997.0]


def test_another_shift_than_trainings_is_told() -> None:
    with pytest.warns(UserWarning, match="trained with shift 5 and is sampled with shift 3"):
        assert not agree(NoiseSchedule(5.0), NoiseSchedule(3.0))
    assert agree(NoiseSchedule(5.0), NoiseSchedule(5.0, steps=50))  # how finely it is drawn from does not bend it


def test_impossible_schedules_are_refused() -> None:
    with pytest.raises(ValueError, match="shift 0"):
        NoiseSchedule(0.0)
    with pytest.raises(ValueError, match="1 steps"):
        NoiseSchedule(steps=1)
    with pytest.raises(ValueError, match="at least 1 step"):
        NoiseSchedule().grid(0)
