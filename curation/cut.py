"""CutClips: the kept clips become MP4 bytes of our own making; nothing of the original container gets through."""

import hashlib
import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Annotated, Any, BinaryIO, Literal, cast

import av
import numpy as np
import pyarrow as pa
from av.bitstream import BitStreamFilterContext
from av.codec.context import Flags
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from pydantic import Field

from curation.clips import ClipError
from curation.config import Config
from curation.film import X264
from curation.limits import Limits
from curation.opening import Source, check_unchanged
from curation.pictures import Look
from curation.video import Video, open_output

GRID_FPS = 16  # PAN's clock: a clip of N chunks is 1 + 40 N frames at 16 fps. Source: the PAN report, section 3
CHUNK_FRAMES = 40

_SCALER = Interpolation(Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT)
_COPYABLE = frozenset({"h264", "hevc", "av1", "vp9", "mpeg4"})
_BT709 = 1


class CutConfig(Config):
    """How a kept clip is written."""

    mode: Literal["encode", "copy"] = Field("encode", description="encode: exact frames, one format; copy: the original packets from the key frame in front")
    fps: Annotated[float, Field(gt=0, le=240)] | Literal["source"] = Field(
        16.0, description="constant frames per second, PAN's 16; `source` keeps every frame at its own time"
    )
    short_px: int = Field(480, ge=64, le=4320, description="short side, never enlarged; PAN trains at 480p (832x480)")
    crf: int = Field(18, ge=0, le=40, description="x264's constant quality: 18 measured 43 dB, SSIM 0.989 at 480p; 23 halves the bytes for 3.4 dB less")
    preset: Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow"] = Field(
        "veryfast", description="x264's speed: of superfast's bytes veryfast saves a quarter; medium gains 1.3 dB for 2.5 times the CPU"
    )
    gop_s: float = Field(2.0, gt=0, le=10, description="s between key frames at most: a reader that wants one chunk decodes little more")


@dataclass(frozen=True)
class Mp4:
    """One MP4 file.

    Attributes:
        data: the bytes; sha256 in hex; frames counted by decoding `data`; fps average; width, height in px.
        start_frame: the frame at which the clip begins; 0 unless copied.
    """

    data: bytes
    sha256: str
    frames: int
    fps: float
    width: int
    height: int
    start_frame: int


def cut(uri: str, start_pts: int, end_pts: int, config: CutConfig | None = None, limits: Limits | None = None, chunks: int = 0) -> Mp4:
    """The frames of [start_pts, end_pts) as an MP4 of their own, counted by decoding it again.

    At a constant rate, output frame k shows the source frame whose presentation interval contains start + k / fps (to within one tick of the source's
    clock); a frame from outside the range is never taken. With `chunks` = N > 0 the MP4 lasts 2.5 N s and one frame: 1 + 40 N frames at 16 fps.
    The same input gives the same bytes (one encoder thread, no version strings).

    Raises:
        ClipError: as `Video`; "cut_mismatch" if the range does not hold the frames that are promised, or the MP4 does not.
    """
    config = config or CutConfig()
    with Video(uri, limits) as video:
        try:
            return _copied(video, start_pts, end_pts) if config.mode == "copy" else _encoded(video, start_pts, end_pts, config, chunks)
        except av.error.FFmpegError as error:
            raise ClipError("cut_mismatch", str(error)) from error


def _encoded(video: Video, start_pts: int, end_pts: int, config: CutConfig, chunks: int) -> Mp4:
    time_base = video.info.time_base
    look = video.look(lambda width, height: _fitted(width, height, config.short_px))
    spans = video.span(start_pts, end_pts)
    if config.fps == "source":
        clock, rate = time_base, Fraction(video.info.fps).limit_denominator(1001)
        seconds = Fraction(chunks * CHUNK_FRAMES, GRID_FPS) if chunks else None
        timed: Iterator[tuple[int, av.VideoFrame]] = (
            (pts - start_pts, frame) for pts, frame in spans if seconds is None or (pts - start_pts) * time_base <= seconds
        )
    else:
        rate = Fraction(config.fps).limit_denominator(1001)
        clock, promised = 1 / rate, 1 + int(Fraction(chunks * CHUNK_FRAMES, GRID_FPS) * rate) if chunks else None
        timed = _on_grid(spans, start_pts, end_pts, float(1 / (rate * time_base)), min(1.0, 0.002 / float(time_base)), promised)
    data, count = _written(timed, look, rate, clock, config)
    if not count or (config.fps != "source" and chunks and count != promised):
        raise ClipError("cut_mismatch", f"{count} frames lie in the range, {promised if chunks else 'at least 1'} were promised")
    mp4 = _checked(data, start_frame=0)
    if mp4.frames != count or (mp4.width, mp4.height) != look.size:
        raise ClipError("cut_mismatch", f"{mp4.frames} frames of {mp4.width}x{mp4.height} px, written were {count} of {look.size}")
    return mp4


