"""Published clips whose every frame is known: an output of `pan curate`, made without running it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from curation.film import Film
from curation.ledger import FrozenLedger
from curation.lock import acquire
from curation.pack import Manifest, PackPlan, pack
from curation.sink import Ledger
from tests.curation.made_rows import clip_row, kept_of, table, video_row

PLAN = PackPlan(seed=7, target_bytes=60_000, val_share=0.0, thresholds={}, plan_digest="p" * 64, recipe_digest="r" * 64)
FPS = 16


def pictures(seed: int, count: int, height: int = 64, width: int = 64) -> npt.NDArray[np.uint8]:
    """A soft picture that drifts, uint8 [T, H, W, 3]."""
    rows, columns = np.mgrid[0:height, 0:width] / 8.0
    waves = [np.sin(rows * (1 + seed % 3) / 3 + k / 5 + channel) + np.cos(columns / 2 + seed + k / 7) for k in range(count) for channel in range(3)]
    films = np.stack(waves).reshape(count, 3, height, width).transpose(0, 2, 3, 1)
    return (128 + 50 * films).clip(0, 255).astype(np.uint8)


def mp4(tmp: Path, frames: npt.NDArray[np.uint8], fps: float = FPS) -> bytes:
    """Frames as the bytes of an MP4."""
    path = tmp / "made.mp4"
    with Film(path, fps) as film:
        film.add(frames)
    data = path.read_bytes()
    path.unlink()
    return data


def clip(tmp: Path, video: int, chunks: int, /, height: int = 64, width: int = 64, data: bytes | None = None, **changes: Any) -> dict[str, Any]:
    """One kept clip of so many 40-frame chunks, each with an action of its own; `data` stands for its MP4."""
    frames = 1 + 40 * chunks
    events = [{"start_s": (1 + 40 * k) / 16 if k else 0.0, "end_s": (1 + 40 * (k + 1)) / 16, "text": f"push {video} {k}"} for k in range(chunks)]
    size = {"video_frames": frames, "video_fps": 16.0, "video_width": width, "video_height": height, "width": width, "height": height}
    end = {"end_s": (frames + 0.5) / 16, "chunks": chunks, "events": events, "caption": " ".join(e["text"] for e in events)}
    data = data or mp4(tmp, pictures(video, frames, height, width))
    return clip_row(video, 0, mp4=data, **{**size, **end, **changes})


def published(out: Path, clips: Sequence[dict[str, Any]], plan: PackPlan = PLAN) -> Manifest:
    """Publishes clips, one a video, as a run of `pan curate` would; again with what is new."""
    rows = [row for at, clip in enumerate(clips) for row in (clip, video_row(at, 1, video_id=clip["video_id"], video_uri=clip["video_uri"]))]
    lock = acquire(out)
    try:
        Ledger(out, lock.fence).write([table(rows)])
        ledger = FrozenLedger.read(out)
        return pack(ledger, kept_of(ledger), plan, fence=lock.fence)
    finally:
        lock.release()
