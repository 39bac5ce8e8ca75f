"""Signs: what the pixels alone say of how a clip was made: flat areas, straight lines, writing, a face that talks, seams, blur, jumps."""

from collections.abc import Iterable, Mapping, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from curation.frames import F32, F64, U8, Frames
from curation.luma import at_side, luma_of
from filters.quality import brisque

Bool = npt.NDArray[np.bool_]

#: Every sign and its unit.
SIGNS: Mapping[str, str] = {
    "flat": "share of the picture whose 5 x 5 px surroundings differ by at most two gray levels, bars at the border aside",
    "palette": "bits: entropy of the colours at 4 bits a channel",
    "straight": "share of the edge pixels that lie on exactly horizontal or vertical runs of an eighth of the short side",
    "strokes": "share of the 16-px tiles that look like writing: two tones, high contrast, many changes along a row",
    "strokes_staying": "the same, of tiles that do in at least half of the pictures looked at",
    "frozen": "share of the pixels that change by less than three levels from a sample to the next, median over time",
    "quiet": "share of the picture in which next to nothing moves in nine tenths of the time",
    "talker": "0 to 1: how much like a face the place is that is most so throughout, times how much of the change is there; square root",
    "small": "halvings of the short side below 256 px: a source smaller than the analysis size",
    "soft": "0 to 1: fine detail that is missing: 1 - Laplacian energy at full size / (that and the one at half size)",
    "blocks": "0 to 1: BRISQUE / 100, mean of two pictures",
    "fixed": "share of the picture with straight upright or level edges that stay exactly in place while the picture around them moves",
    "seam": "0 to 1: share of a row or column that is an edge throughout, more than its neighbours are, with movement on both sides; the largest",
    "jump": "ratio: the change at the clip's most unlike moment over the changes on both sides of it",
    "jump_size": "0 to 1: mean distance of what is before that moment and what is after it",
}
#: Pictures looked at where every sample would cost too much, evenly spread.
LOOKS = 8
#: Widths in px of the faces looked for, in a picture of 128 px short side.
FACES = (16, 22, 30, 42, 58, 80)
#: Length in px of a straight edge that counts as drawn, in a picture of 96 px short side.
RUN = 10
#: Samples on either side of a moment that say what is usual there: a second and a half.
AROUND = 6


