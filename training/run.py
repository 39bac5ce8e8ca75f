"""Run: one rank of a phase's training, from folders to a trained model: what every worker of a cluster does."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from curation.config import Config
from training.claim import claim
from training.data.loader import Loader
from training.leak import check_causal
from training.left_out import LeftOut
from training.loop import Trainer
from training.loop_settings import LoopSettings, Settings
from training.model.card import read_card, read_spec
from training.model.checkpoint import open_model, save_model
from training.model.glp import GLP
from training.model.parts import own_names
from training.optim import OptimSettings, OverBudget
from training.parallel import ParallelSettings, World, gathered, spread, world
from training.phases import Phase, after, phase_named, prepare, read_history, write_history
from training.step import LossSettings
from training.trackers import Service, Tracker, trackers

SNAPSHOTS, MODEL = "snapshots", "model"


class DataSettings(Config):
    """How samples are read."""

    workers: int = Field(1, ge=0, le=64, description="processes a rank that read and decode ahead; 0: the step waits while they are read")
    max_context: int | None = Field(None, ge=0, description="latent frames before a window at most; 30 imitates PAN's padding of up to 122 frames")
    bad: str = Field(
        "stop", pattern="^(stop|skip)$", description="stop: a sample that is not what the manifest says ends the run; skip: it is left out and counted"
    )
    max_skipped: float = Field(0.05, ge=0, le=1, description="with skip: share of the split's samples that may be left out before the run ends with code 3")


class FilmSettings(Config):
    """What a film while training is of."""

    actions: tuple[str, ...] = Field((), description="what is done, one a chunk; none: no film")
    steps: int = Field(50, ge=2, description="denoising steps of a chunk")
    guidance: float = Field(4.0, ge=0, le=100, description="PAN's 4; 1 is none, and half the work")


class TrackSettings(Config):
    """Where figures go beside the log, the curves and TensorBoard."""

    services: tuple[Service, ...] = Field((), description='"wandb" and "mlflow"; their packages must be installed on the workers')
    project: str = Field("pan", description="the project or experiment there")


class RunSettings(Config):
    """All settings of a rank's run."""

    phase: str = Field("decoder", description="decoder or joint; of a model with a connector alignment or tuning; matching is for comparison alone")
    also: tuple[str, ...] = Field((), description='globs of parameters that learn too, such as "backbone.model.*" for a backbone that nobody has trained')
    loop: LoopSettings = Field(default_factory=LoopSettings, description="how long, and what beside")
    optim: OptimSettings = Field(default_factory=OptimSettings, description="how the weights change")
    loss: LossSettings = Field(default_factory=LossSettings, description="what is learnt")
    parallel: ParallelSettings = Field(default_factory=ParallelSettings, description="how the model lies over the workers")
    data: DataSettings = Field(default_factory=DataSettings, description="how samples are read")
    films: FilmSettings = Field(default_factory=FilmSettings, description="films while training")
    track: TrackSettings = Field(default_factory=TrackSettings, description="where figures go")


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where a run finds and puts things; every worker must reach them.

    Attributes:
        shards: of `pan encode`, or of `pan curate`. model: to begin with. out: the run's folder.
        image: the first frame of films, uint8 RGB [H, W, 3]; None: no films.
    """

    shards: str
    model: Path
    out: Path
    image: Any = None


def train(places: Places, settings: RunSettings, *, device: str = "cpu", report: Callable[[dict[str, float]], None] | None = None) -> str:
    """One rank's training to its end; the first rank then writes the trained model to `out/model`. Returns why it ended.

    It goes on from the newest checkpoint in `out`, whatever the number of ranks was that wrote it.

    Args:
        device: such as "cuda:0".
        report: told the figures, on every rank at the same steps; Ray Train's barrier.

    Raises:
        ValueError: the model's history, the shards or the ranks do not fit the settings, or `out` is another run's.
        OverBudget: too many bad steps in a row, too many samples left out, or no good step at all: there is no model to write.
    """
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    spec, history = read_spec(places.model), read_history(places.model)
    phase = phase_named(settings.phase, spec)
    mesh = world(settings.parallel, device.split(":")[0])
    asked = {"phase": settings.phase, "shards": places.shards, "seed": settings.loop.seed, "also": list(settings.also)}
    claim(places.out, places.model, asked)
    cut = () if mesh.parameters is None else settings.parallel.roots
    glp = opened(places.model, phase, device, whole=_is_raw(places) or places.image is not None, cut=cut)
    prepare(glp, phase, history, settings.also)
    spread(glp, settings.parallel, mesh)
    if "decoder" in phase.runs:
        check_causal(glp, device)
    loop = settings.loop
    loaded = [_loader(places, settings, phase, glp, mesh, split) for split in (("train", "val") if loop.validate_every else ("train",))]
    watching = _watching(places, settings) if mesh.rank == 0 else []
    trainer = Trainer(
        glp,
        phase,
        loaded[0],
        places.out / SNAPSHOTS,
        Settings(loop=loop, optim=settings.optim, loss=settings.loss, parallel=settings.parallel),
        held=loaded[1] if len(loaded) > 1 else None,
        mesh=mesh,
        watchers=watching,
        report=report,
        films=None if places.image is None else lambda step: _film(glp, places, settings, mesh, watching, step),
        device=device,
        left_out=LeftOut(len(loaded[0].index.samples), settings.data.max_skipped),
    )
    with _closed(loaded, watching):
        ending = trainer.run()
        if not trainer.guard.learnt:
            raise OverBudget(
                f"{places.out}: none of the run's {trainer.step} steps was a good one (see its log): the weights are as they began, and no model is written; "
                "mend what is wrong with the data, or lower optim.lr, and begin in a new folder"
            )
        if loop.export == "best":
            trainer.restore_best()
        export(trainer, places, after(phase, history), settings)
    return ending


def opened(folder: Path, phase: Phase, device: str, whole: bool, cut: Sequence[str] = ()) -> GLP:
    """The model, with the parts that the phase computes with on the device; all of them if `whole`.

    Args:
        cut: parts that are to be split over the ranks: they stay on the CPU, and `spread` brings them to the device block by block, a rank's share of each.
            PAN's joint phase would else need 100 GB of each GPU before it begins.
    """
    glp: GLP = open_model(folder, "cpu")
    for name in ("decoder", "vae", "text", "backbone", "connector"):
        part = getattr(glp, name)
        if part is not None and name not in cut and (whole or name in phase.runs):
            part.to(device)
    return glp


def export(trainer: Trainer, places: Places, history: Sequence[str], settings: RunSettings) -> None:
    """The trained weights (their moving average, if one is kept) as a model of its own, in float32; all ranks take part, the first writes."""
    from torch.distributed.tensor import DTensor

    average = trainer.average.shadow if trainer.average is not None else {}
    base = open_model(places.model, "cpu") if trainer.mesh.rank == 0 else None
    trained = []
    for name, parameter in trainer.glp.named_parameters():
        if parameter.requires_grad:
            value = average.get(name, parameter.detach())
            value = value.full_tensor() if isinstance(value, DTensor) else value
            if base is not None:
                base.get_parameter(name).data = value.detach().to("cpu", torch.float32, copy=True)
                trained.append(name)
    if base is None:
        return
    fresh, folder = places.out / f".{MODEL}.new", places.out / MODEL
    shutil.rmtree(fresh, ignore_errors=True)
    save_model(fresh, base, sources=_untouched(places.model, trained))
    write_history(fresh, history)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(fresh, folder)


def _loader(places: Places, settings: RunSettings, phase: Phase, glp: GLP, mesh: World, split: str) -> Loader:
    """The samples of a split; held-out ones are few, and read when they are asked for."""
    return Loader(
        places.shards,
        glp.spec,
        phase=phase.data,
        batch=settings.loop.batch,
        seed=settings.loop.seed,
        rank=mesh.rank,
        world=mesh.ranks,
        sequence_ranks=settings.parallel.sequence,
        workers=settings.data.workers if split == "train" else 0,
        split=split,
        encoder=glp if _is_raw(places) else None,
        max_context=settings.data.max_context,
        most=settings.loop.validation_windows if split == "val" else None,
        bad="skip" if settings.data.bad == "skip" else "stop",
    )


def _is_raw(places: Places) -> bool:
    """Whether the shards hold clips rather than latents."""
    from curation.shards import load_manifest
    from curation.storage import Storage
    from training.data.index import kind_of

    store = Storage.at(places.shards)
    return kind_of(load_manifest(store), store) == "clips"


def _untouched(model: Path, trained: Sequence[str]) -> dict[str, Path]:
    """The parts that still are as in their makers' folders, which the trained model may go on naming."""
    card, found = read_card(model), {}
    for part in ("decoder", "vae", "text", "backbone", "connector"):
        told = getattr(card, part)
        if told is not None and told.source is not None and all(own_names(part)(n.removeprefix(f"{part}.")) for n in trained if n.startswith(f"{part}.")):
            found[part] = Path(told.source)
    return found


