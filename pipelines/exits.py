"""Exit: the exit codes of every command, the same for `pan` and for the scripts that a cluster runs."""

from enum import IntEnum


class Exit(IntEnum):
    """What a command's end means to whoever started it."""

    COMPLETE = 0
    BUG = 1
    USAGE = 2  # the user's settings or arguments
    OVER_BUDGET = 3  # finished or stopped with too many faults; also: `pan verify` found a fault; a curated file has changed
    PREFLIGHT = 4
    STORAGE = 5
    LOCKED = 6  # another run holds the output
    INTERRUPTED = 75  # can be resumed by the same command
