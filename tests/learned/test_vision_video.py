"""Our patches of a video against transformers' video processor, which wants torchvision and so is only in the full environment."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor
from transformers.video_utils import VideoMetadata

from training.model.spec import VisionSpec
from training.model.vision import sampled, see

#: Sampling as transformers does it; ours by default rounds up and sees the last frame.
SPEC = replace(VisionSpec(), rounding="floor", places="even")


def smooth(count: int, height: int, width: int) -> np.ndarray:
    """A moving gradient with some noise, uint8 [T, H, W, 3]."""
    generator = np.random.default_rng(0)
    t, y, x, c = np.meshgrid(np.arange(count), np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    return np.clip(128 + 90 * np.sin(0.3 * t + 0.05 * x * (c + 1)) * np.cos(0.04 * y) + generator.normal(0, 12, t.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("count", "fps"), [(40, 16.0), (41, 16.0), (30, 30.0), (100, 24.0), (5, 2.0), (7, 1.0)])
def test_the_same_frames_are_looked_at(count: int, fps: float) -> None:
    processor = Qwen2VLVideoProcessor(fps=2.0)
    wanted = processor.sample_frames(VideoMetadata(total_num_frames=count, fps=fps), fps=2.0)
    assert sampled(count, fps, SPEC).tolist() == wanted.tolist()


@pytest.mark.parametrize("size", [(120, 208), (480, 832), (64, 64)])
def test_a_videos_patches_are_those_of_transformers(size: tuple[int, int]) -> None:
    """The same grid and clock. torchvision rounds otherwise than Pillow when it resizes: a colour is 2 steps of 256 away at most, 1/4 step on average."""
    video = smooth(8, *size)
    fewest, most = SPEC.video_pixels
    processor = Qwen2VLVideoProcessor(size={"shortest_edge": fewest, "longest_edge": most}, cap_pixels_per_frame=False)
    metadata = VideoMetadata(total_num_frames=8, fps=8.0, frames_indices=[0, 2, 4, 6])
    given = processor(videos=[torch.from_numpy(video[::2]).permute(0, 3, 1, 2)], video_metadata=[metadata], do_sample_frames=False, return_tensors="pt")
    sight = see(video, 8.0, SPEC)
    assert list(sight.grid) == given["video_grid_thw"][0].tolist()
    assert sight.seconds == pytest.approx(SPEC.temporal_patch / metadata.sampled_fps)
    apart = (sight.patches_NP - given["pixel_values_videos"]).abs()
    assert apart.max() * 255 * 0.26 < 2.01
    assert apart.mean() * 255 * 0.26 < 0.25
