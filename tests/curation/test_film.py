"""Film: every frame, its time and its colours come back; the same bytes twice; nothing is left of a film that failed."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from curation.film import Film
from curation.video import Video

HEIGHT, WIDTH = 64, 96


def frames(count: int, first: int = 0) -> np.ndarray:
    """Grey levels that tell each frame's number, with a red left half."""
    made = np.empty((count, HEIGHT, WIDTH, 3), np.uint8)
    for k in range(count):
        made[k] = 40 + 8 * (first + k)
        made[k, :, : WIDTH // 2] = (200, 30, 40)
    return made


def test_what_was_added_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    with Film(path, 16.0) as film:
        film.add(frames(1))
        film.add(frames(8, first=1))
        assert not path.exists()
    with Video(str(path), size=HEIGHT) as video:
        pictures = list(video.pictures())
        assert (video.info.fps, video.info.width, video.info.height) == (16.0, WIDTH, HEIGHT)
    assert [picture.time_s for picture in pictures] == pytest.approx([k / 16 for k in range(9)])
    for k, picture in enumerate(pictures):
        assert np.abs(picture.rgb()[:, WIDTH // 2 + 4 :].astype(int) - (40 + 8 * k)).max() < 6
        assert np.abs(picture.rgb()[:, 4 : WIDTH // 2 - 4].astype(int) - (200, 30, 40)).max() < 12


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    for name, pieces in (("a.mp4", (frames(9),)), ("b.mp4", (frames(4), frames(5, first=4)))):
        with Film(tmp_path / name, 16.0) as film:
            for piece in pieces:
                film.add(piece)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert b"x264" not in (tmp_path / "a.mp4").read_bytes()  # no version strings


def test_every_process_writes_the_same_bytes(tmp_path: Path) -> None:
    """A process's first film above all: x264 for AVX-512 gave it other bytes than the second, at widths that are no multiple of 64."""
    code = f"""
import hashlib
from pathlib import Path
from curation.film import Film
from tests.training.data.made_clips import pictures
for name in ("a", "b"):
    with Film(Path({str(tmp_path)!r}) / name, 16.0) as film:
        film.add(pictures(1, 41, {HEIGHT}, {WIDTH}))
    print(hashlib.sha256((Path({str(tmp_path)!r}) / name).read_bytes()).hexdigest())
"""
    here = Path(__file__).parents[2]
    told = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100, cwd=here).stdout.split() for _ in range(3)]
    assert len(told[0]) == 2
    assert len({digest for each in told for digest in each}) == 1


def test_nothing_is_left_of_a_film_that_failed(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(b"the film of yesterday")
    with pytest.raises(ValueError, match="even sides"), Film(tmp_path / "film.mp4", 16.0) as film:  # noqa: PT012 - the with statement's end is what is tested
        film.add(frames(3))
        film.add(np.zeros((1, 31, 32, 3), np.uint8))
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]
    assert (tmp_path / "film.mp4").read_bytes() == b"the film of yesterday"
    with Film(tmp_path / "empty.mp4", 16.0):
        pass
    assert not (tmp_path / "empty.mp4").exists()


def test_frames_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with Film(tmp_path / "film.mp4", 16.0) as film:
        film.add(frames(1))
        with pytest.raises(ValueError, match="one size"):
            film.add(np.zeros((1, 32, 32, 3), np.uint8))
        with pytest.raises(ValueError, match="even sides"):
            film.add(np.zeros((1, 31, 32, 3), np.uint8))
