"""Frames to patches: pictures to the bit as in transformers, videos made of its pictures; tests/learned has its video processor to compare."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize

from tests.training.model.worlds import frames
from training.model.spec import VisionSpec
from training.model.vision import Sight, fitted, sampled, see

SPEC = VisionSpec()
LIMITS = [(56 * 56, 28 * 28 * 1280), (3136, 3136), (100352, 602112)]
TRUE = replace(SPEC, rounding="floor", places="even")


@pytest.mark.parametrize("size", [(64, 64), (480, 832), (31, 200), (720, 1280), (29, 29), (1, 150)])
@pytest.mark.parametrize("pixels", LIMITS)
def test_sizes_are_those_of_transformers(size: tuple[int, int], pixels: tuple[int, int]) -> None:
    ours = fitted(*size, 28, pixels)
    assert ours == smart_resize(*size, 28, *pixels)
    assert ours[0] % 28 == ours[1] % 28 == 0


def test_sizes_of_any_shape() -> None:
    generator = np.random.default_rng(0)
    for height, width in generator.integers(14, 1500, (300, 2)).tolist():
        assert fitted(height, width, 28, LIMITS[2]) == smart_resize(height, width, 28, *LIMITS[2])


def test_a_480p_frame_is_510_tokens() -> None:
    sight = see(frames(0, 40, 480, 832), 16.0, SPEC)
    grid = sight.tokens(SPEC)
    assert (sight.grid, grid.count) == ((3, 34, 60), 1530)  # 476x840, about 1530 tokens a state
    assert sight.seconds == pytest.approx(2 / 2.4)
    assert grid.step == pytest.approx(2 * 2 / 2.4)


@pytest.mark.parametrize("size", [(64, 64), (100, 61), (90, 200)])
def test_a_picture_is_to_the_bit_as_in_transformers(size: tuple[int, int]) -> None:
    picture = frames(3, 1, *size)
    given = Qwen2VLImageProcessorPil(size={"shortest_edge": SPEC.image_pixels[0], "longest_edge": SPEC.image_pixels[1]})
    wanted = given(images=[picture[0]], return_tensors="pt")
    sight = see(picture, 16.0, SPEC)
    assert torch.equal(sight.patches_NP, wanted["pixel_values"])
    assert list(sight.grid) == wanted["image_grid_thw"][0].tolist()
    assert sight.seconds is None


def test_a_video_is_its_frames_in_pairs() -> None:
    spec = replace(SPEC, video_pixels=(3136, 28 * 28 * 9), sample_fps=4.0)
    video = frames(4, 5, 70, 120)
    sight = see(video, 4.0, spec)  # six wanted, five there: four
    kept = sampled(5, 4.0, spec)
    given = Qwen2VLImageProcessorPil(size={"shortest_edge": 3136, "longest_edge": 28 * 28 * 9})
    each = given(images=list(video[kept]), return_tensors="pt")["pixel_values"].view(4, -1, 3, 2, 14 * 14)
    assert torch.equal(each[:, :, :, 0], each[:, :, :, 1])  # a picture is a still video
    pairs = torch.stack([each[0::2, :, :, 0], each[1::2, :, :, 0]], dim=3)
    assert sight.grid[0] == 2
    assert torch.equal(sight.patches_NP, pairs.reshape(-1, 3 * 2 * 14 * 14))


def test_a_lone_last_frame_stands_still() -> None:
    odd = replace(SPEC, temporal_patch=4, video_pixels=(3136, 3136))
    video = frames(5, 3, 56, 56)
    sight = see(video, 1.0, odd)
    times = sight.patches_NP.view(-1, 3, 4, 14 * 14)
    assert sight.grid == (1, 4, 4)
    assert torch.equal(times[:, :, 2], times[:, :, 3])
    assert not torch.equal(times[:, :, 1], times[:, :, 2])


@pytest.mark.parametrize(
    ("count", "fps", "spec", "wanted"),
    [
        (40, 16.0, SPEC, [0, 8, 16, 23, 31, 39]),  # 2.5 s: five frames, made six; the newest is seen
        (40, 16.0, TRUE, [0, 10, 20, 30]),  # transformers'
        (41, 16.0, SPEC, [0, 8, 16, 24, 32, 40]),
        (8, 16.0, SPEC, [0, 2, 5, 7]),  # half a second: the least, four
        (3, 16.0, SPEC, [0, 2]),
        (2, 16.0, SPEC, [0, 1]),
        (100, 10.0, replace(SPEC, max_frames=5), [0, 33, 66, 99]),
        (30, 1.0, SPEC, list(range(30))),
    ],
)
def test_which_frames_are_looked_at(count: int, fps: float, spec: VisionSpec, wanted: list[int]) -> None:
    assert sampled(count, fps, spec).tolist() == wanted


@pytest.mark.parametrize(
    ("given", "fps", "said"),
    [
        (frames(0, 2).astype(np.float32), 16.0, "uint8 array.*float32"),
        (frames(0, 2)[..., :2], 16.0, r"\(2, 64, 64, 2\)"),
        (frames(0, 2)[0], 16.0, r"\(64, 64, 3\)"),
        (frames(0, 2)[:0], 16.0, "at least one frame"),
        (frames(0, 2), 0.0, "0.0 frames a second"),
        (frames(0, 2), float("nan"), "nan frames a second"),
        (frames(0, 1, 2, 500), 16.0, "250 times as long"),
    ],
)
def test_what_cannot_be_seen_is_refused(given: np.ndarray, fps: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        see(given, fps, SPEC)


def test_a_sight_must_fit_its_grid() -> None:
    with pytest.raises(ValueError, match=r"3 patches, but a grid of \(1, 2, 2\)"):
        Sight(torch.zeros(3, 1176), (1, 2, 2), None)
