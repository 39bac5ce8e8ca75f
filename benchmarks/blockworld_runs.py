"""What PAN's parts are worth, on the block world: the same small model trained with and without each, three seeds each, by the product's own commands.

    python benchmarks/blockworld_runs.py prepare [--folder F]            films, curation, autoencoder, latents: once, shared by all
    python benchmarks/blockworld_runs.py run [--folder F] [ARM:SEED ...]  trains and measures what is not done yet, one after the other; all by default
    python benchmarks/blockworld_runs.py measure [--folder F] [ARM:SEED ...]  after a change of what is measured: measures anew what other code has trained
    python benchmarks/blockworld_runs.py confirm [--folder F]            after a change of code: keeps rows, if one of their kind made anew came out the same
    python benchmarks/blockworld_runs.py collect [--folder F]            writes the results, with the hash of the code, to benchmarks/results/blockworld.json

A run that was killed is taken up at its last checkpoint; several processes may run different arms beside one another (one thread each).
`python benchmarks/blockworld.py` prints the results, and says when the code has changed since.
"""

import argparse
import hashlib
import inspect
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from blockworld_measures import GUIDANCE, LONG_ROUNDS, ROUNDS, STEPS, STORIES, WORLDS, Asked, WorldName, measured

from curation import whole

if TYPE_CHECKING:
    from pipelines.block_chain import Chain
    from training.evaluation.block_model import History

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "blockworld.json"
SEEDS, MORE_SEEDS = 3, 6
"""Of an arm; of those in *midway*, whose orderings are small."""
Then = Literal["nothing", "decoder", "joint", "matching"]
Clock = Literal["plain", "midway"]
"""Chunks of one latent frame, or of two."""
#: Films of the training, of ten actions each; of the long run's world more.
FILMS: dict[WorldName, int] = {"plain": 400, "held_out": 400, "named_once": 400, "midway": 400, "contact": 1600}
#: The worlds of whose films no frame shows an arrangement that is kept for judging; films of the others only begin with none, and come by most of them.
APART: tuple[WorldName, ...] = ("held_out",)
#: Steps of the first phase and of the joint one, in place of which the other arms do as much more of the first as takes the same CPU time.
FIRST, JOINT = 2500, 1000
#: Of the first phase where blocks are under way when a chunk ends: harder to learn, and there is to be no doubt that it has been.
MIDWAY = 6000
#: CPU-seconds of a step relative to the first phase's with PAN's window in the same world: what "the same compute" means. They are those of whole runs, which
#: every row tells; `cost` prints them from 150 steps, on a busy machine up to a fifth higher.
COST: dict[Clock, dict[str, float]] = {
    "plain": {"swin": 1.0, "last_frames": 1.12, "joint": 2.3, "generative": 2.7, "matching": 1.7},
    "midway": {"swin": 1.0, "last_frames": 1.1},
}
#: A step has eight chunks to learn from, whatever the window: four of two, or eight of one.
WINDOWS: dict[str, dict[str, Any]] = {"swin": {}, "last_frames": {"loop.windows": 8, "loop.batch": 8}}
#: The second half goes on with what the first has learnt.
LATER: dict[str, Any] = {"optim.lr": 2e-3}
#: In these second halves nothing holds the backbone: it learns along, a tenth as fast. States that collapse bring the gradient to 0, beside which any is
#: a spike. In PAN's own the backbone stays as it was taught, as PAN's Qwen2.5-VL does.
ALONG_STEPS = 500
ALONG: dict[str, Any] = {"optim.backbone_lr": 0.1, "optim.spike": 1e9, "also": ("backbone.model.*",)}


