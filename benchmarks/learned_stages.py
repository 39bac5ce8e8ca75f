"""The learned stages' speed: what the engine's back end adds to vLLM, and what Ray adds to that; without a GPU on a tiny model of random weights."""

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # a Ray of this run alone
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine_arms import PROMPTS, Load, Took, actor, bare, ours, processor  # noqa: E402

from curation.vlm import VlmConfig  # noqa: E402
from curation.vlm_engine import Engine  # noqa: E402
from curation.vlm_runner import Runner, check  # noqa: E402

#: Of the bare engine's tokens a second.
TARGET = 0.9
#: Sequences that the tiny model's engine runs at a time. A batch of 32 clips with two questions each is twice that, as 64 clips with PAN's seven questions are
#: nearly twice vLLM's 256 on a GPU: with batches smaller than the engine an actor starves it (a quarter of the throughput lost at half the size).
TINY_SEQUENCES = 32
Figure = dict[str, Any]


def figure(value: float | None, target: float | None = None) -> Figure:
    """One figure of the last line; null where nothing was measured."""
    met = None if value is None or target is None else value >= target
    return {"value": None if value is None else round(value, 4), "target": target, "met": met}


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="folder of a Qwen2.5-VL; a tiny one with random weights is made where none is given")
    parser.add_argument("--dummy-7b", action="store_true", help="a model of 7B's shape with dummy weights; needs a GPU")
    parser.add_argument("--clips", type=int, default=64, help="clips a round; each is asked two questions")
    parser.add_argument("--pictures", type=int, default=16, help="pictures a clip")
    parser.add_argument("--rounds", type=int, default=3, help="bare and ours take turns so often")
    parser.add_argument("--batch", type=int, default=32, help="clips a batch in Ray")
    parser.add_argument("--no-ray", action="store_true", help="leave out the actor and Ray Data's processor")
    given = parser.parse_args(words)
    for name in ("clips", "pictures", "rounds", "batch"):
        if getattr(given, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(given, name)}")
    if given.model is not None and not (given.model / "config.json").is_file():
        parser.error(f"no model at {given.model}: give a folder with a config.json")
    return given


def model_of(given: argparse.Namespace, gpu: bool, folder: Path) -> tuple[VlmConfig, dict[str, Any]]:
    """(settings, further arguments of vllm.LLM)."""
    from tests.learned.tiny_qwen import build

    if given.model is not None:
        return VlmConfig(model=str(given.model)), {}
    if given.dummy_7b:
        if not gpu:
            raise SystemExit("--dummy-7b needs a GPU, and this machine shows none")
        return VlmConfig(model=str(build(folder / "shape7b", size="7b")), dtype="bfloat16"), {"load_format": "dummy"}
    return VlmConfig(model=str(build(folder / "tiny")), dtype="float32", max_model_len=4096), {"block_size": 32, "max_num_seqs": TINY_SEQUENCES}


def in_process(engine: Engine, load: Load, rounds: int) -> tuple[list[Took], list[Took], float]:
    """(bare, ours, share of prompt tokens found in the prefix cache) over `rounds` turns, after one that warms up."""
    small = Load(2, load.pictures, load.height, load.width)
    bare(engine, small, 1), ours(engine, small, 2)
    runner = engine.runner
    assert isinstance(runner, Runner)
    before, pairs = runner.cache(), []
    for turn in range(rounds):
        first, second = (bare, ours) if turn % 2 else (ours, bare)
        took = {way.__name__: way(engine, load, 10 + 2 * turn + i) for i, way in enumerate((first, second))}
        pairs.append((took["bare"], took["ours"]))
    after = runner.cache()
    return [one for one, _ in pairs], [two for _, two in pairs], (after.found - before.found) / (after.asked - before.asked)


def line(name: str, took: Sequence[Took], ideal: Sequence[Took]) -> str:
    """A row of the table: medians; the processor's seconds are unknown where the engine has processes of its own."""
    per_s, best = (statistics.median(one.per_s() for one in arm) for arm in (took, ideal))
    mean = sum(one.tokens for one in took) / sum(one.answers for one in took)
    known = all(one.cpu_s for one in took)
    cpu = f"{statistics.median(1000 * one.cpu_s / one.answers for one in took):.1f}" if known else "not known"
    of_cpu = f"{_of(took, ideal):.3f}" if known else "not known"
    return f"{name:<46} {per_s:>9.0f} {per_s / best:>9.3f} {of_cpu:>13} {cpu:>14} {mean:>13.1f}"


def _of(took: Sequence[Took], ideal: Sequence[Took]) -> float:
    """Tokens a processor second (times the share of time that an actor was busy) over the ideal's of the same turn; the median."""
    return statistics.median(one.per_cpu_s() / best.per_cpu_s() for one, best in zip(took, ideal, strict=True))


