"""A clip on a model's clock, and the sizes it is brought to."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curation.clips import ClipError
from curation.sample import rounds
from tests.training.data import made_clips
from training.data.buckets import bucket_for, buckets_of, checked
from training.data.grid import Place, grid_of, place
from training.data.pixels import covering, pieces
from training.model.spec import SPECS, ChunkSpec

PAN, DEBUG = SPECS["pan_14b"], SPECS["debug"]
EVENTS = [(0.0, 2.5625, "a"), (2.5625, 5.0625, "b"), (5.0625, 7.5625, "c")]


def document(fps: float = 16.0, frames: int = 121, chunks: int = 3, **changes: Any) -> dict[str, Any]:
    """What the grid needs of a pan-clip/1 document."""
    captions = [{"t0": t0, "t1": t1, "text": text} for t0, t1, text in EVENTS]
    return {"mp4": {"fps": fps, "frames": frames, "start_frame": 0}, "chunks": chunks, "captions": captions, **changes}


def test_pans_chunks_are_the_documents_rounds() -> None:
    assert grid_of(document(), PAN.chunks).actions == tuple(r["action"] for r in rounds(3, EVENTS)) == ("a", "b", "c")


def test_shorter_chunks_and_slower_clocks_find_the_same_events() -> None:
    assert grid_of(document(), DEBUG.chunks).actions == ("a",) * 5 + ("b",) * 5 + ("c",) * 5
    slow = grid_of(document(), replace(DEBUG.chunks, fps=3.2))  # 8 frames last as long as 40 at 16 a second
    assert (slow.stride, slow.actions) == (5, ("a", "b", "c"))
    assert grid_of(document(fps=32.0, frames=241), PAN.chunks).stride == 2


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("off_grid", {"fps": 15.0}),
        ("off_grid", {"fps": 8.0}),
        ("too_short", {"frames": 40}),
        ("too_short", {"chunks": 0}),
        ("no_action", {"captions": [{"t0": 0.0, "t1": 5.0, "text": "a"}]}),
    ],
)
def test_what_has_no_grid_says_why(reason: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ClipError) as raised:
        grid_of(document(**changes), PAN.chunks)
    assert raised.value.reason == reason


def test_a_window_lies_on_the_chunk_grid() -> None:
    assert Place(0, 2).latents(PAN.chunks) == slice(0, 21)
    assert Place(3, 2).latents(PAN.chunks) == slice(30, 51)  # cond latent 10 (i - 1), then chunks i and i + 1, counted from 1
    assert list(Place(3, 2).rounds(10)) == [0, 1, 2, 3, 4]
    assert list(Place(9, 2).rounds(10)) == list(range(1, 11))
    with pytest.raises(ValueError, match="at most 1"):
        Place(0, 2).rounds(1)


def test_where_a_window_lies_is_drawn_evenly_and_for_ever() -> None:
    found = Counter(place(f"clip {n}", 6, 2, 0.25, 0, 0).chunk for n in range(4000))
    assert found[0] == pytest.approx(1000, abs=100)  # 27 is a standard deviation
    assert all(found[chunk] == pytest.approx(750, abs=100) for chunk in (1, 2, 3, 4))
    assert place("a", 6, 2, 0.25, 0, 1) == place("a", 6, 2, 0.25, 0, 1)
    assert place("a", 2, 2, 0.0, 0, 0) == Place(0, 2)
    assert {place(str(n), 9, 2, 0.0, 0, 0, last=2).chunk for n in range(50)} == {1, 2}
    assert len({place("a", 9, 2, 0.25, 0, epoch).chunk for epoch in range(30)}) > 4
    with pytest.raises(ValueError, match="hold no window"):
        place("a", 1, 2, 0.25, 0, 0)


def test_buckets_of_a_model() -> None:
    assert buckets_of(PAN) == ((480, 480), (480, 640), (480, 832), (640, 480), (832, 480))
    assert buckets_of(DEBUG) == ((64, 64),)
    assert checked([[32, 64]], DEBUG) == ((32, 64),)
    with pytest.raises(ValueError, match="multiples of 16"):
        checked([[40, 64]], DEBUG)


@pytest.mark.parametrize(
    ("height", "width", "bucket"),
    [(480, 854, (480, 832)), (480, 640, (480, 640)), (720, 1280, (480, 832)), (854, 480, (832, 480)), (480, 480, (480, 480)), (480, 1130, (480, 832))],
)
def test_a_clip_goes_where_its_shape_is_nearest(height: int, width: int, bucket: tuple[int, int]) -> None:
    assert bucket_for(height, width, buckets_of(PAN), 1.1) == bucket


def test_a_clip_is_never_blown_up() -> None:
    with pytest.raises(ClipError, match="too_small_px"):
        bucket_for(360, 640, buckets_of(PAN), 1.1)
    assert bucket_for(360, 640, buckets_of(PAN), 1.4) == (480, 832)


def test_pictures_cover_their_bucket_and_lose_their_edges(tmp_path: Path) -> None:
    assert covering(854, 480, (480, 832)) == (854, 480)
    assert covering(96, 64, (64, 64)) == (96, 64)
    assert covering(1280, 720, (480, 832)) == (854, 480)
    frames = made_clips.pictures(1, 41, 64, 96)
    spec = ChunkSpec(chunk_latents=2)
    grid = grid_of(document(frames=41, chunks=1), spec)
    shown = list(pieces(made_clips.mp4(tmp_path, frames), grid, spec, (64, 64)))
    assert [len(piece) for piece in shown] == [1, 8, 8, 8, 8, 8]
    off = np.abs(np.concatenate(shown).astype(int) - frames[:, :, 16:80]).mean()
    assert off < 4  # of 255: what x264 at crf 18 and 4:2:0 lose
    sparse = list(pieces(made_clips.mp4(tmp_path, frames), grid_of(document(frames=41, chunks=1), replace(spec, fps=3.2)), replace(spec, fps=3.2), (64, 64)))
    assert np.array_equal(np.concatenate(sparse), np.concatenate(shown)[::5])
