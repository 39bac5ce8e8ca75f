"""Luma: its weights, the size that pictures are brought to, and edges that a small motion does not change."""

import numpy as np

from curation.luma import at_side, edge_change, luma_of


def test_luma_has_the_weights_of_bt_601() -> None:
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    assert luma_of(colours).tolist() == [[76, 150, 29, 255]]


def test_at_side_keeps_the_aspect() -> None:
    assert at_side(np.zeros((90, 160), np.uint8), 192).shape == (192, 341)
    assert at_side(np.zeros((640, 360), np.uint8), 192).shape == (341, 192)


def test_edge_change_forgives_a_pixel() -> None:
    a = np.zeros((20, 20), np.uint8)
    a[5] = 255
    assert edge_change(a, np.roll(a, 1, 0)) == 0
    assert edge_change(a, np.roll(a, 5, 0)) == 1
    assert edge_change(a * 0, a * 0) == 0
