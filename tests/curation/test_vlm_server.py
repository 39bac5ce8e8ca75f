"""What the OpenAI back end makes of a server that answers well, badly, late, too much, or not at all."""

import asyncio
import base64
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cv2
import numpy as np
import pytest

from curation.frames import SIGNALS, Frames
from curation.vlm import Answer, Prompt, Question, VlmConfig, frames_sha256, open_vlm, shown
from curation.vlm_http import FIRST_WAIT_S, MOST_RETRY_AFTER_S, Client, retry_after
from curation.vlm_server import Server, _of_choices, data_url, open_back_end

PROMPT = Prompt(name="content", version="content/1", system="You judge clips.", text="Is it a lecture?")
SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"], "additionalProperties": False}
KEY = "k-123-secret"


def frames(seed: int, n: int = 6) -> Frames:
    """`n` flat pictures, each of a grey of its own, that no other seed has."""
    rgb = np.full((n, 32, 48, 3), 0, np.uint8) + (np.arange(n, dtype=np.uint8)[:, None, None, None] + np.uint8(seed * 20))
    times = 5 + np.arange(n) / 4
    return Frames(rgb, rgb[..., 0].copy(), times, np.full(n, 1 / 15, np.float32), 4.0, {name: np.zeros(n, np.float32) for name in SIGNALS})


def question(seed: int = 1, **other: Any) -> Question:
    return Question(clip_id=f"clip-{seed}", frames=frames(seed), prompt=PROMPT, **other)


