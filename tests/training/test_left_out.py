"""Left out: each sample counts once, on whatever rank, and a share of them ends the run."""

import pytest

from training.every_rank import every_rank
from training.left_out import LeftOut
from training.optim import OverBudget


def test_a_sample_counts_once_and_the_share_is_of_the_split() -> None:
    left, skipped = LeftOut(40, 0.05), {"a": "cut", "b": "changed"}
    assert left.untold(skipped) == 2
    left.add(skipped, every_rank([2.0]))
    left.add(skipped, [[0.0], [0.0]])
    assert (len(left), left.untold(skipped)) == (2, 0)
    left.check()
    left.add(skipped | {"c": "gone"}, [[1.0]])
    with pytest.raises(OverBudget, match=r"3 of 40 samples failed their check .* a share of 0\.05 .* a among them: cut\."):
        left.check()


def test_without_a_split_any_number_may_be_left_out() -> None:
    left = LeftOut()
    left.add({"a": "cut"}, [[1.0]])
    left.check()
    assert len(left) == 1
