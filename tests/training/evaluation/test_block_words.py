"""The block world's words: every action is told one way, and read back as it was."""

import itertools

import pytest

from training.evaluation.block_words import WAYS, Action, Push, parse


@pytest.mark.parametrize(
    ("action", "text"),
    [
        (Action(), "nothing moves"),
        (Action((Push("red", "left"),)), "push the red block left"),
        (Action((Push("blue", "up"), Push("red", "down"))), "push the blue block up and the red block down"),
        (Action((), "left"), "the camera pans left"),
        (Action((Push("red", "left"), Push("blue", "up")), "down"), "push the red block left and the blue block up while the camera pans down"),
    ],
)
def test_words_there_and_back(action: Action, text: str) -> None:
    assert str(action) == text
    assert parse(text) == action


def test_no_two_actions_share_their_words() -> None:
    pushes = [Push(colour, way) for colour in ("red", "blue") for way in WAYS]
    actions = [Action(p, pan) for pan in (None, *WAYS) for p in ((), *((one,) for one in pushes), *itertools.product(pushes[:4], pushes[4:]))]
    texts = {str(action) for action in actions}
    assert len(texts) == len(actions) == 5 * (1 + 8 + 16)
    assert {parse(text) for text in texts} == set(actions)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "push",
        "push the red block",
        "push the red block north",
        "the red block left",
        "nothing moves while the camera pans left",
        "nothing moves and",
        "pan left",
    ],
)
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no action of the block world"):
        parse(text)


def test_a_block_is_pushed_once() -> None:
    with pytest.raises(ValueError, match="push one block twice"):
        Action((Push("red", "left"), Push("red", "up")))
