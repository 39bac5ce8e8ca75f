"""Videos for whole runs, made here, so that what should become of each is known by construction; a debug model; a cluster that stands by itself."""

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest

Picture = npt.NDArray[np.uint8]
W, H, FPS = 320, 240, 16


def texture(seed: int, height: int = H, width: int = W) -> Picture:
    """A picture with structure at all scales, as a natural scene has, in muted colours."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3), np.float32)
    for octave in range(6):
        cells = 3 * 2**octave
        noise = rng.normal(size=(max(2, cells * height // width), cells, 3)).astype(np.float32)
        noise = noise.mean(2, keepdims=True) * 0.8 + noise * 0.2
        total += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC) / 1.7**octave
    total = (total - total.mean()) / total.std()
    return np.clip(128 + 45 * total, 8, 247).astype(np.uint8)


def acting(seed: int, seconds: float) -> Iterator[Picture]:
    """A still camera before a scene in which a large textured thing moves on a curved path: what a world model wants."""
    ground, thing = texture(seed), texture(seed + 1000, 90, 90)
    mask = cv2.circle(np.zeros((90, 90, 1), np.uint8), (45, 45), 42, 1, -1)
    for k in range(round(seconds * FPS)):
        t = k / FPS
        x, y = int(115 + 95 * np.sin(1.9 * t)), int(75 + 60 * np.sin(2.7 * t + 1))
        frame = ground.copy()
        frame[y : y + 90, x : x + 90] = np.where(mask, thing, frame[y : y + 90, x : x + 90])
        yield frame


def still(seed: int, seconds: float) -> Iterator[Picture]:
    """Nothing moves."""
    frame = texture(seed)
    for _ in range(round(seconds * FPS)):
        yield frame


def write(path: Path, frames: Iterable[Picture], fps: int = FPS) -> Path:
    """`frames` as x264 in MP4."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=fps, options={"crf": "18", "preset": "veryfast", "threads": "1"})
        stream.pix_fmt = "yuv420p"
        first = True
        for picture in frames:
            if first:
                stream.height, stream.width = picture.shape[:2]
                first = False
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        out.mux(stream.encode())
    return path


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five files: two shots that are worth keeping, a still one, the same bytes again, a short one, and a text file that claims to be a video."""
    folder = tmp_path_factory.mktemp("videos")

    def two() -> Iterator[Picture]:
        yield from acting(1, 3.0)
        yield from acting(50, 5.5)

    write(folder / "a_two_shots.mp4", two())
    write(folder / "b_still.mp4", still(3, 3.0))
    (folder / "c_same.mp4").write_bytes((folder / "b_still.mp4").read_bytes())
    write(folder / "d_short.mp4", acting(7, 1.0))
    (folder / "e_page.mp4").write_text("<html><body>404 Not Found</body></html>")
    return folder


Tree = Callable[[Path], dict[str, bytes]]


@pytest.fixture(scope="session")
def published() -> Tree:
    """What a reader of an output sees: every file but `_run` and the page for people, which names the output's place."""

    def tree(out: Path) -> dict[str, bytes]:
        files = [p for p in sorted(out.rglob("*")) if p.is_file() and not p.is_symlink() and "_run" not in p.parts and p.name != "report.html"]
        return {str(p.relative_to(out)): p.read_bytes() for p in files}

    return tree


@pytest.fixture(scope="session")
def debug_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a world model of debug size, `model`, and a picture to begin with, `image.png`.

    Its weights are lively: a new model's decoder says nothing, and no action would matter.
    """
    from PIL import Image

    from tests.training.made_world import picture, world
    from training.model.checkpoint import save_model

    folder = tmp_path_factory.mktemp("place")
    save_model(folder / "model", world())
    Image.fromarray(picture(height=90, width=120)).save(folder / "image.png")
    return folder


#: A node of `standing`: room for one worker.
NODE = {"num_cpus": 1, "object_store_memory": 128 << 20}


@pytest.fixture
def standing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster of one node, in a folder of its own, which RAY_ADDRESS names; whoever drives it is another process, and may die."""
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="pan", dir="/tmp")  # its socket paths must stay short
    for name, value in {"RAY_TMPDIR": folder, "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(Path(__file__).parents[2])}.items():
        monkeypatch.setenv(name, value)
    made = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
    monkeypatch.setenv("RAY_ADDRESS", made.address)
    yield made
    made.shutdown()
    shutil.rmtree(folder, ignore_errors=True)
