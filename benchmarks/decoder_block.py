"""The decoder's speed: our blocks beside diffusers' on a CPU, same weights, same tokens, in turns; and on a GPU, the share of its matrix ceiling."""

import argparse
import importlib.util
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch  # noqa: E402
from decoder_arms import Pair, Run, Work  # noqa: E402

from training.model.flops import forward_flops  # noqa: E402
from training.model.spec import SPECS  # noqa: E402

#: diffusers' time over ours: at the same work; and at PAN's window, where ours leaves out what is masked or not wanted.
SAME, WINDOW = 1.0, 1.2
DEBUG = Work(replace(SPECS["debug"].decoder, state_dim=None, layers=2), batch=8, frames=(1, 2, 2), rows=4)
WIDE = Work(replace(SPECS["pan_14b"].decoder, state_dim=None, layers=2), batch=1, frames=(1, 10, 10), rows=4)
Figure = dict[str, Any]


def figure(value: float | None, target: float | None = None) -> Figure:
    """One figure of the last line; null where nothing was measured."""
    met = None if value is None or target is None else value >= target
    return {"value": None if value is None else round(value, 4), "target": target, "met": met}


@dataclass(frozen=True)
class Took:
    """CPU-seconds of turns taken one after the other."""

    ours: tuple[float, ...]
    theirs: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        """diffusers' seconds over ours, turn by turn."""
        return [theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True)]


def in_turns(ours: Run, theirs: Run, turns: int) -> Took:
    """Times both, the first now the one and now the other, after a turn that warms up and compares what they computed.

    Raises:
        SystemExit: they did not compute the same.
    """
    one, other = ours().flatten(), theirs().flatten()
    apart = float((one - other).norm() / other.norm())
    if apart > 1e-4:
        raise SystemExit(f"our blocks and diffusers' differ by {apart:.1e} on the same work: nothing is compared")
    took: dict[Run, list[float]] = {ours: [], theirs: []}
    for turn in range(turns):
        for run in (ours, theirs) if turn % 2 else (theirs, ours):
            began = time.process_time()
            run()
            took[run].append(time.process_time() - began)
    return Took(tuple(took[ours]), tuple(took[theirs]))


def jobs(name: str, work: Work, turns: int) -> Iterator[tuple[str, float, float, Took]]:
    """(figure, target, operations of ours forward and backward, times) of each job at one size."""
    for windowed, target in ((False, SAME), (True, WINDOW)):
        pair = Pair(work, windowed)
        flops = forward_flops(work.spec, work.layout(windowed), work.tokens_per_frame)
        job = "window" if windowed else "dense"
        yield f"{name}_{job}_blocks", target, 3 * flops.blocks * work.batch, in_turns(*pair.blocks(), turns)
        yield f"{name}_{job}_slice", target, 3 * flops.total * work.batch, in_turns(*pair.slices(), turns)


def line(name: str, flops: float, took: Took) -> str:
    """A row of the table: medians, and the quartiles of the ratio."""
    ours, theirs, ratio = (statistics.median(each) for each in (took.ours, took.theirs, took.ratios))
    low, _, high = statistics.quantiles(took.ratios, n=4) if len(took.ratios) > 1 else (ratio,) * 3
    return f"{name:<22} {ours * 1e3:>10.1f} {theirs * 1e3:>12.1f} {ratio:>7.3f}  {f'{low:.3f}-{high:.3f}':<13} {flops / ours / 1e9:>9.1f}"


def on_cpu(given: argparse.Namespace) -> dict[str, Figure]:
    """Both sizes on one thread; prints the table."""
    jobs_of = [(size, job, what) for size in ("debug", "wide") for job in ("dense", "window") for what in ("blocks", "slice")]
    targets = {f"{size}_{job}_{what}_ratio": WINDOW if job == "window" else SAME for size, job, what in jobs_of}
    figures = {name: figure(None, target) for name, target in targets.items()}
    if given.gpu_only or importlib.util.find_spec("diffusers") is None:
        print(f"CPU: not measured, {'--gpu-only' if given.gpu_only else 'diffusers is not installed'}")
        return figures
    sizes = [("debug", DEBUG, given.turns)] + ([] if given.no_wide else [("wide", WIDE, given.wide_turns)])
    print("two layers, float32, one thread, forward and backward, CPU time; blocks: alone; slice: with embeddings and head")
    for name, work, turns in sizes:
        tokens = sum(work.frames) * work.tokens_per_frame
        print(f"{name}: {work.spec.dim} wide, {work.spec.heads} heads, {work.batch} x {tokens} tokens, texts of {work.spec.text_tokens}, {turns} turns")
    print(f"{'':<22} {'ours ms':>10} {'diffusers ms':>12} {'ratio':>7}  {'quartiles':<13} {'GFLOP/s':>9}")
    for name, work, turns in sizes:
        for job, target, flops, took in jobs(name, work, turns):
            print(line(job, flops, took), flush=True)
            figures[f"{job}_ratio"] = figure(statistics.median(took.ratios), target)
    if given.no_wide:
        print("wide: not measured, --no-wide")
    return figures


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=60, help="turns at debug size")
    parser.add_argument("--wide-turns", type=int, default=5, help="turns at the width of 14B; one takes three minutes of CPU and 9 GB")
    parser.add_argument("--no-wide", action="store_true", help="leave out the width of 14B")
    parser.add_argument("--gpu-only", action="store_true", help="leave out the CPU's part, which needs diffusers")
    given = parser.parse_args(words)
    for name in ("turns", "wide_turns"):
        if getattr(given, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {getattr(given, name)}")
    return given


def main(words: Sequence[str] | None = None) -> None:
    """Measures, prints the table, and as the last line the figures."""
    from decoder_gpu import on_gpu

    given = arguments(words)
    torch.set_num_threads(1)
    figures = on_cpu(given) | {name: figure(value, target) for name, (value, target) in on_gpu().items()}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
