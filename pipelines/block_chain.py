"""Block chain: from nothing to a model that was trained on the block world: films, curation, autoencoder, latents, phases; each step is done once."""

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curation import whole

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from training.evaluation.block_model import History
    from training.evaluation.blockworld import World
    from training.model.spec import ModelSpec, VaeSpec

DONE, ASKED = "done.json", "asked.json"
ROOT = Path(__file__).resolve().parents[1]
#: Of `training/`: what tells, plans and keeps, and takes no part in a run's arithmetic; held-out samples are not looked at in these runs.
TELLS = (
    *("claim", "curves", "every_rank", "footprint", "held", "left_out", "meter", "operations", "planner", "resuming", "seen", "session_file"),
    *("snapshot_faults", "snapshots", "tensorboard", "trackers", "validation"),
)
#: What every arm of a comparison shares: the corpus, the latents, the autoencoder, the backbone.
CLIPS, LATENTS, VAE, BACKBONE, FIRST = "clips", "latents", "autoencoder.pt", "backbone.pt", "first"
#: Of the stories that the backbone is taught with: not the corpus' own.
LESSONS_SEED = 1000


@dataclass(frozen=True, kw_only=True)
class Chain:
    """A folder of the block world, and how large everything in it is.

    Attributes:
        films: training films of `rounds` actions each.
        vae_steps, vae_films: of the autoencoder's teaching.
        apart: films and the backbone's stories show no arrangement that is kept for judging; else they only begin with none.
        backbone_steps, backbone_stories: of the backbone's; 0 steps: nobody teaches it.
        cpus: logical CPUs for curation and encoding.
    """

    folder: Path
    world: "World"
    films: int
    rounds: int = 10
    seed: int = 1
    apart: bool = True
    vae_steps: int = 400
    vae_films: int = 150
    backbone_steps: int = 500
    backbone_stories: int = 400
    cpus: int = 2

    def prepare(self) -> None:
        """Films, shards, a taught autoencoder and backbone, and latents; what is there already is not made again.

        Raises:
            RuntimeError: a command failed; its own words are above.
        """
        from training.evaluation.block_corpus import LIST

        raw, world = self.folder / "raw", self.world
        if not (raw / LIST).is_file():
            from pipelines.blockworld import written
            from training.evaluation.block_corpus import Corpus

            written(raw, Corpus(world=self.filmed, videos=self.films, rounds=self.rounds, seed=self.seed, apart=self.apart))
        clips, latents = self.folder / CLIPS, self.folder / LATENTS
        pan("curate", str(raw / LIST), "--out", str(clips), "--recipe", "blockworld", "--cpus", str(self.cpus))
        self.backbone(self.model(self.folder / FIRST, world, "swin", 0.055, 0))
        pan("encode", str(clips), str(latents), "--model", str(self.folder / FIRST), "--cpus", str(self.cpus), "--set", "encode.dtype=float32")

    @property
    def filmed(self) -> "World":
        """The world as its raw films show it: an action takes PAN's 40 frames at 16 a second."""
        from dataclasses import replace

        return replace(self.world, chunk_frames=40, fps=16.0)

    def model(self, folder: Path, world: "World", history: "History", cond_noise: float, seed: int) -> "ModelSpec":
        """A model at its beginning, with the chain's one autoencoder and one backbone; made if it is not there."""
        from training.evaluation.block_model import write_model
        from training.model.card import read_spec
        from training.model.small_vae import SmallVae

        if not folder.exists():
            vae = self.autoencoder()
            assert isinstance(vae, SmallVae)
            spec = spec_of(world, vae.spec, history, cond_noise)
            write_model(folder, spec, vae, seed, self.backbone(spec))
        return read_spec(folder)

    def autoencoder(self) -> Any:
        """The taught autoencoder; taught on the curated clips if it is not there yet."""
        import torch

        from training.model.small_vae import SmallVae
        from training.model.spec import VaeSpec

        file = self.folder / VAE
        if not file.is_file():
            from training.evaluation.block_model import plain_vae
            from training.teach_vae import TeachSettings, teach

            began = time.process_time()
            films = clips_of(self.folder / CLIPS, self.world, self.vae_films)
            taught = teach(
                plain_vae(), films, TeachSettings(steps=self.vae_steps), lambda step, db: print(f"autoencoder: step {step}, {db:.1f} dB", flush=True)
            )
            part = file.with_name(f".{file.name}")
            torch.save({"spec": asdict(taught.spec), "weights": taught.state_dict(), "cpu_s": time.process_time() - began}, part)
            part.replace(file)
        told = torch.load(file, weights_only=True)
        vae = SmallVae(VaeSpec(**told["spec"]))
        vae.load_state_dict(told["weights"])
        return vae.eval()

    def backbone(self, spec: "ModelSpec") -> "Mapping[str, Any] | None":
        """The taught backbone's parameters; it is taught on stories of the chain's world if it is not there yet. None: nobody is to teach it."""
        import torch

        file = self.folder / BACKBONE
        if not self.backbone_steps:
            return None
        if not file.is_file():
            from training.evaluation.block_model import fresh_backbone, lessons, write_tokenizer
            from training.teach_backbone import TeachBackboneSettings, teach

            began = time.process_time()
            with torch.random.fork_rng():
                torch.manual_seed(self.seed)
                fresh = fresh_backbone(spec.backbone, write_tokenizer(self.folder / ".words"))
            told = lessons(self.world, spec, self.backbone_stories, LESSONS_SEED, apart=self.apart)
            settings = TeachBackboneSettings(steps=self.backbone_steps)
            taught = teach(fresh, told, settings, lambda step, nats: print(f"backbone: step {step}, {nats:.3f} nats a word", flush=True))
            part = file.with_name(f".{file.name}")
            torch.save({"weights": taught.state_dict(), "cpu_s": time.process_time() - began}, part)
            part.replace(file)
        weights: Mapping[str, Any] = torch.load(file, weights_only=True)["weights"]
        return weights

    def train(self, out: Path, model: Path, phase: str, steps: int, changes: Mapping[str, Any] | None = None) -> float:
        """Trains a phase in this process, unless it is done; returns the CPU-seconds of its steps, without those of the process that reads for it.

        Of a run that was taken up they are those of its last attempt, for all steps in proportion: what was killed has told nobody its time.

        Raises:
            OtherRun: what is there was asked for otherwise, or of other code; or the code changed meanwhile.
        """
        from training.run import SNAPSHOTS, Places, RunSettings, train
        from training.snapshots import committed

        claim(out, {"phase": phase, "steps": steps, "changes": dict(changes or {}), "code": code()})
        done, there = out / DONE, committed(out / SNAPSHOTS)
        if not done.is_file():
            begun, began = there[-1].step if there else 0, time.process_time()
            train(Places(shards=str(self.folder / LATENTS), model=model, out=out), RunSettings(**settings(phase, steps, changes or {})))
            seconds = (time.process_time() - began) * steps / max(1, steps - begun)
            if code() != json.loads((out / ASKED).read_text("utf-8"))["code"]:  # what is imported late, or by a process that reads, may be of either
                raise OtherRun(f"{out}: the code of training/ changed while it was trained; remove it, and train it again")
            whole.write(done, json.dumps({"cpu_s": seconds, "steps": steps, "taken_up_at": begun}) + "\n")
        return float(json.loads(done.read_text("utf-8"))["cpu_s"])


