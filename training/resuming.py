"""Resuming: whether a checkpoint is one that this run can go on from."""

import warnings
from collections.abc import Mapping
from typing import Any

from training.loop_settings import Settings
from training.model.plain import must
from training.snapshots import Snapshot


def check(snapshot: Snapshot, state: Mapping[str, Any], phase: str, settings: Settings, aloud: bool = True) -> None:
    """Holds a checkpoint to the run's phase, seed and moving average; an average that is not asked for is left where it is, which is said.

    Args:
        state: the snapshot's. aloud: whether this rank warns.

    Raises:
        ValueError: it is of another phase or seed, or has no average to go on with.
    """
    for name, mine in (("phase", phase), ("seed", settings.loop.seed)):
        must(state[name] == mine, f"{snapshot.path}: its {name} is {state[name]!r}, this run's {mine!r}; give the run a new folder, or the same {name}")
    there, ema = any(name.startswith("average.") for name in snapshot.tensors), settings.optim.ema
    must(
        there or not ema,
        f"{snapshot.path} has no moving average of the weights, and optim.ema is {ema}: an average cannot begin in the middle of a run; "
        "set optim.ema=0 as before, or give the run a new folder",
    )
    if there and not ema and aloud:
        warnings.warn(f"{snapshot.path} has a moving average of the weights, which ends here: optim.ema is 0, the last weights are kept", stacklevel=3)
