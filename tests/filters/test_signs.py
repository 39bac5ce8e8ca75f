"""Signs: each grows with what it is a sign of, on pictures whose truth is known by construction, and stays low on a natural scene."""

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest

from curation.frames import SIGNALS, Frames
from filters.signs import SIGNS, jump, overlays, palette, signs, soft, straight, strokes, talker, within_bars

H, W = 180, 320
Picture = np.ndarray


def frames_of(pictures: list[Picture], fps: float = 4.0) -> Frames:
    rgb = np.stack(pictures).astype(np.uint8)
    n = len(rgb)
    none = {name: np.zeros(n, np.float32) for name in SIGNALS}
    return Frames(rgb, rgb[..., 1].copy(), np.arange(n) / fps, np.full(n, 1 / fps, np.float32), fps, none)


def page(h: int = H, w: int = W) -> Picture:
    picture = np.full((h, w, 3), 245, np.uint8)
    for y in range(14, h, 14):
        cv2.putText(picture, "the quick brown fox jumps over it", (6, y), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (20, 20, 20), 1, cv2.LINE_AA)
    return picture


def window() -> Picture:
    picture = np.full((H, W, 3), (40, 90, 140), np.uint8)
    cv2.rectangle(picture, (30, 20), (250, 150), (240, 240, 240), -1)
    cv2.rectangle(picture, (30, 20), (250, 32), (60, 60, 200), -1)
    cv2.rectangle(picture, (60, 60), (200, 120), (200, 30, 30), 2)
    return picture


def head(background: Picture, x: int, y: int, talks: bool, skin: tuple[int, int, int] = (205, 150, 120)) -> Picture:
    """A drawn head of 60 x 78 px: skin, eyes and brows, a mouth that opens."""
    picture = background.copy()
    dark = tuple(int(c * 0.35) for c in skin)
    cv2.ellipse(picture, (x, y), (30, 39), 0, 0, 360, skin, -1, cv2.LINE_AA)
    for side in (-13, 13):
        cv2.ellipse(picture, (x + side, y - 8), (9, 7), 0, 0, 360, dark, -1, cv2.LINE_AA)
    cv2.ellipse(picture, (x, y + 20), (11, 9 if talks else 3), 0, 0, 360, dark, -1, cv2.LINE_AA)
    return picture


@pytest.fixture
def nature(scene: Callable[..., object]) -> Frames:
    """A textured plane over which the camera moves."""
    found: Frames = scene(pan=(0.1, 0.02), width=W, height=H).frames()  # type: ignore[attr-defined]
    return found


def test_every_sign_is_named_finite_and_the_same_twice(nature: Frames) -> None:
    one, two = signs(nature), signs(replace(nature))
    assert set(one) == set(SIGNS)
    assert one == two
    assert all(np.isfinite(value) for value in one.values())
    assert all(-1e-6 <= one[name] <= 1 for name in SIGNS if name not in ("palette", "small", "jump"))


def test_a_page_is_flat_of_few_colours_and_full_of_strokes_that_stay(nature: Frames) -> None:
    text, natural = signs(frames_of([page()] * 8)), signs(nature)
    assert text["strokes"] > 0.3 > 0.02 > natural["strokes"]
    assert text["strokes_staying"] > 0.3
    assert (text["frozen"], text["quiet"]) == (1.0, 1.0)
    assert text["flat"] > 0.1 > natural["flat"]
    assert text["palette"] < 3 < natural["palette"]


