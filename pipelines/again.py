"""Again: a command's own words, to be given once more where it was stopped."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_GIVEN: ContextVar[tuple[str, ...]] = ContextVar("given", default=())


def words(command: Sequence[object], options: Mapping[str, Any]) -> list[str]:
    """The words of a command and of what it was told.

    Args:
        options: by option: a value, True (the option alone), several values (the option once each), or None, False or nothing, which leave it out.
    """
    found = [str(word) for word in command]
    for name, value in options.items():
        each = value if isinstance(value, (list, tuple)) else [] if value is None or value is False else [value]
        found += [word for one in each for word in ([name] if one is True else [name, str(one)])]
    return found


@contextmanager
def given(command: Sequence[str]) -> Iterator[None]:
    """Whoever asks `as_given` while the block runs hears these words."""
    token = _GIVEN.set(tuple(command))
    try:
        yield
    finally:
        _GIVEN.reset(token)


def as_given() -> list[str]:
    """The words of the command that runs now; [] of a call that is no command's."""
    return list(_GIVEN.get())


def text(command: Sequence[str]) -> str:
    """For a shell."""
    return shlex.join(command) if command else "the same call"
