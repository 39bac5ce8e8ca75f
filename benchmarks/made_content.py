"""Clips with a vice whose truth is known because we made it: screens, slides and pages drawn from a seed, and good clips cut, edited, blurred, compressed."""

from collections.abc import Callable, Iterator, Mapping

import cv2
import numpy as np
import numpy.typing as npt

from curation.frames import SIGNALS, U8, Frames

WORDS = (
    "the",
    "of",
    "and",
    "model",
    "data",
    "learn",
    "map",
    "world",
    "city",
    "street",
    "water",
    "people",
    "value",
    "system",
    "light",
    "time",
    "where",
    "about",
    "under",
    "result",
    "course",
    "first",
    "graph",
    "plan",
)
FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX)
Random = np.random.Generator


def frames_of(pictures: npt.ArrayLike, fps: float = 4.0) -> Frames:
    """Frames of pictures uint8 [T, H, W, 3]; each one's neighbour is the next picture, so that motion is what it is between samples."""
    rgb = np.asarray(pictures, np.uint8)
    luma = np.stack([cv2.cvtColor(p, cv2.COLOR_RGB2GRAY) for p in rgb])
    time = np.arange(len(rgb)) / fps
    step = np.concatenate([[0], np.abs(np.diff(luma.astype(np.float32), axis=0)).mean(axis=(1, 2))]).astype(np.float32)
    known = {
        "time_s": time.astype(np.float32),
        "luma": luma.mean(axis=(1, 2)).astype(np.float32),
        "luma_diff": step,
        "edge_diff": np.zeros(len(rgb), np.float32),
    }
    later = np.concatenate([luma[1:], luma[-1:]])
    gap = np.full(len(rgb), 1 / fps, np.float32)
    gap[-1] = 0
    return Frames(rgb, later, time, gap, fps, {name: known[name] for name in SIGNALS})


# ---- drawn from a seed --------------------------------------------------------------------------------------------------------------


def line_of(rng: Random, words: int) -> str:
    """Words in a row."""
    return " ".join(rng.choice(WORDS, words))


def page(rng: Random, h: int = 256, w: int = 454) -> U8:
    """A page full of text."""
    dark = rng.random() < 0.4
    ground, ink = (rng.integers(0, 50), rng.integers(180, 255)) if dark else (rng.integers(215, 256), rng.integers(0, 90))
    picture = np.full((h, w, 3), ground, np.uint8)
    size = float(rng.uniform(0.3, 0.6))
    gap = int(34 * size) + int(rng.integers(0, 6))
    for y in range(gap, h, gap):
        cv2.putText(picture, line_of(rng, int(rng.integers(3, 12))), (int(rng.integers(4, 30)), y), FONTS[0], size, (int(ink),) * 3, 1, cv2.LINE_AA)
    return picture


def slide(rng: Random, h: int = 256, w: int = 454) -> U8:
    """A title, bullets, and sometimes a chart."""
    ground = rng.integers(200, 256, 3) if rng.random() < 0.7 else rng.integers(0, 70, 3)
    ink = (20, 20, 30) if ground.mean() > 128 else (235, 235, 235)
    picture = np.full((h, w, 3), ground, np.uint8)
    font = FONTS[int(rng.integers(0, 3))]
    if rng.random() < 0.5:
        cv2.rectangle(picture, (0, 0), (w, 40), tuple(int(v) for v in rng.integers(30, 200, 3)), -1)
    cv2.putText(picture, line_of(rng, int(rng.integers(2, 5))), (16, 30), font, float(rng.uniform(0.6, 0.9)), ink, 2, cv2.LINE_AA)
    for k in range(int(rng.integers(2, 7))):
        cv2.putText(picture, "- " + line_of(rng, int(rng.integers(2, 7))), (24, 70 + 28 * k), font, float(rng.uniform(0.4, 0.55)), ink, 1, cv2.LINE_AA)
    if rng.random() < 0.5:
        for k in range(5):
            top = int(rng.integers(100, 220))
            cv2.rectangle(picture, (w - 130 + 24 * k, top), (w - 112 + 24 * k, 230), tuple(int(v) for v in rng.integers(30, 220, 3)), -1)
    return picture


