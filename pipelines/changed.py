"""Changed: what a run does with files that were curated and have other bytes since."""

from enum import StrEnum


class Changed(StrEnum):
    """What becomes of a curated file that has other bytes since; nothing of it is ever silent."""

    REPORT = "report"  # its old clips stay, it is named, and the run ends with code 3
    KEEP = "keep"  # its old clips stay, and it is named
    REPLACE = "replace"  # it is curated anew, and its old clips are rejected as "source_changed"
