"""What PAN's parts are worth, on the block world: the same small model trained with and without each, three seeds each, by the product's own commands.

    python benchmarks/blockworld_runs.py prepare [--folder F]            films, curation, autoencoder, latents: once, shared by all
    python benchmarks/blockworld_runs.py run [--folder F] [ARM:SEED ...]  trains and measures what is not done yet, one after the other; all by default
    python benchmarks/blockworld_runs.py collect [--folder F]            writes the results, with the hash of the code, to benchmarks/results/blockworld.json

A run that was killed is taken up at its last checkpoint; several processes may run different arms beside one another (one thread each).
`python benchmarks/blockworld.py` prints the results, and says when the code has changed since.
"""

import argparse
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "blockworld.json"
SEEDS = (0, 1, 2)
#: Two blocks, no contact: what a CPU without bfloat16 arithmetic can learn in some minutes.
FILMS, BLOCKS = 400, 2
#: Steps of 4 windows: of the first phase, and of the second, which all arms but PAN's spend on more of the first, as many as take the same CPU time.
FIRST, JOINT = 3000, 800
#: CPU-seconds a step relative to the first phase's of PAN's plan, measured by `cost` on an idle machine: what "the same compute" means.
COST = {"swin": 1.0, "last_frames": 0.64, "joint": 2.66, "matching": 1.64}
#: The one long run: 25 minutes of two cores, the autoencoder's two minutes among them.
LONG = (21_000, 4_000)
STORIES, ROUNDS, STEPS, GUIDANCE = 20, 10, 10, 2.0
#: The second phase's rate: what the first has learnt is to stay.
LATER = {"optim.lr": 2e-3, "loss.dropped": 0.3}
#: A backbone that nobody has taught learns along a tenth as fast: at the whole rate the optimiser's noise alone makes all its states alike.
JOINTLY = {"optim.backbone_lr": 0.1}
#: The long run climbs less high: ten times the steps.
EARLIER = {True: {"optim.lr": 4e-3}, False: {"optim.lr": 6e-3}}


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to train the model.

    Attributes:
        history, cond_noise: of the window.
        then: the second half of the compute: PAN's joint phase, more of the first phase, or matching the next observation's state.
        again: steps of the second half, where they are not to take the same compute as PAN's.
        long: the one long run.
    """

    name: str
    history: str = "swin"
    cond_noise: float = 0.055
    then: str = "decoder"
    again: int | None = None
    long: bool = False

    @property
    def base(self) -> str:
        """Name of the first phase's run, which arms may share."""
        return "long_decoder" if self.long else f"{self.history}_{self.cond_noise:g}"

    @property
    def steps(self) -> tuple[int, int]:
        """Of the first phase and of the second."""
        if self.long:
            return LONG
        plain = COST[self.history]
        return round(FIRST / plain), self.again or round(JOINT * COST["joint"] / COST.get(self.then, plain))


ARMS = {
    arm.name: arm
    for arm in (
        Arm(name="pan", then="joint"),
        Arm(name="no_state"),
        Arm(name="last_frame", history="last_frames"),
        Arm(name="no_cond_noise", cond_noise=0.0),
        Arm(name="no_state_same_windows", again=JOINT),
        Arm(name="latent_matching", then="matching"),
        Arm(name="long", then="joint", long=True),
    )
}


def world() -> Any:
    """The world, on the model's clock."""
    from training.evaluation.blockworld import World

    return World(blocks=BLOCKS, contact=False, chunk_frames=4, fps=1.6)


def chain(folder: Path) -> Any:
    """What all arms share."""
    from pipelines.block_chain import Chain

    return Chain(folder=folder, world=world(), films=FILMS)


