"""PSNR and SSIM against their definitions, and by rounds."""

import numpy as np
import pytest

from training.evaluation.picture_quality import HIGHEST_DB, by_round, psnr_db, ssim

RNG = np.random.default_rng(0)
A = RNG.integers(0, 256, (24, 30, 3)).astype(np.uint8)


def gray(rgb: np.ndarray) -> np.ndarray:
    return np.repeat(rgb[..., :1], 3, -1)


def test_psnr_is_by_its_definition() -> None:
    off = np.clip(A.astype(int) + 5, 0, 255).astype(np.uint8)
    error = ((off.astype(float) - A) ** 2).mean()
    assert psnr_db(off, A) == pytest.approx(10 * np.log10(255**2 / error))
    assert psnr_db(np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)) == pytest.approx(0.0)
    assert psnr_db(A, A) == HIGHEST_DB


def test_ssim_is_by_its_definition() -> None:
    a, b = gray(A), gray(np.clip(A + RNG.normal(0, 40, A.shape), 0, 255).astype(np.uint8))
    x = np.arange(-5, 6)
    window = np.exp(-(x**2) / (2 * 1.5**2))
    window = np.outer(window, window) / window.sum() ** 2
    found = []
    for i in range(24 - 10):
        for j in range(30 - 10):
            p, q = (picture[i : i + 11, j : j + 11, 0].astype(float) for picture in (a, b))
            mp, mq = (window * p).sum(), (window * q).sum()
            vp, vq, c = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum(), (window * (p - mp) * (q - mq)).sum()
            found.append((2 * mp * mq + 2.55**2) * (2 * c + 7.65**2) / ((mp**2 + mq**2 + 2.55**2) * (vp + vq + 7.65**2)))
    assert ssim(b, a) == pytest.approx(np.mean(found), abs=1e-9)
    assert ssim(a, a) == pytest.approx(1.0)
    assert ssim(255 - a, a) < 0


def test_each_round_is_its_own_frames() -> None:
    true = np.repeat(A[None], 7, 0)
    film = true.copy()
    film[4:, ..., 0] ^= 16  # the second round alone
    first, second = by_round(film, true, 3)
    assert (first.psnr_db, first.ssim) == (HIGHEST_DB, pytest.approx(1.0))
    assert second.psnr_db == pytest.approx(10 * np.log10(255**2 / (16**2 / 3)))
    assert second.ssim < 1
    film[0] = 0  # the image that was given is no round's
    assert by_round(film, true, 3)[0].psnr_db == HIGHEST_DB


def test_films_that_do_not_compare_are_refused() -> None:
    true = np.repeat(A[None], 7, 0)
    for film, chunk, says in ((true[:6], 3, "one shape"), (true, 4, "whole chunks"), (true[:1], 3, "one shape")):
        with pytest.raises(ValueError, match=says):
            by_round(film, true, chunk)
    with pytest.raises(ValueError, match="11 px"):
        by_round(true[:, :8], true[:, :8], 3)
