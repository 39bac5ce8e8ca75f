"""The block world as a raw corpus: films in MP4 files and the list of them with their timed actions, for `pan curate` like any other corpus."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation import whole
from curation.film import Film
from training.evaluation.block_pictures import film
from training.evaluation.blockworld import Episode, Split, World, episode
from training.model.plain import must

#: In the corpus' folder: the list that `pan curate` takes, and what the world is like.
LIST, WORLD = "videos.jsonl", "world.json"


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Which films.

    Raises:
        ValueError: nothing to write.
    """

    world: World
    videos: int
    rounds: int = 10
    """Actions a film: PAN trains on at most ten rounds."""
    seed: int = 0
    split: Split = "train"
    """Of which layouts the films begin with."""
    apart: bool = True
    """No frame shows an arrangement of the other split, so that those of "unseen" are in no film of "train", whatever the seed."""

    def __post_init__(self) -> None:
        must(self.videos > 0 and self.rounds > 0, f"block world: {self.videos} videos of {self.rounds} rounds; give at least one of each")

    def episode(self, number: int) -> Episode:
        """The `number`-th film's story."""
        return episode(self.world, self.rounds, self.seed, number, self.split, apart=self.apart)

    def name(self, number: int) -> str:
        """The `number`-th film's path in the corpus' folder."""
        return f"videos/{self.split}_{self.seed}_{number:06d}.mp4"

    def row(self, number: int, story: Episode) -> dict[str, Any]:
        """The `number`-th film's line in the list: where it is, what is done when, and where it comes from."""
        layout = {"cells": list(story.layout.cells), "positions": story.layout.positions_N2.round(6).tolist()}
        told = {"licence": "CC0-1.0", "source": "block world", "seed": self.seed, "episode": number, "split": self.split, "layout": layout}
        return {"uri": self.name(number), "events": story.events(), **told}


def write(folder: Path, corpus: Corpus, done: Callable[[int], None] = lambda number: None) -> Path:
    """Writes the films, the world, and last the list, whose path is returned; the same corpus gives the same bytes, over what is there.

    Args:
        done: called with the number of films that are there, after each.

    Raises:
        OSError: it cannot be written there.
    """
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(corpus.videos):
        story = corpus.episode(number)
        with Film(folder / corpus.name(number), corpus.world.fps, crf=10) as out:
            out.add(film(corpus.world, story.positions_TN2, story.camera_T2))
        rows.append(corpus.row(number, story))
        done(number + 1)
    about = {"world": corpus.world.to_dict(), "rounds": corpus.rounds, "seed": corpus.seed, "split": corpus.split, "apart": corpus.apart}
    whole.write(folder / WORLD, json.dumps(about, indent=2) + "\n")
    return whole.write(folder / LIST, "".join(json.dumps(row) + "\n" for row in rows))


def read_world(folder: Path) -> World:
    """The world that a corpus is of.

    Raises:
        ValueError: there is none, or it is not as `write` writes it.
    """
    path, mend = folder / WORLD, "write the corpus again with the same `pan blockworld`"
    must(path.is_file(), f"{path} is not there; give a folder that `pan blockworld` has written")
    try:
        told = json.loads(path.read_text("utf-8"))
    except ValueError as error:  # cut, or no text at all
        raise ValueError(f"{path}: not JSON ({error}); {mend}") from error
    must(isinstance(told, dict) and "world" in told, f"{path}: it has no key 'world'; {mend}")
    try:
        return World.from_dict(told["world"])
    except ValueError as error:
        raise ValueError(f"{path}: {error}; {mend}") from error
