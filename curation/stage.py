"""Stage: a clip-table function and the cluster resources it runs with; the only place with Ray operator arguments."""

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pydantic import Field

from curation.config import Config

if TYPE_CHECKING:
    from ray.data import Dataset

TableFunction = Callable[[pa.Table], pa.Table | Iterator[pa.Table]]

#: What this process has built, by the stage's name, with the token of the stage it was built for: a model is loaded once
#: a worker, not once a task, and the next run's stage of the same name takes its place.
_BUILT: dict[str, tuple[str, TableFunction]] = {}


class Resources(Config):
    """What one task or actor of a stage takes of the cluster.

    Stages that stand next to each other with the same resources and no actors are fused by Ray Data into one task: frames
    then go from hand to hand and never through the object store. That is why the local recipe gives every stage the same.
    """

    num_cpus: float = Field(1.0, gt=0, description="logical CPUs a task or actor holds")
    num_gpus: float = Field(0.0, ge=0, description="GPUs (or a share of one) a task or actor holds")
    memory_bytes: int | None = Field(None, gt=0, description="heap memory Ray reserves; None = no reservation")
    batch_size: int = Field(1, ge=1, le=4096, description="rows a call; more only where a model gains from batches")
    actors: int | None = Field(None, ge=1, description="a fixed pool of so many actors; None = tasks (needed for nothing that runs on CPU)")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One Ray Data operator: a function that takes and returns a clip table.

    Attributes:
        name: what progress, errors and Ray's dashboard call it.
        make: builds the function in the worker; it is pickled, so it carries settings, never a loaded model.
        whole_blocks: calls get whole blocks as Ray Data built them (about `DataContext.target_max_block_size` bytes), not `batch_size` rows.
    """

    name: str
    make: Callable[[], TableFunction]
    resources: Resources = field(default_factory=Resources)
    whole_blocks: bool = False
    token: str = field(default_factory=lambda: uuid.uuid4().hex, repr=False)

    def run(self, table: pa.Table) -> pa.Table | Iterator[pa.Table]:
        """The stage's function on `table`, built in this process at the first call."""
        token, function = _BUILT.get(self.name, ("", None))
        if function is None or token != self.token:
            function = self.make()
            _BUILT[self.name] = (self.token, function)
        return function(table)

    def apply(self, rows: "Dataset") -> "Dataset":
        """`rows` with this stage behind it (lazy: nothing runs yet)."""
        options: dict[str, Any] = {
            "batch_format": "pyarrow",
            "batch_size": None if self.whole_blocks else self.resources.batch_size,
            "num_cpus": self.resources.num_cpus,
            "num_gpus": self.resources.num_gpus or None,
            "zero_copy_batch": True,
        }
        if self.resources.memory_bytes:
            options["memory"] = self.resources.memory_bytes
        if self.resources.actors is None:
            return rows.map_batches(_named(self), **options)
        from ray.data import ActorPoolStrategy

        return rows.map_batches(_Actor, fn_constructor_args=(self,), compute=ActorPoolStrategy(size=self.resources.actors), **options)


class _Actor:
    """Holds a built stage for the life of one Ray actor."""

    def __init__(self, stage: Stage) -> None:
        self._function = stage.make()

    def __call__(self, table: pa.Table) -> pa.Table | Iterator[pa.Table]:
        return self._function(table)


def _named(stage: Stage) -> Callable[[pa.Table], Iterator[pa.Table]]:
    """The stage's function under its own name, as an iterator: Ray shows a function's name, and takes generators as they come."""

    def function(table: pa.Table) -> Iterator[pa.Table]:
        out = stage.run(table)
        if isinstance(out, pa.Table):
            yield out
        else:
            yield from out

    function.__name__ = function.__qualname__ = stage.name
    return function
