"""A small backbone that learns to caption: what it says at its queries, what learns meanwhile and after, and what is refused."""

from dataclasses import replace
from functools import cache

import pytest
import torch

from training.evaluation.block_model import block_spec, fresh_backbone, lessons, plain_vae, write_tokenizer
from training.evaluation.blockworld import World
from training.model.backbone import Backbone
from training.model.spec import ModelSpec
from training.teach_backbone import Lesson, TeachBackboneSettings, right, teach

ONCE = World(blocks=2, contact=False, chunk_frames=4, fps=1.6, named="once")
SHORT = TeachBackboneSettings(steps=120, batch=8)


@cache
def model() -> ModelSpec:
    return block_spec(ONCE, plain_vae())


def fresh(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    torch.manual_seed(0)
    return fresh_backbone(model().backbone, write_tokenizer(tmp_path_factory.mktemp("words")))


@pytest.fixture(scope="module")
def untaught(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return fresh(tmp_path_factory)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return teach(fresh(tmp_path_factory), lessons(ONCE, model(), 40, seed=3, rounds=3), SHORT)


def test_it_says_what_is_meant_on_tables_that_it_has_not_seen(taught: Backbone, untaught: Backbone) -> None:
    unseen = lessons(ONCE, model(), 10, seed=4, split="unseen", rounds=3)
    assert right(untaught, unseen) == 0.0
    assert right(taught, unseen) >= 0.5


def test_only_the_queries_learn_afterwards(taught: Backbone) -> None:
    assert [name for name, parameter in taught.named_parameters() if parameter.requires_grad] == ["query_embed"]
    assert not taught.training


def test_the_same_seed_gives_the_same_weights(tmp_path_factory: pytest.TempPathFactory) -> None:
    told = lessons(ONCE, model(), 4, seed=3, rounds=2)
    one, other = (teach(fresh(tmp_path_factory), told, TeachBackboneSettings(steps=3, batch=2)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_progress_is_told_each_hundredth_step(tmp_path_factory: pytest.TempPathFactory) -> None:
    told: list[tuple[int, float]] = []
    teach(fresh(tmp_path_factory), lessons(ONCE, model(), 2, seed=3, rounds=1), TeachBackboneSettings(steps=100, batch=1), lambda *what: told.append(what))
    assert [step for step, _ in told] == [100]
    assert 0 <= told[0][1] < 5


def test_lessons_tell_what_the_words_mean() -> None:
    (lesson,) = lessons(ONCE, model(), 1, seed=3, rounds=4)
    first, *later = lesson.captions
    assert first in ("it is red", "it is blue")
    assert lesson.dialogue.rounds[0].action == f"it is the {first.split()[-1]} block"
    for said, meant in zip((r.action for r in lesson.dialogue.rounds[1:]), later, strict=True):
        assert ("red" in meant or "blue" in meant) == (said != "nothing moves")
        assert "red" not in said
        assert "blue" not in said


def test_what_cannot_be_taught_is_refused(untaught: Backbone) -> None:
    lesson = lessons(ONCE, model(), 1, seed=3, rounds=1)[0]
    with pytest.raises(ValueError, match="no lessons"):
        teach(untaught, [], SHORT)
    with pytest.raises(ValueError, match="no lessons"):
        right(untaught, [])
    with pytest.raises(ValueError, match="9 words, but there are 8 queries"):
        teach(untaught, [replace(lesson, captions=(" ".join(["red"] * 8),))], SHORT)
    with pytest.raises(ValueError, match="2 captions for 1 rounds"):
        Lesson(lesson.dialogue, ("red left", "nothing"))
    with pytest.raises(ValueError, match="no lm_head"):
        teach(Backbone(replace(model().backbone, lm_head=False), untaught.tokenizer), [lesson], SHORT)
