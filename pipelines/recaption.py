"""Recaption: the kept clips' captions written again from their own MP4s, by other settings, and packed; no source video is opened."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.exits import Exit, leave

if TYPE_CHECKING:
    import pyarrow as pa

    from curation.ledger import FrozenLedger
    from pipelines.recipe import Recipe

#: Reasons of a failed caption that say nothing of the clip: the next run tries again.
PASSING = ("vlm_unreachable",)


def recaption(out: str, recipe: "Recipe", cpus: int | None = None, counts: dict[str, Any] | None = None) -> Exit:
    """Writes the captions of `out`'s kept clips by the `caption` and `vlm` of `recipe`, where others wrote them, and packs.

    The new rows count before the old ones as soon as they are committed (`curation.renewal`), and nothing is published before all are there: a
    run that was killed is taken up by the same command. A clip whose new caption fails is not kept any more, with the fault for its reason.

    Raises:
        ValueError: `out` is no output, `recipe` differs from its plan in more than what captions depend on, or wants given captions where no clip
            came with any (exit code 2).
    """
    from captioning.given import check_any
    from curation.ledger import FrozenLedger, Tail
    from curation.plan import read_plan
    from pipelines import cluster, preflight, publish, run, stream
    from pipelines.progress import Committed, shown

    plan = read_plan(out)
    if recipe.thresholds() != publish.recipe_of(out).thresholds():
        raise ValueError(f"{out} was judged by other thresholds than this recipe's: `pan recaption` changes captions alone; judge it with `pan rejudge` first")
    if recipe.caption.backend == "given":
        check_any(stale(FrozenLedger.read(out), recipe)["provenance"].to_pylist())
    with run.begin(out, recipe, {**plan, "settings": recipe.plan_settings()}, renews=renewable(recipe)) as held:
        rows, stages = stale(FrozenLedger.read(held.out), recipe), stream.recaption_stages(recipe, held.out)
        if rows.num_rows:
            cluster.connect(cpus)
            preflight.check(held.out, stages)
        while rows.num_rows:
            tail = Tail(held.out)
            tail.fresh()
            with shown(Committed(tail.fresh, rows.num_rows, "captions")):
                stream.run(rows, stages, held, recipe.resources.sink)
            rows = stale(FrozenLedger.read(held.out), recipe, again=())  # where a clip fell, its near duplicate may be kept in its place
        return publish.publish(held, recipe, counts if counts is not None else {})


def renewable(recipe: "Recipe") -> list[str]:
    """The parts of the plan that this command may change: not the model's, where a filter has asked it too."""
    filters = any(getattr(entry.settings, "backend", None) == "vlm" for entry in recipe.entries())
    return ["settings.caption"] if filters else ["settings.caption", "settings.vlm"]


def stale(ledger: "FrozenLedger", recipe: "Recipe", again: Sequence[str] = PASSING) -> "pa.Table":
    """The rows of clips that are kept, or would be if their last new caption had not failed, and whose caption other settings wrote; ready for the stream.

    Args:
        again: reasons of a failed caption for which it is also written again by the same settings.
    """
    import pyarrow as pa

    from curation.clips import BASE_FIELDS, RECAPTION
    from curation.segments import PLACE
    from pipelines.judge import judge_ledger

    table, settings = ledger.table, recipe.caption.settings(recipe.vlm)
    failed = [row["status"] == "failed" and row["stages"][-1:] == [RECAPTION] for row in table.select(["status", "stages"]).to_pylist()]
    status = pa.array(["ok" if fell else s for fell, s in zip(failed, table["status"].to_pylist(), strict=True)], pa.string())
    at = table.schema.get_field_index("status")
    unfailed = replace(ledger, table=table.set_column(at, table.schema.field(at), status))
    kept = {clip for each in (ledger, unfailed) for clip in judge_ledger(each, recipe.entries(), recipe.dedup).kept()}
    due = [
        clip in kept and (written != settings or (fell and code in again))
        for fell, clip, written, code in zip(failed, *(table[n].to_pylist() for n in ("clip_id", "caption_settings", "error_code")), strict=True)
    ]
    fields = [*BASE_FIELDS, *(pa.field(name, pa.float32()) for name in ledger.scores()), *PLACE]
    fresh: dict[str, Any] = {"reject": [], "status": "ok", "error_code": None, "error_detail": None}
    return pa.Table.from_pylist([{**row, **fresh} for row in table.filter(pa.array(due, pa.bool_())).to_pylist()], schema=pa.schema(fields))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    from pipelines import cluster, command_line

    cluster.authenticate()
    return command_line.run(command, arguments, "pan recaption")


def command(
    out: Annotated[str, typer.Argument(help="The output of `pan curate`.", show_default=False)],
    recipe: Annotated[str | None, typer.Option(help="A recipe with other [caption] and [vlm]; by default the output's own, with --set on top.")] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE on top of the recipe, such as caption.backend=vlm.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how many captions would be renewed, and change nothing.")] = False,
    cpus: Annotated[int | None, typer.Option(min=1, help="Logical CPUs of the local Ray; all by default. Not on a cluster.")] = None,
) -> int:
    """Renew the captions of kept clips from their own MP4s; no source video is opened."""
    from pipelines import again, publish
    from pipelines.report import end_report
    from pipelines.run import guarded

    def work(counts: dict[str, Any]) -> Exit:
        settings = publish.recipe_of(out, recipe, sets or [])
        if dry_run:
            from curation.ledger import FrozenLedger

            print(f"{stale(FrozenLedger.read(out), settings).num_rows} captions would be renewed. Nothing was changed.")
            return Exit.COMPLETE
        code = recaption(out, settings, cpus, counts)
        print(end_report(out))
        return code

    words = again.words(["pan", "recaption", out], {"--recipe": recipe, "--set": sets, "--cpus": cpus})
    return guarded(work, out, words, report=not dry_run)


if __name__ == "__main__":
    leave(main())
