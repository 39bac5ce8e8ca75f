"""Ahead: the next item of an iterator, fetched by a thread while the last one is used."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from threading import Thread
from typing import Generic, TypeVar

Item = TypeVar("Item")

WATCH_S = 2.0
"""Seconds between two looks at whether what is waited for can still come."""


class Ahead(Generic[Item]):
    """An iterator that is always one item ahead: what it takes to receive one from a worker process does not keep the training waiting.

    Args:
        dead: why nothing more can come, such as a worker that was killed; None as long as it can. A worker that dies while it writes leaves half a message in
            the pipe, whose reader waits for the rest for ever: torch's loader does not notice.
    """

    def __init__(self, items: Iterator[Item], dead: Callable[[], str | None] = lambda: None) -> None:
        self._items, self._dead = items, dead
        self._coming = self._ask()

    def __iter__(self) -> "Ahead[Item]":
        return self

    def __next__(self) -> Item:
        """The next item; raises what the iterator raised in its place.

        Raises:
            RuntimeError: none can come any more.
        """
        while not wait([self._coming], WATCH_S).done:
            if why := self._dead():
                raise RuntimeError(why)
        item = self._coming.result()
        self._coming = self._ask()
        return item

    def close(self) -> None:
        """Waits for the item that is being fetched, if it can come: the iterator is then nobody's."""
        while not wait([self._coming], WATCH_S).done and not self._dead():
            pass

    def _ask(self) -> "Future[Item]":
        """Fetches in a thread that does not keep the process from ending."""
        coming: Future[Item] = Future()
        Thread(target=_fetch, args=(self._items, coming), name="pan-data", daemon=True).start()
        return coming


def _fetch(items: Iterator[Item], coming: "Future[Item]") -> None:
    try:
        coming.set_result(next(items))
    except BaseException as wrong:  # noqa: BLE001 (the one who asked raises it)
        coming.set_exception(wrong)
