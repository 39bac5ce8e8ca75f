"""Collapse: states of known variance and content, and probes that can only read what is there."""

import numpy as np
import pytest

from training.evaluation.collapse import probe, spread

RNG = np.random.default_rng(0)
PLACES = RNG.uniform(0.1, 0.9, (400, 6))
MIX = RNG.normal(size=(6, 32))


def halves(states: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    return (states[:200], PLACES[:200]), (states[200:], PLACES[200:])


def test_the_spread_of_known_states() -> None:
    wide = spread(RNG.normal(5.0, 2.0, (2000, 8)))
    assert wide.std == pytest.approx(2.0, rel=0.05)
    assert wide.relative == pytest.approx(2 / np.sqrt(29), rel=0.05)
    assert wide.rank == pytest.approx(8, abs=0.05)
    line = spread(np.outer(RNG.normal(size=500), np.ones(8)))
    assert line.rank == pytest.approx(1.0, abs=1e-6)
    collapsed = spread(np.full((10, 8), 3.0))
    assert (collapsed.std, collapsed.relative, collapsed.rank) == (0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="two samples"):
        spread(np.zeros((1, 8)))


def test_places_are_read_out_of_states_that_hold_them() -> None:
    found = probe(*halves(PLACES @ MIX + 7 + RNG.normal(0, 0.01, (400, 32))), near=0.05)
    assert found.r2 > 0.99
    assert found.accuracy > 0.99


def test_nothing_is_read_out_of_collapsed_or_foreign_states() -> None:
    for states in (np.full((400, 32), 3.0), RNG.normal(size=(400, 32)), RNG.normal(size=(400, 1000))):
        found = probe(*halves(states), near=0.05)
        assert -0.1 < found.r2 < 0.05  # no memorising: leave-one-out chose the ridge
        assert found.accuracy < 0.1


def test_a_state_that_holds_some_blocks_is_between() -> None:
    found = probe(*halves(PLACES[:, :2] @ MIX[:2]), near=0.05)
    assert 0.3 < found.r2 < 0.36
    assert 1 / 3 < found.accuracy < 0.45


def test_many_numbers_and_few_samples_still_generalise() -> None:
    states = PLACES @ RNG.normal(size=(6, 600)) + RNG.normal(0, 0.5, (400, 600))
    assert probe(*halves(states), near=0.1).r2 > 0.9


def test_what_does_not_fit_is_refused() -> None:
    good = (np.zeros((5, 4)), np.zeros((5, 2)))
    for train, test in ((good, (np.zeros((5, 3)), np.zeros((5, 2)))), ((good[0], np.zeros((4, 2))), good), ((good[0], np.zeros((5, 3))), good)):
        with pytest.raises(ValueError, match="probe: give states"):
            probe(train, test, 0.1)
