"""Boundaries in made frames whose truth is known: cuts, dissolves, fades, wipes; flashes, pans and frozen frames that are none."""

from collections.abc import Sequence

import cv2
import numpy as np
import pytest

from curation.boundaries import Boundary, BoundaryFinder, Candidate, ShotConfig, merged
from curation.evidence import CUT_FEATURES, GRADUAL_FEATURES, HALF_WIDTHS, peaks
from curation.frames import F32, U8
from curation.shot_model import FEATURES, MODELS, WEIGHED
from curation.signals import Meter

PIXELS = ShotConfig(transnet=False)


def scene(seed: int, frames: int, speed: float = 0.3) -> list[U8]:
    """128 x 72 pictures of smooth shapes that drift by `speed` px a frame, with a little fixed texture."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(20, 236, (5, 24, 3)).astype(np.float32)
    wide = cv2.resize(coarse, (480, 72), interpolation=cv2.INTER_CUBIC) + rng.normal(0, 6, (72, 480, 3)).astype(np.float32)
    wide = np.clip(cv2.GaussianBlur(wide, (3, 3), 0), 0, 255)
    out = []
    for i in range(frames):
        at = i * speed
        low, part = int(at), at - int(at)
        out.append((wide[:, low : low + 128] * (1 - part) + wide[:, low + 1 : low + 129] * part).astype(np.uint8))
    return out


def find(frames: Sequence[U8], config: ShotConfig = PIXELS, observe: list[Candidate] | None = None) -> list[Boundary]:
    """The boundaries of the frames."""
    meter = Meter()
    finder = BoundaryFinder(config, observe.append if observe is not None else None)
    found = [b for i, f in enumerate(frames) for b in finder.push(meter.measure_thumb(i, f))]
    return found + finder.flush()


def mix(a: Sequence[U8], b: Sequence[U8]) -> list[U8]:
    """A dissolve of `len(a)` frames."""
    shares = np.linspace(0, 1, len(a) + 2)[1:-1]
    return [(x * (1 - t) + y * t).astype(np.uint8) for x, y, t in zip(a, b, shares, strict=True)]


def test_one_scene_has_no_boundary() -> None:
    assert find(scene(1, 200)) == []


@pytest.mark.parametrize("at", [5, 40, 100, 190])
def test_a_cut_is_found_to_the_frame(at: int) -> None:
    assert find(scene(1, at) + scene(2, 200 - at)) == [Boundary(at, at, "cut")]


def test_fast_cuts_are_all_found() -> None:
    frames = [f for seed in range(8) for f in scene(seed, 12)]
    assert [b.first for b in find(frames)] == [12, 24, 36, 48, 60, 72, 84]


@pytest.mark.parametrize("length", [6, 12, 24, 40])
def test_a_dissolve_is_found_with_its_ends(length: int) -> None:
    a, b = scene(3, 80 + length), scene(4, 80 + length)
    found = find(a[:80] + mix(a[80:], b[:length]) + b[length:])
    assert [x.kind for x in found] == ["gradual"]
    assert abs(found[0].first - 80) <= 3
    assert abs(found[0].last - (79 + length)) <= 6


@pytest.mark.parametrize("level", [0, 255])
def test_a_fade_through_one_colour_is_one_transition(level: int) -> None:
    a, b = scene(5, 90), scene(6, 90)
    flat = [np.full_like(a[0], level)] * 10
    found = find(a[:80] + mix(a[80:], flat) + flat[:4] + mix(flat, b[:10]) + b[10:])
    assert [x.kind for x in found] == ["gradual"]
    assert found[0].first <= 84
    assert found[0].last >= 100


@pytest.mark.parametrize("frames_long", [1, 2, 4])
def test_a_flash_is_no_boundary(frames_long: int) -> None:
    shot = scene(7, 160)
    for i in range(80, 80 + frames_long):
        shot[i] = (shot[i] * 0.2 + 255 * 0.8).astype(np.uint8)
    assert find(shot) == []


def test_a_frozen_stretch_and_dropped_frames_are_no_boundary() -> None:
    shot = scene(8, 200)
    assert find(shot[:60] + [shot[60]] * 10 + shot[70:120] + shot[124:]) == []


def test_a_steady_pan_is_no_boundary() -> None:
    assert find(scene(9, 90, speed=2.0)) == []


def test_the_result_does_not_depend_on_what_was_known_when() -> None:
    frames = scene(1, 70) + scene(2, 130) + scene(3, 45)
    meter, finder, settled = Meter(), BoundaryFinder(PIXELS), list[int]()
    for i, f in enumerate(frames):
        found = finder.push(meter.measure_thumb(i, f))
        assert all(b.first >= (settled[-1] if settled else 0) for b in found)
        settled.append(finder.settled)
    assert settled == sorted(settled)
    assert max(i - s for i, s in enumerate(settled)) <= 160


def test_features_have_names_and_models_their_sizes() -> None:
    seen: list[Candidate] = []
    a, b = scene(3, 100), scene(4, 100)
    find(a[:60] + mix(a[60:76], b[:16]) + b[16:], observe=seen)
    find(a[:60] + b, observe=seen)
    cheap = {"cut": len(CUT_FEATURES), "blend": len(GRADUAL_FEATURES), "burst": len(GRADUAL_FEATURES)}
    assert {"cut", "blend"} <= {c.kind for c in seen}
    assert all(np.isfinite(c.features).all() for c in seen)
    assert {len(c.features) for c in seen if c.kind == "cut" and c.odds >= 0} == {len(FEATURES["cut"])}
    assert {len(c.features) for c in seen if c.kind == "cut"} <= {len(CUT_FEATURES), len(FEATURES["cut"])}
    sizes = {**{f"{kind}_screen": n for kind, n in cheap.items()}, **{k: len(v) for k, v in WEIGHED.items()}, **{f"{kind}_net": 2 for kind in cheap}}
    assert {name: len(weights) - 1 for name, weights in MODELS.items()} == sizes


class Oracle:
    """A network that always says the same."""

    def __init__(self, answer: float) -> None:
        self.answer, self.asked = answer, 0

    def logits(self, thumbs: list[U8]) -> F32:
        """`answer` for each frame."""
        self.asked += 1
        return np.full(len(thumbs), self.answer, np.float32)


@pytest.mark.parametrize("answer", [-9.0, 9.0])
def test_the_network_decides_where_pixels_are_unsure(answer: float) -> None:
    oracle = Oracle(answer)
    never = (-99.0, *[0.0] * len(GRADUAL_FEATURES))
    models = {**MODELS, "cut_net": (0.0, 0.0, 1.0), "blend_screen": never, "burst_screen": never}
    meter, finder = Meter(), BoundaryFinder(ShotConfig(unsure_cut=(-99.0, 99.0)), None, models, lambda: oracle)
    frames = scene(1, 60) + scene(2, 60)
    found = [b for i, f in enumerate(frames) for b in finder.push(meter.measure_thumb(i, f))] + finder.flush()
    assert oracle.asked == 1
    assert [b.first for b in found] == ([60] if answer > 0 else [])


def test_merged_joins_what_touches() -> None:
    cut, early, late = Boundary(10, 10, "cut"), Boundary(30, 40, "gradual"), Boundary(42, 50, "gradual")
    never = lambda first, last: False  # noqa: E731
    assert merged([late, cut, early], never) == [cut, Boundary(30, 50, "gradual")]
    assert merged([early, Boundary(35, 35, "cut")], never) == [early]
    assert merged([early, Boundary(60, 70, "gradual")], never) == [early, Boundary(60, 70, "gradual")]
    assert merged([early, Boundary(60, 70, "gradual")], lambda first, last: (first, last) == (41, 59)) == [Boundary(30, 70, "gradual")]


def test_peaks_are_the_greatest_within_their_half_width() -> None:
    score = np.zeros((len(HALF_WIDTHS), 60), np.float32)
    score[2, 30], score[1, 33], score[0, 50] = 9, 5, 5
    assert peaks(score, 4, 0, 60) == [(2, 30), (0, 50)]
    assert peaks(score, 4, 31, 60) == [(0, 50)]
