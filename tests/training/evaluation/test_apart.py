"""Apart: no frame of a training film shows an arrangement of blocks that is kept for judging."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from training.evaluation.block_corpus import LIST, WORLD, Corpus, write
from training.evaluation.block_model import block_spec, lessons, plain_vae
from training.evaluation.blockworld import Split, World, arrangement, episodes, layout, shows, split_of

PLAIN = World(blocks=2, contact=False, chunk_frames=8)
WORLDS = [PLAIN, World(chunk_frames=8), World(chunk_frames=8, camera=True), replace(PLAIN, lag=0.5), replace(PLAIN, named="once")]


@pytest.mark.parametrize("world", WORLDS, ids=["plain", "contact", "camera", "lag", "once"])
@pytest.mark.parametrize(("split", "other"), [("train", "unseen"), ("unseen", "train")])
def test_films_of_one_split_show_nothing_of_the_other(world: World, split: Split, other: Split) -> None:
    told, free = (list(episodes(world, 10, 0, 4, split, apart=apart)) for apart in (True, False))
    assert not any(shows(world, story.positions_TN2, other) for story in told)
    assert sum(shows(world, story.positions_TN2, other) for story in free) > 2
    assert all(split_of(arrangement(world, story.positions_TN2[0])) == split for story in told)


def test_there_is_enough_left_to_do() -> None:
    told, free = (list(episodes(PLAIN, 10, 0, 40, apart=apart)) for apart in (True, False))
    for idle in (np.mean([not action.pushes for story in stories for action in story.actions]) for stories in (told, free)):
        assert idle == pytest.approx(PLAIN.still, abs=0.06)


def test_an_arrangement_is_the_cells_that_the_layout_was_drawn_in() -> None:
    rng = np.random.default_rng(0)
    for world in (*WORLDS, World(blocks=6, side=0.12)):
        for _ in range(20):
            found = layout(world, rng)
            assert arrangement(world, found.positions_N2) == found.cells
    low, high = PLAIN.table.low, PLAIN.table.high
    assert arrangement(PLAIN, np.array([[low, low], [high, high]])) == (0, PLAIN.cells**2 - 1)


def test_a_corpus_is_apart_unless_it_is_told_otherwise(tmp_path: Path) -> None:
    corpus = Corpus(world=replace(PLAIN, chunk_frames=2), videos=3, rounds=10, seed=5)
    assert not any(shows(corpus.world, corpus.episode(n).positions_TN2, "unseen") for n in range(3))
    free = replace(corpus, apart=False)
    assert any(shows(free.world, free.episode(n).positions_TN2, "unseen") for n in range(3))
    for name, each in (("apart", corpus), ("free", free)):
        write(tmp_path / name, replace(each, videos=1, rounds=1))
        assert json.loads((tmp_path / name / WORLD).read_text("utf-8"))["apart"] is (name == "apart")
        assert (tmp_path / name / LIST).is_file()


def test_what_the_backbone_is_taught_with_can_be_apart_too() -> None:
    spec = block_spec(PLAIN, plain_vae(), chunk_latents=2)
    told, free = ([lesson.captions for lesson in lessons(PLAIN, spec, 2, 3, apart=apart)] for apart in (True, False))
    assert told == [story.captions for story in episodes(PLAIN, 10, 3, 2, apart=True)]
    assert told != free
