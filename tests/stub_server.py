"""A stub of a server that speaks OpenAI's API, and one that gives a tiny model's log-probabilities as vLLM does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch


class Stub(ThreadingHTTPServer):
    """Answers POST requests by `script`: (status, body[, headers]) in turn, the last one for ever; None hangs up.

    A function in the script is given the request's body. GET requests are answered by `models`.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, script: Any, models: Any = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script, self.models, self.seen, self.lock = list(script), models, [], threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    timeout = 10
    server: Stub

    def do_GET(self) -> None:
        self._answer(self.server.models if self.path.endswith("/models") else (404, b"no"))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.seen.append((self.path, dict(self.headers), body))
            script = self.server.script
            answer = script.pop(0) if len(script) > 1 else script[0]
        self._answer(answer(body) if callable(answer) else answer)

    def _answer(self, answer: Any) -> None:
        if answer is None:
            self.close_connection = True
            return
        status, content, *headers = answer
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(raw)), **(headers[0] if headers else {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def serving(*script: Any, models: Any = None) -> Iterator[Stub]:
    """A stub that answers as long as the block runs."""
    with Stub(script, models) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(timeout=10)


def cards(*names: str, most: int | None = 1024) -> tuple[int, Any]:
    """What vLLM's /v1/models says of models by these names."""
    found = [{"id": name, "object": "model", "root": f"/m/{name}", "max_model_len": most} for name in names]
    return 200, {"object": "list", "data": found}


class Served:
    """Answers /v1/completions with the log-probabilities of the sent ids under a model, one plain forward a request."""

    def __init__(self, model: Any) -> None:
        self.model, self.lock = model, threading.Lock()

    @torch.no_grad()
    def __call__(self, body: dict[str, Any]) -> tuple[int, Any]:
        ids = torch.tensor([body["prompt"]])
        with self.lock:
            every = torch.log_softmax(self.model(input_ids=ids).logits[0, :-1].double(), -1)
        logps = every.gather(1, ids[0, 1:, None])[:, 0].tolist()
        entries = ({str(token): {"logprob": p, "rank": 3}} for token, p in zip(body["prompt"][1:], logps, strict=True))
        given = [None, *entries]
        usage = {"prompt_tokens": len(given), "completion_tokens": 1}
        choice = {"index": 0, "text": "?", "finish_reason": "length", "prompt_logprobs": given}
        return 200, {"object": "text_completion", "model": body["model"], "choices": [choice], "usage": usage}
