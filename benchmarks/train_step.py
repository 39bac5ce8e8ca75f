"""A training step's time: data, forward, backward, communication, optimiser; on one process and two gloo ranks; with a GPU at 14B width, beside diffusers."""

import argparse
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch  # noqa: E402

from training.loop import Trainer  # noqa: E402
from training.loop_settings import LoopSettings, Settings  # noqa: E402
from training.meter import Meter  # noqa: E402
from training.parallel import ParallelSettings, spread, world  # noqa: E402
from training.phases import PHASES, prepare  # noqa: E402
from training.step import LossSettings  # noqa: E402

#: Share of a step's time that it waits for data, at most.
WAITS = 0.02
ARMS: dict[str, dict[str, int]] = {"one process": {}, "HSDP 1 x 2": {"shard": 2}, "Ulysses 2": {"sequence": 2}}
PARTS = ("data", "forward", "backward", "communication", "optimiser", "rest")
#: What torch.distributed calls of a process group, and of what that returns: where a rank is in, or waits for, a collective.
COLLECTIVES = ("allreduce", "allgather", "_allgather_base", "_reduce_scatter_base", "alltoall_base", "reduce_scatter", "broadcast")
Span = tuple[float, float]
Figure = dict[str, Any]


def figure(value: float | None, target: float | None = None, *, most: bool = False) -> Figure:
    """One figure of the last line; null where nothing was measured. `most`: the target is not to be exceeded."""
    met = None if value is None or target is None else value <= target if most else value >= target
    return {"value": None if value is None else round(value, 4), "target": target, "met": met}


@dataclass
class Spans(Meter):
    """The trainer's own meter; it keeps when each part of a step was, too."""

    spans: list[tuple[str, Span]] = field(default_factory=list)

    def spent(self, part: str, seconds: float) -> None:
        """A part that has just ended."""
        super().spent(part, seconds)
        end = time.perf_counter()
        self.spans.append((part, (end - seconds, end)))


def split(parts: Sequence[tuple[str, Span]], collectives: Sequence[Span], whole_s: float) -> dict[str, float]:
    """Seconds of each of PARTS: what of a part was spent in collectives is communication, and no part of it; "rest" is what nobody has measured."""
    found = dict.fromkeys(PARTS, 0.0)
    for part, (begin, end) in parts:
        inside = sum(max(0.0, min(end, e) - max(begin, b)) for b, e in collectives)
        found[part] += end - begin - inside
    found["communication"] = sum(e - b for b, e in collectives)
    found["rest"] = whole_s - sum(found.values())
    return found


@contextmanager
def timed_collectives() -> Iterator[list[Span]]:
    """Notes when this process is in a collective, or waits for one to end: gloo's own threads are not counted, the wait for them is.

    On the same steps (HSDP 1 x 2, joint phase) the gloo events of torch's profiler came to 6 % more. What FSDP copies into and out of its buffers is not
    communication here, but part of the forward or the backward in which it is done.
    """
    import torch.distributed as dist

    spans: list[Span] = []

    def noted(plain: Any) -> Any:
        def call(*given: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return plain(*given, **options)
            finally:
                spans.append((began, time.perf_counter()))

        return call

    places = [(dist.ProcessGroup, name) for name in COLLECTIVES if hasattr(dist.ProcessGroup, name)] + [(dist.Work, "wait")]
    before = [getattr(owner, name) for owner, name in places]
    try:
        for (owner, name), plain in zip(places, before, strict=True):
            setattr(owner, name, noted(plain))
        yield spans
    finally:
        for (owner, name), plain in zip(places, before, strict=True):
            setattr(owner, name, plain)


def corpus(folder: Path, clips: int) -> None:
    """A debug model, and latent shards of so many made clips as `pan encode` publishes them."""
    from tests.training.data.made_clips import clip, published
    from tests.training.data.made_latents import encode
    from training.data.identity import EncodeSettings
    from training.model.checkpoint import init_model, save_model
    from training.model.spec import SPECS

    for name in ("clips", "latents"):
        (folder / name).mkdir()
    published(folder / "clips", [clip(folder, video, 1) for video in range(clips)])
    save_model(folder / "model", init_model(SPECS["debug"], seed=0))
    encode(folder / "clips", folder / "latents", folder / "model", EncodeSettings())


def endless(trainer: Trainer) -> Iterator[Any]:
    """A step's batches, epoch after epoch, as the trainer takes them: its meter is told the wait."""
    begun = trainer.step
    while True:
        yield from trainer._taken(begun)


def measured(folder: Path, phase: str, axes: dict[str, int], given: argparse.Namespace) -> dict[str, float]:
    """One rank's seconds by part, summed over `given.steps` steps of the trainer on the loader's batches, after some that warm up."""
    from training.data.loader import Loader
    from training.model.checkpoint import open_model

    parallel = ParallelSettings(gather=given.compute, **axes)
    settings = Settings(loop=LoopSettings(windows=1, batch=given.batch), loss=LossSettings(compute=given.compute), parallel=parallel)
    mesh, glp = world(parallel), open_model(folder / "model", "cpu")
    prepare(glp, PHASES[phase], PHASES[phase].after[:1])
    spread(glp, parallel, mesh)
    where: dict[str, Any] = {"rank": mesh.rank, "world": mesh.ranks, "sequence_ranks": parallel.sequence}
    loader = Loader(folder / "latents", glp.spec, phase=PHASES[phase].data, batch=given.batch, workers=given.workers, **where)
    trainer = Trainer(glp, PHASES[phase], loader, folder / "snapshots", settings, mesh=mesh)
    trainer.steps = given.warm + given.steps
    meter = trainer.meter = Spans(glp.spec.decoder, "cpu", getattr(torch, given.compute), phase == "joint", 1.0, parallel.sequence)
    done, began, collectives = 0, 0.0, list[Span]()
    with timed_collectives() as all_spans:
        for batches in endless(trainer):
            if done == given.warm:
                meter.spans, began = [("data", meter.spans[-1][1])], meter.spans[-1][1][0]  # the wait for this step's batch is its own
                all_spans.clear()
            trainer.learn(batches)
            done += 1
            if done == trainer.steps:
                break
        whole_s, collectives = time.perf_counter() - began, list(all_spans)
    loader.close()
    trainer.snapshots.close()
    return split(meter.spans, collectives, whole_s)


def rank(number: int, ranks: int, folder: Path, axes: dict[str, int], given: argparse.Namespace) -> None:
    """What each process of an arm does; its figures go to a file."""
    import torch.distributed as dist

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "FSDP2-wrapped module")  # a view that an in-place operation would spoil; there is none
    if ranks > 1:
        rendezvous = f"file://{folder}/rendezvous_{'_'.join(axes)}"
        dist.init_process_group("gloo", init_method=rendezvous, rank=number, world_size=ranks, timeout=timedelta(seconds=120))
    told = {phase: measured(folder, phase, axes, given) for phase in given.phases}
    (folder / f"rank_{number}.json").write_text(json.dumps(told))
    if ranks > 1:
        dist.barrier()
        dist.destroy_process_group()


