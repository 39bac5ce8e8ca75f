"""Server: a Vlm behind any server with OpenAI's HTTP interface; pictures travel as data URLs, one conversation a question."""

import asyncio
import base64
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from curation.vlm import Answer, Question, VlmConfig, correction, frames_sha256, parsed, shown
from curation.vlm_http import Client, Unanswered

if TYPE_CHECKING:
    from aiohttp import ClientSession

#: The most that OpenAI's interface lists. Source: platform.openai.com/docs/api-reference/chat/create, top_logprobs.
TOP = 20
JPEG_QUALITY = 92


class _Token(BaseModel):
    token: str
    logprob: float


class _Place(BaseModel):
    top_logprobs: list[_Token] = []


class _Logprobs(BaseModel):
    content: list[_Place] | None = None


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Reply(BaseModel):
    """What is read of a chat completion; the rest of it is ignored."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


class Server:
    """A Vlm that asks a server, many requests at a time.

    Each picture is preceded by its time in the text, so that a model knows when it was, whatever it assumes of pictures. A choice's log-probability is
    that of its first token; two choices must differ there. With `choices_by = "top_logprobs"` letter case and blanks around a token do not count, the
    probabilities of one choice's tokens are added, and a choice that is not listed gets the least listed probability, which it cannot exceed.
    """

    def __init__(self, config: VlmConfig, client: Client) -> None:
        self.config, self.client = config, client
        self._tokens: dict[tuple[str, ...], tuple[int, ...]] = {}

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """One answer a question, in order, `concurrency` requests at a time.

        Raises:
            ValueError: the server knows no such key, model or address (401, 403, 404, a redirect), or choices that begin with the same token.
        """
        return asyncio.run(self._all(questions))

    async def _all(self, questions: Sequence[Question]) -> list[Answer]:
        gate = asyncio.Semaphore(self.config.concurrency)
        async with self.client.session() as session:

            async def one(question: Question) -> Answer:
                async with gate:
                    return await _Asked(self, session, question).answer()

            return await asyncio.gather(*map(one, questions))

    async def tokens(self, session: "ClientSession", choices: tuple[str, ...]) -> tuple[int, ...]:
        """The first token of each choice, as vLLM's server counts them."""
        if choices not in self._tokens:
            root = self.config.url.rstrip("/").removesuffix("/v1")
            bodies = [{"model": self.config.model, "prompt": choice, "add_special_tokens": False} for choice in choices]
            replies = [(await self.client.post(session, f"{root}/tokenize", body))[0] for body in bodies]
            first = tuple(int(reply["tokens"][0]) for reply in replies)
            if len(set(first)) < len(first):
                raise ValueError(f"the choices {choices} do not differ in their first token for {self.config.model}; begin each with another word")
            self._tokens[choices] = first
        return self._tokens[choices]


class _Asked:
    """One question on its way: the conversation so far, and what it cost."""

    def __init__(self, server: Server, session: "ClientSession", question: Question) -> None:
        self._server, self._session, self._question, self._config = server, session, question, server.config
        self._pictures, self._times = shown(question.frames, self._config.max_pictures)
        self._so_far = Answer(
            clip_id=question.clip_id,
            prompt_sha256=question.prompt.sha256,
            prompt_version=question.prompt.version,
            frames_sha256=frames_sha256(self._pictures, self._times),
            model=self._config.model,
            revision=self._config.revision,
            tries=0,
        )

    async def answer(self) -> Answer:
        """The question's answer, after at most `repairs` further tries where it is not valid."""
        try:
            if self._question.choices is not None:
                return await self._chosen(self._question.choices)
            return await self._written()
        except Unanswered as end:
            return replace(self._so_far, reason=end.reason, detail=str(end)[:500])

    async def _written(self) -> Answer:
        """An answer in the model's own words, or one that fits the schema."""
        messages, fault = self._messages(), ""
        for _ in range(self._config.repairs + 1):
            text = _text(await self._complete({"messages": messages, "max_tokens": self._question.max_tokens, **_format(self._question)}))
            value, wrong = parsed(text, self._question)
            self._so_far = replace(self._so_far, text=text, value=value)
            if wrong is None:
                return self._so_far
            fault = wrong
            messages = [*messages, {"role": "assistant", "content": text}, {"role": "user", "content": correction(fault)}]
        raise Unanswered("vlm_invalid", f"{fault} (after {self._config.repairs} repairs)")

    async def _chosen(self, choices: tuple[str, ...]) -> Answer:
        """An answer with the log-probability of each choice; the likeliest is its text."""
        body = {"messages": self._messages(), "max_tokens": 1, "logprobs": True, "top_logprobs": TOP}
        if self._config.choices_by == "top_logprobs":
            logprobs = _of_choices(_listed(await self._complete(body)), choices)
        else:
            tokens = await self._server.tokens(self._session, choices)
            exact = {"top_logprobs": len(tokens), "logprob_token_ids": tokens, "allowed_token_ids": tokens, "return_tokens_as_token_ids": True}
            found = dict(_listed(await self._complete({**body, **exact})))
            names = [f"token_id:{token}" for token in tokens]
            if not found.keys() >= set(names):
                raise Unanswered("vlm_invalid", f"the server lists {sorted(found)}, not {names}: vlm.choices_by = 'vllm' needs vLLM 0.29 or newer")
            logprobs = tuple(found[name] for name in names)
        return replace(self._so_far, text=choices[int(np.argmax(logprobs))], logprobs=logprobs)

    async def _complete(self, body: Mapping[str, Any]) -> _Choice:
        """One chat completion, counted."""
        whole = {"model": self._config.model, "temperature": 0, "seed": 0, **body}
        try:
            reply, tries = await self._server.client.post(self._session, f"{self._config.url.rstrip('/')}/chat/completions", whole)
        except Unanswered as end:
            self._count(None, end.tries)
            raise
        try:
            read = _Reply.model_validate(reply)
        except ValidationError as fault:
            self._count(None, tries)
            raise Unanswered("vlm_invalid", f"not a chat completion: {str(fault.errors(include_url=False))[:300]}") from fault
        self._count(read.usage, tries)
        return read.choices[0]

    def _count(self, usage: _Usage | None, tries: int) -> None:
        used, before = usage or _Usage(), self._so_far
        prompt, output = before.prompt_tokens + used.prompt_tokens, before.output_tokens + used.completion_tokens
        self._so_far = replace(before, prompt_tokens=prompt, output_tokens=output, tries=before.tries + tries)

    def _messages(self) -> list[dict[str, Any]]:
        """System text; then the pictures, each behind its time; then what is asked: two questions about a clip differ only in the end."""
        content: list[dict[str, Any]] = []
        for picture, time_s in zip(self._pictures, self._times, strict=True):
            content.append({"type": "text", "text": f"<{time_s:.2f} s>"})
            content.append({"type": "image_url", "image_url": {"url": data_url(picture, self._config.pictures)}})
        content.append({"type": "text", "text": self._question.prompt.text})
        return [{"role": "system", "content": self._question.prompt.system}, {"role": "user", "content": content}]


