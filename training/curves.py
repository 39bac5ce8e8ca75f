"""Curves: a line chart as a picture, drawn with Pillow alone."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 960, 540, 70, 40, 40, 190
COLOURS = ("#1f5fa8", "#d1602c", "#3a8f4d", "#8a4fb5", "#b58a1f", "#2a9d9d", "#c23b6d", "#6b6b6b", "#7a4a2b", "#4f5bd5")
Points = Sequence[tuple[float, float]]


def picture(title: str, curves: Mapping[str, Points]) -> Any:
    """A Pillow picture of the curves, [(x, y)] by name, over one another; what is no number is left out.

    Raises:
        ValueError: there is no point.
    """
    from PIL import Image, ImageDraw

    finite = {name: [(x, y) for x, y in points if math.isfinite(y)] for name, points in curves.items()}
    every = [point for points in finite.values() for point in points]
    if not every:
        raise ValueError(f"chart {title}: there is nothing to draw")
    (low_x, high_x), (low_y, high_y) = (_range([point[axis] for point in every]) for axis in (0, 1))

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = (x - low_x) / (high_x - low_x), (y - low_y) / (high_y - low_y)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - BOTTOM - TOP)

    made = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(made)
    draw.text((LEFT, 12), title, fill="black")
    for y in ticks(low_y, high_y):
        at = place(low_x, y)[1]
        draw.line([(LEFT, at), (WIDTH - RIGHT, at)], fill="#dddddd")
        draw.text((8, at - 6), f"{y:.4g}", fill="black")
    for x in ticks(low_x, high_x):
        draw.text((place(x, low_y)[0] - 10, HEIGHT - BOTTOM + 10), f"{x:.6g}", fill="black")
    for number, (name, points) in enumerate(finite.items()):
        colour = COLOURS[number % len(COLOURS)]
        if len(points) > 1:
            draw.line([place(x, y) for x, y in points], fill=colour, width=2)
        draw.text((WIDTH - RIGHT + 12, TOP + 16 * number), name, fill=colour)
    return made


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers in [low, high]: multiples of 1, 2 or 5 times a power of ten, at most `most` of them."""
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    step *= next(factor for factor in (1, 2, 5, 10, 20) if (high - low) / (step * factor) <= most - 1)
    return [step * k for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _range(values: Sequence[float]) -> tuple[float, float]:
    """From least to most; never empty."""
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)
