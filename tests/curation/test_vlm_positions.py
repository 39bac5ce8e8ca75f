"""Positions of a prompt with one video: time in seconds times a rate, text behind the latest of all."""

import numpy as np
import pytest

from curation.vlm_positions import positions

VIDEO = 7


def test_text_video_text() -> None:
    found = positions([1, 2, *[VIDEO] * 12, 3, 4], VIDEO, (2, 2, 3), grid_s=2.5, tokens_per_s=2)
    assert found.dtype == np.int64
    assert found[0].tolist() == [0, 1, *[2] * 6, *[7] * 6, 8, 9]
    assert found[1].tolist() == [0, 1, *[2, 2, 2, 3, 3, 3] * 2, 8, 9]
    assert found[2].tolist() == [0, 1, *[2, 3, 4] * 4, 8, 9]


def test_a_short_wide_video_is_passed_by_its_width_and_fractions_of_time_add_up() -> None:
    assert positions([*[VIDEO] * 8, 3], VIDEO, (1, 1, 8), 0.5, 2)[:, -1].tolist() == [8, 8, 8]
    assert positions([VIDEO] * 4, VIDEO, (4, 1, 1), 0.75, 2)[0].tolist() == [0, 1, 3, 4]


@pytest.mark.parametrize("tokens", [[1, 2], [VIDEO, 1, VIDEO], [VIDEO] * 3], ids=["none", "broken", "too many"])
def test_tokens_that_are_not_one_run_of_the_grid_are_refused(tokens: list[int]) -> None:
    with pytest.raises(ValueError, match="not one run"):
        positions(tokens, VIDEO, (2, 1, 1), 1.0, 2)