def run(folder: Path, arm: Arm, seed: int) -> None:
    """Trains and measures one arm, unless it is done."""
    done = folder / "results" / f"{arm.name}_{seed}.json"
    if done.is_file():
        return
    shared, steps = chain(folder), arm.steps
    first, base, out = (folder / name for name in (f"first_{arm.base}_{seed}", f"{arm.base}_{seed}", f"{arm.name}_{seed}"))
    shared.model(first, shared.world, arm.history, arm.cond_noise, seed)
    spent = [shared.train(base, first, "decoder", steps[0], {"loop.seed": seed, **EARLIER[arm.long]})]
    changes = LATER if arm.then == "decoder" else LATER | JOINTLY
    if arm.then == "matching":
        changes = changes | {"optim.spike": 1e9}  # states that collapse bring the gradient to 0, beside which any is a spike
    spent.append(shared.train(out, base / "model", arm.then, steps[1], {"loop.seed": seed, **changes}))
    began = time.process_time()
    found = measured(base / "model", out / "model", arm, seed)
    row = {
        "arm": arm.name,
        "seed": seed,
        "code": CODE,
        "steps": steps,
        "cpu_s": [round(s, 1) for s in spent],
        "measured_cpu_s": round(time.process_time() - began, 1),
        **found,
    }
    done.parent.mkdir(exist_ok=True)
    part = done.with_suffix(".part")
    part.write_text(json.dumps(row, indent=1) + "\n", "utf-8")
    part.replace(done)
    print(f"{arm.name} {seed}: obeyed {row.get('horizon', {}).get('fidelity', {}).get('obeyed_R')}", flush=True)


def measured(before: Path, model: Path, arm: Arm, seed: int) -> dict[str, Any]:
    """Everything that is measured of a trained model, on stories whose first layouts no film of the training begins with; other stories for each seed.

    Args:
        before: the model in front of the second half, whose backbone has learnt nothing.
    """
    from training.evaluation.block_fidelity import copy_of_start, fidelity
    from training.evaluation.block_horizon import horizon
    from training.evaluation.blockworld import episodes
    from training.evaluation.predictors import predictor
    from training.model.checkpoint import open_model
    from training.sampling import Sampling

    glp, found = open_model(model).eval(), dict[str, Any]()
    if arm.then != "decoder":
        found["states"], found["states_untrained"] = states(glp), states(open_model(before).eval())
    if arm.then == "matching":
        return found  # its decoder has never met a state
    sampling = Sampling(steps=STEPS, guidance=GUIDANCE, seed=seed)
    if arm.then == "decoder":
        glp = deaf_to_states(glp)
    stories = list(episodes(world(), ROUNDS, 100 + seed, 3 * STORIES if arm.long else STORIES, "unseen"))
    found["horizon"] = horizon(predictor(glp, world(), sampling), stories).to_dict()
    found["copy"] = asdict(fidelity(copy_of_start(world()), stories))
    if arm.long:
        found["planning"] = planned(glp)
    if arm.then == "joint":
        found["told_nothing"] = asdict(fidelity(predictor(glp, world(), sampling, actions_told=False), stories[:STORIES]))
        found["no_text"] = asdict(fidelity(predictor(without_text(glp), world(), sampling), stories[:STORIES]))
    return found


def deaf_to_states(glp: Any) -> Any:
    """The model without backbone: what it is after the first phase alone."""
    from training.model.glp import GLP

    return GLP(glp.spec, decoder=glp.decoder, vae=glp.vae, text=glp.text).eval()


def without_text(glp: Any) -> Any:
    """The model whose decoder hears no text: what it does, its state alone has told it."""
    hear = glp.encode_text
    glp.encode_text = lambda texts: hear([""] * len(texts))
    return glp


def planned(glp: Any, tasks: int = 15) -> dict[str, float]:
    """Share of the tasks that are solved by imagining each candidate, by the true simulator, and at random; half of the steps spare time."""
    from training.evaluation.block_fidelity import simulator
    from training.evaluation.planning import guessing, imagining, success, task
    from training.evaluation.predictors import predictor
    from training.sampling import Sampling

    here = world()
    choosers = {
        "model": imagining(here, predictor(glp, here, Sampling(steps=STEPS, guidance=GUIDANCE))),
        "simulator": imagining(here, simulator(here)),
        "random": guessing(here, 0),
    }
    return {name: success((task(here, 0, number) for number in range(tasks)), choose) for name, choose in choosers.items()}


def states(glp: Any, train: int = 150, test: int = 50) -> dict[str, Any]:
    """How much predicted states vary, and what a linear probe reads of the blocks' next places from them."""
    import numpy as np
    import torch

    from training.evaluation.block_fidelity import NEAR
    from training.evaluation.collapse import probe, spread

    with torch.no_grad():
        pairs = [predicted(glp, split, count) for split, count in (("train", train), ("unseen", test))]
    found = spread(np.concatenate([x for x, _ in pairs]))
    return {"spread": asdict(found), "probe": asdict(probe(pairs[0], pairs[1], NEAR * world().step))}


