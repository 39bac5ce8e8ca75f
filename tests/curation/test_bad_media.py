"""Every bad input that has to do with opening media, each with its typed reason (rows of the reliability list)."""

import os
import socket
import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from pyarrow.fs import LocalFileSystem

from curation import opening
from curation.clips import ClipError
from curation.decode import Clock
from curation.limits import Limits
from curation.opening import content_id
from curation.video import Video
from tests.curation.bad_media import STBL, add_content_encryption, boxes, encrypt, find_box, index_of, make_video, patched, scene, sound_only

X265 = {"x265-params": "log-level=error:pools=1"}


def read(path: Path | str, limits: Limits | None = None) -> tuple[list[int], tuple[str, ...]]:
    """(index of each frame by its own picture, notes)."""
    with Video(str(path), limits) as video:
        return [index_of(p.luma) for p in video.pictures()], video.notes


def reason(path: Path | str, limits: Limits | None = None) -> str:
    with pytest.raises(ClipError) as caught:
        read(path, limits)
    return caught.value.reason


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def picture_file(kind: str) -> bytes:
    return bytes(cv2.imencode(kind, scene(0))[1])


NOT_VIDEO: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "text": lambda: b"<!DOCTYPE html><html><body>404 Not Found</body></html>" * 40,
    "lfs pointer": lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n",
    "random": lambda: np.random.default_rng(1).integers(0, 256, 20_000, dtype=np.uint8).tobytes(),
    "jpeg": lambda: picture_file(".jpg"),
    "png": lambda: picture_file(".png"),
    "gif": lambda: b"GIF89a" + bytes(200),
    "hls": lambda: b"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
    "dash": lambda: b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period/></MPD>',
    "sdp": lambda: b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
}


@pytest.mark.parametrize("kind", NOT_VIDEO)
def test_what_is_no_video_is_an_unsupported_container(kind: str, tmp_path: Path) -> None:
    assert reason(written(tmp_path / "a.mp4", NOT_VIDEO[kind]())) == "unsupported_container"


def test_a_script_that_names_another_file_does_not_open_it(tmp_path: Path) -> None:
    make_video(tmp_path / "good.mp4", 4)
    script = written(tmp_path / "b.mp4", b"ffconcat version 1.0\nfile good.mp4\n")
    assert reason(script) == "unsupported_container"


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_an_mp4_without_its_index_is_truncated(share: float, tmp_path: Path) -> None:
    data = make_video(tmp_path / "a.mp4").read_bytes()
    assert reason(written(tmp_path / "b.mp4", data[: int(len(data) * share)])) == "truncated"


def test_a_faststart_mp4_cut_short_is_truncated_and_salvage_keeps_its_beginning(tmp_path: Path) -> None:
    data = make_video(tmp_path / "a.mp4", 48, mux={"movflags": "faststart"}, options={"g": "12"}).read_bytes()
    path = written(tmp_path / "b.mp4", data[: int(len(data) * 0.6)])
    assert reason(path) == "truncated"
    kept, notes = read(path, Limits(salvage=True))
    assert 10 < len(kept) < 40
    assert kept == [i % 11 for i in range(len(kept))]
    assert "salvaged" in notes


