"""The block world as a raw corpus: its list, its films, and the same bytes from the same seed."""

import json
from pathlib import Path

import numpy as np
import pytest

from curation.sources import find
from curation.video import Video
from training.evaluation.block_corpus import Corpus, read_world, write
from training.evaluation.block_reader import read
from training.evaluation.blockworld import World

CORPUS = Corpus(world=World(), videos=2, rounds=2, seed=4)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_films_and_list_say_the_same(tmp_path: Path) -> None:
    told: list[int] = []
    listed = write(tmp_path, CORPUS, told.append)
    assert told == [1, 2]
    rows = [json.loads(line) for line in listed.read_text().splitlines()]
    assert [row["uri"] for row in rows] == ["videos/train_4_000000.mp4", "videos/train_4_000001.mp4"]
    for number, row in enumerate(rows):
        story = CORPUS.episode(number)
        assert row["events"] == story.events()
        assert (row["licence"], row["split"], tuple(row["layout"]["cells"])) == ("CC0-1.0", "train", story.layout.cells)
        with Video(str(tmp_path / row["uri"]), size=64) as video:
            frames = [shown.rgb() for shown in video.pictures()]
            assert (video.info.fps, len(frames)) == (16.0, 81)
        for k in (0, 40, 80):
            at = read(CORPUS.world, frames[k]).positions_N2(CORPUS.world)
            assert at is not None
            assert np.abs(at - story.positions_TN2[k]).max() * 64 < 1.0
    assert [Path(source.uri).name for source in find([str(listed)])] == ["train_4_000000.mp4", "train_4_000001.mp4"]
    assert read_world(tmp_path) == CORPUS.world


def test_the_same_seed_gives_the_same_bytes_and_more_films_change_none(tmp_path: Path) -> None:
    write(tmp_path / "a", CORPUS)
    write(tmp_path / "b", CORPUS)
    write(tmp_path / "b", CORPUS)
    first = tree(tmp_path / "a")
    assert tree(tmp_path / "b") == first
    assert len(first) == 4
    write(tmp_path / "c", Corpus(world=World(), videos=3, rounds=2, seed=4))
    assert {name: data for name, data in tree(tmp_path / "c").items() if name in first and name.startswith("videos/")} == {
        name: data for name, data in first.items() if name.startswith("videos/")
    }


def test_what_is_no_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"world\.json is not there"):
        read_world(tmp_path)
    with pytest.raises(ValueError, match="at least one of each"):
        Corpus(world=World(), videos=0)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{"world": {"size"', r"not JSON \(.*\)"),
        ("\udcff", r"not JSON \(.*\)"),
        ("{}", "it has no key 'world'"),
        ("[]", "it has no key 'world'"),
        ('{"world": []}', r"block world: expected a table of keys, got \[\]"),
        ('{"world": {"size": 64}}', "block world: blocks, side, .*chunk_frames, fps must be given"),
        (json.dumps({"world": {**World().to_dict(), "blocks": 9}}), "block world: 9 blocks"),
    ],
)
def test_a_damaged_world_is_named_with_what_to_do(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "world.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=rf"world\.json: {what}.*; write the corpus again with the same `pan blockworld`"):
        read_world(tmp_path)
