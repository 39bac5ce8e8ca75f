"""Hearing: which actions of a corpus a text encoder hears whole; of a longer one it hears the beginning, which may be another action's too."""

import hashlib
from collections.abc import Iterable

from training.model.text import cleaned
from training.model.tokens import Tokenizer


class Hearing:
    """Listens to the actions of a corpus; keeps those alone that are too long.

    Args:
        tokenizer: the text encoder's.
        tokens: what it takes of a text at most, its end's among them (`TextSpec.tokens`).

    Attributes:
        times: how many actions are cut, each as often as it comes.
    """

    def __init__(self, tokenizer: Tokenizer, tokens: int) -> None:
        self.times = 0
        self._tokenizer, self._keeps = tokenizer, tokens - 1
        self._heard: dict[str, bytes] = {}

    def listen(self, actions: Iterable[str]) -> None:
        """Takes in further actions."""
        for action in actions:
            self._add(action)

    def _add(self, action: str) -> None:
        if action in self._heard:
            self.times += 1
            return
        if len(action.encode()) < self._keeps:  # a token has a byte at least, and a piece for the beginning may come before them
            return
        ids = self._tokenizer.encode(cleaned(action))
        if len(ids) > self._keeps:
            self.times += 1
            self._heard[action] = hashlib.sha256(repr(ids[: self._keeps]).encode()).digest()

    @property
    def cut(self) -> int:
        """How many different actions are cut."""
        return len(self._heard)

    @property
    def alike(self) -> int:
        """How many of those begin as another of them does in all that is heard: to the model they are one action."""
        return sum(map(len, self._groups()))

    def text(self, name: str) -> str:
        """What is to be said of it to people; "" where every action is heard whole.

        Args:
            name: the model's.
        """
        if not self._heard:
            return ""
        first = next(iter(self._heard))
        told = f"{self.times} actions ({self.cut} different texts) have more than the {self._keeps} tokens that {name} hears, and lose their ends: {first!r}"
        mend = "shorten the captions, or take a model that hears more (text.tokens)"
        if not self.alike:
            return f"{told}; {mend}"
        one, other, *_ = self._groups()[0]
        return f"{told}. {self.alike} of those texts become the same as another, such as {one!r} and {other!r}: no training tells these apart; {mend}"

    def _groups(self) -> list[list[str]]:
        """Texts of which the same is heard, two or more each."""
        found: dict[bytes, list[str]] = {}
        for action, heard in self._heard.items():
            found.setdefault(heard, []).append(action)
        return [texts for texts in found.values() if len(texts) > 1]