def test_a_matroska_file_cut_short_is_truncated(tmp_path: Path) -> None:
    data = make_video(tmp_path / "a.mkv", 48).read_bytes()
    assert reason(written(tmp_path / "b.mkv", data[: int(len(data) * 0.6)])) == "truncated"


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_damage_in_the_middle_is_a_decode_error(codec: str, tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", 48, codec, options=X265 if codec == "libx265" else {"preset": "fast"})
    first, stop = find_box(path.read_bytes(), b"mdat")
    middle = (first + stop) // 2
    patched(path, middle, np.random.default_rng(2).integers(0, 256, (stop - first) // 5, dtype=np.uint8).tobytes())
    assert reason(path) == "decode_error"


def test_a_forged_duration_changes_nothing(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4")
    at = find_box(path.read_bytes(), b"moov", b"mvhd")[0]
    assert read(patched(path, at + 8 + 16, struct.pack(">I", 2**31)))[0] == [i % 11 for i in range(24)]


def test_a_forged_frame_count_is_an_error_without_memory(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4")
    at = find_box(path.read_bytes(), *STBL, b"stsz")[0]
    assert reason(patched(path, at + 16, struct.pack(">I", 2**31 - 1))) == "decode_error"


def test_a_forged_track_size_loses_to_the_coded_size(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4")
    stop = find_box(path.read_bytes(), b"moov", b"trak", b"tkhd")[1]
    with Video(str(patched(path, stop - 8, struct.pack(">II", 9000 << 16, 9000 << 16)))) as video:
        assert (video.info.coded_width, video.info.coded_height) == (128, 96)


@pytest.mark.parametrize("cover", [False, True])
def test_sound_with_or_without_a_cover_is_no_video(cover: bool, tmp_path: Path) -> None:
    assert reason(sound_only(tmp_path / "a.m4a", cover)) == "no_video_stream"


def test_of_two_video_streams_the_first_counts(tmp_path: Path) -> None:
    def second(container: Any, stream: Any) -> None:
        other = container.add_stream("mpeg4", rate=24)
        other.width, other.height, other.pix_fmt = 64, 64, "yuv420p"
        container.mux(other.encode(av.VideoFrame.from_ndarray(scene(0, 64, 64), format="rgb24").reformat(format="yuv420p")))

    with Video(str(make_video(tmp_path / "a.mp4", prepare=second))) as video:
        assert (video.info.width, video.info.codec, video.info.notes) == (128, "h264", ("extra_streams",))


def test_one_frame_is_too_few(tmp_path: Path) -> None:
    assert reason(make_video(tmp_path / "a.mp4", 1)) == "too_few_frames"


@pytest.mark.parametrize("size", [(16, 16), (1024, 64), (8, 640)])
def test_specks_and_strips_are_out_of_range(size: tuple[int, int], tmp_path: Path) -> None:
    assert reason(make_video(tmp_path / "a.mp4", 3, "mpeg4", size=size)) == "dims_out_of_range"


def test_a_bomb_is_out_of_range_before_it_is_decoded(tmp_path: Path) -> None:
    black = [np.zeros((3840, 3840, 3), np.uint8)]
    path = make_video(tmp_path / "a.mp4", black, "mpeg4", pix_fmt="yuv420p")
    assert reason(path) == "dims_out_of_range"


def test_a_png_sequence_in_mov_is_an_unsupported_codec(tmp_path: Path) -> None:
    assert reason(make_video(tmp_path / "a.mov", 3, "png", pix_fmt="rgb24")) == "unsupported_codec"


def test_an_odd_size_decodes_to_even_pictures(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", 12, size=(127, 95), pix_fmt="yuv444p")
    with Video(str(path)) as video:
        assert (video.info.width, video.info.height) == (127, 95)
        pictures = list(video.pictures())
    assert {p.luma.shape for p in pictures} == {(94, 126)}
    assert [index_of(p.luma) for p in pictures] == [*range(11), 0]


def test_a_thousand_frames_a_second_are_out_of_range(tmp_path: Path) -> None:
    assert reason(make_video(tmp_path / "a.mp4", 12, rate=1000)) == "fps_out_of_range"
    assert reason(make_video(tmp_path / "a.mkv", 300, "mpeg4", size=(64, 64), rate=1000), Limits(max_fps=100)) == "fps_out_of_range"


def test_a_frame_a_minute_is_out_of_range(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", 12, pts=[60 * 90 * i for i in range(12)])
    assert reason(path) == "fps_out_of_range"


def test_thirteen_hours_are_out_of_range(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.mkv"):
        assert reason(make_video(tmp_path / name, 12, pts=[24 * 3600 * i * 13 // 11 for i in range(12)])) == "duration_out_of_range"
    assert reason(make_video(tmp_path / "b.ts", 24), Limits(max_duration_s=0.5)) == "duration_out_of_range"


def test_frames_are_counted_by_the_header_and_while_decoding(tmp_path: Path) -> None:
    assert reason(make_video(tmp_path / "a.mp4"), Limits(max_frames=20)) == "too_many_frames"
    assert reason(make_video(tmp_path / "a.ts"), Limits(max_frames=20)) == "too_many_frames"


def test_a_decoder_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    assert reason(make_video(tmp_path / "a.mp4"), Limits(wall_base_s=0, wall_factor=1e-9)) == "timeout"


def test_a_size_that_changes_is_an_error(tmp_path: Path) -> None:
    first = make_video(tmp_path / "a.h264", 12).read_bytes()
    second = make_video(tmp_path / "b.h264", 12, size=(160, 96)).read_bytes()
    assert reason(written(tmp_path / "c.h264", first + second)) == "resolution_change"


def test_a_transport_stream_from_the_middle_starts_at_its_first_key_frame(tmp_path: Path) -> None:
    data = make_video(tmp_path / "a.ts", 48, options={"g": "12", "bf": "0", "sc_threshold": "0"}).read_bytes()
    third = len(data) // 3 // 188 * 188
    kept, _ = read(written(tmp_path / "b.ts", data[third:]))
    assert kept == [i % 11 for i in range(24, 48)]


def test_a_transport_stream_without_any_key_frame_has_no_frames(tmp_path: Path) -> None:
    data = make_video(tmp_path / "a.ts", 24, options={"g": "24", "bf": "0"}).read_bytes()
    half = len(data) * 2 // 3 // 188 * 188
    assert reason(written(tmp_path / "b.ts", data[half:])) == "decode_error"


def test_common_encryption_is_encrypted(tmp_path: Path) -> None:
    assert reason(encrypt(make_video(tmp_path / "a.mp4", mux={"movflags": "faststart"}))) == "encrypted"


def test_an_encrypted_webm_is_encrypted_and_a_plain_one_is_not(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.webm", 12, "libvpx", mux={"live": "1"})
    assert read(path)[0] == [*range(11), 0]
    assert reason(add_content_encryption(path)) == "encrypted"


def test_subtitles_attachments_and_metadata_do_not_matter(tmp_path: Path) -> None:
    def dressed(container: Any, stream: Any) -> None:
        container.metadata["title"] = "$(rm -rf /)'; DROP TABLE clips;--\x1b[31m<script>"
        container.add_attachment("x.exe", "application/x-msdownload", b"MZ" + bytes(100))

    assert read(make_video(tmp_path / "a.mkv", prepare=dressed))[0] == [i % 11 for i in range(24)]


NAMES = [
    "-leading.mp4",
    "new\nline.mp4",
    "quo'te\".mp4",
    "%03d.mp4",
    "\N{GRINNING FACE}.mp4",
    "x" * 240,
    "noextension",
    "A.MP4",
    "v1.5.final",
    "concat:a|b.mp4",
]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_opens(name: str, tmp_path: Path) -> None:
    os.replace(make_video(tmp_path / "a.mp4", 3), tmp_path / name)
    assert read(tmp_path / name)[0] == [0, 1, 2]


def test_a_name_that_is_not_utf8_opens_by_its_bytes_or_as_a_file_uri(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/\xff\xfe.mp4"
    os.replace(make_video(tmp_path / "a.mp4", 3), name)
    assert read(os.fsdecode(name))[0] == [0, 1, 2]
    assert read(f"file://{tmp_path}/%FF%FE.mp4")[0] == [0, 1, 2]


def test_links_pipes_sockets_devices_and_folders_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = make_video(tmp_path / "a.mp4", 3)
    (tmp_path / "link.mp4").symlink_to(good)
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    os.mkfifo(tmp_path / "fifo.mp4")
    (tmp_path / "folder.mp4").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # a socket's path must be short
        server.bind("socket.mp4")
        for name in ("link.mp4", "loop.mp4", "fifo.mp4", "folder.mp4", "socket.mp4", "/dev/null"):
            assert reason(tmp_path / name) == "not_regular_file", name


def test_missing_and_unreadable_files_are_io_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reason(tmp_path / "missing.mp4") == "io_error"
    path = make_video(tmp_path / "a.mp4", 3)

    def refuse(*_: Any, **__: Any) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    assert reason(path) == "io_error"


def test_an_unknown_scheme_is_an_io_error() -> None:
    assert reason("nosuch://bucket/a.mp4") == "io_error"


def test_an_object_of_a_store_opens_and_may_not_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_video(tmp_path / "a.mp4")
    monkeypatch.setattr(opening, "FileSystem", type("Store", (), {"from_uri": staticmethod(lambda uri: (LocalFileSystem(), str(path)))}))
    assert read("s3://bucket/a.mp4")[0] == [i % 11 for i in range(24)]
    assert content_id("s3://bucket/a.mp4") == content_id(str(path))
    with Video("s3://bucket/a.mp4") as video:
        os.utime(path, ns=(1, 1))
        with pytest.raises(ClipError) as caught:
            list(video.pictures())
    assert caught.value.reason == "source_changed"


def test_mutated_files_end_in_pictures_or_a_reason(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    good = [make_video(tmp_path / name, 12).read_bytes() for name in ("a.mp4", "a.mkv", "a.ts", "a.flv", "a.avi")]
    outcomes = set()
    for number in range(200):
        data = bytearray(good[number % len(good)])
        for at in random.integers(0, min(len(data), 1500 if number % 2 else len(data)), 1 + number % 7):
            data[at] = random.integers(0, 256)
        try:
            outcomes.add(str(len(read(written(tmp_path / "mutated", bytes(data)))[0])))
        except ClipError as error:
            outcomes.add(error.reason)
    assert {"12", "decode_error"} <= outcomes


def test_a_file_above_the_cap_is_not_read(tmp_path: Path) -> None:
    assert reason(make_video(tmp_path / "a.mp4", 3), Limits(max_bytes=100)) == "io_error"


def test_a_file_that_grows_while_it_is_read_has_changed(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4")
    with Video(str(path)) as video:
        pictures = video.pictures()
        for _ in range(6):
            next(pictures)
        with path.open("ab") as file:
            file.write(b"more")
        with pytest.raises(ClipError) as caught:
            list(pictures)
    assert caught.value.reason == "source_changed"


def test_content_id_is_the_hash_of_the_bytes(tmp_path: Path) -> None:
    path = written(tmp_path / "a.mp4", b"abc")
    full = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert content_id(str(path)) == (full[:16], full, 3)


def stamped(stamps: Sequence[tuple[int | None, int | None]]) -> tuple[list[int], list[str]]:
    clock = Clock(Fraction(1, 1000), Fraction(25))
    return [clock.stamp(pts, dts) for pts, dts in stamps], clock.notes


def test_missing_times_are_made_from_the_average_rate() -> None:
    assert stamped([(None, None)] * 4) == ([0, 40, 80, 120], ["timestamps_made"])


def test_a_frame_without_pts_takes_its_dts() -> None:
    assert stamped([(None, 7), (None, 47), (None, 87)]) == ([7, 47, 87], [])


def test_a_repeated_time_moves_by_one_tick() -> None:
    assert stamped([(0, None), (40, None), (40, None), (80, None)]) == ([0, 40, 41, 80], ["timestamps_repaired"])


def test_a_clock_that_starts_anew_goes_on() -> None:
    assert stamped([(5000, None), (5040, None), (0, None), (40, None)]) == ([5000, 5040, 5080, 5120], ["timestamps_repaired"])


def test_a_dts_that_grows_replaces_a_pts_that_does_not() -> None:
    shuffled = [(40, 0), (160, 40), (80, 80), (120, 120), (280, 160), (200, 200)]
    assert stamped(shuffled)[0] == [40, 160, 200, 240, 280, 320]


def test_a_clock_that_keeps_failing_is_bad() -> None:
    with pytest.raises(ClipError) as caught:
        stamped([(100, None)] * 6)
    assert caught.value.reason == "bad_timestamps"


def test_the_maker_finds_its_boxes(tmp_path: Path) -> None:
    data = make_video(tmp_path / "a.mp4", 3).read_bytes()
    assert {name for name, _, _ in boxes(data)} >= {b"ftyp", b"moov", b"mdat"}
