"""PAN's dialogue: rounds of what is seen and what is done, in Qwen's own template, with query tokens where the model answers.

    <|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n
    <|im_start|>user\\n<|vision_start|>{picture or video}<|vision_end|>{action}<|im_end|>\\n<|im_start|>assistant\\n{queries}<|im_end|>\\n
    ... and so on, the second line once a round.

Source: PAN (arXiv 2511.09057v3) 3.2 for the order; the chat template of Qwen2.5-VL-7B-Instruct for the tokens around it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch

from training.model.mrope import Grid
from training.model.plain import must
from training.model.spec import BackboneSpec
from training.model.tokens import Tokenizer
from training.model.vision import Sight


@dataclass(frozen=True)
class Round:
    """What the world looked like, and what is done next, in words."""

    sight: Sight
    action: str


@dataclass(frozen=True)
class Dialogue:
    """Rounds, oldest first; the model answers each with the state that follows.

    Raises:
        ValueError: there is no round.
    """

    rounds: tuple[Round, ...]

    def __post_init__(self) -> None:
        must(len(self.rounds) > 0, "dialogue: there is no round; give at least one (sight, action)")


@dataclass(frozen=True)
class Turn:
    """A piece of the prompt that is fed at once: the system's words, or a round."""

    ids: tuple[int, ...]
    """Token ids; at a query's place stands the pad's, which nobody looks up."""
    pieces: tuple[int | Grid, ...]
    """The same as lengths of text and grids, for the positions."""
    sight: slice
    """Where the sight's tokens are; empty in the system's turn."""
    words: slice
    """Where the action's are."""
    queries: slice
    """Where the queries are."""


def system_turn(spec: BackboneSpec, tokenizer: Tokenizer) -> Turn:
    """The words before the first round."""
    ids = [spec.ids.start, *tokenizer.encode(f"system\n{spec.system}"), spec.ids.end, *tokenizer.encode("\n")]
    nowhere = slice(0, 0)
    return Turn(tuple(ids), (len(ids),), nowhere, nowhere, nowhere)


def round_turn(action: str, grid: Grid, is_picture: bool, spec: BackboneSpec, tokenizer: Tokenizer) -> Turn:
    """One round: the user's sight and action, the assistant's queries."""
    special, count = spec.ids, grid.count
    begin = [special.start, *tokenizer.encode("user\n"), special.vision_start]
    words = tokenizer.encode(action)
    answer = [special.end, *tokenizer.encode("\n"), special.start, *tokenizer.encode("assistant\n")]
    end = [special.end, *tokenizer.encode("\n")]
    seen = [special.image if is_picture else special.video] * count
    ids = [*begin, *seen, special.vision_end, *words, *answer, *[special.pad] * spec.queries, *end]
    sight = slice(len(begin), len(begin) + count)
    said = slice(sight.stop + 1, sight.stop + 1 + len(words))
    queries = slice(said.stop + len(answer), said.stop + len(answer) + spec.queries)
    return Turn(tuple(ids), (len(begin), grid, len(ids) - len(begin) - count), sight, said, queries)


def turns(dialogue: Dialogue, spec: BackboneSpec, tokenizer: Tokenizer) -> list[Turn]:
    """The whole prompt: the system's turn, then one a round."""
    rounds = [round_turn(r.action, r.sight.tokens(spec.vision), r.sight.seconds is None, spec, tokenizer) for r in dialogue.rounds]
    return [system_turn(spec, tokenizer), *rounds]


def places(parts: Sequence[slice], script: Sequence[Turn]) -> Any:
    """The places, int64 [n], that one slice of each turn takes in all turns joined."""
    begins = accumulate((len(turn.ids) for turn in script), initial=0)
    return torch.cat([torch.arange(begin + part.start, begin + part.stop) for begin, part in zip(begins, parts, strict=False)])
