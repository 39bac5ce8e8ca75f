"""Teach backbone: a small backbone that nobody has trained learns to say, at its queries, what comes of each round, before a model predicts states with it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from curation.config import Config
from training.model.backbone import Backbone
from training.model.dialogue import Dialogue
from training.model.plain import must
from training.optim import lesson_rate

_NO_WORD = -100  # what cross_entropy passes over


@dataclass(frozen=True)
class Lesson:
    """A dialogue, and for each of its rounds what its action leads to, in words.

    Raises:
        ValueError: not one caption a round.
    """

    dialogue: Dialogue
    captions: tuple[str, ...]

    def __post_init__(self) -> None:
        rounds = len(self.dialogue.rounds)
        must(len(self.captions) == rounds, f"lesson: {len(self.captions)} captions for {rounds} rounds; give one a round")


class TeachBackboneSettings(Config):
    """How the backbone learns; the defaults are chosen on the block world."""

    steps: int = Field(500, ge=1, description="optimiser steps; 500 of 8 dialogues make 19 of 20 captions of the block world right, word for word")
    batch: int = Field(8, ge=1, description="dialogues a step")
    lr: float = Field(2e-3, gt=0, le=1, description="peak learning rate, of a cosine with a twentieth of warm-up")
    weight_decay: float = Field(0.01, ge=0, le=1, description="of all parameters")
    clip: float = Field(1.0, gt=0, description="most that the gradient's norm may be")
    seed: int = Field(0, ge=0, description="of the lessons' order")


def teach(
    backbone: Backbone, lessons: Sequence[Lesson], settings: TeachBackboneSettings, told: Callable[[int, float], None] = lambda step, nats: None
) -> Backbone:
    """The same backbone, after all of it has learnt to caption; in evaluation mode, and frozen but for its queries, as PAN's joint phase wants it.

    The caption's words are asked of the queries, one each: there the model's states are read later, so there what was seen and said must be found. A backbone
    with random weights, or one that has only learnt to write captions as text, has states that say nothing of their round which a decoder could use.

    Args:
        backbone: with an `lm_head`; it is taught in place.
        told: called with each hundredth step and its loss, nats a word.

    Raises:
        ValueError: there are no lessons, the backbone has no `lm_head`, or a caption has more words than there are queries.

    Source: ours. PAN (arXiv 2511.09057v3) begins with Qwen2.5-VL, which has been taught by others; at this size it must be done here.
    """
    must(bool(lessons), "teaching a backbone: there are no lessons; give some")
    backbone.train_only_queries(False)
    learning, order = list(backbone.parameters()), Random(settings.seed)
    learner = torch.optim.AdamW(learning, lr=settings.lr, betas=(0.9, 0.98), weight_decay=settings.weight_decay)
    wanted = [_wanted(backbone, lesson) for lesson in lessons]
    backbone.train()
    for step in range(settings.steps):
        for group in learner.param_groups:
            group["lr"] = settings.lr * lesson_rate(step, settings.steps)
        drawn = [order.randrange(len(lessons)) for _ in range(settings.batch)]
        loss = _loss(backbone, [lessons[k].dialogue for k in drawn], [wanted[k] for k in drawn])
        learner.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, settings.clip)
        learner.step()
        if (step + 1) % 100 == 0:
            told(step + 1, float(loss.detach()))
    backbone.train_only_queries()
    backbone.eval()
    return backbone


def right(backbone: Backbone, lessons: Sequence[Lesson]) -> float:
    """The share of the rounds whose caption the backbone finds, each word of it.

    Raises:
        ValueError: as `teach`.
    """
    must(bool(lessons), "reading a backbone's captions: there are no lessons; give some")
    found = []
    with torch.no_grad():
        for lesson in lessons:
            wanted_RQ = _wanted(backbone, lesson)
            said_RQ = _logits(backbone, [lesson.dialogue])[0].argmax(-1)
            found.append(((said_RQ == wanted_RQ) | (wanted_RQ == _NO_WORD)).all(1))
    return float(torch.cat(found).float().mean())


def _loss(backbone: Backbone, dialogues: Sequence[Dialogue], wanted: Sequence[Tensor]) -> Tensor:
    wanted_BRQ = pad_sequence(list(wanted), batch_first=True, padding_value=_NO_WORD)
    return cross_entropy(_logits(backbone, dialogues).float().flatten(0, 2), wanted_BRQ.flatten())


def _logits(backbone: Backbone, dialogues: Sequence[Dialogue]) -> Tensor:
    """[B, R, Q, vocabulary]."""
    must(backbone.lm_head is not None, "teaching a backbone: it has no lm_head to say words with; set lm_head = true in its spec")
    logits_BRQV: Tensor = backbone.lm_head(backbone(dialogues))  # type: ignore[misc]
    return logits_BRQV


def _wanted(backbone: Backbone, lesson: Lesson) -> Tensor:
    """[R, Q]: each caption's words and the end of its turn; nothing is wanted of the queries behind that."""
    rows, queries = [], backbone.spec.queries
    for caption in lesson.captions:
        words = [*backbone.tokenizer.encode(caption), backbone.spec.ids.end]
        must(len(words) <= queries, f"teaching a backbone: {caption!r} and its end are {len(words)} words, but there are {queries} queries; say it in fewer")
        rows.append(words + [_NO_WORD] * (queries - len(words)))
    return torch.tensor(rows, device=backbone.query_embed.device)
