"""Demo world: trains a small world model on the block world with the product's own commands, and films it obeying actions on a table it has never seen."""

import json
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from curation import whole
from pipelines.exits import Exit, leave

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from training.evaluation.block_fidelity import Predictor, Step
    from training.evaluation.blockworld import Episode, World

#: px of a picture in the film, and of the line of words under it.
SHOWN, LINE = 256, 40
FILM, FIGURES, FIRST_PICTURE = "obeyed.mp4", "figures.json", "first.png"
#: What the folder's content was made with.
STAMP = "demo-world.json"
#: Frames a second of the film: the model's 1.6 would be a slide show of 2.5 s a picture.
FILM_FPS = 4.0
#: Denoising steps of a chunk, and guidance: of the film, and of the command that is told at the end.
DENOISING, GUIDANCE = 10, 2.0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    from pipelines import command_line

    return command_line.run(command, arguments, "python -m pipelines.demo_world")


def command(
    out: Annotated[Path, typer.Argument(help="Folder, a new one; a run that was stopped is taken up, one with other options is refused.")] = Path("demo-world"),
    films: Annotated[int, typer.Option(min=20, help="Training films of ten actions each.")] = 300,
    steps: Annotated[int, typer.Option(min=100, help="Steps of the decoder phase, 4 windows each; the joint phase takes a fifth.")] = 6000,
    stories: Annotated[int, typer.Option(min=1, help="Unseen tables on which obedience is measured.")] = 10,
) -> int:
    """Train a small world model on coloured blocks that are pushed as words say, and film it obeying on a table that it has never seen."""
    from curation.lock import OutputLocked, hold
    from curation.storage import Storage
    from pipelines import again
    from pipelines.block_chain import OtherRun
    from pipelines.run import ended, interruptible
    from training.evaluation.blockworld import World

    world = World(blocks=2, contact=False, chunk_frames=4, fps=1.6)
    try:
        claim(out, {"world": world.to_dict(), "films": films, "steps": steps})
    except ValueError as error:
        print(f"demo-world: {error}", file=sys.stderr)
        return Exit.USAGE
    told = {"--films": films, "--steps": steps, "--stories": stories}
    words = again.words([sys.executable, "-m", "pipelines.demo_world", out], told)
    try:
        with hold(out), interruptible(Storage.at(str(out)), words):
            made(out, world, films, steps, stories)
    except OutputLocked as error:
        print(f"demo-world: {error}", file=sys.stderr)
        return Exit.LOCKED
    except OtherRun as error:
        print(f"demo-world: {error}", file=sys.stderr)
        return ended(str(out), Exit.USAGE, str(error), {}, words)
    return ended(str(out), Exit.COMPLETE, "complete", {}, words)


