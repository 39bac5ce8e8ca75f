"""Whole: a small local file, which whoever reads it finds as it was or as it is to be, and never in between."""

import os
import uuid
from pathlib import Path


def write(path: Path, text: str) -> Path:
    """Puts `text` at `path`, flushed to the disk, whatever was there; several writers at once, on several machines, do not hinder one another.

    Returns:
        `path`.

    Raises:
        OSError: it cannot be written; what was there is still there, and nothing beside it.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with part.open("x", encoding="utf-8") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path
