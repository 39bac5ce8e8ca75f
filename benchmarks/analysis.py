"""The analysis pass in this process: SplitVideo and the scoring stages of a recipe on one file, without Ray; and the bare decode beside it."""

import hashlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import pyarrow as pa

from curation.clips import table_of
from curation.shots import SplitVideo
from filters.base import Entry
from filters.score import ScoreClips
from pipelines.recipe import Recipe, load


class Analysis:
    """Everything up to the verdicts of `stages`: what a worker of the stream does before captions and cutting.

    Args:
        recipe: the settings; the packaged recipe "local" if None.
        stages: scoring stages in the stream's order.
        entries: filters and rules in place of the recipe's.
    """

    def __init__(self, recipe: Recipe | None = None, stages: Sequence[str] = ("rules",), entries: Sequence[Entry] | None = None) -> None:
        self.recipe = recipe or load("local")
        self._split = SplitVideo(self.recipe.split, self.recipe.limits)
        wanted = self.recipe.entries() if entries is None else entries
        self._score = [ScoreClips([e for e in wanted if e.stage == stage], stage) for stage in stages]

    def __call__(self, path: Path) -> Iterator[pa.Table]:
        """One table a clip, then the video's, each without its frames."""
        video = {"kind": "video", "video_id": hashlib.sha256(str(path).encode()).hexdigest()[:16], "video_uri": str(path)}
        for table in self._split(table_of([video])):
            for score in self._score:
                table = score(table)
            yield table.drop_columns(["frames"])


def bare_decode(path: Path) -> int:
    """Decodes every frame of the first video stream with one thread and looks at none; returns how many there were."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        return sum(1 for _ in container.decode(stream))


def seconds_of(work: object) -> float:
    """CPU-seconds (user and system, all threads) that using up the iterator `work`, or calling the function `work`, takes in this process."""
    began = time.process_time()
    if callable(work):
        work()
    else:
        for _ in work:  # type: ignore[attr-defined]
            pass
    return time.process_time() - began


def peak_mb() -> float:
    """Peak resident memory of this process in MB (10^6 bytes); unlike ru_maxrss it does not inherit the parent's."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024 / 1e6
