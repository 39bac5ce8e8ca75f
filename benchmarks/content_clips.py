"""The signs behind the content filter, and every other score, of every clip of labelled videos, and of the vices made of them; kept on disk."""

import hashlib
import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from content_fit import Clip
from curation_quality import group_of
from made_content import drawn, spoilt
from quality_figures import Truth
from quality_scores import KEPT, ROOT

from curation.clips import table_of
from curation.frames import Frames
from filters.base import Entry
from filters.signs import SIGNS, signs
from pipelines.recipe import Recipe

#: Clips of a good video that are spoilt, samples of them, and clips of each drawn kind.
GOOD_CLIPS, GOOD_SAMPLES, DRAWN_CLIPS = 2, 30, 24


class Signs:
    """The signs, as a filter."""

    scores = SIGNS

    def score(self, frames: Frames) -> dict[str, float]:
        """`filters.signs.signs`."""
        return signs(frames)


def measure(labels: Sequence[Mapping[str, Any]], folder: Path, recipe: Recipe) -> tuple[list[dict[str, Any]], list[Clip]]:
    """(every clip's row with all scores and signs, made clips); kept on disk until the code or the videos change."""
    kept = KEPT / f"judge-{digest([label['sha256'] for label in labels])}.pkl"
    if kept.is_file():
        found: tuple[list[dict[str, Any]], list[Clip]] = pickle.loads(kept.read_bytes())  # our own file, named after our own code
        return found
    rows, good = list[dict[str, Any]](), list[tuple[str, Frames]]()
    for label in labels:
        of_this = 0
        for row, frames in clips_of(label, folder, recipe):
            rows.append(row)
            if frames is not None and of_this < GOOD_CLIPS and keep_of(label, row) == "yes":
                good.append((group_of(label), shortened(frames)))
                of_this += 1
    made = [Clip(frozenset({f"seed {seed}"}), "made", frozenset(), signs(clip), part) for part, seed, clip in drawn(DRAWN_CLIPS)]
    for k, (group, one) in enumerate(good):
        other, two = good[(7 * k + 5) % len(good)]
        made += [Clip(frozenset({group, other}), "made", frozenset(), signs(clip), part) for part, clip in spoilt(one, two, k)]
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(pickle.dumps((rows, made)))
    return rows, made


def clips_of(label: Mapping[str, Any], folder: Path, recipe: Recipe) -> Iterator[tuple[dict[str, Any], Frames | None]]:
    """(row with every score, its frames) of a labelled video's clips, no rule at work; then the rows that failed, as rows of kind "clip" are marked."""
    from curation.shots import SplitVideo
    from filters.score import ScoreClips

    path = folder / label["file"]
    entries = [replace(entry, rules=()) for entry in recipe.entries() if entry.stage != "content"]
    score = ScoreClips([*entries, Entry("signs", "content", Signs, SIGNS, ())], "all")
    video = {"kind": "video", "video_id": hashlib.sha256(str(path).encode()).hexdigest()[:16], "video_uri": str(path)}
    found, failed = list[tuple[dict[str, Any], Frames | None]](), False
    for table in SplitVideo(recipe.split, recipe.limits)(table_of([video])):
        for row in score(table).to_pylist():
            blob = row.pop("frames")
            failed |= row["status"] != "ok"
            if row["kind"] == "clip":
                found.append(({**row, "id": label["id"]}, Frames.from_bytes(blob) if blob and not row["reject"] else None))
    yield from (({**row, "failed": failed}, frames) for row, frames in found)


def keep_of(label: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """What the label says of the shot in which the middle of a clip lies."""
    middle = (row["start_s"] + row["end_s"]) / 2
    return next((shot.keep for shot in Truth.of(label).shots if shot.start_s <= middle < shot.end_s), "borderline")


def shortened(frames: Frames) -> Frames:
    """The first `GOOD_SAMPLES` samples."""
    n = GOOD_SAMPLES
    return replace(frames, rgb=frames.rgb[:n].copy(), next_luma=frames.next_luma[:n].copy(), time_s=frames.time_s[:n], dt_s=frames.dt_s[:n])


def digest(also: Sequence[str]) -> str:
    """Sixteen hex digits of the code that decides about clips and signs, and of `also`."""
    known = hashlib.sha256("\n".join(also).encode())
    for path in sorted([*(ROOT / "curation").glob("*.py"), *(ROOT / "filters").glob("*.py"), ROOT / "benchmarks" / "made_content.py"]):
        if path.name not in ("catalog.py", "content.py", "score.py", "vlm.py", "vlm_engine.py", "vlm_server.py", "vlm_http.py", "pack.py", "sample.py"):
            known.update(path.read_bytes())
    return known.hexdigest()[:16]
