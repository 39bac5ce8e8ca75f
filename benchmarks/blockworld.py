"""World models in the block world: obedience, drift, picture quality and smooth joins on unseen layouts, and planning; beside the truth and a copy.

    python benchmarks/blockworld.py [--model FOLDER] [--world FOLDER] [--stories N] [--rounds N] [--tasks N] [--steps N] [--guidance G]

Without --model it prints the committed results of `blockworld_runs.py` (PAN against what it could do without, three seeds; says when the code has changed
since), and measures the bounds: the true simulator, and a film in which nothing ever changes.
FOLDER of --model is a PAN folder that was trained on the block world, such as demo-world/joint/model: it is measured now, and the committed results left out.
--world is a folder that `pan blockworld` has written (its world.json); by default a world of two blocks of the model's chunk and picture size. Where it
lags (`pan blockworld --lag`), nobody plans. What cannot be measured is said before anything is, with exit code 2.
Prints tables, and as its last line one JSON object.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
from blockworld_measures import GUIDANCE, STEPS
from blockworld_table import TARGET_FIRST, TARGET_TENTH, results
from blockworld_table import figures as committed_figures
from blockworld_table import lines as committed_lines

from training.evaluation.block_corpus import read_world
from training.evaluation.block_fidelity import Predictor, copy_of_start, simulator
from training.evaluation.block_horizon import Horizon, horizon
from training.evaluation.blockworld import World, episodes
from training.evaluation.planning import Chooser, guessing, imagining, success, task
from training.model.plain import must
from training.sampling import Sampling


@dataclass(frozen=True)
class Arm:
    """One row of the table."""

    name: str
    seen: Horizon
    planned: float | None
    cpu_s: float


def main() -> int:
    """Measures, prints the table and the figures."""
    cli = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    cli.add_argument("--model", type=Path)
    cli.add_argument("--world", type=Path)
    cli.add_argument("--stories", type=int, default=20)
    cli.add_argument("--rounds", type=int, default=10)
    cli.add_argument("--tasks", type=int, default=10)
    cli.add_argument("--steps", type=int, default=STEPS, help="denoising steps of a chunk")
    cli.add_argument("--guidance", type=float, default=GUIDANCE)
    given = cli.parse_args()
    cv2.setNumThreads(1)
    try:
        model, world, compared = asked(given)
    except (ValueError, OSError) as error:
        print(f"blockworld.py: {error}", file=sys.stderr)
        return 2
    if given.tasks and world.lag_frames:
        print(f"planning is left out: in a world with lag {world.lag} an action's end is not seen when the next is chosen")
        given.tasks = 0
    arms = [measured(name, world, predict, given) for name, predict in compared.items()]
    print(f"{given.stories} unseen layouts, {given.rounds} rounds of {world.chunk_frames} frames, {world.blocks} blocks, {world.size} px")
    print(table(arms, guessed(world, given)))
    found = figures(arms, given.rounds)
    if model is None:
        made = results()
        print("\n" + ("\n".join(committed_lines(made)) if made is not None else "no committed results: python benchmarks/blockworld_runs.py"))
        found |= committed_figures(made)
    print(json.dumps(found))
    return 0


def asked(given: argparse.Namespace) -> tuple[Any, World, dict[str, Predictor]]:
    """The model, if one is given, the world on its clock, and what is compared there.

    Raises:
        ValueError: a number that cannot be measured, no such model or world, or a world that is not the model's.
        OSError: a file that cannot be read.
    """
    for name, least in (("stories", 1), ("rounds", 1), ("tasks", 0)):
        must(getattr(given, name) >= least, f"--{name} {getattr(given, name)}: give at least {least}")
    Sampling(steps=given.steps, guidance=given.guidance)  # before a model is read
    world = read_world(given.world) if given.world else World(blocks=2, contact=False, chunk_frames=4, fps=1.6)
    model = opened(given.model) if given.model else None
    if model is not None:
        chunks = model.spec.chunks
        world = replace(world, chunk_frames=chunks.chunk_frames, fps=chunks.fps, size=model.spec.height)
    must(given.rounds > 1 or not world.lag_frames, f"--rounds {given.rounds}: where a world lags the last round is not judged; give at least 2")
    return model, world, predictors(world, model, given.steps, given.guidance)


def opened(folder: Path) -> Any:
    """The model, in evaluation mode."""
    from training.model.checkpoint import open_model

    return open_model(folder, "cpu").eval()


def predictors(world: World, model: Any, steps: int, guidance: float) -> dict[str, Predictor]:
    """What is compared."""
    found = {"true simulator": simulator(world), "copy of the first frame": copy_of_start(world)}
    if model is not None:
        from training.evaluation.predictors import predictor

        sampling = Sampling(steps=steps, guidance=guidance)
        found["the model"] = predictor(model, world, sampling)
        found["the model, told nothing"] = predictor(model, world, sampling, actions_told=False)
    return found


def measured(name: str, world: World, predict: Predictor, given: argparse.Namespace) -> Arm:
    """One row: each films the same stories and solves the same tasks; the model that is told nothing cannot plan."""
    began = time.process_time()
    seen = horizon(predict, episodes(world, given.rounds, 0, given.stories, "unseen"))
    planned = solved(world, imagining(world, predict), given.tasks) if given.tasks and not name.endswith("told nothing") else None
    return Arm(name, seen, planned, time.process_time() - began)


def guessed(world: World, given: argparse.Namespace) -> float | None:
    """Tasks that choosing at random solves."""
    return solved(world, guessing(world, 0), given.tasks) if given.tasks else None


def solved(world: World, choose: Chooser, tasks: int) -> float:
    """Share of so many tasks that a chooser solves."""
    return success((task(world, 0, number) for number in range(tasks)), choose)


def table(arms: list[Arm], chance: float | None) -> str:
    """The rows, and beneath them what they are to be read with."""
    names = ("obeyed 1", "last", "all", "px 1", "last", "dB 1", "last", "SSIM", "joins", "else", "speed", "plans", "CPU s")
    widths, digits = (9, 6, 6, 7, 6, 7, 6, 6, 7, 6, 7, 7, 7), (2, 2, 2, 1, 1, 1, 1, 2, 2, 2, 2, 2, 0)
    lines = [" " * 26 + "".join(name.rjust(width) for name, width in zip(names, widths, strict=True))]
    for arm in arms:
        seen, told = arm.seen, arm.seen.fidelity
        cells = [
            told.obeyed_R[0],
            told.obeyed_R[-1],
            told.obeyed,
            told.error_px_R[0],
            told.error_px_R[-1],
            seen.quality_R[0].psnr_db,
            seen.quality_R[-1].psnr_db,
        ]
        cells += [seen.quality_R[-1].ssim, seen.joins, seen.elsewhere, seen.speed, arm.planned, arm.cpu_s]
        lines.append(f"{arm.name:<26}" + "".join("-".rjust(w) if c is None else f"{c:>{w}.{d}f}" for c, w, d in zip(cells, widths, digits, strict=True)))
    true = arms[0].seen
    smooth = " and ".join("-" if s is None else f"{s:.2f}" for s in (true.true_joins, true.true_elsewhere))
    lines.append(f"the true films: smoothness {smooth}, speed {true.true_speed:.2f}; plans by chance: {'-' if chance is None else f'{chance:.2f}'}")
    return "\n".join(lines)


def figures(arms: list[Arm], rounds: int) -> dict[str, dict[str, Any]]:
    """The last line's object; what needs a model is null without one."""
    by_name = {arm.name: arm.seen.fidelity for arm in arms}
    model = by_name.get("the model")
    first, tenth = (None, None) if model is None else (model.obeyed_R[0], model.obeyed_R[9] if rounds >= 10 else None)
    return {
        "fidelity_step_1": {"value": first, "target": TARGET_FIRST, "met": None if first is None else first >= TARGET_FIRST},
        "fidelity_step_10": {"value": tenth, "target": TARGET_TENTH, "met": None if tenth is None else tenth >= TARGET_TENTH},
        "fidelity_copy": {"value": by_name["copy of the first frame"].obeyed, "target": None, "met": None},
        "fidelity_truth": {"value": by_name["true simulator"].obeyed, "target": 1.0, "met": by_name["true simulator"].obeyed == 1.0},
    }


if __name__ == "__main__":
    sys.exit(main())