def _watching(places: Places, settings: RunSettings) -> list[Tracker]:
    from training.snapshots import committed

    there = committed(places.out / SNAPSHOTS)
    first = there[-1].step + 1 if there else 0
    return trackers(places.out, settings.track.services, settings.track.project, settings.model_dump(mode="json"), first)


def _film(glp: GLP, places: Places, settings: RunSettings, mesh: World, watching: Sequence[Tracker], step: int) -> None:
    """out/films/step_N.mp4: the model's film of the image and the actions; every rank computes it, since each holds a part of the weights."""
    from curation.film import Film
    from training.rollout import Session, film
    from training.sampling import Sampling

    file = places.out / "films" / f"step_{step:08}.mp4"
    file.parent.mkdir(exist_ok=True)
    training, _ = glp.training, glp.eval()
    try:
        with gathered(glp, settings.parallel):
            session = Session(glp, Sampling(steps=settings.films.steps, guidance=settings.films.guidance, seed=settings.loop.seed))
            pieces = list(film(session, places.image, settings.films.actions))
    finally:
        glp.train(training)
    if mesh.rank == 0:
        with Film(file, glp.spec.chunks.fps) as made:
            for piece in pieces:
                made.add(piece)
        for each in watching:
            each.film(step, file)


@contextmanager
def _closed(loaded: Sequence[Loader], watching: Sequence[Tracker]) -> Iterator[None]:
    """Ends reading and telling, however the block ends."""
    try:
        yield
    finally:
        for data in loaded:
            data.close()
        for tracker in watching:
            tracker.close()
