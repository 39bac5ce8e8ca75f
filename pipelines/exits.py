"""Exit: the exit codes of every command, the same for `pan` and for the scripts that a cluster runs."""

import atexit
import os
import sys
from enum import IntEnum
from typing import NoReturn


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


def leave(code: int) -> NoReturn:
    """Ends the process with `code`, once everything has been written and every exit handler has run, but without C++'s own end.

    Arrow's threads are not joined there: on a busy machine one in ten short commands ended with "terminate called" and code 134.
    """
    try:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)
