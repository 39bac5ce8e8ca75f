"""Labelled clips for the judge whose truth is known: drawn screens with a pointer, and natural textures under a moving camera; small MP4 files."""

import json
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
H, W, FPS, LENGTH = 84, 112, 8, 12


def write_labels(folder: Path, count: int, seed: int = 0) -> Path:
    """Writes `count` clips, every other one a screen, and labels.jsonl; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for k in range(count):
        rng = np.random.default_rng([seed, k])
        name = f"{k:04d}.mp4"
        _write(folder / name, screen(rng) if k % 2 else nature(rng))
        lines.append({"clip": {"video": name}, "labels": {"screen_recording": bool(k % 2)}, "annotator": "made"})
    path = folder / "labels.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def screen(rng: np.random.Generator) -> list[U8]:
    """Windows with lines of text on a plain ground; a pointer moves."""
    picture = np.full((H, W, 3), rng.integers(40, 220, 3), np.uint8)
    for _ in range(int(rng.integers(1, 3))):
        x, y = int(rng.integers(0, 40)), int(rng.integers(0, 30))
        w, h = int(rng.integers(40, W - x)), int(rng.integers(30, H - y))
        cv2.rectangle(picture, (x, y), (x + w, y + h), (int(rng.integers(225, 256)),) * 3, -1)
        cv2.rectangle(picture, (x, y), (x + w, y + 6), tuple(int(v) for v in rng.integers(40, 200, 3)), -1)
        for row in range(y + 11, y + h - 3, 5):
            cv2.line(picture, (x + 4, row), (x + 4 + int(rng.integers(10, max(11, w - 8))), row), (60, 60, 60), 1)
    start, step = rng.uniform((5, 5), (W - 20, H - 20)), rng.uniform(-1.5, 1.5, 2)
    out = []
    for k in range(LENGTH):
        now = picture.copy()
        x, y = (int(v) for v in start + k * step)
        cv2.fillPoly(now, [np.array([[x, y], [x, y + 7], [x + 5, y + 5]], np.int32)], (0, 0, 0))
        out.append(now)
    return out


def nature(rng: np.random.Generator) -> list[U8]:
    """A texture with the spectrum of natural pictures under a camera that moves."""
    side = 192
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
    frequency[0, 0] = 1.0
    layers = [np.fft.ifft2(np.fft.fft2(rng.normal(size=(side, side))) / frequency ** rng.uniform(1.0, 1.4)).real for _ in range(4)]
    world = np.stack([layers[0] + 0.5 * layer for layer in layers[1:]], -1)
    world = np.clip(rng.uniform(90, 150) + rng.uniform(30, 55) * (world - world.mean()) / world.std(), 0, 255).astype(np.uint8)
    place, step = rng.uniform(25, 60, 2), rng.uniform(-2, 2, 2)
    return [np.ascontiguousarray(world[int(y) : int(y) + H, int(x) : int(x) + W]) for x, y in (place + k * step for k in range(LENGTH))]


def _write(path: Path, pictures: list[U8]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "20"})
        stream.width, stream.height, stream.pix_fmt = W, H, "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())
