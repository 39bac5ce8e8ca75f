"""Runner: vLLM's engine in this process with the settings that it needs; runs requests and knows nothing of questions."""

import importlib.util
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curation.frames import U8
from curation.vlm import VlmConfig

#: Set before vLLM is imported, where the environment does not say otherwise: no plugins of other packages, no network, no usage reports, no URLs followed.
ENVIRONMENT = {
    "VLLM_PLUGINS": "",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
}
#: Further on a machine without a GPU, where models are small and for tests: one process, one GiB of cache, threads where they are.
CPU_ENVIRONMENT = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
#: Ranks for which vLLM has kernels. Source: vllm 0.29, vllm/config/lora.py.
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
#: What vLLM says of a prompt whose text, or whose text and video, do not fit. Source: vllm 0.29, renderers/params.py and v1/engine/input_processor.py.
TOO_LONG = ("maximum context length is", "longer than the maximum model length")
#: How an engine dies besides vLLM's own errors of an engine: errors of CUDA and torch, out of memory too, and faults inside it. A ValueError or TypeError
#: is a wrong request instead, and asking again would not help.
DEATHS = (RuntimeError, MemoryError, AssertionError, LookupError, OSError)


@dataclass(frozen=True)
class CacheUse:
    """Tokens of prompts that were looked up in the prefix cache, and those that were found."""

    asked: int
    found: int


@dataclass(frozen=True)
class Shown:
    """A clip's pictures as the engine takes them; the questions about one clip share them."""

    pictures: U8
    fps: float
    sha256: str


@dataclass(frozen=True)
class Request:
    """One prompt of one question: token ids with one placeholder for the video, and what is wanted."""

    clip_id: str
    tokens: Sequence[int]
    shown: Shown
    max_tokens: int = 1
    schema: Mapping[str, Any] | None = None
    listed: tuple[int, ...] = ()


@dataclass(frozen=True)
class Reply:
    """What the engine says to one request: the text, "stop" or "length", counts, and the log-probabilities of the listed tokens."""

    text: str
    finish: str
    prompt_tokens: int
    output_tokens: int
    logprobs: Mapping[int, float] = field(default_factory=dict)
    refused: str = ""


class Runner:
    """vLLM's LLM and its tokenizer: runs requests, knows nothing of questions.

    The times of a video: the model takes them from the processor's metadata. vLLM 0.29 hands a video's metadata to Qwen3-VL, but not to
    Qwen2.5-VL, whose processor then silently assumes 24 pictures a second; there it must go as an argument of the processor. Both is tested.

    Attributes:
        deaths: exceptions of `run` after which the engine is of no more use.

    Args:
        config: of backend "vllm".
        **overrides: further arguments of vllm.LLM, such as load_format="dummy" or block_size.
    """

    def __init__(self, config: VlmConfig, **overrides: Any) -> None:
        on_cpu = _prepare_environment()
        from vllm import LLM
        from vllm.exceptions import VLLMServerError

        self.deaths: tuple[type[Exception], ...] = (*DEATHS, VLLMServerError)
        self._on_cpu = on_cpu
        self._llm: Any = LLM(**{**_arguments(config, on_cpu), **overrides})
        self._tokenizer = self._llm.get_tokenizer()
        if not getattr(self._tokenizer, "chat_template", None):
            raise ValueError(f"vlm.model {config.model}: its tokenizer has no chat template; put the model's chat_template.jinja into its folder")
        self._takes_argument = self._llm.model_config.hf_config.model_type == "qwen2_5_vl"
        self._adapter = None
        if config.adapter:
            from vllm.lora.request import LoRARequest

            self._adapter = LoRARequest("adapter", 1, config.adapter)

    def tokens(self, turns: Sequence[Mapping[str, Any]]) -> list[int]:
        """Token ids of a conversation that the model is to go on with."""
        return list(self._tokenizer.apply_chat_template(list(turns), add_generation_prompt=True, tokenize=True, return_dict=True)["input_ids"])

    def encode(self, text: str) -> list[int]:
        """Token ids of a text alone."""
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def run(self, requests: Sequence[Request]) -> list[Reply]:
        """One reply a request, all in one batch; a prompt that is too long is refused alone."""
        from vllm.exceptions import VLLMValidationError

        try:
            return self._generate(requests)
        except VLLMValidationError as fault:
            if not any(words in str(fault) for words in TOO_LONG):
                raise ValueError(f"vLLM does not take the request: {fault}") from fault
            if len(requests) == 1:
                return [Reply("", "refused", 0, 0, refused=str(fault))]
        return [self.run([request])[0] for request in requests]

    def _generate(self, requests: Sequence[Request]) -> list[Reply]:
        prompts, params = [self._prompt(request) for request in requests], [_sampling(request) for request in requests]
        with _eager() if self._on_cpu else nullcontext():
            outputs = self._llm.generate(prompts, params, use_tqdm=False, lora_request=self._adapter)
        return [_reply(output, request) for output, request in zip(outputs, requests, strict=True)]

    def _prompt(self, request: Request) -> dict[str, Any]:
        shown, n = request.shown, len(request.shown.pictures)
        clock = {"fps": shown.fps, "total_num_frames": n, "frames_indices": list(range(n)), "duration": n / shown.fps}
        prompt = {
            "prompt_token_ids": list(request.tokens),
            "multi_modal_data": {"video": [(shown.pictures, {**clock, "do_sample_frames": False})]},
            "multi_modal_uuids": {"video": [shown.sha256]},
        }
        return {**prompt, "mm_processor_kwargs": {"video_metadata": clock, "do_sample_frames": False}} if self._takes_argument else prompt

    def cache(self) -> CacheUse:
        """How the prefix cache has been used since the engine was built."""
        counts = {metric.name: int(getattr(metric, "value", 0)) for metric in self._llm.get_metrics()}
        return CacheUse(counts.get("vllm:prefix_cache_queries", 0), counts.get("vllm:prefix_cache_hits", 0))

    def close(self) -> None:
        """Lets go of what the engine holds, dead or alive."""
        import gc

        from vllm.distributed import cleanup_dist_env_and_memory

        self._llm.llm_engine.engine_core.shutdown()
        del self._llm
        gc.collect()
        cleanup_dist_env_and_memory()


