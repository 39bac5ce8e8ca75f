"""Shot boundaries against hand labels, on left-out videos: `python benchmarks/shots_quality.py [CORPUS] [--fit]`.

Every labelled video is decoded once; five folds over videos: the models of `curation.shot_model` are fitted on four folds (and on programmes edited
from their single-shot videos) and find the boundaries of the fifth. Prints the figures of the corpus' `score_shots.py` for the left-out folds and
for the committed numbers; `--fit` prints the numbers to commit. `--cache DIR` keeps thumbs and the network's answers for the next run.
"""

import argparse
import hashlib
import importlib.util
import json
import pickle
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import shot_edits

from curation.boundaries import STRUCTURE, Boundary, BoundaryFinder, Candidate, ShotConfig, net_rows
from curation.clips import ClipError
from curation.evidence import CUT_FEATURES, GRADUAL_FEATURES
from curation.frames import F32, U8
from curation.shot_model import CLIP, MODELS
from curation.signals import THUMB, Meter
from curation.transnet import TransNet
from curation.video import Video

F64 = npt.NDArray[np.float64]
FOLDS = 5
EDITED_EVENTS = 72  # a fold
EDITED_WEIGHT = 0.3
TARGETS = {"hard_f1": 0.965, "gradual_recall": 0.95, "all_f1": 0.965}
SIZES = {"cut": len(CUT_FEATURES), "blend": len(GRADUAL_FEATURES), "burst": len(GRADUAL_FEATURES), "cut_net": 2, "blend_net": 2, "burst_net": 2}
SILENT = {name: (-1e9, *[0.0] * size) for name, size in SIZES.items()}


@dataclass
class Item:
    """A labelled video or an edited programme: thumbs, fold, hard cuts, gradual spans, frames that are ambiguous, and candidates with labels."""

    name: str
    fold: int
    thumbs: Sequence[U8]
    hard: list[int]
    soft: list[tuple[int, int]]
    ambiguous: set[int]
    labelled: bool
    blends: list[tuple[int, int]]
    candidates: list[Candidate]


class CachedNet:
    """TransNetV2 that answers a question it has heard before from a file."""

    net: TransNet | None = None

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def logits(self, thumbs: list[U8]) -> F32:
        """See `TransNet.logits`."""
        key = hashlib.sha256(b"".join(t.tobytes() for t in thumbs)).hexdigest()[:24]
        path = self._folder / f"{key}.npy" if self._folder else None
        if path is not None and path.exists():
            return np.asarray(np.load(path), np.float32)
        CachedNet.net = CachedNet.net or TransNet()
        found = CachedNet.net.logits(thumbs)
        if path is not None:
            np.save(path, found)
        return found


def thumbs_of(path: Path, cache: Path | None) -> Sequence[U8]:
    """A video's thumbs; those before the fault where it is damaged."""
    kept = cache / f"{path.name}.npz" if cache else None
    if kept is not None and kept.exists():
        return list(np.load(kept)["thumbs"])
    out: list[U8] = []
    try:
        with Video(str(path)) as video:
            out += [picture.thumb(*THUMB) for picture in video.pictures()]
    except ClipError as error:
        print(f"  {path.name}: {error} after {len(out)} frames")
    if kept is not None and out:
        np.savez(kept, thumbs=np.stack(out))
    return out


def labelled(corpus: Path, cache: Path | None) -> list[Item]:
    """The labelled videos that decode, each in its fold (a hash of its id, so that a new video moves no other)."""
    items = []
    for line in (corpus / "dev/labels.jsonl").read_text().splitlines():
        label = json.loads(line)
        hard, soft, ambiguous = [], [], set(label["ambiguous_boundaries"] or [])
        for shot in label["shots"]:
            how = shot["transition_in"]
            if how["type"] == "in_progress":
                first, last = how["span"] or (shot["start_frame"], shot["start_frame"])
                ambiguous |= set(range(first, last + 1))
            elif how["type"] != "start" and how["gradual"] and how["span"]:
                soft.append((how["span"][0], how["span"][1]))
            elif how["type"] != "start":
                hard.append(shot["start_frame"])
        thumbs = thumbs_of(corpus / "dev" / label["file"], cache)
        if thumbs:
            fold = int(hashlib.sha256(label["id"].encode()).hexdigest(), 16) % FOLDS
            items.append(Item(label["id"], fold, thumbs, hard, soft, ambiguous, True, soft, []))
    return items


def edited(videos: Sequence[Item]) -> list[Item]:
    """Programmes made within each fold from its single-shot videos."""
    items = []
    for fold in range(FOLDS):
        shots = [np.stack(v.thumbs) for v in videos if v.fold == fold and not v.hard and not v.soft and not v.ambiguous and len(v.thumbs) >= 60]
        for n, made in enumerate(shot_edits.programmes(shots, EDITED_EVENTS, seed=fold)):
            hard = [a for kind, a, _ in made.truth if kind in shot_edits.SHARP]
            soft = [(kind, (a, b)) for kind, a, b in made.truth if kind in shot_edits.GRADUAL]
            blends = [span for kind, span in soft if kind not in ("wipe", "push")]
            items.append(Item(f"edit{fold}.{n}", fold, made.frames, hard, [s for _, s in soft], set(), False, blends, []))
    return items


