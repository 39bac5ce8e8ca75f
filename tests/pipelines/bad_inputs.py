"""Bad inputs for one whole run: a table of files, each with the row of the list that asks for it and what should become of it."""

import os
import shutil
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from tests.curation.bad_media import STBL, add_content_encryption, encrypt, find_box, make_video, patched, scene, sound_only
from tests.pipelines.conftest import FPS, H, Picture, W, acting, still, write

Rows = list[dict[str, Any]]
Check = Callable[[dict[str, Any], Rows], None]


@dataclass(frozen=True)
class Case:
    """One file: the list's row, its name (bytes, since one is no UTF-8), how it is made, how its video ends, and what else must hold.

    Attributes:
        code: error code of the video's row; None = it is decoded to its end.
        check: called with the video's row and its clips.
    """

    row: int
    name: str | bytes
    make: Callable[[Path], object]
    code: str | None = None
    check: Check = field(default=lambda video, clips: None)

    @property
    def raw(self) -> bytes:
        """The name's bytes."""
        return os.fsencode(self.name)


def content(data: bytes) -> Callable[[Path], object]:
    """A file of these bytes."""
    return lambda path: path.write_bytes(data)


def picture(kind: str) -> Callable[[Path], object]:
    """A still picture."""
    return lambda path: path.write_bytes(bytes(cv2.imencode(kind, scene(0))[1]))


def video(images: Sequence[Any] | int = 24, codec: str = "libx264", **options: Any) -> Callable[[Path], object]:
    """A video of `make_video`, named whatever its container is."""
    return lambda path: make_video(path, images, codec, **options)


def cut_at(share: float, **options: Any) -> Callable[[Path], object]:
    """A video of which the end is missing."""

    def make(path: Path) -> None:
        data = make_video(path, 48, **options).read_bytes()
        path.write_bytes(data[: int(len(data) * share)])

    return make


