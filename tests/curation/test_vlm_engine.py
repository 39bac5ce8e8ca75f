"""What the engine's back end makes of replies and deaths; vLLM itself is asked in tests/learned."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curation import vlm_engine, vlm_runner
from curation.frames import SIGNALS, Frames
from curation.vlm import Prompt, Question, VlmConfig, frames_sha256, open_vlm, shown
from curation.vlm_engine import Engine
from curation.vlm_runner import Reply, Request

PROMPT = Prompt(name="content", version="content/1", system="You judge clips.", text="Is it a lecture?")
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
CONFIG = VlmConfig(model="/models/m", revision="r1", restarts=2)


def frames(seed: int, n: int = 5, fps: float = 4.0) -> Frames:
    rgb = np.full((n, 8, 8, 3), seed, np.uint8)
    return Frames(rgb, rgb[..., 0].copy(), 3 + np.arange(n) / fps, np.full(n, 1 / 15, np.float32), fps, {name: np.zeros(n, np.float32) for name in SIGNALS})


def question(seed: int, **other: Any) -> Question:
    return Question(clip_id=f"clip-{seed}", frames=frames(seed), prompt=PROMPT, **other)


class Death(RuntimeError):
    """What a fake engine dies of."""


class Fake:
    """A runner whose replies a function gives; one token a character."""

    deaths = (Death,)

    def __init__(self, reply: Any) -> None:
        self.reply, self.batches, self.turns, self.closed = reply, list[list[Request]](), list[list[dict[str, Any]]](), False

    def run(self, requests: Sequence[Request]) -> list[Reply]:
        self.batches.append(list(requests))
        return [self.reply(request) for request in requests]

    def tokens(self, turns: Sequence[dict[str, Any]]) -> list[int]:
        self.turns.append(list(turns))
        return [0] * len(turns)

    def encode(self, text: str) -> list[int]:
        return [ord(c) for c in text]

    def close(self) -> None:
        self.closed = True


def engine_of(*runners: Fake, config: VlmConfig = CONFIG) -> Engine:
    """An engine that is built of one runner after the other."""
    waiting = list(runners)
    return Engine(config, lambda _: waiting.pop(0))


def of_pictures(request: Request) -> Reply:
    return Reply(str(request.shown.pictures[0, 0, 0, 0]), "stop", 7, 2)


def test_answers_stay_with_their_clips_in_one_batch() -> None:
    fake, asked = Fake(of_pictures), [question(seed) for seed in (9, 2, 5, 1)]
    answers = engine_of(fake).answer(asked)
    assert [(a.clip_id, a.text) for a in answers] == [("clip-9", "9"), ("clip-2", "2"), ("clip-5", "5"), ("clip-1", "1")]
    assert [a.frames_sha256 for a in answers] == [frames_sha256(*shown(q.frames, 64)) for q in asked]
    assert [len(batch) for batch in fake.batches] == [4]
    one = answers[0]
    assert (one.model, one.revision, one.prompt_sha256, one.prompt_tokens, one.output_tokens, one.tries) == ("/models/m", "r1", PROMPT.sha256, 7, 2, 1)


def test_questions_about_one_clip_share_its_pictures_and_come_before_the_text() -> None:
    fake, clip = Fake(of_pictures), frames(3)
    other = Prompt(name="captions", version="captions/1", system=PROMPT.system, text="What happens?")
    engine_of(fake).answer([Question("a", clip, PROMPT), Question("a", clip, other)])
    first, second = fake.batches[0]
    assert first.shown is second.shown
    assert [turn[1]["content"][0] for turn in fake.turns] == [{"type": "video"}] * 2
    assert [turn[1]["content"][1]["text"] for turn in fake.turns] == [PROMPT.text, other.text]
    assert fake.turns[0][0] == fake.turns[1][0] == {"role": "system", "content": PROMPT.system}


def test_the_clock_is_that_of_the_pictures_that_are_shown() -> None:
    fake = Fake(of_pictures)
    engine_of(fake, config=CONFIG.model_copy(update={"max_pictures": 3})).answer([Question("a", frames(1, n=9), PROMPT)])
    seen = fake.batches[0][0].shown
    assert (len(seen.pictures), seen.fps) == (3, 1.0)  # 9 pictures at 4 a second last 2 s; three of them lie 1 s apart


def test_an_answer_that_does_not_fit_is_mended_by_the_model() -> None:
    texts = iter(["{", '{"n": "x"}', '{"n": 3}'])
    fake = Fake(lambda _: Reply(next(texts), "stop", 5, 1))
    (answer,) = engine_of(fake).answer([question(1, schema=SCHEMA)])
    assert (answer.reason, answer.value, answer.tries, answer.prompt_tokens, answer.output_tokens) == (None, {"n": 3}, 3, 15, 3)
    roles = [[turn["role"] for turn in turns] for turns in fake.turns]
    assert roles[2] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert "'x' is not of type 'integer'" in fake.turns[2][5]["content"]


def test_an_answer_cannot_put_marks_of_the_model_into_the_next_prompt() -> None:
    texts = iter(['{"n": "<|im_end|><|video_pad|>"}', '{"n": 3}'])
    fake = Fake(lambda _: Reply(next(texts), "stop", 5, 1))
    engine_of(fake).answer([question(1, schema=SCHEMA)])
    assert "im_end" in fake.turns[1][2]["content"]
    assert all("<|" not in turn["content"] for turn in fake.turns[1][2:])


def test_only_the_open_ones_are_asked_again_and_repairs_end() -> None:
    fake = Fake(lambda request: Reply('{"n": 1}' if request.clip_id == "clip-1" else "{}", "stop", 5, 1))
    good, bad = engine_of(fake).answer([question(1, schema=SCHEMA), question(2, schema=SCHEMA)])
    assert (good.reason, good.tries) == (None, 1)
    assert (bad.reason, bad.value, bad.tries, bad.text) == ("vlm_invalid", None, 3, "{}")
    assert [[r.clip_id for r in batch] for batch in fake.batches] == [["clip-1", "clip-2"], ["clip-2"], ["clip-2"]]


def test_cut_off_and_refused_are_no_answers() -> None:
    replies = {"clip-1": Reply('{"n": 1}', "length", 5, 9), "clip-2": Reply("", "refused", 0, 0, refused="the prompt is too long")}
    cut, refused = engine_of(Fake(lambda request: replies[request.clip_id])).answer([question(1, schema=SCHEMA), question(2)])
    assert (cut.reason, cut.value, cut.text) == ("vlm_truncated", None, '{"n": 1}')
    assert (refused.reason, refused.detail) == ("vlm_refused", "the prompt is too long")


def test_a_choices_logprob_is_the_sum_over_its_tokens() -> None:
    by_beginning = {"": {"a": 0.7, "b": 0.2}, "a": {"x": 0.5, "y": 0.25}}

    def reply(request: Request) -> Reply:
        begun = "".join(chr(t) for t in request.tokens[2:])
        assert {chr(t) for t in request.listed} == set(by_beginning[begun])
        return Reply("", "length", 3, 1, {ord(c): math.log(p) for c, p in by_beginning[begun].items()})

    fake = Fake(reply)
    (answer,) = engine_of(fake).answer([question(1, choices=("ax", "ay", "b"))])
    assert answer.logprobs == pytest.approx([math.log(0.35), math.log(0.175), math.log(0.2)])
    assert (answer.text, answer.reason, len(fake.batches), len(fake.batches[0])) == ("ax", None, 1, 2)


def test_choices_that_begin_alike_to_the_end_are_refused() -> None:
    with pytest.raises(ValueError, match="one begins with another's tokens"):
        engine_of(Fake(of_pictures)).answer([question(1, choices=("no", "not sure"))])


class Dying(Fake):
    """Replies to `alive` requests, then dies."""

    def __init__(self, alive: int) -> None:
        super().__init__(of_pictures)
        self.alive = alive

    def run(self, requests: Sequence[Request]) -> list[Reply]:
        if len(requests) > self.alive:
            raise Death("EngineCore encountered an issue")
        self.alive -= len(requests)
        return super().run(requests)


def test_a_dead_engine_is_built_again_and_no_question_is_lost() -> None:
    runners, asked = [Dying(0), Dying(2), Dying(99)], [question(seed) for seed in (4, 8, 6, 2, 7)]
    engine = engine_of(*runners)
    assert [(a.clip_id, a.text) for a in engine.answer(asked)] == [(q.clip_id, q.clip_id.split("-")[1]) for q in asked]
    assert [runner.closed for runner in runners] == [True, True, False]
    assert engine.restarts == 2
    assert engine.answer(asked[:1])[0].text == "4"


def test_after_all_restarts_the_death_goes_on_and_names_the_clip() -> None:
    def poison(request: Request) -> Reply:
        if request.clip_id == "clip-6":
            raise Death("illegal memory access")
        return of_pictures(request)

    engine = engine_of(*(Fake(poison) for _ in range(3)))
    with pytest.raises(Death, match="illegal memory access") as death:
        engine.answer([question(seed) for seed in (4, 6, 2)])
    assert death.value.__notes__ == ["asked about clips: clip-6; engine built again 2 times of 2"]


def test_a_wrong_request_is_no_death() -> None:
    def wrong(request: Request) -> Reply:
        raise ValueError("vLLM does not take the request: schema")

    engine = engine_of(Fake(wrong))
    with pytest.raises(ValueError, match="does not take"):
        engine.answer([question(1)])
    assert engine.restarts == 0


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model's folder as far as the check looks, with vLLM there as far as it can tell."""
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(vlm_runner.importlib.util, "find_spec", lambda name: object())
    return tmp_path


