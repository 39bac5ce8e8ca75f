"""What adds up to px over many rounds: how far off each single action leaves a pushed block, and one that was to stay, by the runs of `blockworld_runs.py`.

    python benchmarks/blockworld_drift.py [--folder F] [--stories N] [--steps N] [--arms ARM ...]

Two blocks, under way where chunks meet (*midway*), 20 rounds. An action is judged from where the blocks were seen before it, so that what came before does
not count; it is right if its block is nowhere further off than the third of a push that `block_fidelity.NEAR` allows, and only right ones have their px
told. A second table tells how far blocks are off after each of the first half chunks: the first chunk has no chunk before it, so that windows differ in
nothing but how they were trained; from the second on Swin-DPM's is settled while the one before is half noise. The last line is one JSON object, without
targets: this explains, and promises nothing. The models must be there: they are not committed.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from blockworld_measures import GUIDANCE, STEPS, WORLDS, deaf_to_states
from blockworld_runs import ARMS, LONG_ROUNDS

if TYPE_CHECKING:
    from training.evaluation.block_fidelity import Predictor
    from training.evaluation.blockworld import Episode, World

WHAT = ("unseen", "strayed", "pushed_wrong", "pushed_px", "short_px", "still_wrong", "still_px")
NAMES = ("swin_midway", "last_frame_midway", "swin_no_noise_midway")
#: Rounds of the second table, and px at which a block counts that is further off: one that went the wrong way is no question of exactness.
FIRST_ROUNDS, FAR_PX = 3, 6.0


def offs(predict: "Predictor", story: "Episode") -> Iterator[tuple[str, "np.ndarray[Any, Any]"]]:
    """("pushed" or "still", (along the push, across it) in px) of each block before and after an action; along and across of a still block are the picture's.

    ("unseen", nothing) of an action before or after which a block is not seen; ("strayed", nothing) of one that the film has left no room for: what came
    before has brought a named block so near to the rim that it could be pushed no further than `block_fidelity.CAN` of a push, and no such action is obeyed.
    """
    from training.evaluation.block_fidelity import CAN
    from training.evaluation.block_pictures import picture
    from training.evaluation.block_reader import read
    from training.evaluation.blockworld import after

    world = story.world
    film = predict(picture(world, story.positions_TN2[0], story.camera_T2[0]), story.words)
    before = read(world, film[0])
    for k, action in enumerate(story.actions[: -1 if world.lag_frames else None]):
        then = read(world, film[(k + 1) * world.chunk_frames + world.lag_frames])
        start, end, before = before.positions_N2(world), then.positions_N2(world), then
        if start is None or end is None:
            yield "unseen", np.zeros(2)
            continue
        goal = after(world, start, action)[-1]
        named = [number for number, colour in enumerate(world.colours) if colour in action.named]
        if (np.linalg.norm(goal[named] - start[named], axis=1) < CAN * world.step).any():
            yield "strayed", np.zeros(2)
        for off, way in zip((end - goal) * world.size, (goal - start) * world.size, strict=True):
            length = float(np.linalg.norm(way))
            if length == 0:
                yield "still", off
            elif length > 0.75 * world.step * world.size:  # one that the rim holds back goes less far
                yield "pushed", np.array([off @ way, off[0] * way[1] - off[1] * way[0]]) / length


def summed(found: "list[tuple[str, np.ndarray[Any, Any]]]", actions: int, most: float) -> dict[str, float]:
    """The figures of one model that was asked for so many actions."""
    told = {what: sum(name == what for name, _ in found) / actions for what in ("unseen", "strayed")}
    for kind in ("pushed", "still"):
        every = np.stack([off for name, off in found if name == kind])
        right = every[np.linalg.norm(every, axis=1) <= most]
        told |= {f"{kind}_wrong": 1 - len(right) / len(every), f"{kind}_px": float(np.sqrt((right**2).sum(1).mean()))}
        if kind == "pushed":
            told["short_px"] = -float(right[:, 0].mean())
    return told


def beginnings(predict: "Predictor", world: "World", seed: int, count: int) -> dict[str, float]:
    """Root of the mean square of what blocks are off, px, by chunks since the beginning (half a chunk each); of blocks that are seen."""
    from training.evaluation.block_pictures import picture
    from training.evaluation.block_reader import read
    from training.evaluation.blockworld import episodes

    half = world.chunk_frames // 2
    found: dict[int, list[float]] = {number: [] for number in range(1, 2 * FIRST_ROUNDS)}
    for story in episodes(world, FIRST_ROUNDS, 400 + seed, count, "unseen"):
        film = predict(picture(world, story.positions_TN2[0], story.camera_T2[0]), story.words)
        for number, offs_px in found.items():
            places = read(world, film[number * half]).places
            true = dict(zip(world.colours, story.positions_TN2[number * half], strict=True))
            offs_px += [min(FAR_PX, float(np.linalg.norm(place - true[colour])) * world.size) for colour, place in places.items()]
    return {f"{number / 2:g} chunks": float(np.sqrt(np.mean(np.square(offs_px)))) for number, offs_px in found.items()}


def main() -> int:
    """Prints the table and the figures."""
    import torch

    from training.evaluation.block_fidelity import NEAR
    from training.evaluation.blockworld import episodes
    from training.evaluation.predictors import predictor
    from training.model.checkpoint import open_model
    from training.sampling import Sampling

    cli = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    cli.add_argument("--folder", type=Path, default=Path("blockworld-runs"))
    cli.add_argument("--stories", type=int, default=12)
    cli.add_argument("--steps", type=int, default=STEPS, help="denoising steps of a chunk")
    cli.add_argument("--arms", nargs="*", default=NAMES, choices=NAMES)
    given = cli.parse_args()
    torch.set_num_threads(1)
    world, found = WORLDS["midway"](), defaultdict[str, list[dict[str, float]]](list)
    print(f"{given.stories} stories of {LONG_ROUNDS} rounds, {given.steps} denoising steps; px of {world.size}, root of the mean square, one action each")
    print(f"{'arm, seed':<24}{'unseen':>9}{'strayed':>9}{'pushed: wrong':>14}{'px':>6}{'short by':>10}{'still: wrong':>14}{'px':>6}")
    early = defaultdict[str, list[dict[str, float]]](list)
    for name in given.arms:
        for seed in ARMS[name].seeds:
            model = given.folder / f"{ARMS[name].base}_{seed}" / "model"
            if not model.is_dir():
                print(f"{name} {seed}: not there: python benchmarks/blockworld_runs.py run {name}:{seed}")
                continue
            predict = predictor(deaf_to_states(open_model(model).eval()), world, Sampling(steps=given.steps, guidance=GUIDANCE, seed=seed))
            stories = episodes(world, LONG_ROUNDS, 100 + seed, given.stories, "unseen")
            judged = given.stories * (LONG_ROUNDS - (1 if world.lag_frames else 0))
            told = summed([off for story in stories for off in offs(predict, story)], judged, NEAR * world.step * world.size)
            found[name].append(told)
            early[name].append(beginnings(predict, world, seed, 3 * given.stories))
            cells = zip((9, 9, 14, 6, 10, 14, 6), (3, 3, 3, 2, 2, 3, 2), (told[what] for what in WHAT), strict=True)
            print(f"{name + ' ' + str(seed):<24}" + "".join(f"{value:>{width}.{digits}f}" for width, digits, value in cells), flush=True)
    print(f"\nafter so many chunks, px ({3 * given.stories} stories)" + "".join(f"{number / 2:>8g}" for number in range(1, 2 * FIRST_ROUNDS)))
    for name, each_seed in early.items():
        for seed, offs_px in zip(ARMS[name].seeds, each_seed, strict=False):
            print(f"{name + ' ' + str(seed):<38}" + "".join(f"{value:>8.2f}" for value in offs_px.values()))
    means: dict[str, float | None] = {}
    for name in NAMES:
        means |= {f"{name}: {what}": float(np.mean([each[what] for each in found[name]])) if found[name] else None for what in WHAT}
        means |= {f"{name}: px after {when}": float(np.mean([each[when] for each in early[name]])) for when in (early[name] or [{}])[0]}
    print(json.dumps({name: {"value": None if value is None else round(value, 3), "target": None, "met": None} for name, value in means.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
