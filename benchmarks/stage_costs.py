"""What each stage costs a clip and how many it rejects, each filter on every clip, and the order of filters that this implies."""

import argparse
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pyarrow as pa  # noqa: E402

from captioning.caption import CaptionClips  # noqa: E402
from curation.clips import table_of  # noqa: E402
from curation.cut import CutClips  # noqa: E402
from curation.embed import EmbedClips  # noqa: E402
from curation.shots import SplitVideo  # noqa: E402
from filters.score import ScoreClips  # noqa: E402
from pipelines.recipe import Recipe, load  # noqa: E402

LABELS = Path("../shared/corpus/dev/labels.jsonl")
#: Shipped order's cost a clip over the cheapest order's: how much is lost by keeping it.
TARGET = 1.1
SHARED = "decoding and shots"
STAGES = ("rules", "detectors", "content")
#: Clips that a network with random weights sees: it tells its cost, and nothing about the clip.
RANDOM_CLIPS = 4


@dataclass
class Cost:
    """What one stage did with every clip, whatever the others say of it.

    Attributes:
        name: the filter's, or the stage's.
        stage: where it stands in the stream.
        seconds: CPU-seconds (a GPU's work: seconds) of each clip.
        judges: whether it rejects clips for a reason; a network with random weights does not.
        rejects: clip -> whether this filter alone rejects it.
    """

    name: str
    stage: str
    judges: bool = True
    seconds: dict[str, float] = field(default_factory=dict)
    rejects: dict[str, bool] = field(default_factory=dict)

    def mean(self) -> float:
        """Seconds a clip."""
        return sum(self.seconds.values()) / max(len(self.seconds), 1)

    def share(self) -> float:
        """Of the clips, those it rejects."""
        return sum(self.rejects.values()) / max(len(self.rejects), 1)


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("videos", nargs="*", type=Path, help=f"videos; every N-th of those in {LABELS} where none is named")
    parser.add_argument("--every", type=int, default=4, help="N")
    parser.add_argument("--recipe", default="local")
    parser.add_argument("--set", action="append", default=[], dest="sets", help="KEY=VALUE on top of the recipe; may be repeated")
    parser.add_argument("--tower", default="ViT-L-14", help="open_clip model whose cost the aesthetic filter has, with random weights; empty: left out")
    return parser.parse_args(words)


def chosen(given: argparse.Namespace) -> list[Path]:
    """The videos to measure on.

    Raises:
        SystemExit: there are none.
    """
    if given.videos:
        return list(given.videos)
    if not LABELS.is_file():
        raise SystemExit(f"no labelled videos at {LABELS}: name some videos on the command line")
    labels = [json.loads(line) for line in LABELS.read_text("utf-8").splitlines()]
    return [LABELS.parent / label["file"] for label in labels[:: given.every]]


def recipe_of(given: argparse.Namespace) -> Recipe:
    """The recipe with what was set on top; the aesthetic filter with random weights, which cost what trained ones do."""
    import importlib.util

    sets = list(given.sets)
    if given.tower and importlib.util.find_spec("open_clip") and not any("aesthetic" in word for word in sets):
        named = {"enabled": "true", "tower": given.tower, "weights": "random:0", "head": "random:0", "low": "-1000"}
        sets += [f"filters.aesthetic.{key}={value}" for key, value in named.items()]
    return load(given.recipe, sets)


def clips_of(recipe: Recipe, videos: Sequence[Path], first: Cost) -> Iterator[pa.Table]:
    """One table a clip that is long enough; what it took to find it is written down in `first`."""
    split = SplitVideo(recipe.split, recipe.limits)
    for number, path in enumerate(videos):
        row = {"kind": "video", "video_id": f"{number:016x}", "video_uri": str(path)}
        found, tables, began = [], split(table_of([row])), spent()
        for table in tables:
            found += [table.slice(i, 1) for i, row in enumerate(table.to_pylist()) if row["kind"] == "clip" and not row["reject"] and row["status"] == "ok"]
        took = spent() - began
        for clip in found:
            name = clip["clip_id"][0].as_py()
            first.seconds[name] = took / len(found)
        yield from found


def spent() -> float:
    """Seconds so far: of this process's CPU time without a GPU, of the clock with one."""
    import torch

    return time.perf_counter() if torch.cuda.is_available() else time.process_time()


def measured(recipe: Recipe, videos: Sequence[Path]) -> list[Cost]:
    """Every stage on every clip: filters one by one, then embeddings, then captions."""
    costs = [Cost(SHARED, "split", judges=False)]
    work: list[tuple[Cost, Callable[[pa.Table], pa.Table]]] = []
    for entry in sorted(recipe.entries(), key=lambda e: STAGES.index(e.stage)):
        random = str(getattr(entry.settings, "weights", "")).startswith("random:")
        work.append((Cost(entry.name, entry.stage, judges=not random), ScoreClips([entry], entry.stage)))
    if recipe.dedup.enabled:
        work.append((Cost("embed", "embed", judges=False), EmbedClips(recipe.dedup)))
    work.append((Cost("caption", "caption", judges=False), CaptionClips(recipe.caption, recipe.vlm)))
    work.append((Cost("cut", "cut", judges=False), CutClips(recipe.cut, recipe.limits)))
    for clip in clips_of(recipe, videos, costs[0]):
        for cost, stage in work:
            if cost.judges or cost.stage != "detectors" or len(cost.seconds) < RANDOM_CLIPS:
                _add(cost, stage, clip)
    return costs + [cost for cost, _ in work]


