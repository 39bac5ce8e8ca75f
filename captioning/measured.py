"""The `measured` backend: a deterministic text per chunk from what was measured in its frames, and from nothing else."""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from captioning.events import Event, chunk_spans
from captioning.moments import Moment, moments
from curation.clips import ClipError
from curation.frames import Frames

#: Camera speeds, share of the picture's width per s: under STILL it holds still, then slowly, (no word), quickly.
STILL, SLOW, QUICK = 0.015, 0.08, 0.3

#: Zoom, relative growth per s: under this there is none; under ZOOM_SLOW it is slow.
ZOOM_STILL, ZOOM_SLOW = 0.02, 0.1

#: Share of the picture that moves apart from the camera: under NOTHING none does; a small thing, a thing, much, nearly everything.
NOTHING, SMALL, MUCH, MOST = 0.004, 0.03, 0.2, 0.5

#: Change of mean luma (of 255) between the first and the last third that is worth a word.
BRIGHTER = 12.0

#: Share of the picture that text must cover, and stay, to be mentioned. Source: as the least line a viewer reads, 10 % by 5 % of the picture.
TEXT = 0.005


@dataclass(frozen=True)
class Caption:
    """A clip's text: one event a chunk, and one line for the whole."""

    events: list[Event]
    text: str


def describe(frames: Frames, chunks: int, duration_s: float, scores: Mapping[str, float | None]) -> Caption:
    """The caption of one clip of `chunks` chunks and `duration_s`; a score that is absent or null is not spoken of.

    Raises:
        ClipError: "caption_invalid" where a chunk has no sample to measure, or the clip has no chunk.
    """
    found, light = moments(frames), frames.signals["luma"]
    light_s = frames.signals["time_s"].astype(np.float64) - float(frames.signals["time_s"][0] if len(light) else 0)
    events, parts = [], []
    for k, (start, end) in enumerate(chunk_spans(chunks, duration_s)):
        here = [m for m in found if start <= m.time_s < end]
        if not here:
            raise ClipError("caption_invalid", f"chunk {k} ({start} to {end} s) holds no sample with a later neighbour")
        parts.append(here)
        events.append(Event(start, end, " ".join(_sentences(_camera(here), here, light[(light_s >= start) & (light_s < end)]))))
    return Caption(events, " ".join([*_sentences(_journey(parts), found, light), *_text(scores)]))


def _sentences(camera: str, here: Sequence[Moment], light: npt.NDArray[np.float32]) -> list[str]:
    """What happens during `here`, behind the camera's clause."""
    if not any(m.seen for m in here):
        return ["Too little is drawn in the picture to tell what moves.", *_brightness(light)]
    return [f"{camera}{_own_motion(here)}", *_brightness(light)]


def _journey(parts: Sequence[Sequence[Moment]]) -> str:
    """The camera's clause for a whole clip: its way from chunk to chunk where that has at most three stages, else what it does most."""
    if len(parts) == 1:
        return _camera(parts[0])
    stages = [phrase for phrase, _ in itertools.groupby(_camera_phrase(part) for part in parts)]
    if len(stages) == 1:
        return f"The camera {stages[0]} throughout" if stages[0] != "holds still" else "The camera holds still"
    if len(stages) <= 3:
        return f"The camera first {', then '.join(stages)}"
    counts = Counter(_direction(part) for part in parts).most_common()
    return f"The camera mostly {counts[0][0]}, and at times {' or '.join(name for name, _ in counts[1:3])},"


