"""Motion: faster is more, and size, frame rate, direction and noise do not matter."""

import numpy as np
import pytest

from curation.clips import ClipError
from filters.motion import Motion, flicker, middle_mean, percentile, steadiness


@pytest.fixture(scope="module")
def pan(scene):
    return Motion().score(scene(pan=(0.1, 0.0)).frames())


def test_flow_is_the_speed_in_diagonals_per_second(scene, pan) -> None:
    assert pan["flow"] == pytest.approx(0.1, rel=0.05)
    for speed in (0.025, 0.05, 0.2):
        assert Motion().score(scene(pan=(speed, 0.0)).frames())["flow"] == pytest.approx(speed, rel=0.1, abs=0.005)


@pytest.mark.parametrize("made", [{"width": 160, "height": 90}, {"width": 640, "height": 360}, {"fps": 15.0}, {"fps": 60.0}, {"seconds": 5.0625}])
def test_size_frame_rate_and_length_do_not_matter(scene, pan, made) -> None:
    same = Motion().score(scene(pan=(0.1, 0.0), **made).frames())
    assert same["flow"] == pytest.approx(pan["flow"], rel=0.05)
    assert same["moving_share"] == pytest.approx(pan["moving_share"], abs=0.05)


def test_opposite_motions_do_not_cancel(scene, pan) -> None:
    back = Motion().score(scene(pan=(-0.1, 0.0)).frames())
    zoom = Motion().score(scene(zoom=0.2).frames())
    assert back["flow"] == pytest.approx(pan["flow"], rel=0.05)
    assert zoom["flow"] > 0.05


def test_nothing_moves_in_a_still_picture(scene) -> None:
    still = Motion().score(scene().frames())
    assert still == {**dict.fromkeys(Motion.scores, 0.0), "stability": 1.0, "static_share": 1.0}


def test_noise_is_hardly_motion(scene) -> None:
    assert Motion().score(scene(noise=4.0).frames())["flow"] < 0.005


def test_one_actor_before_a_still_camera_is_seen(scene) -> None:
    acting = Motion().score(scene(patch=0.15).frames())
    assert acting["flow"] == pytest.approx(0.15, rel=0.15)
    assert 0.1 < acting["moving_share"] < 0.35
    assert acting["static_share"] == 0.0


def test_the_second_half_counts(scene) -> None:
    late = Motion().score(scene(patch=0.15, starts_s=5.2, seconds=10.0).frames())
    assert late["static_share"] == pytest.approx(0.52, abs=0.05)
    assert late["flow"] > 0.04


def test_flicker_counts_the_lamp_not_the_frames(scene) -> None:
    lamp = {"lamp": lambda t: 1.0 if int(t * 4) % 2 else 0.5}
    slow, fast = (Motion().score(scene(fps=fps, **lamp).frames())["flicker"] for fps in (15.0, 60.0))
    assert slow == pytest.approx(fast, rel=0.1)
    assert slow > 0.5
    assert Motion().score(scene(lamp=lambda t: 1 - 0.3 * t).frames())["flicker"] == 0.0


def test_flicker_by_hand() -> None:
    time_s = np.arange(0, 2, 0.1, dtype=np.float32)
    square = np.where(np.arange(20) % 2, 0.5, 0.4).astype(np.float32)
    assert flicker(square, time_s, 0.02) == pytest.approx(18 * 0.1 / 1.9, rel=0.01)
    assert flicker(square * 0.1, time_s, 0.02) == 0.0
    assert flicker(np.linspace(0, 1, 20, dtype=np.float32), time_s, 0.02) == 0.0


def test_steadiness_and_middle_mean_by_hand() -> None:
    assert steadiness(np.array([2.0, 2.0, 2.0])) == 1.0
    assert steadiness(np.zeros(3)) == 1.0
    assert steadiness(np.array([1.0, 3.0, 1.0])) == pytest.approx((5 / 3) / (5 / 3 + 2))
    assert middle_mean(np.array([1.0, *[2.0] * 8, 99.0])) == 2.0


def test_edges_and_luma_change_with_the_picture(scene, pan) -> None:
    still = Motion().score(scene().frames())
    assert pan["edge_diff"] > still["edge_diff"] == 0.0
    assert pan["luma_diff"] > 0.02 > still["luma_diff"] == 0.0


def test_the_same_frames_give_the_same_floats(scene) -> None:
    frames = scene(patch=0.1).frames()
    assert Motion().score(frames) == Motion().score(frames)


def test_a_clip_without_neighbours_is_the_datas_fault(scene) -> None:
    frames = scene(seconds=0.3, fps=10.0).frames()
    frames.dt_s[:] = 0
    with pytest.raises(ClipError, match="too_short"):
        Motion().score(frames)


@pytest.mark.parametrize("q", [0, 12.5, 67, 95, 99, 100])
def test_percentile_is_numpys(q: float) -> None:
    values = np.random.default_rng(0).normal(size=(31, 17)).astype(np.float32)
    assert percentile(values, q) == pytest.approx(float(np.percentile(values, q)), rel=1e-6)
    assert percentile(np.array([3], np.int16), q) == 3.0