def find(thumbs: Iterable[U8], models: Mapping[str, Sequence[float]], config: ShotConfig, net: Callable[[], Any], observe: Any = None) -> list[Boundary]:
    """The finder's boundaries of a video given as thumbs."""
    finder, meter, found = BoundaryFinder(config, observe, models, net), Meter(), list[Boundary]()
    for index, thumb in enumerate(thumbs):
        found += finder.push(meter.measure_thumb(index, thumb))
    return found + finder.flush()


def collect(items: Sequence[Item], config: ShotConfig, cache: Path | None) -> None:
    """Fills in every item's candidates; with a cache, once for each state of the files that make them."""
    code = b"".join((Path(__file__).parents[1] / "curation" / f"{n}.py").read_bytes() for n in ("signals", "evidence"))
    lows = config.model_dump(include={"content_low", "hist_low", "adaptive_low", "blend_low", "burst_low"})
    key = hashlib.sha256(code + repr((lows, [(i.name, len(i.thumbs)) for i in items])).encode()).hexdigest()[:16]
    kept = cache / f"candidates_{key}.pickle" if cache else None
    if kept is not None and kept.exists():
        for item, found in zip(items, pickle.loads(kept.read_bytes()), strict=True):
            item.candidates = found
        return
    for item in items:
        find(item.thumbs, SILENT, config.model_copy(update={"transnet": False}), lambda: None, item.candidates.append)
    if kept is not None:
        kept.write_bytes(pickle.dumps([i.candidates for i in items]))


def truth(item: Item, c: Candidate) -> int | None:
    """1, 0, or None where the label does not say."""
    touched = any(c.centre - c.half - 2 <= b and c.centre + c.half + 2 >= a for a, b in item.soft)
    doubtful = any(c.centre - c.half - 2 <= a <= c.centre + c.half + 2 for a in item.ambiguous)
    if c.kind == "cut":
        if any(abs(c.centre - h) <= 1 for h in item.hard):
            return 1
        return None if touched or doubtful else 0
    spans = item.blends if c.kind == "blend" else item.soft
    if any(a - 2 <= c.centre <= b + 2 and 2 * c.half <= 3 * (b - a + 1) + 4 for a, b in spans):
        return 1
    if touched or doubtful or any(c.centre - c.half - 1 <= h <= c.centre + c.half + 1 for h in item.hard):
        return None
    return 0


def logistic(x: F64, y: F64, weight: F64, ridge: float = 1.0) -> tuple[float, ...]:
    """Intercept and weights of a ridge logistic regression on standardised columns (Newton's method)."""
    mean, scale = x.mean(0), x.std(0) + 1e-6
    z = np.c_[np.ones(len(x)), (x - mean) / scale]
    penalty = np.diag([1e-3, *[ridge] * x.shape[1]])
    beta = np.zeros(z.shape[1])
    for _ in range(60):
        p = 1 / (1 + np.exp(-np.clip(z @ beta, -30, 30)))
        step = np.linalg.solve(z.T @ (z * (weight * p * (1 - p))[:, None]) + penalty, z.T @ (weight * (y - p)) - penalty @ beta)
        beta += step * min(1.0, 5 / np.abs(step).max())
        if np.abs(step).max() < 1e-6:
            break
    slopes = beta[1:] / scale
    return (float(beta[0] - (slopes * mean).sum()), *map(float, slopes))


def rows(items: Sequence[Item], kind: str) -> list[tuple[Item, Candidate, int]]:
    """Candidates of a kind whose label is known."""
    return [(item, c, y) for item in items for c in item.candidates if c.kind == kind and (y := truth(item, c)) is not None]


def fit_pixels(items: Sequence[Item], kind: str) -> tuple[float, ...]:
    """The pixels' model of a kind."""
    found = rows(items, kind)
    x = np.array([c.features for _, c, _ in found], np.float64)
    weight = np.array([1.0 if item.labelled else EDITED_WEIGHT for item, _, _ in found])
    return logistic(x, np.array([y for *_, y in found], np.float64), weight)


