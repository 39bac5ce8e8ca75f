"""Binding: hashes that tie a caption to the clip it was written for, from the pictures that were looked at to the sample that a trainer reads."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from curation.sample import binding_of, digest, rounds, seal_of
from curation.shards import Sample


class Unbound(ValueError):
    """A sample whose caption, pictures or document do not belong together."""


def seal(row: Mapping[str, Any]) -> str:
    """The row's `caption_sha256`: sha256 in hex of its caption with whose it is and which pictures it was written from."""
    return seal_of(row["clip_id"], row["video_id"], row["frames_sha256"] or "", timed(row["events"] or []), row["caption"] or "", row["structure"] or "")


def timed(events: Iterable[Mapping[str, Any]]) -> list[tuple[float, float, str]]:
    """(start, end, text) of the `events` column."""
    return [(float(e["start_s"]), float(e["end_s"]), str(e["text"])) for e in events]


def faults(row: Mapping[str, Any]) -> list[str]:
    """What is wrong between a ledger row's caption and its clip: the seal is another, or no answer of a model's caption is about it."""
    if row["caption_sha256"] != seal(row):
        return [f"its caption was sealed as {str(row['caption_sha256'])[:12]}, it is {seal(row)[:12]} now: it may be another clip's"]
    if row["structure"] is None:
        return []
    records = [json.loads(text) for text in row["answers"] or []]
    of_it = [r for r in records if r["prompt_version"] == row["prompt_version"] and r["frames_sha256"] == row["frames_sha256"]]
    if not of_it:
        return ["no model's answer is about the pictures that its caption was written from"]
    return [f"the answer that its caption was made of is about clip {r['clip_id']}" for r in of_it if r["clip_id"] != row["clip_id"]]


def check(sample: Sample) -> None:
    """Holds a sample together: what a trainer calls on every sample that it reads; `pan verify` does so on all.

    Raises:
        Unbound: the first thing that does not belong to the others: key, MP4, text, events, rounds, structure or pictures.
    """
    try:
        wrong = problems(sample)
    except (KeyError, TypeError) as fault:
        raise Unbound(f"sample {sample.key}: its document lacks {fault}") from fault
    if wrong:
        raise Unbound(f"sample {sample.key}: {wrong[0][1]}")


def problems(sample: Sample) -> list[tuple[str, str]]:
    """(kind, what) of everything in a sample that does not belong together: "bad_sample", or "unbound" where it is the caption.

    Raises:
        KeyError, TypeError: its document is not pan-clip/1's.
    """
    doc = sample.document
    events = [(c["t0"], c["t1"], c["text"]) for c in doc["captions"]]
    told = [
        ("bad_sample", f"the document is about clip {doc['clip_id']}", doc["clip_id"] == sample.key),
        ("bad_sample", "the MP4's sha256 is not the document's", hashlib.sha256(sample.mp4).hexdigest() == doc["mp4"]["sha256"]),
        ("bad_sample", "the caption is not the .txt member", doc["caption"] == sample.text),
        ("unbound", "the rounds' actions are not those of its events", _actions(doc["rounds"]) == _actions(rounds(doc["chunks"], events))),
        ("unbound", "its caption is not the one that was sealed for this clip", doc["caption_sha256"] == _sealed(doc, events)),
        ("unbound", "caption and MP4 were not bound together", doc["binding"] == binding_of(doc["caption_sha256"], doc["mp4"]["sha256"])),
    ]
    return [(kind, what) for kind, what, holds in told if not holds]


def _sealed(doc: Mapping[str, Any], events: Sequence[tuple[float, float, str]]) -> str:
    return seal_of(doc["clip_id"], doc["video_id"], doc["frames_sha256"], events, doc["caption"], doc["structure"])


def _actions(found: Sequence[Mapping[str, Any]]) -> str:
    return digest([[r["index"], r["action"]] for r in found])
