"""Shot detection on transitions with known truth, edited together in memory from single-shot videos: `python benchmarks/shot_edits.py [CORPUS]`.

Cuts, jump cuts inside one scene, dissolves, fades through black and white, wipes and pushes of 4 to 48 frames; and, without a boundary: flashes,
whip pans, dropped and frozen frames. Prints recall by kind and length, false boundaries a minute, and one JSON line.
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from curation.boundaries import Boundary, BoundaryFinder, ShotConfig
from curation.clips import ClipError
from curation.frames import U8
from curation.signals import THUMB, Meter
from curation.video import Video

LENGTHS = (4, 8, 16, 24, 32, 48)
GRADUAL = ("dissolve", "fade_black", "fade_white", "wipe", "push")
SHARP = ("cut", "jump_cut")
NONE = ("flash", "whip", "dropped", "frozen")
TOLERANCE = 2


@dataclass
class Programme:
    """Edited frames (uint8 [N, H, W, 3]) and what was done to them: (kind, first, last) in frames of the programme."""

    frames: list[U8] = field(default_factory=list)
    truth: list[tuple[str, int, int]] = field(default_factory=list)


def blend(a: U8, b: U8, share: float) -> U8:
    """Share `share` of b over a."""
    return (a * (1 - share) + b * share + 0.5).astype(np.uint8)


def transition(kind: str, a: Sequence[U8], b: Sequence[U8], rng: np.random.Generator) -> list[U8]:
    """`len(a)` frames that lead from a's to b's."""
    n, side = len(a), int(rng.integers(4))
    through = np.full_like(a[0], 0 if kind == "fade_black" else 255)
    out = []
    for i, (x, y) in enumerate(zip(a, b, strict=True)):
        t = (i + 1) / (n + 1)
        if kind == "dissolve":
            out.append(blend(x, y, t))
        elif kind.startswith("fade"):
            out.append(blend(x, through, min(1, 2 * t)) if t < 0.5 else blend(through, y, min(1, 2 * t - 1)))
        else:
            out.append(_slide(kind, x, y, t, side))
    return out


def _slide(kind: str, x: U8, y: U8, t: float, side: int) -> U8:
    """A wipe lays y over x from one side; a push moves both."""
    if side % 2:
        return np.ascontiguousarray(_slide(kind, np.swapaxes(x, 0, 1), np.swapaxes(y, 0, 1), t, side - 1).swapaxes(0, 1))
    if side == 2:
        return np.ascontiguousarray(_slide(kind, x[:, ::-1], y[:, ::-1], t, 0)[:, ::-1])
    edge = round(t * x.shape[1])
    if kind == "wipe":
        return np.concatenate([y[:, :edge], x[:, edge:]], 1)
    return np.concatenate([y[:, x.shape[1] - edge :], x[:, : x.shape[1] - edge]], 1)


def disturb(kind: str, shot: list[U8], at: int, rng: np.random.Generator) -> tuple[list[U8], int]:
    """The shot with a disturbance that is no boundary, and the disturbance's last frame."""
    if kind == "flash":
        n, white = int(rng.integers(1, 5)), np.full_like(shot[0], 255)
        return [blend(f, white, float(rng.uniform(0.5, 0.95))) if at <= i < at + n else f for i, f in enumerate(shot)], at + n - 1
    if kind == "dropped":
        return shot[:at] + shot[at + int(rng.integers(2, 6)) :], at
    if kind == "frozen":
        n = int(rng.integers(3, 10))
        return shot[:at] + [shot[at]] * n + shot[at + n :], at + n
    # Two widths away, over the mirror image, the picture is the same again: a whip that ends where the shot goes on.
    n, width = int(rng.integers(7, 16)), shot[0].shape[1]
    path = np.cumsum(np.hanning(n + 2)[1:-1])
    path = path / path[-1] * 2 * width * rng.choice([-1, 1])
    steps = np.diff(path, prepend=0.0)
    out = list(shot[:at])
    out += [shifted(f, path[i], abs(steps[i])) for i, f in enumerate(shot[at : at + n])]
    return out + list(shot[at + n :]), at + n - 1


