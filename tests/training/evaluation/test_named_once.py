"""A world whose blocks are named once: what its words are, what they mean, and that nothing but the story's beginning tells it."""

import pytest

from training.evaluation.block_fidelity import copy_of_start, fidelity, meant, simulator
from training.evaluation.block_words import Action, Push, by_name, by_reference, named_in, naming
from training.evaluation.blockworld import World, episode, episodes

ONCE = World(blocks=2, contact=False, chunk_frames=4, fps=1.6, named="once")


def test_words_by_reference_there_and_back() -> None:
    for it, other, said in (("red", "blue", "push it left and the other one up"), ("blue", "red", "push the other one left and it up")):
        text = str(Action((Push("red", "left"), Push("blue", "up"))))
        assert by_reference(text, it, other) == said
        assert by_name(said, it, other) == text
    assert named_in(naming("blue")) == "blue"
    assert named_in("push the blue block up") is None


def test_the_first_action_names_a_block_and_no_later_one_does() -> None:
    for story in episodes(ONCE, 6, 3, 30):
        assert story.it in ONCE.colours
        assert story.words[0] == naming(str(story.it))
        assert story.actions[0] == Action()
        assert not any(colour in text for text in story.words[1:] for colour in ONCE.colours)
        assert [event["text"] for event in story.events()] == list(story.words)
        assert tuple(meant(ONCE, story.words)) == story.actions


def test_captions_say_what_happens_by_name() -> None:
    story = next(s for s in episodes(ONCE, 6, 3, 30) if any(len(a.pushes) == 2 for a in s.actions))
    assert story.captions[0] == f"it is {story.it}"
    for action, caption in zip(story.actions[1:], story.captions[1:], strict=True):
        assert caption == (" ".join(f"{p.colour} {p.way}" for p in action.pushes) or "nothing")
    panned = next(s for s in episodes(World(blocks=2, camera=True), 4, 0, 30) if any(a.pan and a.pushes for a in s.actions))
    told = next((a, c) for a, c in zip(panned.actions, panned.captions, strict=True) if a.pan and a.pushes)
    assert told[1].endswith(f"camera {told[0].pan}")


def test_both_blocks_are_meant_equally_often() -> None:
    its = [episode(ONCE, 1, 0, number).it for number in range(200)]
    assert 70 < its.count("red") < 130


def test_the_true_simulator_obeys_by_what_was_said_first() -> None:
    stories = list(episodes(ONCE, 5, 1, 8, "unseen"))
    assert fidelity(simulator(ONCE), stories).obeyed == 1.0
    assert fidelity(copy_of_start(ONCE), stories).obeyed < 0.6
    deaf = fidelity(lambda image, words: simulator(ONCE)(image, [naming("red"), *words[1:]]), [s for s in stories if s.it == "blue"])
    assert deaf.obeyed < 0.7


def test_three_blocks_have_no_other_one() -> None:
    with pytest.raises(ValueError, match="named once"):
        World(blocks=3, named="once")
    with pytest.raises(ValueError, match="named 'twice'"):
        World(named="twice")  # type: ignore[arg-type]


def test_a_world_of_before_there_was_a_choice_names_always() -> None:
    told = {key: value for key, value in World().to_dict().items() if key != "named"}
    assert World.from_dict(told) == World()
