"""Snapshot faults: torch's checkpoint fault, which no `except Exception` catches, as an error that says whose it is and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MISFIT = ("Missing key in checkpoint", "Size mismatch")
_WRITER = "inline_container"
"""In the text of torch's own file writer when bytes are lacking: of several ranks the text alone arrives, without the OSError that led to it."""


@contextmanager
def told_plainly(folder: Path, doing: str) -> Iterator[None]:
    """What torch.distributed.checkpoint meets while the block runs, in Python's own words.

    Args:
        folder: of the snapshot. doing: what was tried, such as "written".

    Raises:
        OSError: a file could not be written or read. ValueError: it lacks a tensor, or has one of another shape. RuntimeError: anything else.
    """
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        yield
    except CheckpointException as error:
        raise plain(folder, doing, {rank: cause for rank, (cause, _) in error.failures.items()}) from error


def plain(folder: Path, doing: str, causes: dict[int, BaseException]) -> Exception:
    """The error of these causes, by rank; one of the storage goes before all others, which may be met for its sake."""
    stored = {rank: met for rank, cause in causes.items() if (met := _storage(cause)) is not None}
    if stored:
        rank, met = min(stored.items())
        return OSError(met.errno or 0, f"checkpoint {folder} could not be {doing} on rank {rank}: {met.strerror or met}")
    rank, cause = min(causes.items(), default=(0, RuntimeError("no cause was told")))
    what = f"{folder} could not be {doing} on rank {rank}: {type(cause).__name__}: {cause}"
    if any(text in str(cause) for text in _MISFIT):
        return ValueError(
            f"checkpoint {what}; it is of other parameters than those that learn now: take the run up with the settings that it began with (recipe.toml: "
            "also, optim.ema), or give a new folder"
        )
    return RuntimeError(f"checkpoint {what}")


def _storage(error: BaseException) -> OSError | None:
    """The storage's fault behind an error, if there is one."""
    met: BaseException | None = error
    while met is not None and not isinstance(met, OSError):
        met = met.__cause__ or met.__context__
    if met is None and _WRITER in str(error):
        return OSError(0, f"the file is shorter than what was written, as on a full disk ({error})")
    return met