def signs(frames: Frames) -> dict[str, float]:
    """Every sign of `SIGNS` of one clip; frames: rgb uint8 [T, H, W, 3], T >= 1."""
    looks = [frames.rgb[i] for i in np.unique(np.linspace(0, len(frames) - 1, LOOKS).round().astype(int))]
    lumas = [luma_of(rgb) for rgb in looks]
    inside = within_bars(lumas)
    small = np.stack(frames.lumas(96))
    middle = np.ascontiguousarray(small[(slice(None), *within_bars(small))]).astype(np.float32)
    writing = np.stack([strokes(luma) for luma in lumas])
    inner = [np.ascontiguousarray(luma[inside]) for luma in lumas]
    return {
        "flat": _median(flat(luma) for luma in inner),
        "palette": _median(palette(rgb) for rgb in looks[::2]),
        "straight": _median(straight(luma) for luma in inner),
        "strokes": float(writing.mean()),
        "strokes_staying": float((writing.mean(0) >= 0.5).mean()),
        **stillness(small.astype(np.float32)),
        "talker": talker(looks),
        "small": float(np.log2(256 / min(256, *looks[0].shape[:2]))),
        "soft": _median(soft(luma) for luma in inner),
        "blocks": float(np.mean([brisque(at_side(lumas[i], 192)) for i in (len(lumas) // 4, 3 * len(lumas) // 4)])) / 100,
        **overlays(middle),
        **jump(frames),
    }


def _median(values: Iterable[float]) -> float:
    return float(np.median(list(values)))


def within_bars(lumas: Sequence[U8] | U8) -> tuple[slice, slice]:
    """The rows and columns between uniform bars at the picture's border (letterbox, pillarbox); all of it where too little is left."""
    spread = np.asarray(lumas, np.float32)
    rows, columns = (np.flatnonzero(spread.std(axis=(0, axis)) > 4) for axis in (2, 1))
    if len(rows) < 32 or len(columns) < 32:
        return slice(None), slice(None)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def flat(luma: U8) -> float:
    """Share of the picture whose 5 x 5 px surroundings differ by at most two levels."""
    box = np.ones((5, 5), np.uint8)
    return float((cv2.subtract(cv2.dilate(luma, box), cv2.erode(luma, box)) <= 2).mean())


def palette(rgb: U8) -> float:
    """Entropy in bits of the colours, 4 bits a channel."""
    code = (rgb >> 4).astype(np.uint16) @ np.array([256, 16, 1], np.uint16)
    share = np.bincount(code.ravel(), minlength=4096) / code.size
    share = share[share > 0]
    return float(-(share * np.log2(share)).sum())


def straight(luma: U8) -> float:
    """Share of the edge pixels on exactly horizontal or vertical runs; 0 where there are hardly any edges."""
    run = max(8, min(luma.shape) // 8)
    total = kept = 0
    for dx in (0, 1):
        step = (np.abs(cv2.Sobel(luma, cv2.CV_16S, dx, 1 - dx, ksize=1)) > 24).astype(np.uint8)
        line = np.ones((run, 1) if dx else (1, run), np.uint8)
        total += cv2.countNonZero(step)
        kept += cv2.countNonZero(cv2.morphologyEx(step, cv2.MORPH_OPEN, line))
    return kept / total if total > luma.size // 500 else 0.0


def strokes(luma: U8, tile: int = 16) -> Bool:
    """bool [H // tile, W // tile]: tiles that look like writing: ink of one tone on a ground of another, and several strokes in a row."""
    h, w = (side // tile * tile for side in luma.shape)
    tiles = luma[:h, :w].reshape(h // tile, tile, w // tile, tile).transpose(0, 2, 1, 3).astype(np.float32)
    low, high = np.percentile(tiles, (2, 98), axis=(2, 3), keepdims=True)
    span = np.maximum(high - low, 1)
    place = (tiles - low) / span
    two_toned = ((place < 0.25) | (place > 0.75)).mean(axis=(2, 3))
    changes = np.abs(np.diff((place > 0.5).astype(np.int8), axis=3)).sum(axis=3).mean(axis=2)
    ground = np.maximum((place < 0.12).mean(axis=(2, 3)), (place > 0.88).mean(axis=(2, 3)))
    return np.asarray((span[..., 0, 0] > 70) & (two_toned > 0.7) & (changes >= 1.5) & (ground > 0.4))


def stillness(small: F32) -> dict[str, float]:
    """frozen and quiet of luma [T, h, w]."""
    change = np.abs(np.diff(small, axis=0))
    if not len(change):
        return {"frozen": 1.0, "quiet": 1.0}
    smooth = np.stack([cv2.blur(step, (3, 3)) for step in change])
    return {"frozen": float(np.median((change < 3).mean(axis=(1, 2)))), "quiet": float((np.percentile(smooth, 90, axis=0) < 6).mean())}


def talker(looks: Sequence[U8], side: int = 128) -> float:
    """sqrt(likeness to a face x share of the change there) at the place that is most like a face on average over the clip.

    Likeness is a product: skin's chroma on cheeks and face but not beside it, eyes darker than the cheeks below and the forehead above, a mouth darker
    than the nose. A face that is looked at while something else happens, and what only looks like one, change less than the rest of the picture.

    Source: skin's chroma Cb 77 to 127, Cr 133 to 173 (Chai & Ngan, IEEE TCSVT 1999), which hardly depends on how light a skin is; eyes darker than
    the cheeks below them (the first feature of Viola & Jones, CVPR 2001).
    """
    scale = side / min(looks[0].shape[:2])
    size = (round(looks[0].shape[1] * scale), round(looks[0].shape[0] * scale))
    pictures = [np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR), np.uint8) for rgb in looks]
    totals = [_totals(picture) for picture in pictures]
    lumas = np.stack([luma_of(picture) for picture in pictures]).astype(np.float32)
    change = np.abs(np.diff(lumas, axis=0)).mean(axis=0) if len(lumas) > 1 else np.zeros_like(lumas[0])
    best, moves = 0.0, 0.0
    for width in FACES:
        height = round(1.3 * width)
        if height + width > side or 2 * width >= size[0]:
            continue
        like = np.mean([_face_at(skin, luma, width, height) for skin, luma in totals], axis=0)
        if like.max() > best:
            top, left = np.unravel_index(int(like.argmax()), like.shape)
            here = float(change[top : top + height, left + width // 2 : left + width // 2 + width].mean())
            best, moves = float(like.max()), here / (here + float(change.mean()) + 0.5)
    return float(np.sqrt(best * moves))


def _totals(rgb: U8) -> tuple[F64, F64]:
    """Integral images of where skin's chroma is, and of luma."""
    luma, cr, cb = cv2.split(cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb))
    skin = (cb >= 77) & (cb <= 127) & (cr >= 133) & (cr <= 173) & (luma > 30) & (rgb[..., 1] >= rgb[..., 2])
    return cv2.integral(skin.astype(np.uint8)).astype(np.float64), cv2.integral(luma).astype(np.float64)


def _face_at(skin: F64, luma: F64, w: int, h: int) -> F64:
    """How much like a face of w x h px each position is, [Y, X]; a margin of half a width lies at both sides, of a quarter below."""
    out, m = (skin.shape[0] - h - w // 4, skin.shape[1] - 2 * w), w // 2

    def mean(total: F64, top: float, left: float, height: float, width: float) -> F64:
        y0, x0 = round(top * h), round(m + left * w)
        y1, x1 = round((top + height) * h), round(m + (left + width) * w)
        cut = [total[y : y + out[0], x : x + out[1]] for y, x in ((y1, x1), (y0, x1), (y1, x0), (y0, x0))]
        return np.asarray((cut[0] - cut[1] - cut[2] + cut[3]) / ((y1 - y0) * (x1 - x0)))

    beside = np.maximum(mean(skin, 0.1, -0.5, 0.6, 0.4), mean(skin, 0.1, 1.1, 0.6, 0.4))
    outline = mean(skin, 0.45, 0.15, 0.35, 0.7) * mean(skin, 0.1, 0.1, 0.8, 0.8) * (1 - np.clip(beside, 0, 1))
    eyes = mean(luma, 0.3, 0.15, 0.18, 0.7)
    brow, mouth = _darker(mean(luma, 0.08, 0.2, 0.17, 0.6), eyes, 0.1), _darker(mean(luma, 0.5, 0.35, 0.15, 0.3), mean(luma, 0.72, 0.3, 0.12, 0.4), 0.1)
    drawn = _darker(mean(luma, 0.5, 0.15, 0.18, 0.7), eyes, 0.2) * (0.2 + 0.8 * brow) * (0.2 + 0.8 * mouth)
    return np.asarray(cv2.GaussianBlur(outline * drawn, (0, 0), max(1.0, w / 8)), np.float64)


def _darker(light: F64, dark: F64, by: float) -> F64:
    """0 to 1: how much of `by`, a share of `light`, `dark` is darker than `light`."""
    return np.asarray(np.clip((light - dark) / np.maximum(light, 1) / by, 0, 1))


def soft(luma: U8) -> float:
    """1 - Laplacian energy at full size / (that and the one at half size); 1 where there is none."""
    half = cv2.resize(luma, (luma.shape[1] // 2, luma.shape[0] // 2), interpolation=cv2.INTER_AREA)
    fine, coarse = (float((cv2.Laplacian(part, cv2.CV_32F) ** 2).mean()) for part in (luma, half))
    return 1 - fine / (coarse + fine) if coarse + fine > 0.5 else 1.0


def overlays(small: F32) -> dict[str, float]:
    """fixed and seam of luma [T, h, w]; nothing is fixed in a picture of which less than a third moves: it is a still camera's."""
    spread = small.std(axis=0)
    moves, lines = cv2.blur((spread > 14).astype(np.float32), (15, 15)) > 0.5, np.zeros(spread.shape, np.uint8)
    for dx in (0, 1):
        slopes = np.stack([cv2.Sobel(picture, cv2.CV_32F, dx, 1 - dx, ksize=3, scale=0.125) for picture in small[:: max(1, len(small) // 12)]])
        stays = ((slopes > 4).mean(axis=0) > 0.9) | ((slopes < -4).mean(axis=0) > 0.9)
        run = np.ones((RUN, 1) if dx else (1, RUN), np.uint8)
        lines |= np.asarray(cv2.morphologyEx((stays & moves).astype(np.uint8), cv2.MORPH_OPEN, run), np.uint8)
    shifting = min(1.0, max(0.0, (float((spread > 12).mean()) - 0.3) / 0.3))
    return {"fixed": float(lines.mean()) * shifting, "seam": max(seam(small), seam(small.transpose(0, 2, 1)))}


def seam(small: F32) -> float:
    """Share of a column that is an edge in four fifths of the samples, less that of the columns near it, with movement on both sides; the largest."""
    step = np.percentile(np.abs(np.diff(small, axis=2)), 20, axis=0) > 4
    share = (step | np.roll(step, 1, axis=1)).mean(axis=0)
    moving, w, best = (small.std(axis=0) > 6).mean(axis=0), small.shape[2], 0.0
    for x in range(max(7, w // 12), w - max(12, w // 12)):
        near = float(np.median(np.concatenate([share[x - 7 : x - 2], share[x + 3 : x + 8]])))
        sides = min(float(moving[max(0, x - 10) : x - 1].mean()), float(moving[x + 2 : x + 11].mean()))
        best = max(best, (float(share[x]) - near) * min(1.0, 2 * sides))
    return best


def jump(frames: Frames) -> dict[str, float]:
    """jump and jump_size: the moment at which what comes before and what comes after differ most, and more than either does in itself."""
    looks = np.stack([_look(rgb) for rgb in frames.rgb])
    best, size = 0.0, 0.0
    for i in range(2, len(looks) - 1):
        first, last = max(0, i - AROUND), min(len(looks), i + AROUND)
        apart = np.abs(looks[first:last, None] - looks[None, first:last]).mean(axis=2)
        k, m = i - first, last - i
        inside = float(apart[:k, :k].sum() + apart[k:, k:].sum()) / (k * (k - 1) + m * (m - 1))
        ratio, between = float(apart[k - 1, k]) / (inside + 0.002), float(apart[:k, k:].mean())
        if ratio * between > best * size:
            best, size = ratio, between
    return {"jump": best, "jump_size": size}


def _look(rgb: U8) -> F32:
    """What a picture looks like: square roots of its colours' shares (64 bins), and the picture itself at 16 x 9 px, an eighth as heavy."""
    code = (rgb[::2, ::2] >> 6).astype(np.uint8) @ np.array([16, 4, 1], np.uint8)
    colours = np.sqrt(np.bincount(code.ravel(), minlength=64) / code.size)
    tiny = np.asarray(cv2.resize(rgb, (16, 9), interpolation=cv2.INTER_AREA), np.float64)
    return np.asarray(np.concatenate([colours, tiny.ravel() / 2040]), np.float32)
