"""Video: the right frames at the right times with the right pixels, once or a clip at a time."""

import hashlib
import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from curation.clips import ClipError
from curation.hdr import HLG, PQ, tone_map
from curation.pictures import Picture, analysis_size
from curation.video import Video, read_clip
from tests.curation.bad_media import HEIGHT, WIDTH, index_of, make_video, scene

X265 = "log-level=error:pools=1"


def seen(pictures: Iterator[Picture]) -> list[tuple[int, int, float, str]]:
    return [(p.index, p.pts, p.time_s, hashlib.sha256(p.luma.tobytes() + p.rgb().tobytes()).hexdigest()) for p in pictures]


def whole(path: Path, **options: Any) -> list[tuple[int, int, float, str]]:
    with Video(str(path), **options) as video:
        return seen(video.pictures())


def first_picture(path: Path, size: int = 256) -> tuple[Picture, tuple[str, ...]]:
    with Video(str(path), size=size) as video:
        return next(video.pictures()), video.info.notes


MADE: dict[str, tuple[str, dict[str, Any]]] = {
    "b-pyramid, gop 250": ("a.mp4", {"options": {"g": "250", "bf": "5", "x264-params": "b-pyramid=normal:ref=4"}}),
    "open gop": ("a.mp4", {"options": {"x264-params": "keyint=12:min-keyint=12:scenecut=0:open-gop=1:bframes=3"}}),
    "open gop, hevc": ("a.mp4", {"codec": "libx265", "options": {"x265-params": f"{X265}:keyint=12:min-keyint=12:open-gop=1:bframes=4"}}),
    "closed gop": ("a.mkv", {"options": {"g": "10"}}),
    "vp9": ("a.webm", {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8", "g": "15"}}),
    "vp8": ("a.webm", {"codec": "libvpx", "options": {"deadline": "realtime", "cpu-used": "8", "g": "15"}}),
    "av1": ("a.mp4", {"codec": "libsvtav1", "options": {"preset": "8", "svtav1-params": "keyint=16:lp=1"}}),
    "mpeg4 in avi": ("a.avi", {"codec": "mpeg4", "options": {"bf": "2", "g": "12", "b": "6000000"}}),
    "transport stream": ("a.ts", {"options": {"g": "12", "bf": "2"}}),
    "program stream": ("a.mpg", {"codec": "mpeg2video", "form": "vob", "rate": 25, "options": {"g": "12", "bf": "2", "b": "6000000"}}),
    "flv": ("a.flv", {"options": {"g": "12", "bf": "2"}}),
    "bare hevc": ("a.hevc", {"codec": "libx265", "form": "hevc", "options": {"x265-params": f"{X265}:keyint=12"}}),
    "fragmented": ("a.mp4", {"options": {"g": "12"}, "mux": {"movflags": "frag_keyframe+empty_moov"}}),
}


@pytest.mark.parametrize("kind", MADE)
def test_a_clip_read_alone_has_the_pictures_of_the_one_pass(kind: str, tmp_path: Path) -> None:
    name, made = MADE[kind]
    path = make_video(tmp_path / name, 60, **made)
    full = whole(path)
    with Video(str(path)) as video:
        assert [index_of(p.luma) for p in video.pictures()] == [i % 11 for i in range(60)]
    for start, stop in ((0, 5), (11, 13), (12, 31), (23, 24), (47, 59)):
        clip = seen(read_clip(str(path), full[start][1], full[stop][1], first_index=start))
        assert clip == full[start:stop], (start, stop)


def test_two_passes_and_any_number_of_threads_give_the_same_pixels(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", 30)
    assert whole(path) == whole(path) == whole(path, threads=3)


def test_a_video_is_decoded_once(tmp_path: Path) -> None:
    with Video(str(make_video(tmp_path / "a.mp4", 5))) as video:
        assert len(list(video.pictures())) == video.frames_decoded == 5
        with pytest.raises(ValueError, match="once"):
            video.pictures()


def test_what_the_header_says(tmp_path: Path) -> None:
    with Video(str(make_video(tmp_path / "a.mp4", 24, rate=Fraction(24000, 1001)))) as video:
        info = video.info
    assert (info.container, info.codec, info.width, info.height, info.frames_claimed, info.notes) == ("mov", "h264", WIDTH, HEIGHT, 24, ())
    assert info.fps == pytest.approx(24000 / 1001)
    assert info.duration_s == pytest.approx(24 * 1001 / 24000, abs=1e-3)


def test_times_come_from_the_stream_and_never_from_the_rate(tmp_path: Path) -> None:
    ticks = [0, 1, 2, 10, 11, 130, 131, 135, 140, 141]  # a gap of five seconds at 24 ticks a second
    for name in ("a.mp4", "a.mkv"):
        got = whole(make_video(tmp_path / name, len(ticks), pts=ticks))
        assert [round(t * 24, 1) for _, _, t, _ in got] == pytest.approx(ticks, abs=0.05)


def test_a_video_that_starts_late_or_before_zero_starts_at_zero_seconds(tmp_path: Path) -> None:
    for first in (-7, 240):
        path = make_video(tmp_path / f"{first}.mkv", 8, pts=[first + i for i in range(8)])
        times = [t for _, _, t, _ in whole(path)]
        assert times == pytest.approx([i / 24 for i in range(8)], abs=1e-3)


def test_a_clock_that_wraps_in_a_transport_stream_goes_on(tmp_path: Path) -> None:
    start = 2**33 - 6 * 3750  # six frames before the 33 bits are full
    path = make_video(tmp_path / "a.ts", 24, pts=[start + 3750 * i for i in range(24)], time_base=Fraction(1, 90000), mux={"muxdelay": "0"})
    assert [t for _, _, t, _ in whole(path)] == pytest.approx([i / 24 for i in range(24)], abs=1e-4)


def turned(degrees: int) -> Callable[[Any, Any], None]:
    return lambda container, stream: stream.set_display_rotation(degrees)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_is_applied_once(degrees: int, tmp_path: Path) -> None:
    upright = scene(4)
    quarter = degrees // 90
    path = make_video(tmp_path / "a.mp4", [np.ascontiguousarray(np.rot90(upright, -quarter))] * 3, prepare=turned(degrees))
    picture, notes = first_picture(path)
    assert notes == (f"rotated_{degrees}",)
    assert picture.luma.shape == (HEIGHT, WIDTH)
    assert np.abs(picture.rgb().astype(int) - upright).mean() < 6
    assert np.abs(picture.thumb(32, 24).astype(int) - upright.reshape(24, 4, 32, 4, 3).mean((1, 3))).mean() < 6
    assert index_of(picture.luma) == 4


@pytest.mark.parametrize(("matrix", "flip"), [((-1, 0, 0, 1), np.fliplr), ((1, 0, 0, -1), np.flipud), ((0, 1, 1, 0), lambda a: a.swapaxes(0, 1))])
def test_flips_are_applied(matrix: tuple[int, int, int, int], flip: Callable[[Any], Any], tmp_path: Path) -> None:
    a, b, c, d = (v << 16 for v in matrix)
    upright = scene(4)

    def flipped(container: Any, stream: Any) -> None:
        stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])

    path = make_video(tmp_path / "a.mp4", [np.ascontiguousarray(flip(upright))] * 3, prepare=flipped)
    picture, notes = first_picture(path)
    assert "flipped" in notes
    assert np.abs(picture.rgb().astype(int) - upright).mean() < 6


@pytest.mark.parametrize(("sar", "size"), [(Fraction(4, 3), (171, 96)), (Fraction(1, 2), (128, 192))])
def test_pixels_become_square(sar: Fraction, size: tuple[int, int], tmp_path: Path) -> None:
    def anamorphic(container: Any, stream: Any) -> None:
        stream.codec_context.sample_aspect_ratio = sar

    with Video(str(make_video(tmp_path / "a.mp4", 4, prepare=anamorphic))) as video:
        assert (video.info.width, video.info.height, video.info.notes) == (*size, ("anamorphic",))
        picture = next(video.pictures())
    assert picture.luma.shape == (size[1], size[0] - size[0] % 2)


COLOUR = (200, 30, 60)


def flat(colour: tuple[int, int, int], width: int = WIDTH, height: int = HEIGHT) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.full((height, width, 3), colour, np.uint8)


def in_matrix(matrix: int, tag: int, full: bool = False) -> Callable[[Path, tuple[int, int]], Path]:
    """A maker of flat videos in a colour matrix of swscale's, tagged as H.273's `tag`."""

    def make(path: Path, size: tuple[int, int]) -> Path:
        image = av.VideoFrame.from_ndarray(flat(COLOUR, *size), format="rgb24")
        yuv = image.reformat(format="yuv420p", dst_colorspace=matrix, dst_color_range=2 if full else 1)
        with av.open(str(path), "w") as container:
            stream: Any = container.add_stream("libx264", rate=24, options={"crf": "1"})
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            stream.codec_context.colorspace, stream.codec_context.color_range = tag, 2 if full else 1
            for number in range(3):
                yuv.pts, yuv.time_base, yuv.colorspace, yuv.color_range = number, Fraction(1, 24), tag, 2 if full else 1
                container.mux(stream.encode(yuv))
            container.mux(stream.encode())
        return path

    return make


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (in_matrix(1, 1), (128, 96)),
        (in_matrix(5, 6), (128, 96)),
        (in_matrix(9, 9), (128, 96)),
        (in_matrix(5, 2), (128, 96)),  # untagged and small: BT.601
        (in_matrix(1, 2), (1280, 720)),  # untagged and large: BT.709
        (in_matrix(1, 1, full=True), (128, 96)),
    ],
)
def test_colours_are_those_that_were_encoded(make: Callable[[Path, tuple[int, int]], Path], size: tuple[int, int], tmp_path: Path) -> None:
    picture, _ = first_picture(make(tmp_path / "a.mp4", size))
    assert np.abs(picture.rgb().reshape(-1, 3).mean(0) - COLOUR).max() < 5


