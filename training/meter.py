"""Meter: how long steps take, what share of it is waiting, and what share of the device's ceiling is used, by the mask that is really attended."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import torch

from training.model.attention import Layout
from training.model.flops import forward_flops
from training.model.spec import DecoderSpec


@lru_cache(maxsize=4)
def ceiling(device: str, dtype: torch.dtype, size: int | None = None) -> float:
    """FLOP/s of the best of some matrix products on this device: what a kernel can reach here, not what a data sheet says. Below 0.3 s.

    Measured with the weights as a linear layer has them: a CPU without matrix instructions for bfloat16 is ten times slower on others. And never less than in
    float32: where the narrow products are the slower ones, a share of *their* ceiling would be flattering, and could exceed 1.

    Args:
        size: of the square matrices; by default 8192 on a GPU and 512 elsewhere.
    """
    size = size or (8192 if device.startswith("cuda") else 512)
    kinds = {dtype, torch.float32} if device == "cpu" else {dtype}
    return max(_rate(device, kind, size) for kind in kinds)


def _rate(device: str, dtype: torch.dtype, size: int) -> float:
    """FLOP/s of one precision: the best of five products after one that warms up."""
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    taken = []
    for _ in range(6):
        began = _now(device)
        torch.nn.functional.linear(left, right)
        taken.append(_now(device) - began)
    return float(2 * size**3 / min(taken[1:]))


def _now(device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


@dataclass
class Meter:
    """Counts the decoder's operations and the seconds of a rank's steps since it was last read.

    Args:
        spec: the decoder's.
        device: whose ceiling is taken.
        dtype: of the matrix products.
        state: whether the state's stream is used.
        recomputed: the share of a forward that activation checkpointing computes again.
        sequence: ranks that a window's tokens are split over.
    """

    spec: DecoderSpec
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    state: bool = True
    recomputed: float = 0.0
    sequence: int = 1
    useful: float = 0.0
    done: float = 0.0
    steps: int = 0
    parts_s: dict[str, float] = field(default_factory=dict)
    _marked: list[tuple[str, Any, Any]] = field(default_factory=list, repr=False)

    def windows(self, count: int, layout: Layout, tokens_per_frame: int, real: int | None = None, frames_G: Sequence[int] | None = None) -> None:
        """Counts windows that went through a step: only what the mask lets be attended, and the frozen language model not at all.

        Args:
            count: those that were computed, blanks too. layout: of them all.
            real: those that were learnt from; all by default. Blanks are work that is done, and of no use.
            frames_G: latent frames learnt from, by chunk of the window; by default every window has all. A chunk that is not there is of no use either.
        """
        real = count if real is None else real
        self.done += count * self._operations(layout, tokens_per_frame, self.recomputed) / self.sequence
        for chunks, windows in enumerate(_lengths(real, layout.chunks, frames_G), 1):
            if windows:
                own = replace(layout, chunks=layout.chunks[:chunks])
                self.useful += windows * self._operations(own, tokens_per_frame) / self.sequence

    def spent(self, part: str, seconds: float) -> None:
        """Adds seconds to a part of the step."""
        self.parts_s[part] = self.parts_s.get(part, 0.0) + seconds

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Adds what the block takes to a part of the step; on a GPU by the GPU's own clock: the CPU only hands out the work and waits for nothing."""
        if not self.device.startswith("cuda"):
            began = time.perf_counter()
            yield
            self.spent(part, time.perf_counter() - began)
            return
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began.record()
        yield
        ended.record()
        self._marked.append((part, began, ended))

    def numbers(self) -> list[float]:
        """What was counted since the last reading: operations of use, operations done, and the seconds of each part, in the order of `parts_s`."""
        for part, began, ended in self._marked:
            ended.synchronize()
            self.spent(part, began.elapsed_time(ended) / 1000)
        self._marked = []
        return [self.useful, self.done, *self.parts_s.values()]

    def read(self, ranks: Sequence[Sequence[float]] | None = None) -> dict[str, float]:
        """The figures since the last reading.

        step_s, seconds a step; share_*, each part's share of them, both of the rank that waited for data the longest: the others wait for it. mfu, useful
        operations of all ranks as a share of `mfu_ceiling_tflops`, the matrix products that this device was measured to reach; hfu, the same of all that was
        computed, blanks and what is computed twice too.

        Args:
            ranks: each rank's `numbers`; by default this one's alone.
        """
        ranks = [self.numbers()] if ranks is None else ranks
        parts = [dict(zip(self.parts_s, row[2:], strict=True)) for row in ranks]
        slowest = max(parts, key=lambda part: part.get("data", 0.0))
        whole = sum(slowest.values())
        if not self.steps or not whole:
            return {}
        best = ceiling(self.device, self.dtype)
        top = best * sum(sum(part.values()) for part in parts)
        useful, done = (sum(row[number] for row in ranks) for number in (0, 1))
        figures = {"step_s": whole / self.steps, "mfu": useful / top, "hfu": done / top, "mfu_ceiling_tflops": best / 1e12}
        figures |= {f"share_{part}": seconds / whole for part, seconds in slowest.items()}
        self.useful = self.done = 0.0
        self.steps, self.parts_s = 0, {}
        return figures

    def _operations(self, layout: Layout, tokens_per_frame: int, recomputed: float = 0.0) -> float:
        """Of a window's training."""
        return forward_flops(self.spec, layout, tokens_per_frame, state=self.state).training(recomputed)


def _lengths(real: int, chunks: Sequence[int], frames_G: Sequence[int] | None) -> list[int]:
    """How many windows have 1, 2, ... chunks; those that are there come first. Chunks that are shown clean are learnt from in none, and there with the next."""
    if frames_G is None:
        return [0] * (len(chunks) - 1) + [real]
    having = [frames // length for frames, length in zip(frames_G, chunks, strict=True)]  # windows that have the chunk
    having = [real, *(max(having[number:]) for number in range(1, len(having))), 0]
    return [having[number] - having[number + 1] for number in range(len(chunks))]


def line(step: int, steps: int, epochs: int, figures: Mapping[str, float], validation: float, rest_s: float) -> str:
    """A line of progress: how far, the loss, what was skipped, the wait for data, the use of the device, and the time left.

    Args:
        figures: of the loop, with those of `Meter.read`.
        validation: the last one; NaN before the first.
    """
    parts = [f"step {step}/{steps}", f"epoch {figures['epoch']:.0f}/{epochs}", f"loss {figures.get('loss', math.nan):.4f}"]
    parts += [f"validation {validation:.4f}"] if not math.isnan(validation) else []
    parts += [f"{what} {figures[name]:.0f}" for what, name in (("skipped", "skipped_steps"), ("samples left out", "left_out_samples")) if figures[name]]
    parts += [f"waits {100 * figures['share_data']:.1f} %"] if "share_data" in figures else []
    parts += [f"mfu {100 * figures['mfu']:.1f} % of {figures['mfu_ceiling_tflops']:.3g} TFLOP/s"] if "mfu" in figures else []
    return "  ".join([*parts, f"left {left(rest_s)}"])


def left(seconds: float) -> str:
    """A duration for people: 45 s, 12 min, 3 h 20 min, 2 d 4 h."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
