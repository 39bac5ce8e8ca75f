"""Luma: a picture without its colours, brought to a size, and where its edges are."""

from dataclasses import dataclass

import cv2
import numpy as np

from curation.frames import U8

_AROUND = np.ones((3, 3), np.uint8)


def luma_of(rgb: U8) -> U8:
    """Luma of one picture [H, W, 3], uint8 [H, W]: BT.601 weights, full range."""
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)


def at_side(luma: U8, side: int) -> U8:
    """The picture [H, W] with its short side `side` px; smaller ones are enlarged."""
    scale = side / min(luma.shape)
    size = (max(1, round(luma.shape[1] * scale)), max(1, round(luma.shape[0] * scale)))
    return np.asarray(cv2.resize(luma, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR), np.uint8)


@dataclass(frozen=True)
class Edges:
    """A picture's edges: uint8 [H, W], 255 where one is; `near` the same within one pixel; how many there are."""

    here: U8
    near: U8
    count: int

    @classmethod
    def of(cls, gray: U8) -> "Edges":
        """Canny's edges of uint8 [H, W]."""
        return cls.among(np.asarray(cv2.Canny(gray, 100, 200), np.uint8))

    @classmethod
    def among(cls, edges: U8) -> "Edges":
        """A map of edges, widened and counted once for both of its neighbours."""
        return cls(edges, np.asarray(cv2.dilate(edges, _AROUND), np.uint8), cv2.countNonZero(edges))

    def change(self, other: "Edges") -> float:
        """Share of edge pixels of either picture without an edge of the other within one pixel, in [0, 1]; 0 where neither has an edge.

        Source: R. Zabih, J. Miller, K. Mai, "A feature-based algorithm for detecting and classifying scene breaks", ACM Multimedia 1995 (edge change
        fraction, with a dilation that forgives small motion).
        """
        shared = cv2.countNonZero(cv2.bitwise_and(self.here, other.near)) + cv2.countNonZero(cv2.bitwise_and(other.here, self.near))
        both = self.count + other.count
        return (both - shared) / both if both else 0.0


def edge_change(a: U8, b: U8) -> float:
    """`Edges.change` of two edge maps."""
    return Edges.among(a).change(Edges.among(b))