def data_url(picture: np.ndarray[Any, np.dtype[np.uint8]], kind: str) -> str:
    """A picture, uint8 [H, W, 3] RGB, inside a URL: `kind` is "jpeg" or "png"."""
    import cv2

    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if kind == "jpeg" else [cv2.IMWRITE_PNG_COMPRESSION, 1]
    _, coded = cv2.imencode(f".{kind}", np.ascontiguousarray(picture[..., ::-1]), options)
    return f"data:image/{kind};base64,{base64.b64encode(coded.tobytes()).decode()}"


def _format(question: Question) -> dict[str, Any]:
    """The request's part that makes the server keep to a schema."""
    if question.schema is None:
        return {}
    return {"response_format": {"type": "json_schema", "json_schema": {"name": question.prompt.name, "schema": dict(question.schema), "strict": True}}}


def _refuse(choice: _Choice) -> None:
    """Raises Unanswered "vlm_refused" where the model or the server's filter would not answer."""
    if choice.message.refusal or choice.finish_reason == "content_filter":
        raise Unanswered("vlm_refused", choice.message.refusal or "finish_reason content_filter")


def _text(choice: _Choice) -> str:
    """The text of a completion that came to its end.

    Raises:
        Unanswered: cut off, refused, or empty.
    """
    _refuse(choice)
    text = choice.message.content
    if choice.finish_reason == "length":
        raise Unanswered("vlm_truncated", f"cut off after {str(text)[-100:]!r}")
    if text is None:
        raise Unanswered("vlm_invalid", f"no text; finish_reason {choice.finish_reason}")
    return text


def _listed(choice: _Choice) -> list[tuple[str, float]]:
    """(token, natural log-probability) of the tokens that might have stood first in the answer."""
    _refuse(choice)
    places = (choice.logprobs.content if choice.logprobs else None) or []
    listed = [(one.token, one.logprob) for place in places[:1] for one in place.top_logprobs if math.isfinite(one.logprob)]
    if not listed:
        raise Unanswered("vlm_invalid", "the server gives no logprobs.content[0].top_logprobs; choose another server or model")
    return listed


def _of_choices(listed: Sequence[tuple[str, float]], choices: tuple[str, ...]) -> tuple[float, ...]:
    """The log-probability of each choice from the listed tokens; see `Server`."""
    found: dict[str, list[float]] = {choice: [] for choice in choices}
    for token, logprob in listed:
        word = token.strip().casefold()
        meant = [choice for choice in choices if word and choice.strip().casefold().startswith(word)]
        if len(meant) == 1:
            found[meant[0]].append(logprob)
    if not any(found.values()):
        raise Unanswered("vlm_invalid", f"none of {choices} begins with one of the {len(listed)} likeliest tokens, {[token for token, _ in listed][:8]}")
    least = min(logprob for _, logprob in listed)
    return tuple(float(np.logaddexp.reduce(found[choice])) if found[choice] else least for choice in choices)


def open_back_end(config: VlmConfig) -> Server:
    """The server that `config` names; nothing is sent yet.

    Raises:
        ValueError: no usable address, no model, an adapter, or the named environment variable is not set.
    """
    where = urlsplit(config.url)
    if where.scheme not in ("http", "https") or not where.hostname:
        raise ValueError(f"vlm.url = {config.url!r}: backend 'openai' needs the server's address, such as http://gpu-7:8000/v1")
    if not config.model:
        raise ValueError("vlm.model is empty: backend 'openai' needs the model's name as the server knows it")
    if config.adapter:
        raise ValueError(
            "vlm.adapter: a server is not sent adapters; start it with the adapter (vLLM: --enable-lora --lora-modules) and name that in vlm.model"
        )
    if config.key_env and not os.environ.get(config.key_env):
        raise ValueError(f"vlm.key_env = {config.key_env!r}, but this environment variable is not set; set it to the server's key, or leave key_env empty")
    return Server(config, Client(config, os.environ[config.key_env] if config.key_env else ""))