def shifted(f: U8, offset: float, blur: float) -> U8:
    """The frame moved sideways over its own mirror images, smeared over `blur` px."""
    wide = np.concatenate([f, f[:, ::-1]], 1)
    taps = max(1, int(blur))
    total = np.zeros(f.shape, np.float32)
    for k in range(taps):
        columns = (np.arange(f.shape[1]) + round(offset - k)) % wide.shape[1]
        total += wide[:, columns]
    return (total / taps + 0.5).astype(np.uint8)


def programmes(shots: Sequence[U8], events: int, seed: int) -> Iterator[Programme]:
    """Programmes of up to 12 events each until `events` are made; every kind and length comes round equally often."""
    rng = np.random.default_rng(seed)
    plan = [(k, int(n)) for k in GRADUAL for n in LENGTHS] + [("cut", 0)] * 12 + [("jump_cut", 0)] * 8 + [(k, 0) for k in NONE for _ in range(4)]
    todo: list[tuple[str, int]] = []
    while len(todo) < events:
        todo += [plan[i] for i in rng.permutation(len(plan))]
    for start in range(0, events, 12):
        yield programme(shots, todo[start : min(start + 12, events)], rng)


def programme(shots: Sequence[U8], plan: Sequence[tuple[str, int]], rng: np.random.Generator) -> Programme:
    """Edits one programme. A shot that is too short for the next event is followed by a plain cut to a longer one."""
    out, now = Programme(), _Reel(shots, rng)
    for kind, n in plan:
        out.frames += now.take(int(rng.integers(30, 70)))
        if kind in NONE:
            base = len(out.frames)
            changed, last = disturb(kind, now.take(60), 25, rng)
            out.truth.append((kind, base + 25, base + last))
            out.frames += changed
            continue
        if kind == "jump_cut" and now.jump():
            out.truth.append((kind, len(out.frames), len(out.frames)))
            continue
        following = now.other()
        kind = "cut" if kind == "jump_cut" else kind
        base = len(out.frames)
        if n:
            out.frames += transition(kind, now.take(n), following.take(n), rng)
        out.truth.append((kind, base, base + max(n - 1, 0)))
        now = following
    out.frames += now.take(40)
    return out


