"""Plan: will a model's training fit these GPUs, how, and at what cost; refused with the reason, and with what would fit."""

import difflib
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.exits import Exit, leave

if TYPE_CHECKING:
    from training.model.spec import ModelSpec
    from training.planner import Option, Verdict, Wishes

SHOWN = 12  # ways that the table has; --json has all


def model_of(name: str) -> "ModelSpec":
    """A model of the table by name, or the one that lies in a folder.

    Raises:
        ValueError: it is neither.
    """
    from training.model.spec import SPECS

    if name in SPECS:
        return SPECS[name]
    if Path(name).is_dir():
        from training.model.card import read_spec

        return read_spec(Path(name))
    near = difflib.get_close_matches(name, SPECS, 1)
    raise ValueError(f"--model {name}: neither a model ({', '.join(SPECS)}) nor a folder with a model.json" + (f"; did you mean {near[0]}?" if near else ""))


def report(spec: "ModelSpec", wishes: "Wishes", verdict: "Verdict", tflops: float, utilisation: float) -> dict[str, Any]:
    """Everything as plain values; sizes in GB of 10^9 bytes, operations in 10^15, seconds a step (None without GPUs: how fast they are is not known).

    Args:
        tflops: of a GPU's matrix products in bfloat16, at its peak, 10^12 a second; utilisation: the share of that which is reached.

    Raises:
        ValueError: no such speed.
    """
    if not (0 < utilisation <= 1 and 0 < tflops < math.inf):
        raise ValueError(f"--tflops {tflops:g} --utilisation {utilisation:g}: a speed above 0, and a share of it up to 1")
    return {
        "model": spec.name,
        "size": [spec.height, spec.width],
        "wishes": wishes.model_dump(mode="json"),
        "parameters": verdict.parameters,
        "learning": verdict.learning,
        "fits": verdict.fits,
        "reason": verdict.reason,
        "would_fit": list(verdict.would_fit),
        "options": [told(option, wishes, tflops, utilisation) for option in verdict.options],
    }


def told(option: "Option", wishes: "Wishes", tflops: float, utilisation: float) -> dict[str, Any]:
    """One way to spread the training."""
    seconds = wishes.windows * option.operations.longest / (tflops * 1e12 * utilisation)
    return {
        **asdict(option.spread),
        "memory": {name: round(size, 2) for name, size in asdict(option.memory).items()} | {"total": round(option.memory.total, 2)},
        "petaflops": round(option.operations.useful / 1e15, 3),
        "petaflops_executed": round(option.operations.executed / 1e15, 3),
        "windows_a_step": wishes.windows * wishes.gpus // option.spread.sequence,
        "seconds_a_step": round(seconds, 6) if wishes.device == "cuda" else None,
    }


def text(data: dict[str, Any]) -> str:
    """For people: the model, then the ways that fit, or why there is none."""
    from training.planner import Wishes

    wishes = Wishes(**data["wishes"])
    parts = ", ".join(f"{part} {_count(size)}" for part, size in data["parameters"].items())
    compared = "" if wishes.memory else " (their memory is not known, and compared with nothing)"
    lines = [
        f"{data['model']}, {data['size'][0]} x {data['size'][1]}, phase {wishes.phase}: {parts}; {_count(data['learning'])} learn",
        f"on {wishes.places(wishes.gpus, wishes.memory)}{compared}, {wishes.windows} window(s) at a time in each group that shares one",
        "",
    ]
    if not data["fits"]:
        return "\n".join([*lines, f"does not fit: {data['reason']}", *(f"would fit: {each}" for each in data["would_fit"])])
    names = list(data["options"][0]["memory"])
    heads = ["replicate", "shard", "sequence", "checkpointing", *names, "PFLOP", "executed", "windows", "s/step"]
    rows = [_row(option, names) for option in data["options"][:SHOWN]]
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    lines += ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in [heads, *rows]]
    more = len(data["options"]) - SHOWN
    lines += [f"and {more} more ways (--json)"] if more > 0 else []
    ending = f"memory in GB of 10^9 bytes a {wishes.place}, PFLOP of one window with its dialogue; estimates: measure before a long run"
    return "\n".join([*lines, "", ending])


def _row(option: dict[str, Any], names: Sequence[str]) -> list[str]:
    """A line of the table."""
    spread = [str(option[key]) for key in ("replicate", "shard", "sequence")] + ["on" if option["checkpointing"] else "off"]
    sizes = [f"{option['memory'][name]:.1f}" for name in names]
    return [
        *spread,
        *sizes,
        f"{option['petaflops']:.3g}",
        f"{option['petaflops_executed']:.3g}",
        str(option["windows_a_step"]),
        "-" if option["seconds_a_step"] is None else f"{option['seconds_a_step']:.3g}",
    ]


