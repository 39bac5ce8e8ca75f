"""Judge labels: what people say of clips, one JSON object a line (pan-judge-label/1); what `pipelines/train_judge.py` learns from."""

import hashlib
import json
from collections.abc import Collection, Sequence
from io import BytesIO
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationError, model_validator

from curation.clips import ClipError
from curation.config import Config
from curation.frames import Frames
from curation.limits import Limits
from curation.opening import Source
from curation.pictures import Picture
from curation.sampler import grid_s, sample_clip
from curation.shards import open_sample
from curation.shots import SplitConfig
from curation.video import Video

#: The format's JSON Schema, in this folder: `LabelledClip.model_json_schema()`.
SCHEMA = "pan-judge-label-1.schema.json"


class Place(Config):
    """Where a clip is: a stretch of a video, or a sample of a published output; exactly one of both."""

    video: str = Field("", description="path or URI of a video; a relative path is taken from the labels file's folder")
    start_s: float = Field(0.0, ge=0, description="s since the video's first frame")
    end_s: float | None = Field(None, gt=0, description="s since the video's first frame, exclusive; null = to the end, at most the splitter's longest clip")
    output: str = Field("", description="an output of `pan curate`: folder or URI; a relative path is taken from the labels file's folder")
    clip_id: str = Field("", description="the sample's key in that output")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if bool(self.video) == bool(self.output) or bool(self.output) != bool(self.clip_id):
            raise ValueError("give video (with start_s and end_s), or output and clip_id")
        if self.end_s is not None and self.end_s <= self.start_s:
            raise ValueError(f"end_s {self.end_s} is not after start_s {self.start_s}")
        return self


class LabelledClip(Config):
    """One line of a labels file."""

    format: Literal["pan-judge-label/1"] = Field("pan-judge-label/1", alias="schema", description="of the line")
    clip: Place = Field(..., description="where it is")
    labels: dict[str, bool] = Field(..., min_length=1, description="property -> whether the clip has it; one that is missing was not looked at")
    source: str = Field("", description="what clips share that must not stand on both sides of a split, such as their source; empty = the video or clip")
    weight: float = Field(1.0, gt=0, le=1000, description="how much it counts, such as the share of the annotators who agree")
    annotator: str = Field("", description="who said so")
    note: str = Field("", description="anything; not read")

    @property
    def group(self) -> str:
        """What it is split by."""
        return self.source or self.clip.video or self.clip.clip_id


def read_labels(path: Path, properties: Collection[str]) -> list[LabelledClip]:
    """The lines of a labels file; blank ones are passed over.

    Args:
        properties: the names that may be labelled.

    Raises:
        ValueError: the file is not there or empty, or lines do not fit the format: the first five, each by its number.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as fault:
        raise ValueError(f"labels {path} cannot be read: {fault}") from fault
    found, wrong = list[LabelledClip](), list[str]()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            clip = LabelledClip.model_validate(json.loads(line))
            if unknown := sorted(set(clip.labels) - set(properties)):
                raise ValueError(f"no such property: {', '.join(unknown)}; there are {', '.join(properties)}")
            found.append(clip)
        except ValidationError as fault:
            wrong.append(f"line {number}: " + "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in fault.errors()))
        except ValueError as fault:
            wrong.append(f"line {number}: {fault}")
    if wrong or not found:
        raise ValueError(f"labels {path}: " + ("\n".join(wrong[:5]) if wrong else "no labels in it"))
    return found


def frames_of_label(clip: LabelledClip, folder: Path, split: SplitConfig, limits: Limits) -> Frames:
    """The clip's `Frames`, sampled as the splitter samples.

    Args:
        folder: the labels file's.

    Raises:
        ClipError: the video cannot be read, or no picture lies in the stretch.
        KeyError: the output has no such sample.
    """
    place = clip.clip
    if place.output:
        mp4 = open_sample(_from(folder, place.output), place.clip_id).mp4
        source: str | Source = Source(BytesIO(mp4), len(mp4), lambda: (len(mp4), 0))
    else:
        source = _from(folder, place.video)
    end_s = place.end_s if place.end_s is not None else float("inf")
    longest = place.start_s + grid_s(split.max_chunks)
    inside = list[Picture]()
    with Video(source, limits, split.size) as video:
        for picture in video.pictures():
            if picture.time_s >= min(end_s, longest):
                break
            if picture.time_s >= place.start_s:
                inside.append(picture)
    if len(inside) < 2:
        raise ClipError("too_short", f"{len(inside)} pictures between {place.start_s} and {place.end_s} s")
    last = inside[-1].time_s + (inside[-1].time_s - inside[-2].time_s)
    return sample_clip(inside, place.start_s, min(end_s, last), split.sample_fps, split.neighbour_s, split.max_chunks)


def _from(folder: Path, name: str) -> str:
    return name if "://" in name or Path(name).is_absolute() else str(folder / name)


def part_of(group: str, shares: Sequence[float]) -> int:
    """Which part a group falls into, always the same: `shares` of the groups in expectation go into each part but the last, which gets the rest."""
    place = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") / 2**64
    for part, share in enumerate(shares):
        place -= share
        if place < 0:
            return part
    return len(shares)
