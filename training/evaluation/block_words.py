"""The block world's actions, and the words that they are told in."""

import re
from dataclasses import dataclass
from typing import Literal, get_args

from training.model.plain import must

Way = Literal["left", "right", "up", "down"]
WAYS: tuple[Way, ...] = get_args(Way)

#: As seen in the picture: x to the right, y down.
UNIT: dict[str, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
NOTHING = "nothing moves"

_NAMING = re.compile(r"it is the (\w+) block")
_PUSH = re.compile(r"(?:push )?the (\w+) block (left|right|up|down)")
_PAN = re.compile(r"the camera pans (left|right|up|down)")


@dataclass(frozen=True)
class Push:
    """One block is pushed by a hand that is not seen."""

    colour: str
    way: Way


@dataclass(frozen=True)
class Action:
    """What is done during one chunk.

    Attributes:
        pushes: of different blocks, at the same time; none: nothing moves.
        pan: where the camera goes meanwhile.

    Raises:
        ValueError: one block is pushed twice.
    """

    pushes: tuple[Push, ...] = ()
    pan: Way | None = None

    def __post_init__(self) -> None:
        must(len(self.named) == len(self.pushes), f"action: {self.pushes} push one block twice; give each block at most one push")

    @property
    def named(self) -> frozenset[str]:
        """The colours of the blocks that the action speaks of."""
        return frozenset(push.colour for push in self.pushes)

    def __str__(self) -> str:
        """The words: "push the red block left and the blue block up while the camera pans right"."""
        pushes = " and ".join(f"the {push.colour} block {push.way}" for push in self.pushes)
        told = [f"push {pushes}"] if pushes else []
        told += [f"the camera pans {self.pan}"] if self.pan else []
        return " while ".join(told) or NOTHING


def parse(text: str) -> Action:
    """The action that the words tell: the inverse of `str`.

    Raises:
        ValueError: other words.
    """
    pushed, _, panned = text.partition(" while ") if " while " in text or not _PAN.fullmatch(text) else ("", "", text)
    if pushed == NOTHING and not panned:
        return Action()
    pushes = [_PUSH.fullmatch(part) for part in pushed.split(" and ")] if pushed else []
    pan = _PAN.fullmatch(panned) if panned else None
    action = Action(tuple(Push(m[1], m[2]) for m in pushes if m), pan[1] if pan else None)  # type: ignore[arg-type]
    must(str(action) == text, f'{text!r} is no action of the block world; say "push the red block left", "{NOTHING}" or "the camera pans up"')
    return action


def naming(colour: str) -> str:
    """The words that say which block is "it"."""
    return f"it is the {colour} block"


def named_in(text: str) -> str | None:
    """The block that the words say is "it": the inverse of `naming`; None of other words."""
    found = _NAMING.fullmatch(text)
    return found[1] if found else None


def by_reference(text: str, it: str, other: str) -> str:
    """An action's words without its blocks' names: "push it left and the other one up"."""
    return text.replace(f"the {it} block", "it").replace(f"the {other} block", "the other one")


def by_name(text: str, it: str, other: str) -> str:
    """The inverse of `by_reference`."""
    return re.sub(r"\bit\b", f"the {it} block", text).replace("the other one", f"the {other} block")
