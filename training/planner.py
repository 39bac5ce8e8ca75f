"""Planner: the ways to spread a model's training over GPUs, which of them fit, and what would where none does.

A GPU's place is one of replicate x shard: weights, gradients and the optimiser's state are cut into `shard` pieces, and the groups that hold them are
`replicate` copies. `sequence` neighbours within a shard group share one window, cut along its tokens (Ulysses), evenly or not. GB are 10^9 bytes.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import Field

from curation.config import Config
from training import footprint
from training.footprint import Memory, Precision, Spread, Work
from training.held import Held, assumed
from training.model import counts
from training.model.plain import must
from training.model.spec import ModelSpec
from training.operations import Operations, operations, tokens_per_frame

MOST_GPUS = 4096  # where the search for what would fit ends
SIZES = (24, 40, 48, 80, 96, 141, 192, 288)  # GB of GPUs that there are


class Wishes(Config):
    """What is to be trained on what; where a field is None, all that goes is tried."""

    gpus: int = Field(8, ge=1, le=1 << 16, description="all of them")
    gpus_per_node: int = Field(8, ge=1, le=1024, description="GPUs with a fast link between them, within which windows are shared if `sequence` is not given")
    device: Literal["cuda", "cpu"] = Field("cuda", description="cpu: no GPUs, but so many processes that compute without one")
    memory: float | None = Field(80.0, gt=0, description="GB of a GPU: 80 of an H100, 141 of an H200; none: compared with nothing")
    reserve: float = Field(6.0, ge=0, description="GB that are not ours: CUDA, NCCL's buffers, workspaces, what lies idle between allocations; an estimate")
    phase: Literal["decoder", "joint"] = Field(
        "joint", description="decoder: PAN's first, without state and backbone; joint: its second, where the decoder learns and the queries"
    )
    replicate: int | None = Field(None, ge=1, description="copies of the model's whole state")
    shard: int | None = Field(None, ge=1, description="GPUs that a copy is cut over")
    sequence: int | None = Field(None, ge=1, description="GPUs that share one window")
    checkpointing: bool | None = Field(None, description="keep what lies between blocks alone, and compute each block's inside twice")
    compiled: bool = Field(True, description="blocks are compiled, so that a quarter less is kept for the backward pass than by eager execution")
    windows: int = Field(1, ge=1, description="at a time in each group of `sequence` GPUs; in the joint phase each with a dialogue of its own")
    resident: bool = Field(False, description="autoencoder and text encoder are held on every GPU, instead of run beforehand as PAN does")
    average: bool = Field(False, description="a moving average of what learns is kept")
    gather: Precision = Field("bfloat16", description="in which shards are gathered")
    compute: Precision = Field("bfloat16", description="of the matrix products")
    action_tokens: int = Field(64, ge=0, description="of an action in the backbone's dialogue; an estimate, a caption of 40 frames has about as many")

    def work(self) -> Work:
        """What a group of GPUs computes at a time."""
        return Work(**{name: getattr(self, name) for name in Work.__dataclass_fields__})

    def holds(self, memory: Memory) -> bool:
        """Whether that much goes into a GPU."""
        return self.memory is None or memory.total <= self.memory

    @property
    def place(self) -> str:
        """What there are `gpus` of, for people."""
        return "GPU" if self.device == "cuda" else "worker"

    def places(self, gpus: int, memory: float | None) -> str:
        """For people: so many GPUs of so many GB, or processes without GPUs."""
        of = "" if memory is None else f" of {memory:g} GB"
        return f"{gpus} GPUs{of}" if self.device == "cuda" else f"{gpus} workers{of} on the CPU, without a GPU"


@dataclass(frozen=True, kw_only=True)
class Option:
    """One way to spread the training, and what it takes."""

    spread: Spread
    memory: Memory
    operations: Operations


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What there is to choose from.

    Attributes:
        parameters: of each part; learning: how many of them learn.
        options: those that fit, the best first; where none does, the one that takes least.
        reason: why none fits; "" where one does. would_fit: what would, a sentence each.
    """

    parameters: dict[str, int]
    learning: int
    options: tuple[Option, ...]
    reason: str = ""
    would_fit: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether there is a way."""
        return not self.reason


def plan(spec: ModelSpec, wishes: Wishes, held: Held | None = None) -> Verdict:
    """All ways that `wishes` leave open and that fit: those that compute least first, and among them those that talk least.

    Args:
        held: what of the model learns and how the rest is stored, where that is known; by default as PAN's phases have it.

    Raises:
        ValueError: what was given does not go with the model or the GPUs: the rule, what was given, and what can be.
    """
    stored, spec = spec, in_phase(spec, wishes.phase)
    held = held or assumed(stored, spec)
    found = list(options(spec, wishes, held))
    fitting = sorted((option for option in found if wishes.holds(option.memory)), key=lambda option: _cost(spec, option.spread, wishes))
    told = Verdict(parameters=counts.parameters(spec), learning=sum(held.learning.values()), options=tuple(fitting))
    if fitting:
        return told
    least = min(found, key=lambda option: option.memory.total)
    return replace(told, options=(least,), reason=_reason(least, wishes), would_fit=tuple(_would_fit(spec, wishes, held, least)))


def in_phase(spec: ModelSpec, phase: str) -> ModelSpec:
    """The model as it is in a phase: PAN's first knows no state.

    Raises:
        ValueError: the model's decoder reads the backbone in each of its phases.
    """
    if phase == "joint":
        return spec
    must(spec.connector == "linear", f"--phase decoder: the decoder of {spec.name} always reads the backbone, through its connector; there is joint alone")
    return replace(spec, decoder=replace(spec.decoder, state_dim=None))


def options(spec: ModelSpec, wishes: Wishes, held: Held | None = None) -> Iterator[Option]:
    """All that the rules allow.

    Args:
        spec: the model as it is in the phase.

    Raises:
        ValueError: the given numbers do not go together.
    """
    shards, sequences, kept = _shards(wishes), _sequences(spec, wishes), (False, True) if wishes.checkpointing is None else (wishes.checkpointing,)
    pairs = [(shard, sequence) for shard in shards for sequence in sequences if shard % sequence == 0]
    told = f"sequence {wishes.sequence} with shard {', '.join(map(str, shards))}"
    must(len(pairs) > 0, f"{told}: those who share a window lie within a shard group; shard must be a multiple of sequence")
    for shard, sequence in pairs:
        for checkpointing in kept:
            spread = Spread(replicate=wishes.gpus // shard, shard=shard, sequence=sequence, checkpointing=checkpointing)
            yield Option(
                spread=spread,
                memory=footprint.memory(spec, spread, wishes.work(), wishes.reserve, held),
                operations=operations(spec, checkpointing, wishes.action_tokens, sequence, held),
            )


def _shards(wishes: Wishes) -> list[int]:
    """Sizes of a shard group.

    Raises:
        ValueError: replicate x shard is not the number of GPUs.
    """
    gpus, replicate, shard = wishes.gpus, wishes.replicate, wishes.shard
    if replicate is None and shard is None:
        return _divisors(gpus)
    shard = shard or gpus // (replicate or 1)
    replicate = replicate or gpus // shard
    must(
        replicate * shard == gpus,
        f"replicate {replicate} x shard {shard} is {replicate * shard}, and there are {gpus} GPUs; give numbers whose product that is, or one of them",
    )
    return [shard]


def _sequences(spec: ModelSpec, wishes: Wishes) -> list[int]:
    """Numbers of GPUs that can share a window: each needs a head and a token, and shares need not be even (training.parallel_sequence).

    Raises:
        ValueError: there are more than things to share.
    """
    from training.leak import SIDE

    wholes = _shared(spec) | {"tokens of a frame of the leak check": SIDE**2}
    most = min(wholes.values())
    if wishes.sequence is None:
        return [n for n in _divisors(min(wishes.gpus_per_node, wishes.gpus)) if n <= most]
    rules = ", ".join(f"{whole} {name}" for name, whole in wholes.items())
    must(wishes.sequence <= most, f"sequence {wishes.sequence}: there are only {rules} to share; give {most} at most")
    return [wishes.sequence]


def _shared(spec: ModelSpec) -> dict[str, int]:
    """What those that share a window have shares of, and how many there are."""
    wholes = {"heads of the decoder": spec.decoder.heads, "tokens of a latent frame": tokens_per_frame(spec)}
    return wholes | ({"heads of the backbone": spec.backbone.heads} if "backbone" in counts.parameters(spec) else {})


def _cost(spec: ModelSpec, spread: Spread, wishes: Wishes) -> tuple[bool, bool, bool, int, int]:
    """What sorts the ways that fit.

    Computing twice costs a third, what is shared across nodes the slow link, uneven shares a wait for those that have more, shared windows and wide shards
    the fast link.
    """
    uneven = any(whole % spread.sequence for whole in _shared(spec).values())
    return spread.checkpointing, spread.shard > wishes.gpus_per_node, uneven, spread.sequence, spread.shard


def _reason(least: Option, wishes: Wishes) -> str:
    """Why nothing fits."""
    parts = {name: getattr(least.memory, name) for name in Memory.__dataclass_fields__}
    told = ", ".join(f"{name} {size:.1f}" for name, size in sorted(parts.items(), key=lambda item: -item[1]) if size >= 0.05)
    return f"the least that any way takes is {least.memory.total:.1f} GB of a {wishes.place}'s {wishes.memory:g} ({least.spread}): {told}"


def _would_fit(spec: ModelSpec, wishes: Wishes, held: Held, least: Option) -> Iterator[str]:
    """What to change, one thing at a time."""
    free, on_gpus = wishes.model_copy(update={"replicate": None, "shard": None, "sequence": None, "checkpointing": None}), wishes.device == "cuda"
    if free != wishes and (spread := _fitting(spec, free, held)):
        yield f"the same {wishes.place}s with {spread}"
    if wishes.windows > 1 and (spread := _fitting(spec, wishes.model_copy(update={"windows": 1}), held)):
        yield f"--windows 1 with {spread}"
    if wishes.resident and on_gpus and (spread := _fitting(spec, wishes.model_copy(update={"resident": False}), held)):
        yield f"encoders run beforehand, and no films while training, with {spread}"
    gpus = wishes.gpus * 2
    while gpus <= MOST_GPUS:
        if spread := _fitting(spec, free.model_copy(update={"gpus": gpus}), held):
            yield f"{wishes.places(gpus, wishes.memory)} with {spread}"
            break
        gpus *= 2
    if enough := large_enough(wishes, least.memory.total):
        yield f"{enough} with {least.spread}"


def large_enough(wishes: Wishes, needed: float) -> str:
    """As many GPUs of the least size that there is and that holds `needed` GB, for people; "" where there is none."""
    sizes = SIZES if wishes.device == "cuda" else (math.ceil(needed),)
    return next((wishes.places(wishes.gpus, size) for size in sizes if size >= needed), "")


def _fitting(spec: ModelSpec, wishes: Wishes, held: Held) -> Spread | None:
    """The best way that fits."""
    fitting = [option.spread for option in options(spec, wishes, held) if wishes.holds(option.memory)]
    return min(fitting, key=lambda spread: _cost(spec, spread, wishes), default=None)


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]
