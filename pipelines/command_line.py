"""Command line: turns one annotated function into a script's command, with the house's exit codes."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

from pipelines.exits import Exit


def run(function: Callable[..., Any], arguments: Sequence[str] | None, name: str) -> int:
    """Parses `arguments` (None = the process's own) for `function`, calls it, and returns its exit code.

    `--help` and a wrong argument end here too, with 0 and 2; nothing heavy is imported for either.
    """
    import typer

    @functools.wraps(function)
    def command(*args: Any, **options: Any) -> None:
        raise typer.Exit(int(function(*args, **options)))

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(command)
    try:
        app(args=None if arguments is None else list(arguments), prog_name=name)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(Exit.USAGE)
    return int(Exit.COMPLETE)