#: Three blocks that shove one another: twice the windows a step and a moving average, without which seeds lie far apart, and text in the joint phase as in the
#: first. That phase goes on at an eighth of the rate: at half of it, as elsewhere, it shakes the decoder and ends before that has settled again.
CALMER = (("loop.windows", 8), ("loop.batch", 8), ("optim.ema", 0.999), ("loss.dropped", 0.1))


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to train the model.

    Attributes:
        world: where. first: steps of the first phase, if its window is PAN's. history, cond_noise: of the window.
        then: the second half of the compute: none, PAN's joint phase, more of the decoder phase, or matching the next observation's state.
        along: whether the backbone learns along; only its states are measured then.
        asked: what is measured of it.
        halves: steps of both phases, where they are not those of the comparison.
        apart, later: (setting, value) that the comparison's are not, of both phases and of the second.
    """

    name: str
    asked: Asked
    world: WorldName = "plain"
    first: int = FIRST
    history: "History" = "swin"
    cond_noise: float = 0.055
    then: Then = "nothing"
    along: bool = False
    halves: tuple[int, int] | None = None
    apart: tuple[tuple[str, Any], ...] = ()
    later: tuple[tuple[str, Any], ...] = ()

    @property
    def base(self) -> str:
        """Name of the first phase's run, which arms may share."""
        return f"{self.name}_decoder" if self.halves else f"{self.world}_{self.history}_{self.cond_noise:g}"

    @property
    def kind(self) -> tuple[str, str, bool, bool]:
        """What decides which code trains it: the window, the second half, whether the backbone learns along, and whether a moving average is kept."""
        return self.history, self.then, self.along, "optim.ema" in dict(self.apart)

    @property
    def seeds(self) -> range:
        """Those that are run by default."""
        return range(MORE_SEEDS if self.world == "midway" else SEEDS)

    @property
    def steps(self) -> tuple[int, int]:
        """Of the first phase and of the second."""
        if self.halves:
            return self.halves
        cost = COST["plain"] | (COST["midway"] if self.world == "midway" else {})
        joint, matching = (ALONG_STEPS, round(ALONG_STEPS * cost["generative"] / cost["matching"])) if self.along else (JOINT, JOINT)
        second = {"nothing": 0, "decoder": round(JOINT * cost["joint"]), "joint": joint, "matching": matching}
        return round(self.first / cost[self.history]), second[self.then]


ARMS = {
    arm.name: arm
    for arm in (
        Arm(name="swin", asked="windows"),
        Arm(name="last_frame", asked="windows", history="last_frames"),
        Arm(name="swin_no_noise", asked="windows", cond_noise=0.0),
        Arm(name="swin_midway", asked="windows", world="midway", first=MIDWAY),
        Arm(name="last_frame_midway", asked="windows", world="midway", first=MIDWAY, history="last_frames"),
        Arm(name="swin_no_noise_midway", asked="windows", world="midway", first=MIDWAY, cond_noise=0.0),
        Arm(name="pan", asked="pan", then="joint"),
        Arm(name="pan_named_once", asked="pan", world="named_once", then="joint"),
        Arm(name="no_state_named_once", asked="texts", world="named_once", then="decoder"),
        Arm(name="generative", asked="states", then="joint", along=True),
        Arm(name="matching", asked="states", then="matching", along=True),
        Arm(name="long_held_out", asked="long", world="held_out", then="joint", halves=(6000, 1500)),
        # As many CPU-seconds of the simplest design.
        Arm(name="last_frame_held_out", asked="long_texts", world="held_out", history="last_frames", halves=(round((6000 + 1500 * 2.3) / 1.12), 0)),
        Arm(name="long", asked="long", world="contact", then="joint", halves=(12000, 1000), apart=CALMER, later=(("optim.lr", 5e-4),)),
    )
}


def of_world(folder: Path, world: WorldName) -> Path:
    """A world's folder: the first is the runs' own."""
    return folder if world == "plain" else folder / world


def chain(folder: Path, world: WorldName = "plain") -> Any:
    """What all arms in a world share; where windows alone are compared nobody asks a backbone."""
    from pipelines.block_chain import Chain

    untaught = {"backbone_steps": 0} if world == "midway" else {}
    return Chain(folder=of_world(folder, world), world=WORLDS[world](), films=FILMS[world], apart=world in APART, **untaught)


