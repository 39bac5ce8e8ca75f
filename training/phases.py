"""Phases: what of a model trains, on what, towards which objective and from which beginning; and which phase may follow which."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from curation import whole
from training.model.glp import GLP
from training.model.plain import must
from training.model.spec import ModelSpec

HISTORY = "history.json"
"""A file beside model.json: the phases that a model has been through, oldest first. A model without one is fresh, or its makers'."""

Begin = Literal["start_state_stream"]


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One of a model's training stages, as data.

    Attributes:
        name: what it is called in recipes and in a model's history.
        trained: globs of the names of GLP's parameters that learn; every one must match something.
        frozen: globs of those among them that do not.
        runs: the parts that a step computes with; all others may stay off the accelerator.
        data: what a sample is: a window of latents with texts, or with the dialogue that leads to it too.
        objective: the loss.
        after: the phases of which one must have been the model's last; none: it must have been through no phase.
        begin: what is done to the model before its first step in this phase.
    """

    name: str
    trained: tuple[str, ...]
    frozen: tuple[str, ...] = ()
    runs: tuple[str, ...]
    data: Literal["decoder", "joint"]
    objective: Literal["flow", "alignment", "matching"] = "flow"
    after: tuple[str, ...] = ()
    begin: tuple[Begin, ...] = ()


PHASES: Mapping[str, Phase] = MappingProxyType(
    {
        phase.name: phase
        for phase in (
            Phase(
                name="decoder",
                trained=("decoder.*",),
                frozen=("decoder.state_proj.*", "decoder.blocks.*.state_*"),
                runs=("decoder",),
                data="decoder",
            ),
            Phase(
                name="joint",
                trained=("decoder.*", "backbone.query_embed"),
                runs=("decoder", "backbone"),
                data="joint",
                after=("decoder",),
                begin=("start_state_stream",),
            ),
            Phase(
                name="matching",
                trained=("backbone.query_embed",),
                runs=("backbone",),
                data="joint",
                objective="matching",
                after=("decoder",),
            ),
            Phase(
                name="alignment",
                trained=("connector.*", "backbone.query_embed"),
                runs=("backbone", "connector"),
                data="joint",
                objective="alignment",
            ),
            Phase(
                name="tuning",
                trained=("decoder.*", "backbone.query_embed"),
                runs=("decoder", "backbone", "connector"),
                data="joint",
                after=("alignment",),
            ),
        )
    }
)
"""PAN's two phases; what the second is compared with, states that are learnt by matching the next observation's instead of by generating it (a joint-embedding
objective; on its own, and no step on the way to a model that films); then Pandora's two.

