"""SplitVideo on made videos: pieces on the grid, every frame in one row, the same frames again, faults and rows that pass through."""

import json
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from curation.boundaries import ShotConfig
from curation.clips import ClipError, table_of
from curation.frames import SIGNALS, Frames
from curation.sampler import SAME_S, Sampler, choose, grid_s
from curation.shots import SplitConfig, SplitVideo, _batches, frames_of
from curation.signals import Meter
from curation.video import Limits, Video

FPS = 12
CONFIG = SplitConfig(size=64, shots=ShotConfig(transnet=False))


def scene(seed: int, frames: int, width: int = 160, height: int = 96) -> list[np.ndarray]:
    """A picture of large soft blobs that drifts by one pixel a frame."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 10 + frames // 16 + 2, 3)).astype(np.float32)
    wide = np.kron(coarse, np.ones((16, 16, 1), np.float32)).astype(np.uint8)
    return [np.ascontiguousarray(wide[:height, i : i + width]) for i in range(frames)]


def write(path: Path, frames: Sequence[np.ndarray], fps: int = FPS) -> Path:
    """The frames as H.264 in MP4."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=fps, options={"crf": "12", "preset": "ultrafast"})
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
        for array in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(array, "rgb24")))
        out.mux(stream.encode())
    return path


def split(path: Path, config: SplitConfig = CONFIG) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The clips' rows and the video's."""
    source = table_of([{"kind": "video", "video_id": "0123456789abcdef", "video_uri": str(path), "provenance": '{"licence": "CC0"}'}])
    rows = [row for table in SplitVideo(config, Limits())(source) for row in table.to_pylist()]
    assert [r["kind"] for r in rows] == ["clip"] * (len(rows) - 1) + ["video"]
    return rows[:-1], rows[-1]


@pytest.fixture(scope="module")
def two_scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cut at frame 36 of 36 + 80 + 370 frames, and another at 116."""
    return write(tmp_path_factory.mktemp("shots") / "two.mp4", scene(1, 36) + scene(2, 80) + scene(3, 370))


def test_cuts_become_rows_on_the_grid(two_scenes: Path) -> None:
    clips, video = split(two_scenes)
    assert [b[0] for b in json.loads(video["stats"])["boundaries"]] == [36, 116]
    assert [c["start_frame"] for c in clips if c["chunks"]] == [0, 36, 116, 417]
    assert [c["chunks"] for c in clips if c["chunks"]] == [1, 2, 10, 2]
    assert [c["clip_index"] for c in clips] == list(range(len(clips)))


def test_every_frame_lies_in_one_row(two_scenes: Path) -> None:
    clips, video = split(two_scenes)
    assert clips[0]["start_frame"] == 0
    assert [c["end_frame"] for c in clips[:-1]] == [c["start_frame"] for c in clips[1:]]
    assert clips[-1]["end_frame"] == json.loads(video["stats"])["source_frames"] == 486
    assert [c["end_pts"] for c in clips[:-1]] == [c["start_pts"] for c in clips[1:]]


def test_ends_lie_on_the_grid_and_rests_say_why(two_scenes: Path) -> None:
    clips, _ = split(two_scenes)
    for c in clips:
        if c["frames"] is None:
            assert c["chunks"] == 0
            assert c["reject"] in (["remainder"], ["too_short"], ["transition"])
        else:
            assert c["reject"] == []
            assert c["end_s"] - c["start_s"] == pytest.approx(grid_s(c["chunks"]))
    long = [c for c in clips if c["chunks"] == 10]
    assert len(long) == 1
    assert long[0]["start_frame"] == 116
    assert long[0]["end_frame"] == 116 + 301


def test_frames_are_even_in_time_and_neighbours_later(two_scenes: Path) -> None:
    clips, _ = split(two_scenes)
    for c in (c for c in clips if c["frames"]):
        frames = Frames.from_bytes(c["frames"])
        gaps = np.diff(frames.time_s)
        assert np.all(np.abs(gaps - 0.25) < 1 / FPS + 1e-6)
        assert frames.time_s[0] == pytest.approx(c["start_s"])
        assert frames.time_s[-1] < c["end_s"]
        assert np.all(frames.time_s + frames.dt_s < c["end_s"])
        assert np.all(frames.dt_s[:-1] > 0)
        assert len(frames.signals["luma"]) == c["end_frame"] - c["start_frame"]
        assert frames.signals["luma_diff"][0] == frames.signals["edge_diff"][0] == 0


def test_the_same_frames_again(two_scenes: Path) -> None:
    clips, _ = split(two_scenes)
    for c in (c for c in clips if c["frames"]):
        with Video(str(two_scenes), Limits(), size=CONFIG.size) as video:
            again = frames_of(video.pictures(), c, CONFIG)
        assert again.to_bytes() == c["frames"]


