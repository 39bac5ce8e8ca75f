"""The reader against the truth that was drawn: places to parts of a px, over codecs, and never a guess for a block that is not there."""

from pathlib import Path

import av
import numpy as np
import pytest

from curation.film import Film
from curation.video import Video
from training.evaluation.block_pictures import film, picture
from training.evaluation.block_reader import read
from training.evaluation.blockworld import World, episode

WORLDS = [World(), World(camera=True, panning=0.8), World(blocks=5, side=0.13), World(size=128), World(blocks=2, side=0.25)]


def worst_px(world: World, frames: np.ndarray, positions: np.ndarray, camera: np.ndarray, every: int = 4) -> float:
    """The largest distance in x or y between a block, or the camera, and where it is read, in px; every block must be found."""
    found = [0.0]
    for k in range(0, len(frames), every):
        seen = read(world, frames[k])
        at = seen.positions_N2(world)
        assert at is not None, f"frame {k}: only {sorted(seen.places)} are read"
        assert seen.camera is not None
        found += [np.abs(at - positions[k]).max() * world.size, np.abs(seen.camera - camera[k]).max() * world.size]
    return max(found)


@pytest.mark.parametrize("world", WORLDS, ids=lambda w: f"{w.blocks}x{w.side}-{w.size}px{'-pan' if w.camera else ''}")
def test_every_block_is_read_where_it_was_drawn(world: World) -> None:
    for number in range(2):
        story = episode(world, 6, 0, number)
        assert worst_px(world, film(world, story.positions_TN2, story.camera_T2), story.positions_TN2, story.camera_T2) < 0.75


def test_parts_of_a_px_are_read() -> None:
    world = World(blocks=1)
    for shift in np.linspace(0, 1, 9) / world.size:
        seen = read(world, picture(world, np.array([[0.5 + shift, 0.4]])))
        assert seen.places["red"] == pytest.approx([0.5 + shift, 0.4], abs=0.2 / world.size)


CODECS = [
    ("libx264", {"crf": "18"}),
    ("libx264", {"crf": "30"}),
    ("libx265", {"crf": "26", "x265-params": "log-level=none:pools=1"}),
    ("mpeg4", {"b": "300000"}),
    ("libvpx-vp9", {"crf": "30", "b": "0", "cpu-used": "8", "deadline": "realtime"}),
]


@pytest.mark.parametrize(("codec", "options"), CODECS, ids=[f"{c}-{o.get('crf', o.get('b'))}" for c, o in CODECS])
def test_codecs_cost_less_than_a_px(codec: str, options: dict[str, str], tmp_path: Path) -> None:
    world = World(blocks=4, side=0.15)
    story = episode(world, 3, 7, 0)
    path = tmp_path / "film.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=16, options=options)
        stream.width = stream.height = world.size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        if "b" in options:
            stream.bit_rate = int(options["b"]) or 1  # of constant quality: none
        for frame in film(world, story.positions_TN2, story.camera_T2):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        out.mux(stream.encode())
    assert worst_px(world, decoded(path, world), story.positions_TN2, story.camera_T2) < 1.0


def test_a_film_of_ours_is_read_with_a_panning_camera(tmp_path: Path) -> None:
    world = World(camera=True, panning=1.0)
    story = episode(world, 3, 1, 0)
    with Film(tmp_path / "film.mp4", world.fps) as out:
        out.add(film(world, story.positions_TN2, story.camera_T2))
    assert worst_px(world, decoded(tmp_path / "film.mp4", world), story.positions_TN2, story.camera_T2) < 1.0


def decoded(path: Path, world: World) -> np.ndarray:
    with Video(str(path), size=world.size) as video:
        return np.stack([shown.rgb() for shown in video.pictures()])


def test_blur_and_noise_as_a_models_move_a_block_by_less_than_a_px() -> None:
    import cv2

    world, rng = World(), np.random.default_rng(0)
    story = episode(world, 1, 3, 0)
    clean = picture(world, story.positions_TN2[0])
    for blur, noise in ((1.0, 0), (1.5, 10), (0.5, 25)):
        soiled = cv2.GaussianBlur(clean, (0, 0), blur) + rng.normal(0, noise, clean.shape)
        at = read(world, np.clip(soiled, 0, 255).astype(np.uint8)).positions_N2(world)
        assert at is not None
        assert np.abs(at - story.positions_TN2[0]).max() * world.size < 1.0


def test_a_block_that_is_not_there_is_not_made_up() -> None:
    two, three = World(blocks=2), World(blocks=3)
    frame = picture(two, np.array([[0.3, 0.3], [0.6, 0.6]]))
    seen = read(three, frame)
    assert sorted(seen.places) == ["blue", "red"]
    assert seen.positions_N2(three) is None
    speck = frame.copy()
    speck[50:53, 50:53] = (30, 158, 66)  # green, but nine px are no block
    assert "green" not in read(three, speck).places
    assert read(three, np.full((64, 64, 3), 128, np.uint8)).places == {}
    assert read(World(camera=True), np.full((64, 64, 3), 128, np.uint8)).camera is None


def test_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="64x64 px"):
        read(World(), np.zeros((128, 128, 3), np.uint8))
