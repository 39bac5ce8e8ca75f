"""Dear evidence on pictures whose relation is known: the same scene moved, another scene, wipes and pushes that are made."""

import cv2
import numpy as np
import pytest

from curation.evidence import Window
from curation.frames import F32, U8
from curation.same_scene import CUT_SCENE, GRADUAL_SCENE, cut_scene, drawn_over, explained, gradual_scene, layout, left_over, moved, onward, pattern, stays


def scene(seed: int, shift: int = 0) -> U8:
    """128 x 72 gray with corners, `shift` px further to the right."""
    rng = np.random.default_rng(seed)
    wide = cv2.resize(rng.integers(0, 256, (12, 40)).astype(np.uint8), (320, 96), interpolation=cv2.INTER_NEAREST)
    return np.ascontiguousarray(cv2.GaussianBlur(wide, (3, 3), 0)[:72, 40 + shift : 168 + shift])


def small(seed: int) -> F32:
    """18 x 32 levels of a scene."""
    return np.asarray(cv2.resize(scene(seed), (32, 18), interpolation=cv2.INTER_AREA), np.float32)


def wiped(a: F32, b: F32, steps: int = 7) -> F32:
    """b comes over a from the right."""
    edges = np.linspace(0, 32, steps + 2)[1:-1].round().astype(int)
    return np.stack([np.concatenate([a[:, : 32 - e], b[:, 32 - e :]], 1) for e in edges])


def pushed(a: F32, b: F32, steps: int = 7) -> F32:
    """b comes from the right and pushes a out."""
    edges = np.linspace(0, 32, steps + 2)[1:-1].round().astype(int)
    return np.stack([np.concatenate([a[:, e:], b[:, :e]], 1) for e in edges])


def test_the_same_scene_keeps_its_pattern() -> None:
    dim = (scene(1) * 0.5 + 90).astype(np.uint8)
    assert pattern(scene(1), scene(1)) > 0.9
    assert pattern(scene(1), dim) > 0.8
    assert pattern(scene(1), moved(scene(1), scene(1, 3))) > 0.8
    assert pattern(scene(1), moved(scene(1), scene(2))) < 0.6
    assert pattern(np.full((72, 128), 90, np.uint8), scene(1)) == pytest.approx(0, abs=0.01)


def test_flow_explains_a_shift_and_not_another_scene() -> None:
    near, far = moved(scene(1), scene(1, 2)), moved(scene(1), scene(2))
    assert left_over(scene(1), near).shape == (9, 16)
    assert left_over(scene(1), near).mean() < 0.3 * left_over(scene(1), far).mean()
    assert explained(scene(1), scene(1, 2), near) > 0.6 > explained(scene(1), scene(2), far)


def test_a_caption_leaves_most_cells() -> None:
    a = np.repeat(scene(1)[..., None], 3, 2)
    b = a.copy()
    b[56:64, 32:96] = 255
    assert stays(a, a, np.ones((9, 16), np.float32) * 9) == 1
    assert 0.9 < stays(a, b, np.ones((9, 16), np.float32) * 9) < 1


def test_layout_forgives_what_moves_within_a_place() -> None:
    a = np.random.default_rng(0).uniform(0, 255, (18, 32, 3)).astype(np.float32)
    assert layout(a.ravel(), a.ravel()) == 0
    swapped = a.copy()
    swapped[0, 0], swapped[0, 1] = a[0, 1], a[0, 0]
    assert layout(a.ravel(), swapped.ravel()) == 0
    assert layout(a.ravel(), 255 - a.ravel()) > 10


def turned(pictures: F32, side: int) -> F32:
    """What comes from the right comes from another side."""
    upright = pictures.swapaxes(-1, -2) if side % 2 else pictures
    return np.ascontiguousarray(upright[..., ::-1] if side >= 2 else upright)


@pytest.mark.parametrize("side", range(4))
def test_wipes_and_pushes_from_every_side_are_told(side: int) -> None:
    a, b = small(1), small(2)
    blend = np.stack([a * (1 - t) + b * t for t in np.linspace(0.1, 0.9, 7, dtype=np.float32)])
    wipe, push, mix = (drawn_over(*(turned(p, side) for p in (a, b, between))) for between in (wiped(a, b), pushed(a, b), blend))
    assert wipe[0] > 0.6
    assert wipe[2] > 0.6
    assert push[1] > 0.6 > push[0]
    assert max(mix[:3]) < 0.3


def test_a_cut_is_not_drawn_over() -> None:
    a, b = small(1), small(2)
    assert drawn_over(a, b, np.stack([a, a, b, b]))[:2] == pytest.approx((0, 0), abs=0.01)


def test_a_wipe_has_a_seam() -> None:
    a = np.repeat(np.linspace(40, 90, 32, dtype=np.float32)[None], 18, 0)
    b = np.repeat(np.linspace(200, 120, 18, dtype=np.float32)[:, None], 32, 1)
    assert drawn_over(a, b, wiped(a, b))[3] > 1
    assert drawn_over(a, b, pushed(a, b))[3] > 1


def test_a_pan_has_no_seam() -> None:
    wide = np.concatenate([small(1), small(1)[:, ::-1]], 1)
    pan = np.stack([wide[:, e : e + 32] for e in range(33)])
    _, slid, _, breaks = drawn_over(pan[0], pan[-1], pan[2:-2:4])
    assert slid > 0.9  # it slides as a push does
    assert breaks < 0.2


def test_onward_never_turns_back() -> None:
    there = np.array([[0, 9, 9], [9, 0, 9], [9, 9, 0]], np.float32)
    assert onward(there) == (0, [0, 1, 2])
    assert onward(there[::-1])[0] == 18
    assert sorted(onward(there[::-1])[1]) == onward(there[::-1])[1]


def test_evidence_has_its_names_at_the_ends_too() -> None:
    thumbs = [np.repeat(scene(1, i)[..., None], 3, 2) for i in range(12)]
    pictures = np.stack([cv2.resize(t, (32, 18), interpolation=cv2.INTER_AREA).ravel() for t in thumbs]).astype(np.float32)
    window = Window(0, np.zeros(12, np.float32), np.zeros((12, 48), np.float32), pictures, thumbs)
    for row in (1, 6, 11):
        for found, names in ((cut_scene(window, row), CUT_SCENE), (gradual_scene(window, row, 8), GRADUAL_SCENE)):
            assert found.shape == (len(names),)
            assert np.isfinite(found).all()
