"""Planner: the ways to spread a model's training over GPUs, which of them fit, and what would where none does.

A GPU's place is one of replicate x shard: weights, gradients and the optimiser's state are cut into `shard` pieces, and the groups that hold them are
`replicate` copies. `sequence` neighbours within a shard group share one window, cut along its tokens (Ulysses). GB are 10^9 bytes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import Field

from curation.config import Config
from training import footprint
from training.footprint import Memory, Operations, Spread, Work
from training.model import counts
from training.model.plain import must
from training.model.spec import ModelSpec

MOST_GPUS = 4096  # where the search for what would fit ends
SIZES = (24, 40, 48, 80, 96, 141, 192, 288)  # GB of GPUs that there are


class Wishes(Config):
    """What is to be trained on what; where a field is None, all that goes is tried."""

    gpus: int = Field(8, ge=1, le=1 << 16, description="all of them")
    gpus_per_node: int = Field(8, ge=1, le=1024, description="GPUs with a fast link between them: a window is shared within a node only")
    memory: float = Field(80.0, gt=0, description="GB of a GPU: 80 of an H100, 141 of an H200")
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
    action_tokens: int = Field(64, ge=0, description="of an action in the backbone's dialogue; an estimate, a caption of 40 frames has about as many")

    def work(self) -> Work:
        """What a group of GPUs computes at a time."""
        return Work(windows=self.windows, compiled=self.compiled, resident=self.resident, action_tokens=self.action_tokens)


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


def plan(spec: ModelSpec, wishes: Wishes) -> Verdict:
    """All ways that `wishes` leave open and that fit: those that compute least first, and among them those that talk least.

    Raises:
        ValueError: what was given does not go with the model or the GPUs: the rule, what was given, and what can be.
    """
    spec = in_phase(spec, wishes.phase)
    found = list(options(spec, wishes))
    fitting = sorted((option for option in found if option.memory.total <= wishes.memory), key=lambda option: _cost(option.spread, wishes))
    sizes = counts.parameters(spec)
    learning = sum(sizes.get(part, 0) for part in ("decoder", "queries", "connector"))
    if fitting:
        return Verdict(parameters=sizes, learning=learning, options=tuple(fitting))
    least = min(found, key=lambda option: option.memory.total)
    return Verdict(parameters=sizes, learning=learning, options=(least,), reason=_reason(least, wishes), would_fit=tuple(_would_fit(spec, wishes, least)))


def in_phase(spec: ModelSpec, phase: str) -> ModelSpec:
    """The model as it is in a phase: PAN's first knows no state.

    Raises:
        ValueError: the model's decoder reads the backbone in each of its phases.
    """
    if phase == "joint":
        return spec
    must(spec.connector == "linear", f"--phase decoder: the decoder of {spec.name} always reads the backbone, through its connector; there is joint alone")
    return replace(spec, decoder=replace(spec.decoder, state_dim=None))


def options(spec: ModelSpec, wishes: Wishes) -> Iterator[Option]:
    """All that the rules allow.

    Raises:
        ValueError: none.
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
                memory=footprint.memory(spec, spread, wishes.work(), wishes.reserve),
                operations=footprint.operations(spec, checkpointing, wishes.action_tokens),
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
    """Numbers of GPUs that can share a window.

    Raises:
        ValueError: the one that was given cannot.
    """
    b, tokens = spec.backbone, footprint.tokens_per_frame(spec)
    wholes = {"the decoder's heads": spec.decoder.heads, "a latent frame's tokens": tokens}
    if "backbone" in counts.parameters(spec):
        wholes["the backbone's heads"] = b.heads
    known = [n for n in _divisors(min(wishes.gpus_per_node, wishes.gpus)) if all(whole % n == 0 for whole in wholes.values())]
    if wishes.sequence is None:
        return known
    rules = ", ".join(f"{name} ({whole})" for name, whole in wholes.items())
    must(
        wishes.sequence in known,
        f"sequence {wishes.sequence}: it must divide {rules} and the GPUs of a node ({wishes.gpus_per_node}); give one of {', '.join(map(str, known))}",
    )
    return [wishes.sequence]


def _cost(spread: Spread, wishes: Wishes) -> tuple[bool, bool, int, int]:
    """What sorts the ways that fit: computing twice costs a quarter, shards across nodes the slow link, shared windows and wide shards the fast one."""
    return spread.checkpointing, spread.shard > wishes.gpus_per_node, spread.sequence, spread.shard


def _reason(least: Option, wishes: Wishes) -> str:
    """Why nothing fits."""
    parts = {name: getattr(least.memory, name) for name in Memory.__dataclass_fields__}
    told = ", ".join(f"{name} {size:.1f}" for name, size in sorted(parts.items(), key=lambda item: -item[1]) if size >= 0.05)
    return f"the least that any way takes is {least.memory.total:.1f} GB of a GPU's {wishes.memory:g} ({least.spread}): {told}"


def _would_fit(spec: ModelSpec, wishes: Wishes, least: Option) -> Iterator[str]:
    """What to change, one thing at a time."""
    free = wishes.model_copy(update={"replicate": None, "shard": None, "sequence": None, "checkpointing": None})
    if free != wishes and (spread := _fitting(spec, free)):
        yield f"the same GPUs with {spread}"
    if wishes.windows > 1 and (spread := _fitting(spec, wishes.model_copy(update={"windows": 1}))):
        yield f"--windows 1 with {spread}"
    if wishes.resident and (spread := _fitting(spec, wishes.model_copy(update={"resident": False}))):
        yield f"encoders run beforehand, with {spread}"
    gpus = wishes.gpus * 2
    while gpus <= MOST_GPUS:
        if spread := _fitting(spec, free.model_copy(update={"gpus": gpus})):
            yield f"{gpus} GPUs of {wishes.memory:g} GB with {spread}"
            break
        gpus *= 2
    enough = next((size for size in SIZES if size >= least.memory.total), None)
    if enough:
        yield f"{wishes.gpus} GPUs of {enough} GB with {least.spread}"


def _fitting(spec: ModelSpec, wishes: Wishes) -> Spread | None:
    """The best way that fits."""
    fitting = [option.spread for option in options(spec, wishes) if option.memory.total <= wishes.memory]
    return min(fitting, key=lambda spread: _cost(spread, wishes), default=None)


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]
