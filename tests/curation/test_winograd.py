"""Winograd's algorithm against the sum that defines a convolution."""

import numpy as np
import pytest

from curation.winograd import Tiling


@pytest.mark.parametrize("size", [2, 4, 6])
def test_products_at_points_are_a_convolution(size: int) -> None:
    rng = np.random.default_rng(size)
    signal, kernel = rng.standard_normal((size + 2, 5)).astype(np.float32), rng.standard_normal(3).astype(np.float32)
    tiling, given = Tiling.of(size), signal.copy()
    values, out = np.empty((size + 2, 5), np.float32), np.empty((size, 5), np.float32)
    tiling.into(signal, values, np.empty((3, 5), np.float32))
    tiling.back(values * (tiling.kernel @ kernel)[:, None], out, np.empty(5, np.float32))
    expected = sum(kernel[k] * given[k : k + size] for k in range(3))
    np.testing.assert_allclose(out, expected, atol=2e-5)
    assert np.array_equal(signal, given)  # what came in is as it was


def test_two_outputs_take_the_four_products_of_the_literature() -> None:
    # Source: A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks", section 4.1: F(2, 3), up to each product's sign.
    tiling, d = Tiling.of(2), np.array([[1.0], [10.0], [100.0], [1000.0]], np.float32)
    values = np.empty((4, 1), np.float32)
    tiling.into(d, values, np.empty((3, 1), np.float32))
    assert np.abs(values[:, 0]).tolist() == [99, 110, 90, 990]
    assert np.abs(tiling.kernel).tolist() == [[1, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0.5], [0, 0, 1]]
