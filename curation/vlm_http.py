"""Client: JSON posted to an HTTP server, with tries, waits and limits; the transport below vlm_server."""

import asyncio
import email.utils
import json
import random
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from curation.vlm import VlmConfig

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

#: Seconds before the second try, doubled for each further one, never more than MOST_WAIT_S; the wait is drawn evenly from [0, that] (full jitter), so that
#: clients which failed together do not come back together. Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
FIRST_WAIT_S, MOST_WAIT_S = 0.5, 60.0
#: A Retry-After above this is an answer, not a pause: the request is given up.
MOST_RETRY_AFTER_S = 600.0

Sleep = Callable[[float], Awaitable[None]]


class _Passing(Exception):
    """A fault that another try may not meet; `after_s` is what the server asked for."""

    def __init__(self, what: str, after_s: float = 0.0) -> None:
        super().__init__(what)
        self.after_s = after_s


class Unanswered(Exception):
    """A request's end without a usable answer: a reason of `Answer`, its detail, and the tries made."""

    def __init__(self, reason: str, detail: str, tries: int = 0) -> None:
        super().__init__(detail)
        self.reason, self.tries = reason, tries


class Client:
    """Posts JSON and reads JSON. A 429, a 5xx, a timeout and a broken connection are tried again, nothing else.

    Args:
        config: `tries`, `timeout_s`, `max_answer_bytes` and, for the texts of errors, `model`.
        key: sent as bearer token, and blotted out of every text; "" sends none.
        sleep, jitter: how to wait, and a draw from [0, 1); tests replace them.
    """

    def __init__(self, config: VlmConfig, key: str = "", sleep: Sleep = asyncio.sleep, jitter: Callable[[], float] = random.random) -> None:
        self._config, self._key, self._sleep, self._jitter = config, key, sleep, jitter

    def session(self) -> "ClientSession":
        """A pool of connections for one batch of questions; no proxy, no cookies."""
        import aiohttp

        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        timeout = aiohttp.ClientTimeout(total=self._config.timeout_s)
        return aiohttp.ClientSession(headers=headers, timeout=timeout, connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar())

    async def post(self, session: "ClientSession", url: str, body: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
        """(the JSON object that the server answers, tries made).

        Raises:
            Unanswered: no answer after all tries, or one that another try would not mend.
            ValueError: the server knows no such key, model or address (401, 403, 404, a redirect).
        """
        import aiohttp

        data, tries = json.dumps(body).encode(), 0
        while True:
            tries += 1
            try:
                async with session.post(url, data=data, allow_redirects=False) as response:
                    return await self._read(response, tries), tries
            except (aiohttp.ClientError, TimeoutError) as error:
                fault = _Passing(f"{type(error).__name__} {error}".strip())
            except _Passing as error:
                fault = error
            if tries >= self._config.tries or fault.after_s > MOST_RETRY_AFTER_S:
                raise Unanswered("vlm_unreachable", self._clean(f"{fault} (try {tries} of {self._config.tries})"), tries) from fault
            await self._sleep(fault.after_s + self._jitter() * min(MOST_WAIT_S, FIRST_WAIT_S * 2 ** (tries - 1)))

    async def _read(self, response: "ClientResponse", tries: int) -> dict[str, Any]:
        """The answer's JSON object, read only as far as the limit."""
        status, text = response.status, bytearray()
        async for piece in response.content.iter_chunked(1 << 16):
            text += piece
            if len(text) > self._config.max_answer_bytes:
                response.close()
                raise Unanswered("vlm_invalid", f"the server's answer is longer than {self._config.max_answer_bytes} bytes", tries)
        said = self._clean(text[:300].decode("utf-8", "replace"))
        if status == 429 or status >= 500:
            raise _Passing(f"status {status}: {said}", retry_after(response.headers.get("Retry-After", "")))
        if status in (401, 403, 404) or 300 <= status < 400:
            raise ValueError(f"vlm.url {response.url}: status {status}: {said}; check vlm.url, vlm.model ({self._config.model!r}) and the key in vlm.key_env")
        if status != 200:
            raise Unanswered("vlm_refused", f"status {status}: {said}", tries)
        try:
            value = json.loads(text)
        except ValueError as error:
            raise _Passing(f"the server's answer is not JSON: {error}") from error
        if not isinstance(value, dict):
            raise _Passing("the server's answer is not a JSON object")
        return value

    def _clean(self, text: str) -> str:
        """One line without control characters and without the key."""
        hidden = text.replace(self._key, "***") if self._key else text
        return "".join(c if c.isprintable() else " " for c in hidden)[:500].strip()


def retry_after(value: str) -> float:
    """Seconds that a Retry-After header asks for, as number or date; 0 where it says nothing. Source: RFC 9110, 10.2.3."""
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, (email.utils.parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return 0.0
