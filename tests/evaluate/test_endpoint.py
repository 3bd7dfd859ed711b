"""The endpoint's client against a stub server: what is sent, what is read, what is tried again, what is refused."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bdpo.errors import BdpoError
from bdpo.evaluate.replies.collect import Reply, Sampling
from bdpo.evaluate.replies.endpoint import ChatEndpoint, Completion, EndpointGenerator

ASKED = [{"role": "user", "content": "Name a river."}]


def said(text="The Loire.", reason="stop", **more):
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
    return 200, {"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 4}} | more


class Stub(ThreadingHTTPServer):
    """Answers POST requests by `script`: (status, body[, headers]) in turn, the last one for ever; None hangs up."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, script):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script, self.seen, self.lock = list(script), [], threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    timeout = 10

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.seen.append((self.path, dict(self.headers), body))
            script = self.server.script
            answer = script.pop(0) if len(script) > 1 else script[0]
        if callable(answer):
            answer = answer(body)
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

    def log_message(self, *args):
        pass


@contextmanager
def serving(*script):
    with Stub(script) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(timeout=10)


@pytest.fixture(autouse=True)
def no_key_and_no_pauses(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    pauses = []
    monkeypatch.setattr("bdpo.evaluate.replies.endpoint.time.sleep", pauses.append)
    return pauses


def test_what_is_sent_and_read(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-stub")
    with serving(said()) as server:
        endpoint = ChatEndpoint(server.url + "/", "stub-1")
        completion = endpoint.complete(ASKED, max_tokens=64, temperature=0.7, top_p=0.9, seed=3)
    assert completion == Completion("The Loire.", "end", 9, 4)
    path, headers, body = server.seen[0]
    assert path == "/v1/chat/completions"
    assert (headers["Authorization"], headers["Content-Type"]) == ("Bearer sk-stub", "application/json")
    assert body == {
        "model": "stub-1", "messages": ASKED, "max_tokens": 64, "temperature": 0.7, "top_p": 0.9, "seed": 3,
    }  # fmt: skip


def test_no_key_sends_none_and_no_seed_sends_none():
    with serving(said()) as server:
        ChatEndpoint(server.url, "m").complete(ASKED)
    _, headers, body = server.seen[0]
    assert "Authorization" not in headers
    assert "seed" not in body and body["temperature"] == 0.0


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (said("Cut", "length"), Completion("Cut", "length", 9, 4)),
        (said(None), Completion("", "end", 9, 4)),
        (said("No counts", usage=None), Completion("No counts", "end", 0, 0)),
        ((200, {"choices": [{"message": {"content": None, "refusal": "No."}}]}), Completion("No.", "end", 0, 0)),
    ],
)
def test_answers_as_servers_give_them(answer, expected):
    with serving(answer) as server:
        assert ChatEndpoint(server.url, "m").complete(ASKED) == expected


def test_passing_failures_are_tried_again_with_growing_pauses(no_key_and_no_pauses):
    busy = (429, {"error": {"message": "slow down"}}, {"Retry-After": "7"})
    with serving((503, b""), None, busy, (500, b"oops"), said()) as server:
        assert ChatEndpoint(server.url, "m", backoff=0.5).complete(ASKED).text == "The Loire."
    assert len(server.seen) == 5
    assert no_key_and_no_pauses == [0.5, 1.0, 7.0, 4.0]  # 0.5, doubled each time; the third as the server asked


def test_an_answer_cut_off_is_tried_again():
    with serving((200, b"{", {"Content-Length": "500"}), said()) as server:
        endpoint = ChatEndpoint(server.url, "m", timeout=5)
        assert endpoint.complete(ASKED).text == "The Loire."


def test_pauses_end_at_a_minute(no_key_and_no_pauses):
    with serving((429, b"", {"Retry-After": "86400"}), said()) as server:
        ChatEndpoint(server.url, "m").complete(ASKED)
    assert no_key_and_no_pauses == [60.0]