def damaged(path: Path) -> None:
    """A fifth of the pictures' bytes are noise."""
    first, stop = find_box(make_video(path, 48, options={"preset": "fast"}).read_bytes(), b"mdat")
    patched(path, (first + stop) // 2, np.random.default_rng(2).integers(0, 256, (stop - first) // 5, dtype=np.uint8).tobytes())


def forged(value: bytes, *box: bytes, at: int) -> Callable[[Path], object]:
    """A header field that lies, `at` bytes from its box's first, or from its end if negative."""

    def make(path: Path) -> None:
        first, stop = find_box(make_video(path).read_bytes(), *box)
        patched(path, (first if at >= 0 else stop) + at, value)

    return make


def of_frames(frames: Callable[[], Any], fps: int = FPS) -> Callable[[Path], object]:
    """A video of frames as `conftest.write` takes them."""
    return lambda path: write(path, frames(), fps)


def played(path: Path, seed: int = 1, size: tuple[int, int] = (W, H), pix_fmt: str = "yuv420p", **options: str) -> None:
    """Three seconds that are worth keeping, encoded in another way."""
    images = [np.ascontiguousarray(image[: size[1], : size[0]]) for image in acting(seed, 3.0)]
    make_video(path, images, rate=FPS, pix_fmt=pix_fmt, options={"crf": "18", "preset": "veryfast", **options})


def second_stream(container: Any, stream: Any) -> None:
    other = container.add_stream("mpeg4", rate=24)
    other.width, other.height, other.pix_fmt = 64, 64, "yuv420p"
    container.mux(other.encode(av.VideoFrame.from_ndarray(scene(0, 64, 64), format="rgb24").reformat(format="yuv420p")))


def anamorphic(container: Any, stream: Any) -> None:
    stream.codec_context.sample_aspect_ratio = Fraction(4, 3)


def turned(container: Any, stream: Any) -> None:
    stream.set_display_rotation(90)


def dressed(container: Any, stream: Any) -> None:
    container.metadata["title"] = "$(rm -rf /)'; DROP TABLE clips;--\x1b[31m<script>"
    container.add_attachment("x.exe", "application/x-msdownload", b"MZ" + bytes(100))


def half_clear() -> list[Picture]:
    image = np.dstack([np.full((96, 128, 3), 200, np.uint8), np.full((96, 128), 255, np.uint8)])
    image[:, 64:, 3] = 0
    return [image] * 12


def joined(*made: dict[str, Any], suffix: str) -> Callable[[Path], object]:
    """The bytes of several videos behind one another."""

    def make(path: Path) -> None:
        parts = []
        for options in made:
            whole = make_video(path.with_name(f".part{suffix}"), **options)
            parts.append(whole.read_bytes())
            whole.unlink()
        path.write_bytes(b"".join(parts))

    return make


def from_the_middle(path: Path, share: float = 1 / 3, gop: int = 12) -> None:
    """A transport stream without its beginning."""
    whole = make_video(path.with_name(".part.ts"), 48, options={"g": str(gop), "bf": "0", "sc_threshold": "0"})
    data = whole.read_bytes()
    whole.unlink()
    path.write_bytes(data[int(len(data) * share) // 188 * 188 :])


def bound(path: Path) -> None:
    """A socket; its path must be short, so it is bound from its folder."""
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


def colour(value: int, flash: int | None = None) -> Callable[[], list[Picture]]:
    """Three seconds of one grey, one frame of them white."""
    return lambda: [np.full((H, W, 3), 255 if i == flash else value, np.uint8) for i in range(3 * FPS)]


def bars() -> list[Picture]:
    row = np.repeat(
        np.array([[255, 255, 255], [255, 255, 0], [0, 255, 255], [0, 255, 0], [255, 0, 255], [255, 0, 0], [0, 0, 255], [0, 0, 0]], np.uint8), W // 8, 0
    )
    return [np.broadcast_to(row, (H, W, 3)).copy()] * (3 * FPS)


def cuts() -> list[Picture]:
    """Another picture in each frame."""
    return [np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8).repeat(16, 0).repeat(16, 1) for i in range(300)]


def with_box(source: Path, number: int) -> Callable[[Path], object]:
    """A copy with a free box at its end: other bytes, another video, the same pictures."""

    def make(path: Path) -> None:
        with open(os.fsencode(path), "wb") as file:
            file.write(source.read_bytes() + b"\0\0\0\x0cfree" + number.to_bytes(4, "big"))

    return make


def has_note(note: str) -> Check:
    """The video is flagged."""

    def check(video: dict[str, Any], clips: Rows) -> None:
        assert note in video["notes"]

    return check


def measures(width: int, height: int) -> Check:
    """The size in which the video is shown."""

    def check(video: dict[str, Any], clips: Rows) -> None:
        assert (video["width"], video["height"]) == (width, height)

    return check


def lasts(seconds: float) -> Check:
    """What was measured, whatever the header says."""

    def check(video: dict[str, Any], clips: Rows) -> None:
        assert abs(max(c["end_s"] for c in clips) - seconds) < 0.05
        assert min(c["start_s"] for c in clips) == 0

    return check


def is_kept(video: dict[str, Any], clips: Rows) -> None:
    """One clip, cut to exactly the frames that were promised, even in both sides."""
    kept = [c for c in clips if c["kept"]]
    assert [(c["start_frame"], c["end_frame"], c["video_frames"], c["chunks"]) for c in kept] == [(0, 41, 41, 1)]
    assert all(c["video_width"] % 2 == c["video_height"] % 2 == 0 for c in kept)


def falls(*reasons: str) -> Check:
    """Nothing of it is kept, and each of its clips on the grid has one of these reasons."""

    def check(video: dict[str, Any], clips: Rows) -> None:
        assert not any(c["kept"] for c in clips)
        said = [set(c["reasons"]) for c in clips if c["chunks"]]
        assert said
        assert all(s & set(reasons) for s in said), said

    return check


def no_shot(video: dict[str, Any], clips: Rows) -> None:
    """A flash makes no shot of its own: one clip, and what the grid leaves over."""
    assert [c["start_s"] for c in clips if c["reasons"] != ["remainder"]] == [0.0]


def in_windows(video: dict[str, Any], clips: Rows) -> None:
    assert [c["chunks"] for c in clips] == [10, 10, 3]
    assert max(c["end_s"] - c["start_s"] for c in clips) < 25.2


def too_short(video: dict[str, Any], clips: Rows) -> None:
    assert [c["reasons"] for c in clips] == [["too_short"]]


HTML = b"<!DOCTYPE html><html><body>404 Not Found</body></html>" * 40
HLS = b"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n%s\n#EXT-X-ENDLIST\n"
SDP = b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
TEN_BIT = {"codec": "libx265", "pix_fmt": "yuv420p10le"}
PQ = "log-level=error:pools=1:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc"
WRAP = [2**33 - 6 * 3750 + 3750 * i for i in range(24)]  # six frames before 33 bits are full


def pq(frame: Any) -> None:
    frame.color_trc, frame.color_primaries, frame.colorspace = 16, 9, 9


def cases(short: Path, good: Path) -> list[Case]:
    """Every file, in the order of the list's rows.

    Args:
        short: one second that is a video, for names and copies.
        good: a video that is kept, for copies and links.
    """
    nothing = "unsupported_container"
    return [
        Case(1, "1 empty.mp4", content(b""), nothing),
        Case(2, "2 page.mp4", content(HTML), nothing),
        Case(3, "3 random.mp4", content(np.random.default_rng(1).bytes(20_000)), nothing),
        Case(4, "4 jpeg.mp4", picture(".jpg"), nothing),
        Case(4, "4 png.mp4", picture(".png"), nothing),
        Case(4, "4 gif.mp4", content(b"GIF89a" + bytes(200)), nothing),
        Case(5, "5 half.mp4", cut_at(0.5), "truncated"),
        Case(6, "6 faststart.mp4", cut_at(0.6, mux={"movflags": "faststart"}), "truncated"),
        Case(7, "7 damaged.mp4", damaged, "decode_error"),
        Case(8, "8 mvhd.mp4", forged(struct.pack(">I", 2**31), b"moov", b"mvhd", at=24), None, lasts(1.0)),
        Case(9, "9 stsz.mp4", forged(struct.pack(">I", 2**31 - 1), *STBL, b"stsz", at=16), "decode_error"),
        Case(10, "10 tkhd.mp4", forged(struct.pack(">II", 9000 << 16, 6750 << 16), b"moov", b"trak", b"tkhd", at=-8), None, measures(128, 96)),
        Case(11, "11 sound.mp4", sound_only, "no_video_stream"),
        Case(12, "12 cover.m4a", lambda path: sound_only(path, cover=True), "no_video_stream"),
        Case(13, "13 two.mp4", video(prepare=second_stream), None, has_note("extra_streams")),
        Case(14, "14 one.mp4", video(1), "too_few_frames"),
        Case(15, "15 speck.mp4", video(3, "mpeg4", size=(16, 16)), "dims_out_of_range"),
        Case(15, "15 strip.mp4", video(3, "mpeg4", size=(1024, 64)), "dims_out_of_range"),
        Case(16, "16 odd.mp4", lambda path: played(path, 50, (W - 1, H - 1), "yuv444p"), None, is_kept),
        Case(17, "17 bomb.mp4", video([np.zeros((3840, 3840, 3), np.uint8)], "mpeg4"), "dims_out_of_range"),
        Case(18, "18 png.mov", video(3, "png", pix_fmt="rgb24"), "unsupported_codec"),
        Case(19, "19 fast.mp4", video(12, rate=1000), "fps_out_of_range"),
        Case(20, "20 slow.mp4", video(12, "mpeg4", pts=[24 * 3600 * 9 * i for i in range(12)]), "duration_out_of_range"),
        Case(21, "21 gaps.mkv", video(10, pts=[0, 1, 2, 10, 11, 130, 131, 135, 140, 141]), None, lasts(142 / 24)),
        Case(22, "22 before zero.mkv", video(24, pts=[i - 7 for i in range(24)]), None, lasts(1.0)),
        Case(23, "23 wrap.ts", video(24, pts=WRAP, time_base=Fraction(1, 90_000), mux={"muxdelay": "0"}), None, lasts(1.0)),
        Case(23, "23 no times.h264", video(24), None, has_note("timestamps_made")),
        Case(24, "24 grows.h264", joined({"images": 12}, {"images": 12, "size": (160, 96)}, suffix=".h264"), "resolution_change"),
        Case(25, "25 turned.mp4", video(prepare=turned), None, measures(96, 128)),
        Case(26, "26 ten bits.mp4", video(**TEN_BIT, options={"x265-params": "log-level=error:pools=1"}), None, lasts(1.0)),
        Case(26, "26 pq.mp4", video(**TEN_BIT, options={"x265-params": PQ}, dress=pq), None, has_note("hdr")),
        Case(27, "27 interlaced.mp4", video(options={"x264-params": "interlaced=1:tff=1"}), None, has_note("interlaced")),
        Case(28, "28 alpha.mov", video(half_clear(), "prores_ks", pix_fmt="yuva444p10le"), None, has_note("alpha")),
        Case(29, "29 wide pixels.mp4", video(prepare=anamorphic), None, measures(171, 96)),
        Case(30, "30 long gop.mp4", lambda path: played(path, 12, g="1000", bf="5", **{"x264-params": "b-pyramid=normal:ref=4"}), None, is_kept),
        Case(30, "30 open gop.mp4", lambda path: played(path, 13, **{"x264-params": "keyint=12:min-keyint=12:scenecut=0:open-gop=1:bframes=3"}), None, is_kept),
        Case(31, "31 from the middle.ts", from_the_middle, None, lasts(1.0)),
        Case(31, "31 no key frame.ts", lambda path: from_the_middle(path, 2 / 3, 48), "decode_error"),
        Case(32, "32 cenc.mp4", lambda path: encrypt(make_video(path, mux={"movflags": "faststart"})), "encrypted"),
        Case(32, "32 secret.webm", lambda path: add_content_encryption(make_video(path, codec="libvpx", mux={"live": "1"})), "encrypted"),
        Case(33, "33 http.mp4", content(HLS % b"http://127.0.0.1:9/a.ts"), nothing),
        Case(33, "33 local.mp4", content(HLS % b"good.mp4"), nothing),
        Case(34, "34 script.mp4", content(b"ffconcat version 1.0\nfile good.mp4\n"), nothing),
        Case(35, "35 dash.mp4", content(b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period/></MPD>'), nothing),
        Case(35, "35 session.mp4", content(SDP), nothing),
        Case(36, "36 attachment.mkv", video(prepare=dressed), None, lasts(1.0)),
        Case(37, "37 metadata.mkv", video(prepare=dressed, options={"g": "7"}), None, lasts(1.0)),
        *(Case(38, name, with_box(short, i), None, too_short) for i, name in enumerate(ODD_NAMES)),
        Case(39, "concat:a|b.mp4", with_box(short, 100), None, too_short),
        Case(40, b"\xff\xfe.mp4", with_box(short, 101), None, too_short),
        Case(41, "41 link.mp4", lambda path: path.symlink_to(good), "not_regular_file"),
        Case(41, "41 outside.mp4", lambda path: path.symlink_to("/etc/hostname"), "not_regular_file"),
        Case(41, "41 loop.mp4", lambda path: path.symlink_to(path), "not_regular_file"),
        Case(42, "42 pipe.mp4", lambda path: os.mkfifo(path), "not_regular_file"),
        Case(42, "42 folder.mp4", lambda path: path.mkdir(), "not_regular_file"),
        Case(42, "42 socket.mp4", bound, "not_regular_file"),
        Case(44, "44 copy a.mp4", lambda path: shutil.copy(short, path), None, too_short),
        Case(44, "44 copy b.mp4", lambda path: shutil.copy(short, path), "duplicate"),
        Case(45, "45 first.mp4", lambda path: played(path, 14), None, is_kept),
        Case(45, "45 again.mp4", lambda path: played(path, 14, crf="23"), None, is_kept),
        Case(46, "46 black.mp4", of_frames(colour(0)), None, falls("static", "pure_color_or_fade")),
        Case(46, "46 white.mp4", of_frames(colour(255)), None, falls("static", "pure_color_or_fade")),
        Case(46, "46 slide.mp4", of_frames(lambda: still(15, 3.0)), None, falls("static")),
        Case(46, "46 bars.mp4", of_frames(bars), None, falls("static")),
        Case(47, "47 flash.mp4", of_frames(colour(90, flash=20)), None, no_shot),
        Case(48, "48 cuts.mp4", of_frames(cuts, 50), None, falls("extreme_motion", "flashing")),
        Case(48, "48 no cut.mp4", of_frames(lambda: [next(still(16, 1.0))] * 118, 2), None, in_windows),
        Case(49, "49 second.mp4", of_frames(lambda: acting(17, 2.4)), None, too_short),
    ]


ODD_NAMES = ["-n .mp4", "new\nline.mp4", "quote\"'.mp4", "%03d.mp4", "\U0001f3ac.mp4", "x" * 240 + ".mp4", "v1.5.final", "LOUD.MP4", "noextension"]