def predicted(glp: Any, split: str, count: int) -> tuple[Any, Any]:
    """(states of each story's second round, the blocks' places at its end), from true films."""
    import numpy as np

    from training.evaluation.block_pictures import film
    from training.evaluation.blockworld import episodes
    from training.model.dialogue import Dialogue, Round
    from training.model.vision import see

    found, places, here, spec = [], [], world(), glp.spec
    for story in episodes(here, 2, 7, count, split):  # type: ignore[arg-type]
        frames = film(here, story.positions_TN2, story.camera_T2)
        looks = (frames[:1], frames[1 : 1 + here.chunk_frames])
        sights = [see(look, spec.chunks.fps, spec.backbone.vision) for look in looks]
        dialogue = Dialogue(tuple(Round(sight, str(action)) for sight, action in zip(sights, story.actions, strict=True)))
        found.append(glp.predict_states([dialogue])[0, -1].flatten().numpy())
        places.append(story.positions_TN2[-1].flatten())
    return np.stack(found), np.stack(places)


def code_hash() -> str:
    """Sixteen hex digits of all that a result depends on: the trainer, the model, the world, and this file."""
    told = hashlib.sha256()
    for file in sorted([*(ROOT / "training").rglob("*.py"), ROOT / "pipelines" / "block_chain.py", Path(__file__)]):
        told.update(f"{file.relative_to(ROOT)}\n".encode() + file.read_bytes())
    return told.hexdigest()[:16]


#: Read when the process begins: what is computed is this code's, whatever is written meanwhile.
CODE = code_hash()


def collect(folder: Path) -> None:
    """Writes what is done to RESULTS."""
    import torch

    rows = [json.loads(file.read_text("utf-8")) for file in sorted((folder / "results").glob("*.json"))]
    vae = torch.load(folder / "autoencoder.pt", weights_only=True)["cpu_s"]
    about = {"films": FILMS, "blocks": BLOCKS, "stories": STORIES, "rounds": ROUNDS, "sampling_steps": STEPS, "guidance": GUIDANCE, "cost": COST}
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "torch": torch.__version__}
    RESULTS.parent.mkdir(exist_ok=True)
    made = {"machine": machine, "settings": about, "autoencoder_cpu_s": vae, "runs": rows}
    RESULTS.write_text(json.dumps(made, indent=1) + "\n", "utf-8")
    print(f"{len(rows)} runs in {RESULTS}")


def wanted(words: list[str]) -> Iterator[tuple[Arm, int]]:
    """ARM:SEED, or all."""
    everything = [f"{name}:{seed}" for seed in SEEDS for name in ARMS if name != "long"]
    for word in words or ["long:0", *everything]:
        name, _, seed = word.partition(":")
        if name not in ARMS:
            raise SystemExit(f"there is no arm {name!r}; there are {', '.join(ARMS)}")
        yield ARMS[name], int(seed or 0)


def cost(folder: Path, steps: int = 150) -> None:
    """Prints the CPU-seconds a step of each kind, relative to the first phase's: the table COST."""
    import shutil

    shared, found = chain(folder), dict[str, float]()
    place = folder / "cost"
    for name, history, phase in (("swin", "swin", "decoder"), ("last_frames", "last_frames", "decoder"), ("joint", "", "joint"), ("matching", "", "matching")):
        seconds = []
        for count in (10, 10 + steps):
            shutil.rmtree(place / "run", ignore_errors=True)
            model = place / history if history else place / "base" / "model"
            if history:
                shared.model(model, shared.world, history, 0.055, 0)
            seconds.append(shared.train(place / "run", model, phase, count))
        if name == "swin":
            shutil.rmtree(place / "base", ignore_errors=True)
            (place / "run").rename(place / "base")
        found[name] = (seconds[1] - seconds[0]) / steps
    print(json.dumps({"cpu_s": found, "cost": {name: round(value / found["swin"], 2) for name, value in found.items()}}))


def main() -> int:
    """See the file's first lines."""
    cli = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    cli.add_argument("what", choices=("prepare", "run", "collect", "cost"))
    cli.add_argument("arms", nargs="*", metavar="ARM:SEED")
    cli.add_argument("--folder", type=Path, default=Path("blockworld-runs"))
    given = cli.parse_args()
    import torch

    torch.set_num_threads(1)
    folder = given.folder.absolute()
    if given.what == "prepare":
        chain(folder).prepare()
    elif given.what == "run":
        for arm, seed in wanted(given.arms):
            run(folder, arm, seed)
    elif given.what == "cost":
        cost(folder)
    else:
        collect(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
