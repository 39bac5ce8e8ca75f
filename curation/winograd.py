"""Winograd's algorithm in one dimension: a convolution by three takes n + 2 products for n outputs instead of 3 n, exact up to rounding."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curation.frames import F32

POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)
"""Where the polynomials are evaluated, beside infinity. Source: A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv 1509.09308."""

Terms = tuple[tuple[int, np.float32], ...]
Slabs = Sequence[F32] | F32
"""Arrays of one shape, or one array of them."""


@dataclass(frozen=True)
class Tiling:
    """How `size` outputs of a convolution by 3 come from `size` + 2 products, in one dimension.

    Attributes:
        kernel: float32 [size + 2, 3], the kernel's values at the points.
        ends: what makes the first and the last input value (at 0 and at infinity).
        pairs: the even and the odd part of the input's values at x; their sum is the one at x, their difference the one at -x.
        out: for each output, its terms in the products' sums and differences by pairs.
    """

    size: int
    kernel: F32
    ends: tuple[Terms, Terms]
    pairs: tuple[tuple[Terms, Terms], ...]
    out: tuple[Terms, ...]

    @classmethod
    def of(cls, size: int) -> "Tiling":
        """For an even size up to 6. Source: Toom-Cook's polynomials, as POINTS."""
        points = POINTS[: size + 1]
        others = [[q for q in points if q != p] for p in points]
        into = [np.append(np.poly(o)[::-1], 0.0) for o in others] + [np.poly(points)[::-1]]
        kernel = [np.array([1, p, p * p]) / np.prod([p - q for q in o]) for p, o in zip(points, others, strict=True)] + [np.array([0, 0, 1])]
        even = np.arange(size + 2) % 2 == 0
        pairs = tuple((_terms(into[i] * even), _terms(into[i] * ~even)) for i in range(1, size + 1, 2))
        outs = []
        for k in range(size):
            row = np.zeros(size + 2)
            row[0], row[-1] = k == 0, k == size - 1
            row[1 + k % 2 : -1 : 2] = [p**k for p in points[1::2]]
            outs.append(_terms(row))
        return cls(size, np.stack(kernel).astype(np.float32), (_terms(into[0]), _terms(into[-1])), pairs, tuple(outs))

    def into(self, slabs: Slabs, out: Slabs, spare: F32) -> None:
        """Values at the points of `size` + 2 input slabs; spare: [3, a slab]."""
        for terms, target in zip(self.ends, (out[0], out[-1]), strict=True):
            _mix(terms, slabs, target, spare[0])
        for i, (even, odd) in enumerate(self.pairs):
            _mix(even, slabs, spare[0], spare[2])
            _mix(odd, slabs, spare[1], spare[2])
            np.add(spare[0], spare[1], out=out[2 * i + 1])
            np.subtract(spare[0], spare[1], out=out[2 * i + 2])

    def back(self, products: Slabs, out: Slabs, spare: F32) -> None:
        """`size` output slabs from the products, which are spoilt; spare: a slab."""
        for plus, minus in zip(products[1:-1:2], products[2:-1:2], strict=True):
            np.subtract(plus, minus, out=spare)
            plus += minus
            minus[...] = spare
        for terms, target in zip(self.out, out, strict=True):
            _mix(terms, products, target, spare)


def _terms(row: npt.NDArray[np.float64]) -> Terms:
    """The coefficients that are not 0; one that is 1 comes first if there is any, for `_mix` need not multiply by it."""
    return tuple(sorted(((i, np.float32(c)) for i, c in enumerate(row) if c), key=lambda term: term[1] != 1))


def _mix(terms: Terms, slabs: Slabs, out: F32, spare: F32) -> None:
    """The sum of the terms, in their order."""
    first, factor = terms[0]
    total = slabs[first] if factor == 1 else np.multiply(slabs[first], factor, out=out)
    for index, factor in terms[1:]:
        part = slabs[index] if abs(factor) == 1 else np.multiply(slabs[index], abs(factor), out=spare)
        total = (np.add if factor > 0 else np.subtract)(total, part, out=out)
    if total is not out:
        out[...] = total
