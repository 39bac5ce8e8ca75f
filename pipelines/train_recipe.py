"""Train recipe: every setting of a training run, out of a strict TOML file; and what the planner says of it."""

import math
import operator
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from curation.config import Config
from pipelines import strict_toml
from pipelines.strict_toml import SettingsError
from pipelines.train_checks import at_odds, lonely
from training.run import RunSettings

if TYPE_CHECKING:
    from training.data.index import Index
    from training.held import Held
    from training.planner import Wishes

PROCESS = 1.0
"""GB of a worker without a GPU that are not the model's: Python, torch, Ray's worker, samples that are read ahead; an estimate."""
STEPS_AN_EPOCH = 10
"""Optimiser steps an epoch that are proposed where a recipe's windows leave but one."""


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
        SettingsError: no such file, not TOML, an unknown key, a wrong type, a value out of bounds, or settings that are at odds, such as
            numbers of workers that the model cannot lie over.
    """
    text, where = "", "train recipe"
    if file is not None:
        path, where = Path(file), f"recipe {file}"
        if not path.is_file():
            raise SettingsError(where, ["no such file"])
        text = path.read_text("utf-8")
    recipe = strict_toml.build(TrainRecipe, strict_toml.apply_sets(strict_toml.parse(text, where), sets), where)
    if faults := at_odds(recipe):
        raise SettingsError(where, faults)
    return recipe


def alone(recipe: TrainRecipe) -> TrainRecipe:
    """The recipe as one process takes it, which has no cluster: this machine's GPU, if there is one.

    Raises:
        SettingsError: it is spread over several workers, which one process cannot be.
    """
    import torch

    mine = {"least": 1, "most": None, "gpus": float(torch.cuda.is_available())}
    taken = recipe.model_copy(update={"workers": recipe.workers.model_copy(update=mine)})
    if faults := at_odds(taken):
        raise SettingsError("--here, as one worker", faults)
    return taken


def checked(recipe: TrainRecipe, model: str, shards: str) -> "Index":
    """The samples that a run learns from; all that the user can have wrong is found before any cluster work.

    Raises:
        ValueError: no such model, one that is not ready for the phase or for several workers, no shards that it can use, or latents of other encoders.
    """
    from training.data.index import Index, check_encoders
    from training.model.card import read_spec
    from training.phases import begins, phase_named, read_history

    spec = read_spec(Path(model))
    phase = phase_named(recipe.phase, spec)
    begins(phase, read_history(Path(model)))
    lonely(recipe, spec, phase)
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

    Memory is that of the samples' largest size. Workers without a GPU are held to `workers.memory` alone, and how long they take is not known.

    Args:
        index: the samples.
        tflops: of a GPU's matrix products in bfloat16, at its peak; utilisation: the share of that which is reached.

    Raises:
        ValueError: a spread that the planner does not know, no such speed, or an `also` that no parameter is named like.
    """
    from pipelines.plan import report
    from training.model.card import read_spec
    from training.operations import operations, tokens_per_frame
    from training.phases import phase_named
    from training.planner import in_phase, plan

    spec, held = read_spec(Path(model)), held_by(recipe, Path(model))
    wishes = wished_by(recipe, phase_named(recipe.phase, spec).data, index.kind == "clips")
    sizes = Counter(sample.size for sample in index.samples)
    specs = sorted((replace(spec, height=height, width=width) for height, width in sizes), key=tokens_per_frame)
    plan(specs[0], wishes, held)  # the smallest frames must have a token for each rank too
    data = report(specs[-1], wishes, plan(specs[-1], wishes, held), tflops, utilisation)
    option = data["options"][0]
    works = [operations(in_phase(each, wishes.phase), option["checkpointing"], wishes.action_tokens, option["sequence"], held) for each in specs]
    seconds = [wishes.windows * work.longest / (tflops * 1e12 * utilisation) for work in works] if wishes.device == "cuda" else None
    run = whole([sizes[each.height, each.width] for each in specs], recipe, option["windows_a_step"], seconds)
    return data | {"unfit": dict(index.unfit), "encodes": index.kind == "clips", "run": run}


def wished_by(recipe: TrainRecipe, phase: str, encodes: bool) -> "Wishes":
    """What a recipe leaves the planner: one way to spread the training.

    Without a GPU every part of the model is held, as with clips that are encoded and films that are made while training (training.run.opened).

    Args:
        phase: "decoder" or "joint". encodes: the samples are clips.

    Raises:
        ValueError: numbers out of the planner's bounds.
    """
    from pipelines.plan import wished

    parallel, workers, on_gpus = recipe.parallel, recipe.workers, recipe.workers.gpus > 0
    given = {
        "gpus": workers.least,
        "device": "cuda" if on_gpus else "cpu",
        "memory": (workers.memory or 80.0) * workers.gpus if on_gpus else workers.memory,
        "phase": phase,
        "replicate": parallel.replicate,
        "shard": parallel.shard * parallel.sequence,
        "sequence": parallel.sequence,
        "checkpointing": parallel.checkpoint,
        "compiled": parallel.compile,
        "windows": recipe.loop.batch,
        "resident": not on_gpus or encodes or recipe.loop.films_every > 0,
        "average": recipe.optim.ema > 0,
        "gather": parallel.gather,
        "compute": recipe.loss.compute,
    }
    return wished(given if on_gpus else given | {"reserve": PROCESS})


