"""The measured backend's words: directions, places and times as the clips were made, the same text twice, nothing invented."""

from typing import Any

import numpy as np
import pytest

from captioning.events import check, chunk_spans
from captioning.measured import describe
from curation.clips import ClipError

ONE = 2.5625


def text(made: Any, view: Any, scores: dict[str, float | None] | None = None) -> str:
    return describe(made.frames_of(view), 1, ONE, scores or {}).text


@pytest.mark.parametrize(
    ("right", "down", "says"),
    [
        (25, 0, "The camera pans right over"),
        (-25, 0, "The camera pans left over"),
        (0, -25, "The camera tilts up over"),
        (0, 25, "The camera tilts down over"),
        (10, 0, "The camera pans right slowly"),
        (120, 0, "The camera pans right quickly"),
        (40, -40, "The camera pans right and tilts up"),
        (0, 0, "The camera holds still and nothing else moves."),
    ],
)
def test_content_that_goes_left_is_a_camera_that_goes_right(made: Any, right: float, down: float, says: str) -> None:
    assert text(made, lambda t: made.look(right * (t - 1.2), down * (t - 1.2))).startswith(says)


@pytest.mark.parametrize(("growth", "says"), [(0.05, "zooms in slowly"), (0.25, "zooms in over"), (-0.05, "zooms out slowly")])
def test_a_picture_that_grows_is_a_zoom_in(made: Any, growth: float, says: str) -> None:
    assert says in text(made, lambda t: made.look(zoom=1.5 * float(np.exp(growth * (t - 1.2)))))


def test_a_camera_that_changes_its_way_is_told_in_order(made: Any) -> None:
    assert "first pans left, then pans right" in text(made, lambda t: made.look(30 * abs(t - 1.25)))
    assert "first holds still, then pans right" in text(made, lambda t: made.look(30 * max(0.0, t - 1.25)))
    assert "first pans right, then comes to rest" in text(made, lambda t: made.look(30 * min(1.25, t)))
    assert "pans right, getting faster" in text(made, lambda t: made.look(25 * t * t))
    assert "slowing down" in text(made, lambda t: made.look(-25 * (2.6 - t) ** 2))


def test_a_camera_that_goes_back_and_forth_shakes(made: Any) -> None:
    assert text(made, lambda t: made.look(6 * np.sin(12 * t), 4 * np.cos(17 * t))).startswith("The camera shakes")


@pytest.mark.parametrize(
    ("x", "y", "place"),
    [(20, 8, "in the upper left"), (190, 8, "in the upper right"), (20, 96, "in the lower left"), (190, 96, "in the lower right"), (108, 52, "in the centre")],
)
def test_what_moves_is_told_with_its_place(made: Any, x: float, y: float, place: str) -> None:
    found = text(made, lambda t: made.square(made.look(), x + 5 * np.sin(9 * t), y + 5 * np.cos(9 * t)))
    assert found.startswith("The camera holds still while something")
    assert place in found


@pytest.mark.parametrize(("vx", "says"), [(80, "from the left to the right"), (-80, "from the right to the left")])
def test_what_crosses_the_picture_is_told_with_its_way(made: Any, vx: float, says: str) -> None:
    assert says in text(made, lambda t: made.square(made.look(), 108 + vx * (t - 1.2), 52))


def test_starts_and_stops_are_told_with_their_time(made: Any) -> None:
    starts = text(made, lambda t: made.square(made.look(), 40, 20 + 30 * max(0.0, t - 1.25)))
    assert "starts to move downwards" in starts
    assert starts.endswith(("after about 1 second.", "after about 1.5 seconds."))
    stops = text(made, lambda t: made.square(made.look(), 160 - 30 * min(1.25, t), 90))
    assert "moves to the left in the lower middle and stops after about 1 second." in stops