def _count(number: int) -> str:
    """14288491584 as 14.288 B."""
    return f"{number / 1e9:.3f} B" if number >= 1e9 else f"{number / 1e6:.1f} M"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    from pipelines import command_line

    return command_line.run(command, arguments, "pan plan")


def command(
    model: Annotated[str, typer.Option(help="pan_14b, pan_1_3b, pandora_recipe, debug, or a PAN folder.")] = "pan_14b",
    gpus: Annotated[int, typer.Option(help="All of them.")] = 8,
    memory: Annotated[float, typer.Option(help="GB of a GPU: 80 of an H100, 141 of an H200.")] = 80.0,
    phase: Annotated[str, typer.Option(help="decoder: PAN's first phase, without state and backbone; joint: its second.")] = "joint",
    replicate: Annotated[int | None, typer.Option(help="Copies of the model's state; what goes by default.", show_default=False)] = None,
    shard: Annotated[int | None, typer.Option(help="GPUs that a copy is cut over; what goes by default.", show_default=False)] = None,
    sequence: Annotated[int | None, typer.Option(help="GPUs that share one window; what goes by default.", show_default=False)] = None,
    checkpointing: Annotated[
        bool | None,
        typer.Option("--checkpointing/--no-checkpointing", help="Blocks' insides are computed twice; both by default.", show_default=False),
    ] = None,
    windows: Annotated[int, typer.Option(help="At a time in each group that shares one.")] = 1,
    eager: Annotated[bool, typer.Option("--eager", help="Blocks are not compiled, and keep more for the backward pass.")] = False,
    resident: Annotated[bool, typer.Option("--resident", help="Autoencoder and text encoder stay on every GPU instead of running beforehand.")] = False,
    gpus_per_node: Annotated[int, typer.Option(help="GPUs with a fast link between them.")] = 8,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT in px; the model's own by default.", show_default=False)] = None,
    tflops: Annotated[float, typer.Option(help="Of a GPU's matrix products in bfloat16, at its peak.")] = 989.0,
    utilisation: Annotated[float, typer.Option(help="Share of that which is reached.")] = 0.4,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> int:
    """Parameters, operations and memory a GPU of a model's training, for each way to spread it; what cannot fit is refused, and it is said what would."""
    spec = sized(model_of(model), size)
    from training.planner import plan

    given = {"gpus": gpus, "memory": memory, "phase": phase, "replicate": replicate, "shard": shard, "sequence": sequence, "windows": windows}
    wishes = wished(given | {"checkpointing": checkpointing, "compiled": not eager, "resident": resident, "gpus_per_node": gpus_per_node})
    data = report(spec, wishes, plan(spec, wishes), tflops, utilisation)
    print(json.dumps(data) if as_json else text(data))
    if not data["fits"] and not as_json:
        print("pan: this training does not fit; see above what would", file=sys.stderr)
    return Exit.COMPLETE if data["fits"] else Exit.USAGE


def sized(spec: "ModelSpec", size: str | None) -> "ModelSpec":
    """The model for other frames.

    Raises:
        ValueError: no WIDTHxHEIGHT, or one that does not divide into patches.
    """
    if size is None:
        return spec
    from dataclasses import replace

    width, _, height = size.partition("x")
    unit = [spec.vae.spatial * side for side in spec.decoder.patch[1:]]
    if not (width.isdecimal() and height.isdecimal()) or not int(width) * int(height) or int(height) % unit[0] or int(width) % unit[1]:
        raise ValueError(f"--size {size}: WIDTHxHEIGHT in px is needed, such as 832x480, multiples of {unit[1]} and {unit[0]}")
    return replace(spec, width=int(width), height=int(height))


def wished(given: dict[str, Any]) -> "Wishes":
    """The settings, checked.

    Raises:
        ValueError: one is outside its bounds; all are told.
    """
    from pydantic import ValidationError

    from training.planner import Wishes

    try:
        return Wishes(**given)
    except ValidationError as error:
        told = "; ".join(f"--{str(each['loc'][0]).replace('_', '-')} {each['input']}: {each['msg'].lower()}" for each in error.errors())
        raise ValueError(told) from error


if __name__ == "__main__":
    leave(main())
