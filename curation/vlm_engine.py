"""Engine: a Vlm inside this process, vLLM's engine; built once a process and configuration, and built again when it dies."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from curation.vlm import Answer, Prompt, Question, VlmConfig, correction, frames_sha256, parsed, shown
from curation.vlm_runner import Reply, Request, Runner, Shown, check

_ENGINES: dict[VlmConfig, "Engine"] = {}
_LOCK = threading.Lock()


class Runs(Protocol):
    """What an engine needs of `curation.vlm_runner.Runner`."""

    deaths: tuple[type[Exception], ...]

    def run(self, requests: Sequence[Request]) -> list[Reply]:
        """One reply a request, in order."""
        ...

    def tokens(self, turns: Sequence[dict[str, Any]]) -> list[int]:
        """Token ids of a conversation that the model is to go on with."""
        ...

    def encode(self, text: str) -> list[int]:
        """Token ids of a text alone."""
        ...

    def close(self) -> None:
        """Lets go of what is held."""
        ...


class Engine:
    """A Vlm in this process: greedy, one seed, prefix cache on.

    A question's prompt is the system text, the whole video, then what is asked, so that all questions about a clip with one system text share the encoded
    video and its place in the cache. A choice's log-probability is the sum over its tokens of each one's natural log-probability in the model's own
    distribution (nothing masked, nothing renormalised), without the token that ends an answer; no choice may begin with another's tokens.

    An engine that dies is built again at most `restarts` times in its life. The questions of that round are then asked one by one, so that a clip which kills
    engines is known by its name. When the restarts are spent the exception goes on, with the clips' ids in a note: with Ray Data's `max_errored_blocks = 0` it
    stops the job, no row of the block has been committed, and the next run takes the block up again. A process that is killed from outside is Ray's to start
    again, with its block. Either way no clip is lost.

    Args:
        config: of backend "vllm".
        build: gives the thing that runs requests; tests replace it.
    """

    def __init__(self, config: VlmConfig, build: Callable[[VlmConfig], Runs] = Runner) -> None:
        self._config, self._build = config, build
        self._runner = self._build(config)
        self._restarts = 0
        self._choices: dict[tuple[str, ...], tuple[tuple[int, ...], ...]] = {}
        self._guard = threading.Lock()

    @property
    def restarts(self) -> int:
        """How often the engine has been built again."""
        return self._restarts

    @property
    def runner(self) -> Runs:
        """What runs the requests now."""
        return self._runner

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """One answer a question, in order; all that can be asked together are one batch.

        Raises:
            ValueError: choices of which one begins with another's tokens, or a schema that cannot be compiled.
            Exception: the engine's own, after all restarts.
        """
        with self._guard:
            pictures = self._pictures(questions)
            asked = [_Asked(self, question, pictures[id(question.frames)]) for question in questions]
            while open_ones := [one for one in asked if one.open]:
                requests = [one.requests() for one in open_ones]
                replies = iter(self._ask([request for group in requests for request in group]))
                for one, group in zip(open_ones, requests, strict=True):
                    one.take([next(replies) for _ in group])
            return [one.answer for one in asked]

    def _pictures(self, questions: Sequence[Question]) -> dict[int, Shown]:
        """What is shown of each Frames object."""
        found: dict[int, Shown] = {}
        for frames in {id(q.frames): q.frames for q in questions}.values():
            pictures, times = shown(frames, self._config.max_pictures)
            fps = (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else frames.fps
            found[id(frames)] = Shown(pictures, fps, frames_sha256(pictures, times))
        return found

    def _ask(self, requests: Sequence[Request]) -> list[Reply]:
        """One reply a request; outlives as many deaths of the engine as are allowed."""
        try:
            return self._runner.run(requests)
        except self._runner.deaths as error:
            self._rebuild(error, requests)
        return [self._ask_alone(request) for request in requests]

    def _ask_alone(self, request: Request) -> Reply:
        while True:
            try:
                return self._runner.run([request])[0]
            except self._runner.deaths as error:
                self._rebuild(error, [request])

    def _rebuild(self, error: Exception, requests: Sequence[Request]) -> None:
        """A new engine in a dead one's place; raises `error` where the restarts are spent."""
        clips = ", ".join(dict.fromkeys(request.clip_id for request in requests))
        error.add_note(f"asked about clips: {clips[:2000]}; engine built again {self._restarts} times of {self._config.restarts}")
        if self._restarts >= self._config.restarts:
            raise error
        self._restarts += 1
        self._runner.close()
        self._runner = self._build(self._config)

    def tokens(self, prompt: Prompt, said: Sequence[tuple[str, str]]) -> list[int]:
        """Token ids of system, video, question and the turns (answer, fault) since; one placeholder stands for the video."""
        content = [{"type": "video"}, {"type": "text", "text": prompt.text}]
        turns: list[dict[str, Any]] = [{"role": "system", "content": prompt.system}, {"role": "user", "content": content}]
        for text, fault in said:
            turns += [{"role": "assistant", "content": _plain(text)}, {"role": "user", "content": correction(_plain(fault))}]
        return self._runner.tokens(turns)

    def choice_tokens(self, choices: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
        """Each choice's token ids; see the class for what they must be."""
        if choices not in self._choices:
            coded = tuple(tuple(self._runner.encode(choice)) for choice in choices)
            for a, b in ((a, b) for a in coded for b in coded if a is not b):
                if b[: len(a)] == a:
                    raise ValueError(f"choices {choices}: one begins with another's tokens, so their probabilities overlap; word them differently")
            self._choices[choices] = coded
        return self._choices[choices]

    @property
    def config(self) -> VlmConfig:
        """What was asked for."""
        return self._config


class _Asked:
    """One question on its way: its turns so far and the answer that comes of it."""

    def __init__(self, engine: Engine, question: Question, pictures: Shown) -> None:
        config = engine.config
        self._engine, self._question, self._shown, self._said = engine, question, pictures, list[tuple[str, str]]()
        self.open = True
        self.answer = Answer(
            clip_id=question.clip_id,
            prompt_sha256=question.prompt.sha256,
            prompt_version=question.prompt.version,
            frames_sha256=pictures.sha256,
            model=config.model,
            revision=config.revision,
            tries=0,
        )

    def requests(self) -> list[Request]:
        """What is to be asked in this round: one prompt, or one for each beginning that two choices may have in common."""
        question, tokens = self._question, self._engine.tokens(self._question.prompt, self._said)
        if question.choices is None:
            return [Request(question.clip_id, tokens, self._shown, question.max_tokens, question.schema)]
        beginnings = _beginnings(self._engine.choice_tokens(question.choices))
        return [Request(question.clip_id, [*tokens, *begun], self._shown, listed=follow) for begun, follow in beginnings.items()]

    def take(self, replies: Sequence[Reply]) -> None:
        """Books the replies to `requests`; closes the question, or leaves it open for a correction."""
        before = self.answer
        prompt, output = (sum(getattr(reply, name) for reply in replies) for name in ("prompt_tokens", "output_tokens"))
        self.answer = replace(before, prompt_tokens=before.prompt_tokens + prompt, output_tokens=before.output_tokens + output, tries=before.tries + 1)
        if refused := next((reply.refused for reply in replies if reply.refused), ""):
            self._close(reason="vlm_refused", detail=refused[:500])
        elif self._question.choices is not None:
            self._choose(self._question.choices, replies)
        else:
            self._read(replies[0])

    def _choose(self, choices: tuple[str, ...], replies: Sequence[Reply]) -> None:
        coded = self._engine.choice_tokens(choices)
        by_beginning = dict(zip(_beginnings(coded), replies, strict=True))
        logprobs = tuple(sum(by_beginning[code[:i]].logprobs[token] for i, token in enumerate(code)) for code in coded)
        self._close(text=choices[int(np.argmax(logprobs))], logprobs=logprobs)

    def _read(self, reply: Reply) -> None:
        if reply.finish != "stop":
            self._close(text=reply.text, reason="vlm_truncated", detail=f"finish_reason {reply.finish} after {reply.output_tokens} tokens")
            return
        value, fault = parsed(reply.text, self._question)
        if fault is None:
            self._close(text=reply.text, value=value)
        elif len(self._said) < self._engine.config.repairs:
            self._said.append((reply.text, fault))
        else:
            self._close(text=reply.text, reason="vlm_invalid", detail=f"{fault} (after {len(self._said)} repairs)"[:500])

    def _close(self, **found: Any) -> None:
        self.answer, self.open = replace(self.answer, **found), False


def _plain(text: str) -> str:
    """An answer's text without what a tokenizer takes for a mark of its own, such as the end of a turn or a video's place: `<|` is broken up."""
    return text.replace("<|", "< |")


def _beginnings(coded: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], tuple[int, ...]]:
    """Every proper beginning of a choice, with the tokens that may follow it: for choices of one token, () alone."""
    found: dict[tuple[int, ...], dict[int, None]] = {}
    for code in coded:
        for i, token in enumerate(code):
            found.setdefault(code[:i], {})[token] = None
    return {begun: tuple(follow) for begun, follow in found.items()}


def open_back_end(config: VlmConfig) -> Engine:
    """The engine of this process for `config`.

    Raises:
        ValueError: see `check`.
    """
    with _LOCK:
        if config not in _ENGINES:
            check(config)
            _ENGINES[config] = Engine(config)
        return _ENGINES[config]