def arm(folder: Path, axes: dict[str, int], given: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """By phase, each rank's seconds by part."""
    from multiprocessing import get_context

    from torch.multiprocessing import start_processes

    ranks = max([1, *axes.values()])
    get_context("forkserver").set_forkserver_preload(["torch", "torch.distributed.fsdp", "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl"])
    start_processes(rank, (ranks, folder, axes, given), nprocs=ranks, start_method="forkserver")
    told = [json.loads((folder / f"rank_{number}.json").read_text()) for number in range(ranks)]
    return {phase: [each[phase] for each in told] for phase in given.phases}


def line(name: str, phase: str, steps: int, told: Sequence[dict[str, float]]) -> str:
    """A row of the table: the mean over ranks."""
    whole = sum(sum(each.values()) for each in told)
    shares = "".join(f"{sum(each[part] for each in told) / whole:>{max(9, len(part) + 2)}.1%}" for part in PARTS)
    return f"{name:<13}{phase:<9}{1e3 * whole / len(told) / steps:>8.1f}{shares}"


def on_cpu(given: argparse.Namespace) -> dict[str, Figure]:
    """All arms at debug size; prints the table."""
    waits = {f"waits_{phase}": figure(None, WAITS, most=True) for phase in ("decoder", "joint")}
    if given.gpu_only:
        print("CPU: not measured, --gpu-only")
        return waits
    print(f"debug size, {given.batch} windows a data rank, {given.compute}, blocks checkpointed, one thread a rank; {given.steps} steps after {given.warm}")
    print("communication: a rank is in a collective or waits for one (and so for the other rank); it is taken out of the parts that it lies in")
    print(f"{'':<13}{'phase':<9}{'step ms':>8}" + "".join(f"{part:>{max(9, len(part) + 2)}}" for part in PARTS))
    figures: dict[str, Figure] = {}
    with tempfile.TemporaryDirectory() as made:
        corpus(Path(made), given.clips)
        for name, axes in ARMS.items():
            for phase, told in arm(Path(made), axes, given).items():
                print(line(name, phase, given.steps, told), flush=True)
                short, whole = "_".join(axes), [sum(each.values()) for each in told]
                share = {part: sum(each[part] for each in told) / sum(whole) for part in PARTS}
                ending = f"{phase}_{short}" if short else phase
                worst = max(each["data"] / all_s for each, all_s in zip(told, whole, strict=True))
                waits[f"waits_{ending}"] = figure(worst, WAITS, most=True)  # of the rank that waits longest
                figures |= {f"{part}_{ending}": figure(share[part]) for part in PARTS[1:]}
                figures[f"step_s_{ending}"] = figure(sum(whole) / len(told) / given.steps)
    return waits | figures


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60, help="steps that are measured")
    parser.add_argument("--warm", type=int, default=10, help="steps before them; the reading processes' start is in the first")
    parser.add_argument("--batch", type=int, default=4, help="windows of a data rank")
    parser.add_argument("--clips", type=int, default=16, help="made clips to learn from")
    parser.add_argument("--workers", type=int, default=1, help="reading processes a rank; 0: read while the step waits")
    parser.add_argument("--compute", choices=("float32", "bfloat16"), default="float32", help="of the CPU's matrix products; bfloat16 is slow on many CPUs")
    parser.add_argument("--phases", nargs="+", choices=("decoder", "joint"), default=["decoder", "joint"])
    parser.add_argument("--gpu-only", action="store_true", help="leave out the CPU's part")
    given = parser.parse_args(words)
    for name in ("steps", "batch", "clips"):
        if getattr(given, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(given, name)}")
    if given.warm < 1 or given.workers < 0:
        parser.error(f"--warm must be at least 1 and --workers at least 0, got {given.warm} and {given.workers}")
    return given


def main(words: Sequence[str] | None = None) -> None:
    """Measures, prints the table, and as the last line the figures."""
    from train_step_gpu import on_gpu

    given = arguments(words)
    print(json.dumps(on_cpu(given) | {name: figure(value, target) for name, (value, target) in on_gpu().items()}))


if __name__ == "__main__":
    main()