def prepare(folder: Path) -> None:
    """The worlds; pictures of two blocks are of one kind, so their autoencoder is one."""
    from pipelines.block_chain import VAE

    chain(folder).prepare()
    other = chain(folder, "named_once")
    other.folder.mkdir(exist_ok=True)
    shutil.copy2(folder / VAE, other.folder / VAE)
    other.prepare()
    for name in ("midway", "contact", "held_out"):
        chain(folder, name).prepare()


def run(folder: Path, arm: Arm, seed: int) -> None:
    """Trains and measures one arm, unless it is done."""
    done = folder / "results" / f"{arm.name}_{seed}.json"
    if done.is_file():
        return
    shared, steps, place = chain(folder, arm.world), arm.steps, {"loop.seed": seed, **WINDOWS[arm.history], **dict(arm.apart)}
    first, base, out = (folder / name for name in (f"first_{arm.base}_{seed}", f"{arm.base}_{seed}", f"{arm.name}_{seed}"))
    shared.model(first, shared.world, arm.history, arm.cond_noise, seed)
    spent = [shared.train(base, first, "decoder", steps[0], place)]
    if arm.then != "nothing":
        spent.append(shared.train(out, base / "model", arm.then, steps[1], place | LATER | (ALONG if arm.along else {}) | dict(arm.later)))
    began = time.process_time()
    found = measured(base / "model", (out if arm.then != "nothing" else base) / "model", shared.world, arm.asked, seed)
    row = {
        "arm": arm.name,
        "seed": seed,
        "code": CODE[arm.name],
        "steps": steps,
        "cpu_s": [round(s, 1) for s in spent],
        "measured_cpu_s": round(time.process_time() - began, 1),
        **found,
    }
    if code_hash(arm) != CODE[arm.name]:
        raise SystemExit(f"the code has changed since {arm.name} was begun: nothing is written; run it again")
    done.parent.mkdir(exist_ok=True)
    whole.write(done, json.dumps(row, indent=1) + "\n")
    print(f"{arm.name} {seed}: {spent} s, obeyed {row.get('horizon', {}).get('fidelity', {}).get('obeyed_R')}", flush=True)


def measure(folder: Path, arm: Arm, seed: int) -> None:
    """Measures anew what was trained; the row is nobody's then until `confirm` finds a fresh one of its kind equal. Nothing where nothing was trained."""
    done = folder / "results" / f"{arm.name}_{seed}.json"
    if not done.is_file():
        return
    row, base, out = json.loads(done.read_text("utf-8")), folder / f"{arm.base}_{seed}", folder / f"{arm.name}_{seed}"
    began, trained = time.process_time(), {name: row[name] for name in ("arm", "seed", "steps", "cpu_s")}
    found = measured(base / "model", (out if arm.then != "nothing" else base) / "model", chain(folder, arm.world).world, arm.asked, seed)
    again = trained | {"code": "measured anew", "measured_cpu_s": round(time.process_time() - began, 1), **found}
    whole.write(done, json.dumps(again, indent=1) + "\n")
    print(f"{arm.name} {seed}: measured anew", flush=True)


def code_hash(arm: Arm) -> str:
    """Sixteen hex digits of the code that trains and measures an arm, and of the arm's settings: what its result depends on beside what was prepared.

    Of that (films, clips, autoencoder, backbone, latents) `collect` writes the hashes: it may be of an earlier day.
    """
    from pipelines.block_chain import code

    told = hashlib.sha256(code().encode() + (ROOT / "benchmarks" / "blockworld_measures.py").read_bytes())
    told.update(json.dumps([asdict(arm), arm.steps, WINDOWS[arm.history], LATER, ALONG, FILMS[arm.world], arm.world in APART]).encode())
    told.update("".join(inspect.getsource(what) for what in (run, chain, of_world, prepare)).encode())
    return told.hexdigest()[:16]


