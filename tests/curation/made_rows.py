"""Made rows: clips and videos as the stream's last stage gives them, with made MP4 bytes; their truth is known by construction."""

import hashlib
import json
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from curation import storage
from curation.binding import seal
from curation.clips import clip_id, table_of
from curation.ledger import FrozenLedger
from curation.lock import acquire
from curation.pack import Manifest, PackPlan, pack
from curation.sink import Ledger

SCORES = ("motion_flow", "quality_brisque")
PLAN = PackPlan(seed=7, target_bytes=40_000, val_share=0.3, thresholds={"motion": {"low": 0.02}}, plan_digest="p" * 64, recipe_digest="r" * 64)


def video_id(number: int) -> str:
    """The id of the made video `number`."""
    return hashlib.sha256(f"video {number}".encode()).hexdigest()[:16]


def mp4_of(video: int, index: int) -> bytes:
    """Bytes that stand for a clip's MP4: 3,000 to 6,000 of them, the same each time."""
    seed = hashlib.sha256(f"{video} {index}".encode()).digest()
    return seed * (100 + 10 * (video + index) % 90)


def clip_row(video: int, index: int, /, kept: bool = True, mp4: bytes | None = None, **changes: Any) -> dict[str, Any]:
    """One clip; kept with an MP4, or rejected for too little motion."""
    start, data = index * 40_000, mp4 or mp4_of(video, index)
    row: dict[str, Any] = {
        "kind": "clip",
        "clip_id": clip_id(video_id(video), start, start + 32_800, "1/12800", "split"),
        "video_id": video_id(video),
        "video_uri": f"/videos/{video}.mp4",
        "provenance": json.dumps({"licence": "CC0", "year": 2020 + video} if video % 2 else {"licence": "CC-BY", "author": "Ö"}),
        "clip_index": index,
        "start_s": start / 12_800,
        "end_s": (start + 32_800) / 12_800,
        "start_pts": start,
        "end_pts": start + 32_800,
        "time_base": "1/12800",
        "start_frame": index * 100,
        "end_frame": index * 100 + 82,
        "chunks": 1,
        "fps": 32.0,
        "width": 64,
        "height": 48,
        "notes": [],
        "stages": ["rules", "detectors", "caption", "cut"] if kept else ["rules"],
        "reject": [] if kept else ["static"],
        "motion_flow": 0.3 + index if kept else 0.001,
        "quality_brisque": 20.0 if kept else None,
    }
    if kept:
        row |= {
            "events": [{"start_s": 0.0, "end_s": 2.5, "text": f"it moves {index}"}],
            "caption": f"clip {index} of video {video}",
            "caption_backend": "measured",
            "prompt_version": "1",
            "structure": None,
            "frames_sha256": hashlib.sha256(f"frames {video} {index}".encode()).hexdigest(),
            "answers": None,
            "video": data,
            "video_sha256": hashlib.sha256(data).hexdigest(),
            "video_frames": 41,
            "video_fps": 16.0,
            "video_width": 64,
            "video_height": 48,
            "video_start_frame": 0,
        }
    row |= changes
    return {"caption_sha256": seal(row), **row} if kept else row


def video_row(video: int, clips: int, status: str = "ok", **changes: Any) -> dict[str, Any]:
    """One video's row."""
    row = {"kind": "video", "video_id": video_id(video), "video_uri": f"/videos/{video}.mp4", "status": status}
    provenance = clip_row(video, 0)["provenance"]
    stats = json.dumps({"clips": clips, "frames_decoded": 100 * clips, "cpu_s": os.getpid() / 7})
    return {**row, "provenance": provenance, "stats": stats if status == "ok" else None, **changes}


def corpus(videos: int = 6, clips: int = 3) -> list[dict[str, Any]]:
    """Rows of `videos` videos of `clips` clips, every third clip rejected; then a failed video and a duplicate."""
    rows: list[dict[str, Any]] = []
    for v in range(videos):
        rows += [clip_row(v, i, kept=(v + i) % 3 != 0) for i in range(clips)]
        rows.append(video_row(v, clips))
    rows.append(video_row(100, 0, "failed", error_code="truncated", error_detail="cut at 60 %"))
    rows.append(video_row(0, 0, "duplicate", video_uri="/videos/again.mp4", error_code="duplicate"))
    return rows


def table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Rows as the stream's table."""
    return table_of(rows, SCORES)


def kept_of(ledger: FrozenLedger) -> list[str]:
    """The clips that nothing rejected."""
    return [row["clip_id"] for row in ledger.clips().to_pylist() if not row["reject"] and row["status"] == "ok"]


def commit(out: Path, rows: Sequence[dict[str, Any]], fence: int = 1, flush_rows: int = 4) -> list[str]:
    """Commits `rows` as one write task would, a row a block."""
    return Ledger(out, fence, flush_rows=flush_rows).write([table([row]) for row in rows], None)


def curate(out: Path, rows: Sequence[dict[str, Any]], plan: PackPlan = PLAN) -> Manifest:
    """What a run does: lock, redo the videos that are not done, pack, release."""
    lock = acquire(out)
    try:
        done = FrozenLedger.read(out).done()
        commit(out, [row for row in rows if (row["video_id"], row["video_uri"]) not in done], lock.fence)
        ledger = FrozenLedger.read(out)
        return pack(ledger, kept_of(ledger), plan, summary={"kept": len(kept_of(ledger))}, fence=lock.fence)
    finally:
        lock.release()


def published(out: Path) -> dict[str, bytes]:
    """Every file that a reader of the output can see, outside `_run`, with its bytes; links followed as "name -> target"."""
    files = {str(p.relative_to(out)): p.read_bytes() for p in sorted((out / "packs").rglob("*")) if p.is_file()} if (out / "packs").is_dir() else {}
    for path in sorted(out.iterdir()):
        if path.is_symlink():
            files[path.name] = os.readlink(path).encode()
        elif path.is_file():
            files[path.name] = path.read_bytes()
    return files


def die_at(point: int, work: Callable[[], object]) -> bool:
    """Runs `work` in a forked child that is killed by SIGKILL at its `point`-th write; says whether it was (it may end before).

    Raises:
        AssertionError: the child failed instead of dying.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            storage.kill_at = point
            storage.reached.clear()
            work()
            code = 0
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL), f"the child ended with {status} at point {point}"
    return status != 0
