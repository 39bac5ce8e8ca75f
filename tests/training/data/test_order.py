"""The order of samples is a pure function of seed and epoch; each is taken exactly once, whatever becomes of the workers."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.order import Cursor, drawn, share, shuffled, steps

KEYS = [f"{n:016x}" for n in range(50)]


def test_what_is_drawn_never_changes() -> None:
    assert drawn(0, 1, "a") == 9800590510599125407  # fixed: a checkpoint of an older version resumes by it


def test_the_order_depends_on_seed_and_epoch_and_not_on_how_keys_are_listed() -> None:
    first = [KEYS[i] for i in shuffled(KEYS, 1, 0)]
    assert sorted(first) == KEYS
    assert first != KEYS
    assert first == [KEYS[::-1][i] for i in shuffled(KEYS[::-1], 1, 0)]
    assert first != [KEYS[i] for i in shuffled(KEYS, 1, 1)]
    assert first != [KEYS[i] for i in shuffled(KEYS, 2, 0)]


def test_a_step_holds_one_bucket_and_only_the_last_of_each_is_smaller() -> None:
    order, buckets = shuffled(KEYS, 0, 0), np.arange(50) % 3
    cut = steps(order, buckets, 4)
    assert all(len({int(buckets[i]) for i in step}) == 1 for step in cut)
    assert [len(step) for step in cut] == [4] * 12 + [1, 1]  # 17, 17 and 16 samples
    assert sorted(np.concatenate(cut).tolist()) == list(range(50))
    assert len({int(buckets[step[0]]) for step in cut[:4]}) > 1  # buckets mix


def test_ranks_share_a_step_evenly() -> None:
    members = np.arange(7)
    assert [share(members, r, 3).tolist() for r in range(3)] == [[0, 3, 6], [1, 4], [2, 5]]


@given(count=st.integers(0, 60), kinds=st.integers(1, 4), size=st.integers(1, 9), done=st.integers(0, 20), seed=st.integers(0, 99))
def test_what_is_left_is_cut_into_the_steps_that_were_left(count: int, kinds: int, size: int, done: int, seed: int) -> None:
    buckets = np.array([drawn("bucket", seed, i) % kinds for i in range(count)], dtype=np.int64)
    order = shuffled([str(i) for i in range(count)], seed, 0)
    whole = steps(order, buckets, size)
    done = min(done, len(whole))
    rest = Cursor(0, ((size, done),)).left(order, buckets)
    assert [step.tolist() for step in steps(rest, buckets, size)] == [step.tolist() for step in whole[done:]]


@settings(max_examples=150)
@given(
    count=st.integers(1, 70),
    kinds=st.integers(1, 3),
    lives=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(0, 6), st.integers(0, 3)), max_size=6),
    seed=st.integers(0, 999),
)
def test_an_epoch_is_the_manifest_over_any_worlds_and_kills(count: int, kinds: int, lives: list[tuple[int, int, int, int]], seed: int) -> None:
    """Each life has a world and a batch, takes some steps, and dies some steps after its last checkpoint; the next resumes from that."""
    keys = [f"k{i}" for i in range(count)]
    buckets = np.array([drawn(seed, i) % kinds for i in range(count)], dtype=np.int64)
    order = shuffled(keys, seed, 3)
    seen: Counter[int] = Counter()
    cursor = Cursor(3)
    for world, batch, kept, lost in [*lives, (1, 5, 10**6, 0)]:
        size = world * batch
        cut = steps(cursor.left(order, buckets), buckets, size)
        for step in cut[:kept]:
            mine = [share(step, rank, world) for rank in range(world)]
            assert all(len(part) <= batch for part in mine)
            seen.update(np.concatenate(mine).tolist())
            cursor = cursor.after(size)
        replayed = cut[kept : kept + lost]  # taken, but after the checkpoint: forgotten with it, and taken again
        assert all(i not in seen for step in replayed for i in step.tolist())
    assert seen == Counter(range(count))


def test_a_cursor_goes_through_json() -> None:
    cursor = Cursor(2).after(8).after(8).after(4)
    assert cursor.taken == ((8, 2), (4, 1))
    assert Cursor.from_dict(cursor.to_dict()) == cursor
    with pytest.raises(KeyError):
        Cursor.from_dict({"epoch": 1})