#: Read when the process begins, and again before a row is written: much is imported late.
CODE = {name: code_hash(arm) for name, arm in ARMS.items()}


#: Of a row: what says how it was made, rather than what came out.
MADE = ("code", "cpu_s", "measured_cpu_s", "same_as_before")


def confirm(folder: Path) -> None:
    """Gives rows that older code has made the present hash, if a row of the same kind was trained anew and is the committed one's to the last digit.

    All that a row says is compared, some hundred floats after thousands of steps: a change that touched what these arms share, of training or measuring,
    would show. What an arm of the kind has for itself, such as a moving average or another world, is not looked at; rows that were kept say by which.
    A row counts as made anew if all its steps were: its runs' folders are to be removed before.
    """
    before = {(row["arm"], row["seed"]): row for row in json.loads(RESULTS.read_text("utf-8"))["runs"]}
    rows = {file: json.loads(file.read_text("utf-8")) for file in sorted((folder / "results").glob("*.json"))}
    for kind in dict.fromkeys(arm.kind for arm in ARMS.values()):
        mine = {file: row for file, row in rows.items() if ARMS[row["arm"]].kind == kind}
        fresh = [row for row in mine.values() if row["code"] == CODE[row["arm"]] and "same_as_before" not in row]
        again = [row for row in fresh if (old := before.get((row["arm"], row["seed"]))) and old["code"] != row["code"] and outcome(old) == outcome(row)]
        names = ", ".join(sorted({row["arm"] for row in mine.values()}))
        if len(again) < len(fresh) or not again:
            print(f"{names}: nothing to go by" if not fresh else f"{names}: {len(fresh) - len(again)} of {len(fresh)} new rows are not as before")
            continue
        by = [f"{row['arm']} {row['seed']}" for row in again]
        for file, row in mine.items():
            if row["code"] != CODE[row["arm"]]:
                file.write_text(json.dumps(row | {"code": CODE[row["arm"]], "same_as_before": by}, indent=1) + "\n", "utf-8")
                print(f"{row['arm']} {row['seed']}: as before, by {', '.join(by)}")


def outcome(row: dict[str, Any]) -> dict[str, Any]:
    """What came out of a run."""
    return {key: value for key, value in row.items() if key not in MADE}


def collect(folder: Path) -> None:
    """Writes what is done to RESULTS."""
    import torch

    from pipelines.block_chain import BACKBONE, VAE

    rows = [row for file in sorted((folder / "results").glob("*.json")) if (row := json.loads(file.read_text("utf-8")))["arm"] in ARMS]

    def taught(world: WorldName) -> float:
        """CPU-seconds of what every arm in a world shares, as far as it is there."""
        files = (of_world(folder, world) / name for name in (VAE, BACKBONE))
        return float(sum(torch.load(file, weights_only=True)["cpu_s"] for file in files if file.is_file()))

    about = {"films": FILMS, "stories": STORIES, "rounds": ROUNDS, "long_rounds": LONG_ROUNDS, "sampling_steps": STEPS, "guidance": GUIDANCE, "cost": COST}
    machine = {"cpu": processor(), "cores": os.cpu_count(), "torch": torch.__version__}
    RESULTS.parent.mkdir(exist_ok=True)
    made = {
        "machine": machine,
        "settings": about,
        "prepared": {world: digests(of_world(folder, world)) for world in WORLDS},
        "autoencoded": {world: autoencoded(chain(folder, world)) for world in WORLDS},
        "taught_cpu_s": {world: taught(world) for world in WORLDS},
        "worlds": {name: arm.world for name, arm in ARMS.items()},
        "runs": rows,
    }
    RESULTS.write_text(json.dumps(made, indent=1) + "\n", "utf-8")
    print(f"{len(rows)} runs in {RESULTS}")