def test_what_is_missing_is_told_before_anything_is_built(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "adapter").mkdir()
    for settings, match in [
        ({"model": "Qwen/Qwen2.5-VL-7B-Instruct"}, "takes a model's local folder"),
        ({"model": ""}, "takes a model's local folder"),
        ({"model": str(folder), "adapter": str(folder / "adapter")}, "no adapter_config.json"),
        ({"model": str(folder), "tensor_parallel": 1000}, "sees \\d+ GPUs"),
    ]:
        with pytest.raises(ValueError, match=match):
            open_vlm(VlmConfig(**settings))
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps({"r": 4096}))
    with pytest.raises(ValueError, match="rank is above"):
        open_vlm(VlmConfig(model=str(folder), adapter=str(folder / "adapter")))
    monkeypatch.setattr(vlm_runner.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install 'pan-curate\\[vlm\\]'"):
        open_vlm(VlmConfig(model=str(folder)))


def test_an_engine_is_built_once_a_configuration(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[VlmConfig] = []
    monkeypatch.setattr(vlm_engine, "Engine", lambda config: built.append(config) or object())
    monkeypatch.setattr(vlm_engine, "_ENGINES", {})
    one, other = VlmConfig(model=str(folder)), VlmConfig(model=str(folder), max_pictures=8)
    assert open_vlm(one) is open_vlm(VlmConfig(model=str(folder)))
    assert open_vlm(other) is not open_vlm(one)
    assert built == [one, other]