def main(words: Sequence[str] | None = None) -> None:
    """Measures, prints the table, and as the last line the figures."""
    import torch

    given, gpu = arguments(words), torch.cuda.device_count() > 0
    with tempfile.TemporaryDirectory() as folder:
        config, overrides = model_of(given, gpu, Path(folder))
        try:
            check(config)
        except ValueError as fault:
            raise SystemExit(str(fault)) from fault
        load = Load(given.clips, given.pictures, *((252, 448) if gpu else (112, 168)))
        print(f"{load.clips} clips of {load.pictures} pictures, {len(PROMPTS)} questions each, on {torch.cuda.get_device_name() if gpu else 'CPU, one thread'}")
        figures = measure(config, overrides, load, given, gpu)
    print(json.dumps(figures))


def measure(config: VlmConfig, overrides: dict[str, Any], load: Load, given: argparse.Namespace, gpu: bool) -> dict[str, Figure]:
    """All arms; prints the table."""
    engine = Engine(config, lambda c: Runner(c, **overrides))
    ideal, through, shared = in_process(engine, load, given.rounds)
    template = _template(engine)
    engine.runner.close()
    print(f"{'way':<46} {'tokens/s':>9} {'of ideal':>9} {'of ideal, CPU':>13} {'CPU ms/answer':>14} {'tokens/answer':>13}")
    print(line("bare LLM.generate, all at once (ideal)", ideal, ideal))
    print(line("Engine.answer", through, ideal))
    in_actor = by_processor = own = None
    if not given.no_ray:
        (own, in_actor), by_processor = with_ray(config, overrides, load, given.batch, gpu, template)
        print(line("bare LLM.generate in a Ray actor (its ideal)", [own], [own]))
        print(line(f"Engine.answer in a Ray actor, {given.batch} clips a batch", [in_actor], [own]))
        print(line("ray.data.llm build_processor", [by_processor], [own]))
    where(through)
    print(f"prompt tokens found in the prefix cache: {shared:.1%}; with two questions a clip at most a half can be")
    print("of ideal, CPU: tokens a processor second over the ideal's, times the share of time in which the actor had rows: holds beside other work too")
    best = statistics.median(one.per_s() for one in ideal)
    # A GPU does the work there, and the clock is what counts; without one the processor's seconds are, which other work on the machine does not change.
    return {
        "engine_of_ideal": figure(statistics.median(one.per_s() for one in through) / best if gpu else _of(through, ideal), TARGET),
        "actor_of_ideal": figure(None if not in_actor or not own else in_actor.per_s() / own.per_s() if gpu else _of([in_actor], [own]), TARGET),
        "actor_of_ideal_clock": figure(in_actor.per_s() / own.per_s() if in_actor and own else None),
        "processor_of_ideal_clock": figure(by_processor.per_s() / own.per_s() if by_processor and own else None),
        "prefix_shared": figure(shared, 0.4),
        "gpu_tokens_per_s": figure(best if gpu else None),
    }


def where(took: Sequence[Took]) -> None:
    """Prints what the time of `Engine.answer` went to, medians of shares."""
    whole = [one.wall_s for one in took]
    generate = [one.parts["in generate"] for one in took]
    step = [one.parts["in the engine's steps"] for one in took]
    shares = {
        "engine steps: encoder, model, sampling, schema": [s / w for s, w in zip(step, whole, strict=True)],
        "vLLM's preparation of pictures and prompts": [(g - s) / w for g, s, w in zip(generate, step, whole, strict=True)],
        "ours: choosing, hashing, prompts, parsing": [(w - g) / w for g, w in zip(generate, whole, strict=True)],
    }
    for name, values in shares.items():
        print(f"  {statistics.median(values):6.1%}  {name}")


def with_ray(config: VlmConfig, overrides: dict[str, Any], load: Load, batch: int, gpu: bool, template: str) -> tuple[tuple[Took, Took], Took]:
    """((the ideal in our actor, our actor), Ray Data's processor), each on a local Ray."""
    import ray

    root = str(Path(__file__).resolve().parent.parent)
    variables = {"PYTHONPATH": f"{root}:{root}/benchmarks", "OMP_NUM_THREADS": "1", "VLLM_PLUGINS": "", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    if not gpu:
        variables |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "TORCHDYNAMO_DISABLE": "1"}
    with tempfile.TemporaryDirectory(prefix="pan", dir="/tmp") as folder:
        quiet = {"include_dashboard": False, "log_to_driver": False, "_temp_dir": folder}
        ray.init(address="local", num_cpus=4, object_store_memory=1 << 30, runtime_env={"env_vars": variables}, **quiet)
        try:
            ray.data.DataContext.get_current().enable_progress_bars = False
            gpus = 1.0 if gpu else 0.0
            return actor(config, overrides, load, 100, batch, gpus), processor(config, overrides, load, 101, batch, gpus, template)
        finally:
            ray.shutdown()


def _template(engine: Engine) -> str:
    """The whole prompt as text, with %s in the question's place, for the processor that wants text."""
    mark = "QUESTION"
    turns = [{"role": "system", "content": PROMPTS[0].system}, {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": mark}]}]
    runner = engine.runner
    assert isinstance(runner, Runner)
    text: str = runner._tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    return text.replace("%", "%%").replace(mark, "%s")


if __name__ == "__main__":
    main()
