"""Multimodal rotary positions: where the tokens of a dialogue stand in time, height and width.

Shapes: L tokens; a position has three numbers (time, height, width).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Grid:
    """The tokens of one picture or video: merged patches, in the order time, height, width."""

    time: int
    height: int
    width: int
    step: float = 1.0
    """Positions between two of them in time: seconds x the tower's tokens a second; of no account for a picture."""

    @property
    def count(self) -> int:
        """Tokens."""
        return self.time * self.height * self.width


def positions(pieces: Sequence[int | Grid], begin: int = 0) -> tuple[Any, int]:
    """Positions int64 [3, L] of pieces that follow one another, and the position at which the next piece begins.

    Text counts on in all three numbers. A grid's token stands at its time, row and column behind what came before; whatever follows stands behind the
    largest position so far. vLLM does the same. transformers does not: up to 5.23 what follows stands behind the grid's rows and columns alone, inside a
    video which lasts longer than it is wide; and 5.10 and 5.17 cut the seconds of a step to a whole number, mostly 0.

    Args:
        pieces: a number of text tokens (query tokens are text), or a grid.
        begin: position of the first token; that which an earlier call returned, to go on with a dialogue.

    Source: Qwen2.5-VL technical report, arXiv 2502.13923, 2.1.3.
    """
    found = [torch.empty((3, 0), dtype=torch.int64)]
    for piece in pieces:
        here = _cells(piece) if isinstance(piece, Grid) else torch.arange(piece).expand(3, piece)
        found.append(here + begin)
        begin = int(found[-1].max()) + 1 if here.numel() else begin
    return torch.cat(found, dim=1), begin


def _cells(grid: Grid) -> Any:
    """Time, row and column of each token, int64 [3, L]; time is cut off to a whole number, in float32 as in the models' own code."""
    time = (torch.arange(grid.time) * grid.step).long()
    axes = torch.meshgrid(time, torch.arange(grid.height), torch.arange(grid.width), indexing="ij")
    return torch.stack(axes).reshape(3, -1)
