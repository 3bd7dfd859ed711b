"""A server that speaks OpenAI's API (vLLM, llama.cpp, OpenAI): one request, with patience; many at once.

What is asked of it, and what its answers mean, stands where that is used: replies in evaluate/, log-probabilities in
score/.
"""

from __future__ import annotations

import json
import math
import os
import re
import socket
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException, IncompleteRead
from queue import Empty, SimpleQueue
from typing import Any, TypeVar
from urllib.parse import SplitResult, parse_qsl, urlsplit

from tqdm import tqdm

from bdpo.errors import BdpoError
from bdpo.secrets import is_secret
from bdpo.terminal import visible

Item = TypeVar("Item")
Made = TypeVar("Made")

PASSING = {408, 429}  # too slow, too many: another time it may do; so may every 5xx
WORKERS = 16  # requests at once
SILENT = 5.0  # seconds without a word
_OF_ONE_PROMPT = {400, 413, 422}
_LONGEST_WAIT = 60.0  # seconds
_LARGEST = 64 << 20  # answer [bytes]
_FIRST_TRIES = 3  # that a server may miss which never answered at all
_PATHS = ("/chat/completions", "/completions", "/models")  # that a URL may be given with
_ROOT = "check that the URL ends in the server's API root, often /v1"
_THREAD = threading.local()  # of a thread of `at_once`: the event `given_up`
# what reading an answer of another form, of numbers beyond all bounds or of a thousand brackets raises
NO_ANSWER = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)


class PromptRefused(BdpoError):
    """The server refuses this request; it may take others."""


class Passing(Exception):
    """A failure that may pass: what it says, and the pause that the server asks for [s]."""

    def __init__(self, said: str, pause: float = 0.0) -> None:
        super().__init__(said)
        self.pause = pause


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    body: bytes
    pause: float = 0.0  # that the server asks for [s]


