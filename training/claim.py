"""Claim: a folder is one run's: of one model, phase, corpus and seed; who comes with another is refused."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from curation import whole
from training.model.card import parts_of, read_card
from training.phases import read_history

IDENTITY = "run.json"
PIECES, PIECE = 16, 1 << 16
"""Of a file so many pieces of so many bytes are read: a model of 60 GB is told from another in a second, on every rank."""


def claim(out: Path, model: Path, asked: Mapping[str, Any]) -> None:
    """Makes `out` this run's, or finds that it is.

    Args:
        model: that the run begins with. asked: plain values: the phase, the shards, the seed, and what else makes it another run.

    Raises:
        ValueError: it is a run of another model, phase, shards or seed.
    """
    mine = {"model": identity(model), **asked}
    file = out / IDENTITY
    if file.is_file():
        told = json.loads(file.read_text("utf-8"))
        others = [name for name, value in mine.items() if told.get(name) != value]
        if others:
            theirs, ours = (" and ".join(f"{name} {facts.get(name)}" for name in others) for facts in (told, mine))
            phases = " (each phase has a folder of its own)" if "phase" in others else ""
            ours = ours.removeprefix(f"{others[0]} ") if len(others) == 1 else ours
            raise ValueError(f"{out} is a run with {theirs}, this one has {ours}; give a new folder{phases}, or what the run began with")
        return
    out.mkdir(parents=True, exist_ok=True)
    whole.write(file, json.dumps(mine, indent=2) + "\n")


def identity(model: Path) -> str:
    """Sixteen hex digits of a model: its card, its history, and its files, those of its makers' folders too: names, sizes, and pieces of their bytes."""
    told = hashlib.sha256(json.dumps(read_history(model)).encode())
    for name, file in _files(model):
        told.update(f"{name} {file.stat().st_size}\n".encode())
        for piece in _pieces(file):
            told.update(piece)
    return told.hexdigest()[:16]


def _files(model: Path) -> Iterator[tuple[str, Path]]:
    """Each file with a name that does not depend on where the model lies."""
    card = read_card(model)
    sources = {part: getattr(card, part).source for part in parts_of(card.model)}
    for name, folder in {"": str(model), **{part: source for part, source in sources.items() if source is not None}}.items():
        for file in sorted(file for file in Path(folder).rglob("*") if file.is_file()):
            yield f"{name}/{file.relative_to(folder)}", file


def _pieces(file: Path) -> Iterator[bytes]:
    """All of a small file; of a large one its beginning, its end, and pieces evenly between."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        if size <= PIECES * PIECE:
            yield opened.read()
            return
        for number in range(PIECES):
            opened.seek(number * (size - PIECE) // (PIECES - 1))
            yield opened.read(PIECE)