def fit(items: Sequence[Item], config: ShotConfig, net: Callable[[], Any]) -> dict[str, tuple[float, ...]]:
    """All six models. The network's are fitted where it would be asked, on pixels' log-odds of left-out folds."""
    models = {}
    for kind in ("cut", "blend", "burst"):
        models[kind] = fit_pixels(items, kind)
        asked, (low, high) = list[tuple[float, float, float, float]](), getattr(config, f"unsure_{kind}")
        for fold in sorted({i.fold for i in items}):
            weights = np.array(fit_pixels([i for i in items if i.fold != fold], kind))
            for item, c, y in rows([i for i in items if i.fold == fold and (i.labelled or i.name.endswith((".1", ".2")))], kind):
                pixels = float(weights[0] + c.features @ weights[1:])
                stays = kind == "cut" and c.features[STRUCTURE] > config.structure_stays
                if low - 1 < pixels and (stays or pixels < high + 1):
                    asked.append((float(np.clip(pixels, -CLIP, CLIP)), ask(item, c, net), y, 1.0 if item.labelled else EDITED_WEIGHT / 3))
        data = np.array(asked, np.float64)
        models[f"{kind}_net"] = logistic(data[:, :2], data[:, 2], data[:, 3], 0.1)
    return models


def ask(item: Item, c: Candidate, net: Callable[[], Any]) -> float:
    """What the finder would ask of the network about a candidate."""
    shown, inner = net_rows(c.centre, c.half)
    return float(net().logits([item.thumbs[i] for i in np.clip(shown, 0, len(item.thumbs) - 1)])[inner].max())


def score(corpus: Path, found: Mapping[str, list[Boundary]]) -> dict[str, Any]:
    """The corpus' own scorer on our boundaries."""
    spec = importlib.util.spec_from_file_location("score_shots", corpus / "score_shots.py")
    assert spec
    assert spec.loader
    scorer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(scorer)
    total = dict.fromkeys(("hard", "hard_hit", "soft", "soft_hit", "false"), 0)
    for line in (corpus / "dev/labels.jsonl").read_text().splitlines():
        label = json.loads(line)
        if label["id"] in found:
            row = scorer.score_video(label, [b.first if b.kind == "cut" else [b.first, b.last] for b in found[label["id"]]], 2)
            for name in total:
                total[name] += row[name]
            if row["false"] or row["hard"] != row["hard_hit"] or row["soft"] != row["soft_hit"]:
                print(f"  {label['id']}: {row}")
    hits, n = total["hard_hit"] + total["soft_hit"], total["hard"] + total["soft"]
    f1 = lambda hit, of: 2 * hit / (hit + total["false"] + of)  # noqa: E731 as the scorer says it
    return {**total, "hard_f1": f1(total["hard_hit"], total["hard"]), "gradual_recall": total["soft_hit"] / max(total["soft"], 1), "all_f1": f1(hits, n)}


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__)
    cli.add_argument("corpus", nargs="?", type=Path, default=Path(__file__).parents[2] / "shared/corpus")
    cli.add_argument("--fit", action="store_true", help="print the numbers for curation/shot_model.py")
    cli.add_argument("--cache", type=Path)
    args = cli.parse_args()
    cv2.setNumThreads(1)
    if not (args.corpus / "dev/labels.jsonl").exists():
        print(f"no labelled videos at {args.corpus}: pass the corpus' folder")
        print(json.dumps({name: {"value": None, "target": target, "met": None} for name, target in TARGETS.items()}))
        return
    folder = args.cache or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    config, net = ShotConfig(), lambda: CachedNet(folder)
    videos = labelled(args.corpus, args.cache)
    items = [*videos, *edited(videos)]
    collect(items, config, args.cache)
    print(f"{len(videos)} videos, {sum(len(v.thumbs) for v in videos)} frames, {sum(len(i.candidates) for i in items)} candidates", flush=True)
    left_out: dict[str, list[Boundary]] = {}
    for fold in range(FOLDS):
        models = fit([i for i in items if i.fold != fold], config, net)
        left_out |= {v.name: find(v.thumbs, models, config, net) for v in videos if v.fold == fold}
        print(f"fold {fold} of {FOLDS} done", flush=True)
    print("left-out folds:")
    out = score(args.corpus, left_out)
    print("  ", {k: round(v, 3) for k, v in out.items()})
    figures = {f"left_out_{n}": {"value": round(out[n], 4), "target": t, "met": out[n] >= t} for n, t in TARGETS.items()}
    if args.fit:
        models = fit(items, config, net)
        for name, weights in models.items():
            print(f'    "{name}": ({", ".join(f"{w:.4g}" for w in weights)}),')
    models = models if args.fit else dict(MODELS)
    print("committed numbers:" if not args.fit else "numbers fitted on all folds:")
    asked: list[Candidate] = []
    now = score(args.corpus, {v.name: find(v.thumbs, models, config, net, asked.append) for v in videos})
    print("  ", {k: round(v, 3) for k, v in now.items()})
    share = sum(len(net_rows(0, c.half)[0]) for c in asked if c.net is not None) / sum(len(v.thumbs) for v in videos)
    print(f"   frames shown to the network: {share:.3f} of all")
    figures |= {n: {"value": round(now[n], 4), "target": t, "met": now[n] >= t} for n, t in TARGETS.items()}
    figures["network_share"] = {"value": round(share, 4), "target": 0.15, "met": share <= 0.15}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
