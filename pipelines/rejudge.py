"""Rejudge: other thresholds over a finished output; a tighter one only repacks, a looser one runs only what newly kept clips lack."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.exits import Exit, leave

if TYPE_CHECKING:
    from curation.ledger import FrozenLedger
    from pipelines.judge import Verdicts
    from pipelines.recipe import Recipe


def rejudge(out: str, recipe: "Recipe", cpus: int | None = None, counts: dict[str, Any] | None = None) -> Exit:
    """Judges `out` again by the thresholds of `recipe`, completes what is newly kept, and packs.

    Raises:
        ValueError: `out` is no output, or `recipe` differs from its plan in more than thresholds (exit code 2).
    """
    from curation.ledger import FrozenLedger, Tail
    from curation.plan import read_plan
    from pipelines import cluster, preflight, publish, run, stream
    from pipelines.judge import judge_ledger
    from pipelines.progress import Progress, shown

    plan = read_plan(out)
    with run.begin(out, recipe, {**plan, "settings": recipe.plan_settings()}) as held:
        ledger = FrozenLedger.read(held.out)
        rows = publish.to_complete(ledger, judge_ledger(ledger, recipe.entries(), recipe.dedup))
        if rows.num_rows:
            stages = stream.stages(recipe, reopen=True)
            cluster.connect(cpus)
            preflight.check(held.out, stages)
            with shown(Progress(Tail(held.out).fresh, ledger.videos().num_rows)):
                stream.run(rows, stages, held, recipe.resources.sink)
        return publish.publish(held, recipe, counts if counts is not None else {})


def difference(ledger: "FrozenLedger", before: "Verdicts", after: "Verdicts") -> dict[str, Any]:
    """What a change of thresholds would do, in clips and hours; a clip that still lacks stages may yet be rejected by them."""
    clips = ledger.clips()
    hours = {c: (e - s) / 3600 for c, s, e in zip(*(clips[n].to_pylist() for n in ("clip_id", "start_s", "end_s")), strict=True)}
    old, new, pending = set(before.kept()), set(after.kept()), set(after.pending())
    fallen = [r for c, rs in zip(after.clip_ids, after.reasons, strict=True) if c in old for r in rs]
    groups = {"kept_before": old, "kept_after": new, "newly_kept": new - old, "no_longer_kept": old - new - pending, "to_complete": pending}
    found: dict[str, Any] = {name: {"clips": len(ids), "hours": round(sum(hours[c] for c in ids), 6)} for name, ids in groups.items()}
    return {**found, "reasons_of_no_longer_kept": dict(sorted(Counter(fallen).items()))}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    from pipelines import cluster, command_line

    cluster.authenticate()
    return command_line.run(command, arguments, "pan rejudge")


def command(
    out: Annotated[str, typer.Argument(help="The output of `pan curate`.", show_default=False)],
    recipe: Annotated[str | None, typer.Option(help="A recipe with other thresholds; by default the output's own, with --set on top.")] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE on top of the recipe, such as filters.motion.low=0.02.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change in clips and hours, and change nothing.")] = False,
    cpus: Annotated[int | None, typer.Option(min=1, help="Logical CPUs of the local Ray; all by default. Not on a cluster.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="With --dry-run: print one JSON object.")] = False,
) -> int:
    """Judge a finished output again with other thresholds, without decoding what is already measured."""
    from pipelines import again, publish
    from pipelines.report import end_report
    from pipelines.run import guarded

    def work(counts: dict[str, Any]) -> Exit:
        settings = publish.recipe_of(out, recipe, sets or [])
        if dry_run:
            return _dry_run(out, settings, as_json)
        code = rejudge(out, settings, cpus, counts)
        print(end_report(out))
        return code

    words = again.words(["pan", "rejudge", out], {"--recipe": recipe, "--set": sets, "--cpus": cpus})
    return guarded(work, out, words, report=not dry_run)


def _dry_run(out: str, recipe: "Recipe", as_json: bool) -> Exit:
    import json

    from curation.ledger import FrozenLedger
    from pipelines import publish
    from pipelines.judge import judge_ledger

    ledger = FrozenLedger.read(out)
    before = publish.recipe_of(out)
    found = difference(ledger, judge_ledger(ledger, before.entries(), before.dedup), judge_ledger(ledger, recipe.entries(), recipe.dedup))
    if as_json:
        print(json.dumps(found))
        return Exit.COMPLETE
    for name, group in found.items():
        if name == "reasons_of_no_longer_kept":
            print("\n".join(f"    {reason}: {n}" for reason, n in group.items()))
        else:
            print(f"{name.replace('_', ' '):>16}: {group['clips']} clips, {group['hours']:.3f} h")
    print("Nothing was changed. Clips to complete were rejected before some stage had seen them: they run through it first, and may yet fall there.")
    return Exit.COMPLETE


if __name__ == "__main__":
    leave(main())
