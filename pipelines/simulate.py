"""Simulate: a world model's film of what comes of an image and a list of actions, or of actions as they are typed."""

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines import start_image
from pipelines.exits import Exit, leave

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from training.model.glp import GLP
    from training.model.spec import ModelSpec
    from training.model.tokens import Tokenizer
    from training.sampling import Sampling

#: An action's words at most: what the text encoder keeps of the longest, and more than any caption has.
LONGEST_ACTION = 4000
MOST_ACTIONS = 10_000


@dataclass(frozen=True)
class Plan:
    """What shall be simulated, checked before any model is loaded.

    Attributes:
        checkpoint: a PAN folder; spec: what it says it is.
        image_HWC: uint8 RGB in the film's size.
        actions: what is done, in order; empty where they are typed.
        out: the film's path.
    """

    checkpoint: Path
    spec: "ModelSpec"
    image_HWC: "npt.NDArray[np.uint8]"
    actions: tuple[str, ...]
    out: Path
    sampling: "Sampling"


def planned(checkpoint: str, image: str, actions: Sequence[str], out: str, size: str | None, sampling: "Sampling", interactive: bool = False) -> Plan:
    """Checks everything that can be checked without a model, the cheapest first.

    Raises:
        ValueError: an action is empty, it or the negative text is too long or unprintable, there is none, the image cannot be read, the film cannot be
            written, or the folder is no model's.
    """
    told = checked_actions(actions, interactive)
    checked_words(sampling.negative, "--negative")
    place = Path(out)
    if place.suffix.lower() != ".mp4":
        raise ValueError(f"--out {out}: a film is an MP4; give a name that ends in .mp4")
    if not place.parent.is_dir() or place.is_dir():
        raise ValueError(f"--out {out}: {'a folder is there' if place.is_dir() else f'there is no folder {place.parent}'}; make it, or choose another name")
    picture = start_image.opened(image)
    from training.model.card import read_spec

    spec = read_spec(Path(checkpoint))
    checked_steps(spec, sampling)
    begin = start_image.fitted(picture, *start_image.film_size(spec, size, picture))
    told_shift(spec, sampling)
    named = [(f"action {number} of {len(told)}", action) for number, action in enumerate(told, 1)]
    told_length(spec, tokenizer_of(Path(checkpoint)), [*named, ("--negative", sampling.negative)])
    return Plan(Path(checkpoint), spec, begin, told, place, sampling)


def checked_actions(actions: Sequence[str], interactive: bool = False) -> tuple[str, ...]:
    """The actions without the white space around them.

    Raises:
        ValueError: see `planned`.
    """
    if not actions and not interactive:
        raise ValueError("there is no action: give one or more, such as --action 'turn left', or --interactive to type them")
    if len(actions) > MOST_ACTIONS:
        raise ValueError(f"{len(actions)} actions; {MOST_ACTIONS} at most")
    for number, action in enumerate(actions, 1):
        if not action.strip():
            raise ValueError(f"action {number} of {len(actions)} is empty; say in words what is done, such as 'turn left'")
        checked_words(action, f"action {number} of {len(actions)}")
    return tuple(action.strip() for action in actions)


def checked_words(words: str, what: str) -> None:
    """Refuses a text that no model takes.

    Raises:
        ValueError: it is too long, or holds signs that cannot be printed.
    """
    if len(words) > LONGEST_ACTION:
        raise ValueError(f"{what} has {len(words)} characters; {LONGEST_ACTION} at most: a sentence or a few are meant")
    if not words.isprintable() and any(not sign.isprintable() and not sign.isspace() for sign in words):
        raise ValueError(f"{what}, {words[:40]!r}, holds signs that cannot be printed; give plain text")


def checked_steps(spec: "ModelSpec", sampling: "Sampling") -> None:
    """Refuses a number of steps that the model's window does not divide.

    Raises:
        ValueError: see `planned`.
    """
    places = spec.plan.phases
    if sampling.steps % places:
        raise ValueError(f"--steps {sampling.steps}: {spec.name} denoises a chunk in {places} places of its window; give a multiple of {places}")


def told_shift(spec: "ModelSpec", sampling: "Sampling") -> None:
    """Says on standard error what another shift than training's means."""
    if sampling.shift is not None and sampling.shift != spec.shift:
        print(
            f"pan: warning: --shift {sampling.shift:g}, but {spec.name} was trained with shift {spec.shift:g}: chunks then meet at noise levels "
            "that they never met in training, and the film is likely to be worse; leave --shift out",
            file=sys.stderr,
        )
        warnings.filterwarnings("ignore", "the model was trained with shift")  # it has been said


def told_length(spec: "ModelSpec", tokenizer: "Tokenizer", texts: Sequence[tuple[str, str]]) -> None:
    """Says on standard error which of these texts, each behind its name, the text encoder will cut."""
    from training.model.text import cleaned

    keeps = spec.text.tokens - 1  # and the end's
    for what, words in texts:
        count = len(tokenizer.encode(cleaned(words)))
        if count > keeps:
            print(f"pan: warning: {what} has {count} tokens, of which {spec.name} hears the first {keeps}; say it in fewer words", file=sys.stderr)


