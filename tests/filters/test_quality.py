"""Quality: blur, noise and bad exposure move their scores the right way."""

import pytest

from filters.quality import Quality


def test_blur_raises_brisque_and_lowers_sharpness(scene) -> None:
    found = [Quality().score(scene(blur=blur).frames()) for blur in (0.0, 1.0, 2.0, 4.0)]
    brisque, sharpness = ([score[name] for score in found] for name in ("brisque", "sharpness"))
    assert brisque == sorted(brisque)
    assert brisque[-1] > brisque[0] + 20
    assert sharpness == sorted(sharpness, reverse=True)
    assert sharpness[-1] < sharpness[0] / 5


def test_exposure_shares(scene) -> None:
    dark, right, bright = (Quality().score(scene(lamp=lambda _, f=f: f).frames()) for f in (0.02, 1.0, 4.0))
    assert dark["dark_share"] == 1.0
    assert bright["bright_share"] > 0.9
    assert max(right["dark_share"], right["bright_share"]) < 0.01


def test_a_blank_clip_has_the_worst_brisque(scene) -> None:
    found = Quality().score(scene(blank=(0.0, 99.0)).frames())
    assert (found["brisque"], found["sharpness"]) == (100.0, 0.0)


def test_brisque_looks_once_a_chunk_and_three_times_at_most(scene, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list[int]()
    monkeypatch.setattr("filters.quality.brisque", lambda luma: seen.append(luma.size) or 1.0)
    counts = []
    for seconds in (1.0, 2.6, 5.1, 20.0):
        Quality().score(scene(seconds=seconds, width=64, height=36).frames())
        counts.append(len(seen) - sum(counts))
    assert counts == [1, 1, 2, 3]


def test_every_size_is_measured_at_one(scene) -> None:
    one, two = (Quality().score(scene(width=w, height=w * 9 // 16, blur=w / 320).frames()) for w in (640, 1280))
    assert two["brisque"] == pytest.approx(one["brisque"], abs=6)
