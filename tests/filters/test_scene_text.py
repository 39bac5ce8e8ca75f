"""scene_text on made clips: natural texture holds none, and size, persistence and place of burnt-in text move the scores as they should."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from curation.frames import SIGNALS, U8, Frames
from filters.base import verdict
from filters.catalog import SCENE_TEXT
from filters.scene_text import SceneText, measure
from filters.text_detector import SceneTextSettings, detector

HEIGHT, WIDTH, COUNT = 256, 454, 12


def world(seed: int = 3) -> U8:
    """A natural-looking texture without text, wider than a picture: smooth noise of several scales."""
    rng, image = np.random.default_rng(seed), np.zeros((2 * HEIGHT, 3 * WIDTH, 3), np.float32)
    for scale, weight in ((64, 90), (16, 40), (4, 14)):
        noise = rng.standard_normal((2 * HEIGHT // scale, 3 * WIDTH // scale, 3)).astype(np.float32)
        image += weight * cv2.resize(noise, (3 * WIDTH, 2 * HEIGHT), interpolation=cv2.INTER_CUBIC)
    return np.clip(image + 110, 0, 255).astype(np.uint8)


def burn(image: U8, text: str, scale: float = 0.9, y: int = 235, x: int | None = None) -> U8:
    """White letters with a black rim, centred at `y` unless `x` says where they start."""
    out, thickness = image.copy(), max(1, round(2 * scale))
    width = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)[0][0]
    at = ((image.shape[1] - width) // 2 if x is None else x, y)
    cv2.putText(out, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), thickness + 3, cv2.LINE_AA)
    cv2.putText(out, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), thickness, cv2.LINE_AA)
    return out


def clip(pictures: list[U8]) -> Frames:
    """Frames of `pictures` at 4 a second; scene_text reads nothing but them and their times."""
    rgb, count = np.stack(pictures), len(pictures)
    times = np.arange(count) / 4
    return Frames(rgb, rgb[..., 1].copy(), times, np.zeros(count, np.float32), 4.0, {name: np.zeros(1, np.float32) for name in SIGNALS})


def still(seed: int = 3) -> list[U8]:
    return [world(seed)[:HEIGHT, :WIDTH].copy() for _ in range(COUNT)]


def pan(step: int = 40) -> list[U8]:
    return [world()[:HEIGHT, step * k : step * k + WIDTH].copy() for k in range(COUNT)]


def scores(pictures: list[U8], **settings: float) -> dict[str, float]:
    return SceneText(**settings).score(clip(pictures))  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [1, 3])
def test_texture_holds_no_text(seed: int) -> None:
    assert scores(still(seed)) == dict.fromkeys(SceneText.scores, 0.0)


def test_moving_texture_holds_no_text() -> None:
    assert scores(pan())["persistent_area"] == 0.0


def test_a_subtitle_raises_every_score_that_is_about_it() -> None:
    found = scores([burn(p, "What is this sport?") for p in pan()])
    assert found["frames_with_text"] == 1.0
    assert 0.02 < found["area"] < 0.15
    assert found["persistent_area"] == pytest.approx(found["area"], rel=0.3)
    assert found["subtitle_area"] == pytest.approx(found["persistent_area"], rel=0.05)
    assert found["overlay_area"] > 0.6 * found["area"]


def test_a_subtitle_over_a_still_picture_is_no_overlay_but_a_subtitle() -> None:
    found = scores([burn(p, "What is this sport?") for p in still()])
    assert found["overlay_area"] < 0.001 < 0.02 < found["subtitle_area"]


def test_a_subtitle_that_changes_its_words_stays_a_subtitle() -> None:
    words = ["What is this sport?", "Nobody ever told me so", "It is a game"]
    found = scores([burn(p, words[k * 3 // COUNT]) for k, p in enumerate(pan())])
    assert found["subtitle_area"] > 0.02
    assert found["overlay_area"] > 0.01


def test_larger_text_covers_more() -> None:
    areas = [scores([burn(p, "MORNING NEWS", scale, y=150) for p in still()])["area"] for scale in (0.5, 0.9, 1.5)]
    assert areas[0] < areas[1] < areas[2]
    assert areas[2] > 4 * areas[0]


def test_text_in_half_of_the_pictures_halves_area_and_share() -> None:
    pictures = still()
    half = [burn(p, "MORNING NEWS", y=150) if k < COUNT // 2 else p for k, p in enumerate(pictures)]
    whole = [burn(p, "MORNING NEWS", y=150) for p in pictures]
    settings = {"least": 4, "most": 4}
    part, full = scores(half, **settings), scores(whole, **settings)
    assert (part["frames_with_text"], full["frames_with_text"]) == (0.5, 1.0)
    assert part["area"] == pytest.approx(full["area"] / 2, rel=0.1)
    assert part["persistent_area"] == pytest.approx(full["persistent_area"] / 2, rel=0.1)
    assert part["max_area"] == pytest.approx(full["max_area"], rel=0.1)


def test_lettering_of_the_scene_moves_with_the_camera_and_is_no_overlay() -> None:
    signs = burn(burn(burn(world(), "BAKERY", 1.2, 120, 300), "FISH", 1.2, 190, 620), "BOOKS", 1.2, 100, 900)
    found = scores([signs[:HEIGHT, 60 * k : 60 * k + WIDTH].copy() for k in range(COUNT)])
    assert found["max_area"] > 0.02
    assert found["overlay_area"] == 0.0
    assert found["persistent_area"] == 0.0
    assert found["subtitle_area"] == 0.0


def test_a_corner_logo_covers_little_and_is_no_subtitle() -> None:
    found = scores([burn(p, "TV9", 0.5, 24, WIDTH - 50) for p in pan()])
    assert 0 < found["overlay_area"] < 0.015
    assert found["subtitle_area"] == 0.0


def test_the_same_frames_give_the_same_floats() -> None:
    pictures = [burn(p, "What is this sport?") for p in pan()]
    assert scores(pictures) == scores(pictures)


def test_boxes_of_any_backend_are_measured_alike() -> None:
    pictures = still()[:4]
    box = np.array([[100, 100], [199, 100], [199, 149], [100, 149]], np.int32)
    found = measure(pictures, [[box], [box], [box], []])
    share = 100 * 50 / (HEIGHT * WIDTH)
    assert found["max_area"] == pytest.approx(share)
    assert found["median_area"] == pytest.approx(share)
    assert found["area"] == found["persistent_area"] == pytest.approx(0.75 * share)
    assert found["frames_with_text"] == 0.75


def test_one_picture_and_tiny_pictures_are_measured() -> None:
    assert scores([burn(still()[0], "MORNING NEWS", y=150)])["max_area"] > 0.02
    assert scores([np.full((16, 16, 3), 90, np.uint8)] * 3)["area"] == 0.0


def test_looks_at_few_pictures_evenly_spread() -> None:
    assert SceneText().looked_at(clip(still())) == [2, 6, 10]
    assert SceneText().looked_at(clip(still()[:2])) == [0, 1]
    assert len(SceneText().looked_at(clip([still()[0][:32, :32]] * 80))) == SceneText().most


def test_settings_out_of_bounds_are_refused() -> None:
    with pytest.raises(ValueError, match="2 <= least <= most"):
        SceneText(least=1)
    with pytest.raises(ValueError, match="backend"):
        SceneTextSettings(backend="tesseract")  # type: ignore[arg-type]


def test_the_catalogue_names_the_filters_own_scores() -> None:
    assert SCENE_TEXT.scores == SceneText.scores
    assert isinstance(SCENE_TEXT.build(), SceneText)


def test_several_clips_at_once_score_as_each_alone() -> None:
    clips = [clip([burn(p, "What is this sport?") for p in pan()]), clip(still()), clip([still()[0][:64, :64]] * 3)]
    assert SceneText().score_many(clips) == [SceneText().score(one) for one in clips]


def test_text_that_stays_in_a_corner_is_a_watermark_and_elsewhere_is_not() -> None:
    corner = scores([burn(p, "CHANNEL 9", 0.8, 30, WIDTH - 160) for p in pan()])
    assert corner["corner_area"] == pytest.approx(corner["persistent_area"])
    assert corner["corner_area"] > 0.01
    assert scores([burn(p, "CHANNEL 9", 0.8, 130, 140) for p in pan()])["corner_area"] == 0.0
    assert scores([burn(p, "A LINE ALL ALONG THE TOP", 0.9, 24, 8) for p in pan()])["corner_area"] == 0.0


def test_paddle_without_its_folder_or_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no inference\.yml"):
        detector(SceneTextSettings(backend="paddle", model_dir=str(tmp_path)))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("clean", set()),
        ("logo", set()),
        ("lettering", set()),
        ("subtitle", {"subtitles", "overlay_text_large", "persistent_text"}),
        ("still subtitle", {"subtitles", "persistent_text"}),
        ("banner", {"overlay_text_large", "persistent_text", "text_dominated"}),
    ],
)
def test_the_catalogues_rules_on_made_clips(name: str, expected: set[str]) -> None:
    signs = burn(burn(world(), "BAKERY", 1.2, 120, 300), "BOOKS", 1.2, 100, 900)
    made = {
        "clean": pan,
        "logo": lambda: [burn(p, "TV9", 0.5, 24, WIDTH - 50) for p in pan()],
        "lettering": lambda: [signs[:HEIGHT, 60 * k : 60 * k + WIDTH].copy() for k in range(COUNT)],
        "subtitle": lambda: [burn(p, "What is this sport?") for p in pan()],
        "still subtitle": lambda: [burn(p, "What is this sport?") for p in still()],
        "banner": lambda: [burn(burn(p, "MORNING NEWS", 1.5, 60), "WEATHER SPORT", 1.5, 120) for p in pan()],
    }
    found = {f"scene_text_{key}": value for key, value in scores(made[name]()).items()}
    assert set(verdict(found, SCENE_TEXT.rules)) == expected