def test_luma_has_full_range(tmp_path: Path) -> None:
    black, white = (first_picture(make_video(tmp_path / f"{v}.mp4", [flat((v, v, v))] * 3))[0].luma for v in (0, 255))
    assert black.max() <= 1
    assert white.min() >= 254


def test_ten_bits_become_eight(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", 6, "libx265", pix_fmt="yuv420p10le", options={"x265-params": X265})
    picture, notes = first_picture(path)
    assert notes == ()
    assert np.abs(picture.rgb().astype(int) - scene(0)).mean() < 6


def hdr(path: Path, transfer: int, code: int) -> Path:
    """A flat grey of a 10-bit code value with PQ or HLG."""
    with av.open(str(path), "w") as container:
        params = f"{X265}:colorprim=bt2020:transfer={'smpte2084' if transfer == PQ else 'arib-std-b67'}:colormatrix=bt2020nc"
        stream: Any = container.add_stream("libx265", rate=24, options={"x265-params": params})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p10le"
        frame = av.VideoFrame(WIDTH, HEIGHT, "yuv420p10le")
        for plane, value in zip(frame.planes, (code, 512, 512), strict=True):
            plane.update(np.full(plane.buffer_size // 2, value, np.uint16).tobytes())
        for number in range(3):
            frame.pts = number
            frame.color_trc, frame.color_primaries, frame.colorspace = transfer, 9, 9
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(("transfer", "code", "grey"), [(PQ, 64, 0), (PQ, 399, 109), (PQ, 940, 254), (HLG, 64, 0), (HLG, 721, 238)])
def test_hdr_is_tone_mapped_and_flagged(transfer: int, code: int, grey: int, tmp_path: Path) -> None:
    picture, notes = first_picture(hdr(tmp_path / "a.mp4", transfer, code))
    # By hand: code 399 is 27 cd/m2, 0.13 of SDR white, and 255 * 0.13 ** (1 / 2.4) = 109; HLG's 75 % is SDR white itself, rolled off to 0.85.
    assert notes == ("hdr",)
    assert np.abs(picture.rgb().reshape(-1, 3).mean(0) - grey).max() < 4
    assert abs(float(picture.luma.mean()) - grey) < 4


def test_tone_mapping_rises_and_keeps_grey_grey() -> None:
    ramp = np.repeat(np.linspace(0, 65535, 256).astype(np.uint16)[None, :, None], 3, axis=2)
    for transfer in (PQ, HLG):
        mapped = tone_map(ramp, transfer)[0].astype(int)
        assert (np.diff(mapped[:, 0]) >= 0).all()
        assert np.ptp(mapped, axis=1).max() <= 1
        assert mapped[0].max() == 0


def test_interlacing_is_flagged(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", 6, options={"x264-params": "interlaced=1:tff=1"})
    assert first_picture(path)[1] == ("interlaced",)


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("a.mov", {"codec": "prores_ks", "pix_fmt": "yuva444p10le"}),
        ("a.webm", {"codec": "libvpx-vp9", "pix_fmt": "yuva420p", "options": {"auto-alt-ref": "0", "deadline": "realtime", "cpu-used": "8"}}),
    ],
)
def test_alpha_is_put_on_black_and_flagged(name: str, made: dict[str, Any], tmp_path: Path) -> None:
    image = np.dstack([flat((200, 200, 200)), np.full((HEIGHT, WIDTH), 255, np.uint8)])
    image[:, WIDTH // 2 :, 3] = 0
    path = make_video(tmp_path / name, [image] * 3, **made)
    picture, notes = first_picture(path)
    assert whole(path)[1:] == seen(read_clip(str(path), whole(path)[1][1], 1 << 40, first_index=1))
    assert notes == ("alpha",)
    assert abs(float(picture.luma[:, : WIDTH // 2 - 4].mean()) - 200) < 4
    assert picture.luma[:, WIDTH // 2 + 4 :].max() < 4


@pytest.mark.parametrize(
    ("display", "size"),
    [((1280, 720), (456, 256)), ((720, 1280), (256, 456)), ((320, 240), (320, 240)), ((127, 95), (126, 94)), ((3840, 640), (1086, 182)), ((64, 64), (64, 64))],
)
def test_analysis_size(display: tuple[int, int], size: tuple[int, int]) -> None:
    assert analysis_size(*display, 256) == size


def test_pictures_shrink_without_aliasing(tmp_path: Path) -> None:
    fine = np.zeros((512, 512, 3), np.uint8)
    fine[:, ::2] = 255  # columns finer than the analysis size can show: they must become grey
    picture, _ = first_picture(make_video(tmp_path / "a.mp4", [fine] * 3, options={"crf": "1"}), size=128)
    assert picture.luma.shape == (128, 128)
    assert abs(float(picture.luma.mean()) - 127.5) < 3
    assert float(picture.luma.std()) < 3


def test_thumbs_have_the_size_that_is_asked(tmp_path: Path) -> None:
    picture, _ = first_picture(make_video(tmp_path / "a.mp4", 3))
    for width, height in ((48, 27), (128, 72), (1, 1)):
        assert picture.thumb(width, height).shape == (height, width, 3)
    assert np.abs(picture.thumb(32, 24).astype(int) - scene(0).reshape(24, 4, 32, 4, 3).mean((1, 3))).mean() < 6


def test_the_file_is_closed_when_opening_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"no video at all")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with pytest.raises(ClipError):
            Video(str(path))
    assert len(os.listdir("/proc/self/fd")) == before


def test_luma_of_rgb_has_the_weights_of_frames(tmp_path: Path) -> None:
    high, low = (first_picture(in_matrix(m, m if m == 1 else 6)(tmp_path / f"{m}.mp4", (128, 96)))[0] for m in (1, 5))
    expected = (77 * COLOUR[0] + 150 * COLOUR[1] + 29 * COLOUR[2]) / 256
    for picture in (high, low):
        assert abs(float(picture.rgb_luma().mean()) - expected) < 3
    assert abs(float(low.luma.mean()) - expected) < 3
    assert abs(float(high.luma.mean()) - (0.2126 * COLOUR[0] + 0.7152 * COLOUR[1] + 0.0722 * COLOUR[2])) < 3


@pytest.mark.parametrize("kind", ["open gop", "open gop, hevc", "fragmented", "b-pyramid, gop 250"])
def test_a_clip_is_sought_and_not_read_from_the_start(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, made = MADE[kind]
    path = make_video(tmp_path / name, 60, **made)
    pts = [p for _, p, _, _ in whole(path)]
    restarts: list[str] = []
    restart = Video._restart

    def counted(video: Video, kind: str) -> None:
        restarts.append(kind)
        restart(video, kind)

    monkeypatch.setattr(Video, "_restart", counted)
    for start in (11, 12, 23, 47):
        restarts.clear()
        assert [p.pts for p in read_clip(str(path), pts[start], pts[start + 2])] == pts[start : start + 2]
        assert restarts == ["mov"]
