"""The long horizon: the true simulator keeps its quality and its smooth joins, a copy does neither; models fit in through one function."""

from dataclasses import replace

import numpy as np
import pytest

from tests.training.made_world import world as model_of
from training.evaluation.block_fidelity import Predictor, copy_of_start, simulator
from training.evaluation.block_horizon import horizon
from training.evaluation.blockworld import World, episode, episodes
from training.evaluation.predictors import predictor
from training.sampling import Sampling

WORLD = World(chunk_frames=8)


def jumping(world: World) -> Predictor:
    """The truth, but each chunk lies 2 px further to the right than the one before."""
    true = simulator(world)

    def predict(image: np.ndarray, actions: object) -> np.ndarray:
        film = true(image, actions)  # type: ignore[arg-type]
        for k in range(1, len(film)):
            film[k] = np.roll(film[k], 2 * ((k - 1) // world.chunk_frames), axis=1)
        return film

    return predict


def test_what_is_measured_tells_good_films_from_bad() -> None:
    stories = list(episodes(WORLD, 3, 0, 2, "unseen"))
    best, copy, jumps = (horizon(make(WORLD), stories) for make in (simulator, copy_of_start, jumping))
    assert best.fidelity.obeyed == 1.0
    assert min(q.ssim for q in best.quality_R) > 0.97
    assert best.joins == pytest.approx(best.true_joins, abs=0.03)
    assert best.speed == pytest.approx(best.true_speed, rel=0.2)
    assert copy.fidelity.obeyed < 0.4
    assert copy.quality_R[-1].psnr_db < best.quality_R[-1].psnr_db - 5
    assert (copy.joins, copy.speed) == (pytest.approx(1.0, abs=1e-3), pytest.approx(0.0, abs=1e-2))  # smooth, as it stands still
    assert jumps.joins is not None
    assert best.joins is not None
    assert jumps.joins < 0.8 * best.joins
    assert jumps.elsewhere == pytest.approx(best.elsewhere, abs=0.05)
    assert best.to_dict()["fidelity"]["steps"] == 6


def test_a_model_is_a_predictor() -> None:
    model = model_of()
    sampling = Sampling(steps=2)
    told, again, untold = (predictor(model, WORLD, sampling, actions_told=tell) for tell in (True, True, False))
    story = episode(WORLD, 2, 0, 0)
    found = horizon(told, [story])
    assert found.fidelity.steps == 2
    assert found.fidelity.obeyed == 0.0  # random weights film no block
    image = np.zeros((64, 64, 3), np.uint8)
    films = [predict(image, ["push the red block left", "nothing moves"]) for predict in (told, again, untold)]
    assert films[0].shape == (17, 64, 64, 3)
    assert (films[0] == films[1]).all()
    assert (films[0] != films[2]).any()
    assert (films[2] == untold(image, ["nothing moves", "push the red block left"])).all()  # it was told nothing


def test_films_of_another_shape_and_models_of_another_world_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the story's is \[17, 64, 64, 3\]"):
        horizon(lambda image, actions: np.zeros((9, 64, 64, 3), np.uint8), [episode(WORLD, 2, 0, 0)])
    for world, says in ((World(), "the world's is 40"), (replace(WORLD, size=96), "96 a side")):
        with pytest.raises(ValueError, match=says):
            predictor(model_of(), world, Sampling())
    with pytest.raises(ValueError, match="16 text tokens cannot tell 'push the red block left' from 'push the red block right'"):
        predictor(model_of(states=False), WORLD, Sampling())
    assert predictor(model_of(states=False), WORLD, Sampling(), actions_told=False)
