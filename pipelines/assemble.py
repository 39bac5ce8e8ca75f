"""Assemble: a world model at the beginning of its training, from the folders of Wan2.1 and Qwen2.5-VL; or with random weights, to try things."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from pipelines.exits import Exit, leave


@dataclass(frozen=True, kw_only=True)
class Assembled:
    """What was written.

    Attributes:
        out: the folder. model: the spec's name.
        parameters: of each part.
        linked: parts that are named in model.json and lie where their makers' files are.
    """

    out: str
    model: str
    parameters: dict[str, int]
    linked: tuple[str, ...]


def assemble(out: Path, model: str, wan: Path | None, qwen: Path | None, *, link: bool = False, dtype: str | None = None, seed: int = 0) -> Assembled:
    """Writes the model to `out`: Wan's decoder with PAN's state stream added to it, so that it computes what it did, and new queries.

    Args:
        model: a name in `training.model.spec.SPECS`.
        wan: Wan2.1's folder in diffusers' layout (transformer, vae, text_encoder, tokenizer); None: random weights.
        qwen: Qwen2.5-VL's folder; needed with `wan` where the model has a backbone.
        link: frozen parts stay where they are, and model.json names their folders.
        dtype: of the weights in the files; None: as their makers'.
        seed: of what is new.

    Raises:
        ValueError: no such model, folders that are missing or of another model, or there is something in `out`.
    """
    import torch

    from training.model.card import parts_of
    from training.model.checkpoint import init_model, save_model, start_model
    from training.model.parts import makers
    from training.model.spec import SPECS

    if model not in SPECS:
        raise ValueError(f"--model {model}: there are {', '.join(SPECS)}")
    spec, kind = SPECS[model], None if dtype is None else getattr(torch, dtype)
    if wan is None:
        made, linked = init_model(spec, seed), {}
    else:
        sources, tokenizers = makers(wan, qwen)
        if lacking := [part for part in parts_of(spec) if part not in sources and part != "connector"]:
            raise ValueError(f"--model {model} has a {lacking[0]}, whose weights are Qwen2.5-VL's: name its folder with --qwen")
        made = start_model(spec, sources, tokenizers=tokenizers, seed=seed, dtype=kind)
        linked = {part: path for part, path in sources.items() if link and part in parts_of(spec) and part != "decoder"}
    save_model(out, made, sources=linked, dtype=kind)
    counts = {part: sum(p.numel() for p in getattr(made, part).parameters()) for part in parts_of(spec)}
    return Assembled(out=str(out), model=model, parameters=counts, linked=tuple(linked))


def text(done: Assembled) -> str:
    """For people."""
    parts = ", ".join(f"{part} {count / 1e6:.4g} M{' (linked)' if part in done.linked else ''}" for part, count in done.parameters.items())
    return f"{done.out}: {done.model}, parameters: {parts}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    from pipelines import command_line

    return command_line.run(command, arguments, "pan assemble")


def command(
    out: Annotated[str, typer.Argument(help="The folder to write; it must not exist yet, or be empty.", show_default=False)],
    model: Annotated[
        str,
        typer.Option(
            help="pan_14b, pan_1_3b, pandora_recipe; small ones to try: debug, pandora_debug, and blockworld, which hears block worlds' actions whole."
        ),
    ] = "pan_14b",
    wan: Annotated[str | None, typer.Option(help="Wan2.1's folder, in diffusers' layout.", show_default=False)] = None,
    qwen: Annotated[str | None, typer.Option(help="Qwen2.5-VL's folder.", show_default=False)] = None,
    random: Annotated[bool, typer.Option("--random", help="Random weights in place of Wan's and Qwen's: for a debug model.")] = False,
    link: Annotated[bool, typer.Option("--link", help="Leave frozen parts where they are; model.json names their folders.")] = False,
    dtype: Annotated[str | None, typer.Option(help="float32 or bfloat16; as stored by default.", show_default=False)] = None,
    seed: Annotated[int, typer.Option(help="Of what is new.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> int:
    """A world model at the beginning of its training: Wan2.1's and Qwen2.5-VL's weights, and what PAN adds to them."""
    if random == (wan is not None):
        raise ValueError("name Wan2.1's folder with --wan (and Qwen2.5-VL's with --qwen), or ask for random weights with --random; one of the two")
    if random and (qwen is not None or link):
        ignored = f"--qwen {qwen}" if qwen is not None else "--link"
        raise ValueError(f"--random {ignored}: random weights are nobody's, and {ignored} would not be heard; leave one of the two out")
    if not 0 <= seed < 2**63:
        raise ValueError(f"--seed {seed}: it must lie in [0, 2^63)")
    if dtype not in (None, "float32", "bfloat16"):
        raise ValueError(f"--dtype {dtype}: there are float32 and bfloat16")
    done = assemble(Path(out), model, *(None if path is None else Path(path) for path in (wan, qwen)), link=link, dtype=dtype, seed=seed)
    print(json.dumps(asdict(done)) if as_json else text(done))
    return Exit.COMPLETE


if __name__ == "__main__":
    leave(main())