def autoencoded(of: "Chain", stories: int = 6) -> dict[str, float]:
    """Smoothness of true films that went through the autoencoder and back: what the autoencoder alone does to it."""
    import statistics

    import torch

    from training.evaluation.block_pictures import film
    from training.evaluation.blockworld import episodes
    from training.evaluation.smoothness import smoothness
    from training.teach_vae import as_video

    vae, frames, found = of.autoencoder(), of.world.chunk_frames, []
    for story in episodes(of.world, ROUNDS, 100, stories, "unseen"):
        true = film(of.world, story.positions_TN2, story.camera_T2)
        with torch.no_grad():
            made_CTHW = vae.reconstruct(vae(as_video([true]))[0])[0]
        made = ((made_CTHW.permute(1, 2, 3, 0) + 1) * 127.5).clamp(0, 255).round().byte().numpy()
        found.append(smoothness(made, range(1 + frames, len(made), frames)))
    told = {name: [value for each in found if (value := getattr(each, name)) is not None] for name in ("joins", "elsewhere", "speed")}
    return {name: statistics.mean(values) for name, values in told.items() if values}


def digests(folder: Path) -> dict[str, str]:
    """Sixteen hex digits of each thing that was prepared in a world and that its runs read: who prepares it anew sees whether it is the same."""
    from pipelines.block_chain import BACKBONE, LATENTS, VAE

    files = (folder / LATENTS / "manifest.json", folder / VAE, folder / BACKBONE)
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()[:16] for file in files if file.is_file()}


def processor() -> str:
    """The processor's name, where the system tells it."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text("utf-8").splitlines() if told.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def wanted(words: list[str]) -> Iterator[tuple[Arm, int]]:
    """ARM:SEED, or all."""
    for word in words or [f"{name}:{seed}" for name in sorted(ARMS, key=lambda name: ARMS[name].halves is None) for seed in ARMS[name].seeds]:
        name, _, seed = word.partition(":")
        if name not in ARMS:
            raise SystemExit(f"there is no arm {name!r}; there are {', '.join(ARMS)}")
        yield ARMS[name], int(seed or 0)


def cost(folder: Path, steps: int = 150) -> None:
    """Prints the CPU-seconds a step of each kind, relative to the first phase's in the same world: the table COST."""
    for world, kinds in COST.items():
        shared, found, place = chain(folder, world), dict[str, float](), folder / "cost" / world
        for name in kinds:
            history: History = "last_frames" if name == "last_frames" else "swin"
            phase = name if name in ("joint", "matching") else "joint" if name == "generative" else "decoder"
            along = ALONG if name in ("generative", "matching") else {}
            seconds = []
            for count in (10, 10 + steps):
                shutil.rmtree(place / "run", ignore_errors=True)
                model = place / "base" / "model" if phase != "decoder" else place / history
                if phase == "decoder":
                    shared.model(model, shared.world, history, 0.055, 0)
                seconds.append(shared.train(place / "run", model, phase, count, WINDOWS[history] | along))
            if name == "swin":
                shutil.rmtree(place / "base", ignore_errors=True)
                (place / "run").rename(place / "base")
            found[name] = (seconds[1] - seconds[0]) / steps
        print(json.dumps({"world": world, "cpu_s": found, "cost": {name: round(value / found["swin"], 2) for name, value in found.items()}}), flush=True)


def main() -> int:
    """See the file's first lines."""
    cli = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    cli.add_argument("what", choices=("prepare", "run", "measure", "confirm", "collect", "cost"))
    cli.add_argument("arms", nargs="*", metavar="ARM:SEED")
    cli.add_argument("--folder", type=Path, default=Path("blockworld-runs"))
    given = cli.parse_intermixed_args()
    import torch

    torch.set_num_threads(1)
    folder = given.folder.absolute()
    if given.what == "prepare":
        prepare(folder)
    elif given.what == "run":
        for arm, seed in wanted(given.arms):
            run(folder, arm, seed)
    elif given.what == "measure":
        for arm, seed in wanted(given.arms):
            measure(folder, arm, seed)
    elif given.what == "confirm":
        confirm(folder)
    elif given.what == "cost":
        cost(folder)
    else:
        collect(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
