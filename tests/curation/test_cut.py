"""cut and CutClips: exactly the promised frames, the same bytes twice, nothing of the original container."""

import hashlib
import io
import itertools
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pytest

from curation.clips import ClipError, clip_schema, table_of
from curation.cut import CutClips, CutConfig, Mp4, cut, faststart
from curation.video import Video, open_output
from tests.curation.bad_media import HEIGHT, WIDTH, boxes, find_box, index_of, make_video, scene


def times_of(path: Path) -> list[int]:
    """Every frame's pts."""
    with Video(str(path)) as video:
        return [p.pts for p in video.pictures()]


def shown(mp4: Mp4, tmp_path: Path) -> tuple[list[int], list[float]]:
    """(index % 11 of each frame, time of each frame in s) of a cut clip."""
    path = tmp_path / f"{mp4.sha256}.mp4"
    path.write_bytes(mp4.data)
    with Video(str(path)) as video:
        pictures = list(video.pictures())
    return [index_of(p.luma) for p in pictures], [p.time_s for p in pictures]


@pytest.mark.parametrize(
    ("rate", "name"), [(24, "a.mp4"), (30, "a.mp4"), (Fraction(30000, 1001), "a.mp4"), (60, "a.mp4"), (16, "a.mkv"), (10, "a.mp4"), (25, "a.ts")]
)
def test_a_chunk_is_41_frames_and_each_is_the_one_on_show(rate: Fraction, name: str, tmp_path: Path) -> None:
    count = int(rate * 3) + 8
    path = make_video(tmp_path / name, count, rate=rate, options={"g": "250", "bf": "3"})
    pts, start = times_of(path), 5
    mp4 = cut(str(path), pts[start], pts[count - 1], chunks=1)
    assert (mp4.frames, mp4.fps, mp4.width, mp4.height, mp4.start_frame) == (41, 16.0, WIDTH, HEIGHT, 0)
    got, seconds = shown(mp4, tmp_path)
    assert got == [(start + int(Fraction(k, 16) * rate + Fraction(1, 200))) % 11 for k in range(41)]
    assert seconds == pytest.approx([k / 16 for k in range(41)])


def test_no_frame_comes_from_outside(tmp_path: Path) -> None:
    images = [scene(3)] * 20 + [scene(7)] * 30 + [scene(3)] * 20
    path = make_video(tmp_path / "a.mp4", images, rate=30, options={"bf": "3"})
    pts = times_of(path)
    for config in (CutConfig(), CutConfig(fps=30.0), CutConfig(fps="source")):
        assert set(shown(cut(str(path), pts[20], pts[50], config), tmp_path)[0]) == {7}