def test_ids_depend_on_content_and_settings_alone(two_scenes: Path) -> None:
    first, second = split(two_scenes)[0], split(two_scenes)[0]
    other = split(two_scenes, CONFIG.model_copy(update={"sample_fps": 2.0}))[0]
    assert [c["clip_id"] for c in first] == [c["clip_id"] for c in second]
    assert {c["clip_id"] for c in first}.isdisjoint(c["clip_id"] for c in other)


def test_min_chunks_makes_short_shots_too_short(two_scenes: Path) -> None:
    clips, _ = split(two_scenes, CONFIG.model_copy(update={"min_chunks": 2}))
    assert clips[0]["reject"] == ["too_short"]
    assert clips[0]["frames"] is None
    assert clips[1]["chunks"] == 2


def test_dissolve_frames_belong_to_no_clip(tmp_path: Path) -> None:
    a, b = scene(4, 60), scene(5, 60)
    mixed = [(x * (1 - t) + y * t).astype(np.uint8) for x, y, t in zip(a[-12:], b[:12], np.linspace(1 / 13, 12 / 13, 12), strict=True)]
    clips, _ = split(write(tmp_path / "dissolve.mp4", a[:-12] + mixed + b[12:]))
    gone = [c for c in clips if c["reject"] == ["transition"]]
    assert len(gone) == 1
    assert 42 <= gone[0]["start_frame"] <= 48
    assert 60 <= gone[0]["end_frame"] <= 66


def test_a_fault_is_the_videos_row(tmp_path: Path, two_scenes: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a video at all" * 1000)
    clips, video = split(broken)
    assert clips == []
    assert video["status"] == "failed"
    assert video["error_code"]
    assert json.loads(video["stats"])["clips"] == 0


def test_other_rows_pass_through_untouched() -> None:
    source = table_of([{"kind": "video", "video_id": "f" * 16, "video_uri": "x.mp4", "status": "duplicate", "provenance": "{}"}])
    assert [t.to_pylist() for t in SplitVideo(CONFIG, Limits())(source)] == [source.to_pylist()]


def test_clips_leave_before_the_video_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = write(tmp_path / "long.mp4", scene(1, 40) + scene(2, 400)), list[int]()
    measure: Callable[..., Any] = Meter.measure_thumb
    monkeypatch.setattr(Meter, "measure_thumb", lambda self, index, thumb: (seen.append(index), measure(self, index, thumb))[1])
    first = next(SplitVideo(CONFIG, Limits())(table_of([{"kind": "video", "video_id": "a" * 16, "video_uri": str(path)}])))
    assert first.to_pylist()[0]["end_frame"] <= 40
    assert seen[-1] < 250


class Still:
    """A picture whose luma says which it is."""

    def __init__(self, index: int, time_s: float) -> None:
        self.index, self.time_s, self.pts = index, time_s, round(time_s * 1000)
        self.luma, self.shape = np.full((2, 2), index % 256, np.uint8), (2, 2)

    def rgb(self) -> np.ndarray:
        """Gray."""
        return np.repeat(self.luma[..., None], 3, 2)

    def rgb_luma(self) -> np.ndarray:
        """The same."""
        return self.luma


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.floats(0.01, 0.9), min_size=3, max_size=120), chunks=st.integers(1, 4))
@example(steps=[0.5, 0.5, 0.5, 0.875, 0.5625, 0.0625, 0.875, 0.875, 0.25, 0.01, 0.75, 0.01], chunks=2)  # a gap behind the end
def test_sampler_keeps_what_choose_would(steps: list[float], chunks: int) -> None:
    times = [float(t) for t in np.cumsum([0.0, *steps])]
    sampler = Sampler(fps=4.0, neighbour_s=1 / 15, max_chunks=4)
    for i, t in enumerate(times):
        sampler.add(Still(i, t), dict.fromkeys([n for n in SIGNALS if n != "time_s"], 1.0))  # type: ignore[arg-type]
    end_s = grid_s(chunks) if times[-1] >= grid_s(chunks) - SAME_S else times[-1] + 0.05
    inside = [t for t in times if t < end_s - SAME_S]
    frames = sampler.close(end_s)
    expected = choose(inside, end_s, 4.0, 1 / 15)
    assert frames.rgb[:, 0, 0, 0].tolist() == [s for s, _ in expected]
    assert frames.next_luma[:, 0, 0].tolist() == [s if n is None else n for s, n in expected]
    assert np.all(np.diff(frames.time_s) > 0)


def test_time_base_travels(two_scenes: Path) -> None:
    clips, video = split(two_scenes)
    base = Fraction(video["time_base"])
    assert all(float(c["start_pts"] * base) == pytest.approx(c["start_s"], abs=1e-6) for c in clips)
    assert {(c["width"], c["height"], c["fps"]) for c in clips} == {(160, 96, float(FPS))}


def test_pictures_before_a_fault_are_measured_before_it_is_told() -> None:
    def broken() -> Iterator[Any]:
        yield from range(5)
        raise ClipError("decode_error", "here")

    seen = list[list[Any]]()
    with pytest.raises(ClipError, match="here"):
        seen.extend(_batches(broken(), 2))
    assert seen == [[0, 1], [2, 3], [4]]
