"""The clip: one row of the stream, its schema, its identity, and the error that a bad item becomes."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

SCHEMA_VERSION = "pan-clip/1"

#: What a row's `stages` gets each time that its caption is renewed: of two rows about a clip the one that was renewed more often counts.
RECAPTION = "recaption"

EVENT = pa.struct([("start_s", pa.float64()), ("end_s", pa.float64()), ("text", pa.string())])

#: Every column that is not a score. Rows of `kind` "clip" and "video" travel in one stream: a video's row is the last
#: that SplitVideo yields for it and says how many clips were found, so completeness can be checked without a join.
#: (born in -> dies in; "-" lives for ever)
BASE_FIELDS: tuple[pa.Field, ...] = (
    pa.field("kind", pa.string(), nullable=False),  # SplitVideo -> -      "clip" or "video"
    pa.field("clip_id", pa.string()),  # SplitVideo -> -      16 hex digits; null in a video's row
    pa.field("video_id", pa.string(), nullable=False),  # sources -> -         16 hex digits of the content's sha256 (of the uri where it could not be read)
    pa.field("video_uri", pa.string(), nullable=False),  # sources -> -         as given; escaped if not UTF-8
    pa.field("video_stamp", pa.string()),  # sources -> -         size and time of the file when it was read (curation.opening.stamp_of); not published
    pa.field("provenance", pa.string()),  # sources -> -         JSON object: every other column of the manifest
    pa.field("clip_index", pa.int32()),  # SplitVideo -> -      0, 1, ... in time order within the video
    pa.field("start_s", pa.float64()),  # SplitVideo -> -      s since the video's first frame
    pa.field("end_s", pa.float64()),  # SplitVideo -> -      exclusive
    pa.field("start_pts", pa.int64()),  # SplitVideo -> -      in time_base units, as in the file
    pa.field("end_pts", pa.int64()),  # SplitVideo -> -      exclusive: pts of the first frame that is not in the clip
    pa.field("time_base", pa.string()),  # SplitVideo -> -      "1/12800"
    pa.field("start_frame", pa.int64()),  # SplitVideo -> -      index of decoded source frames
    pa.field("end_frame", pa.int64()),  # SplitVideo -> -      exclusive
    pa.field("chunks", pa.int32()),  # SplitVideo -> -      N of PAN's grid: the clip is 1 + 40 N frames at 16 fps; 0 if too short
    pa.field("fps", pa.float64()),  # SplitVideo -> -      the source's average frames per second
    pa.field("width", pa.int32()),  # SplitVideo -> -      display size: rotation and pixel aspect applied
    pa.field("height", pa.int32()),  # SplitVideo -> -
    pa.field("notes", pa.list_(pa.string())),  # SplitVideo -> -      flags: "extra_streams", "interlaced", "hdr", "rotated_90", ...
    pa.field("frames", pa.large_binary()),  # SplitVideo -> nulled as soon as the clip is rejected or captioned (curation.frames)
    pa.field("status", pa.string(), nullable=False),  # any -> -             "ok", "failed", "duplicate"; a rejected clip is "ok" with reasons
    pa.field("error_code", pa.string()),  # any -> -             ClipError.reason of a failed row
    pa.field("error_detail", pa.string()),  # any -> -             one line, at most 500 characters, control characters escaped
    pa.field("reject", pa.list_(pa.string()), nullable=False),  # any -> -             reasons, in the order found; empty = kept
    pa.field("stages", pa.list_(pa.string()), nullable=False),  # each stage -> -      the stages that did their work on this row
    pa.field("stats", pa.string()),  # SplitVideo -> -      video rows only, JSON: clips, frames_decoded, source_frames, duration_s, cpu_s
    pa.field("embedding", pa.string()),  # EmbedClips -> ledger  a few pictures' unit vectors (curation.embed.pack_vectors)
    pa.field("content_sha256", pa.string()),  # EmbedClips -> -    of the sampled pixels: equal for the same pictures in whatever file
    pa.field("events", pa.list_(EVENT)),  # CaptionClips -> -    times in s from the clip's start, one a chunk, ordered
    pa.field("caption", pa.string()),  # CaptionClips -> -    whole-clip text
    pa.field("caption_backend", pa.string()),  # CaptionClips -> -    "measured", later the model's name
    pa.field("prompt_version", pa.string()),  # CaptionClips -> -
    pa.field("structure", pa.string()),  # CaptionClips -> -    JSON: the model's structured caption (chunks, actors, camera); null for "measured"
    pa.field("frames_sha256", pa.string()),  # CaptionClips -> -    of the pictures that the caption was written from (curation.vlm.frames_sha256)
    pa.field("caption_sha256", pa.string()),  # CaptionClips -> -    seal of the caption with clip_id, video_id and frames_sha256 (curation.binding.seal)
    pa.field("caption_settings", pa.string()),  # CaptionClips -> -    16 hex digits of the settings that decided its words (pan recaption)
    pa.field("answers", pa.list_(pa.string())),  # content, CaptionClips -> -    a model's answers as JSON (curation.vlm.Answer.record)
    pa.field("video", pa.large_binary()),  # CutClips -> segment   MP4 bytes of a kept clip
    pa.field("video_sha256", pa.string()),  # CutClips -> -
    pa.field("video_frames", pa.int32()),  # CutClips -> -        frames in the MP4, counted
    pa.field("video_fps", pa.float64()),  # CutClips -> -
    pa.field("video_width", pa.int32()),  # CutClips -> -
    pa.field("video_height", pa.int32()),  # CutClips -> -
    pa.field("video_start_frame", pa.int32()),  # CutClips -> -        copy mode: the MP4's frame at which the clip begins; encode: 0
)


class ClipError(Exception):
    """The data's fault: recorded in the row as `reason`, and the job goes on.

    Attributes:
        reason: a code of the decoder, a filter or the captioner, such as "truncated".
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, one_line(detail)


def one_line(text: str, limit: int = 500) -> str:
    """`text` with control, bidi and unpaired surrogate characters escaped, at most `limit` characters."""
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
    return safe[:limit]


def clip_schema(scores: Iterable[str] = ()) -> pa.Schema:
    """The stream's schema with one nullable float32 column a score (null = not measured)."""
    return pa.schema([*BASE_FIELDS, *(pa.field(name, pa.float32()) for name in scores)])


def table_of(rows: Iterable[Mapping[str, Any]], scores: Iterable[str] = ()) -> pa.Table:
    """Rows as a table of `clip_schema(scores)`; a missing key is null, or empty for `reject` and `stages`."""
    filled = [{"reject": [], "stages": [], "status": "ok", "kind": "clip", **row} for row in rows]
    return pa.Table.from_pylist(filled, schema=clip_schema(scores))


def clip_id(video_id: str, start_pts: int, end_pts: int, time_base: str, split_digest: str) -> str:
    """Sixteen hex digits that depend on the content, the place in it and the splitter's settings alone."""
    key = f"{video_id}|{start_pts}|{end_pts}|{time_base}|{split_digest}"
    return hashlib.sha256(key.encode()).hexdigest()[:16]
