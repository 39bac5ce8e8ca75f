"""Every score of every clip of labelled videos, no rule at work, and of the made vices; kept on disk until code or videos change."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from made_vices import Made, good_clips, make_all

from pipelines.recipe import Recipe

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "build" / "benchmarks"


def measure_all(labels: Sequence[Mapping[str, Any]], folder: Path, recipe: Recipe) -> pa.Table:
    """Clip rows with every score, none rejected by a rule, and column `id`; kept on disk until code or videos change."""
    kept = KEPT / f"scores-{digest([label['sha256'] for label in labels])}.parquet"
    if kept.is_file():
        return pq.read_table(kept)
    import cv2
    from analysis import Analysis

    cv2.setNumThreads(1)
    every = Analysis(recipe, stages=("rules", "detectors"), entries=[replace(entry, rules=()) for entry in recipe.entries()])
    tables = []
    for label in labels:
        found = pa.concat_tables(every(folder / label["file"]), promote_options="permissive")
        clips = found.filter(pa.array([kind == "clip" for kind in found["kind"].to_pylist()], pa.bool_()))
        failed = found["status"].to_pylist()[-1] != "ok"
        tables.append(clips.append_column("id", pa.array([label["id"]] * len(clips))).append_column("failed", pa.array([failed] * len(clips), pa.bool_())))
    table = pa.concat_tables(tables, promote_options="permissive")
    kept.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, kept)
    return table


def make_vices(labels: Sequence[Mapping[str, Any]], folder: Path, recipe: Recipe) -> list[Made]:
    """Made vices of every video with good footage, with their scores; kept on disk until code or videos change."""
    ours = [Path(__file__).with_name(name).read_text() for name in ("made_vices.py", "labelled_clips.py")]
    kept = KEPT / f"made-{digest([*(label['sha256'] for label in labels), *ours])}.json"
    if kept.is_file():
        return [Made(**line) for line in json.loads(kept.read_text())]
    import cv2

    cv2.setNumThreads(1)
    made = make_all(good_clips(labels, folder), [entry for entry in recipe.entries() if entry.stage in ("rules", "detectors")])
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps([vars(one) for one in made]))
    return made


def digest(also: Iterable[str]) -> str:
    """Sixteen hex digits of the code that decides about clips and of `also`."""
    known = hashlib.sha256("\n".join(also).encode())
    for part in ("curation", "filters", "pipelines"):
        for path in sorted((ROOT / part).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                known.update(path.read_bytes())
    return known.hexdigest()[:16]
