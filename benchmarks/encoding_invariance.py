"""Measures how far motion_flow depends on the encoding: one scene with known motion, written in many ways, read back as the pipeline does.

    python benchmarks/encoding_invariance.py [VIDEO ...] [--seconds 4]

The made scene is a textured plane under a slow pan, with a patch that moves to and fro on it. VIDEO adds real scenes: their first seconds
are decoded once, and encoded in the same ways. Every variant is decoded by curation.video and sampled by curation.sampler. The figure is the coefficient of
variation (standard deviation / mean) of motion_flow over all variants of a scene, and of each group of them; the target is 10 %.
"""

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt

from curation.frames import Frames
from curation.sampler import Sampler
from curation.shots import SplitConfig
from curation.signals import Meter
from curation.video import Video
from filters.motion import Motion

U8 = npt.NDArray[np.uint8]
TARGET = 0.10
BASE_FPS, WIDTH, HEIGHT = 30, 640, 360


@dataclass(frozen=True)
class Variant:
    """One way to write the scene."""

    group: str
    name: str
    codec: str = "libx264"
    options: dict[str, str] = field(default_factory=lambda: {"crf": "23", "preset": "veryfast"})
    gop: int = 30
    scale: float = 1.0
    fps: int = BASE_FPS
    suffix: str = ".mp4"


VARIANTS = (
    Variant("codec", "x264"),
    Variant("codec", "x265", "libx265", {"crf": "26", "preset": "veryfast", "x265-params": "log-level=none"}),
    Variant("codec", "vp9", "libvpx-vp9", {"crf": "33", "b": "0", "deadline": "realtime", "cpu-used": "8"}, suffix=".webm"),
    Variant("codec", "av1", "libsvtav1", {"crf": "38", "preset": "10"}),
    Variant("gop", "gop 1", gop=1),
    Variant("gop", "gop 15", gop=15),
    Variant("gop", "gop 250", gop=250),
    Variant("size", "half", scale=0.5),
    Variant("size", "double", scale=2.0),
    Variant("rate", "15 fps", fps=15),
    Variant("rate", "30 fps, crf 33", options={"crf": "33", "preset": "veryfast"}),
)


def made(seconds: float) -> Iterator[U8]:
    """The made scene's pictures, uint8 [H, W, 3] at BASE_FPS."""
    rng = np.random.default_rng(0)
    plane, actor = (texture(rng) for _ in range(2))
    for i in range(round(seconds * BASE_FPS)):
        now = i / BASE_FPS
        picture = window(plane, 60 + 30 * now, 80 + 6 * now, WIDTH, HEIGHT)
        to_and_fro = 110 * (now % 2 if now % 2 < 1 else 2 - now % 2)
        left = round(200 + to_and_fro)
        picture[120:280, left : left + 140] = window(actor, 300, 300, 140, 160)
        yield picture


def texture(rng: np.random.Generator, side: int = 1024) -> npt.NDArray[np.float32]:
    """A picture whose amplitude falls with frequency, as natural ones' does, float32 [side, side, 3] in [0, 255]."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
    frequency[0, 0] = 1.0
    shared, *tints = (np.fft.ifft2(np.fft.fft2(rng.normal(size=(side, side))) / frequency**1.2).real for _ in range(4))
    picture = np.stack([shared + 0.4 * tint for tint in tints], -1)
    return np.asarray(np.clip(128 + 48 * (picture - picture.mean()) / picture.std(), 0, 255), np.float32)


def window(plane: npt.NDArray[np.float32], left: float, top: float, width: int, height: int) -> U8:
    """The part of `plane` at a place between pixels, uint8 [height, width, 3]."""
    view = np.array([[1, 0, -left], [0, 1, -top]], np.float64)
    return np.asarray(cv2.warpAffine(plane, view, (width, height), flags=cv2.INTER_LINEAR), np.float32).astype(np.uint8)


def real(path: Path, seconds: float) -> list[U8]:
    """A video's first pictures at about BASE_FPS, at most WIDTH x WIDTH px and even sizes."""
    pictures = list[U8]()
    with Video(str(path), size=HEIGHT) as video:
        for picture in video.pictures():
            while picture.time_s >= len(pictures) / BASE_FPS - 1e-3 and len(pictures) < seconds * BASE_FPS:
                pictures.append(picture.rgb())
            if len(pictures) >= seconds * BASE_FPS:
                break
    return pictures


def write(path: Path, pictures: Sequence[U8], way: Variant) -> None:
    """Encodes the pictures as `way` says."""
    height, width = (round(side * way.scale / 2) * 2 for side in pictures[0].shape[:2])
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream(way.codec, rate=way.fps, options={**way.options, "threads": "1"})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = width, height, "yuv420p", way.gop
        stream.codec_context.time_base = Fraction(1, way.fps)
        for i, picture in enumerate(pictures[:: BASE_FPS // way.fps]):
            resized = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if way.scale < 1 else cv2.INTER_CUBIC)
            frame = av.VideoFrame.from_ndarray(np.asarray(resized, np.uint8), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, way.fps)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def read(path: Path) -> Frames:
    """The whole file as one clip's `Frames`."""
    settings = SplitConfig()
    sampler, meter = Sampler(settings.sample_fps, settings.neighbour_s, settings.max_chunks), Meter()
    with Video(str(path), size=settings.size) as video:
        for picture in video.pictures():
            sampler.add(picture, meter.measure(picture).signals())
    return sampler.close(sampler.times[-1] + 1.0)


def variation(values: Sequence[float]) -> float:
    """Standard deviation as a share of the mean."""
    return float(np.std(values) / np.mean(values))


def flows(pictures: Sequence[U8], folder: Path) -> list[tuple[Variant, float]]:
    """motion_flow of every variant of one scene."""
    found = []
    for way in VARIANTS:
        path = folder / f"{way.name.replace(' ', '_').replace(',', '')}{way.suffix}"
        write(path, pictures, way)
        found.append((way, Motion().score(read(path))["flow"]))
    return found


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    cli.add_argument("videos", nargs="*", type=Path, help="real scenes beside the made one")
    cli.add_argument("--seconds", type=float, default=4.0)
    args = cli.parse_args()
    missing = [str(path) for path in args.videos if not path.exists()]
    if missing:
        sys.exit(f"not there: {', '.join(missing)}")
    cv2.setNumThreads(1)
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, pictures in [("made", list(made(args.seconds))), *((path.stem, real(path, args.seconds)) for path in args.videos)]:
            found = flows(pictures, Path(folder))
            figures |= table(name, found)
    whole = {f"motion_flow_cv{'' if name == 'made' else '_' + name}": round(value, 4) for name, value in figures.items()}
    print(json.dumps({name: {"value": value, "target": TARGET, "met": value <= TARGET} for name, value in whole.items()}))


def table(name: str, found: Sequence[tuple[Variant, float]]) -> dict[str, float]:
    """Prints one scene's variants; {name: coefficient of variation}."""
    groups: dict[str, list[float]] = defaultdict(list)
    print(f"{name}\n{'variant':20}{'motion_flow':>12}")
    for way, flow in found:
        groups[way.group].append(flow)
        print(f"{way.name:20}{flow:12.4f}")
    base = found[0][1]
    for group, values in groups.items():
        print(f"{'variation, ' + group:20}{variation([base, *values] if group != 'codec' else values):12.2%}")
    print(f"{'variation, all':20}{variation([flow for _, flow in found]):12.2%}\n")
    return {name: variation([flow for _, flow in found])}


if __name__ == "__main__":
    main()