Source: PAN (arXiv 2511.09057v3), section 4.2: first the decoder alone, on texts; then queries and decoder together, with Qwen2.5-VL frozen. That the state's
stream is not there in the first phase, and begins as a copy of the text's, is section 3.3.2's reading. Pandora (arXiv 2406.09455), section 3.2.
"""


def phase_named(name: str, spec: ModelSpec) -> Phase:
    """The phase `name`, if a model of `spec` can go through it.

    Raises:
        ValueError: there is no such phase, or it trains parts that the model has not.
    """
    must(name in PHASES, f"there is no phase {name!r}; there are {', '.join(PHASES)}")
    mine = ("alignment", "tuning") if spec.connector == "qformer" else ("decoder", "joint", "matching")
    must(name in mine, f"phase {name!r} is not one of model {spec.name}, whose connector is {spec.connector!r}: it has {' and '.join(mine)}")
    must(
        name not in ("joint", "matching") or spec.decoder.state_dim is not None,
        f"model {spec.name} has no state stream (decoder.state_dim is null), which phase {name!r} trains",
    )
    return PHASES[name]


def begins(phase: Phase, history: Sequence[str]) -> bool:
    """Whether a model with this history is at the phase's beginning (True), or has been in it before and goes on (False).

    Raises:
        ValueError: the phase does not follow on what the model has been through.
    """
    last = history[-1] if history else None
    if last == phase.name:
        return False
    been = f"this model has been through {' and '.join(history)}" if history else "this model has been through no phase"
    if phase.after:
        must(last in phase.after, f"phase {phase.name!r} follows on phase {' or '.join(phase.after)}, but {been}; train that first")
    else:
        must(last is None, f"phase {phase.name!r} is a model's first, but {been}; begin with a fresh model, or go on with a later phase")
    return True


def prepare(glp: GLP, phase: Phase, history: Sequence[str] = (), also: Sequence[str] = ()) -> list[str]:
    """Readies a model for a phase: does what the phase begins with, sets what learns, and brings that to float32, the precision of master weights.

    It must come before the model is wrapped for a mesh: FSDP fixes then which parameters have gradients, and of what kind.

    Args:
        history: the phases that the model has been through.
        also: globs of parameters that learn too, such as "backbone.model.*" for a small backbone that nobody has trained before.

    Returns:
        The names of the parameters that learn, in the model's order.

    Raises:
        ValueError: the wrong order, a part that is missing, a glob that matches nothing, or a model that is wrapped already.
    """
    from torch.distributed.tensor import DTensor

    must(not any(isinstance(p, DTensor) for p in glp.parameters()), "phase: the model is wrapped for a mesh already; prepare it first")
    lacking = [part for part in phase.runs if getattr(glp, part) is None]
    must(not lacking, f"phase {phase.name!r} needs a {' and a '.join(lacking)}, which model {glp.spec.name} was opened without")
    if begins(phase, history):
        for action in phase.begin:
            _BEGINNINGS[action](glp)
    names = [name for name, _ in glp.named_parameters()]
    trained = chosen(names, (*phase.trained, *also), phase.frozen)
    for name, parameter in glp.named_parameters():
        parameter.requires_grad_(name in trained)
        if name in trained and parameter.dtype.itemsize < 4:
            parameter.data = parameter.data.float()
    return [name for name in names if name in trained]


def chosen(names: Sequence[str], trained: Sequence[str], frozen: Sequence[str] = ()) -> frozenset[str]:
    """The names that a glob of `trained` matches and none of `frozen` does.

    Raises:
        ValueError: a glob of `trained` matches none.
    """
    for glob in trained:
        must(any(fnmatchcase(name, glob) for name in names), f"phase: no parameter is named like {glob!r}; names are such as {', '.join(names[:3])}")
    return frozenset(name for name in names if any(fnmatchcase(name, g) for g in trained) and not any(fnmatchcase(name, g) for g in frozen))


def read_history(folder: Path) -> tuple[str, ...]:
    """The phases that the model in `folder` has been through, oldest first.

    Raises:
        ValueError: the file is there and holds no list of phases.
    """
    file = folder / HISTORY
    if not file.is_file():
        return ()
    try:
        told = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: not JSON ({error}); copy it again") from error
    phases = told.get("phases") if isinstance(told, dict) else None
    must(isinstance(phases, list) and all(name in PHASES for name in phases), f"{file}: phases {phases!r}; a list of {', '.join(PHASES)} is expected")
    return tuple(phases or ())


def write_history(folder: Path, phases: Sequence[str]) -> None:
    """Writes what a model has been through beside it, at once."""
    whole.write(folder / HISTORY, json.dumps({"phases": list(phases)}) + "\n")


def after(phase: Phase, history: Sequence[str]) -> tuple[str, ...]:
    """The history of a model that has been through `phase` too; going on with a phase does not count it twice."""
    return tuple(history) if history and history[-1] == phase.name else (*history, phase.name)


def _start_state_stream(glp: GLP) -> None:
    glp.decoder.start_state_stream()


_BEGINNINGS: Mapping[Begin, Callable[[GLP], None]] = MappingProxyType({"start_state_stream": _start_state_stream})
