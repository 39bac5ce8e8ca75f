"""Clips with a vice whose truth is known by construction, made from good labelled footage: what few labelled vices cannot say of a rule, these can.

Each is made from the frames of a clip labelled good, at analysis size, after the decode: a picture of it frozen, panned or zoomed over, the clip whipped
about, flashing, blank at an end, out of focus, too dark or bright, with a subtitle, a banner or a page of text over it. How strong each is was
set by what the vice means, not by any rule's bound. They serve twice: those of other videos stand beside the labelled ones when bounds are chosen,
and a group's own show what those bounds make of them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from labelled_clips import pieces, read

from curation.frames import U8, Frames
from curation.luma import luma_of
from filters.base import Entry

Rng = np.random.Generator
Picture = Callable[[int, U8, float], U8]
MOST_SAMPLES, SHOTS_A_VIDEO = 16, 2
ROOM = 1.5
"""How much larger than the picture a still is over which a camera pans or zooms."""


@dataclass(frozen=True)
class Made:
    """One made clip: the video it was made from, its kind, the reason it must be rejected for, and its scores."""

    video: str
    kind: str
    reason: str
    scores: Mapping[str, float]


def remade(frames: Frames, picture: Picture, gain: Callable[[Any], Any] = lambda _: 1.0) -> Frames:
    """The clip with each sample, and each sample's neighbour, put through `picture`.

    Args:
        picture: (number of the sample, picture uint8 [H, W, 3], seconds since the clip began) -> picture of the same size.
        gain: what it does to the brightness of every source frame at a time in s.
    """
    since = frames.time_s - frames.time_s[0]
    rgb = np.stack([picture(i, p, float(t)) for i, (p, t) in enumerate(zip(frames.rgb, since, strict=True))])
    later = [np.repeat(y[..., None], 3, 2) for y in frames.next_luma]
    neighbours = np.stack([luma_of(picture(i, p, float(t + d))) for i, (p, t, d) in enumerate(zip(later, since, frames.dt_s, strict=True))])
    luma = frames.signals["luma"] * gain(frames.signals["time_s"] - frames.signals["time_s"][0])
    return replace(frames, rgb=rgb, next_luma=neighbours, signals={**frames.signals, "luma": luma.astype(np.float32)})


# ---- nothing happens ----------------------------------------------------------------------------------------------------------------


def over_still(frames: Frames, rng: Rng, pan: float = 0.0, zoom: float = 0.0) -> Frames:
    """A camera over one picture of the clip: `pan` in diagonals per second in any direction, `zoom` relative growth per second; grain and coding."""
    still = frames.rgb[int(rng.integers(len(frames)))]
    height, width = still.shape[:2]
    angle, grain, quality = rng.uniform(0, 2 * np.pi), rng.uniform(0, 2), int(rng.integers(60, 96))
    middle_s = float(frames.time_s[-1] - frames.time_s[0]) / 2

    def picture(_: int, __: U8, at_s: float) -> U8:
        scale = (ROOM if pan or zoom else 1.0) * float(np.exp(zoom * (at_s - middle_s)))
        shift = pan * float(np.hypot(width, height)) * (at_s - middle_s) * np.array([np.cos(angle), np.sin(angle)])
        centre = np.array([width, height]) / 2
        view = np.column_stack([np.eye(2) * scale, centre * (1 - scale) + shift])
        seen = cv2.warpAffine(still, view, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        return coded(np.clip(seen + rng.normal(0, grain, seen.shape), 0, 255).astype(np.uint8), quality)

    return remade(frames, picture)


def coded(picture: U8, quality: int) -> U8:
    """The picture through JPEG."""
    return np.asarray(cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR), np.uint8)


def slides(frames: Frames, rng: Rng) -> Frames:
    """Two pictures of the clip, the second turned over, one after the other, each standing still."""
    change, two = rng.uniform(0.3, 0.7) * float(frames.time_s[-1] - frames.time_s[0]), (frames.rgb[0], frames.rgb[-1][:, ::-1])
    return remade(frames, lambda _, __, at_s: coded(np.ascontiguousarray(two[at_s > change]), 90))


# ---- too much happens ---------------------------------------------------------------------------------------------------------------


def whipped(frames: Frames, rng: Rng) -> Frames:
    """The camera swings about without rest, by 1.5 to 2.5 diagonals a second, over the mirrored picture, smeared as by a shutter open half of 1/30 s."""
    height, width = frames.rgb.shape[1:3]
    speed = rng.uniform(1.5, 2.5) * float(np.hypot(width, height))
    heading = rng.uniform(0, 2 * np.pi, len(frames))

    def picture(i: int, seen: U8, at_s: float) -> U8:
        way = speed * at_s * np.array([np.cos(heading[i]), np.sin(heading[i])])
        smear = speed / 60 * np.array([np.cos(heading[i]), np.sin(heading[i])])
        parts = [moved(seen, way + smear * k / 4) for k in range(5)]
        return np.asarray(np.mean(parts, axis=0), np.uint8)

    return remade(frames, picture)


def moved(picture: U8, way: npt.NDArray[np.float64]) -> U8:
    """The picture shifted over its own mirror images."""
    height, width = picture.shape[:2]
    x, y = np.arange(width) - round(way[0]), np.arange(height) - round(way[1])
    return np.asarray(picture[np.ix_(_mirrored(y, height), _mirrored(x, width))], np.uint8)


def _mirrored(at: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
    there = at % (2 * size)
    return np.where(there < size, there, 2 * size - 1 - there)


def flashing(frames: Frames, rng: Rng) -> Frames:
    """A lamp that goes out 2 to 5 times a second and takes 30 to 60 % of the light with it."""
    rate, loss = rng.uniform(2, 5), rng.uniform(0.3, 0.6)

    def gain(at_s: Any) -> Any:
        return 1 - loss * (np.asarray(at_s) * rate % 1 < 0.5)

    return remade(frames, lambda _, seen, at_s: (seen * gain(at_s)).astype(np.uint8), gain)


# ---- no picture, or a bad one -------------------------------------------------------------------------------------------------------


def blank(frames: Frames, rng: Rng, where: str) -> Frames:
    """One colour for 0.6 to 1 s at the head or tail, or for a third of the clip in its middle."""
    length = float(frames.time_s[-1] - frames.time_s[0])
    colour, grain, ends_s = rng.integers(0, 256, 3), rng.uniform(0, 1.5), rng.uniform(0.6, 1.0)
    first, last = {"head": (0.0, ends_s), "tail": (length - ends_s, length + 1), "middle": (length / 3, 2 * length / 3)}[where]

    def picture(_: int, seen: U8, at_s: float) -> U8:
        return np.clip(colour + rng.normal(0, grain, seen.shape), 0, 255).astype(np.uint8) if first <= at_s < last else seen

    return remade(frames, picture)


def graded(frames: Frames, low: float, high: float) -> Frames:
    """Brightness stretched to [low, high] in gray levels and clipped to what can be shown."""
    return remade(frames, lambda _, seen, __: np.clip(low + seen * ((high - low) / 255), 0, 255).astype(np.uint8))


def defocused(frames: Frames, rng: Rng) -> Frames:
    """A blur whose standard deviation is 1.5 to 3 % of the short side: no detail smaller than a 20th of the picture."""
    sigma = rng.uniform(0.015, 0.03) * min(frames.rgb.shape[1:3])
    return remade(frames, lambda _, seen, __: np.asarray(cv2.GaussianBlur(seen, (0, 0), sigma), np.uint8))


# ---- text over the picture ----------------------------------------------------------------------------------------------------------

WORDS = (
    "when",
    "the",
    "first",
    "light",
    "came",
    "over",
    "hills",
    "nobody",
    "in",
    "village",
    "had",
    "slept",
    "and",
    "river",
    "stood",
    "higher",
    "than",
    "before",
)


def lettered(frames: Frames, rng: Rng, lines: tuple[int, int], height: tuple[float, float], top: tuple[float, float]) -> Frames:
    """Centred white lines with a dark rim, the same throughout.

    Args:
        lines: fewest and most.
        height: of a line, share of the picture's height; from, to.
        top: where the first line begins, share of the picture's height; from, to.
    """
    tall, wide = frames.rgb.shape[1:3]
    count, size, at = int(rng.integers(lines[0], lines[1] + 1)), rng.uniform(*height) * tall, rng.uniform(*top) * tall
    scale = size / 30  # HERSHEY_SIMPLEX is about 30 px from the top of an ascender to the foot of a descender at scale 1

    def line() -> str:
        said = ""
        for word in rng.permutation(WORDS):
            longer = f"{said} {word}".strip()
            if said and cv2.getTextSize(longer, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)[0][0] > 0.8 * wide:
                break
            said = longer
        return said

    text = [line() for _ in range(count)]

    def picture(_: int, seen: U8, __: float) -> U8:
        shown = seen.copy()
        for row, words in enumerate(text):
            left = (wide - cv2.getTextSize(words, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)[0][0]) // 2
            foot = round(at + (row + 0.75) * 1.3 * size)
            for colour, thick in ((0, 3), (255, 1)):
                cv2.putText(shown, words, (left, foot), cv2.FONT_HERSHEY_SIMPLEX, scale, (colour,) * 3, thick, cv2.LINE_AA)
        return shown

    return remade(frames, picture)


#: kind -> (reason it must be rejected for, how it is made).
KINDS: Mapping[str, tuple[str, Callable[[Frames, Rng], Frames]]] = {
    "frozen picture": ("static", over_still),
    "two slides": ("static", slides),
    "pan over a picture": ("uniform_pan", lambda f, rng: over_still(f, rng, pan=rng.uniform(0.02, 0.1))),
    "zoom over a picture": ("uniform_zoom", lambda f, rng: over_still(f, rng, zoom=rng.choice([-1, 1]) * rng.uniform(0.04, 0.15))),
    "whip after whip": ("extreme_motion", whipped),
    "flashing": ("flashing", flashing),
    "blank head": ("pure_color_or_fade", lambda f, rng: blank(f, rng, "head")),
    "blank tail": ("pure_color_or_fade", lambda f, rng: blank(f, rng, "tail")),
    "blank middle": ("pure_color_or_fade", lambda f, rng: blank(f, rng, "middle")),
    "out of focus": ("low_quality", defocused),
    "too dark": ("low_quality", lambda f, rng: graded(f, 0, rng.uniform(5, 12))),
    "too bright": ("low_quality", lambda f, rng: graded(f, 250, rng.uniform(500, 1000))),
    "subtitles": ("subtitles", lambda f, rng: lettered(f, rng, (1, 2), (0.05, 0.07), (0.78, 0.82))),
    "banner": ("overlay_text_large", lambda f, rng: lettered(f, rng, (1, 2), (0.1, 0.16), (0.05, 0.5))),
    "page of text": ("text_dominated", lambda f, rng: lettered(f, rng, (6, 9), (0.06, 0.08), (0.05, 0.1))),
}


def good_clips(labels: Sequence[Mapping[str, Any]], folder: Path) -> Iterator[tuple[str, Frames]]:
    """(video, first seconds of a clip labelled good), at most `SHOTS_A_VIDEO` a video."""
    for label in labels:
        firsts = {i: (start, end) for i, start, end, _ in reversed(list(pieces(label))) if label["shots"][i]["keep"] == "yes"}
        spans = [firsts[i] for i in sorted(firsts)][:SHOTS_A_VIDEO]
        for frames in read(folder / label["file"], spans) if spans else ():
            yield label["id"], shortened(frames)


def shortened(frames: Frames) -> Frames:
    """The clip's first `MOST_SAMPLES` samples."""
    n = min(len(frames), MOST_SAMPLES)
    lasting = frames.signals["time_s"] <= frames.time_s[n - 1] + 0.2
    parts = {name: signal[lasting] for name, signal in frames.signals.items()}
    return Frames(frames.rgb[:n], frames.next_luma[:n], frames.time_s[:n], frames.dt_s[:n], frames.fps, parts)


def make_all(clips: Iterable[tuple[str, Frames]], entries: Sequence[Entry]) -> list[Made]:
    """Every kind from every clip, measured by the filters that have a rule for its reason."""
    filters = {entry.name: entry.build() for entry in entries}
    found = []
    for number, (video, frames) in enumerate(clips):
        for kind, (reason, make) in KINDS.items():
            clip, scores = make(frames, np.random.default_rng([number, *kind.encode()])), dict[str, float]()
            for entry in entries:
                if any(rule.reason == reason for rule in entry.rules):
                    scores |= {f"{entry.name}_{key}": value for key, value in filters[entry.name].score(clip).items()}
            found.append(Made(video, kind, reason, scores))
    return found
