"""Camera: its motion is found, and taken away before what acts is looked for."""

import numpy as np
import pytest

from curation.clips import ClipError
from filters.camera import Camera, fixtures, oblique, shift_field, similarity, unbent


def score(made) -> dict[str, float]:
    return Camera().score(made.frames())


@pytest.mark.parametrize("pan", [(0.05, 0.0), (-0.1, 0.05), (0.0, 0.03), (0.3, 0.0)])
def test_a_pan_has_its_direction_speed_and_nothing_else(scene, pan: tuple[float, float]) -> None:
    found = score(scene(pan=pan))
    assert (found["translation_x"], found["translation_y"]) == pytest.approx(pan, abs=0.004)
    assert found["translation"] == pytest.approx(np.hypot(*pan), abs=0.004)
    assert abs(found["zoom"]) < 0.01
    assert found["residual"] < 0.003
    assert found["pan"] > 0.8
    assert found["still"] == found["zoom_only"] == 0.0


@pytest.mark.parametrize("zoom", [0.15, 0.3, -0.1])
def test_a_zoom_has_its_sign_and_rate(scene, zoom: float) -> None:
    found = score(scene(zoom=zoom))
    assert found["zoom"] == pytest.approx(zoom, rel=0.1)
    assert found["translation"] < 0.004
    assert found["residual"] < 0.003
    assert found["zoom_only"] > 0.8
    assert found["still"] == found["pan"] == 0.0


def test_a_faster_pan_scores_higher(scene) -> None:
    speeds = [score(scene(pan=(speed, 0.0)))["translation"] for speed in (0.02, 0.04, 0.08, 0.16)]
    assert speeds == sorted(speeds)
    assert speeds[3] == pytest.approx(8 * speeds[0], rel=0.1)


@pytest.mark.parametrize("made", [{"width": 160, "height": 90}, {"width": 640, "height": 360}, {"fps": 15.0}, {"fps": 60.0}])
def test_size_and_frame_rate_do_not_matter(scene, made) -> None:
    one, two = score(scene(pan=(0.08, 0.02), patch=0.15)), score(scene(pan=(0.08, 0.02), patch=0.15, **made))
    assert two["translation"] == pytest.approx(one["translation"], rel=0.05)
    assert two["residual"] == pytest.approx(one["residual"], rel=0.25)


def test_an_actor_before_a_still_camera_is_no_camera(scene) -> None:
    found = score(scene(patch=0.15))
    assert found["translation"] < 0.003
    assert found["residual"] > 0.05
    assert found["still"] < 0.2
    assert found["pan"] == 0.0


def test_an_actor_is_seen_while_the_camera_moves(scene) -> None:
    for camera in ({"pan": (0.06, 0.0)}, {"zoom": 0.1}):
        alone, acting = score(scene(**camera)), score(scene(patch=0.15, **camera))
        assert alone["residual"] < 0.003 < 0.04 < acting["residual"]
        assert max(acting["pan"], acting["zoom_only"]) < 0.3


def test_still_noise_and_a_lamp_are_calm(scene) -> None:
    for made in ({}, {"noise": 4.0}, {"lamp": lambda t: 1 - 0.2 * t}):
        found = score(scene(**made))
        assert found["still"] > 0.7
        assert found["translation"] < 0.004


def test_a_shaking_hand_is_neither_pan_nor_actor(scene) -> None:
    found = score(scene(shake=0.004))
    assert found["shake"] > 0.01
    assert found["pan"] == 0.0
    assert found["residual"] < 0.005


def test_a_logo_is_no_actor(scene) -> None:
    frames = scene(pan=(0.08, 0.0)).frames()
    logo = np.random.default_rng(3).integers(0, 2, (6, 12), np.uint8).repeat(5, 0).repeat(5, 1) * 200
    frames.rgb[:, 20:50, 20:80] = logo[None, :, :, None]
    assert Camera().score(frames)["residual"] < 0.009
    assert Camera().score(frames)["pan"] > 0.5


def bowed(shape: tuple[int, int], by: float) -> np.ndarray:
    """Flow of a lens that bends more towards the border, `by` px in the corners in x and in y."""
    across, down = np.meshgrid(np.linspace(-1, 1, shape[1]), np.linspace(-1, 1, shape[0]))
    return (by * (across**2 + down**2)[..., None] / 2 * np.stack([across, down], -1)).astype(np.float32)


SHAPE = (96, 170)


def test_a_bend_is_the_lens_and_an_actor_is_not() -> None:
    field, seen, shift = bowed(SHAPE, 3.0), np.ones(SHAPE, bool), np.full(SHAPE, 12.0, np.float32)
    assert unbent(field, seen, shift) < 0.15
    field[30:55, 50:75] += (3.0, 0.0)  # 4 % of the picture
    assert unbent(field, seen, shift) == pytest.approx(3.0, abs=0.4)


def test_a_camera_that_hardly_moves_has_no_bend() -> None:
    field, seen = bowed(SHAPE, 3.0), np.ones(SHAPE, bool)
    raw = float(np.percentile(np.hypot(*field.reshape(-1, 2).T), 98))
    assert unbent(field, seen, np.zeros(SHAPE, np.float32)) == pytest.approx(raw, rel=0.02)
    assert unbent(field, seen, np.full(SHAPE, 2.0, np.float32)) == pytest.approx(raw - 1.0, rel=0.05)  # at most half of the shift
    assert unbent(field, ~seen, np.full(SHAPE, 9.0, np.float32)) == float("inf")


def test_a_picture_without_features_cannot_be_followed(scene) -> None:
    found = score(scene(blank=(0.0, 99.0)))
    assert found["tracked"] == 0.0
    assert found["residual"] == 0.0


def test_one_sample_is_too_short(scene) -> None:
    with pytest.raises(ClipError, match="too_short"):
        score(scene(seconds=0.26, fps=15.0))


def test_similarity_by_hand() -> None:
    start = np.random.default_rng(0).uniform(0, 200, (40, 2)).astype(np.float32)
    model, agree = similarity(start, (start * 1.1 + (3, -2)).astype(np.float32))
    assert agree == 40
    assert model == pytest.approx(np.array([[1.1, 0, 3], [0, 1.1, -2], [0, 0, 1]]), abs=1e-3)
    assert similarity(start[:2], start[:2])[1] == 0


def test_an_oblique_plane_takes_a_homography() -> None:
    start = np.random.default_rng(0).uniform(0, 200, (60, 2)).astype(np.float32)
    weight = 1 + 0.002 * start[:, :1]
    there = (start / weight).astype(np.float32)
    model, agree = similarity(start, there)
    wider = oblique(start, there, model, agree)
    moved = np.c_[start, np.ones(60)] @ wider.T
    assert moved[:, :2] / moved[:, 2:] == pytest.approx(there, abs=0.1)


def test_shift_field_by_hand() -> None:
    assert shift_field(np.array([[1.0, 0, 3], [0, 1, 4], [0, 0, 1]]), (8, 6)) == pytest.approx(np.full((6, 8), 5.0))


def test_fixtures_are_edges_that_stay(scene) -> None:
    lumas = [np.random.default_rng(i).integers(0, 255, (60, 80), np.uint8) for i in range(8)]
    for luma in lumas:
        luma[20:40, 20:40], luma[20:40, 30:40] = 0, 255
    found = fixtures(lumas)
    assert found[25:35, 28:32].all()
    assert not found[:15].any()