class Endpoint:
    """A server under a URL, and the model that it is asked for; may be used by several threads at once.

    The key is read from OPENAI_API_KEY; without one none is sent.

    Args:
        url: base URL as OpenAI's clients take it, `http://localhost:8000/v1`; a query stays behind the path.
        model: the name that the server knows the model by.
        timeout: of one request [s].
        retries: requests that are made again on 408, 429, 5xx and broken connections, before it is an error; a server
            that never answered gets three at most.
        backoff: pause before the first of them [s]; it doubles each time, up to a minute, and is longer where the
            server says so (Retry-After).

    Raises:
        BdpoError: the URL is none.
    """

    def __init__(self, url: str, model: str, *, timeout: float = 600.0, retries: int = 8, backoff: float = 1.0) -> None:
        parts = _split(url)
        path = parts.path.rstrip("/")
        given = next((end for end in _PATHS if path.endswith(end)), "")
        self._parts = parts._replace(path=path.removesuffix(given))
        self.url = self._parts.geturl()
        self.model = model
        self.timeout, self.retries, self.backoff = timeout, retries, backoff
        self._answered = False
        self._lock, self._told, self._again = threading.Lock(), -math.inf, 0  # when trying again was told, times since

    def patiently(self, ask: Callable[[], Made]) -> Made:
        """What `ask` gives, which is called again as long as it raises `Passing` and there are retries.

        Raises:
            BdpoError: it still fails, or `at_once` has given it up.
        """
        attempt = 0
        while True:
            try:
                return ask()
            except Passing as failure:
                if attempt >= (self.retries if self._answered else min(self.retries, _FIRST_TRIES)):
                    raise BdpoError(
                        f"{self.url} still fails after {attempt + 1} tries ({failure}): check that the server is up "
                        "and run the same command again."
                    ) from None
                pause = min(max(self.backoff * 2**attempt, failure.pause), _LONGEST_WAIT)
                if not _given_up():
                    self._tell_of(failure, pause)
                    _wait(pause)
                if _given_up():  # nobody waits for the answer, and the process should end
                    raise BdpoError(f"{self.url} is asked no more ({failure}).") from None
                attempt += 1

    def _tell_of(self, failure: Passing, pause: float) -> None:
        """Say that a request is made again; of many threads in as many seconds as a bar is silent, one says it."""
        with self._lock:
            self._again += 1
            if time.monotonic() - self._told < SILENT:
                return
            others = f"; {self._again - 1} other requests were made again as well" if self._again > 1 else ""
            self._told, self._again = time.monotonic(), 0
        tqdm.write(visible(f"{self.url} ({failure}): asked again in {pause:g} s{others}."), file=sys.stderr)

    def send(self, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        """One request to a path below the root: POST of a JSON body, or GET without one.

        Raises:
            Passing: refused, reset, cut off, too slow.
            BdpoError: the server cannot be reached at all, or its answer has no end.
        """
        headers = {"Content-Type": "application/json"}
        if os.environ.get("OPENAI_API_KEY"):
            headers["Authorization"] = f"Bearer {os.environ['OPENAI_API_KEY']}"
        address = self._parts._replace(path=f"{self._parts.path}{path}").geturl()  # a query (?api-version=) stays
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(address, data=data, headers=headers)
        try:
            try:
                begun = time.monotonic()
                with _OPENER.open(request, timeout=self.timeout) as answer:
                    found = Answer(200, self._body(answer, begun + self.timeout))
            except urllib.error.HTTPError as error:
                with error:
                    found = Answer(error.code, self._body_of(error, begun + self.timeout), _pause(error.headers))
        except (OSError, HTTPException) as error:  # refused, reset, cut off, too slow
            reason = getattr(error, "reason", error)
            said = str(reason) or type(error).__name__
            if isinstance(reason, socket.gaierror | ssl.SSLError) and not self._answered:
                raise BdpoError(f"The endpoint {self.url} cannot be reached ({said}): check the URL.") from None
            raise Passing(said) from None
        self._answered = True
        return found

    def refusal(self, answer: Answer, mend: str = "check the model's name and the generation settings") -> BdpoError:
        """The error that a failure is, for the caller to raise.

        Args:
            mend: what to do about a status that does not say so itself.

        Raises:
            Passing: it may pass.
        """
        said = excerpt(answer.body)
        failure = f"HTTP {answer.status}{said and ': ' + said}"
        broke = b"insufficient_quota" in answer.body  # OpenAI says it with the status of too many requests
        if (answer.status in PASSING or answer.status >= 500) and not broke:
            raise Passing(failure, answer.pause)
        mend = {
            401: "set OPENAI_API_KEY to a key that the server takes",
            403: "set OPENAI_API_KEY to a key that may use this model",
            404: f"check the URL and that the server knows a model '{self.model}'",
            429: "the account behind OPENAI_API_KEY has nothing left to spend",
        }.get(answer.status, mend)
        kind = PromptRefused if answer.status in _OF_ONE_PROMPT else BdpoError
        return kind(f"{self.url} refuses the request ({failure}): {mend}.")

    def something_else(self, answer: Answer, than: str) -> BdpoError:
        """The error that a success of another form is, for the caller to raise."""
        return BdpoError(f"{self.url} answers with something other than {than} ({excerpt(answer.body)}): {_ROOT}.")

    def _body(self, answer: Any, end: float) -> bytes:
        """What a server sends, which may never end: so much of it, until a moment of the clock."""
        body = bytearray()
        while chunk := answer.read1(1 << 16):
            body += chunk
            if len(body) > _LARGEST:
                raise BdpoError(
                    f"{self.url} answers with more than {_LARGEST >> 20} MiB, which answers no request: {_ROOT}."
                )
            if time.monotonic() > end:
                raise TimeoutError(f"its answer took longer than {self.timeout:g} s")
        if answer.length:  # what is left of it; read1 does not say
            raise IncompleteRead(bytes(body), answer.length)
        return bytes(body)

    def _body_of(self, error: urllib.error.HTTPError, end: float) -> bytes:
        try:
            return self._body(error, end)
        except (OSError, HTTPException):
            return b""


def at_once(
    ask: Callable[[Item], Made], items: Sequence[Item], workers: int = WORKERS, idle: Callable[[], Any] | None = None
) -> Iterator[tuple[int, Made]]:
    """What `ask` gives for each item, with the item's index, as it comes; `workers` items are asked at once.

    Where one of them fails, what is still asked for is given up, and the error raised; a request that is under way is
    not waited for, by the end of the process neither.

    Args:
        idle: called each second in which nothing comes, such as a bar's `refresh`.

    >>> sorted(at_once(str.upper, ["a", "b"]))
    [(0, 'A'), (1, 'B')]
    """
    given_up, todo = threading.Event(), SimpleQueue[int]()
    done = SimpleQueue[tuple[int, Callable[[], Made]]]()
    for i in range(len(items)):
        todo.put(i)

    def work() -> None:
        _THREAD.given_up = given_up
        with suppress(Empty):
            while not given_up.is_set():
                i = todo.get_nowait()
                done.put((i, _outcome(ask, items[i])))

    for _ in range(min(workers, len(items))):
        # the process does not wait for what it has given up: a server may take minutes over one request
        threading.Thread(target=work, daemon=True).start()
    try:
        left = len(items)
        while left:
            try:
                i, outcome = done.get(timeout=1.0)
            except Empty:
                if idle is not None:
                    idle()
                continue
            left -= 1
            yield i, outcome()
    finally:
        given_up.set()


def _outcome(ask: Callable[[Item], Made], item: Item) -> Callable[[], Made]:
    """What `ask` gives, to be called for it: that raises what `ask` raised."""
    try:
        made = ask(item)
    except BaseException as error:
        raised = error  # the name `error` ends here

        def fail() -> Made:
            raise raised

        return fail
    return lambda: made


def _given_up() -> bool:
    event = getattr(_THREAD, "given_up", None)
    return event is not None and event.is_set()


def _wait(seconds: float) -> None:
    """Wait, in a thread of `at_once` only until it is given up."""
    event = getattr(_THREAD, "given_up", None)
    if event is None:
        time.sleep(seconds)
    else:
        event.wait(seconds)


def error_status(answer: bytes) -> int | None:
    """The status of an error that came as a success, in place of the choices or within one (OpenRouter); None where
    it is no error."""
    try:
        decoded = json.loads(answer)
        error = decoded.get("error") or next((choice.get("error") for choice in decoded.get("choices") or ()), None)
        code = str(error.get("code")) if isinstance(error, dict) else ""
        return None if not error else int(code) if re.fullmatch("[45][0-9][0-9]", code) else 400
    except NO_ANSWER:
        return None


def excerpt(answer: bytes) -> str:
    """The message of an error in OpenAI's form, else the beginning of what came, in one line."""
    text = answer.decode(errors="replace")
    try:
        said = json.loads(text)
        error = said.get("error", said)
        text = str(error["message"] if isinstance(error, dict) and "message" in error else error)
    except NO_ANSWER:
        pass
    text = " ".join(text.split()).rstrip(".")
    return text if len(text) <= 200 else f"{text[:200]}..."


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Redirects are errors: the key would travel on to wherever they point."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


def _split(url: str) -> SplitResult:
    """The parts of a URL that could be one; a name that nobody knows shows only when it is asked for."""
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port out of range, half a bracket
        sound = False
    if not sound or not url.isprintable() or " " in url or not url.isascii():
        raise BdpoError(f"The endpoint '{url}' is not a URL: write it like http://localhost:8000/v1.")
    if "@" in parts.netloc or any(is_secret(name, said) for name, said in parse_qsl(parts.query)):
        raise BdpoError(
            f"The endpoint's URL (at {parts.netloc.rpartition('@')[2]}) has a password or key in it, and URLs are "
            "written into the results: take it out and set the environment variable OPENAI_API_KEY."
        )
    return parts


def _pause(headers: Any) -> float:
    """What Retry-After asks for [s], a number or a date; 0 where it is not there or neither."""
    said = str(headers.get("Retry-After") or "")
    try:
        return max(0.0, float(said))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(said) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0