def _fitted(width: int, height: int, short: int) -> tuple[int, int]:
    scale = min(1.0, short / min(width, height))
    return tuple(max(2, min(2 * round(side * scale / 2), side - side % 2)) for side in (width, height))  # type: ignore[return-value]


def _on_grid(
    frames: Iterator[tuple[int, av.VideoFrame]], start: int, end: int, step: float, slack: float, promised: int | None
) -> Iterator[tuple[int, av.VideoFrame]]:
    """(k, frame) for k = 0, 1, ...: the frame shown at `start + k * step` pts; `slack` forgives the rounding of coarse clocks."""
    k, held = 0, None
    for pts, frame in frames:
        while held is not None and start + k * step < pts - slack and (promised is None or k < promised):
            yield k, held
            k += 1
        held = frame
    while held is not None and start + k * step < end - slack and (promised is None or k < promised):
        yield k, held
        k += 1


class _Encoder:
    """Upright limited-range BT.709 yuv420p from decoded frames, in x264."""

    def __init__(self, container: Any, look: Look, rate: Fraction, clock: Fraction, config: CutConfig) -> None:
        self._look, self._reformat = look, VideoReformatter().reformat
        options = {"crf": str(config.crf), "preset": config.preset, "x264-params": X264}
        self.stream = container.add_stream("libx264", rate=rate, options=options)
        self.stream.width, self.stream.height = look.size
        self.stream.pix_fmt = "yuv420p"
        context = self.stream.codec_context
        context.time_base, context.thread_count = clock, 1
        context.gop_size = max(1, int(config.gop_s * rate))
        context.flags |= Flags.bitexact | Flags.closed_gop
        context.color_primaries = context.color_trc = context.colorspace = context.color_range = _BT709

    def frame(self, frame: av.VideoFrame, pts: int) -> av.VideoFrame:
        width, height = self._look.coded_size
        plain = self._look.plain(frame, width, height)
        matrix = self._look.matrix(plain)
        small = self._reformat(plain, width, height, "yuv420p", matrix, Colorspace.ITU709, _SCALER, dst_color_range=ColorRange.MPEG, threads=1)
        planes = []
        for plane in small.planes:
            pixels = np.frombuffer(cast(bytes, plane), np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]
            planes.append(self._look.upright(pixels))
        upright = av.VideoFrame(planes[0].shape[1], planes[0].shape[0], "yuv420p")
        for plane, pixels in zip(upright.planes, planes, strict=True):
            padded = np.zeros((plane.height, plane.line_size), np.uint8)
            padded[:, : plane.width] = pixels
            plane.update(padded.tobytes())
        upright.pts, upright.time_base = pts, self.stream.codec_context.time_base
        upright.color_primaries = upright.color_trc = upright.colorspace = upright.color_range = _BT709
        return upright


def _written(frames: Iterator[tuple[int, av.VideoFrame]], look: Look, rate: Fraction, clock: Fraction, config: CutConfig) -> tuple[bytes, int]:
    """(MP4 bytes, frames encoded)."""
    out, count = io.BytesIO(), 0
    with open_output(out) as container:
        encoder = _Encoder(container, look, rate, clock, config)
        without_sei: BitStreamFilterContext | None = None
        for pts, frame in frames:
            packets = encoder.stream.encode(encoder.frame(frame, pts))
            count += 1
            without_sei = without_sei or BitStreamFilterContext("filter_units=remove_types=6", encoder.stream)
            for packet in packets:
                container.mux(without_sei.filter(packet))
        if count and without_sei:
            for packet in encoder.stream.encode():
                container.mux(without_sei.filter(packet))
    return faststart(out.getvalue()) if count else b"", count


def _copied(video: Video, start_pts: int, end_pts: int) -> Mp4:
    if video.info.codec not in _COPYABLE:
        raise ClipError("cut_mismatch", f"{video.info.codec} cannot be copied into an MP4; use mode encode")
    packets = video.packets(start_pts, end_pts)
    if not packets:
        raise ClipError("cut_mismatch", "no packet of the range has a time; use mode encode")
    out, key_pts = io.BytesIO(), packets[0].pts
    with open_output(out) as container:
        stream = container.add_stream_from_template(video.stream, opaque=True)
        shown = sorted(packet.pts for packet in packets)
        # Decoding times anew, as Matroska has none: the presentation times in order, early enough for the latest of the reordered.
        early = max(at - packet.pts for at, packet in zip(shown, packets, strict=True))
        for at, packet in zip(shown, packets, strict=True):
            packet.pts, packet.dts, packet.stream = packet.pts - shown[0] + early, at - shown[0], stream
            container.mux(packet)
    offset_s = float((start_pts - key_pts) * video.info.time_base)
    return _checked(faststart(out.getvalue()), offset_s=offset_s)


