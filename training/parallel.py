"""Parallel: the ranks of a run as replicas x shards x sequence, and a model wrapped for them; parts are named by globs, no model is imported.

Ranks count with the sequence innermost: those that share a sequence are neighbours, on one node; then the shards, also on a node where they fit; then replicas.

    HSDP        parameters, gradients and optimiser state are split over shard x sequence ranks, and equal over the replicas (FSDP2)
    sequence    the tokens of a window are split (training.parallel_sequence); the same samples on all ranks of a sequence
    sums        gradients are summed over all ranks and divided once by what they were counted over: no mean of means
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field
from torch import nn

from curation.config import Config
from training.model.plain import must
from training.parallel_language import share_language
from training.parallel_sequence import share_sequence


class ParallelSettings(Config):
    """How a model lies over the ranks."""

    replicate: int | None = Field(None, ge=1, description="copies of the model; none = as many as there are ranks for")
    shard: int = Field(1, ge=1, description="ranks that a copy is split over (beside those of its sequence); PAN's are the 8 GPUs of a node")
    sequence: int = Field(1, ge=1, description="ranks that a window's tokens are split over; PAN's second phase has 4")
    gather: Literal["float32", "bfloat16"] = Field(
        "bfloat16", description="precision in which shards are gathered for a forward; gradients are summed in float32"
    )
    checkpoint: bool = Field(True, description="keep only each block's input for the backward pass, and compute the rest twice, as PAN does")
    compile: bool = Field(False, description="compile each block; worth its minutes on a GPU")
    blocks: tuple[str, ...] = Field(
        ("decoder.blocks.*", "backbone.model.language_model.layers.*", "backbone.model.visual.blocks.*"),
        description="globs of the modules that are wrapped, checkpointed and compiled one by one",
    )
    split: tuple[str, ...] = Field(("decoder",), description="the modules whose tokens the ranks of a sequence share")
    heard: tuple[str, ...] = Field(("backbone.model.language_model",), description="the language models whose tokens they share")
    roots: tuple[str, ...] = Field(("decoder", "backbone", "connector"), description="the modules around them, each called as a whole")

    def replicas(self, ranks: int) -> int:
        """Copies of the model on so many ranks.

        Raises:
            ValueError: the axes do not multiply to `ranks`.
        """
        each = self.shard * self.sequence
        copies = self.replicate if self.replicate is not None else ranks // each
        must(
            copies * each == ranks and copies > 0,
            f"parallel: replicate {self.replicate or '(any)'} x shard {self.shard} x sequence {self.sequence} do not give {ranks} ranks; "
            "their product must be the number of workers",
        )
        return copies


@dataclass(frozen=True, kw_only=True)
class World:
    """This process among all.

    Attributes:
        rank, ranks: among those of the run.
        data_rank, data_ranks: which samples are its own; the ranks of one sequence have the same.
        data: a process group of one rank of each sequence; None alone.
        sequence: the process group of its own sequence; None where that is one rank.
        files: a group of all ranks on the CPU, for checkpoints; None alone.
        parameters: the device mesh (replicate, shard) that parameters lie on; None alone.
    """

    rank: int = 0
    ranks: int = 1
    data_rank: int = 0
    data_ranks: int = 1
    data: Any = field(default=None, repr=False)
    sequence: Any = field(default=None, repr=False)
    files: Any = field(default=None, repr=False)
    parameters: Any = field(default=None, repr=False)


def world(settings: ParallelSettings, device: str = "cpu", members: Sequence[int] | None = None) -> World:
    """The mesh of the process group that torch.distributed has; alone without one. Every process must call it, members or not.

    Args:
        device: "cuda" or "cpu".
        members: the global ranks that take part; all by default.

    Raises:
        ValueError: the axes do not multiply to the number of ranks.
    """
    import torch.distributed as dist
    from torch.distributed.device_mesh import DeviceMesh

    if not dist.is_initialized() or (members is None and dist.get_world_size() == 1):
        settings.replicas(1)
        return World()
    ranks = list(range(dist.get_world_size()) if members is None else members)
    copies = settings.replicas(len(ranks))
    table = torch.tensor(ranks).view(copies, settings.shard * settings.sequence)
    parameters = DeviceMesh(device, table, mesh_dim_names=("replicate", "shard"))
    by_sequence = torch.tensor(ranks).view(-1, settings.sequence)
    sequence = _mine([row.tolist() for row in by_sequence])
    data = _mine([column.tolist() for column in by_sequence.T])
    files = _mine([ranks], "gloo")
    if dist.get_rank() not in ranks:
        return World(rank=-1)
    rank = ranks.index(dist.get_rank())
    return World(
        rank=rank,
        ranks=len(ranks),
        data_rank=rank // settings.sequence,
        data_ranks=len(by_sequence),
        data=data,
        sequence=sequence if settings.sequence > 1 else None,
        files=files,
        parameters=parameters,
    )


def _mine(tables: Sequence[Sequence[int]], backend: str | None = None) -> Any:
    """The process group of the table that this rank is in; all ranks make all groups, in the same order."""
    import torch.distributed as dist

    groups = [dist.new_group(list(table), backend=backend) for table in tables]
    return next((group for group, table in zip(groups, tables, strict=True) if dist.get_rank() in table), None)


def spread(model: nn.Module, settings: ParallelSettings, mesh: World) -> None:
    """Readies a model for its ranks, in place and with no parameter renamed: each block checkpointed, compiled and sharded, then what is around them.

    What learns must be settled before (phases.prepare).

    Raises:
        ValueError: a root is no module of the model's, or parameters of different precision learn.
    """
    named = dict(model.named_modules())
    for name in settings.split if mesh.sequence is not None else ():
        must(name in named, f"parallel.split: the model has no module {name!r}")
        share_sequence(named[name], mesh.sequence)
    for name in settings.heard if mesh.sequence is not None else ():
        if name in named:  # a model of texts alone has none
            share_language(named[name], mesh.sequence)
    blocks = [module for name, module in named.items() if any(fnmatchcase(name, glob) and name.count(".") == glob.count(".") for glob in settings.blocks)]
    for block in blocks:
        if settings.checkpoint:
            checkpointed(block)
        if settings.compile:
            block.forward = torch.compile(block.forward)
    if mesh.parameters is not None:
        _shard([*blocks, *(named[name] for name in settings.roots if name in named)], settings, mesh.parameters)


def checkpointed(block: nn.Module) -> None:
    """Makes a module keep its inputs alone for the backward pass."""
    from torch.utils.checkpoint import checkpoint

    plain = block.forward

    def forward(*inputs: Any, **options: Any) -> Any:
        if not torch.is_grad_enabled() or options.get("past_key_values") is not None:  # a cache is written once
            return plain(*inputs, **options)
        return checkpoint(partial(plain, **options), *inputs, use_reentrant=False)

    block.forward = forward


def _shard(modules: Sequence[nn.Module], settings: ParallelSettings, mesh: Any) -> None:
    """FSDP2 on each module, inner ones first; gradients are summed, never averaged."""
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    # Roots too are sharded again after each forward: behind one without gradients, as in validation, parameters would else be whole, and narrow.
    # Inputs stay as they are: rounded to bfloat16, a timestep of 437 would be 436
    policy = MixedPrecisionPolicy(param_dtype=getattr(torch, settings.gather), reduce_dtype=torch.float32, cast_forward_inputs=False)
    for module in modules:
        fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
        assert isinstance(module, FSDPModule)
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)


@contextmanager
def gathered(model: nn.Module, settings: ParallelSettings) -> Iterator[None]:
    """The roots' own parameters whole while the block runs, for what does not go through a root's call, such as a session; all ranks enter it together."""
    from torch.distributed.fsdp import FSDPModule

    named = dict(model.named_modules())
    wrapped = [module for name in settings.roots if isinstance(module := named.get(name), FSDPModule)]
    for module in wrapped:
        module.unshard()
    try:
        yield
    finally:
        for module in wrapped:
            module.reshard()
