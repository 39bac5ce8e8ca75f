"""Buckets: the few sizes that clips of any shape are brought to, so that a batch has one."""

import math
from collections.abc import Sequence

from curation.clips import ClipError
from training.model.plain import must
from training.model.spec import ModelSpec

Size = tuple[int, int]
"""(height, width) in px."""


def unit_of(spec: ModelSpec) -> int:
    """px that both sides must be multiples of: what a token of the decoder covers."""
    must(spec.decoder.patch[1] == spec.decoder.patch[2], f"model {spec.name}: a token of {spec.decoder.patch} latents is not square")
    return spec.vae.spatial * spec.decoder.patch[1]


def buckets_of(spec: ModelSpec) -> tuple[Size, ...]:
    """The model's own size, and with its short side 4:3 and the square, where these are no longer than it; lying and standing. Sorted.

    The short side is the same in all: a clip that was cut to it need not be enlarged.
    """
    unit, short = unit_of(spec), min(spec.height, spec.width)
    longs = {max(spec.height, spec.width), *(unit * round(short * ratio / unit) for ratio in (4 / 3, 1.0))}
    sides = [long for long in longs if short <= long <= max(spec.height, spec.width)]
    return tuple(sorted({size for long in sides for size in ((short, long), (long, short))}))


def checked(sizes: Sequence[Sequence[int]], spec: ModelSpec) -> tuple[Size, ...]:
    """Sizes that a user gave.

    Raises:
        ValueError: none, or one that the model's tokens do not divide.
    """
    unit = unit_of(spec)
    must(len(sizes) > 0, "buckets: there is none; give at least one (height, width)")
    for size in sizes:
        fits = len(size) == 2 and min(size) > 0 and all(side % unit == 0 for side in size)
        must(fits, f"buckets: {list(size)} must be (height, width) in multiples of {unit} px, what a token of model {spec.name} covers")
    return tuple(sorted((int(height), int(width)) for height, width in sizes))


def bucket_for(height: int, width: int, sizes: Sequence[Size], most_enlarged: float) -> Size:
    """The bucket whose shape is nearest to that of pictures of `height` x `width` px; of equals the largest.

    Raises:
        ClipError: "too_small_px" where they would have to be enlarged by more than `most_enlarged`.
    """

    def off(size: Size) -> tuple[float, int]:
        return round(abs(math.log(size[1] / size[0] * height / width)), 9), -size[0] * size[1]

    best = min(sizes, key=off)
    scale = max(best[0] / height, best[1] / width)
    if scale > most_enlarged:
        raise ClipError("too_small_px", f"{height}x{width} px would be enlarged {scale:.2f} times to {best[0]}x{best[1]}; at most {most_enlarged:g} is allowed")
    return best
