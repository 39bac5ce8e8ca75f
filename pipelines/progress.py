"""Progress: what the ledger already holds, as a live stage table on a terminal or one line per 30 s elsewhere."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import pyarrow as pa

from pipelines.funnel import Funnel

POLL_S, LINE_S = 1.0, 30.0


class Progress:
    """Counts of the run so far, read from committed ledger segments: it shows only what can no longer be lost.

    Args:
        fresh: gives the rows of segments committed since its last call; the first call gives what earlier runs committed.
        videos: how many videos there are to finish, with those.
    """

    def __init__(self, fresh: Callable[[], list[pa.Table]], videos: int) -> None:
        self._fresh, self._videos = fresh, videos
        self.funnel = Funnel()
        self._began = time.monotonic()
        self.update()
        self._before = sum(self.funnel.videos.values())
        self._clips_before = {s.stage: s.given for s in self.funnel.stages}

    def update(self) -> None:
        """Takes in what was committed since the last update."""
        for rows in self._fresh():
            self.funnel.add(rows)

    def left_s(self) -> float | None:
        """Seconds left at the rate so far; None while nothing is done."""
        done = sum(self.funnel.videos.values())
        here = done - self._before
        return (time.monotonic() - self._began) / here * max(self._videos - done, 0) if here else None

    def line(self) -> str:
        """One line: videos, clips, and where they fell."""
        f = self.funnel
        done = sum(f.videos.values())
        left = self.left_s()
        stages = "  ".join(f"{s.stage} {s.kept}/{s.given}" for s in f.active())
        return f"videos {done}/{self._videos}  failed {f.videos['failed']}  clips {f.clips}  {stages}  left {'?' if left is None else f'{left:.0f} s'}"

    def table(self) -> object:
        """The stage table: in, kept, rejected, failed, rate, time left."""
        from rich.table import Table

        elapsed = max(time.monotonic() - self._began, 1e-9)
        done, left = sum(self.funnel.videos.values()), self.left_s()
        title = f"videos {done}/{self._videos}, time left {'?' if left is None else f'{left:.0f} s'}"
        table = Table(title=title, title_justify="left")
        table.add_column("stage")
        for name in ("in", "kept", "rejected", "failed", "clips/s"):
            table.add_column(name, justify="right")
        for s in self.funnel.active():
            table.add_row(s.stage, str(s.given), str(s.kept), str(s.rejected), str(s.failed), f"{(s.given - self._clips_before[s.stage]) / elapsed:.1f}")
        return table


class Committed:
    """Progress of a command that gives each clip a new row: how many are committed.

    Args:
        fresh: gives the rows of segments committed since its last call.
        clips: how many there are to do.
        what: is done to them, such as "captions".
    """

    def __init__(self, fresh: Callable[[], list[pa.Table]], clips: int, what: str) -> None:
        self._fresh, self._clips, self._what, self.done, self.failed = fresh, clips, what, 0, 0

    def update(self) -> None:
        """Takes in what was committed since the last update."""
        for rows in self._fresh():
            self.done += rows.num_rows
            self.failed += sum(status != "ok" for status in rows["status"].to_pylist())

    def line(self) -> str:
        """One line."""
        return f"{self._what} {self.done}/{self._clips}  failed {self.failed}"

    def table(self) -> object:
        """The same for a terminal."""
        return self.line()


class Counts(Protocol):
    """What can be shown while it grows."""

    def update(self) -> None:
        """Takes in what was committed since the last update."""

    def line(self) -> str:
        """One line."""
        ...

    def table(self) -> object:
        """What a terminal shows."""
        ...


@contextmanager
def shown(progress: Counts) -> Iterator[Counts]:
    """Shows `progress` while the block runs, and once more at its end."""
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    stop = threading.Event()
    faults: list[BaseException] = []
    live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def watch() -> None:
        said = time.monotonic()
        try:
            while not stop.wait(POLL_S):
                progress.update()
                if live:
                    live.update(progress.table(), refresh=True)  # type: ignore[arg-type]
                elif time.monotonic() - said >= LINE_S:
                    console.print(progress.line(), soft_wrap=True, highlight=False)
                    said = time.monotonic()
        except OSError as error:  # a listing that fails must not end the run; it is raised at the end
            faults.append(error)

    thread = threading.Thread(target=watch, name="progress", daemon=True)
    if live:
        live.start()
    thread.start()
    try:
        yield progress
    finally:
        stop.set()
        thread.join()
        if not faults:
            progress.update()
        if live:
            live.update(progress.table(), refresh=True)  # type: ignore[arg-type]
            live.stop()
        else:
            console.print(progress.line(), soft_wrap=True, highlight=False)
        for fault in faults:
            console.print(f"progress could not be read: {fault}", highlight=False)