def test_strokes_are_told_from_plain_edges_and_noise() -> None:
    edge = np.where(np.arange(W) < W // 2 + 5, 30, 220).astype(np.uint8)[None].repeat(H, 0)
    noise = np.random.default_rng(0).integers(0, 256, (H, W)).astype(np.uint8)
    assert strokes(edge).mean() == 0
    assert strokes(noise).mean() < 0.02
    assert strokes(page()[..., 0]).mean() > 0.3


def test_windows_have_straight_lines_and_nature_has_none(nature: Frames) -> None:
    gray = cv2.cvtColor(window(), cv2.COLOR_RGB2GRAY)
    turned = cv2.warpAffine(gray, cv2.getRotationMatrix2D((W / 2, H / 2), 20, 1.0), (W, H), borderMode=cv2.BORDER_REPLICATE)
    assert straight(gray) > 0.8 > 0.3 > straight(np.asarray(turned, np.uint8))
    assert straight(np.asarray(cv2.cvtColor(nature.rgb[0], cv2.COLOR_RGB2GRAY), np.uint8)) < 0.2


def test_bars_at_the_border_are_no_part_of_the_picture(nature: Frames) -> None:
    boxed = nature.rgb[:, :, :, 0].copy()
    boxed[:, :20] = boxed[:, -20:] = 16
    assert within_bars(list(boxed)) == (slice(20, H - 20), slice(0, W))
    assert within_bars([np.full((H, W), 9, np.uint8)] * 3) == (slice(None), slice(None))


@pytest.mark.parametrize("skin", [(235, 190, 165), (205, 150, 120), (120, 78, 55)], ids=["light", "medium", "dark"])
def test_a_head_that_talks_is_found_whatever_its_skin(skin: tuple[int, int, int]) -> None:
    still = np.full((H, W, 3), (70, 90, 100), np.uint8)
    talking = [head(still, 160, 80, bool(k % 2), skin) for k in range(8)]
    assert talker(talking) > 0.3
    assert talker([still] * 8) == 0.0
    assert talker([np.roll(p, 40 * k, axis=1) for k, p in enumerate(talking)]) < 0.5 * talker(talking)  # it walks through the picture


def test_a_painted_head_in_a_moving_picture_is_no_talker(nature: Frames) -> None:
    talks = talker([head(np.full((H, W, 3), 90, np.uint8), 160, 80, bool(k % 2)) for k in range(8)])
    painted = talker([head(picture, 160, 80, False) for picture in nature.rgb[:8]])
    assert painted < 0.5 * talks


def test_blur_makes_soft_and_a_small_source_is_small(nature: Frames) -> None:
    luma = np.asarray(cv2.cvtColor(np.random.default_rng(1).integers(0, 256, (H, W, 3)).astype(np.uint8), cv2.COLOR_RGB2GRAY), np.uint8)
    degrees = [soft(np.asarray(cv2.GaussianBlur(luma, (0, 0), sigma), np.uint8)) for sigma in (0.4, 1.0, 2.0)]
    assert degrees == sorted(degrees)
    assert soft(np.full((H, W), 7, np.uint8)) == 1.0
    tiny = frames_of([np.asarray(cv2.resize(p, (128, 72)), np.uint8) for p in nature.rgb])
    assert signs(tiny)["small"] == pytest.approx(np.log2(256 / 72))
    assert signs(nature)["small"] == pytest.approx(np.log2(256 / H))


def test_furniture_over_a_moving_picture_is_fixed(nature: Frames) -> None:
    def small(pictures: list[Picture]) -> np.ndarray:
        return np.stack(frames_of(pictures).lumas(96)).astype(np.float32)

    def furnished(picture: Picture) -> Picture:
        found = picture.copy()
        for x, y in ((20, 20), (240, 130)):
            cv2.rectangle(found, (x, y), (x + 50, y + 30), (250, 250, 250), 3)
        return found

    plain = list(nature.rgb)
    assert overlays(small([furnished(p) for p in plain]))["fixed"] > 0.005 > overlays(small(plain))["fixed"]
    assert overlays(small([furnished(plain[0])] * 8))["fixed"] == 0.0  # a still picture has no furniture


def test_a_split_screen_has_a_seam(scene: Callable[..., object]) -> None:
    one, two = (scene(pan=pan, seed=seed, width=W, height=H).frames().rgb for pan, seed in (((0.2, 0.0), 0), ((0.0, 0.15), 3)))  # type: ignore[attr-defined]
    split = [np.concatenate([a[:, : W // 2], b[:, W // 2 :] // 3], axis=1) for a, b in zip(one, two, strict=True)]
    seams = [overlays(np.stack(frames_of(p).lumas(96)).astype(np.float32))["seam"] for p in (split, list(one))]
    assert seams[0] > 0.4 > 2 * seams[1]


def test_a_cut_is_the_jump_and_a_flash_is_none(scene: Callable[..., object]) -> None:
    one, two = (scene(pan=(0.05, 0.0), seed=seed, width=W, height=H).frames().rgb for seed in (0, 5))  # type: ignore[attr-defined]
    other = (255 - two // 2)[: len(two) // 2]
    cut = [*one[: len(one) // 2], *other]
    flash = list(one)
    flash[4] = np.full_like(flash[4], 250)
    found = [jump(frames_of(pictures)) for pictures in (cut, list(one), flash)]
    assert found[0]["jump"] * found[0]["jump_size"] > 2 * max(f["jump"] * f["jump_size"] for f in found[1:])


def test_palette_counts_colours() -> None:
    assert palette(np.zeros((8, 8, 3), np.uint8)) == 0.0
    two = np.zeros((8, 8, 3), np.uint8)
    two[:4] = 255
    assert palette(two) == 1.0
