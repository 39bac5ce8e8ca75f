"""Uris: where a video lies, as text that Arrow can hold, and which of them a user may give."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes, urlsplit

from curation.clips import one_line

REMOTESCHEMES = ("s3", "gs")
SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
WILD = re.compile(r"[*?\[]")


def uri_of(path: str | os.PathLike[str]) -> str:
    """The absolute path as it stands; one whose bytes are not UTF-8 as file:// with percent escapes, for Arrow. `local_path` is the inverse."""
    absolute = os.path.abspath(path)
    try:
        absolute.encode()
    except UnicodeEncodeError:
        return "file://" + quote_from_bytes(os.fsencode(absolute))
    return absolute


def local_path(uri: str) -> str | None:
    """The path in the local file system that `uri` names (surrogate escapes where its bytes are not UTF-8), or None where it is remote."""
    scheme = SCHEME.match(uri)
    if scheme is None:
        return uri
    return os.fsdecode(unquote_to_bytes(uri[7:])) if scheme[1].lower() == "file" else None


def glob_regex(pattern: str) -> str:
    """A regular expression for a glob on object names: `*` and `?` stay within a folder, `**/` crosses folders, `[a-c]` and `[!a-c]` as in a shell."""
    out = ""
    for part in re.findall(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|.", pattern, re.DOTALL):
        sets = "[" + part[1:-1].replace("\\", "\\\\").replace("!", "^", part[1] == "!") + "]" if len(part) > 2 and part[0] == "[" else ""
        out += {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(part) or sets or re.escape(part)
    return out


def refused(uri: str) -> str:
    """Why a uri with a scheme is not taken, or "" where it is."""
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https"):
        return "URL inputs are off; download the file and list its path"
    if parts.scheme not in ("file", *REMOTESCHEMES):
        return f"unknown scheme {parts.scheme}://; known are file, {', '.join(REMOTESCHEMES)}, and plain paths"
    if "@" in parts.netloc:
        return "credentials do not belong in a uri, which travels to the shards; use the environment or a profile"
    if parts.scheme == "file" and parts.netloc not in ("", "localhost"):
        return f"file:// must name a local path, not the host {one_line(parts.netloc)}"
    return "" if parts.scheme == "file" or parts.netloc else "no bucket is named"


def target_of(value: Any, folder: str) -> tuple[str | None, str]:
    """A manifest's uri as an absolute one, or None and what is wrong; relative to `folder`, the manifest's own."""
    if not isinstance(value, str) or not value.strip():
        return None, "uri is empty" if value is None or isinstance(value, str) else f"uri must be text, got {type(value).__name__}"
    if "\0" in value:
        return None, "uri holds a NUL byte"
    if not SCHEME.match(value):
        return (f"{folder}/{value.lstrip('/')}", "") if SCHEME.match(folder) else (uri_of(os.path.join(folder, value)), "")
    if wrong := refused(value):
        return None, wrong
    path = local_path(value.replace("://localhost/", ":///", 1))
    return (value if path is None else uri_of(path)), ""


def check_output(out: str, inputs: Sequence[str]) -> None:
    """Refuses an output that a scan of the inputs would read.

    Raises:
        ValueError: `out` is an input, or lies inside an input folder or under a pattern that crosses folders.
    """
    place = _place(out)
    for given in inputs:
        wild = WILD.search(given)
        base = _place(given[: wild.start()].rpartition("/")[0] or "." if wild else given)
        deep = not wild or "**" in given
        if place == _place(given) or (deep and (place + "/").startswith(base.rstrip("/") + "/")):
            raise ValueError(f"the output {out!r} lies inside the input {given!r}: the next run would read its own shards; choose a folder beside it")


def plan_inputs(inputs: Sequence[str]) -> list[str]:
    """The inputs as a plan records them: absolute, each once, sorted; the order they were given in changes nothing."""
    return sorted({given.rstrip("/") if local_path(given) is None else uri_of(local_path(given) or "") for given in inputs})


def _place(uri: str) -> str:
    path = local_path(uri)
    return uri.rstrip("/") if path is None else str(Path(path).resolve())