def _camera(here: Sequence[Moment]) -> str:
    """The camera's clause: one phrase, or two where it changes between the halves."""
    if len(here) < 4:
        return f"The camera {_camera_phrase(here)}"
    halves = here[: len(here) // 2], here[len(here) // 2 :]
    first, last = (_camera_phrase(half) for half in halves)
    if _direction(halves[0]) == _direction(halves[1]):
        before, after = (_camera_speed(half) for half in halves)
        trend = "" if _direction(here) in ("holds still", "shakes") else _trend(before, after, ", getting faster,", ", slowing down,")
        return f"The camera {_camera_phrase(here)}{trend}"
    if first == "holds still":
        return f"The camera first holds still, then {last}"
    return f"The camera first {first}, then {'comes to rest' if last == 'holds still' else last}"


def _camera_phrase(here: Sequence[Moment]) -> str:
    """As "pans left and tilts up slowly"."""
    direction = _direction(here)
    if direction in ("holds still", "shakes"):
        return direction
    mean = _camera_mean(here)
    pace = max(abs(mean[0]) / SLOW, abs(mean[1]) / SLOW) if "zoom" not in direction else abs(mean[2]) / ZOOM_SLOW
    return direction + (" slowly" if pace < 1 else " quickly" if pace > QUICK / SLOW else "")


def _camera_mean(here: Sequence[Moment]) -> npt.NDArray[np.float64]:
    """Mean (pan, tilt, zoom)."""
    return np.asarray(np.array([(m.pan, m.tilt, m.zoom) for m in here]).mean(axis=0), np.float64)


def _camera_speed(here: Sequence[Moment]) -> float:
    """Length of the mean motion in units of the slowest that counts."""
    mean = _camera_mean(here)
    return float(np.hypot(np.hypot(mean[0], mean[1]) / STILL, mean[2] / ZOOM_STILL))


def _direction(here: Sequence[Moment]) -> str:
    """Where the camera goes, without its speed. Shaking is motion that cancels: three times as much of it as remains."""
    pan, tilt, zoom = (float(v) for v in _camera_mean(here))
    rest = float(np.mean([np.hypot(m.pan, m.tilt) for m in here]))
    if rest > 2 * STILL and np.hypot(pan, tilt) < rest / 3:
        return "shakes"
    parts = []
    if abs(pan) > STILL and abs(pan) > abs(tilt) / 3:
        parts.append("pans right" if pan > 0 else "pans left")
    if abs(tilt) > STILL and abs(tilt) > abs(pan) / 3:
        parts.append("tilts up" if tilt > 0 else "tilts down")
    if abs(zoom) > ZOOM_STILL and abs(zoom) > max(abs(pan), abs(tilt)) / 3:
        parts.append("zooms in" if zoom > 0 else "zooms out")
    return " and ".join(parts) if parts else "holds still"


def _trend(first: float, last: float, more: str, less: str) -> str:
    """`more` or `less` where the second is twice the first or half of it."""
    return more if last > 2 * first else less if first > 2 * last else ""


def _own_motion(here: Sequence[Moment]) -> str:
    """The clause on what moves apart from the camera, with its place, direction, start, stop and growth; ends the sentence."""
    amounts = np.array([float(m.activity.sum()) for m in here])
    third = max(1, len(here) // 3)
    first, last, mean = float(amounts[:third].mean()), float(amounts[-third:].mean()), float(amounts.mean())
    if max(first, last, mean) < NOTHING:
        return " and nothing else moves." if _direction(here) == "holds still" else " over a scene that does not move by itself."
    what = "nearly the whole picture" if mean > MOST else "much of the picture" if mean > MUCH else "something" if mean > SMALL else "something small"
    begin, place = here[0].time_s, "" if mean > MUCH else f" {_place(here)}"
    if first < NOTHING < last:
        since = next(m.time_s for m, amount in zip(here, amounts, strict=True) if amount > NOTHING) - begin
        return f" while {what} starts to move{_heading(here)}{place} after about {_seconds(since)}."
    if last < NOTHING < first:
        until = max(m.time_s for m, amount in zip(here, amounts, strict=True) if amount > NOTHING) - begin
        return f" while {what} moves{_heading(here)}{place} and stops after about {_seconds(until)}."
    way = _way(here[:third], here[-third:]) or f"{_heading(here)}{place}"
    return f" while {what} moves{way}{_trend(first, last, ', more towards the end', ', less towards the end')}."


def _seconds(time_s: float) -> str:
    """As "1.5 seconds": to half a second, since samples are a quarter apart."""
    halves = max(1, round(2 * time_s))
    return "1 second" if halves == 2 else "half a second" if halves == 1 else f"{halves / 2:g} seconds"


def _activity(here: Sequence[Moment]) -> npt.NDArray[np.float64]:
    """Where motion is, [3, 3], summing to 1 (zeros where there is none)."""
    total = np.sum([m.activity for m in here], axis=0, dtype=np.float64)
    return np.asarray(total / max(float(total.sum()), 1e-12))


def _place(here: Sequence[Moment]) -> str:
    """Where most of the motion is: a row or column of the picture holds it with 60 % of it, else it is spread."""
    activity = _activity(here)
    column = _where(activity.sum(axis=0), ("left", "middle", "right"))
    row = _where(activity.sum(axis=1), ("upper", "middle", "lower"))
    if row is None and column is None:
        return "in many places"
    if row is None:
        return "in the middle of the picture" if column == "middle" else f"on the {column} side"
    if column is None:
        return "across the middle" if row == "middle" else f"in the {row} part"
    if row == "middle":
        return "in the centre" if column == "middle" else f"on the {column}"
    return f"in the {row} {column}"


def _where(shares: npt.NDArray[np.float64], names: tuple[str, str, str]) -> str | None:
    """The name of the third that holds 60 %, or None."""
    best = int(shares.argmax())
    return names[best] if shares[best] >= 0.6 else None


def _way(first: Sequence[Moment], last: Sequence[Moment]) -> str | None:
    """ " from the left to the right" where the motion has moved over by half of the picture's width, else None."""
    columns = [_activity(part).sum(axis=0) @ np.array([0.0, 0.5, 1.0]) for part in (first, last)]
    if abs(columns[1] - columns[0]) < 0.5:
        return None
    return " from the left to the right" if columns[1] > columns[0] else " from the right to the left"


def _heading(here: Sequence[Moment]) -> str:
    """ " to the left" where what moves mostly goes one way, else nothing."""
    x, y = np.sum([m.drift for m in here], axis=0)
    if np.hypot(x, y) < 0.6 * sum(m.effort for m in here):
        return ""
    if abs(x) >= abs(y):
        return " to the right" if x > 0 else " to the left"
    return " downwards" if y > 0 else " upwards"


def _brightness(light: npt.NDArray[np.float32]) -> list[str]:
    """A sentence where the picture ends brighter or darker than it began."""
    third = len(light) // 3
    change = float(light[-third:].mean() - light[:third].mean()) if third else 0.0
    return [] if abs(change) < BRIGHTER else ["The picture gets brighter." if change > 0 else "The picture gets darker."]


def _text(scores: Mapping[str, float | None]) -> list[str]:
    """A sentence on text that was detected and stays; what it says is not read."""
    values = {name: scores.get(f"scene_text_{name}") or 0.0 for name in ("subtitle_area", "overlay_area", "median_area")}
    if values["subtitle_area"] > TEXT:
        return ["Lines of text stand at the bottom."]
    if values["overlay_area"] > TEXT:
        return ["Text is laid over the picture."]
    return ["Text is visible in the scene."] if values["median_area"] > TEXT else []
