"""Demo world: trains a small world model on the block world with the product's own commands, and films it obeying actions on a table it has never seen."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.exits import Exit, leave

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from training.evaluation.block_fidelity import Step
    from training.evaluation.blockworld import Episode

#: px of a picture in the film, and of the line of words under it.
SHOWN, LINE = 256, 40
FILM, FIGURES = "obeyed.mp4", "figures.json"
#: Frames a second of the film: the model's 1.6 would be a slide show of 2.5 s a picture.
FILM_FPS = 4.0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    from pipelines import command_line

    return command_line.run(command, arguments, "python -m pipelines.demo_world")


def command(
    out: Annotated[Path, typer.Argument(help="Folder; what is there already is not made again.")] = Path("demo-world"),
    films: Annotated[int, typer.Option(min=20, help="Training films of ten actions each.")] = 300,
    steps: Annotated[int, typer.Option(min=100, help="Steps of the decoder phase, 4 windows each; the joint phase takes a fifth.")] = 6000,
    stories: Annotated[int, typer.Option(min=1, help="Unseen tables on which obedience is measured.")] = 10,
) -> int:
    """Train a small world model on coloured blocks that are pushed as words say, and film it obeying on a table that it has never seen."""
    from pipelines.block_chain import Chain
    from training.evaluation.blockworld import World

    world = World(blocks=2, contact=False, chunk_frames=4, fps=1.6)
    chain = Chain(folder=out.absolute(), world=world, films=films)
    print(f"1/3 films, curation, autoencoder and latents in {out}", flush=True)
    chain.prepare()
    print(f"2/3 training: {steps} steps of the decoder, {steps // 5} of both; a run that is stopped is taken up", flush=True)
    chain.train(chain.folder / "decoder", chain.folder / "first", "decoder", steps, {"optim.lr": 4e-3})
    chain.train(chain.folder / "joint", chain.folder / "decoder" / "model", "joint", steps // 5, {"optim.lr": 2e-3})
    print(f"3/3 filming {stories} unseen tables", flush=True)
    figures = filmed(chain.folder, chain.folder / "joint" / "model", world, stories)
    print(
        f"obeyed {figures['obeyed']:.0%} of {figures['steps']} actions (a film in which nothing moves: {figures['copy']:.0%}); by round: {figures['by_round']}"
    )
    print(f"film: {out / FILM}   imagined left, true right\nnext: pan simulate {out}/joint/model --image PICTURE --action 'push the red block left'")
    return Exit.COMPLETE


def filmed(folder: Path, model: Path, world: Any, stories: int) -> dict[str, Any]:
    """Writes the film, and what was obeyed; both of a model that is at its end."""
    import numpy as np

    from curation.film import Film
    from training.evaluation.block_fidelity import copy_of_start, fidelity, steps, summary
    from training.evaluation.block_pictures import film, picture
    from training.evaluation.blockworld import episodes
    from training.evaluation.predictors import predictor
    from training.model.checkpoint import open_model
    from training.sampling import Sampling

    predict = predictor(open_model(model).eval(), world, Sampling(steps=10, guidance=2.0))
    told, judged = list(episodes(world, 10, 3, stories, "unseen")), []
    with Film(folder / FILM, FILM_FPS) as shown:
        for story in told:
            made = predict(picture(world, story.positions_TN2[0], story.camera_T2[0]), story.words)
            judged.append(steps(made, story))
            shown.add(np.stack(list(beside(made, film(world, story.positions_TN2, story.camera_T2), story, judged[-1]))))
    found, copied = summary(judged), fidelity(copy_of_start(world), told)
    by_round = [round(share, 2) for share in found.obeyed_R]
    figures = {"obeyed": found.obeyed, "by_round": by_round, "copy": copied.obeyed, "steps": found.steps, "error_px": found.error_px_R}
    (folder / FIGURES).write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    return figures


def beside(made: "npt.NDArray[np.uint8]", true: "npt.NDArray[np.uint8]", story: "Episode", judged: "Sequence[Step]") -> "Any":
    """Frames of the imagined film and the true one side by side, with the action beneath and, at its end, whether it was obeyed."""
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
