"""Shot boundaries against hand labels, on left-out videos: `python benchmarks/shots_quality.py [CORPUS] [--fit]`.

Every labelled video is decoded once; five folds over videos: the models of `curation.shot_model` are fitted on four folds (and on programmes edited
from their single-shot videos) and find the boundaries of the fifth, and of programmes edited from its single-shot videos. Prints the figures of the
corpus' `score_shots.py` for the left-out folds and for the committed numbers, and those of `shot_edits.py` for the left-out folds; `--fit` prints the
numbers to commit. `--cache DIR` keeps thumbs and the network's answers for the next run; `--no-transnet` lets the pixels decide alone.
"""

import argparse
import hashlib
import importlib.util
import json
import pickle
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import shot_edits
from shots_fit import CHEAP, Item, fit, panned

from curation.boundaries import Boundary, BoundaryFinder, Candidate, ShotConfig, net_rows
from curation.clips import ClipError
from curation.frames import F32, U8
from curation.shot_model import MODELS, PICKED
from curation.signals import THUMB, Meter
from curation.transnet import TransNet
from curation.video import Video

FOLDS = 5
EDITED_EVENTS = 96  # a fold
TARGETS = {"hard_f1": 0.965, "gradual_recall": 0.95, "all_f1": 0.965}
SILENT = {  # every candidate is measured in full, and none is accepted
    **{f"{kind}_screen": (1e9, *[0.0] * size) for kind, size in CHEAP.items()},
    **{kind: (-1e9, *[0.0] * len(PICKED[kind])) for kind in CHEAP},
}


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
    """Programmes and pans made within each fold from its single-shot videos."""
    items = []
    for fold in range(FOLDS):
        shots = [np.stack(v.thumbs)[:300] for v in videos if v.fold == fold and not v.hard and not v.soft and not v.ambiguous and len(v.thumbs) >= 60]
        items += [Item(f"pan{fold}.{n}", fold, pan, [], [], set(), False, [], []) for n, pan in enumerate(panned(shots, fold))]
        for n, made in enumerate(shot_edits.programmes(shots, EDITED_EVENTS, seed=100 + fold)):
            hard = [a for kind, a, _ in made.truth if kind in shot_edits.SHARP]
            soft = [(kind, (a, b)) for kind, a, b in made.truth if kind in shot_edits.GRADUAL]
            blends = [span for kind, span in soft if kind not in ("wipe", "push")]
            items.append(Item(f"edit{fold}.{n}", fold, made.frames, hard, [s for _, s in soft], set(), False, blends, [], made))
    return items


def find(thumbs: Iterable[U8], models: Mapping[str, Sequence[float]], config: ShotConfig, net: Callable[[], Any], observe: Any = None) -> list[Boundary]:
    """The finder's boundaries of a video given as thumbs."""
    finder, meter, found = BoundaryFinder(config, observe, models, net), Meter(), list[Boundary]()
    for index, thumb in enumerate(thumbs):
        found += finder.push(meter.measure_thumb(index, thumb))
    return found + finder.flush()


def collect(items: Sequence[Item], config: ShotConfig, cache: Path | None) -> None:
    """Fills in every item's candidates; with a cache, once for each state of the files that make them."""
    code = b"".join((Path(__file__).parents[1] / "curation" / f"{n}.py").read_bytes() for n in ("signals", "evidence", "same_scene"))
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


def score_edits(items: Sequence[Item], found: Mapping[str, list[Boundary]]) -> dict[str, Any]:
    """The figures of `shot_edits.py` on the edited programmes among the items."""
    count, hits, false, frames = defaultdict[tuple[str, int], int](int), defaultdict[tuple[str, int], int](int), 0, 0
    for item in items:
        if item.made is not None:
            events, wrong = shot_edits.judge(item.made, found[item.name])
            false, frames = false + wrong, frames + len(item.thumbs)
            for kind, length, hit in events:
                count[kind, length] += 1
                hits[kind, length] += hit
    return shot_edits.figures(count, hits, false / (frames / 25 / 60))


def network_share(asked: Sequence[Candidate], items: Sequence[Item]) -> float:
    """Frames shown to the network as a share of the items' frames."""
    return sum(len(net_rows(0, c.half)[0]) for c in asked if c.net is not None) / sum(len(v.thumbs) for v in items)


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__)
    cli.add_argument("corpus", nargs="?", type=Path, default=Path(__file__).parents[2] / "shared/corpus")
    cli.add_argument("--fit", action="store_true", help="print the numbers for curation/shot_model.py")
    cli.add_argument("--cache", type=Path)
    cli.add_argument("--no-transnet", action="store_true", help="the pixels decide alone")
    args = cli.parse_args()
    cv2.setNumThreads(1)
    if not (args.corpus / "dev/labels.jsonl").exists():
        print(f"no labelled videos at {args.corpus}: pass the corpus' folder")
        print(json.dumps({name: {"value": None, "target": target, "met": None} for name, target in TARGETS.items()}))
        return
    folder = args.cache or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    config, net = ShotConfig(transnet=not args.no_transnet), lambda: CachedNet(folder)
    videos = labelled(args.corpus, args.cache)
    items = [*videos, *edited(videos)]
    collect(items, config, args.cache)
    print(f"{len(videos)} videos, {sum(len(v.thumbs) for v in videos)} frames, {sum(len(i.candidates) for i in items)} candidates", flush=True)
    left_out, asked = dict[str, list[Boundary]](), list[Candidate]()
    for fold in range(FOLDS):
        models = fit([i for i in items if i.fold != fold], config, net)
        left_out |= {i.name: find(i.thumbs, models, config, net, asked.append if i.labelled else None) for i in items if i.fold == fold}
        print(f"fold {fold} of {FOLDS} done", flush=True)
    print("left-out folds:")
    out = score(args.corpus, left_out)
    print("  ", {k: round(v, 3) for k, v in out.items()}, f"frames shown to the network: {network_share(asked, videos):.3f} of all")
    figures = {f"left_out_{n}": {"value": round(out[n], 4), "target": t, "met": out[n] >= t} for n, t in TARGETS.items()}
    edits = score_edits(items, left_out)
    print("   programmes edited from left-out videos:", {k: v["value"] for k, v in edits.items()})
    pans = [i.name for i in items if i.name.startswith("pan")]
    print(f"   boundaries in {len(pans)} pans over left-out videos: {sum(len(left_out[name]) for name in pans)}")
    figures |= {f"left_out_edits_{name}": figure for name, figure in edits.items() if name != "transitions"}
    if args.fit:
        models = fit(items, config, net)
        for name, weights in models.items():
            print(f'    "{name}": ({", ".join(f"{w:.4g}" for w in weights)}),')
    models = models if args.fit else dict(MODELS)
    print("committed numbers:" if not args.fit else "numbers fitted on all folds:")
    asked = []
    now = score(args.corpus, {v.name: find(v.thumbs, models, config, net, asked.append) for v in videos})
    share = network_share(asked, videos)
    print("  ", {k: round(v, 3) for k, v in now.items()}, f"frames shown to the network: {share:.3f} of all")
    figures |= {n: {"value": round(now[n], 4), "target": t, "met": now[n] >= t} for n, t in TARGETS.items()}
    figures["network_share"] = {"value": round(share, 4), "target": 0.06, "met": share <= 0.06}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