class OtherRun(ValueError):
    """What was trained is not what was asked for."""


def claim(out: Path, asked: Mapping[str, Any]) -> None:
    """Notes in `out` what is asked of it, before it is trained; or finds that it is the same as was.

    Raises:
        OtherRun: it is not, or nobody noted it.
    """
    file, mine = out / ASKED, json.loads(json.dumps(asked))
    if not file.is_file() and not out.is_dir():
        out.mkdir(parents=True)
        whole.write(file, json.dumps(mine, indent=1) + "\n")
    told = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    if differ := [name for name, value in mine.items() if told.get(name) != value]:
        raise OtherRun(f"{out} was trained with other {' and '.join(differ)} than is asked for now; remove it, or give another folder")


def code() -> str:
    """Sixteen hex digits of what a training's arithmetic depends on, as it lies on the disk now."""
    told = hashlib.sha256()
    for file in computing():
        told.update(f"{file.relative_to(ROOT)}\n".encode() + file.read_bytes())
    return told.hexdigest()[:16]


def computing() -> list[Path]:
    """The files of that code."""
    trains = (file for file in (ROOT / "training").rglob("*.py") if file.parent.name != "training" or file.stem not in TELLS)
    return sorted([*trains, Path(__file__).resolve()])


def spec_of(world: "World", vae: "VaeSpec", history: "History" = "swin", cond_noise: float = 0.055) -> "ModelSpec":
    """The miniature on a world's clock: an action is a chunk, of as many latent frames as its frames make."""
    from training.evaluation.block_model import block_spec

    return block_spec(world, vae, history=history, cond_noise=cond_noise, chunk_latents=world.chunk_frames // vae.temporal)


def settings(phase: str, steps: int, changes: Mapping[str, Any]) -> dict[str, Any]:
    """A run's settings on this miniature: small batches at a high rate, float32 (the small CPUs at hand multiply bfloat16 more slowly)."""
    told: dict[str, Any] = {
        "phase": phase,
        "loop": {
            "epochs": 100_000,
            "steps": steps,
            "windows": 4,
            "batch": 4,
            "validate_every": 0,
            "save_every": 2000,
            "log_every": 100,
            "export": "last",
            "samples": False,
        },
        "optim": {"lr": 4e-3, "clip": 1.0},
        "loss": {"compute": "float32"},
        "parallel": {"checkpoint": False},
    }
    if phase == "joint":
        told["loss"]["dropped"] = 0.5  # the condition frame and the text tell nearly all of this world: only a window without its text asks much of the state
    for name, value in changes.items():
        group, _, key = name.partition(".")
        if key:
            told[group][key] = value
        else:
            told[name] = value
    return told


def clips_of(shards: Path, world: "World", most: int) -> "list[npt.NDArray[np.uint8]]":
    """The first curated clips on the model's clock, uint8 RGB [T, H, W, 3] each."""
    import numpy as np

    from training.data.grid import grid_of
    from training.data.index import Index
    from training.data.pixels import pieces
    from training.data.samples import read_clip
    from training.evaluation.block_model import plain_vae

    spec = spec_of(world, plain_vae())
    index, found = Index.read(shards, spec), []
    for each in index.samples[:most]:
        sample = read_clip(index.store, each.entry)
        found.append(np.concatenate(list(pieces(sample.mp4, grid_of(sample.document, spec.chunks), spec.chunks, each.size))))
    return found


def pan(*words: str) -> None:
    """`pan WORDS` in a process of its own: it brings a Ray of its own up and down.

    Raises:
        RuntimeError: it failed.
    """
    done = subprocess.run([sys.executable, "-m", "pipelines.cli", *words], stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise RuntimeError(f"`pan {' '.join(words)}` ended with code {done.returncode}; its own words are above")
