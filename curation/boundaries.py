"""Where one shot ends and the next begins: cheap signals of every frame propose, and the frames around a candidate decide."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from curation.config import Config
from curation.evidence import HALF_WIDTHS, I64, LAGS, Window, burst_map, cut_features, gradual_features, gradual_maps, peaks, products
from curation.frames import F32
from curation.same_scene import cut_scene, gradual_scene
from curation.shot_model import CLIP, DRAWN, FLOWS, LEAST_NET, MODELS, PICKED, logit
from curation.signals import SMALL, Measured
from curation.transnet import Network, TransNet

LOOKAHEAD = 3 * max(HALF_WIDTHS)
"""Later frames that are known when a frame is judged: a transition's half-width, and as many more to see that no better place lies beside it."""

BLOCK = 32
"""Frames judged at a time; changes the speed, not the result."""

GAP = 3
"""Frames between two transitions that are one."""

FLAT_GAP = 24
"""Frames of one colour that a fade may rest on."""

FLAT = 8.0
"""Standard deviation of each colour over the picture below which it has one colour: black with noise has about 2, a dark night scene 12."""

LONGEST = 128
"""Frames of the longest transition; more is a picture that never rests."""

NET_CONTEXT = 12
"""Frames that TransNetV2 sees on both sides of a candidate: of 12, 16 and 24 the labelled videos are told equally well, and the cost is half."""


class ShotConfig(Config):
    """When two frames belong to different shots. The thresholds of proposals are low on purpose: they decide only what is looked at."""

    transnet: bool = Field(True, description="ask TransNetV2 where the pixels are unsure; off, the pixels decide alone")
    content_low: float = Field(8.0, gt=0, description="PySceneDetect content score from which a frame may be a cut: the least of 84 labelled cuts has 23")
    hist_low: float = Field(0.6, gt=-1, lt=1, description="PySceneDetect histogram correlation up to which a frame may be a cut whatever its content score")
    adaptive_low: float = Field(1.25, gt=0, description="how many times its neighbours' content score a cut must have: the least of 84 labelled cuts has 1.5")
    blend_low: float = Field(4.0, gt=0, description="change (rms levels) x straightness above that of motion, from which a dissolve is looked for")
    burst_low: float = Field(12.0, gt=0, description="rms levels of change beyond that around it, from which a wipe is looked for")
    hopeless: float = Field(
        -4.0, description="log-odds of the cheap evidence below which a candidate is dropped: of 1700 true ones in videos and edits 3 % are"
    )
    unsure_cut: tuple[float, float] = Field((-1.0, 1.2), description="log-odds of the pixels between which TransNetV2 is asked about a cut")
    unsure_blend: tuple[float, float] = Field((-1.0, 1.0), description="the same for dissolves and fades")
    unsure_burst: tuple[float, float] = Field((-0.5, 2.2), description="the same for wipes and the like")
    motion: float = Field(0.7, gt=0, le=1, description="evidence that flow tells both halves of a transition from which it is motion, and none")
    drawn_over: float = Field(0.4, gt=0, le=1, description="evidence of a wipe or push from which TransNetV2, which has learned none, is not asked")


@dataclass(frozen=True)
class Boundary:
    """A change of shot: source frames first..last belong to neither shot when gradual; a cut has first == last == the new shot's first frame."""

    first: int
    last: int
    kind: Literal["cut", "gradual"]


Kind = Literal["cut", "blend", "burst"]


@dataclass(frozen=True)
class Candidate:
    """A place where a boundary may be.

    Attributes:
        kind: "cut", "blend" (dissolve or fade: a straight way between two pictures) or "burst" (wipe, push and others: much change, soon over).
        centre: the new shot's first frame for a cut, else the middle of the transition.
        half: half-width in frames; 0 for a cut.
        features: in the order of CUT_FEATURES or GRADUAL_FEATURES, then, unless the candidate is hopeless, of CUT_SCENE or GRADUAL_SCENE.
        pixels: log-odds by the pixels alone; by the cheap evidence alone where it is hopeless.
        net: TransNetV2's highest logit within the candidate; None if it was not asked.
        odds: log-odds by the pixels and, where it was asked, the network; a boundary from 0 on.
    """

    kind: Kind
    centre: int
    half: int
    features: F32
    pixels: float
    net: float | None
    odds: float