def said(text: str | None = "fine", finish: str = "stop", **message: Any) -> tuple[int, dict[str, str], bytes]:
    """A chat completion as a server sends it."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}
    return 200, {}, json.dumps({"id": "1", "choices": [choice], "usage": {"prompt_tokens": 10, "completion_tokens": 3}}).encode()


class Fake(ThreadingHTTPServer):
    """A server that follows a script: what it does with the n-th request, or a function of the request's body."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script: list[Any] = []
        self.by_body: Callable[[dict[str, Any]], tuple[int, dict[str, str], bytes]] | None = None
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.keys: list[str | None] = []
        self.sent = 0
        self.now = self.most_at_once = 0
        self.guard, self.release = threading.Lock(), threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is what some of the tests want."""


class _Handler(BaseHTTPRequestHandler):
    server: Fake
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def do_POST(self) -> None:
        fake = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with fake.guard:
            turn = len(fake.bodies)
            fake.bodies.append(body)
            fake.paths.append(self.path)
            fake.keys.append(self.headers.get("Authorization"))
            fake.now += 1
            fake.most_at_once = max(fake.most_at_once, fake.now)
        try:
            self._act(fake.by_body(body) if fake.by_body else fake.script[min(turn, len(fake.script) - 1)])
        finally:
            with fake.guard:
                fake.now -= 1

    def _act(self, act: Any) -> None:
        if act == "hang":
            self.server.release.wait(20)
            self.close_connection = True
        elif act == "close":
            self.connection.close()
            self.close_connection = True
        elif act == "cut":
            _, _, whole = said("fine")
            self.send_response(200)
            self.send_header("Content-Length", str(len(whole)))
            self.end_headers()
            self.wfile.write(whole[: len(whole) // 2])
            self.close_connection = True
        elif act == "flood":
            self.send_response(200)
            self.send_header("Content-Length", str(10 << 20))
            self.end_headers()
            for _ in range(160):
                self.wfile.write(b"x" * (1 << 16))
                self.server.sent += 1 << 16
        else:
            status, headers, text = act
            self.send_response(status)
            for name, value in {"Content-Length": str(len(text)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text)


@pytest.fixture
def fake() -> Iterator[Fake]:
    server = Fake()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.release.set()
    server.shutdown()
    server.server_close()


Ask = Callable[..., tuple[list[Answer], list[float]]]


@pytest.fixture
def ask(fake: Fake) -> Ask:
    """Asks the fake; gives the answers and the waits, which take no time; the jitter is half of what it may be."""

    def run(questions: list[Question], *script: Any, **settings: Any) -> tuple[list[Answer], list[float]]:
        fake.script, waits = list(script), []

        async def sleep(seconds: float) -> None:
            waits.append(seconds)
            await asyncio.sleep(0)

        config = VlmConfig(backend="openai", model="tiny", revision="r1", url=f"http://127.0.0.1:{fake.server_port}/v1", **settings)
        server = Server(config, Client(config, KEY, sleep=sleep, jitter=lambda: 0.5))
        return server.answer(questions), waits

    return run


def test_a_good_answer_carries_where_it_came_from(fake: Fake, ask: Ask) -> None:
    (answer,), waits = ask([question()], said("It moves."))
    pictures, times = shown(frames(1), 64)
    assert (answer.text, answer.value, answer.reason, answer.tries, waits) == ("It moves.", None, None, 1, [])
    assert (answer.clip_id, answer.model, answer.revision) == ("clip-1", "tiny", "r1")
    assert (answer.prompt_sha256, answer.prompt_version) == (PROMPT.sha256, "content/1")
    assert answer.frames_sha256 == frames_sha256(pictures, times)
    assert (answer.prompt_tokens, answer.output_tokens) == (10, 3)
    assert (fake.paths, fake.keys) == (["/v1/chat/completions"], [f"Bearer {KEY}"])


def test_pictures_go_as_data_urls_each_behind_its_time_and_the_question_last(fake: Fake, ask: Ask) -> None:
    ask([question()], said(), pictures="png", max_pictures=3)
    system, user = fake.bodies[0]["messages"]
    assert system == {"role": "system", "content": PROMPT.system}
    assert [part["text"] for part in user["content"] if part["type"] == "text"] == ["<0.00 s>", "<0.50 s>", "<1.25 s>", PROMPT.text]
    urls = [part["image_url"]["url"] for part in user["content"] if part["type"] == "image_url"]
    assert all(url.startswith("data:image/png;base64,") for url in urls)
    seen = [cv2.imdecode(np.frombuffer(base64.b64decode(url.split(",")[1]), np.uint8), cv2.IMREAD_COLOR)[..., ::-1] for url in urls]
    np.testing.assert_array_equal(np.stack(seen), shown(frames(1), 3)[0])
    assert (fake.bodies[0]["temperature"], fake.bodies[0]["seed"], fake.bodies[0]["max_tokens"]) == (0, 0, 1024)


def test_jpeg_keeps_colours_in_their_channels() -> None:
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[..., 0] = 200
    coded = base64.b64decode(data_url(picture, "jpeg").split(",")[1])
    assert np.abs(cv2.imdecode(np.frombuffer(coded, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int) - picture).max() <= 4


@pytest.mark.parametrize(
    ("script", "waits", "tries"),
    [
        ([(429, {}, b"slow"), said()], [FIRST_WAIT_S / 2], 2),
        ([(429, {"Retry-After": "7"}, b"slow"), said()], [7 + FIRST_WAIT_S / 2], 2),
        ([(500, {}, b"oops"), (503, {}, b"oops"), said()], [FIRST_WAIT_S / 2, FIRST_WAIT_S], 3),
        (["close", said()], [FIRST_WAIT_S / 2], 2),
        (["cut", said()], [FIRST_WAIT_S / 2], 2),
        ([(200, {}, b'{"choices": [{"mess'), said()], [FIRST_WAIT_S / 2], 2),
        (["hang", said()], [FIRST_WAIT_S / 2], 2),
    ],
    ids=["429", "429 with Retry-After", "5xx", "closed", "cut", "half an object", "timeout"],
)
def test_what_may_pass_is_tried_again(ask: Ask, script: list[Any], waits: list[float], tries: int) -> None:
    (answer,), slept = ask([question()], *script, timeout_s=1.0)
    assert (answer.reason, answer.text, answer.tries) == (None, "fine", tries)
    assert slept == pytest.approx(waits)


def test_a_server_that_never_recovers_is_unreachable_after_its_tries(fake: Fake, ask: Ask) -> None:
    (answer,), slept = ask([question()], (503, {}, b"down"), tries=4)
    assert (answer.reason, answer.tries, len(fake.bodies)) == ("vlm_unreachable", 4, 4)
    assert "status 503: down" in answer.detail
    assert slept == pytest.approx([FIRST_WAIT_S / 2, FIRST_WAIT_S, FIRST_WAIT_S * 2])


def test_a_retry_after_of_a_day_is_an_answer(fake: Fake, ask: Ask) -> None:
    (answer,), slept = ask([question()], (429, {"Retry-After": "86400"}, b"quota"))
    assert (answer.reason, answer.tries, slept, len(fake.bodies)) == ("vlm_unreachable", 1, [], 1)


def test_retry_after_may_be_a_date() -> None:
    assert retry_after("Fri, 31 Dec 2100 23:59:59 GMT") > MOST_RETRY_AFTER_S
    assert (retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), retry_after("soon"), retry_after("")) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_another_4xx_is_never_tried_again(fake: Fake, ask: Ask, status: int) -> None:
    (answer,), slept = ask([question()], (status, {}, b'{"error": "prompt is too long"}'))
    assert (answer.reason, answer.tries, len(fake.bodies), slept) == ("vlm_refused", 1, 1, [])
    assert f"status {status}" in answer.detail
    assert "too long" in answer.detail


@pytest.mark.parametrize("status", [302, 401, 403, 404])
def test_a_wrong_key_model_or_address_stops_the_job_and_the_key_is_not_told(fake: Fake, ask: Ask, status: int) -> None:
    with pytest.raises(ValueError, match=r"check vlm\.url, vlm\.model") as fault:
        ask([question()], (status, {"Location": "http://example.org/"}, f"no such key {KEY}".encode()))
    assert KEY not in str(fault.value)
    assert "***" in str(fault.value)
    assert len(fake.bodies) == 1


def test_ten_megabytes_are_refused_while_they_are_read(fake: Fake, ask: Ask) -> None:
    (answer,), _ = ask([question()], "flood", max_answer_bytes=1 << 16)
    assert (answer.reason, answer.tries) == ("vlm_invalid", 1)
    assert "longer than 65536 bytes" in answer.detail
    assert fake.sent < 10 << 20


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (said('{"text": "a', finish="length"), "vlm_truncated"),
        (said(None, finish="content_filter"), "vlm_refused"),
        (said(None, refusal="I cannot help with that."), "vlm_refused"),
        (said(None), "vlm_invalid"),
        ((200, {}, b'{"choices": []}'), "vlm_invalid"),
        ((200, {}, b'{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": "many"}}'), "vlm_invalid"),
    ],
    ids=["cut off", "filtered", "refused", "empty", "no choices", "wrong types"],
)
def test_an_answer_that_is_none_has_its_reason(fake: Fake, ask: Ask, reply: Any, reason: str) -> None:
    (answer,), _ = ask([question(schema=SCHEMA)], reply)
    assert (answer.reason, answer.value, len(fake.bodies)) == (reason, None, 1)
    assert answer.detail


def test_an_answer_that_does_not_fit_is_mended_by_the_model(fake: Fake, ask: Ask) -> None:
    (answer,), _ = ask([question(schema=SCHEMA)], said('{"text": 3}'), said('{"text": "a'), said('{"text": "a hand lifts a cup"}'))
    assert (answer.reason, answer.value, answer.tries) == (None, {"text": "a hand lifts a cup"}, 3)
    assert (answer.prompt_tokens, answer.output_tokens) == (30, 9)
    assert fake.bodies[0]["response_format"]["json_schema"]["schema"] == SCHEMA
    told = fake.bodies[1]["messages"]
    assert [m["role"] for m in told] == ["system", "user", "assistant", "user"]
    assert told[2]["content"] == '{"text": 3}'
    assert "3 is not of type 'string'" in told[3]["content"]
    assert fake.bodies[2]["messages"][:4] == told


def test_repairs_end(fake: Fake, ask: Ask) -> None:
    def check(value: Any) -> None:
        raise ValueError("intervals overlap")

    (answer,), _ = ask([question(schema=SCHEMA, check=check)], said('{"text": "x"}'), repairs=1)
    assert (answer.reason, answer.value, answer.text, len(fake.bodies)) == ("vlm_invalid", None, '{"text": "x"}', 2)
    assert "intervals overlap" in answer.detail


def listed(*pairs: tuple[str, float], finish: str = "length") -> tuple[int, dict[str, str], bytes]:
    """A one-token answer with what might have stood there."""
    places = [{"token": pairs[0][0], "logprob": pairs[0][1], "top_logprobs": [{"token": t, "logprob": p} for t, p in pairs]}]
    choice = {"message": {"content": pairs[0][0]}, "finish_reason": finish, "logprobs": {"content": places}}
    return 200, {}, json.dumps({"choices": [choice]}).encode()


def test_choices_get_their_first_tokens_logprobs(fake: Fake, ask: Ask) -> None:
    reply = listed(("No", -0.5), (" no", -1.5), ("yes", -2.0), ("Maybe", -3.0))
    (answer,), _ = ask([question(choices=("yes", "no"))], reply)
    assert (answer.text, answer.reason) == ("no", None)
    assert answer.logprobs == pytest.approx((-2.0, np.log(np.exp(-0.5) + np.exp(-1.5))))
    assert (fake.bodies[0]["logprobs"], fake.bodies[0]["top_logprobs"], fake.bodies[0]["max_tokens"]) == (True, 20, 1)


def test_a_choice_that_is_not_listed_gets_its_upper_bound_and_none_listed_is_no_answer() -> None:
    assert _of_choices([("no", -0.01), ("nope", -6.0), ("x", -7.0)], ("yes", "no")) == (-7.0, -0.01)
    with pytest.raises(Exception, match="begins with one of the 1 likeliest"):
        _of_choices([("x", -7.0)], ("yes", "no"))


def test_vllms_own_fields_give_exact_choices(fake: Fake, ask: Ask) -> None:
    def reply(body: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        if "messages" not in body:
            return 200, {}, json.dumps({"tokens": [{"yes": 11, "no": 22}[body["prompt"]], 99]}).encode()
        return listed(*((f"token_id:{t}", -t / 10) for t in body["logprob_token_ids"]))

    fake.by_body = reply
    answers, _ = ask([question(1, choices=("yes", "no")), question(2, choices=("yes", "no"))], choices_by="vllm", concurrency=1)
    assert [(a.clip_id, a.text, a.logprobs) for a in answers] == [("clip-1", "yes", (-1.1, -2.2)), ("clip-2", "yes", (-1.1, -2.2))]
    assert fake.paths == ["/tokenize", "/tokenize", "/v1/chat/completions", "/v1/chat/completions"]
    assert fake.bodies[2]["allowed_token_ids"] == [11, 22]


def test_answers_stay_with_their_clips_and_no_more_are_under_way_than_allowed(fake: Fake, ask: Ask) -> None:
    def reply(body: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        url = body["messages"][1]["content"][1]["image_url"]["url"]
        grey = int(cv2.imdecode(np.frombuffer(base64.b64decode(url.split(",")[1]), np.uint8), cv2.IMREAD_COLOR)[0, 0, 0])
        threading.Event().wait(0.002 * (grey % 40))  # later questions may answer earlier
        return said(str(grey))

    fake.by_body = reply
    asked = [question(seed) for seed in (9, 3, 7, 1, 8, 2, 6, 4, 5, 10)]
    answers, _ = ask(asked, concurrency=3, pictures="png")
    assert [(a.clip_id, a.text) for a in answers] == [(q.clip_id, str(q.frames.rgb[0, 0, 0, 0])) for q in asked]
    assert 2 <= fake.most_at_once <= 3


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"model": "m"}, "needs the server's address"),
        ({"model": "m", "url": "file:///etc/passwd"}, "needs the server's address"),
        ({"url": "http://h/v1"}, "vlm.model is empty"),
        ({"model": "m", "url": "http://h/v1", "key_env": "PAN_NO_SUCH_KEY"}, "environment variable is not set"),
        ({"model": "m", "url": "http://h/v1", "adapter": "/a"}, "a server is not sent adapters"),
    ],
)
def test_what_is_missing_is_told_before_anything_is_sent(settings: dict[str, str], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        open_vlm(VlmConfig(backend="openai", **settings))


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAN_TEST_KEY", KEY)
    config = VlmConfig(backend="openai", model="m", url="http://h/v1", key_env="PAN_TEST_KEY")
    server = open_back_end(config)
    assert server.client._key == KEY
    assert KEY not in config.model_dump_json() + repr(server) + repr(server.client)
