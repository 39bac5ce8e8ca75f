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
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine_arms import PROMPTS, Load, Took, actor, bare, ours, processor  # noqa: E402

from curation.vlm import VlmConfig  # noqa: E402
from curation.vlm_engine import Engine  # noqa: E402
from curation.vlm_runner import Runner, check  # noqa: E402

#: Of the bare engine's tokens a second.
TARGET = 0.9
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
    parser.add_argument("--clips", type=int, default=24, help="clips a round; each is asked two questions")
    parser.add_argument("--pictures", type=int, default=16, help="pictures a clip")
    parser.add_argument("--rounds", type=int, default=3, help="bare and ours take turns so often")
    parser.add_argument("--batch", type=int, default=8, help="clips a batch in Ray")
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
    return VlmConfig(model=str(build(folder / "tiny")), dtype="float32", max_model_len=4096), {"block_size": 32}


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


def line(name: str, took: Sequence[Took], ideal: float) -> str:
    """A row of the table: medians."""
    per_s = statistics.median(one.per_s() for one in took)
    cpu = statistics.median(1000 * one.cpu_s / one.answers for one in took)
    mean = sum(one.tokens for one in took) / sum(one.answers for one in took)
    return f"{name:<44} {per_s:>10.0f} {per_s / ideal:>9.3f} {cpu:>14.1f} {mean:>12.1f}"


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
    best = statistics.median(one.per_s() for one in ideal)
    print(f"{'way':<44} {'tokens/s':>10} {'of ideal':>9} {'CPU ms/answer':>14} {'tokens/answer':>13}")
    print(line("bare LLM.generate, all at once (ideal)", ideal, best))
    print(line("Engine.answer", through, best))
    in_actor = by_processor = None
    if not given.no_ray:
        in_actor, by_processor = with_ray(config, overrides, load, given.batch, gpu, template)
        print(line(f"Engine.answer in a Ray actor, {given.batch} clips a batch", [in_actor], best))
        print(line("ray.data.llm build_processor", [by_processor], best))
    where(through)
    print(f"prompt tokens found in the prefix cache: {shared:.1%}; with two questions a clip at most a half can be")
    return {
        "engine_of_ideal_cpu": figure(statistics.median(a.cpu_s / a.tokens / (b.cpu_s / b.tokens) for a, b in zip(ideal, through, strict=True)), TARGET),
        "engine_of_ideal": figure(statistics.median(b.per_s() / a.per_s() for a, b in zip(ideal, through, strict=True)), TARGET),
        "actor_of_ideal": figure(in_actor.per_s() / best if in_actor else None, TARGET),
        "processor_of_ideal": figure(by_processor.per_s() / best if by_processor else None),
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


def with_ray(config: VlmConfig, overrides: dict[str, Any], load: Load, batch: int, gpu: bool, template: str) -> tuple[Took, Took]:
    """(our actor, Ray Data's processor), each on a local Ray."""
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
