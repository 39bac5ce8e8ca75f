"""Curate: raw videos in; shards, a manifest and a reason for every rejection out, on one decode."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.changed import Changed
from pipelines.exits import Exit, leave

if TYPE_CHECKING:
    from pipelines.recipe import Recipe


def curate(
    inputs: Sequence[str], out: str, recipe: "Recipe", cpus: int | None = None, counts: dict[str, Any] | None = None, changed: Changed = Changed.REPORT
) -> Exit:
    """Curates every video of `inputs` into `out`; what an earlier run has committed is not done again.

    Args:
        inputs: folders, globs, files, or lists (CSV, JSONL, Parquet with a `uri` column), local or s3://.
        out: the output folder or uri.
        recipe: all settings.
        cpus: logical CPUs of a local Ray; None = all (on a cluster: its own).
        counts: filled with what exit.json reports.
        changed: what becomes of files that were curated and have other bytes since.

    Raises:
        ValueError: inputs, recipe or output are at fault (exit code 2); see `pipelines.run.guarded` for the others.
    """
    from curation.ledger import FrozenLedger, Tail
    from curation.sources import find, video_table
    from curation.uris import check_output
    from pipelines import backlog, cluster, preflight, publish, run, stream
    from pipelines.progress import Progress, shown

    sources = find(inputs, recipe.sources)
    recipe.check_sources(sources)
    videos = video_table(sources, recipe.sources)
    check_output(out, inputs)
    with run.begin(out, recipe, run.plan_of(recipe, list(inputs))) as held:
        stages = stream.stages(recipe)
        ledger = FrozenLedger.read(held.out)
        listed = backlog.look(videos, ledger)
        decided, counts = backlog.Decided.nothing(), counts if counts is not None else {}
        if listed.to_read.num_rows:
            cluster.connect(cpus)
            preflight.check(held.out, stages)
            decided = backlog.decide(stream.identified(listed.to_read), ledger, changed, held.lock.fence)
            stream.commit(decided.same, held)
            if decided.todo.num_rows:
                with shown(Progress(Tail(held.out).fresh, videos.num_rows)):
                    stream.run(decided.todo, stages, held, recipe.resources.sink)
        retold = backlog.tell_retold(sources, ledger, counts) if recipe.caption.backend == "given" else Exit.COMPLETE
        return max(publish.publish(held, recipe, counts), backlog.tell(listed, decided, changed, counts), retold)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    from pipelines import cluster, command_line

    cluster.authenticate()
    return command_line.run(command, arguments, "pan curate")


def command(
    inputs: Annotated[list[str], typer.Argument(help="Folders, globs, videos, lists (CSV, JSONL, Parquet with a uri column); s3:// too.", show_default=False)],
    out: Annotated[str, typer.Option("--out", "-o", help="Output folder or uri; a run that was killed is taken up there.", show_default=False)],
    recipe: Annotated[str, typer.Option(help="A packaged recipe (local, pan) or a TOML file.")] = "local",
    sets: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE on top of the recipe, such as filters.motion.low=0.02.")] = None,
    cpus: Annotated[int | None, typer.Option(min=1, help="Logical CPUs of the local Ray; all by default. Not on a cluster.")] = None,
    changed: Annotated[Changed, typer.Option(help="Curated files that have other bytes now: report them with code 3, keep their clips, or replace them.")] = (
        Changed.REPORT
    ),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check inputs, recipe and cluster, print the plan, and stop.")] = False,
) -> int:
    """Raw videos to shards: find shots, measure, judge, caption, cut, commit, pack."""
    from pipelines import again, preflight
    from pipelines import recipe as recipes
    from pipelines.report import end_report
    from pipelines.run import guarded

    told = {"--out": out, "--recipe": recipe, "--set": sets, "--cpus": cpus, "--changed": None if changed is Changed.REPORT else changed.value}

    def work(counts: dict[str, Any]) -> Exit:
        settings = recipes.load(recipe, sets or [])
        if dry_run:
            return preflight.dry_run(inputs, out, settings, cpus)
        code = curate(inputs, out, settings, cpus, counts, changed)
        print(end_report(out))
        return code

    return guarded(work, out, again.words(["pan", "curate", *inputs], told), report=not dry_run)


if __name__ == "__main__":
    leave(main())