def test_motion_that_grows_is_told(made: Any) -> None:
    def view(t: float) -> np.ndarray:
        picture = made.square(made.look(), 30 + 4 * np.sin(12 * t), 20 + 4 * np.cos(12 * t))
        return made.square(picture, 150, 40 + (30 * (t - 1.7) if t > 1.7 else 0), side=70)

    assert "more towards the end" in text(made, view)


def test_a_moving_thing_under_a_moving_camera_keeps_its_own_clause(made: Any) -> None:
    found = text(made, lambda t: made.square(made.look(25 * t), 190 + 5 * np.sin(9 * t), 96 + 5 * np.cos(9 * t)))
    assert found.startswith("The camera pans right while something")
    assert "in the lower right" in found


@pytest.mark.parametrize(("slope", "says"), [(0.25, "The picture gets brighter."), (-0.25, "The picture gets darker."), (0.01, "moves.")])
def test_brightness_that_changes_is_told(made: Any, slope: float, says: str) -> None:
    assert text(made, lambda t: np.clip(made.look() * (0.8 + slope * (t - 1.2)), 0, 255).astype(np.uint8)).endswith(says)


@pytest.mark.parametrize(
    ("scores", "says"),
    [
        ({}, "moves."),
        ({"scene_text_median_area": None, "scene_text_overlay_area": None}, "moves."),
        ({"scene_text_median_area": 0.001}, "moves."),
        ({"scene_text_median_area": 0.02, "scene_text_subtitle_area": None}, "Text is visible in the scene."),
        ({"scene_text_median_area": 0.02, "scene_text_overlay_area": 0.01}, "Text is laid over the picture."),
        ({"scene_text_median_area": 0.02, "scene_text_overlay_area": 0.01, "scene_text_subtitle_area": 0.01}, "Lines of text stand at the bottom."),
    ],
)
def test_text_is_told_from_the_scores_that_were_measured(made: Any, scores: dict[str, float | None], says: str) -> None:
    assert text(made, lambda t: made.look(), scores).endswith(says)


def test_each_chunk_tells_its_own_time(made: Any) -> None:
    duration = 7.5625
    clip = made.frames_of(lambda t: made.look(30 * min(max(t - 2.5, 0.0), 2.5)), duration)
    caption = describe(clip, 3, duration, {})
    check(caption.events, duration)
    assert [(e.start_s, e.end_s) for e in caption.events] == chunk_spans(3, duration)
    assert ["holds still" in e.text for e in caption.events] == [True, False, True]
    assert "pans right" in caption.events[1].text
    assert caption.text.startswith("The camera first holds still, then pans right, then holds still over a scene")


def test_a_long_clip_is_summed_up(made: Any) -> None:
    def said(view: Any) -> str:
        return describe(made.frames_of(view, 12.5625), 5, 12.5625, {}).text

    assert said(lambda t: made.look(14 * (t - 6))).startswith("The camera pans right slowly throughout over a scene")
    restless = said(lambda t: made.look(*((0, 20 * t), (20 * (t - 2.5), 50), (50, 50 - 20 * (t - 5)), (50, 20 * (t - 7.5)), (50, 50))[min(4, int(t / 2.51))]))
    assert restless.startswith("The camera mostly tilts down, and at times pans right or tilts up,")


def test_a_picture_with_nothing_drawn_claims_no_motion(made: Any) -> None:
    assert text(made, lambda t: np.full((144, 256, 3), 90, np.uint8)) == "Too little is drawn in the picture to tell what moves."


def test_the_same_frames_give_the_same_words(made: Any) -> None:
    clip = made.frames_of(lambda t: made.square(made.look(12 * t), 40 + 30 * t, 60))
    assert describe(clip, 1, ONE, {}) == describe(clip, 1, ONE, {})


def test_a_chunk_without_a_sample_is_refused(made: Any) -> None:
    with pytest.raises(ClipError, match=r"chunk 1 .* holds no sample"):
        describe(made.frames_of(lambda t: made.look()), 2, 5.0625, {})
