"""Stream: the recipe's stages in order, from video rows to committed ledger rows; never forked."""

import logging
from collections.abc import Sequence
from functools import partial

import pyarrow as pa

from captioning.caption import CaptionClips
from curation.cut import CutClips
from curation.reopen import ReopenClips
from curation.shots import SplitVideo
from curation.sources import identify
from curation.stage import Resources, Stage
from curation.storage import Storage
from filters.score import ScoreClips
from pipelines.recipe import Recipe
from pipelines.run import Run

#: Videos a block at most. A block is one task: what is committed together, done again after a kill, and waited for at the end.
BLOCK_VIDEOS = 16
#: Blocks for each CPU before blocks grow: a task costs some 10 ms, and long and short videos even out over many.
BLOCKS_PER_CPU = 64
#: Ray Data gathers rows into blocks of this size between stages that are not fused: a clip's frames are some 5 to 40 MB.
BLOCK_BYTES = 8 << 20


def stages(recipe: Recipe, reopen: bool = False) -> list[Stage]:
    """The stream's stages: SplitVideo (or, for `rejudge`, the known clips opened again), the filters, captions, cut."""
    take = recipe.resources
    first = partial(ReopenClips if reopen else SplitVideo, recipe.split, recipe.limits)
    found = [Stage(name="ReopenClips" if reopen else "SplitVideo", make=first, resources=take.split)]
    for name, resources in (("rules", take.rules), ("detectors", take.detectors), ("content", take.content)):
        if entries := recipe.entries(name):
            found.append(Stage(name=f"ScoreClips_{name}", make=partial(ScoreClips, entries, name), resources=resources))
    found.append(Stage(name="CaptionClips", make=partial(CaptionClips, recipe.caption), resources=take.caption))
    found.append(Stage(name="CutClips", make=partial(CutClips, recipe.cut, recipe.limits), resources=take.cut))
    return found


def run(rows: pa.Table, todo: Sequence[Stage], held: Run, resources: Resources) -> None:
    """Sends `rows` through the stages into the ledger; returns when every row is committed.

    Item faults are rows, never exceptions, so `max_errored_blocks` stays 0: an exception is a bug and stops the job.
    """
    import ray

    _configure()
    commit = Stage(name="Commit", make=partial(Commit, held.out, held.lock.fence), resources=resources, whole_blocks=True)
    data = ray.data.from_arrow(blocks(rows))
    for stage in (*todo, commit):
        data = stage.apply(data)
    for _ in data.iter_batches(batch_size=None, prefetch_batches=1):
        pass  # what comes out are the names of the segments: they lie in the ledger already


class Commit:
    """Commits each block of rows as it comes, and passes on only the segment's name.

    `Dataset.write_datasink` would do the same, but it holds all blocks of a task until the task's end (Ray 2.60 tees them), so that the clips of one long
    video would lie in memory together. Here memory depends on the block: on `BLOCK_BYTES`, or on one clip.
    """

    def __init__(self, out: Storage, fence: int) -> None:
        from curation.sink import Ledger

        self._ledger = Ledger(out, fence)

    def __call__(self, table: pa.Table) -> pa.Table:
        return pa.table({"segment": pa.array(self._ledger.write([table]), pa.string())})


def commit(rows: pa.Table, held: Run) -> None:
    """Commits rows that need no stage."""
    from curation.sink import Ledger

    Ledger(held.out, held.lock.fence).write([rows])


def identified(rows: pa.Table) -> pa.Table:
    """Video rows with their content's id, hashed on the whole cluster."""
    import ray

    _configure()
    stage = Stage(name="IdentifyVideos", make=lambda: identify)
    refs = stage.apply(ray.data.from_arrow(blocks(rows))).to_arrow_refs()
    tables = ray.get(refs)
    return pa.concat_tables(tables).sort_by([("video_uri", "ascending")])


def _configure() -> None:
    """Ray Data's settings for our stream; its own progress is off, ours is read from the ledger."""
    import ray

    context = ray.data.DataContext.get_current()
    context.max_errored_blocks = 0
    context.target_max_block_size = BLOCK_BYTES
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # after ray.data's import, which sets it; it warns of what the recipe decides


def blocks(rows: pa.Table) -> list[pa.Table]:
    """`rows` in slices of one video, or of up to `BLOCK_VIDEOS` where there are more than `BLOCKS_PER_CPU` for each CPU."""
    import ray

    cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
    size = max(1, min(BLOCK_VIDEOS, rows.num_rows // (BLOCKS_PER_CPU * cpus)))
    return [rows.slice(i, size).combine_chunks() for i in range(0, rows.num_rows, size)]
