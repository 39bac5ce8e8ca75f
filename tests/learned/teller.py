"""A server with OpenAI's interface that knows what to say: of six properties "no", and of each chunk what could be filmed there."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: What it tells of a chunk, in turn: nothing of it is about text, a camera move, or nothing at all.
ACTIONS = ("A figure moves forward through the picture.", "The figure keeps moving and lifts an arm.")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        data = json.dumps({"id": "1", "object": "chat.completion", "model": "told", "choices": [_choice(body)], "usage": _USAGE}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


_USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def _choice(body: dict[str, Any]) -> dict[str, Any]:
    """The answer to one request: log-probabilities where a choice is asked for, else a dense caption of as many chunks as the question names."""
    if body.get("logprobs"):
        likeliest = [{"token": "no", "logprob": -0.01}, {"token": "yes", "logprob": -4.6}]
        place = {"token": "no", "logprob": -0.01, "top_logprobs": likeliest}
        return {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "no"}, "logprobs": {"content": [place]}}
    chunks = len(re.findall(r"^- chunk \d+:", body["messages"][-1]["content"][-1]["text"], re.MULTILINE))
    told = {"chunks": [{"chunk": k, "action": ACTIONS[k % 2]} for k in range(chunks)], "caption": "A figure moves through the picture and lifts an arm."}
    return {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": json.dumps(told)}}


@contextmanager
def teller() -> Iterator[str]:
    """Its address up to /v1, while it serves."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            server.shutdown()
