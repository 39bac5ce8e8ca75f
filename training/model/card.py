"""model.json: what a model on disk is, and where each of its parts' files are; strict, and read without torch."""

import json
from dataclasses import dataclass
from pathlib import Path

from training.model.plain import built, must
from training.model.spec import ModelSpec

PARTS = ("decoder", "vae", "text", "backbone", "connector")
FORMAT = 1
CARD = "model.json"


@dataclass(frozen=True, kw_only=True)
class Part:
    """Where a part's files are."""

    source: str | None = None
    """A folder of its makers, absolute; None: all is in the model's own folder."""
    tokenizer: bool = False
    """Whether a tokenizer's file lies in the part's own folder; otherwise texts are read as bytes."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """model.json."""

    format: int
    model: ModelSpec
    decoder: Part
    vae: Part
    text: Part
    backbone: Part | None = None
    connector: Part | None = None


def parts_of(spec: ModelSpec) -> tuple[str, ...]:
    """The parts that a model of `spec` has: no backbone where nothing reads its states, no connector where it is linear."""
    sees = spec.decoder.state_dim is not None or spec.connector != "linear"
    return tuple(part for part in PARTS if (part != "backbone" or sees) and (part != "connector" or spec.connector != "linear"))


def read_spec(folder: Path) -> ModelSpec:
    """What the model in `folder` is.

    Raises:
        ValueError: as `read_card`.
    """
    return read_card(folder).model


def read_card(folder: Path) -> Card:
    """model.json, strictly.

    Raises:
        ValueError: it is not there, is no JSON, is of another format, or has an unknown or missing key; or a part is said to be elsewhere and is not.
    """
    file = folder / CARD
    inner = folder / "model"
    advice = (
        f"{inner} has one, as a run's folder has: give that" if (inner / CARD).is_file() else "give a folder of `pan assemble`, or a trained one, RUN/model"
    )
    must(file.is_file(), f"{folder}: no {CARD} there; {advice}")
    try:
        data = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: not JSON ({error}); copy it again") from error
    told = data.get("format") if isinstance(data, dict) else None
    must(told == FORMAT, f"{file}: format {told!r}; this version reads format {FORMAT}")
    card = built(Card, data, str(file))
    for part in PARTS:
        has, needs = getattr(card, part), part in parts_of(card.model)
        must((has is not None) == needs, f"{file}: {part} is {'missing, and the model has one' if needs else 'given, but the model has none'}")
        if has is not None and has.source is not None:
            there = f"{file}: {part}.source is {has.source}, which is not there; mount it, or write the folder's new place into {CARD}"
            must(Path(has.source).exists(), there)
    return card