@pytest.mark.parametrize(
    ("answer", "says", "tries"),
    [
        ((503, {"error": {"message": "loading."}}), r"still fails after 3 tries \(HTTP 503: loading\): check that", 3),
        (None, r"still fails after 3 tries \(.+\): check that the server is up", 3),
        ((401, {"error": {"message": "bad key"}}), r"refuses the request \(HTTP 401: bad key\): set OPENAI_API_KEY", 1),
        ((404, {"error": "no"}), r"refuses the request \(HTTP 404: no\): check the URL .* knows a model 'm'\.", 1),
        ((400, b"max_tokens\n too large"), r"\(HTTP 400: max_tokens too large\): check the model's name and", 1),
        ((307, b"", {"Location": "http://127.0.0.1:9/v1"}), r"refuses the request \(HTTP 307\)", 1),
        ((200, b"<html>hello</html>"), "other than a chat completion .<html>hello</html>.: check that the URL ends", 1),
        ((200, {"choices": []}), "other than a chat completion", 1),
    ],
)
def test_failures_are_one_sentence(answer, says, tries):
    with serving(answer) as server, pytest.raises(BdpoError, match=says) as refused:
        ChatEndpoint(server.url, "m", retries=2).complete(ASKED)
    assert len(server.seen) == tries
    assert str(refused.value).startswith(server.url) and "\n" not in str(refused.value)


def test_a_server_that_is_not_there():
    with serving(said()) as server:
        url = server.url
    with pytest.raises(BdpoError, match=r"still fails after 1 tries .*[Rr]efused"):
        ChatEndpoint(url, "m", retries=0).complete(ASKED)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host/v1", "http://", ""])
def test_what_is_no_url(url):
    with pytest.raises(BdpoError, match="is not a URL: write it like http://localhost:8000/v1"):
        ChatEndpoint(url, "m")


def test_several_threads_at_once():
    with serving(lambda body: said(body["messages"][0]["content"])) as server:
        endpoint, heard = ChatEndpoint(server.url, "m"), {}
        asked = [[{"role": "user", "content": f"number {i}"}] for i in range(12)]

        def ask(i):
            heard[i] = endpoint.complete(asked[i]).text

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=10)
    assert heard == {i: f"number {i}" for i in range(12)}


# --- many prompts ----------------------------------------------------------------------------------------------


PROMPTS = {f"p{i}": [{"role": "user", "content": f"number {i}"}] for i in range(8)}


def test_replies_come_in_order_with_stops_and_counts():
    seen = []
    with serving(lambda body: said(body["messages"][0]["content"], "length")) as server:
        generator = EndpointGenerator(ChatEndpoint(server.url, "m"), workers=3)
        made = generator.replies(PROMPTS, Sampling(max_new_tokens=5), seen.extend)
    assert made == {f"p{i}": [Reply(f"p{i}", 0, f"number {i}", "length", 9, 4)] for i in range(8)}
    assert list(made) == list(PROMPTS)
    assert sorted(reply.id for reply in seen) == list(PROMPTS)
    assert {(body["max_tokens"], body["temperature"], "seed" in body) for _, _, body in server.seen} == {
        (5, 0.0, False)
    }
    assert generator.key == {"endpoint": server.url, "model": "m"} and not generator.may_cache


def test_every_sample_has_a_seed_of_its_own_and_always_the_same():
    how = Sampling(temperature=1.0, top_p=0.9, samples=3, seed=7)
    with serving(lambda body: said(str(body["seed"]))) as server:
        generator = EndpointGenerator(ChatEndpoint(server.url, "m"))
        made = generator.replies(PROMPTS, how)
        assert generator.replies({"p1": PROMPTS["p1"]}, how)["p1"] == made["p1"]
        other = generator.replies(PROMPTS, Sampling(temperature=1.0, samples=3, seed=8))
    seeds = [reply.text for runs in (made, other) for replies in runs.values() for reply in replies]
    assert len(set(seeds)) == 2 * 8 * 3
    assert [reply.sample for reply in made["p1"]] == [0, 1, 2]


def test_a_refusal_ends_it_and_what_had_come_is_handed_on():
    def answer(body):
        return (400, b"no") if body["messages"][0]["content"] == "number 3" else said()

    seen = []
    with serving(answer) as server, pytest.raises(BdpoError, match=r"refuses the request \(HTTP 400: no\)"):
        EndpointGenerator(ChatEndpoint(server.url, "m"), workers=1).replies(PROMPTS, Sampling(), seen.extend)
    assert {reply.id for reply in seen} <= {"p0", "p1", "p2"}
