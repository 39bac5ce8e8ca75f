"""Terminal: tables and histograms as text; every word that came with the data is escaped and never read as markup."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from curation.clips import one_line
from pipelines.report_page import Histogram, number

BARS = " ▁▂▃▄▅▆▇█"


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table as text, fitted to the terminal; numbers to the right. "" where there are no rows."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = [list(row) for row in rows]
    if not rows:
        return ""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for i, name in enumerate(columns):
        numeric = all(isinstance(row[i], int | float) or row[i] is None for row in rows)
        made.add_column(Text(name), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(cell(value)) for value in row))
    console = Console(width=max(80, shutil.get_terminal_size((120, 24)).columns), color_system=None)
    with console.capture() as captured:
        console.print(made)
    lines = [line.rstrip() for line in captured.get().splitlines()]
    return "\n".join([*([one_line(title)] if title else []), *(line for line in lines if line)])


def cell(value: object) -> str:
    """One value in a table: floats with three significant digits, lists with commas, nothing as "-"."""
    if value is None or value == []:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, list | tuple):
        return ", ".join(cell(item) for item in value)
    return one_line(str(value))


def facts(pairs: Mapping[str, object]) -> str:
    """Names and values below one another."""
    width = max((len(name) for name in pairs), default=0)
    return "\n".join(f"{name:<{width}}  {cell(value)}" for name, value in pairs.items())


def histogram(found: Histogram) -> str:
    """A score's distribution: kept above, rejected below, and where the thresholds lie.

    One column a bin of the histogram; `|` stands under the bin in which a threshold lies.
    """
    most = max(*found.kept, *found.rejected, 1)
    marks = [" "] * len(found.kept)
    for bound in found.bounds:
        place = int((bound.value - found.low) / (found.high - found.low) * len(marks))
        marks[min(max(place, 0), len(marks) - 1)] = "|"
    rules = "; ".join(f"{bound.side} {number(bound.value)}: {bound.reason}" for bound in found.bounds)
    missing = f", {found.missing} not measured" if found.missing else ""
    return "\n".join(
        [
            f"{found.name}  ({found.unit})",
            f"  kept      {_bars(found.kept, most)}  {sum(found.kept)}",
            f"  rejected  {_bars(found.rejected, most)}  {sum(found.rejected)}{missing}",
            f"            {''.join(marks)}  {number(found.low)} to {number(found.high)}" + (f"; {rules}" if rules else ""),
        ]
    )


def _bars(counts: Sequence[int], most: int) -> str:
    """One character a bin; a bin that holds anything is never empty."""
    return "".join(BARS[0 if not n else max(1, round(n / most * (len(BARS) - 1)))] for n in counts)
