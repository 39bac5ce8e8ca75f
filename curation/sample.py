"""Sample: a kept clip's row as the JSON document that its shard holds, schema pan-clip/1, the same bytes for the same row."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from json.encoder import encode_basestring
from typing import Any

import numpy as np

from curation.clips import SCHEMA_VERSION

GRID_FPS = 16.0  # PAN's rounds live on this grid. Source: PAN 6.1, 16 frames per second
CHUNK_FRAMES = 40  # pixel frames a chunk, after the one image that a clip begins with. Source: PAN, Causal Swin-DPM: 10 latent frames of 4


def to_json(value: Any) -> str:
    """Canonical JSON in one line: sorted keys, floats in their shortest digits without exponent and always with a decimal point.

    A float32 (numpy) is written in float32's shortest digits, so that 0.3 does not become 0.30000001192092896.

    Raises:
        ValueError: a NaN or infinity, or a type that JSON does not have.
    """
    if isinstance(value, str):
        return encode_basestring(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{encode_basestring(key)}: {to_json(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(to_json(item) for item in value) + "]"
    if isinstance(value, float | np.floating):
        if not math.isfinite(value):
            raise ValueError(f"{value} cannot be written: JSON knows no NaN and no infinity")
        return np.format_float_positional(value, unique=True, trim="0")
    if value is None or isinstance(value, bool | int):
        return json.dumps(value)
    raise ValueError(f"{type(value).__name__} cannot be written as JSON")


def digest(value: Any) -> str:
    """sha256 of `to_json(value)` in hex."""
    return hashlib.sha256(to_json(value).encode()).hexdigest()


def schema() -> dict[str, Any]:
    """The JSON Schema of pan-clip/1, as shipped."""
    document: dict[str, Any] = json.loads((files("curation") / "pan-clip-1.schema.json").read_text())
    return document


def provenance_of(row: Mapping[str, Any]) -> dict[str, str]:
    """The provenance columns of a row as strings: null is "", a number or list is its JSON text."""
    loaded = json.loads(row["provenance"] or "{}")
    return {str(key): value if isinstance(value, str) else "" if value is None else to_json(value) for key, value in loaded.items()}


def document(row: Mapping[str, Any], scores: Sequence[str], provenance: Sequence[str], thresholds_sha256: str) -> dict[str, Any]:
    """The sample's JSON: every key is there in every sample, a key has one type everywhere and is never null.

    That is what Hugging Face `datasets` needs: it takes the types from the first five samples, so that a null, or a list that is empty in all
    of them, would make it refuse the sixth. What is not known is "".

    Args:
        row: a clip's ledger row.
        scores: the score columns that were measured in every clip of the dataset (the sidecars have the others too); float32 in the row's table.
        provenance: the provenance columns of all videos of the dataset.
        thresholds_sha256: digest of the thresholds under which the clip was kept.
    """
    given = provenance_of(row)
    events = [(float(e["start_s"]), float(e["end_s"]), str(e["text"])) for e in row["events"] or []]
    sealed = seal_of(row["clip_id"], row["video_id"], row["frames_sha256"] or "", events, row["caption"] or "", row["structure"] or "")
    captions = [{"kind": "event", "t0": t0, "t1": t1, "text": text} for t0, t1, text in events]
    return {
        "schema": SCHEMA_VERSION,
        **{name: row[name] for name in ("clip_id", "video_id", "clip_index", "start_pts", "end_pts", "time_base", "start_frame", "end_frame", "chunks")},
        "start_s": float(row["start_s"]),
        "end_s": float(row["end_s"]),
        "source": {"uri": row["video_uri"], "fps": float(row["fps"]), "width": row["width"], "height": row["height"]},
        "notes": " ".join(row["notes"] or []),
        "caption": row["caption"] or "",
        "caption_backend": row["caption_backend"] or "",
        "prompt_version": row["prompt_version"] or "",
        "structure": row["structure"] or "",
        "frames_sha256": row["frames_sha256"] or "",
        "caption_sha256": sealed,
        "binding": binding_of(sealed, row["video_sha256"]),
        "captions": captions,
        "rounds": rounds(int(row["chunks"]), events),
        "scores": {name: np.float32(row[name]) for name in scores},
        "provenance": {"uri": row["video_uri"], **{name: given.get(name, "") for name in provenance}},
        "decision": {"kept": True, "stages": list(row["stages"]), "thresholds_sha256": thresholds_sha256},
        "mp4": {
            "sha256": row["video_sha256"],
            "bytes": row["length"],
            "frames": row["video_frames"],
            "fps": float(row["video_fps"]),
            "width": row["video_width"],
            "height": row["video_height"],
            "start_frame": row["video_start_frame"] or 0,
        },
    }


def seal_of(clip_id: str, video_id: str, frames_sha256: str, events: Sequence[tuple[float, float, str]], caption: str, structure: str) -> str:
    """sha256 in hex of a caption with the clip it was written for and the pictures it was written from: the same text elsewhere has another."""
    said = {"events": [list(event) for event in events], "caption": caption, "structure": structure}
    return digest({"clip_id": clip_id, "video_id": video_id, "frames_sha256": frames_sha256, **said})


def binding_of(caption_sha256: str, video_sha256: str) -> str:
    """sha256 in hex of a sealed caption with the MP4 that it is published beside."""
    return digest({"caption_sha256": caption_sha256, "mp4_sha256": video_sha256})


def rounds(chunks: int, events: Sequence[tuple[float, float, str]], chunk_frames: int = CHUNK_FRAMES, grid_fps: float = GRID_FPS) -> list[dict[str, Any]]:
    """PAN's rounds (state, action, next state) of a clip: round k is the frames 1 + 40 k to 40 + 40 k of the 16 fps grid; frame 0 is the first image.

    Each action is the text of the event that overlaps the round most (the earlier of two that tie), "" where none does. A model whose chunks are of another
    length, or on another clock, has its own grid.
    """
    found = []
    for k in range(chunks):
        first, last = 1 + chunk_frames * k, chunk_frames * (k + 1)
        t0, t1 = first / grid_fps, (last + 1) / grid_fps
        overlap = [min(t1, end) - max(t0, start) for start, end, _ in events]
        best = max(range(len(events)), key=overlap.__getitem__, default=None)
        action = events[best][2] if best is not None and overlap[best] > 0 else ""
        found.append({"index": k, "first_frame": first, "last_frame": last, "t0": t0, "t1": t1, "action": action})
    return found
