"""Pictures a second of the detectors, aesthetic and scene_text, in batches of clips; on a GPU also how busy it is and which of the two holds the stage up."""

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2
import numpy as np

from curation.frames import SIGNALS, Frames
from curation.image_tower import spread
from filters.aesthetic import Aesthetic, AestheticSettings
from filters.scene_text import SceneText
from filters.text_detector import SceneTextSettings

PICTURES, H, W = 20, 256, 456


@dataclass(frozen=True)
class Speed:
    """pictures: looked at a second, by the clock; busy: share of the time in which the GPU had work, None = not known."""

    pictures: float
    busy: float | None


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=0, help="0: 256 on a GPU, 2 without one")
    parser.add_argument("--batch", type=int, default=32, help="clips a call")
    parser.add_argument("--tower", default="ViT-L-14", help="open_clip model, with random weights, which cost what trained ones do")
    parser.add_argument("--text-model-dir", type=Path, help="PaddleOCR's folder of a detector: measured in place of RapidOCR, on the GPU if there is one")
    given = parser.parse_args(words)
    if given.clips < 0 or given.batch < 1:
        parser.error(f"--clips must be at least 0 and --batch at least 1, got {given.clips} and {given.batch}")
    return given


def clip(seed: int) -> Frames:
    """Smooth noise with a line of lettering, 5 s at 4 pictures a second."""
    rng = np.random.default_rng(seed)
    base = cv2.resize(rng.integers(40, 200, (18, 32, 3), np.uint8), (W, H), interpolation=cv2.INTER_CUBIC)
    cv2.putText(base, "What is this sport?", (40, 200), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (255, 255, 255), 2, cv2.LINE_AA)
    rgb = np.stack([np.roll(base, 3 * k, axis=1) for k in range(PICTURES)])
    times = np.arange(PICTURES) / 4
    return Frames(rgb, rgb[..., 1].copy(), times, np.zeros(PICTURES, np.float32), 4.0, {name: np.zeros(PICTURES, np.float32) for name in SIGNALS})


def timed(score: Callable[[Sequence[Frames]], Any], looked_at: int, clips: Sequence[Frames], batch: int, gpu: bool) -> Speed:
    """All clips, a batch a call, after one call that warms up."""
    score(clips[:batch])
    done, busy = threading.Event(), list[float]()
    watch = threading.Thread(target=_watch, args=(done, busy), daemon=True)
    if gpu:
        watch.start()
    began = time.perf_counter()
    for start in range(0, len(clips), batch):
        score(clips[start : start + batch])
    took = time.perf_counter() - began
    done.set()
    return Speed(looked_at * len(clips) / took, float(np.mean(busy)) if busy else None)


def _watch(done: threading.Event, busy: list[float]) -> None:
    """Asks the driver ten times a second; says nothing where it cannot be asked."""
    import torch

    while not done.wait(0.1):
        try:
            busy.append(torch.cuda.utilization() / 100)
        except (ModuleNotFoundError, RuntimeError):
            return


def main(words: Sequence[str] | None = None) -> None:
    """Measures, prints the table, and as the last line the figures."""
    import torch

    given, gpu = arguments(words), torch.cuda.is_available()
    clips = [clip(seed) for seed in range(given.clips or (256 if gpu else 2))]
    if not gpu:
        torch.set_num_threads(1)
    text = SceneTextSettings()
    if given.text_model_dir is not None:
        text = SceneTextSettings(backend="paddle", model_dir=str(given.text_model_dir), device="gpu" if gpu else "cpu", batch=64)
    looks = Aesthetic(AestheticSettings(tower=given.tower, weights="random:0", head="random:0"))
    reads = SceneText(text)
    speeds = {
        "aesthetic": timed(looks.score_many, len(spread(PICTURES, AestheticSettings().pictures)), clips, given.batch, gpu),
        "scene_text": timed(reads.score_many, len(reads.looked_at(clips[0])), clips, given.batch, gpu and text.backend == "paddle"),
    }
    where = torch.cuda.get_device_name() if gpu else f"CPU, one thread of {os.cpu_count()}"
    print(f"{len(clips)} clips of {PICTURES} pictures {W}x{H}, {given.batch} clips a call, on {where}\n{'detector':<12} {'pictures/s':>11} {'GPU busy':>9}")
    for name, speed in speeds.items():
        print(f"{name:<12} {speed.pictures:>11.1f} {'not known' if speed.busy is None else f'{speed.busy:.0%}':>9}")
    if not gpu:
        print("not measured: the GPU's figures (no GPU)")
    figures = {f"{'gpu' if gpu else 'cpu'}_{name}_pictures_per_s": {"value": round(s.pictures, 2), "target": None, "met": None} for name, s in speeds.items()}
    if not gpu:
        figures |= {f"gpu_{name}_pictures_per_s": {"value": None, "target": None, "met": None} for name in speeds}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