def _add(cost: Cost, stage: Callable[[pa.Table], pa.Table], clip: pa.Table) -> None:
    """One clip through one stage; a stage's first clip goes through it twice, the first time unmeasured: weights load, kernels are chosen."""
    if not cost.seconds:
        stage(clip)
    began = spent()
    (out,) = stage(clip).to_pylist()
    cost.seconds[str(out["clip_id"])] = spent() - began
    cost.rejects[str(out["clip_id"])] = bool(out["reject"])


Group = tuple[Cost, ...]


def expected(order: Sequence[Group], clips: Sequence[str]) -> float:
    """Seconds a clip of groups of filters in this order: all filters of a group measure what every group before it kept."""
    total = 0.0
    for clip in clips:
        for group in order:
            total += sum(cost.seconds[clip] for cost in group)
            if any(cost.rejects[clip] for cost in group):
                break
    return total / max(len(clips), 1)


def best_order(groups: Sequence[Group], clips: Sequence[str]) -> list[Group]:
    """The order with the least expected cost. All are tried: at most seven."""
    if len(groups) > 7:
        raise ValueError(f"{len(groups)} groups have too many orders to try all")
    return list(min(itertools.permutations(groups), key=lambda order: expected(order, clips)))


def line(cost: Cost) -> str:
    """A row of the table."""
    share, each = "-", "-"
    if cost.judges:
        share, each = f"{cost.share():.3f}", f"{cost.mean() / cost.share():.3f}" if cost.share() else "never"
    return f"{cost.stage:<10} {cost.name:<20} {cost.mean():>9.4f} {share:>9} {each:>13}"


def said(order: Sequence[Group]) -> str:
    """An order in words."""
    return " > ".join("+".join(cost.name for cost in group) for group in order)


def report(costs: Sequence[Cost]) -> dict[str, dict[str, Any]]:
    """Prints the table; the figures of the last line."""
    clips = list(costs[0].seconds)
    print(f"{len(clips)} clips; every filter on every clip; CPU-seconds with one thread (with a GPU: seconds)")
    print(f"{'stage':<10} {'filter':<20} {'s/clip':>9} {'rejects':>9} {'s per reject':>13}")
    print("\n".join(line(cost) for cost in costs))
    judges = [cost for cost in costs if cost.judges]
    groups: list[Group] = [tuple(c for c in judges if c.stage == stage) for stage in dict.fromkeys(c.stage for c in judges)]
    single: list[Group] = [(cost,) for cost in judges]
    best, alone = best_order(groups, clips), best_order(single, clips)
    print(f"\nshipped: {said(groups)}: {expected(groups, clips):.4f} s a clip (a stage's filters all measure: a rejected clip has every score of its stage)")
    print(f"cheapest order of the stages: {said(best)}: {expected(best, clips):.4f}")
    print(f"cheapest order of single filters, each stopping the others: {said(alone)}: {expected(alone, clips):.4f}")
    ratio = expected(groups, clips) / expected(best, clips)
    return {
        "shipped_over_best_stage_order": {"value": round(ratio, 4), "target": TARGET, "met": ratio <= TARGET},
        **{name: {"value": round(value, 4), "target": None, "met": None} for name, value in _shown(groups, alone, clips, costs).items()},
        **_not_here(costs),
    }


def _shown(groups: Sequence[Group], alone: Sequence[Group], clips: Sequence[str], costs: Sequence[Cost]) -> dict[str, float]:
    """Figures without a target."""
    whole = {"clips": len(clips), "shipped_s_per_clip": expected(groups, clips), "single_filters_s_per_clip": expected(alone, clips)}
    return whole | {f"s_per_clip_{cost.name.replace(' ', '_')}": cost.mean() for cost in costs}


def _not_here(costs: Sequence[Cost]) -> Mapping[str, dict[str, Any]]:
    """What only a GPU shows, and why it is null here."""
    import torch

    names = {cost.name for cost in costs}
    lacking = [name for name in ("aesthetic", "scene_text") if name not in names]
    if lacking:
        print(f"not measured: {', '.join(lacking)} (this environment has no open_clip, or the recipe switches it off)")
    if not torch.cuda.is_available():
        print("not measured: the vision-language model's cost a clip, GPU utilisation and the bottleneck (no GPU; learned_stages.py measures the engine)")
        return {"bottleneck_on_gpu": {"value": None, "target": None, "met": None}}
    slowest = max(costs[1:], key=lambda cost: cost.mean())
    print(f"the slowest stage on this GPU: {slowest.name}, {slowest.mean():.4f} s a clip")
    return {"bottleneck_on_gpu": {"value": slowest.name, "target": None, "met": None}}


def main(words: Sequence[str] | None = None) -> None:
    """Measures, prints the table, and as the last line the figures."""
    given = arguments(words)
    videos = chosen(given)
    costs = measured(recipe_of(given), videos)
    if not costs[0].seconds:
        raise SystemExit(f"no clip of a whole chunk in {len(videos)} videos: name longer ones")
    print(json.dumps(report(costs)))


if __name__ == "__main__":
    main()
