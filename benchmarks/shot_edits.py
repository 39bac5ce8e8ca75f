"""Shot detection on transitions with known truth, edited together in memory from single-shot videos: `python benchmarks/shot_edits.py [CORPUS]`.

Cuts, jump cuts inside one scene, dissolves, fades through black and white, wipes and pushes of 4 to 48 frames; and, without a boundary: flashes,
whip pans, dropped and frozen frames. Prints recall by kind and length, false boundaries a minute, and one JSON line.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
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
    out += [_shifted(f, path[i], abs(steps[i])) for i, f in enumerate(shot[at : at + n])]
    return out + list(shot[at + n :]), at + n - 1


def _shifted(f: U8, offset: float, blur: float) -> U8:
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