def _checked(data: bytes, start_frame: int | None = None, offset_s: float = 0.0) -> Mp4:
    """`data` decoded: frames counted, and the frame `offset_s` after the first found if `start_frame` is not given."""
    limits = Limits(min_side_px=2, min_frames=1, min_fps=1e-6, max_fps=1e6, max_aspect=1e6)
    times = []
    try:
        with Video(Source(cast(BinaryIO, io.BytesIO(data)), len(data), lambda: (len(data), 0)), limits, size=64) as video:
            for pts, _ in video.span(video.first_pts, 1 << 62):
                times.append(float((pts - video.first_pts) * video.info.time_base))
            info = video.info
    except ClipError as error:
        raise ClipError("cut_mismatch", f"what was written does not decode: {error}") from error
    if start_frame is None:
        start_frame = next((i for i, t in enumerate(times) if abs(t - offset_s) < 1e-3), -1)
        if start_frame < 0:
            raise ClipError("cut_mismatch", f"no frame {offset_s:.4f} s after the first of {len(times)}")
    return Mp4(data, hashlib.sha256(data).hexdigest(), len(times), info.fps, info.width, info.height, start_frame)


def faststart(data: bytes) -> bytes:
    """An MP4 with `moov` in front of `mdat` and its chunk offsets moved accordingly."""
    boxes = list(_boxes(data, 0, len(data)))
    names = [name for name, _, _ in boxes]
    if b"mdat" not in names or names.index(b"moov") < names.index(b"mdat"):
        return data
    moov = next(bytearray(data[start:stop]) for name, start, stop in boxes if name == b"moov")
    _move_offsets(moov, 8, len(moov), len(moov))
    front = [data[start:stop] for name, start, stop in boxes if name == b"ftyp"]
    rest = [data[start:stop] for name, start, stop in boxes if name not in (b"ftyp", b"moov")]
    return b"".join([*front, bytes(moov), *rest])


def _boxes(data: bytes | bytearray, start: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """(type, first byte, end) of the boxes in [start, stop) of a file that we wrote ourselves."""
    while start + 8 <= stop:
        length = struct.unpack_from(">I", data, start)[0]
        length = struct.unpack_from(">Q", data, start + 8)[0] if length == 1 else length
        yield bytes(data[start + 4 : start + 8]), start, start + length
        start += length


def _move_offsets(moov: bytearray, start: int, stop: int, by: int) -> None:
    for name, first, end in list(_boxes(moov, start, stop)):
        if name in (b"trak", b"mdia", b"minf", b"stbl"):
            _move_offsets(moov, first + 8, end, by)
        elif name in (b"stco", b"co64"):
            code, count = ">I" if name == b"stco" else ">Q", struct.unpack_from(">I", moov, first + 12)[0]
            for at in range(first + 16, first + 16 + count * struct.calcsize(code), struct.calcsize(code)):
                struct.pack_into(code, moov, at, struct.unpack_from(code, moov, at)[0] + by)


@dataclass
class CutClips:
    """Fills the `video*` columns of kept clips and nulls their `frames`; every other row passes as it is."""

    config: CutConfig = field(default_factory=CutConfig)
    limits: Limits = field(default_factory=Limits)

    def __call__(self, table: pa.Table) -> pa.Table:
        """A clip table to the same table with MP4 bytes; a clip that cannot be cut becomes "failed" with the ClipError's reason."""
        kept = [k == "clip" and s == "ok" and not r for k, s, r in zip(*(table[name].to_pylist() for name in ("kind", "status", "reject")), strict=True)]
        names = ("video_id", "video_uri", "video_stamp", "start_pts", "end_pts", "start_frame", "end_frame", "chunks", "stages")
        rows = table.select(names).to_pylist()
        changed = {index: self._cut(row) for index, (row, keep) in enumerate(zip(rows, kept, strict=True)) if keep}
        return _with(table, changed) if changed else table

    def _cut(self, row: dict[str, Any]) -> dict[str, Any]:
        done = {"frames": None, "stages": [*(row["stages"] or []), "cut"]}
        try:
            check_unchanged(row, self.limits)
            mp4 = cut(row["video_uri"], row["start_pts"], row["end_pts"], self.config, self.limits, row["chunks"] or 0)
            if self.config.mode == "copy" and mp4.frames - mp4.start_frame < row["end_frame"] - row["start_frame"]:
                raise ClipError("cut_mismatch", f"{mp4.frames - mp4.start_frame} of {row['end_frame'] - row['start_frame']} frames were copied")
        except ClipError as error:
            return done | {"status": "failed", "error_code": error.reason, "error_detail": error.detail}
        return done | {
            "video": mp4.data,
            "video_sha256": mp4.sha256,
            "video_frames": mp4.frames,
            "video_fps": mp4.fps,
            "video_width": mp4.width,
            "video_height": mp4.height,
            "video_start_frame": mp4.start_frame,
        }


def _with(table: pa.Table, changed: dict[int, dict[str, Any]]) -> pa.Table:
    """`table` with some rows' values replaced."""
    for name in dict.fromkeys(name for row in changed.values() for name in row):
        values = table[name].to_pylist()
        for index, row in changed.items():
            values[index] = row.get(name, values[index])
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))
    return table
