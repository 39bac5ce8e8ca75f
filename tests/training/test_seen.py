"""Seen: the last attempt's word on each step counts, whatever the number of ranks."""

from pathlib import Path

import torch

from tests.training.made_run import Batch, window
from training.parallel import World
from training.seen import Seen, read_seen


def test_a_later_attempt_with_fewer_ranks_replaces_what_was_lost(tmp_path: Path) -> None:
    def batch(*keys: str) -> Batch:
        return Batch(window(0), keys=keys)

    for rank in range(2):
        seen = Seen(tmp_path / "samples", World(rank=rank, ranks=2, data_rank=rank, data_ranks=2))
        seen.begin(1)
        for step in (1, 2, 3):
            seen.told(step, [batch(f"{step}a{rank}"), batch(f"{step}b{rank}", "")])
    seen = Seen(tmp_path / "samples", World())
    seen.begin(2)
    seen.told(3, [batch("3a0"), batch("3a1")])
    with (tmp_path / "samples" / "rank_1.jsonl").open("a") as file:
        file.write('{"step": 4, "att')
    assert read_seen(tmp_path / "samples") == {1: ["1a0", "1b0", "1a1", "1b1"], 2: ["2a0", "2b0", "2a1", "2b1"], 3: ["3a0", "3a1"]}


def test_a_later_attempt_with_more_ranks_ends_sooner_and_the_lost_steps_behind_its_end_are_gone(tmp_path: Path) -> None:
    seen = Seen(tmp_path, World())
    seen.begin(1)
    for step in range(1, 9):
        seen.told(step, [Batch(window(0), keys=(f"k{step - 1}",))])
    for rank in range(2):  # from the checkpoint of step 4 on, two samples a step
        grown = Seen(tmp_path, World(rank=rank, ranks=2, data_rank=rank, data_ranks=2))
        grown.begin(2)
        for step in (5, 6):
            grown.told(step, [Batch(window(0), keys=(f"k{2 * step - 6 + rank}",))])
    assert read_seen(tmp_path) == {1: ["k0"], 2: ["k1"], 3: ["k2"], 4: ["k3"], 5: ["k4", "k5"], 6: ["k6", "k7"]}


def test_ranks_of_one_sequence_write_once(tmp_path: Path) -> None:
    for rank in range(4):
        seen = Seen(tmp_path, World(rank=rank, ranks=4, data_rank=rank // 2, data_ranks=2))
        seen.begin(1)
        seen.told(1, [Batch(window(0), keys=(f"k{rank // 2}",))])
    assert read_seen(tmp_path) == {1: ["k0", "k1"]}


def test_samples_that_failed_their_check_were_not_learnt_from(tmp_path: Path) -> None:
    batch = Batch(window(0, batch=3), keys=("a", "damaged", ""))
    object.__setattr__(batch.window, "real_B", torch.tensor([True, False, False]))
    seen = Seen(tmp_path, World())
    seen.begin(1)
    seen.told(1, [batch])
    assert read_seen(tmp_path) == {1: ["a"]}