def test_without_chunks_the_clip_is_as_long_as_its_range(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", 48)
    pts = times_of(path)
    assert cut(str(path), pts[0], pts[24]).frames == 16
    assert cut(str(path), pts[0], pts[1]).frames == 1
    assert cut(str(path), pts[10], pts[25], CutConfig(fps=24.0)).frames == 15


def test_the_source_rate_keeps_every_frame_and_its_time(tmp_path: Path) -> None:
    ticks = [0, 1, 2, 5, 6, 9, 10, 11, 20, 21]
    path = make_video(tmp_path / "a.mp4", 10, pts=ticks)
    pts = times_of(path)
    got, seconds = shown(cut(str(path), pts[1], pts[9], CutConfig(fps="source")), tmp_path)
    assert got == list(range(1, 9))
    assert seconds == pytest.approx([(t - 1) / 24 for t in ticks[1:9]], abs=1e-4)


def test_a_gap_is_filled_by_the_frame_on_show(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", 4, rate=16, pts=[0, 1, 9, 10])
    pts = times_of(path)
    assert shown(cut(str(path), pts[0], pts[3]), tmp_path)[0] == [0, *[1] * 8, 2]


def test_a_promise_that_the_range_cannot_keep_is_a_mismatch(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", 48)
    pts = times_of(path)
    with pytest.raises(ClipError) as caught:
        cut(str(path), pts[0], pts[47], chunks=1)
    assert caught.value.reason == "cut_mismatch"


def test_the_same_clip_is_the_same_bytes(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", 80, rate=30)
    pts = times_of(path)
    one, two = (cut(str(path), pts[3], pts[-1], chunks=1) for _ in range(2))
    assert one == two
    assert one.sha256 == hashlib.sha256(one.data).hexdigest()


def dressed(container: Any, stream: Any) -> None:
    container.metadata["title"] = "SECRET $(rm -rf /) \x1b[31m<script>"
    container.metadata["comment"] = "SECRET"
    other: Any = container.add_stream("aac", rate=48000)
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
    frame.sample_rate, frame.pts = 48000, 0
    container.mux(other.encode(frame))


@pytest.mark.parametrize("mode", ["encode", "copy"])
def test_nothing_but_pictures_gets_through(mode: Any, tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", 48, "libx265", prepare=dressed, options={"x265-params": "log-level=error:pools=1"})
    pts = times_of(path)
    data = cut(str(path), pts[0], pts[40], CutConfig(mode=mode)).data
    assert b"SECRET" in path.read_bytes()
    assert not any(word in data for word in (b"SECRET", b"x264", b"Lavf", b"Lavc"))
    assert [name for name, _, _ in boxes(data)][:2] == [b"ftyp", b"moov"]
    with av.open(io.BytesIO(data), "r") as container:
        assert len(container.streams) == 1
        assert not [key for key in container.metadata if key not in ("major_brand", "minor_version", "compatible_brands")]


def test_the_format_is_one_for_all(tmp_path: Path) -> None:
    path = make_video(
        tmp_path / "a.mp4", 80, "libx265", size=(330, 250), pix_fmt="yuv420p10le", options={"x265-params": "log-level=error:pools=1", "preset": "ultrafast"}
    )
    pts = times_of(path)
    mp4 = cut(str(path), pts[0], pts[79], CutConfig(short_px=120))
    assert (mp4.width, mp4.height) == (158, 120)
    with av.open(io.BytesIO(mp4.data), "r") as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt, context.colorspace, context.color_range, context.color_trc) == ("h264", "yuv420p", 1, 1, 1)
        assert stream.sample_aspect_ratio in (None, 0, 1)
        keys = [frame.time for frame in container.decode(stream) if frame.key_frame]
    assert keys[0] == 0
    assert max(b - a for a, b in itertools.pairwise(keys)) <= 2


@pytest.mark.parametrize(
    ("size", "short", "expected"), [((320, 240), 480, (320, 240)), ((320, 240), 120, (160, 120)), ((240, 320), 120, (120, 160)), ((131, 99), 480, (130, 98))]
)
def test_the_short_side_shrinks_and_never_grows(size: tuple[int, int], short: int, expected: tuple[int, int], tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", 4, size=size, pix_fmt="yuv444p")
    pts = times_of(path)
    mp4 = cut(str(path), pts[0], pts[3], CutConfig(short_px=short))
    assert (mp4.width, mp4.height) == expected


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_and_colours_are_baked_in(degrees: int, tmp_path: Path) -> None:
    def rotated(container: Any, stream: Any) -> None:
        stream.set_display_rotation(degrees)

    coded = np.ascontiguousarray(np.rot90(scene(4), -degrees // 90))
    path = make_video(tmp_path / "a.mp4", [coded] * 4, prepare=rotated)
    pts = times_of(path)
    mp4 = cut(str(path), pts[0], pts[3], CutConfig(crf=4))
    assert (mp4.width, mp4.height) == (WIDTH, HEIGHT)
    out = tmp_path / "out.mp4"
    out.write_bytes(mp4.data)
    with Video(str(out)) as video:
        assert video.info.rotation == 0
        assert np.abs(next(video.pictures()).rgb().astype(int) - scene(4)).mean() < 6


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.flv"])
def test_a_copy_says_where_the_clip_begins(name: str, tmp_path: Path) -> None:
    path = make_video(tmp_path / name, 60, options={"g": "20", "bf": "2", "sc_threshold": "0"})
    pts = times_of(path)
    mp4 = cut(str(path), pts[27], pts[37], CutConfig(mode="copy"))
    got, _ = shown(mp4, tmp_path)
    assert mp4.start_frame == 7
    assert mp4.frames == len(got) >= 17
    assert got[7:17] == [i % 11 for i in range(27, 37)]


@pytest.mark.parametrize(("name", "codec"), [("a.webm", "libvpx"), ("a.h264", "libx264")])
def test_what_an_mp4_cannot_hold_or_has_no_times_is_not_copied(name: str, codec: str, tmp_path: Path) -> None:
    path = make_video(tmp_path / name, 12, codec, form="h264" if name == "a.h264" else None)
    pts = times_of(path)
    with pytest.raises(ClipError) as caught:
        cut(str(path), pts[0], pts[5], CutConfig(mode="copy"))
    assert caught.value.reason == "cut_mismatch"


def test_faststart_moves_the_index_and_keeps_the_samples() -> None:
    out = io.BytesIO()
    with open_output(out) as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(30):
            frame = av.VideoFrame.from_ndarray(scene(number), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    moved = faststart(out.getvalue())
    assert find_box(moved, b"moov")[0] < find_box(moved, b"mdat")[0]
    assert faststart(moved) == moved

    def frames(data: bytes) -> list[bytes]:
        with av.open(io.BytesIO(data), "r") as source:
            return [frame.to_ndarray().tobytes() for frame in source.decode(video=0)]

    assert frames(moved) == frames(out.getvalue())


def rows(path: Path) -> pa.Table:
    pts = times_of(path)
    clip = {
        "video_id": "v", "video_uri": str(path), "start_pts": pts[2], "end_pts": pts[-1], "start_frame": 2, "end_frame": len(pts) - 1,
        "chunks": 1, "frames": b"blob", "stages": ["split"],
    }  # fmt: skip
    return table_of(
        [
            {**clip, "clip_id": "kept"},
            {**clip, "clip_id": "rejected", "reject": ["static"]},
            {**clip, "clip_id": "failed", "status": "failed"},
            {**clip, "clip_id": "gone", "video_uri": str(path) + ".gone"},
            {**clip, "clip_id": "broken promise", "chunks": 9},
            {"kind": "video", "video_id": "v", "video_uri": str(path), "stages": ["split"]},
        ],
        ["motion_flow"],
    )


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    return rows(make_video(tmp_path_factory.mktemp("cut") / "a.mp4", 72, rate=24))


def test_kept_clips_are_filled_and_all_other_rows_pass(before: pa.Table) -> None:
    after = CutClips()(before)
    assert after.schema == clip_schema(["motion_flow"])
    kept, rejected, failed, gone, broken, video = after.to_pylist()
    was = before.to_pylist()
    assert [rejected, failed, video] == [was[1], was[2], was[5]]
    assert (kept["video_frames"], kept["video_fps"], kept["video_width"], kept["video_height"], kept["video_start_frame"]) == (41, 16.0, WIDTH, HEIGHT, 0)
    assert kept["video_sha256"] == hashlib.sha256(kept["video"]).hexdigest()
    assert (kept["frames"], kept["stages"], kept["status"], kept["reject"]) == (None, ["split", "cut"], "ok", [])
    assert (gone["status"], gone["error_code"], gone["video"], gone["stages"]) == ("failed", "io_error", None, ["split", "cut"])
    assert (broken["status"], broken["error_code"], broken["video"]) == ("failed", "cut_mismatch", None)


def test_a_table_without_kept_clips_comes_back_as_it_is(before: pa.Table) -> None:
    table = before.slice(1, 2)
    assert CutClips()(table) is table


def test_copied_rows_say_where_they_begin(before: pa.Table) -> None:
    row = CutClips(CutConfig(mode="copy"))(before.slice(0, 1)).to_pylist()[0]
    assert row["video_start_frame"] == 2
    assert row["video_frames"] - 2 >= row["end_frame"] - row["start_frame"]


@pytest.mark.parametrize("bad", [{"mode": "zip"}, {"crf": 99}, {"preset": "placebo"}, {"short_px": 1}, {"fps": "film"}, {"fps": -1.0}, {"unknown": 1}])
def test_settings_are_strict(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        CutConfig(**bad)


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("a.mp4", {"codec": "libsvtav1", "options": {"preset": "8", "svtav1-params": "keyint=16:lp=1"}}),
        ("a.webm", {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8", "g": "15"}}),
        ("a.avi", {"codec": "mpeg4", "options": {"g": "12", "b": "6000000"}}),
    ],
)
def test_every_codec_that_an_mp4_holds_is_copied(name: str, made: dict[str, Any], tmp_path: Path) -> None:
    path = make_video(tmp_path / name, 40, **made)
    pts = times_of(path)
    mp4 = cut(str(path), pts[20], pts[30], CutConfig(mode="copy"))
    assert shown(mp4, tmp_path)[0][mp4.start_frame : mp4.start_frame + 10] == [i % 11 for i in range(20, 30)]
