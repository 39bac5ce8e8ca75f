"""Stream: the recipe's stages in order, from video rows to committed ledger rows; never forked."""

import logging
from collections.abc import Callable, Sequence
from functools import partial

import pyarrow as pa

from captioning.caption import CaptionClips
from curation.cut import CutClips
from curation.embed import EmbedClips
from curation.reopen import RecallClips, ReopenClips
from curation.shots import SplitVideo
from curation.sources import identify
from curation.stage import Resources, Stage, TableFunction
from curation.storage import Storage
from filters.blur import blur_text
from filters.score import ScoreClips
from filters.text_detector import SceneTextSettings
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
    if recipe.dedup.enabled:
        # Before the shared engine's stage, which judges and captions in one: the frames do not outlive it.
        found.insert(len(found) - shares_engine(recipe), Stage(name="EmbedClips", make=partial(EmbedClips, recipe.dedup), resources=take.embed))
    captions = caption_stage(recipe)
    found[-1:] = [chained(found[-1], captions)] if shares_engine(recipe) else [found[-1], captions]
    found.append(Stage(name="CutClips", make=partial(CutClips, recipe.cut, recipe.limits), resources=take.cut))
    return found


def caption_stage(recipe: Recipe, again: bool = False) -> Stage:
    """CaptionClips; an engine in the stage's own process needs actors that live as long as the stream: one where the recipe says nothing."""
    detectors = [entry.settings for entry in recipe.entries("detectors") if isinstance(entry.settings, SceneTextSettings)]
    blurs = partial(blur_text, detectors[0]) if detectors else None
    resources = recipe.resources.caption
    if recipe.caption.backend == "vlm" and recipe.vlm.backend == "vllm" and resources.actors is None:
        resources = resources.model_copy(update={"actors": 1})
    return Stage(name="CaptionClips", make=partial(CaptionClips, recipe.caption, recipe.vlm, blurs, again), resources=resources)


def recaption_stages(recipe: Recipe, out: Storage) -> list[Stage]:
    """The stages of `pan recaption`: kept clips recalled from their MP4s, and captioned."""
    recall = partial(RecallClips, out, recipe.split, recipe.limits, recipe.caption.settings(recipe.vlm))
    return [Stage(name="RecallClips", make=recall, resources=recipe.resources.split), caption_stage(recipe, again=True)]


def shares_engine(recipe: Recipe) -> bool:
    """Whether content filter and captioner ask an engine of their own process: then it must be one, lest it be loaded twice and see each clip twice."""
    judges = any(getattr(entry.settings, "backend", None) == "vlm" for entry in recipe.entries("content"))
    return judges and recipe.caption.backend == "vlm" and recipe.vlm.backend == "vllm"


def chained(first: Stage, second: Stage) -> Stage:
    """Both stages in one, with the resources of the first, in actors: what the first asked about a clip is in the engine's prefix cache for the second."""
    resources = first.resources if first.resources.actors is not None else first.resources.model_copy(update={"actors": 1})
    return Stage(name=f"{first.name}_{second.name}", make=partial(Chain, (first.make, second.make)), resources=resources)


class Chain:
    """Stage functions one after the other in one process, on the same table."""

    def __init__(self, makes: Sequence[Callable[[], TableFunction]]) -> None:
        self._functions = [make() for make in makes]

    def __call__(self, table: pa.Table) -> pa.Table:
        """`table` through all of them.

        Raises:
            TypeError: one of them yields tables instead of returning one: it cannot stand in a chain.
        """
        for function in self._functions:
            out = function(table)
            if not isinstance(out, pa.Table):
                raise TypeError(f"{type(function).__name__} does not return a table, so it cannot stand in a chain")
            table = out
        return table


def run(rows: pa.Table, todo: Sequence[Stage], held: Run, resources: Resources, ending: str = "mp4") -> None:
    """Sends `rows` through the stages into the ledger; returns when every row is committed. `ending`: what the rows' bytes are.

    Item faults are rows, never exceptions, so `max_errored_blocks` stays 0: an exception is a bug and stops the job.
    """
    import ray

    _configure()
    commit = Stage(name="Commit", make=partial(Commit, held.out, held.lock.fence, ending), resources=resources, whole_blocks=True)
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

    def __init__(self, out: Storage, fence: int, ending: str = "mp4") -> None:
        from curation.sink import Ledger

        self._ledger = Ledger(out, fence, ending=ending)

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
