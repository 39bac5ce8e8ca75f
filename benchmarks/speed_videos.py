"""The speed benchmark's own videos: 720p x264 with cuts every few seconds, from labelled footage or made up, and long ones by looping packets."""

import json
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

WIDTH, HEIGHT, FPS = 1280, 720, 30
U8 = npt.NDArray[np.uint8]


def footage(labels: Path, shot_s: float, rounds: int = 2) -> Iterator[Iterator[U8]]:
    """Shots of natural footage: RGB frames [720, 1280, 3] of every landscape video at least 540 px high and long enough.

    First one shot of each source, then the next `shot_s` seconds of each; drawn or filmed, good or bad alike, since a curation run meets all.
    """
    found = [json.loads(line) for line in labels.read_text().splitlines() if line.strip()]
    for turn in range(rounds):
        for label in found:
            if label["width"] > label["height"] >= 540 and (label["duration_s"] or 0) >= shot_s * (turn + 1):
                yield _frames(labels.parent / label["file"], shot_s, turn)


def _frames(path: Path, seconds: float, turn: int) -> Iterator[U8]:
    first = round(seconds * FPS) * turn
    with av.open(str(path)) as container:
        for i, frame in enumerate(container.decode(container.streams.video[0])):
            if i >= first + round(seconds * FPS):
                return
            if i >= first:
                yield frame.reformat(WIDTH, HEIGHT, "rgb24", interpolation="BICUBIC").to_ndarray().astype(np.uint8, copy=False)


def made_up(shots: int, shot_s: float, seed: int = 7) -> Iterator[Iterator[U8]]:
    """Shots without any footage: a textured background (spectrum 1/f, as natural pictures have) that pans, a patch that moves across it, grain."""
    for shot in range(shots):
        yield _made_up_shot(np.random.default_rng((seed, shot)), round(shot_s * FPS))


def _made_up_shot(rng: np.random.Generator, frames: int) -> Iterator[U8]:
    scene, patch = _texture(rng, HEIGHT + 256, WIDTH + 512), _texture(rng, 180, 240)
    pan, start, step = rng.uniform(-1.5, 1.5, 2), rng.uniform(0.2, 0.6, 2), rng.uniform(-4, 4, 2)
    grain = rng.normal(0, 2, (HEIGHT, WIDTH, 1)).astype(np.float32)
    for i in range(frames):
        y, x = (np.array([128, 256]) + pan * i).astype(int)
        picture = scene[y : y + HEIGHT, x : x + WIDTH].copy()
        top, left = (np.clip(start * (HEIGHT, WIDTH) + step * i, 0, (HEIGHT - 180, WIDTH - 240))).astype(int)
        picture[top : top + 180, left : left + 240] = patch
        yield np.clip(picture + np.roll(grain, int(rng.integers(HEIGHT)), 0), 0, 255).astype(np.uint8)


def _texture(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.float32]:
    """float32 [height, width, 3] about 128 with a 1/f amplitude spectrum."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    planes = [np.fft.irfft2(np.fft.rfft2(rng.normal(size=(height, width))) / frequency, s=(height, width)) for _ in range(3)]
    return np.stack([128 + 45 * p / p.std() for p in planes], -1).astype(np.float32)


def encode(path: Path, shots: Iterable[Iterator[U8]]) -> None:
    """The shots one after the other as MP4: x264, medium, CRF 23, key frames where x264 puts them (at cuts, at most 250 frames apart)."""
    part = path.with_suffix(".part.mp4")
    with av.open(str(part), "w") as out:
        stream = out.add_stream("libx264", rate=FPS, options={"preset": "medium", "crf": "23"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for i, rgb in enumerate(picture for shot in shots for picture in shot):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, FPS)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    part.replace(path)


def loop(source: Path, target: Path, seconds: float) -> float:
    """Writes `source`'s packets again and again, times shifted, until `seconds` are full; returns the length in s. Nothing is encoded."""
    length, part = duration_s(source), target.with_suffix(".part.mp4")
    rounds = max(1, round(seconds / length))
    with av.open(str(part), "w") as out:
        stream = None
        for turn in range(rounds):
            with av.open(str(source)) as container:
                video = container.streams.video[0]
                stream = stream or out.add_stream_from_template(video)
                shift = round(turn * length / (video.time_base or Fraction(1)))
                for packet in container.demux(video):
                    if packet.dts is not None and packet.pts is not None:
                        packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                        out.mux(packet)
    part.replace(target)
    return rounds * length


def duration_s(path: Path) -> float:
    """The video stream's length in s, from the header."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        if stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base)
        return float(container.duration or 0) / av.time_base


def prepare(folder: Path, labels: Path, videos: int = 4, shots: int = 5, shot_s: float = 3.0) -> tuple[list[Path], str]:
    """`videos` files of `shots` shots of `shot_s` seconds each, made once and kept in `folder`; and a line that says what they are."""
    natural = labels.is_file()
    kind = "footage" if natural else "made"
    paths = [folder / f"{kind}-{i}-{shots}x{shot_s:g}s.mp4" for i in range(videos)]
    folder.mkdir(parents=True, exist_ok=True)
    if not all(path.is_file() for path in paths):
        source = footage(labels, shot_s) if natural else made_up(videos * shots, shot_s)
        all_shots = list(source)
        for i, path in enumerate(paths):
            encode(path, all_shots[i::videos][:shots])
    said = f"labelled footage beside {labels.name}" if natural else f"made up ({labels} is not there)"
    return paths, f"{videos} videos 720p x264 CRF 23, a cut every {shot_s:g} s: {said}"
