"""Validation: noise that never changes, nothing that training draws for itself, and no figure where nothing was measured."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.training.made_run import Batch, Data, settings, trainer, weights, window
from tests.training.made_world import world
from tests.training.model.worlds import dialogue
from tests.training.test_loop import Heard
from training.parallel import World
from training.phases import PHASES
from training.step import LossSettings, Sums
from training.validation import validate


def of(batches: list[Batch], seed: int = 0, loss: LossSettings | None = None) -> Sums:
    """Of a model of lively weights: a fresh one says nothing yet, whatever the text."""
    return validate(world(states=False), PHASES["decoder"], batches, loss or settings().loss, seed, World())


def test_equal_weights_have_equal_figures_at_whatever_step_they_are_asked(tmp_path: Path) -> None:
    heard = Heard()
    run = trainer(tmp_path, held=Data(3, first=7), watchers=[heard])
    before = weights(run.glp)
    for step in (3, 8):
        run.step = step
        torch.manual_seed(step)
        run._validated()
    (first, figures), (second, again) = heard.figures
    assert (first, second) == (3, 8)
    assert figures["validation_loss"] > 0
    assert {"validation_chunk_0", "validation_chunk_1"} < set(figures)
    assert figures == again
    assert run.glp.training
    assert all(torch.equal(value, before[name]) for name, value in weights(run.glp).items())


def test_each_sample_and_seed_has_noise_of_its_own() -> None:
    batch = Batch(window(5), keys=("a",))
    once, twice = of([batch]).mean, of([batch, replace(batch, keys=("b",))]).mean
    assert once == of([batch, batch]).mean == of([batch]).mean
    assert abs(twice - once) > 1e-4  # the second is the same window under other noise
    assert abs(of([batch], seed=1).mean - once) > 1e-4


def test_a_window_has_its_noise_in_whatever_batch_it_comes() -> None:
    """Ranks and batches cut the held-out windows in other ways, as after a change of the number of workers."""
    singles = [Batch(window(n), keys=(f"s{n}",)) for n in range(4)]
    by_two = [Batch(window(5, batch=2), keys=("x", "y")), Batch(window(6, batch=2), keys=("z", "v"))]
    apart = [batch.only(n) for batch in by_two for n in range(2)]
    assert of(by_two).mean == pytest.approx(of(apart[::-1]).mean, rel=1e-6)
    assert of(singles).mean == pytest.approx(of([singles[2], singles[0], singles[3], singles[1]]).mean, rel=1e-6)


def test_no_text_is_dropped() -> None:
    batch, always = Batch(window(5)), LossSettings(compute="float32", dropped=1.0)
    assert of([batch], loss=always).mean == of([batch]).mean


@pytest.mark.parametrize(("batches", "text"), [(0, "no window to validate on"), (2, "every sample of them failed its check")])
def test_where_nothing_was_measured_there_is_no_figure(batches: int, text: str) -> None:
    blank = Batch(replace(window(5), real_B=torch.zeros(1, dtype=torch.bool)))
    with pytest.raises(ValueError, match=text):
        of([blank] * batches)


def test_dialogues_of_which_nothing_comes_next_have_nothing_to_match() -> None:
    batch = Batch(window(5), [dialogue(1, 1)])
    with pytest.raises(ValueError, match="or has no next observation to match"):
        validate(world(), PHASES["matching"], [batch], settings().loss, 0, World())


def test_blanks_among_held_out_windows_weigh_nothing() -> None:
    one, blank = Batch(window(5)), Batch(replace(window(6), real_B=torch.zeros(1, dtype=torch.bool)))
    assert of([one, blank]).mean == of([one]).mean