class BoundaryFinder:
    """Takes signals frame by frame and gives boundaries in order; frames before `settled` will get no further one.

    A frame is judged when `LOOKAHEAD` later ones are known (or none is left), always with the same frames around it: the result does not depend on
    how the frames arrive. Memory: about 250 thumbs.

    Args:
        config: thresholds.
        observe: called with every candidate that was judged, for fitting and for explaining.
        models: see `curation.shot_model.MODELS`.
        net: gives a network the first time that it is needed.
    """

    def __init__(
        self,
        config: ShotConfig,
        observe: Callable[[Candidate], None] | None = None,
        models: Mapping[str, Sequence[float]] = MODELS,
        net: Callable[[], Network] = TransNet,
    ) -> None:
        self._config, self._observe, self._models, self._make_net = config, observe, models, net
        self._net: Network | None = None
        self._base = 0
        self._rows: list[Measured] = []
        self._small = np.zeros((0, SMALL[0] * SMALL[1] * 3), np.float32)
        self._dots = np.zeros((0, LAGS), np.float64)
        self._maps = {w: np.zeros((0, 4), np.float32) for w in HALF_WIDTHS}
        self._judged = self._cuts_judged = 0
        self._held: list[Boundary] = []
        self.settled = 0

    @property
    def _end(self) -> int:
        return self._base + len(self._rows)

    def push(self, measured: Measured) -> list[Boundary]:
        """Boundaries that this frame makes certain."""
        if not self._rows:
            self._base = self._judged = self._cuts_judged = measured.index
        self._rows.append(measured)
        if self._end - self._judged < LOOKAHEAD + BLOCK:
            return []
        return self._judge(self._end - LOOKAHEAD, last=False)

    def flush(self) -> list[Boundary]:
        """Boundaries among the last frames; all frames are settled."""
        return self._judge(self._end, last=True) if self._rows else []

    def _judge(self, until: int, last: bool) -> list[Boundary]:
        window = self._window()
        self._extend_maps(window, last)
        # Cuts are judged further ahead: a burst of change around one is the cut's.
        self._held += self._cuts(window, self._end if last else until + max(HALF_WIDTHS))
        self._held = merged([*self._held, *self._gradual(window, until)], self._flat)
        self._judged = until
        safe = self._end if last else until - max(HALF_WIDTHS) * 3 // 2 - GAP - 1
        ready = [b for b in self._held if b.last < safe - GAP]
        self._held = self._held[len(ready) :]
        self.settled = max(self.settled, min([safe, *(b.first for b in self._held)]))
        self._forget()
        return ready

    def _window(self) -> Window:
        rows = self._rows
        fresh = [m.small for m in rows[len(self._small) :]]
        if fresh:
            self._small = np.concatenate([self._small, np.stack(fresh).astype(np.float32)])
        content, hist = np.array([m.content for m in rows], np.float32), np.stack([m.hist for m in rows])
        return Window(self._base, content, hist, self._small, [m.thumb for m in rows])

    def _extend_maps(self, window: Window, last: bool) -> None:
        """Change, mix, worst step and burst of every frame whose surroundings are known by now."""
        self._dots, size = products(window.small, self._dots), window.small.shape[1]
        for w in HALF_WIDTHS:
            done = len(self._maps[w])
            ready = len(window) - (0 if last else 2 * w)
            if ready > done:
                fresh = np.stack([*gradual_maps(self._dots, size, w, done, ready), burst_map(self._dots, size, w, done, ready)], 1)
                self._maps[w] = np.concatenate([self._maps[w], fresh])

    def _cuts(self, window: Window, until: int) -> list[Boundary]:
        content, found = window.content, []
        start, self._cuts_judged = max(self._cuts_judged - self._base, 1), until
        for row in range(start, until - self._base):
            near = [content[j] for j in range(max(row - 3, 1), min(row + 4, len(content))) if j != row]
            usual = float(np.mean(near)) if near else 0.0
            peak = content[row] >= content[max(row - 1, 1) : row + 2].max()
            much = content[row] >= self._config.content_low or self._rows[row].hist_match <= self._config.hist_low
            if peak and much and content[row] >= self._config.adaptive_low * usual:
                features = cut_features(window, row)
                if self._accepts("cut", row, 0, features, window):
                    found.append(Boundary(row + self._base, row + self._base, "cut"))
        return found

    def _gradual(self, window: Window, until: int) -> list[Boundary]:
        count = min(len(m) for m in self._maps.values())
        maps = np.stack([self._maps[w][:count] for w in HALF_WIDTHS])
        blend: F32 = maps[:, :, 0] * np.clip(maps[:, :, 1] - 0.5, 0, 1)
        burst: F32 = maps[:, :, 3] / (1 + 0.02 * np.array(HALF_WIDTHS, np.float32)[:, None])
        found = []
        families: tuple[tuple[Kind, F32, float], ...] = (("blend", blend, self._config.blend_low), ("burst", burst, self._config.burst_low))
        for kind, score, low in families:
            if kind == "burst":
                self._drop_lone_cuts(window, score, low)
            for k, row in peaks(score, low, max(self._judged - self._base, 0), until - self._base):
                w = HALF_WIDTHS[k]
                if self._is_cuts(window, kind, row, w):
                    continue
                features = gradual_features(window, row, w, *(float(x) for x in maps[k, row, :3]))
                if self._accepts(kind, row, w, features, window):
                    found.append(self._span(window, row, w))
        return found

    def _is_cuts(self, window: Window, kind: Kind, row: int, w: int) -> bool:
        """Whether the change is that of cuts already found: any within a burst, with 40 % of all change within a blend."""
        inside = [b.first - self._base for b in self._held if b.kind == "cut" and abs(b.first - self._base - row) <= w + 1]
        total = float(window.content[max(row - w - 1, 1) : row + w + 2].sum())
        return bool(inside) and (kind == "burst" or sum(float(window.content[r]) for r in inside) > 0.4 * total)

    def _drop_lone_cuts(self, window: Window, score: F32, low: float) -> None:
        """A burst that is one frame's change is a cut, and cuts are judged as such."""
        first = max(self._judged - self._base - max(HALF_WIDTHS), 0)
        for k, column in np.argwhere(score[:, first:] >= low):
            row = column + first
            inside = window.content[max(row - HALF_WIDTHS[k], 1) : row + HALF_WIDTHS[k] + 1]
            if not len(inside) or inside.max() > 0.45 * inside.sum():
                score[k, row] = 0

    def _span(self, window: Window, row: int, w: int) -> Boundary:
        """The frames that are neither the one picture nor the other: more than 4 % away from both ends of the way between them."""
        reach = w + w // 2 + 1
        rows = np.arange(max(row - reach, 0), min(row + reach + 1, len(window)))
        whole = window.small[rows[-1]] - window.small[rows[0]]
        share = (window.small[rows] - window.small[rows[0]]) @ whole / (float(whole @ whole) + 1)
        inner = rows[(share > 0.04) & (share < 0.96)]
        first, last = (int(inner[0]), int(inner[-1])) if len(inner) else (row - w, row + w)
        first, last = max(min(first, row), 0), min(max(last, row), len(window) - 1)
        return Boundary(first + self._base, last + self._base, "gradual")

    def _accepts(self, kind: Kind, row: int, w: int, cheap: F32, window: Window) -> bool:
        candidate = self._weigh(kind, row, w, cheap, window)
        if self._observe:
            self._observe(candidate)
        return candidate.odds >= 0

    def _weigh(self, kind: Kind, row: int, w: int, cheap: F32, window: Window) -> Candidate:
        """Cheap evidence first; what it leaves open costs some 5 ms; where that is unsure, the network's word some 300 ms."""
        screen = logit(self._models[f"{kind}_screen"], cheap)
        if screen < self._config.hopeless:
            return Candidate(kind, row + self._base, w, cheap, screen, None, screen)
        features = np.concatenate([cheap, cut_scene(window, row) if kind == "cut" else gradual_scene(window, row, w)])
        pixels = logit(self._models[kind], features[PICKED[kind]])
        low, high = {"cut": self._config.unsure_cut, "blend": self._config.unsure_blend, "burst": self._config.unsure_burst}[kind]
        net, odds = None, pixels
        if kind != "cut" and features[FLOWS].min() > self._config.motion:
            return Candidate(kind, row + self._base, w, features, pixels, None, min(pixels, self._config.hopeless))
        drawn = kind == "burst" and features[DRAWN].max() >= self._config.drawn_over
        if self._config.transnet and low < pixels < high and not drawn:
            net = self._ask(window, row, w)
            odds = logit(self._models[f"{kind}_net"], np.array([np.clip(pixels, -CLIP, CLIP), max(net, LEAST_NET)], np.float32))
        return Candidate(kind, row + self._base, w, features, pixels, net, odds)

    def _ask(self, window: Window, row: int, w: int) -> float:
        self._net = self._net or self._make_net()
        rows, inner = net_rows(row, w)
        logits = self._net.logits([window.thumbs[r] for r in np.clip(rows, 0, len(window) - 1)])
        return float(logits[inner].max())

    def _flat(self, first: int, last: int) -> bool:
        """Whether all frames first..last are of one colour."""
        rows = self._small[max(first - self._base, 0) : last + 1 - self._base]
        return bool(len(rows)) and bool((rows.reshape(len(rows), -1, 3).std(1).max(1) < FLAT).all())

    def _forget(self) -> None:
        drop = min(self._judged, *(b.first for b in self._held), self.settled) - LOOKAHEAD - self._base if self._held else self._judged - LOOKAHEAD - self._base
        if drop > 0:
            self._rows, self._small, self._dots = self._rows[drop:], self._small[drop:], self._dots[drop:]
            self._maps = {w: m[drop:] for w, m in self._maps.items()}
            self._base += drop


