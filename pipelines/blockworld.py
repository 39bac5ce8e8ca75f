"""Block world: films of coloured blocks that are pushed as words say, with their timed actions, as a raw corpus to curate and to train on."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.exits import Exit, leave

if TYPE_CHECKING:
    from training.evaluation.block_corpus import Corpus


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    from pipelines import command_line

    return command_line.run(command, arguments, "pan blockworld")


def command(
    out: Annotated[Path, typer.Argument(help="A folder for the films and their list; films that are there are written again.", show_default=False)],
    videos: Annotated[int, typer.Option(min=1, help="How many films.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Of layouts and actions; the same seed gives the same bytes.")] = 0,
    rounds: Annotated[int, typer.Option(min=1, max=40, help="Actions a film; curation cuts films of more than 10 into clips.")] = 10,
    split: Annotated[str, typer.Option(help="train, or unseen: arrangements of which no film of train shows a frame.")] = "train",
    size: Annotated[int | None, typer.Option(help="px of the picture's side, 64 to 128; 64 by default.", show_default=False)] = None,
    blocks: Annotated[int | None, typer.Option(help="1 to 6; 3 by default.", show_default=False)] = None,
    side: Annotated[float | None, typer.Option(help="Of a block, as a share of the picture's; 0.17 by default.", show_default=False)] = None,
    contact: Annotated[bool, typer.Option(help="Blocks may be pushed against others, and shove them along.")] = True,
    camera: Annotated[bool, typer.Option("--camera", help="The camera may pan.")] = False,
    lag: Annotated[float, typer.Option(help="Of a chunk: what an action does comes so much after its words; 0 by default.", show_default=False)] = 0.0,
    chunk_frames: Annotated[
        int | None, typer.Option(help="Frames an action takes; PAN's 40 by default, which curation's rounds hold.", show_default=False)
    ] = None,
) -> int:
    """Write a block world: MP4 films, videos.jsonl with each film's timed actions for `pan curate --recipe blockworld`, and world.json."""
    from training.evaluation.block_corpus import LIST, Corpus
    from training.evaluation.blockworld import SPLITS, World

    if split not in SPLITS:
        raise ValueError(f"--split {split}: there are {' and '.join(SPLITS)}")
    given: dict[str, Any] = {"size": size, "blocks": blocks, "side": side, "chunk_frames": chunk_frames}
    world = World(contact=contact, camera=camera, lag=lag, **{name: value for name, value in given.items() if value is not None})
    corpus = Corpus(world=world, videos=videos, rounds=rounds, seed=seed, split=split)
    written(out, corpus)
    print(f"{videos} films of {rounds} actions in {out}; {following(out / LIST, corpus)}")
    return Exit.COMPLETE


def following(listed: Path, corpus: "Corpus") -> str:
    """What to do next with the films of this list; where curation would reject them, or join their actions, that and why."""
    from curation.sample import CHUNK_FRAMES
    from pipelines import again, recipe

    least, chunk = recipe.load("blockworld").split.min_chunks, corpus.world.chunk_frames
    mends = [*([f"--rounds {least} or more"] if corpus.rounds < least else []), *(["no --chunk-frames"] if chunk != CHUNK_FRAMES else [])]
    why = ""
    if (frames := corpus.rounds * chunk) < least * CHUNK_FRAMES:
        why = f"reject them as too_short: they have {frames} frames after the first, it keeps clips of {least} chunks of {CHUNK_FRAMES} or more"
    elif chunk != CHUNK_FRAMES:
        why = f"join their actions, or tell one more than once: its chunks have {CHUNK_FRAMES} frames, an action here takes {chunk}"
    if why:
        return f"`pan curate --recipe blockworld` would {why}; to curate them give {' and '.join(mends)}"
    return f"next: {again.text(['pan', 'curate', str(listed), '--out', 'OUT', '--recipe', 'blockworld'])}"


def written(out: Path, corpus: "Corpus") -> Path:
    """Writes the corpus, and how far it is where someone looks on; returns the list's path.

    Raises:
        ValueError: `out` cannot be a folder, or holds films that are not of this corpus: no list would name them any more.
    """
    from training.evaluation.block_corpus import write

    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file: give a folder for the films")
    own = {corpus.name(number) for number in range(corpus.videos)}
    if others := sorted(found for path in out.glob("videos/*.mp4") if (found := path.relative_to(out).as_posix()) not in own):
        raise ValueError(f"{out} holds {len(others)} films that are not among these {corpus.videos}, {others[0]} the first: give another folder, or remove it")

    def tell(number: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{number}/{corpus.videos} films", end="\n" if number == corpus.videos else "", file=sys.stderr, flush=True)

    return write(out, corpus, tell)


if __name__ == "__main__":
    leave(main())