def _sampling(request: Request) -> Any:
    """Greedy; a schema is kept to while the answer is written; of a choice, one token with the listed ones' log-probabilities."""
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    common = {"temperature": 0.0, "seed": 0, "max_tokens": request.max_tokens}
    if request.listed:
        return SamplingParams(**common, logprob_token_ids=list(request.listed), detokenize=False)
    if request.schema is not None:
        return SamplingParams(**common, structured_outputs=StructuredOutputsParams(json=dict(request.schema)))
    return SamplingParams(**common)


def _reply(output: Any, request: Request) -> Reply:
    said = output.outputs[0]
    listed = {token: float(said.logprobs[0][token].logprob) for token in request.listed}
    return Reply(said.text, said.finish_reason or "", len(output.prompt_token_ids), len(said.token_ids), listed)


def _prepare_environment() -> bool:
    """Sets what vLLM reads at its import; returns whether there is no GPU."""
    import torch

    on_cpu = int(torch.cuda.device_count()) == 0
    for name, value in {**ENVIRONMENT, **(CPU_ENVIRONMENT if on_cpu else {})}.items():
        os.environ.setdefault(name, value)
    return on_cpu


def _eager() -> AbstractContextManager[None]:
    """Without a GPU, nothing is compiled: the sampler's log-probabilities alone would call a C++ compiler for many seconds."""
    import torch

    stance: AbstractContextManager[None] = torch.compiler.set_stance("force_eager")
    return stance


def _arguments(config: VlmConfig, on_cpu: bool) -> dict[str, Any]:
    """vllm.LLM's arguments; `disable_any_whitespace` keeps a small model from filling its answer with blanks."""
    many = config.tensor_parallel * config.pipeline_parallel > 1
    arguments: dict[str, Any] = {
        "model": config.model,
        "dtype": config.dtype,
        "max_model_len": config.max_model_len,
        "tensor_parallel_size": config.tensor_parallel,
        "pipeline_parallel_size": config.pipeline_parallel,
        "distributed_executor_backend": "mp" if many else "uni",
        "limit_mm_per_prompt": {"video": 1, "image": 0},
        "enable_prefix_caching": True,
        "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
        "generation_config": "vllm",
        "seed": 0,
        "enforce_eager": on_cpu,
        "disable_log_stats": False,
    }
    if not on_cpu:
        arguments["gpu_memory_utilization"] = config.gpu_memory
    if config.adapter:
        rank = json.loads((Path(config.adapter) / "adapter_config.json").read_text())["r"]
        arguments |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": next(r for r in LORA_RANKS if r >= rank)}
    return arguments


def check(config: VlmConfig) -> None:
    """What can be said before an engine is built.

    Raises:
        ValueError: vLLM is not installed, the model's or adapter's folder is not there, or there are fewer GPUs than asked for.
    """
    if importlib.util.find_spec("vllm") is None:
        raise ValueError(
            "vlm.backend = 'vllm', but vLLM is not installed: pip install 'pan-curate[vlm]' with a GPU, 'pan-curate[vlm-cpu]' without; or use 'openai'"
        )
    if not config.model or not (Path(config.model) / "config.json").is_file():
        raise ValueError(f"vlm.model = {config.model!r}: no folder with a config.json; backend 'vllm' takes a model's local folder and downloads nothing")
    if config.adapter:
        path = Path(config.adapter) / "adapter_config.json"
        if not path.is_file():
            raise ValueError(f"vlm.adapter = {config.adapter!r}: no adapter_config.json there; name the folder that pipelines/train_judge.py wrote")
        if json.loads(path.read_text()).get("r", 0) > LORA_RANKS[-1]:
            raise ValueError(f"vlm.adapter = {config.adapter!r}: its rank is above {LORA_RANKS[-1]}, the largest that vLLM runs")
    import torch

    wanted, there = config.tensor_parallel * config.pipeline_parallel, torch.cuda.device_count()
    if wanted > max(1, there):
        raise ValueError(
            f"vlm.tensor_parallel × vlm.pipeline_parallel = {wanted}, but this process sees {there} GPUs; give the stage's resources num_gpus = {wanted}"
        )
