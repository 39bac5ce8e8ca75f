"""The only file that opens media: probe it, and decode it once as a stream of pictures, within limits for files nobody vouches for."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from types import TracebackType
from typing import Any, BinaryIO, Self, cast

import av
from av.stream import Discard, Disposition

from curation.clips import ClipError
from curation.containers import DEMUXERS, SEEKABLE, SNIFF_BYTES, cut_short, is_encrypted, sniff
from curation.decode import Claims, Decoder, VideoInfo, claims_of
from curation.limits import Limits, check_size
from curation.opening import Source, content_id, open_source
from curation.pictures import Look, Picture, analysis_size

__all__ = ["Limits", "Picture", "Video", "VideoInfo", "content_id", "open_output", "read_clip"]


class Video:
    """A video opened safely; a context manager. Decodes with one thread and yields the same pixels everywhere.

    Args:
        uri: see `open_source`; or a source that is open already.
        limits: what is allowed; defaults if None.
        size: short side of the pictures in px (see `curation.pictures.analysis_size`).
        threads: decoder threads; the pixels do not depend on it.

    Raises:
        ClipError: not_regular_file, io_error, unsupported_container, truncated, encrypted, no_video_stream, unsupported_codec,
            dims_out_of_range, fps_out_of_range, duration_out_of_range, too_many_frames.
    """

    def __init__(self, uri: str | Source, limits: Limits | None = None, size: int = 256, threads: int = 1) -> None:
        self.limits, self.size, self._threads = limits or Limits(), size, threads
        self.frames_decoded = 0
        self._source = uri if isinstance(uri, Source) else open_source(uri, self.limits.max_bytes)
        self._container: Any = None
        self._short: str | None = None
        try:
            self._open()
        except av.error.FFmpegError as error:
            self.close()
            raise ClipError("truncated" if self._short else "decode_error", f"header: {error}") from error
        except OSError as error:
            self.close()
            raise ClipError("io_error", f"{type(error).__name__}: {error}") from error
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the container and the file."""
        if self._container is not None:
            self._container.close()
        self._source.file.close()

    def _open(self) -> None:
        file = self._source.file
        kind = sniff(file.read(SNIFF_BYTES))
        self._short = cut_short(kind, file, self._source.size)
        if self._short == "no moov box":
            raise ClipError("truncated", self._short)
        encrypted = is_encrypted(kind, file, self._source.size)
        self._restart(kind)
        if encrypted:
            raise ClipError("encrypted", "the sample entry is protected (Common Encryption)")
        self.info = self._probe(kind)

    def _restart(self, kind: str) -> None:
        """A container at the file's first byte: where there is no index, a seek cannot be trusted with it."""
        if self._container is not None:
            self._container.close()
        self._source.file.seek(0)
        options = {"format_whitelist": DEMUXERS[kind], "protocol_whitelist": "", "max_pixels": str(self.limits.max_pixels), "err_detect": "explode"}
        self._container = av.open(self._source.file, format=DEMUXERS[kind], options=options, buffer_size=self._source.block, metadata_errors="replace")
        self.stream = self._pick_stream()
        if self.stream.codec_context is not None:
            self.stream.codec_context.thread_count = self._threads

    def _pick_stream(self) -> Any:
        streams = self._container.streams
        if len(streams) > self.limits.max_streams:
            raise ClipError("unsupported_container", f"{len(streams)} streams, allowed are {self.limits.max_streams}")
        videos = [s for s in streams.video if not s.disposition & Disposition.attached_pic]
        if not videos:
            raise ClipError("no_video_stream", f"{len(streams)} streams, none of them moving pictures")
        for other in streams:
            if other is not videos[0]:
                other.discard = Discard.all
        self._extra = len(videos) > 1
        return videos[0]

    def _probe(self, kind: str) -> VideoInfo:
        stream, context, limits = self.stream, self.stream.codec_context, self.limits
        codec = context.codec.canonical_name if context is not None else "unknown"
        if codec not in limits.codecs:
            raise ClipError("unsupported_codec", f"{codec}; allowed are {', '.join(limits.codecs)}")
        if context.width or context.height:
            check_size(context.width, context.height, limits)
        self._claims = claims_of(self._container, stream, kind, self._short, limits)
        if kind == "matroska" and not stream.average_rate:
            self._claims = replace(self._claims, rate=self._counted_rate() or self._claims.rate)
        self._alpha = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(codec) if stream.metadata.get("alpha_mode") == "1" else None
        self._decoder = self._new_decoder()
        frames = self._decoder.frames()
        self._first = next(frames)
        self.first_pts = self._first[0]
        self._frames: Iterator[tuple[int, av.VideoFrame]] | None = frames
        return self._describe(codec, self._claims)

    def _new_decoder(self) -> Decoder:
        """A decoder from the container's present position; VP8 and VP9 with alpha need libvpx, as the decoders built in drop it."""
        if self._alpha is None:
            return Decoder(self._container, self.stream, _decode, self._claims, self.limits, self._source.stamp)
        context: Any = av.CodecContext.create(self._alpha, "r")
        context.thread_count = self.stream.codec_context.thread_count

        def decode(packet: Any) -> list[av.VideoFrame]:
            return cast(list[av.VideoFrame], context.decode(packet if packet.size else None))

        return Decoder(self._container, self.stream, decode, self._claims, self.limits, self._source.stamp)

    def _counted_rate(self) -> Fraction | None:
        """Frames per second by counting packets, not decoding them, for a Matroska file whose header tells no rate."""
        times = [p.pts for p in itertools.islice(self._container.demux(self.stream), self.limits.max_frames) if p.size and p.pts is not None]
        self._restart("matroska")
        span = (max(times) - min(times)) * self.stream.time_base if times else 0
        rate = Fraction(len(times) - 1) / span if span else None
        return rate if rate and self.limits.min_fps <= rate <= self.limits.max_fps else None

    def _describe(self, codec: str, claims: Claims) -> VideoInfo:
        """The header's claims, with what only a decoded frame tells: rotation, colours, interlacing."""
        frame, stream = self._first[1], self.stream
        look = self.look(self._analysis_size)
        check_size(look.width, look.height, self.limits)
        return VideoInfo(
            container=claims.kind,
            codec=codec,
            width=look.width,
            height=look.height,
            coded_width=frame.width,
            coded_height=frame.height,
            rotation=look.rotation,
            fps=float(claims.rate),
            time_base=stream.time_base,
            duration_s=claims.duration_s,
            frames_claimed=claims.frames,
            notes=tuple((["extra_streams"] if self._extra else []) + [*look.notes, *self._decoder.notes]),
        )

    def _analysis_size(self, width: int, height: int) -> tuple[int, int]:
        return analysis_size(width, height, self.size)

    def look(self, fit: Callable[[int, int], tuple[int, int]]) -> Look:
        """How this video's frames become upright pictures of `fit(display width, display height)` px."""
        return Look(self._first[1], self.stream.sample_aspect_ratio or self.stream.codec_context.sample_aspect_ratio, fit)

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes of `info` and those that decoding added."""
        return tuple(dict.fromkeys([*self.info.notes, *self._decoder.notes]))

    def pictures(self) -> Iterator[Picture]:
        """Every frame once, in presentation order; can be called once.

        Raises:
            ClipError: see `curation.decode.Decoder.frames`.
            ValueError: called a second time.
        """
        return self._pictured(self._once())

    def clip(self, start_pts: int, end_pts: int, first_index: int = 0) -> Iterator[Picture]:
        """The pictures with start_pts <= pts < end_pts, the first with index `first_index`; instead of `pictures()`.

        Raises:
            ClipError, ValueError: as `pictures`.
        """
        return self._pictured(self.span(start_pts, end_pts), first_index)

    def _pictured(self, frames: Iterator[tuple[int, av.VideoFrame]], index: int = 0) -> Iterator[Picture]:
        look, first, (ticks, per_s) = self.look(self._analysis_size), self.first_pts, self.info.time_base.as_integer_ratio()
        for pts, frame in frames:
            self.frames_decoded += 1
            yield Picture(index, pts, (pts - first) * ticks / per_s, look.small(frame), look)
            index += 1

    def _once(self) -> Iterator[tuple[int, av.VideoFrame]]:
        frames, self._frames = self._frames, None
        if frames is None:
            raise ValueError("a video is decoded once: open it again for another pass")
        return itertools.chain([self._first], frames)

    def span(self, start_pts: int, end_pts: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """(pts, decoded frame) with start_pts <= pts < end_pts, by a seek to the key frame in front where the container can.

        A frame of exactly `start_pts` proves that the seek went right; without it the video is read from its start.

        Raises:
            ClipError, ValueError: as `pictures`.
        """
        frames, done = self._once(), start_pts - 1
        if start_pts > self.first_pts and self._claims.kind in SEEKABLE:
            try:
                for pts, frame in self._sought(start_pts):
                    if pts >= end_pts:
                        return
                    yield pts, frame
                    done = pts
                if done >= start_pts:
                    return
            except ClipError as error:
                if error.reason != "decode_error":  # an open group's leading frames may lack what they refer to
                    raise
            self._restart(self._claims.kind)
            frames = self._new_decoder().frames(resume=True)
        for pts, frame in frames:
            if pts >= end_pts:
                return
            if pts > done:
                yield pts, frame

    def _sought(self, start_pts: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """Frames from `start_pts` on after a seek; none if no frame is shown just then or the clock had to be mended on the way.

        The key frame in front of a time may be shown after it, with leading frames that cannot be decoded: then an earlier one serves.
        """
        for earlier_s in (0, 1, 12):
            self._seek(max(self.first_pts, start_pts - int(earlier_s / self.stream.time_base)))
            decoder = self._new_decoder()
            frames = itertools.dropwhile(lambda item: item[0] < start_pts, decoder.frames(resume=True))
            head = next(frames, None)
            if head is not None and head[0] == start_pts and "timestamps_repaired" not in decoder.notes:
                yield head
                yield from frames
                return

    def packets(self, start_pts: int, end_pts: int) -> list[Any]:
        """The stream's packets, undecoded, from the last key frame shown at or before `start_pts` to the last that [start_pts, end_pts) needs."""
        self._once()
        self._seek(start_pts)
        kept: list[Any] = []
        for packet in self._container.demux(self.stream):
            if not packet.size or packet.pts is None:
                continue
            if packet.dts is not None and packet.dts >= end_pts:
                break
            if packet.is_keyframe and packet.pts <= start_pts:
                kept = []
            kept.append(packet)
        return kept

    def _seek(self, pts: int) -> None:
        """The key frame in front of `pts` where the container has an index, otherwise the start."""
        if self._claims.kind in SEEKABLE:
            try:
                self._container.seek(pts, stream=self.stream, backward=True)
            except av.error.FFmpegError:
                self._restart(self._claims.kind)
        else:
            self._restart(self._claims.kind)


def _decode(packet: Any) -> list[av.VideoFrame]:
    return cast(list[av.VideoFrame], packet.decode())


def open_output(file: BinaryIO) -> Any:
    """An MP4 container to write to `file`: no version strings, no metadata."""
    return av.open(file, "w", format="mp4", options={"fflags": "+bitexact"})


def read_clip(uri: str, start_pts: int, end_pts: int, limits: Limits | None = None, size: int = 256, first_index: int = 0) -> Iterator[Picture]:
    """The same pictures of [start_pts, end_pts) that one pass over the whole video gave, for one clip only.

    Args:
        uri: see `open_source`.
        start_pts: the clip's first frame's pts, as the pass gave it.
        end_pts: exclusive.
        first_index: index of the clip's first picture; `time_s` is since the video's first frame whatever it is.

    Raises:
        ClipError: as `Video` and `Video.pictures`.
    """
    with Video(uri, limits, size) as video:
        yield from video.clip(start_pts, end_pts, first_index)