def tokenizer_of(checkpoint: Path) -> "Tokenizer":
    """What the text encoder in this folder reads with.

    Raises:
        ValueError: model.json says that a tokenizer's file is there, and it is not; or the model reads no bytes.
    """
    from training.model.card import read_card
    from training.model.text import default_tokenizer, open_tokenizer

    card = read_card(checkpoint)
    return open_tokenizer(checkpoint / "text") if card.text.tokenizer else default_tokenizer(card.model.text)


def simulate(plan: Plan, model: "GLP", told: Callable[[str], None] = print) -> int:
    """Writes the film of `plan`; returns its frames: 1 + 40 an action in PAN."""
    from curation.film import Film
    from training.rollout import Session, film

    with Film(plan.out, plan.spec.chunks.fps) as written:
        for number, frames in enumerate(film(Session(model, plan.sampling), plan.image_HWC, plan.actions)):
            written.add(frames)
            if number:
                told(f"{number}/{len(plan.actions)}  {plan.actions[number - 1]}  ({written.frames} frames)")
    return written.frames


def typed() -> Iterator[str]:
    """The lines of standard input, asked for where it is a terminal."""
    while True:
        try:
            yield input("> " if sys.stdin.isatty() else "")
        except (EOFError, KeyboardInterrupt):
            return


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    from pipelines import command_line

    return command_line.run(command, arguments, "pan simulate")


def command(
    checkpoint: Annotated[str, typer.Argument(help="A PAN folder: model.json and its weights.", show_default=False)],
    image: Annotated[str, typer.Option(help="What is seen first: a PNG, JPEG or WebP file.", show_default=False)],
    out: Annotated[str, typer.Option(help="The film, an MP4.")] = "film.mp4",
    action: Annotated[list[str] | None, typer.Option(help="What is done, in words; once for each chunk of film.", show_default=False)] = None,
    interactive: Annotated[bool, typer.Option("--interactive", help="Type actions one by one; keep moments and come back to them.")] = False,
    steps: Annotated[int | None, typer.Option(help="Denoising steps of a chunk; 50 by default.", show_default=False)] = None,
    guidance: Annotated[
        float | None, typer.Option(help="How strongly actions are followed; PAN's 4 by default, 1 halves the work.", show_default=False)
    ] = None,
    solver: Annotated[str | None, typer.Option(help="euler, the default, or unipc, which needs fewer steps.", show_default=False)] = None,
    seed: Annotated[int | None, typer.Option(help="Of all noise; 0 by default. The same seed gives the same film.", show_default=False)] = None,
    shift: Annotated[float | None, typer.Option(help="Of the noise schedule; by default the one the model was trained with.", show_default=False)] = None,
    negative: Annotated[str | None, typer.Option(help="A text to lead away from; empty by default.", show_default=False)] = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT in px; the model's own by default.", show_default=False)] = None,
    device: Annotated[str | None, typer.Option(help="Such as cuda:0; a GPU if there is one by default.", show_default=False)] = None,
    dtype: Annotated[str | None, typer.Option(help="float32 or bfloat16; bfloat16 on a GPU, float32 elsewhere by default.", show_default=False)] = None,
) -> int:
    """A world model's film of what comes of an image and of actions; all that can be wrong is told before a model is loaded."""
    from training.sampling import Sampling

    given: dict[str, Any] = {"steps": steps, "guidance": guidance, "solver": solver, "seed": seed, "shift": shift, "negative": negative}
    sampling = Sampling(**{name: value for name, value in given.items() if value is not None})
    plan = planned(checkpoint, image, action or [], out, size, sampling, interactive)
    model = loaded(plan, device, dtype)
    if interactive:
        from pipelines.simulate_live import Terminal

        frames = Terminal(plan, model).run(typed())
    else:
        frames = simulate(plan, model)
    print(f"{plan.out}: {frames} frames, {frames / plan.spec.chunks.fps:.1f} s")
    return Exit.COMPLETE


def loaded(plan: Plan, device: str | None, dtype: str | None) -> "GLP":
    """The model, ready to sample.

    Raises:
        ValueError: there is no such device or precision, or the weights are not the model's.
    """
    import torch

    from training.model.checkpoint import open_model

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = dtype or ("float32" if device.startswith("cpu") else "bfloat16")
    if dtype not in ("float32", "bfloat16"):
        raise ValueError(f"--dtype {dtype}: there are float32 and bfloat16")
    try:
        kind = torch.empty(0, device=device).device.type
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {device}: not here ({str(error).splitlines()[0]})") from error
    if kind == "meta":
        raise ValueError("--device meta: nothing is computed there; give cpu, cuda or cuda:0")
    model: GLP = open_model(plan.checkpoint, "cpu" if kind == "cpu" else device, getattr(torch, dtype)).eval()
    return model


if __name__ == "__main__":
    leave(main())