def held_by(recipe: TrainRecipe, model: Path) -> "Held":
    """What of the model in a folder learns in this run, and how the rest is stored; parameters are named without being read.

    Raises:
        ValueError: an `also` that no parameter is named like, or a part without files.
    """
    from training.held import Held
    from training.model.card import parts_of, read_card
    from training.model.parts import QUERIES, build_part
    from training.model.weights import empty_weights
    from training.phases import chosen, phase_named

    card = read_card(model)
    spec, phase = card.model, phase_named(recipe.phase, card.model)
    sizes, width = dict[str, int](), dict[str, float]()
    for part in parts_of(spec):
        with empty_weights():
            sizes |= {f"{part}.{name}": parameter.numel() for name, parameter in build_part(spec, part).named_parameters()}
        source = getattr(card, part).source
        width[part] = stored_width(model / part if source is None else Path(source))
    names, learning = chosen(list(sizes), (*phase.trained, *recipe.also), phase.frozen), Counter[str]()
    for name in names:
        learning["queries" if name == f"backbone.{QUERIES}" else name.split(".")[0]] += sizes[name]
    if "backbone" in width:
        width["queries"] = width["backbone"]
    sees = any(name.startswith("backbone.model.visual.") for name in names)
    hears = any(name.startswith("backbone.model.language_model.") for name in names)
    return Held(spec=spec, runs=phase.runs, learning=dict(learning), width=width, hears=hears, sees=sees)


def stored_width(folder: Path) -> float:
    """Bytes of a parameter in a folder's files, on average.

    Raises:
        ValueError: there are none.
    """
    from training.model.tensor_files import stored

    entries = list(stored(folder).values())
    bits = {entry.dtype: int("".join(filter(str.isdigit, entry.dtype.split("_")[0])) or 8) for entry in entries}  # BF16, F32, F8_E4M3, BOOL
    return sum(math.prod(entry.shape) * bits[entry.dtype] for entry in entries) / 8 / sum(math.prod(entry.shape) for entry in entries)


def whole(counts: Sequence[int], recipe: TrainRecipe, at_once: int, seconds: Sequence[float] | None) -> dict[str, Any]:
    """Windows, optimiser steps and hours of the whole run; an epoch shows one window of each sample, and its last step has what is left.

    Args:
        counts: samples of each size; a micro-step is of one size (training.data.order.steps).
        at_once: windows of a micro-step, of all ranks together.
        seconds: that a micro-step of each size takes; None: not known.
    """
    loop, micros = recipe.loop, [-(-count // at_once) for count in counts]
    epoch, samples = sum(micros), sum(counts)

    def an_epoch(windows: int) -> tuple[int, int]:
        """Micro-steps that are accumulated, as training.loop counts them, and an epoch's optimiser steps."""
        accumulated = max(1, round(windows / at_once))
        return accumulated, -(-epoch // accumulated)

    accumulated, each = an_epoch(loop.windows)
    steps = each * loop.epochs if loop.steps is None else min(each * loop.epochs, loop.steps)
    epochs, rest = divmod(steps, each)
    done = epochs * epoch + min(rest * accumulated, epoch)
    fewer = max(at_once, samples // STEPS_AN_EPOCH // at_once * at_once)
    return {
        "samples": samples,
        "windows": max(loop.windows, at_once * accumulated),
        "windows_a_step": min(at_once * accumulated, samples),
        "accumulated": min(accumulated, epoch),
        "micro_steps": done,
        "steps_an_epoch": each,
        "steps": steps,
        "hours": None if seconds is None else done / epoch * sum(map(operator.mul, micros, seconds)) / 3600,
        "fewer": {"windows": fewer, "steps_an_epoch": an_epoch(fewer)[1]},
    }


def plan_text(data: dict[str, Any]) -> str:
    """For people: `pan plan`'s table, then the run's steps and time, and a warning where an epoch is less than a step."""
    from pipelines.plan import text
    from training.meter import left

    run = data["run"]
    unfit = "".join(f"; {count} more are {reason}" for reason, count in data["unfit"].items())
    told = f"{run['samples']} samples, {run['windows_a_step']} windows an optimiser step ({run['accumulated']} micro-steps): {run['steps']} steps"
    told += f", {run['micro_steps']} micro-steps in all"
    if run["hours"] is None:
        told += "; how long they take is not known (no GPU: workers.gpus is 0)"
    else:
        beside = f"{'encoding, ' if data['encodes'] else ''}validation, films and checkpoints"
        told += f", about {left(run['hours'] * 3600) if run['hours'] >= 1 / 60 else 'a minute or less'} at the speed assumed, beside {beside}"
    return "\n".join([text(data), told + unfit, *_warned(run)])


def warnings_of(recipe: TrainRecipe, index: "Index") -> list[str]:
    """What is to be said of a run that begins without a plan having been asked for."""
    sizes = Counter(sample.size for sample in index.samples)
    told = list(_warned(whole(list(sizes.values()), recipe, max(1, recipe.loop.batch * recipe.workers.least // recipe.parallel.sequence), None)))
    if index.unfit:
        why, count = ", ".join(f"{reason} {count}" for reason, count in sorted(index.unfit.items())), sum(index.unfit.values())
        told.append(f"pan: warning: {count} of {count + len(index.samples)} samples are of no use to this model and left out: {why}")
    return told


def _warned(run: dict[str, Any]) -> Iterator[str]:
    """What is to be changed where an optimiser step wants more windows than an epoch has."""
    if run["windows"] <= run["samples"]:
        return
    windows, steps = run["fewer"]["windows"], run["fewer"]["steps_an_epoch"]
    do = f"lower loop.windows: {windows} makes {steps} steps an epoch"
    if steps <= run["steps_an_epoch"]:
        do = "take fewer workers or a lower loop.batch, then a lower loop.windows"
    yield (
        f"pan: warning: an optimiser step wants {run['windows']} windows (loop.windows), and an epoch has {run['samples']} samples: "
        f"it is {run['steps_an_epoch']} optimiser step(s), and the whole run {run['steps']}; {do}"
    )
