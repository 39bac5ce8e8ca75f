"""Preflight: what a run needs is looked for before anything is begun; `--dry-run` stops there and prints the plan."""

import shutil
from collections.abc import Sequence

from curation.stage import Stage
from curation.storage import Storage
from pipelines import cluster, stream
from pipelines.exits import Exit
from pipelines.recipe import Recipe
from pipelines.run import Preflight

FREE_BYTES = 1 << 30  # less than this on the output's disk is a fault: segments and shards hold each kept clip twice


def check(out: Storage, stages: Sequence[Stage]) -> None:
    """The cluster can run every stage, each stage can be built on a worker (its model loads), and the disk has room.

    Raises:
        Preflight: all that is missing, a line each.
    """
    faults = cluster.unsatisfiable(stages)
    if not faults:
        faults = _unbuildable(stages)
    if out.local and (free := shutil.disk_usage(out.root).free) < FREE_BYTES:
        faults.append(f"{out.root} has {free / 1e9:.1f} GB free, {FREE_BYTES / 1e9:.1f} GB are the least to begin with: free some, or choose another --out")
    if faults:
        raise Preflight("preflight: " + "; ".join(faults))


def _unbuildable(stages: Sequence[Stage]) -> list[str]:
    """One line a stage that a worker cannot build, with the error's own words."""
    import ray

    def build(stage: Stage) -> None:
        stage.make()

    def options(stage: Stage) -> dict[str, float]:
        return {"num_cpus": stage.resources.num_cpus, "num_gpus": stage.resources.num_gpus}

    tries = [(stage, ray.remote(build).options(max_retries=0, **options(stage)).remote(stage)) for stage in stages]
    faults = []
    for stage, reference in tries:
        try:
            ray.get(reference)
        except ray.exceptions.RayError as error:
            faults.append(f"{stage.name} cannot be built on a worker: {str(error).strip().splitlines()[-1]}")
    return faults


def dry_run(inputs: Sequence[str], out: str, recipe: Recipe, cpus: int | None) -> Exit:
    """Checks inputs, recipe, output and cluster; prints the plan and the stages; changes nothing."""
    from rich.console import Console
    from rich.table import Table

    from curation.ledger import FrozenLedger
    from curation.sources import find, video_table
    from curation.uris import check_output
    from pipelines.backlog import look

    sources = find(inputs, recipe.sources)
    recipe.check_sources(sources)
    videos = video_table(sources, recipe.sources)
    check_output(out, inputs)
    store = Storage.at(out)
    listed = look(videos, FrozenLedger.read(store))
    stages = stream.stages(recipe)
    cluster.connect(cpus)
    faults = cluster.unsatisfiable(stages) or _unbuildable(stages)
    console = Console()
    todo, suspects = listed.todo.num_rows, listed.suspects.num_rows
    console.print(f"{videos.num_rows} videos listed, {videos.num_rows - todo} of them done in {out}, {todo} to do")
    if suspects or listed.gone:
        console.print(f"of the done ones, {suspects} have another size or time than when they were read, and {len(listed.gone)} are not there any more")
    table = Table("stage", "CPUs", "GPUs", "memory", "batch", "actors")
    for stage in stages:
        need = stage.resources
        memory = "-" if need.memory_bytes is None else f"{need.memory_bytes / 1e9:.1f} GB"
        table.add_row(stage.name, f"{need.num_cpus:g}", f"{need.num_gpus:g}", memory, str(need.batch_size), str(need.actors or "-"))
    console.print(table)
    for fault in faults:
        console.print(f"[red]not ready:[/red] {fault}")
    return Exit.PREFLIGHT if faults else Exit.COMPLETE
