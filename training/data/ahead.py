"""Ahead: the next item of an iterator, fetched by a thread while the last one is used."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Ahead(Generic[Item]):
    """An iterator that is always one item ahead: what it takes to receive one from a worker process does not keep the training waiting."""

    def __init__(self, items: Iterator[Item]) -> None:
        self._items = items
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pan-data")
        self._coming = self._thread.submit(next, items)

    def __iter__(self) -> "Ahead[Item]":
        return self

    def __next__(self) -> Item:
        """The next item; raises what the iterator raised in its place."""
        item = self._coming.result()
        self._coming = self._thread.submit(next, self._items)
        return item

    def close(self) -> None:
        """Ends the thread, and waits for it: the iterator is then nobody's."""
        self._thread.shutdown(wait=True, cancel_futures=True)
