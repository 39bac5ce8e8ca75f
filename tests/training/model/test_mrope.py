"""M-RoPE positions: against the installed transformers where it is right, against ours for the engine everywhere."""

import inspect
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from curation.vlm_positions import positions as engine_positions
from tests.training.model.worlds import SPEC, lively
from training.model.mrope import Grid, positions

IMAGE, VIDEO, MERGE = SPEC.ids.image, SPEC.ids.video, SPEC.vision.merge


@pytest.fixture(scope="module")
def qwen() -> Any:
    return lively().model


def theirs(qwen: Any, pieces: list[int | tuple[Grid, str]]) -> Any:
    """transformers' positions [3, L]; some versions want each token's kind beside its id."""
    ids, kinds, grids, seconds = [], [], {"image": [], "video": []}, []
    for piece in pieces:
        if isinstance(piece, int):
            ids += [1] * piece
            kinds += [0] * piece
            continue
        grid, kind = piece
        # Versions without kinds find a sight by the token in front of it.
        assert ids, "a sight stands behind text"
        ids[-1] = SPEC.ids.vision_start
        ids += [IMAGE if kind == "image" else VIDEO] * grid.count
        kinds += [1 if kind == "image" else 2] * grid.count
        grids[kind].append([grid.time, grid.height * MERGE, grid.width * MERGE])
        if kind == "video":
            seconds.append(grid.step / SPEC.vision.tokens_per_second)
    given: dict[str, Any] = {f"{kind}_grid_thw": torch.tensor(grid) if grid else None for kind, grid in grids.items()}
    given["second_per_grid_ts"] = seconds or None
    if "mm_token_type_ids" in inspect.signature(qwen.get_rope_index).parameters:
        given["mm_token_type_ids"] = torch.tensor([kinds])
    return qwen.get_rope_index(torch.tensor([ids]), **given)[0][:, 0]


def drawn(seed: int, steps: tuple[float, ...]) -> list[int | tuple[Grid, str]]:
    """Rounds: a picture, then videos, each between texts; none lasts longer than it is wide or high, where transformers is right."""
    generator = np.random.default_rng(seed)
    pieces: list[int | tuple[Grid, str]] = []
    for number in range(generator.integers(1, 5)):
        height, width = generator.integers(1, 7, 2).tolist()
        step = float(generator.choice(steps))
        time = int(generator.integers(1, max(2, int(max(height, width) / step)) + 1))
        time = next(t for t in range(time, 0, -1) if int((t - 1) * step) < max(height, width))
        pieces += [int(generator.integers(2, 9)), (Grid(1, height, width), "image") if number == 0 else (Grid(time, height, width, step), "video")]
    return [*pieces, 11]


def ours(pieces: list[int | tuple[Grid, str]]) -> Any:
    return positions([piece if isinstance(piece, int) else piece[0] for piece in pieces])[0]


@pytest.mark.parametrize("seed", range(20))
def test_positions_are_those_of_the_installed_transformers(qwen: Any, seed: int) -> None:
    """At whole seconds a patch, where every version is right."""
    pieces = drawn(seed, (2.0, 4.0))
    assert torch.equal(ours(pieces), theirs(qwen, pieces))


def cut(piece: int | tuple[Grid, str]) -> int | tuple[Grid, str]:
    """A video whose seconds a patch are cut to a whole number."""
    if isinstance(piece, int) or piece[1] == "image":
        return piece
    rate = SPEC.vision.tokens_per_second
    return replace(piece[0], step=float(rate * int(piece[0].step / rate))), piece[1]


@pytest.mark.parametrize("seed", range(20))
def test_fractions_of_a_second_are_those_of_transformers_that_knows_them(qwen: Any, seed: int) -> None:
    """transformers 5.10 and 5.17 cut the seconds to a whole number, 0 for most videos, and 5.23 does not: nobody can rely on its positions."""
    pieces = drawn(seed, (0.5, 1.0, 5 / 3, 2.5))
    found = theirs(qwen, pieces)
    cuts = torch.equal(theirs(qwen, [3, (Grid(3, 1, 8, 1.0), "video"), 1])[0, [3, -2]], torch.tensor([3, 3]))
    assert torch.equal(found, ours([cut(piece) for piece in pieces] if cuts else pieces))


def test_what_follows_a_long_video_stands_behind_its_end(qwen: Any) -> None:
    long = Grid(9, 2, 2, 2.0)  # 17 positions long, 2 wide
    found_by_us = ours([3, (long, "video"), 4])
    assert found_by_us[:, 3 + long.count :].tolist() == [[3 + 17 + n for n in range(4)]] * 3
    found = theirs(qwen, [3, (long, "video"), 4])
    assert torch.equal(found_by_us[:, : 3 + long.count], found[:, : 3 + long.count])
    # transformers 5.23 puts the text at 5, in the middle of the video; should a later version mend it, it must be as ours.
    assert found[0, 3 + long.count] in (5, found_by_us[0, 3 + long.count])


@pytest.mark.parametrize(("grid", "step"), [((3, 17, 30), 5 / 3), ((2, 17, 30), 2.5), ((9, 2, 2), 2.0), ((40, 4, 6), 1.0)])
def test_a_single_video_is_placed_as_for_the_engine(grid: tuple[int, int, int], step: float) -> None:
    found, _ = positions([5, Grid(*grid, step), 7])
    tokens = [1] * 5 + [VIDEO] * int(np.prod(grid)) + [1] * 7
    assert found.tolist() == engine_positions(tokens, VIDEO, grid, step / 2, 2.0).tolist()


def test_a_video_stands_at_its_times_rows_and_columns() -> None:
    found, behind = positions([2, Grid(2, 1, 3, 2.5), 2])
    assert found.tolist() == [[0, 1, 2, 2, 2, 4, 4, 4, 5, 6], [0, 1, 2, 2, 2, 2, 2, 2, 5, 6], [0, 1, 2, 3, 4, 2, 3, 4, 5, 6]]
    assert behind == 7


def test_round_by_round_is_the_whole() -> None:
    pieces = [4, Grid(1, 3, 2), 9, 5, Grid(4, 2, 2, 2.0), 0, 8]
    whole, end = positions(pieces)
    first, middle = positions(pieces[:3])
    second, last = positions(pieces[3:], middle)
    assert torch.equal(torch.cat([first, second], dim=1), whole)
    assert last == end


def test_nothing_takes_no_place() -> None:
    found, behind = positions([], begin=6)
    assert found.shape == (3, 0)
    assert behind == 6
