"""What a text encoder does not hear of a corpus' actions is counted and told."""

from training.data.hearing import Hearing
from training.model.text import ByteTokenizer


def heard(*actions: str, tokens: int = 16) -> Hearing:
    made = Hearing(ByteTokenizer(), tokens)
    made.listen(actions)
    return made


def test_what_is_heard_whole_is_not_spoken_of() -> None:
    made = heard("", "push it", "x" * 15, "  push   the    it  ")  # white space is no token
    assert (made.times, made.cut, made.alike, made.text("debug")) == (0, 0, 0, "")


def test_actions_that_are_cut_are_counted_with_an_example() -> None:
    made = heard("push it", "turn to the left hand", "turn to the left hand", "walk on to the door")
    assert (made.times, made.cut, made.alike) == (3, 2, 0)
    told = made.text("debug")
    assert told.startswith("3 actions (2 different texts) have more than the 15 tokens that debug hears, and lose their ends: 'turn to the left hand'; shorten")


def test_actions_that_become_one_are_told_apart_from_those_that_are_only_cut() -> None:
    lefts = [f"push the red block {way}" for way in ("left", "right", "up")]
    made = heard("walk on to the door", *lefts, *lefts)
    assert (made.times, made.cut, made.alike) == (7, 4, 3)
    assert "3 of those texts become the same as another, such as 'push the red block left' and 'push the red block right': no training" in made.text("debug")
    assert heard(*lefts, tokens=96).alike == 0