def made(out: Path, world: "World", films: int, steps: int, stories: int) -> None:
    """Everything that the folder is to hold, and what is said of it."""
    from pipelines.block_chain import Chain
    from training.evaluation.blockworld import episodes

    chain = Chain(folder=out.absolute(), world=world, films=films)
    print(f"1/3 films, curation, autoencoder and latents in {out}", flush=True)
    chain.prepare()
    print(f"2/3 training: {steps} steps of the decoder, {steps // 5} of both; a run that is stopped is taken up", flush=True)
    chain.train(chain.folder / "decoder", chain.folder / "first", "decoder", steps, {"optim.lr": 4e-3})
    chain.train(chain.folder / "joint", chain.folder / "decoder" / "model", "joint", steps // 5, {"optim.lr": 2e-3})
    print(f"3/3 filming {stories} unseen tables", flush=True)
    told = list(episodes(world, 10, 3, stories, "unseen"))
    figures = filmed(chain.folder, opened(chain.folder / "joint" / "model", world), told)
    print(
        f"obeyed {figures['obeyed']:.0%} of {figures['steps']} actions (a film in which nothing moves: {figures['copy']:.0%}); by round: {figures['by_round']}"
    )
    print(f"film: {out / FILM}   imagined left, true right\nnext: {simulation(out, told[0].words[0])}")


def claim(folder: Path, options: Mapping[str, Any]) -> None:
    """Makes the folder these options' own, or finds that it is: what a run finds there it takes for its own, and reports it under its own numbers.

    Args:
        options: plain values; "world", and what the command line calls by the same name.

    Raises:
        ValueError: what is there was made with others, or by nobody knows whom.
    """
    stamp, new = folder / STAMP, "give another folder (python -m pipelines.demo_world FOLDER)"
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: give a folder")
    if stamp.is_file():
        told = _stamped(stamp)
        other = [(name, told[name], value) for name, value in options.items() if told[name] != value]
        differ = ["another world" if name == "world" else f"--{name} {then} (this run: {now})" for name, then, now in other]
        if differ:
            earlier = "" if told["world"] != options["world"] else f", or ask for the earlier numbers: --films {told['films']} --steps {told['steps']}"
            raise ValueError(f"{folder} was made with {' and '.join(differ)}, and what is there would not be made again: {new}, remove this one{earlier}")
        return
    if any((folder / "raw" / "videos").glob("train_*.mp4")):
        raise ValueError(
            f"{folder} was made by an earlier version of this command, which did not note with which --films and --steps: {new}, or remove this one"
        )
    held = sorted(each.name for each in folder.iterdir() if not each.name.startswith(f".{STAMP}.")) if folder.is_dir() else []
    if held:
        raise ValueError(f"{folder} holds what this command did not make ({', '.join(held[:3])}{', ...' if len(held) > 3 else ''}): {new}")
    folder.mkdir(parents=True, exist_ok=True)
    whole.write(stamp, json.dumps(options, indent=1) + "\n")


def _stamped(stamp: Path) -> dict[str, Any]:
    """What is noted there.

    Raises:
        ValueError: it is damaged.
    """
    try:
        told = json.loads(stamp.read_text("utf-8"))
    except ValueError:
        told = None
    if not isinstance(told, dict) or not {"world", "films", "steps"} <= told.keys():
        raise ValueError(f"{stamp} is damaged, so nobody can tell what {stamp.parent} was made with: give another folder, or remove this one")
    return told


def opened(model: Path, world: Any) -> "Predictor":
    """The model's own rollout, as the film shows it."""
    from training.evaluation.predictors import predictor
    from training.model.checkpoint import open_model
    from training.sampling import Sampling

    return predictor(open_model(model).eval(), world, Sampling(steps=DENOISING, guidance=GUIDANCE))


def simulation(out: Path, action: str) -> str:
    """A shell's command that imagines one action on the first of the filmed tables, as the film did; `pan` by its path where the shell would not find it."""
    pan = "pan" if shutil.which("pan") else str(Path(sys.executable).with_name("pan"))
    model, film = str(out / "joint" / "model"), str(out / "film.mp4")
    given = ["--image", str(out / FIRST_PICTURE), "--action", action, "--steps", str(DENOISING), "--guidance", f"{GUIDANCE:g}", "--out", film]
    return shlex.join([pan, "simulate", model, *given])


def filmed(folder: Path, predict: "Predictor", told: "Sequence[Episode]") -> dict[str, Any]:
    """Writes the film, the first picture of its first story, and what was obeyed, which is returned.

    Args:
        told: stories of one world and of equally many rounds.
    """
    import numpy as np
    from PIL import Image

    from curation.film import Film
    from training.evaluation.block_fidelity import copy_of_start, fidelity, steps, summary
    from training.evaluation.block_pictures import film, picture

    judged = list[list["Step"]]()
    with Film(folder / FILM, FILM_FPS) as shown:
        for story in told:
            first = picture(story.world, story.positions_TN2[0], story.camera_T2[0])
            if not judged:
                Image.fromarray(first).save(folder / FIRST_PICTURE)
            made = predict(first, story.words)
            judged.append(steps(made, story))
            shown.add(np.stack(list(beside(made, film(story.world, story.positions_TN2, story.camera_T2), story, judged[-1]))))
    found, copied = summary(judged), fidelity(copy_of_start(told[0].world), told)
    by_round = [round(share, 2) for share in found.obeyed_R]
    figures = {"obeyed": found.obeyed, "by_round": by_round, "copy": copied.obeyed, "steps": found.steps, "error_px": found.error_px_R}
    whole.write(folder / FIGURES, json.dumps(figures, indent=1) + "\n")
    return figures


def beside(made: "npt.NDArray[np.uint8]", true: "npt.NDArray[np.uint8]", story: "Episode", judged: "Sequence[Step]") -> "Iterator[npt.NDArray[np.uint8]]":
    """The imagined film and the true one side by side, with the action beneath and, at its end, whether it was obeyed.

    Yields:
        frames, uint8 RGB [SHOWN + LINE, 2 * SHOWN, 3].
    """
    import cv2
    import numpy as np

    frames = story.world.chunk_frames
    for k, pair in enumerate(zip(made, true, strict=True)):
        pictures = np.concatenate([cv2.resize(each, (SHOWN, SHOWN), interpolation=cv2.INTER_NEAREST) for each in pair], 1)
        line, number = np.full((LINE, 2 * SHOWN, 3), 255, np.uint8), (k - 1) // frames
        words, colour = ("a table that was never seen", (90, 90, 90)) if k == 0 else (str(story.actions[number]), (20, 20, 20))
        if k and k % frames == 0:
            words, colour = f"{words}: {'obeyed' if judged[number].obeyed else 'not obeyed'}", (0, 120, 0) if judged[number].obeyed else (190, 0, 0)
        cv2.putText(line, words, (8, 26), cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, 1, cv2.LINE_AA)
        yield np.concatenate([pictures, line], 0)


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
