"""vLLM's engine on a tiny Qwen2.5-VL: the same tokens and log-probabilities as transformers gives, answers that fit schemas, a shared prefix, a death."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from curation import vlm_engine, vlm_runner
from curation.frames import SIGNALS, Frames
from curation.vlm import Prompt, Question, VlmConfig, shown
from curation.vlm_engine import Engine
from curation.vlm_positions import positions
from curation.vlm_runner import Runner

pytestmark = pytest.mark.timeout(600)  # the first import of vLLM beside other work takes minutes
SYSTEM = "You look at clips of film and say what you see."
JUDGE = Prompt(name="content", version="content/1", system=SYSTEM, text="Is it a lecture? Answer yes or no.")
TELL = Prompt(name="captions", version="captions/1", system=SYSTEM, text="What moves in the clip?")
SCHEMA = {
    "type": "object",
    "properties": {
        "camera": {"enum": ["still", "moves"]},
        "actors": {"type": "array", "items": {"type": "string", "maxLength": 6}, "maxItems": 2},
        "start_s": {"type": "integer", "minimum": 0, "maximum": 9},
    },
    "required": ["camera", "actors", "start_s"],
    "additionalProperties": False,
}
#: float32 on both sides, other kernels and another order of sums: the log-probabilities differ by some 1e-6; a wrong clock changes them by more than 1e-2.
TOLERANCE = 2e-4


def frames(seed: int, n: int = 8, fps: float = 4.0) -> Frames:
    """Noise that no other seed has."""
    rgb = np.random.default_rng(seed).integers(0, 256, (n, 84, 112, 3), dtype=np.uint8)
    return Frames(rgb, rgb[..., 0].copy(), 3 + np.arange(n) / fps, np.full(n, 1 / 15, np.float32), fps, {name: np.zeros(n, np.float32) for name in SIGNALS})


def question(seed: int, prompt: Prompt = TELL, **other: Any) -> Question:
    return Question(clip_id=f"clip-{seed}", frames=other.pop("frames", None) or frames(seed), prompt=prompt, **{"max_tokens": 10, **other})


@pytest.fixture(scope="module")
def config(tiny: Path) -> VlmConfig:
    return VlmConfig(model=str(tiny), revision="tiny-1", dtype="float32", max_model_len=2048)


@pytest.fixture(scope="module")
def engine(config: VlmConfig) -> Iterator[Engine]:
    made = Engine(config, lambda c: Runner(c, block_size=32))
    yield made
    made.runner.close()


class Reference:
    """The same model in transformers."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

        self.processor = AutoProcessor.from_pretrained(folder)
        self.model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()

    def inputs(self, question: Question, end: str = "", fps: float | None = None) -> Any:
        pictures, times = shown(question.frames, 64)
        content = [{"type": "video"}, {"type": "text", "text": question.prompt.text}]
        turns = [{"role": "system", "content": question.prompt.system}, {"role": "user", "content": content}]
        text = self.processor.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) + end
        rate = fps or (len(times) - 1) / (times[-1] - times[0])
        clock = {"fps": rate, "total_num_frames": len(times), "frames_indices": list(range(len(times))), "duration": len(times) / rate}
        video = torch.from_numpy(pictures).permute(0, 3, 1, 2)
        return self.processor(text=[text], videos=[video], video_metadata=[clock], do_sample_frames=False, return_tensors="pt")

    @torch.no_grad()
    def logits(self, inputs: Any) -> torch.Tensor:
        """float32 [tokens, vocabulary], with positions as the engine has them (see curation.vlm_positions for why transformers' own are not those)."""
        config, tokens = self.model.config, inputs["input_ids"][0].tolist()
        t, h, w = inputs["video_grid_thw"][0].tolist()
        found = positions(tokens, config.video_token_id, (t, h // 2, w // 2), float(inputs["second_per_grid_ts"][0]), config.vision_config.tokens_per_second)
        return self.model(**inputs, position_ids=torch.from_numpy(found)[:, None]).logits[0].float()

    def text(self, question: Question) -> tuple[str, bool, int]:
        """(greedy answer of at most 10 tokens, whether it came to its end, tokens of the prompt)."""
        inputs, said = self.inputs(question), list[int]()
        prompt = inputs["input_ids"].shape[1]
        while len(said) < 10 and not set(said) & set(self.model.generation_config.eos_token_id):
            said.append(int(self.logits(inputs)[-1].argmax()))
            more = torch.tensor([[said[-1]]])
            inputs = {**inputs, "input_ids": torch.cat([inputs["input_ids"], more], 1)}
            for name, value in (("attention_mask", 1), ("mm_token_type_ids", 0)):
                inputs[name] = torch.cat([inputs[name], torch.full_like(more, value)], 1)
        ended = said[-1] in self.model.generation_config.eos_token_id
        return self.processor.tokenizer.decode(said, skip_special_tokens=True), ended, prompt

    def logprob(self, question: Question, said: str, fps: float | None = None) -> float:
        """The sum of the log-softmax of an answer's tokens."""
        tokens = self.processor.tokenizer.encode(said, add_special_tokens=False)
        inputs = self.inputs(question, said, fps)
        assert inputs["input_ids"][0, -len(tokens) :].tolist() == tokens
        logs = torch.log_softmax(self.logits(inputs), -1)
        return float(sum(logs[-len(tokens) - 1 + i, token] for i, token in enumerate(tokens)))


@pytest.fixture(scope="module")
def reference(tiny: Path) -> Reference:
    return Reference(tiny)


def test_greedy_answers_are_those_of_transformers(engine: Engine, reference: Reference) -> None:
    asked = [question(1), question(2, frames=frames(2, n=7, fps=2.0)), question(3, JUDGE)]  # an odd number of pictures, and another rate
    answers = engine.answer(asked)
    assert [(a.text, a.reason is None, a.prompt_tokens) for a in answers] == [reference.text(q) for q in asked]
    assert {a.reason for a in answers} == {None, "vlm_truncated"}
    assert len({a.text for a in answers}) == 3


def test_choices_have_the_logprobs_of_transformers(engine: Engine, reference: Reference) -> None:
    for asked in (question(1, JUDGE, choices=("yes", "no")), question(4, JUDGE, choices=("a hand", "a camera moves", "text"))):
        (answer,) = engine.answer([asked])
        expected = [reference.logprob(asked, choice) for choice in asked.choices or ()]
        assert answer.logprobs == pytest.approx(expected, abs=TOLERANCE)
        assert answer.text == (asked.choices or ())[int(np.argmax(expected))]
        assert answer.reason is None


@pytest.mark.parametrize("fps", [4.0, 1.0])
def test_the_model_knows_the_times_of_the_pictures(engine: Engine, reference: Reference, fps: float) -> None:
    asked = question(5, JUDGE, frames=frames(5, fps=fps), choices=("yes", "no"))
    (answer,) = engine.answer([asked])
    assert answer.logprobs[0] == pytest.approx(reference.logprob(asked, "yes"), abs=TOLERANCE)
    for wrong in (24.0, fps * 2):  # 24 is what the processor assumes where it is told nothing
        assert abs(answer.logprobs[0] - reference.logprob(asked, "yes", fps=wrong)) > 10 * TOLERANCE


def test_answers_to_a_schema_always_parse(engine: Engine) -> None:
    answers = engine.answer([question(seed, schema=SCHEMA, max_tokens=200) for seed in range(20, 32)])
    assert [a.reason for a in answers] == [None] * 12
    assert all(a.value == json.loads(a.text, strict=False) and a.value["camera"] in ("still", "moves") for a in answers)
    assert len({a.text for a in answers}) > 1


def test_two_questions_about_a_clip_share_its_encoded_video(engine: Engine) -> None:
    clip = frames(50, n=16)
    (first,) = engine.answer([question(50, JUDGE, frames=clip, choices=("yes", "no"))])
    before = engine.runner.cache()
    engine.answer([question(50, TELL, frames=frames(50, n=16))])
    after = engine.runner.cache()
    assert after.asked - before.asked == pytest.approx(first.prompt_tokens, abs=32)
    assert (after.found - before.found) / (after.asked - before.asked) > 0.5
    engine.answer([question(51, TELL, frames=frames(51, n=16))])  # other pictures of the same size
    assert engine.runner.cache().found - after.found <= 32  # the system text at most


def test_answers_stay_with_their_clips_in_any_order(engine: Engine) -> None:
    asked = [question(seed, schema=SCHEMA if seed % 2 else None, max_tokens=12 if seed % 2 == 0 else 200) for seed in range(60, 76)]
    known = {q.clip_id: engine.answer([q])[0].text for q in asked}
    for seed in range(3):
        shuffled = [asked[i] for i in np.random.default_rng(seed).permutation(len(asked))]
        assert [(a.clip_id, a.text) for a in engine.answer(shuffled)] == [(q.clip_id, known[q.clip_id]) for q in shuffled]


@pytest.mark.parametrize("words", [3000, 1700], ids=["text", "text and video"])
def test_a_prompt_that_is_too_long_is_refused_alone(engine: Engine, words: int) -> None:
    long = Prompt(name="content", version="content/1", system=SYSTEM, text=" ".join(["yes"] * words))
    good, refused, also = engine.answer([question(1, JUDGE), question(2, long, frames=frames(2, n=64 if words < 2048 else 2)), question(3, JUDGE)])
    assert refused.reason == "vlm_refused"
    assert "2048" in refused.detail
    assert "vlm_refused" not in (good.reason, also.reason)
    assert good.text


def test_an_engine_that_dies_in_the_middle_is_built_again(config: VlmConfig, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [question(seed, schema=SCHEMA, max_tokens=200) for seed in (3, 1, 2)]
    known = [a.text for a in engine.answer(asked)]
    mortal = Engine(config, lambda c: Runner(c, block_size=32))
    core, steps = mortal.runner._llm.llm_engine, 0
    step = core.step

    def dying() -> Any:
        nonlocal steps
        steps += 1
        if steps == 4:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return step()

    monkeypatch.setattr(core, "step", dying)
    answers = mortal.answer(asked)
    assert (steps, mortal.restarts) == (4, 1)
    assert [(a.clip_id, a.text) for a in answers] == [(q.clip_id, text) for q, text in zip(asked, known, strict=True)]
    mortal.runner.close()


def test_a_schema_that_cannot_be_compiled_stops_the_job(engine: Engine) -> None:
    with pytest.raises(ValueError, match="does not take the request"):
        engine.answer([question(1, schema={"type": "object", "properties": {"n": {"type": "no such type"}}})])
    assert engine.restarts == 0
    assert engine.answer([question(1, JUDGE, choices=("yes", "no"))])[0].reason is None


def test_an_adapter_changes_the_answers(config: VlmConfig, tmp_path: Path, tiny: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen2_5_VLForConditionalGeneration

    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(tiny, dtype=torch.float32)
    torch.manual_seed(0)
    modules = r".*language_model.*\.(q_proj|v_proj|o_proj|up_proj|down_proj)"
    tuned = get_peft_model(model, LoraConfig(r=8, lora_alpha=32, target_modules=modules, init_lora_weights=False)).eval()
    tuned.save_pretrained(tmp_path / "adapter")
    asked = question(1, JUDGE, choices=("yes", "no"))
    reference = Reference(tiny)
    reference.model = tuned
    monkeypatch.setattr(vlm_engine, "_ENGINES", {})
    adapted = vlm_engine.open_back_end(config.model_copy(update={"adapter": str(tmp_path / "adapter")}))
    (answer,), (plain,) = adapted.answer([asked]), engine.answer([asked])
    assert answer.logprobs == pytest.approx([reference.logprob(asked, choice) for choice in ("yes", "no")], abs=TOLERANCE)
    assert abs(answer.logprobs[0] - plain.logprobs[0]) > 100 * TOLERANCE
    adapted.runner.close()


def test_the_environment_is_set_only_where_it_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "DEBUG")
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)
    vlm_runner._prepare_environment()
    assert (os.environ["VLLM_LOGGING_LEVEL"], os.environ["VLLM_PLUGINS"]) == ("DEBUG", "")