class _Reel:
    """Frames of one shot, taken in order; it runs forwards and backwards in turn, so that it never ends and never jumps."""

    def __init__(self, shots: Sequence[U8], rng: np.random.Generator, without: int = -1) -> None:
        self._shots, self._rng = shots, rng
        self._which = int(rng.choice([i for i in range(len(shots)) if i != without]))
        self._shot = shots[self._which]
        self._at = int(rng.integers(0, max(1, len(self._shot) // 2)))

    def other(self) -> "_Reel":
        """Another shot's reel."""
        return _Reel(self._shots, self._rng, self._which)

    def take(self, n: int) -> list[U8]:
        """The next n frames."""
        period = 2 * (len(self._shot) - 1)
        rows = [(self._at + i) % period for i in range(n)]
        self._at = (self._at + n) % period
        return [self._shot[r if r < len(self._shot) else period - r] for r in rows]

    def jump(self) -> bool:
        """Leaps to a place in the same shot that looks different (mean change of at least 12 levels and six usual steps), if there is one."""
        period = 2 * (len(self._shot) - 1)
        here = self._shot[self._at if self._at < len(self._shot) else period - self._at].astype(np.int16)
        usual = np.median([np.abs(self._shot[i + 1].astype(np.int16) - self._shot[i]).mean() for i in range(0, len(self._shot) - 1, 5)])
        for row in self._rng.permutation(len(self._shot)):
            if abs(int(row) - self._at) > 20 and np.abs(self._shot[row] - here).mean() > max(12.0, 6 * usual):
                self._at = int(row)
                return True
        return False


def sources(corpus: Path) -> list[U8]:
    """Thumbs of the labelled single-shot videos of at least 60 frames without an ambiguous one."""
    out = []
    for line in (corpus / "dev/labels.jsonl").read_text().splitlines():
        label = json.loads(line)
        if label["n_shots"] == 1 and not label["ambiguous_boundaries"] and (label["n_frames"] or 0) >= 60:
            try:
                with Video(str(corpus / "dev" / label["file"])) as video:
                    # 240 frames of each are enough to edit with.
                    out.append(np.stack([p.thumb(*THUMB) for p in islice(video.pictures(), 240)]))
            except ClipError as error:
                print(f"  left out {label['id']}: {error}")
    return out


def judge(made: Programme, found: Sequence[Boundary]) -> tuple[list[tuple[str, int, bool]], int]:
    """(kind, length, found) of every event, and the boundaries that belong to none.

    A cut is found by a boundary within `TOLERANCE` frames, a gradual transition by one that touches it so; a disturbance counts as found if a
    boundary touches it, which is wrong. Each boundary serves one event, a gradual one may absorb several.
    """
    used, out = set[int](), []
    for kind, first, last in made.truth:
        near = [i for i, b in enumerate(found) if i not in used and b.first <= last + TOLERANCE and b.last >= first - TOLERANCE]
        used.update(near if kind not in SHARP else near[:1])
        out.append((kind, last - first + 1 if kind in GRADUAL else 0, bool(near)))
    false = len(found) - len(used) + sum(hit for kind, _, hit in out if kind in NONE)
    return out, false


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__)
    cli.add_argument("corpus", nargs="?", type=Path, default=Path(__file__).parents[2] / "shared/corpus")
    cli.add_argument("--events", type=int, default=660)
    cli.add_argument("--seed", type=int, default=11)
    cli.add_argument("--no-transnet", action="store_true", help="the pixels decide alone")
    args = cli.parse_args()
    if not (args.corpus / "dev/labels.jsonl").exists():
        print(f"no labelled videos at {args.corpus}: pass the corpus' folder")
        print(json.dumps({"recall_cut": {"value": None, "target": 0.97, "met": None}}))
        return
    cv2.setNumThreads(1)
    began = time.process_time()
    count, hits, false, frames = defaultdict[tuple[str, int], int](int), defaultdict[tuple[str, int], int](int), 0, 0
    for made in programmes(sources(args.corpus), args.events, args.seed):
        finder, meter, found = BoundaryFinder(ShotConfig(transnet=not args.no_transnet)), Meter(), list[Boundary]()
        for index, thumb in enumerate(made.frames):
            found += finder.push(meter.measure_thumb(index, thumb))
        events, wrong = judge(made, found + finder.flush())
        false, frames = false + wrong, frames + len(made.frames)
        for kind, length, hit in events:
            count[kind, length] += 1
            hits[kind, length] += hit
    print(
        f"{sum(count.values())} events in {frames} frames, {time.process_time() - began:.0f} CPU-s\n{'kind':<12}"
        + "".join(f"{n or 'cut':>9}" for n in (0, *LENGTHS))
    )
    for kind in (*SHARP, *GRADUAL, *NONE):
        cells = [f"{hits[kind, n]}/{count[kind, n]}" if count[kind, n] else "" for n in (0, *LENGTHS)]
        print(f"{kind:<12}" + "".join(f"{c:>9}" for c in cells))
    print(json.dumps(figures(count, hits, false / (frames / 25 / 60))))


def figures(count: Mapping[tuple[str, int], int], hits: Mapping[tuple[str, int], int], false_a_minute: float) -> dict[str, dict[str, float | bool]]:
    """Recall by kind, disturbances taken for boundaries, false boundaries a minute (at 25 frames per second)."""
    share = lambda kinds: sum(n for (k, _), n in hits.items() if k in kinds) / max(1, sum(n for (k, _), n in count.items() if k in kinds))  # noqa: E731
    out: dict[str, dict[str, float | bool]] = {}
    for name, kinds, target in (
        ("recall_cut", ("cut",), 0.97),
        ("recall_jump_cut", ("jump_cut",), 0.8),
        ("recall_dissolve", ("dissolve",), 0.95),
        ("recall_fade", ("fade_black", "fade_white"), 0.95),
        ("recall_wipe", ("wipe", "push"), 0.8),
    ):
        out[name] = {"value": round(share(kinds), 4), "target": target, "met": share(kinds) >= target}
    for kind in NONE:
        out[f"taken_{kind}"] = {"value": round(share((kind,)), 4), "target": 0.05, "met": share((kind,)) <= 0.05}
    out["false_a_minute"] = {"value": round(false_a_minute, 3), "target": 0.5, "met": false_a_minute <= 0.5}
    out["transitions"] = {"value": sum(n for (k, _), n in count.items() if k not in NONE), "target": 500, "met": True}
    out["transitions"]["met"] = out["transitions"]["value"] >= 500
    return out


if __name__ == "__main__":
    main()
