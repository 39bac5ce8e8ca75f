"""The same questions about clips through vLLM in four ways: bare, through our engine, in our Ray actor, and through Ray Data's own processor."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from curation.frames import SIGNALS, Frames
from curation.vlm import Prompt, Question, VlmConfig, frames_sha256, shown
from curation.vlm_engine import Engine
from curation.vlm_runner import Request, Runner, Shown

SYSTEM = "You look at clips of film and say what you see."
PROMPTS = (
    Prompt(name="judge", version="judge/1", system=SYSTEM, text="What kind of film is it?"),
    Prompt(name="tell", version="tell/1", system=SYSTEM, text="What happens in each part of the clip?"),
)
ACTIONS = ["a hand lifts a cup", "a person opens a door", "nothing moves"]
#: Eight chunks of a caption, so that answers of random weights have a caption's length and end by themselves.
SCHEMA = {"type": "array", "items": {"enum": ACTIONS}, "minItems": 8, "maxItems": 8}
MOST = 400


@dataclass(frozen=True)
class Load:
    """How many clips, and what each is like."""

    clips: int = 24
    pictures: int = 16
    height: int = 112
    width: int = 168


@dataclass
class Took:
    """One arm's run: seconds on the clock and of this process' (or the actor's) processor, tokens written, and seconds of parts by name.

    `busy` is the share of the clock's seconds in which there was work to do; less than 1 where an actor waits for rows.
    """

    wall_s: float = 0.0
    cpu_s: float = 0.0
    busy: float = 1.0
    tokens: int = 0
    answers: int = 0
    parts: dict[str, float] = field(default_factory=dict)

    def per_s(self) -> float:
        """Tokens a second on the clock."""
        return self.tokens / self.wall_s

    def per_cpu_s(self) -> float:
        """Tokens a second of the processor's, times `busy`: what it would be on the clock if nothing else ran on the machine."""
        return self.tokens / self.cpu_s * self.busy


def clips(load: Load, seed: int) -> list[tuple[str, Frames]]:
    """Noise that no other seed has: neither vLLM's prefix cache nor its cache of processed pictures can help from one run to the next."""
    n, found = load.pictures, []
    for i in range(load.clips):
        rgb = np.random.default_rng([seed, i]).integers(0, 256, (n, load.height, load.width, 3), dtype=np.uint8)
        signals = {name: np.zeros(n, np.float32) for name in SIGNALS}
        found.append((f"{seed}-{i}", Frames(rgb, rgb[..., 0].copy(), np.arange(n) / 4, np.full(n, 1 / 15, np.float32), 4.0, signals)))
    return found


def questions(found: Sequence[tuple[str, Frames]]) -> list[Question]:
    """Two a clip, one behind the other, as judge and captioner in one actor ask them."""
    return [Question(clip_id, frames, prompt, schema=SCHEMA, max_tokens=MOST) for clip_id, frames in found for prompt in PROMPTS]


@contextmanager
def clock(took: Took) -> Iterator[None]:
    """Adds what passes inside to `took`."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    took.wall_s += time.perf_counter() - wall
    took.cpu_s += time.process_time() - cpu


def bare(engine: Engine, load: Load, seed: int) -> Took:
    """The ideal: all prompts made beforehand and given to `LLM.generate` at once."""
    runner, asked, took = _runner(engine), questions(clips(load, seed)), Took()
    seen: dict[str, Shown] = {}
    for question in asked:
        pictures, times = shown(question.frames, engine.config.max_pictures)
        seen[question.clip_id] = Shown(pictures, (len(times) - 1) / times[-1], frames_sha256(pictures, times))
    requests = [Request(q.clip_id, engine.tokens(q.prompt, ()), seen[q.clip_id], MOST, SCHEMA) for q in asked]
    with clock(took), steps(runner, took.parts):
        replies = runner.run(requests)
    took.tokens, took.answers = sum(reply.output_tokens for reply in replies), len(replies)
    return took


def ours(engine: Engine, load: Load, seed: int) -> Took:
    """The same through `Engine.answer`: pictures chosen and hashed, prompts written, answers parsed and checked."""
    asked, took = questions(clips(load, seed)), Took()
    with clock(took), steps(_runner(engine), took.parts):
        answers = engine.answer(asked)
    if faults := [answer.detail for answer in answers if answer.reason]:
        raise RuntimeError(f"{len(faults)} of {len(answers)} answers are none, such as: {faults[0]}")
    took.tokens, took.answers = sum(answer.output_tokens for answer in answers), len(answers)
    return took


def _runner(engine: Engine) -> Runner:
    runner = engine.runner
    assert isinstance(runner, Runner)
    return runner


@contextmanager
def steps(runner: Runner, parts: dict[str, float]) -> Iterator[None]:
    """Books how long `LLM.generate` ran, and the engine's steps within; what is left of it is vLLM's own preparation of pictures and prompts."""
    llm = runner._llm
    core, names = llm.llm_engine, (("in generate", llm, "generate"), ("in the engine's steps", llm.llm_engine, "step"))

    def timed(name: str, function: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                parts[name] = parts.get(name, 0.0) + time.perf_counter() - began

        return call

    for name, owner, attribute in names:
        setattr(owner, attribute, timed(name, getattr(owner, attribute)))
    try:
        yield
    finally:
        del llm.generate, core.step


def rows(load: Load, seed: int) -> pa.Table:
    """A table as the stream's stages get it: one row a clip, its frames as one blob."""
    found = clips(load, seed)
    blobs = pa.array([frames.to_bytes() for _, frames in found], pa.large_binary())
    return pa.table({"clip_id": [clip_id for clip_id, _ in found], "frames": blobs})


class Actor:
    """Our stage's way: an actor that holds the engine, asked a batch of rows at a time."""

    def __init__(self, config: VlmConfig, overrides: dict[str, Any], load: Load) -> None:
        self._engine = Engine(config, lambda c: Runner(c, **overrides))
        ours(self._engine, Load(2, load.pictures, load.height, load.width), 0)
        self._ideal = bare(self._engine, load, 99)

    def __call__(self, table: pa.Table) -> pa.Table:
        """One row a batch: when it began and ended, processor seconds, tokens, answers."""
        began, took = time.time(), Took()
        with clock(took):
            found = [(row["clip_id"], Frames.from_bytes(row["frames"])) for row in table.to_pylist()]
            answers = self._engine.answer(questions(found))
        tokens = sum(answer.output_tokens for answer in answers)
        ideal = {"ideal_wall_s": [self._ideal.wall_s], "ideal_cpu_s": [self._ideal.cpu_s], "ideal_tokens": [self._ideal.tokens]}
        return pa.table({"began": [began], "ended": [time.time()], "cpu_s": [took.cpu_s], "tokens": [tokens], "answers": [len(answers)], **ideal})


def actor(config: VlmConfig, overrides: dict[str, Any], load: Load, seed: int, batch: int, gpus: float) -> tuple[Took, Took]:
    """(the ideal in that actor, the actor's throughput from its first batch to its last, waits for rows included)."""
    import ray

    data = ray.data.from_arrow([rows(load, seed).slice(i, batch) for i in range(0, load.clips, batch)])
    strategy = ray.data.ActorPoolStrategy(size=1)
    arguments = {"batch_format": "pyarrow", "batch_size": batch, "num_cpus": 1, "num_gpus": gpus or None, "compute": strategy}
    done = data.map_batches(Actor, fn_constructor_args=(config, overrides, load), **arguments).to_pandas()
    wall = float(done["ended"].max() - done["began"].min())
    busy = float((done["ended"] - done["began"]).sum()) / wall
    first = done.iloc[0]
    ideal = Took(float(first["ideal_wall_s"]), float(first["ideal_cpu_s"]), tokens=int(first["ideal_tokens"]), answers=load.clips * len(PROMPTS))
    return ideal, Took(wall, float(done["cpu_s"].sum()), busy, int(done["tokens"].sum()), int(done["answers"].sum()))


def processor(config: VlmConfig, overrides: dict[str, Any], load: Load, seed: int, batch: int, gpus: float, template: str) -> Took:
    """Ray Data's `build_processor` on the same rows, one row a question; the engine has processes of its own there."""
    import ray
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    from curation.vlm_runner import _arguments

    arguments = {**_arguments(config, on_cpu=not gpus), **overrides}
    for ours_alone in ("model", "disable_log_stats"):
        arguments.pop(ours_alone)
    settings = vLLMEngineProcessorConfig(
        model_source=config.model,
        engine_kwargs={**arguments, "distributed_executor_backend": "mp" if gpus else "uni"},
        batch_size=batch * len(PROMPTS),
        concurrency=1,
        chat_template_stage=False,
        tokenize_stage=False,
        detokenize_stage=False,
        placement_group_config={"bundles": [{"GPU": 1, "CPU": 1} if gpus else {"CPU": 1}]},
        log_engine_metrics=False,
    )
    data = ray.data.from_arrow([rows(load, seed).slice(i, batch) for i in range(0, load.clips, batch)]).flat_map(_prompts(template))
    made = build_processor(settings, preprocess=lambda row: row, postprocess=_stamped)
    done = made(data).to_pandas()
    began = (done["ended"] - done["llm_s"]).min()
    return Took(float(done["ended"].max() - began), tokens=int(done["tokens"].sum()), answers=len(done))


def _prompts(template: str) -> Any:
    """A row's prompts as the processor wants them; `template` holds %s in the question's place."""

    def expand(row: dict[str, Any]) -> list[dict[str, Any]]:
        pictures, times = shown(Frames.from_bytes(row["frames"]), 64)
        fps, n = (len(times) - 1) / times[-1], len(times)
        told = {"fps": fps, "total_num_frames": n, "frames_indices": list(range(n)), "duration": n / fps}
        sampling = {"temperature": 0.0, "seed": 0, "max_tokens": MOST, "structured_outputs": {"json": json.dumps(SCHEMA)}}
        video = {"multimodal_data": {"video": pictures}, "mm_processor_kwargs": {"video_metadata": told, "do_sample_frames": False}}
        return [{"prompt": template % prompt.text, **video, "sampling_params": sampling} for prompt in PROMPTS]

    return expand


def _stamped(row: dict[str, Any]) -> dict[str, Any]:
    return {"ended": time.time(), "llm_s": row["time_taken_llm"], "tokens": row["num_generated_tokens"]}
