"""Whether scene_text's two back ends, RapidOCR and PaddleOCR, agree on labelled clips: scores, and verdicts under the recipe's bounds."""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np  # noqa: E402
from labelled_clips import pieces, read  # noqa: E402

from curation.frames import Frames  # noqa: E402
from filters.base import verdict  # noqa: E402
from filters.scene_text import SceneText  # noqa: E402
from filters.text_detector import SceneTextSettings  # noqa: E402
from pipelines.recipe import load  # noqa: E402
from tests.learned.test_paddle_text import DESCRIPTION  # noqa: E402

LABELS = Path("../shared/corpus/dev/labels.jsonl")
#: The stated margin: verdicts alike, and mean distance of a score as a share of the picture.
ALIKE, DISTANCE = 0.97, 0.005


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("labels", nargs="?", type=Path, default=LABELS)
    parser.add_argument("--every", type=int, default=2, help="every N-th video")
    parser.add_argument("--model-dir", type=Path, help="PaddleOCR's folder of the detector; the network of the RapidOCR wheel where none is given")
    parser.add_argument("--engine", default="onnxruntime", choices=["onnxruntime", "paddle"])
    given = parser.parse_args(words)
    if not given.labels.is_file():
        parser.error(f"no labelled videos at {given.labels}: name their labels.jsonl")
    return given


def clips(labels: Path, every: int) -> Iterator[tuple[str, Frames]]:
    """(video's id, a clip's frames) of the labelled shots: the first clip of each shot."""
    for label in [json.loads(text) for text in labels.read_text("utf-8").splitlines()][::every]:
        firsts = {shot: (start, end) for shot, start, end, _ in reversed(list(pieces(label)))}
        for frames in read(labels.parent / label["file"], [firsts[shot] for shot in sorted(firsts)]):
            yield label["id"], frames


def paddle(given: argparse.Namespace, folder: Path) -> SceneText:
    """The filter with PaddleOCR's back end."""
    if given.model_dir is None:
        import rapidocr_onnxruntime

        shutil.copy(Path(rapidocr_onnxruntime.__file__).parent / "models" / "ch_PP-OCRv4_det_infer.onnx", folder / "inference.onnx")
        (folder / "inference.yml").write_text(DESCRIPTION)
    return SceneText(SceneTextSettings(backend="paddle", model_dir=str(given.model_dir or folder), engine=given.engine, batch=4))


def compared(given: argparse.Namespace, folder: Path) -> tuple[list[dict[str, float]], list[dict[str, float]], list[str]]:
    """Both back ends' scores of every clip, and the clips' names."""
    ours, theirs = SceneText(), paddle(given, folder)
    rows: tuple[list[dict[str, float]], list[dict[str, float]], list[str]] = ([], [], [])
    for number, (name, frames) in enumerate(clips(given.labels, given.every)):
        rows[0].append(ours.score(frames))
        rows[1].append(theirs.score(frames))
        rows[2].append(f"{name}#{number}")
    return rows


def main(words: Sequence[str] | None = None) -> None:
    """Measures, prints the table, and as the last line the figures."""
    given = arguments(words)
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs, names = compared(given, Path(folder))
    if not names:
        raise SystemExit(f"no clip in {given.labels}")
    (rules,) = [entry.rules for entry in load("local").entries() if entry.name == "scene_text"]
    said = [[verdict({f"scene_text_{k}": v for k, v in row.items()}, rules) for row in rows] for rows in (ours, theirs)]
    print(f"{len(names)} clips of labelled shots\n{'score':<20} {'mean distance':>13} {'largest':>9} {'correlation':>12}")
    distances: list[float] = []
    for score in ours[0]:
        a, b = (np.array([row[score] for row in rows]) for rows in (ours, theirs))
        together = float(np.corrcoef(a, b)[0, 1]) if a.std() and b.std() else float("nan")
        distances.append(float(np.abs(a - b).mean()))
        print(f"{score:<20} {distances[-1]:>13.5f} {np.abs(a - b).max():>9.4f} {together:>12.4f}")
    for name, one, other in zip(names, *said, strict=True):
        if one != other:
            print(f"{name}: rapidocr {one or 'keeps'}, paddle {other or 'keeps'}")
    alike = float(np.mean([bool(one) == bool(other) for one, other in zip(*said, strict=True)]))
    same = float(np.mean([one == other for one, other in zip(*said, strict=True)]))
    figures: dict[str, Any] = {
        "verdicts_alike": {"value": round(alike, 4), "target": ALIKE, "met": alike >= ALIKE},
        "reasons_alike": {"value": round(same, 4), "target": None, "met": None},
        "mean_distance": {"value": round(max(distances), 5), "target": DISTANCE, "met": max(distances) <= DISTANCE},
        "clips": {"value": len(names), "target": None, "met": None},
        "rejected_rapidocr": {"value": sum(map(bool, said[0])), "target": None, "met": None},
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
