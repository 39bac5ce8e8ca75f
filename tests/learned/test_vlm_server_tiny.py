"""The OpenAI back end against vLLM's own server with a tiny Qwen2.5-VL."""

import json
import math
from typing import Any

import numpy as np
import pytest

from curation.frames import SIGNALS, Frames
from curation.vlm import Prompt, Question, VlmConfig, open_vlm

SYSTEM = "You look at clips of film and say what you see."
JUDGE = Prompt(name="content", version="content/1", system=SYSTEM, text="Is it a lecture? Answer yes or no.")
TELL = Prompt(name="captions", version="captions/1", system=SYSTEM, text="What moves in the clip?")
pytestmark = pytest.mark.timeout(600)  # a server that comes up beside other work takes minutes
SCHEMA = {
    "type": "object",
    "properties": {"camera": {"enum": ["still", "moves"]}, "text": {"type": "string", "maxLength": 8}},
    "required": ["camera", "text"],
    "additionalProperties": False,
}


def question(seed: int, prompt: Prompt = TELL, **other: Any) -> Question:
    rgb = np.random.default_rng(seed).integers(0, 256, (4, 56, 84, 3), dtype=np.uint8)
    signals = {name: np.zeros(4, np.float32) for name in SIGNALS}
    frames = Frames(rgb, rgb[..., 0].copy(), 3 + np.arange(4) / 4, np.full(4, 1 / 15, np.float32), 4.0, signals)
    return Question(clip_id=f"clip-{seed}", frames=frames, prompt=prompt, **{"max_tokens": 100, **other})


def config(url: str, **other: Any) -> VlmConfig:
    return VlmConfig(backend="openai", model="tiny", url=url, choices_by="vllm", pictures="png", timeout_s=200, concurrency=4, **other)


def test_answers_fit_their_schema_and_stay_with_their_clips(served: str) -> None:
    vlm, asked = open_vlm(config(served)), [question(seed, schema=SCHEMA) for seed in range(6)]
    answers = vlm.answer(asked)
    assert [(a.clip_id, a.reason, a.detail) for a in answers] == [(q.clip_id, None, "") for q in asked]
    assert all(a.value == json.loads(a.text, strict=False) and a.value["camera"] in ("still", "moves") and a.output_tokens > 5 for a in answers)
    assert len({a.text for a in answers}) > 1
    again = vlm.answer(asked[::-1])
    assert [a.text for a in again] == [a.text for a in answers[::-1]]


def test_choices_have_the_models_own_logprobs(served: str) -> None:
    exact, asked = open_vlm(config(served)), [question(seed, JUDGE, choices=("yes", "no")) for seed in (1, 2)]
    one, other = exact.answer(asked)
    assert (one.reason, other.reason) == (None, None)
    assert one.logprobs != other.logprobs
    assert sum(map(math.exp, one.logprobs)) < 1
    assert one.text == ("yes", "no")[int(np.argmax(one.logprobs))]
    # With a vocabulary as small as this the list of the 20 likeliest need not name a choice; where it does, it says the same.
    for listed, answer in zip(open_vlm(config(served).model_copy(update={"choices_by": "top_logprobs"})).answer(asked), (one, other), strict=True):
        assert listed.reason in (None, "vlm_invalid")
        if listed.reason is None:
            assert max(listed.logprobs) >= max(answer.logprobs) - 1e-3


def test_a_prompt_that_is_too_long_is_refused_and_a_cut_answer_is_none(served: str) -> None:
    long = Prompt(name="content", version="content/1", system=SYSTEM, text=" ".join(["yes"] * 5000))
    refused, cut = open_vlm(config(served)).answer([question(1, long), question(2, schema=SCHEMA, max_tokens=3)])
    assert (refused.reason, refused.tries) == ("vlm_refused", 1)
    assert "4096" in refused.detail
    assert (cut.reason, cut.output_tokens) == ("vlm_truncated", 3)


def test_a_model_that_the_server_does_not_have_stops_the_job(served: str) -> None:
    with pytest.raises(ValueError, match=r"check vlm\.url, vlm\.model \('other'\)"):
        open_vlm(config(served).model_copy(update={"model": "other"})).answer([question(1)])