def desktop(rng: Random, h: int = 256, w: int = 454) -> U8:
    """Windows with title bars, buttons and text on a plain or shaded ground, and a task bar."""
    top, bottom = rng.integers(30, 220, 3), rng.integers(30, 220, 3)
    picture = (top + (bottom - top) * np.linspace(0, 1, h)[:, None, None] * np.ones((1, w, 1))).astype(np.uint8)
    for _ in range(int(rng.integers(1, 4))):
        x, y = int(rng.integers(0, w // 2)), int(rng.integers(0, h // 2))
        ww, hh = int(rng.integers(w // 4, w - x)), int(rng.integers(h // 4, h - y))
        body = int(rng.integers(225, 256)) if rng.random() < 0.7 else int(rng.integers(15, 50))
        cv2.rectangle(picture, (x, y), (x + ww, y + hh), (body,) * 3, -1)
        cv2.rectangle(picture, (x, y), (x + ww, y + 12), tuple(int(v) for v in rng.integers(60, 230, 3)), -1)
        cv2.rectangle(picture, (x, y), (x + ww, y + hh), (90, 90, 90), 1)
        for row in range(y + 24, y + hh - 4, 11):
            if rng.random() < 0.8:
                text = line_of(rng, int(rng.integers(1, max(2, ww // 40))))
                cv2.putText(picture, text, (x + 6, row), FONTS[0], 0.3, (30, 30, 30) if body > 128 else (220, 220, 220), 1, cv2.LINE_AA)
    cv2.rectangle(picture, (0, h - 14), (w, h), (int(rng.integers(20, 240)),) * 3, -1)
    for k in range(6):
        cv2.rectangle(picture, (6 + 18 * k, h - 12), (18 + 18 * k, h - 2), tuple(int(v) for v in rng.integers(0, 255, 3)), -1)
    return picture


def shown_page(rng: Random, length: int) -> Frames:
    """Text that stays, or is scrolled."""
    tall = page(rng, 1024)
    speed = 0.0 if rng.random() < 0.5 else float(rng.uniform(1, 12))
    return _compressed([tall[int(speed * t) : int(speed * t) + 256] for t in range(length)], rng)


def shown_slides(rng: Random, length: int) -> Frames:
    """One slide, or two in turn."""
    one, two = slide(rng), slide(rng)
    turn = length if rng.random() < 0.6 else length // 2
    return _compressed([one if t < turn else two for t in range(length)], rng)


def shown_desktop(rng: Random, length: int) -> Frames:
    """A pointer that moves, text that grows, now and then another window."""
    picture, place, aim = desktop(rng), rng.uniform([0, 0], [440, 240]), rng.uniform([0, 0], [440, 240])
    out, typed = [], rng.integers(20, 200, 2)
    for t in range(length):
        if rng.random() < 0.15:
            aim = rng.uniform([0, 0], [440, 240])
        place = place + 0.4 * (aim - place)
        if rng.random() < 0.06:
            picture = desktop(rng)
        if rng.random() < 0.4:
            cv2.putText(
                picture, "|" if rng.random() < 0.3 else str(rng.choice(WORDS))[0], (int(typed[0]) + 6 * t % 200, int(typed[1])), FONTS[0], 0.3, (20, 20, 20), 1
            )
        now = picture.copy()
        arrow = (place + np.array([[0, 0], [0, 12], [8, 8]])).astype(np.int32)
        cv2.fillPoly(now, [arrow], (250, 250, 250))
        cv2.polylines(now, [arrow], True, (0, 0, 0))
        out.append(now)
    return _compressed(out, rng)


def _compressed(pictures: list[U8], rng: Random) -> Frames:
    """As a codec leaves them."""
    return frames_of([_jpeg(np.ascontiguousarray(p), int(rng.integers(55, 96))) for p in pictures])


def _jpeg(picture: U8, quality: int) -> U8:
    ok, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise RuntimeError("OpenCV wrote no JPEG")
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


# ---- good clips, spoilt -------------------------------------------------------------------------------------------------------------


def _at(clip: Frames, t: int, size: tuple[int, int]) -> U8:
    return np.asarray(cv2.resize(clip.rgb[t % len(clip)], size, interpolation=cv2.INTER_AREA), np.uint8)


def cut(rng: Random, one: Frames, two: Frames, length: int) -> Frames:
    """Two clips in one, with a hard cut or a dissolve of half a second."""
    size, turn = (one.rgb.shape[2], one.rgb.shape[1]), int(rng.integers(3, length - 3))
    soft = 2 if rng.random() < 0.3 else 0
    out = []
    for t in range(length):
        share = min(1.0, max(0.0, (t - turn + 1) / (soft + 1)))
        out.append(cv2.addWeighted(_at(one, t, size), 1 - share, _at(two, t, size), share, 0))
    return frames_of(out)


def mosaic(rng: Random, one: Frames, two: Frames, length: int) -> Frames:
    """Side by side, one above the other, or four; sometimes with a line between."""
    h, w = one.rgb.shape[1:3]
    rows, columns = ((1, 2), (2, 1), (2, 2))[int(rng.integers(0, 3))]
    size, line = (w // columns, h // rows), int(rng.integers(0, 2)) * 3
    out = []
    for t in range(length):
        canvas = np.full((size[1] * rows, size[0] * columns, 3), 255, np.uint8)
        for k in range(rows * columns):
            y, x = divmod(k, columns)
            canvas[y * size[1] : (y + 1) * size[1] - line * (y + 1 < rows), x * size[0] : (x + 1) * size[0] - line * (x + 1 < columns)] = _at(
                (one, two)[k % 2], t + 3 * k, size
            )[: size[1] - line * (y + 1 < rows), : size[0] - line * (x + 1 < columns)]
        out.append(canvas)
    return frames_of(out)


def inset(rng: Random, one: Frames, two: Frames, length: int) -> Frames:
    """A small picture in a corner of the other."""
    h, w = one.rgb.shape[1:3]
    size = (int(w * rng.uniform(0.25, 0.4)), int(h * rng.uniform(0.25, 0.4)))
    x, y = (int(rng.choice([0.03 * w, 0.97 * w - size[0]])), int(rng.choice([0.03 * h, 0.97 * h - size[1]])))
    out = []
    for t in range(length):
        canvas = one.rgb[t % len(one)].copy()
        canvas[y : y + size[1], x : x + size[0]] = _at(two, t, size)
        cv2.rectangle(canvas, (x, y), (x + size[0], y + size[1]), (255, 255, 255), int(rng.integers(1, 3)))
        out.append(canvas)
    return frames_of(out)


def framed(rng: Random, one: Frames, two: Frames, length: int) -> Frames:
    """Shrunk onto a blurred copy of itself, or into a coloured frame with a caption."""
    h, w = one.rgb.shape[1:3]
    blurred = rng.random() < 0.5
    size = (int(w * 0.5), h) if blurred else (int(w * 0.8), int(h * 0.7))
    colour, text = rng.integers(60, 256, 3), line_of(rng, 3)
    out = []
    for t in range(length):
        picture = one.rgb[t % len(one)]
        canvas = cv2.GaussianBlur(picture, (0, 0), 12) if blurred else np.full_like(picture, colour)
        x, y = (w - size[0]) // 2, (h - size[1]) // 2
        canvas[y : y + size[1], x : x + size[0]] = _at(one, t, size)
        if not blurred:
            cv2.putText(canvas, text, (x, max(16, y - 8)), FONTS[1], 0.7, tuple(int(255 - c) for c in colour), 2, cv2.LINE_AA)
        out.append(canvas)
    return frames_of(out)


def gauges(rng: Random, one: Frames, two: Frames, length: int) -> Frames:
    """A game's furniture: bars, dials, a map and counters that stay while the picture moves."""
    h, w = one.rgb.shape[1:3]
    layer, mask = np.zeros((h, w, 3), np.uint8), np.zeros((h, w), np.uint8)
    for _ in range(int(rng.integers(4, 8))):
        x, y = int(rng.choice([rng.uniform(0.02, 0.2), rng.uniform(0.7, 0.85)]) * w), int(rng.choice([rng.uniform(0.03, 0.15), rng.uniform(0.75, 0.9)]) * h)
        colour = tuple(int(v) for v in rng.integers(120, 256, 3))
        for target, ink in ((layer, colour), (mask, 1)):
            if rng_kind := int(x + y) % 3:
                cv2.rectangle(target, (x, y), (x + w // 8, y + h // (10 if rng_kind == 1 else 20)), ink, 2 if rng_kind == 1 else -1)
            else:
                cv2.circle(target, (x, y), h // 10, ink, 2)
            cv2.putText(target, str((x * 7 + y) % 1000), (x + 2, y + h // 14), FONTS[0], 0.5, ink, 2)
    out = [np.where(mask[..., None] > 0, layer, one.rgb[t % len(one)]) for t in range(length)]
    return frames_of(out)


def blurred(rng: Random, one: Frames, two: Frames, length: int) -> Frames:
    """Out of focus."""
    sigma = float(rng.uniform(2.5, 5.0))
    return frames_of([cv2.GaussianBlur(one.rgb[t % len(one)], (0, 0), sigma) for t in range(length)])


def squeezed(rng: Random, one: Frames, two: Frames, length: int) -> Frames:
    """Compressed far too much."""
    quality = int(rng.integers(2, 9))
    return frames_of([_jpeg(one.rgb[t % len(one)], quality) for t in range(length)])


def enlarged(rng: Random, one: Frames, two: Frames, length: int) -> Frames:
    """A tiny source, enlarged."""
    h, w = one.rgb.shape[1:3]
    by = float(rng.uniform(4, 7))
    tiny = (int(w / by), int(h / by))
    return frames_of([cv2.resize(_at(one, t, tiny), (w, h), interpolation=cv2.INTER_CUBIC) for t in range(length)])


def tiny(rng: Random, one: Frames, two: Frames, length: int) -> Frames:
    """A source of 96 to 144 px, compressed a good deal."""
    h, w = one.rgb.shape[1:3]
    scale = float(rng.uniform(96, 144)) / min(h, w)
    return frames_of([_jpeg(_at(one, t, (round(w * scale), round(h * scale))), int(rng.integers(12, 40))) for t in range(length)])


#: part of a model -> who draws it from a seed
DRAWN: Mapping[str, Callable[[Random, int], Frames]] = {"text_dominated": shown_page, "slides": shown_slides, "screen": shown_desktop}
#: part of a model -> who spoils good clips that way
SPOILT: Mapping[str, tuple[Callable[[Random, Frames, Frames, int], Frames], ...]] = {
    "residual_cut": (cut,),
    "heavily_edited": (mosaic, inset, framed, gauges),
    "low_quality": (blurred, squeezed, enlarged, tiny),
}


def drawn(count: int) -> Iterator[tuple[str, int, Frames]]:
    """(part, seed, clip): `count` of each drawn kind."""
    for part, make in DRAWN.items():
        for seed in range(count):
            rng = np.random.default_rng([seed, len(part)])
            yield part, seed, make(rng, int(rng.integers(10, 31)))


def spoilt(one: Frames, two: Frames, seed: int) -> Iterator[tuple[str, Frames]]:
    """(part, clip): each way of spoiling `one`; `two` is what it is cut or laid together with."""
    for part, ways in SPOILT.items():
        for k, make in enumerate(ways):
            rng = np.random.default_rng([seed, k, len(part)])
            yield part, make(rng, one, two, min(len(one), int(rng.integers(10, 31))))