def net_rows(centre: int, w: int) -> tuple[I64, slice]:
    """The rows that TransNetV2 is shown for a candidate, and the part of its answer that counts.

    Wide transitions are shown at every second frame: the network was trained on dissolves of up to 30 frames, and 64 rows keep its memory small.
    """
    stride, reach = (1, w + NET_CONTEXT) if w <= 8 else (2, w + NET_CONTEXT + 8)
    rows = np.arange(centre - reach, centre + reach, stride)
    edge = NET_CONTEXT - 2 if stride == 1 else (NET_CONTEXT + 8) // 2 - 1
    return rows, slice(edge, len(rows) - edge)


def merged(boundaries: Sequence[Boundary], flat: Callable[[int, int], bool]) -> list[Boundary]:
    """Boundaries in order, those that overlap or touch (or have one colour between them, as a fade through black has) made one."""
    out: list[Boundary] = []
    for b in sorted(boundaries, key=lambda b: (b.first, b.last)):
        before = out[-1] if out else None
        if before is None or before.kind == "cut" == b.kind:
            out.append(b)
            continue
        gap = b.first - before.last - 1
        joins = gap <= GAP or (gap <= FLAT_GAP and before.kind == b.kind and flat(before.last + 1, b.first - 1))
        if joins and max(b.last, before.last) - before.first < LONGEST:
            out[-1] = Boundary(before.first, max(b.last, before.last), "gradual")
        else:
            out.append(b)
    return out
