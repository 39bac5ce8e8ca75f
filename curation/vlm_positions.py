"""Positions: where the tokens of a Qwen2.5-VL prompt with one video stand in time, height and width; what a trainer must use to fit the engine."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def positions(tokens: Sequence[int], video_token: int, grid: tuple[int, int, int], grid_s: float, tokens_per_s: float) -> npt.NDArray[np.int64]:
    """Position ids, int64 [3 (time, height, width), len(tokens)], for a model's `position_ids` (add a batch axis in the middle).

    Text counts on in all three; a video's token stands at its time, row and column behind the text before it; the text after the video goes on behind the
    largest position so far. transformers 5.23 goes on behind the video's rows or columns instead and forgets its time, so that the text after a video which
    lasts longer than it is wide stands inside the video; a model that is trained so and served by vLLM, which is right, sees other positions than it learnt.

    Args:
        tokens: the whole prompt, the video's token repeated for each of its places.
        video_token: the id of that token, `config.video_token_id`.
        grid: (time, height, width) of the video in merged patches: `video_grid_thw` with height and width divided by `spatial_merge_size`.
        grid_s: seconds between two steps of the grid's time, the processor's `second_per_grid_ts`.
        tokens_per_s: positions a second, `config.vision_config.tokens_per_second`.

    Raises:
        ValueError: the video's tokens are not one run of the grid's size.

    Source: Qwen2.5-VL technical report, arXiv 2502.13923, 2.1.3 (multimodal rotary position embedding aligned to absolute time); vllm 0.29, qwen2_5_vl.py.
    """
    places = np.flatnonzero(np.asarray(tokens) == video_token)
    count = int(np.prod(grid))
    if len(places) != count or count == 0 or places[-1] - places[0] != count - 1:
        raise ValueError(f"positions: {len(places)} video tokens, not one run of {grid} = {count}")
    begin = int(places[0])
    cells = np.indices(grid).reshape(3, -1).astype(np.float64)
    cells[0] *= grid_s * tokens_per_s
    video = cells.astype(np.int64) + begin
    after = np.arange(len(tokens) - begin - count) + video.max() + 1
    return np.concatenate([np.tile(np.arange(begin), (3, 1)), video, np.tile(after, (3, 1))], axis=1)
