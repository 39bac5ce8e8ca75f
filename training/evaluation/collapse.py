"""Collapse of predicted states: how much they vary, and how much of the world can be read out of them by a linear probe."""

# N samples, D numbers a state (its queries joined), P numbers to be read out (x and y of each block).

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.model.plain import must

Array = npt.NDArray[np.floating]

#: Strengths of the ridge that are tried, as shares of the features' mean variance. Source: our choice, from no ridge to a constant answer.
RIDGES = tuple(10.0**k for k in range(-6, 5))


@dataclass(frozen=True)
class Spread:
    """How states vary from sample to sample.

    Attributes:
        std: mean over the numbers of a state of their standard deviation.
        relative: std over the root mean square of the states: near 0, the states say next to nothing of their sample.
        rank: effective number of directions in which they vary, 1 to D; 0 where they do not.
    """

    std: float
    relative: float
    rank: float


@dataclass(frozen=True)
class Probe:
    """What a linear probe reads out of states that it has not seen.

    Attributes:
        r2: share of the targets' variance that is explained; 0 = no better than their mean, and below.
        accuracy: share of the blocks whose place is read to within `near`.
        ridge: the strength that leave-one-out on the training samples chose.
    """

    r2: float
    accuracy: float
    ridge: float


def spread(states_ND: Array) -> Spread:
    """How much states vary.

    Source of the rank: the exponential of the entropy of the singular values' shares (Roy and Vetterli 2007).

    Raises:
        ValueError: fewer than two samples.
    """
    must(states_ND.ndim == 2 and len(states_ND) >= 2, f"collapse: states {list(states_ND.shape)}; give [samples, numbers] of two samples at least")
    centred = np.asarray(states_ND, np.float64) - states_ND.mean(0)
    size = float(np.sqrt(np.mean(np.asarray(states_ND, np.float64) ** 2)))
    std = float(centred.std(0).mean())
    values = np.linalg.svd(centred, compute_uv=False)
    shares = values[values > 1e-12 * max(size, 1e-300) * np.sqrt(centred.size)]
    shares = shares / shares.sum() if len(shares) else shares
    return Spread(std, std / size if size else 0.0, float(np.exp(-(shares * np.log(shares)).sum())) if len(shares) else 0.0)


def probe(train: tuple[Array, Array], test: tuple[Array, Array], near: float) -> Probe:
    """Fits a ridge regression from states [N, D] to places [N, P] on `train`, and reads `test` with it.

    Args:
        train, test: (states, places); the samples of `test` must be of other stories.
        near: how far a block's place, (x, y), may be off.

    Raises:
        ValueError: shapes that do not fit, or fewer than three samples to train on.
    """
    (states_ND, places_NP), (seen, true) = ((np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in (train, test))
    fits = (
        states_ND.ndim == places_NP.ndim == 2 and len(states_ND) == len(places_NP) >= 3 and seen.shape[1:] == states_ND.shape[1:] and len(seen) == len(true) > 0
    )
    must(
        fits and places_NP.shape[1] % 2 == 0 and true.shape[1:] == places_NP.shape[1:],
        "probe: give states [N, D] and places [N, 2 x blocks], three to train on",
    )
    mean, scale, offset = states_ND.mean(0), states_ND.std(0), places_NP.mean(0)
    scale = np.where(scale > 1e-9 * (np.abs(mean) + 1e-300), scale, np.inf)  # what never varies says nothing
    u, values, vt = np.linalg.svd((states_ND - mean) / scale, full_matrices=False)
    told = u.T @ (places_NP - offset)
    ridge = min(RIDGES, key=lambda strength: _left_out_error(u, values, told, places_NP - offset, strength))
    shrunk = values / (values**2 + ridge * len(states_ND))
    read = ((seen - mean) / scale) @ (vt.T @ (shrunk[:, None] * told)) + offset
    off = np.linalg.norm((read - true).reshape(len(true), -1, 2), axis=-1)
    rest, whole = ((read - true) ** 2).sum(), ((true - true.mean(0)) ** 2).sum()
    return Probe(float(1 - rest / whole) if whole else 0.0, float((off <= near).mean()), ridge)


def _left_out_error(u: Array, values: Array, told: Array, places: Array, ridge: float) -> float:
    """Mean squared error of each training sample read by the probe of all others (Allen's PRESS), the mean among what is fitted."""
    shrunk = values**2 / (values**2 + ridge * len(u))
    leverage = (u**2 * shrunk).sum(1) + 1 / len(u)
    off = (places - u @ (shrunk[:, None] * told)) / np.maximum(1 - leverage, 1e-9)[:, None]
    return float((off**2).mean())
