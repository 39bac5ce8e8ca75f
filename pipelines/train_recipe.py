"""Train recipe: every setting of a training run, out of a strict TOML file; and what the planner says of it."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from curation.config import Config
from pipelines import strict_toml
from pipelines.strict_toml import SettingsError
from training.run import RunSettings

if TYPE_CHECKING:
    from training.data.index import Index


class Workers(Config):
    """What of the cluster a run takes."""

    least: int = Field(1, ge=1, description="it starts, and goes on after a loss, with as many")
    most: int | None = Field(None, ge=1, description="it grows up to so many as the cluster does, copies of the model alone; none = `least`: a fixed number")
    cpus: float = Field(1.0, gt=0, description="of each worker")
    gpus: float = Field(0.0, ge=0, le=1, description="of each worker: 1 or none")
    memory: float | None = Field(None, gt=0, description="GB of each GPU (80 of an H100, 141 of an H200): a run that does not fit is refused; none: not asked")
    failures: int = Field(3, ge=-1, description="how often lost workers are replaced, from the newest checkpoint on; -1: without end")
    resize_s: float = Field(60.0, gt=0, description="seconds between two looks at whether the cluster has grown")
    timeout_s: float = Field(1800.0, gt=0, description="seconds that a collective may take before the run counts as hung")


class TrainRecipe(RunSettings):
    """The whole run's settings; a recipe file lists only what differs from these defaults."""

    workers: Workers = Field(default_factory=Workers, description="what of the cluster a run takes")

    def run_settings(self) -> dict[str, Any]:
        """What each worker is told, as plain values."""
        return self.model_dump(mode="json", exclude={"workers"})

    def to_toml(self) -> str:
        """Every key with its value."""
        return strict_toml.dump(self)


def load(file: str | None, sets: Iterable[str] = ()) -> TrainRecipe:
    """A recipe from a TOML file, or the defaults, with `sets` ("a.b=VALUE") on top.

    Raises:
        SettingsError: no such file, not TOML, an unknown key, a wrong type, a value out of bounds, or numbers of workers that the model cannot lie over.
    """
    text, where = "", "train recipe"
    if file is not None:
        path, where = Path(file), f"recipe {file}"
        if not path.is_file():
            raise SettingsError(where, ["no such file"])
        text = path.read_text("utf-8")
    recipe = strict_toml.build(TrainRecipe, strict_toml.apply_sets(strict_toml.parse(text, where), sets), where)
    if faults := miscounted(recipe):
        raise SettingsError(where, faults)
    return recipe


def miscounted(recipe: TrainRecipe) -> list[str]:
    """What is wrong with the number of workers, one sentence each.

    Between `least` and `most` Ray Train takes any number that the cluster has room for; a mesh of shards or sequences takes multiples alone.
    """
    workers, parallel = recipe.workers, recipe.parallel
    each, most = parallel.shard * parallel.sequence, workers.most if workers.most is not None else workers.least
    faults = []
    if most < workers.least:
        faults.append(f"workers.most {most} is below workers.least {workers.least}")
    if workers.least % each:
        faults.append(f"workers.least {workers.least} is no multiple of parallel.shard x parallel.sequence, {each}")
    if most > workers.least and (each > 1 or parallel.replicate is not None):
        spread = f"parallel.shard x parallel.sequence is {each}" if each > 1 else f"parallel.replicate is {parallel.replicate}"
        faults.append(
            f"workers.most {most} is above workers.least {workers.least} while {spread}: Ray may start any number of workers between the two, and most of "
            "them cannot hold this mesh; leave workers.most out for a fixed number, or have copies alone: parallel.shard and parallel.sequence 1, no replicate"
        )
    return faults


def checked(recipe: TrainRecipe, model: str, shards: str) -> "Index":
    """The samples that a run learns from; all that the user can have wrong is found before any cluster work.

    Raises:
        ValueError: no such model, one that is not ready for the phase, no shards that it can use, or latents of other encoders.
    """
    from training.data.index import Index, check_encoders
    from training.model.card import read_spec
    from training.phases import begins, phase_named, read_history

    spec = read_spec(Path(model))
    begins(phase_named(recipe.phase, spec), read_history(Path(model)))
    index = Index.read(shards, spec, "train", spec.chunks.window_chunks)
    if recipe.loop.validate_every:
        try:
            Index.read(shards, spec, "val", spec.chunks.window_chunks)
        except ValueError as error:
            raise ValueError(f"{error}; to train without validation, set loop.validate_every=0") from error
    check_encoders(index.manifest, Path(model))
    return index


def planned(recipe: TrainRecipe, model: str, index: "Index", tflops: float, utilisation: float) -> dict[str, Any]:
    """Memory and time of a run before anything starts: what `pan plan` says of this one way to spread it, and of all its steps.

    Args:
        index: the samples.
        tflops: of a GPU's matrix products in bfloat16, at its peak; utilisation: the share of that which is reached.

    Raises:
        ValueError: a spread that the planner does not know.
    """
    from pipelines.plan import report, wished
    from training.model.card import read_spec
    from training.phases import phase_named
    from training.planner import plan

    spec, parallel, workers = read_spec(Path(model)), recipe.parallel, recipe.workers
    wishes = wished(
        {
            "gpus": workers.least,
            "memory": workers.memory or 80.0,
            "phase": phase_named(recipe.phase, spec).data,
            "shard": parallel.shard * parallel.sequence,
            "sequence": parallel.sequence,
            "checkpointing": parallel.checkpoint,
            "compiled": parallel.compile,
            "windows": recipe.loop.batch,
        }
    )
    data = report(spec, wishes, plan(spec, wishes), tflops, utilisation)
    return data | {"unfit": dict(index.unfit), "run": whole(len(index.samples), recipe, data["options"][0])}


def whole(count: int, recipe: TrainRecipe, option: dict[str, Any]) -> dict[str, Any]:
    """Windows, optimiser steps and hours of the whole run; an epoch shows one window of each sample."""
    loop = recipe.loop
    at_once = option["windows_a_step"]
    accumulated = max(1, round(loop.windows / at_once))
    steps = -(-count // (at_once * accumulated)) * loop.epochs
    steps = min(steps, loop.steps) if loop.steps is not None else steps
    hours = steps * accumulated * option["seconds_a_step"] / 3600
    return {"samples": count, "windows_a_step": at_once * accumulated, "accumulated": accumulated, "steps": steps, "hours": round(hours, 3)}


def plan_text(data: dict[str, Any]) -> str:
    """For people: `pan plan`'s table, then the run's steps and time."""
    from pipelines.plan import text

    run = data["run"]
    unfit = "".join(f"; {count} more are {reason}" for reason, count in data["unfit"].items())
    told = f"{run['samples']} samples, {run['windows_a_step']} windows an optimiser step ({run['accumulated']} micro-steps): {run['steps']} steps"
    return f"{text(data)}\n{told}, about {run['hours']:.3g} hours at the speed assumed{unfit}"
