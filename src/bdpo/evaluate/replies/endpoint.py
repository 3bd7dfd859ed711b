"""A server that speaks OpenAI's chat completions (vLLM, llama.cpp, OpenAI): one request, with patience; many at once.

Of the request body only the fields are used that all such servers know.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import socket
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException, IncompleteRead
from queue import Empty, SimpleQueue
from typing import Any, TypeVar
from urllib.parse import SplitResult, parse_qsl, urlsplit

from tqdm import tqdm

from bdpo.errors import BdpoError
from bdpo.evaluate.replies.collect import OnBatch, Prompts, Reply, Sampling, begun, opening_of
from bdpo.evaluate.replies.completions import FILTERED, Completion, error_status, excerpt, is_filtered, read_completion
from bdpo.evaluate.replies.estimate import Calls
from bdpo.pairs import Message
from bdpo.secrets import is_secret
from bdpo.terminal import bar, visible

_PASSING = {408, 429}  # too slow, too many: another time it may do; so may every 5xx
_OF_ONE_PROMPT = {400, 413, 422}
_LONGEST_WAIT = 60.0  # seconds
_LARGEST = 64 << 20  # answer [bytes]
_FIRST_TRIES = 3  # that a server may miss which never answered at all
WORKERS = 16  # requests at once
_SILENT = 5.0  # seconds without a word
_CONTINUED = {"continue_final_message": True, "add_generation_prompt": False}  # vLLM's fields
Made = TypeVar("Made")
_CLOSED = {"continue_final_message": False, "add_generation_prompt": False}


class PromptRefused(BdpoError):
    """The server refuses this request; it may take others."""


class _Passing(Exception):
    """A failure that may pass: what it says, and the pause that the server asks for [s]."""

    def __init__(self, said: str, pause: float = 0.0) -> None:
        super().__init__(said)
        self.pause = pause


class ChatEndpoint:
    """An OpenAI-compatible endpoint; may be used by several threads at once.

    The key is read from OPENAI_API_KEY; without one none is sent.

    Args:
        url: base URL as OpenAI's clients take it, `http://localhost:8000/v1`; `/chat/completions` is added.
        model: the name that the server knows the model by.
        template_variables: sent as `chat_template_kwargs`, where there are any.
        timeout: of one request [s].
        retries: requests that are made again on 408, 429, 5xx and broken connections, before it is an error; a server
            that never answered gets three at most.
        backoff: pause before the first of them [s]; it doubles each time, up to a minute, and is longer where the
            server says so (Retry-After).

    Raises:
        BdpoError: the URL is none.
    """

    def __init__(
        self, url: str, model: str, *, template_variables: Mapping[str, Any] | None = None, timeout: float = 600.0,
        retries: int = 8, backoff: float = 1.0,
    ) -> None:  # fmt: skip
        parts = _split(url)
        path = parts.path.rstrip("/").removesuffix("/chat/completions")
        self.url = parts._replace(path=path).geturl()
        self._address = parts._replace(path=f"{path}/chat/completions").geturl()  # a query (?api-version=) stays
        self.model = model
        self.more = {"chat_template_kwargs": dict(template_variables)} if template_variables else {}
        self.timeout, self.retries, self.backoff = timeout, retries, backoff
        self._limit = "max_tokens"  # what the server calls the longest reply
        self._answered = False
        self._lock, self._told, self._again = threading.Lock(), -math.inf, 0  # when trying again was told, times since

    def complete(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        further: Mapping[str, Any] | None = None,
    ) -> Completion:
        """The model's reply to a conversation; where the provider filters it, one that says so.

        Args:
            further: fields of the request that not all servers know.

        Raises:
            PromptRefused: the server does not take this request.
            BdpoError: the endpoint cannot be reached, goes on failing, refuses any request, or answers with something
                other than a completion.
        """
        body: dict[str, Any] = {
            "model": self.model, "messages": list(messages), "temperature": temperature, "top_p": top_p,
            **({} if seed is None else {"seed": seed}), **self.more, **(further or {}),
        }  # fmt: skip
        attempt = 0
        while True:
            try:
                return self._once(body, max_tokens)
            except _Passing as failure:
                if attempt >= (self.retries if self._answered else min(self.retries, _FIRST_TRIES)):
                    raise BdpoError(
                        f"{self.url} still fails after {attempt + 1} tries ({failure}): check that the server is up "
                        "and run the same command again."
                    ) from None
                pause = min(max(self.backoff * 2**attempt, failure.pause), _LONGEST_WAIT)
                self._tell_of(failure, pause)
                time.sleep(pause)
                attempt += 1

    def _tell_of(self, failure: _Passing, pause: float) -> None:
        """Say that a request is made again; of many threads in as many seconds as a bar is silent, one says it."""
        with self._lock:
            self._again += 1
            if time.monotonic() - self._told < _SILENT:
                return
            others = f"; {self._again - 1} other requests were made again as well" if self._again > 1 else ""
            self._told, self._again = time.monotonic(), 0
        tqdm.write(visible(f"{self.url} ({failure}): asked again in {pause:g} s{others}."), file=sys.stderr)

    def _once(self, body: Mapping[str, Any], max_tokens: int) -> Completion:
        limit = self._limit
        status, answer, pause = self._post({**body, limit: max_tokens})
        if status == 200 and (completion := read_completion(answer)) is not None:
            return completion
        failed = error_status(answer) if status == 200 else status
        if failed is None:
            raise BdpoError(
                f"{self.url} answers with something other than a chat completion ({excerpt(answer)}): "
                "check that the URL ends in the server's API root, often /v1."
            )
        if failed == 400 and limit == "max_tokens" and b"max_completion_tokens" in answer:
            self._limit = "max_completion_tokens"  # OpenAI's newer name, by which its newer models go
            return self._once(body, max_tokens)
        return self._failed(failed, answer, pause)

    def _post(self, body: Mapping[str, Any]) -> tuple[int, bytes, float]:
        """Status, body, and the pause that the server asks for [s]."""
        headers = {"Content-Type": "application/json"}
        if os.environ.get("OPENAI_API_KEY"):
            headers["Authorization"] = f"Bearer {os.environ['OPENAI_API_KEY']}"
        request = urllib.request.Request(self._address, data=json.dumps(body).encode(), headers=headers)
        try:
            try:
                begun = time.monotonic()
                with _OPENER.open(request, timeout=self.timeout) as answer:
                    found = 200, self._body(answer, begun + self.timeout), 0.0
            except urllib.error.HTTPError as error:
                with error:
                    found = error.code, self._body_of(error, begun + self.timeout), _pause(error.headers)
        except (OSError, HTTPException) as error:  # refused, reset, cut off, too slow
            reason = getattr(error, "reason", error)
            said = str(reason) or type(error).__name__
            if isinstance(reason, socket.gaierror | ssl.SSLError) and not self._answered:
                raise BdpoError(f"The endpoint {self.url} cannot be reached ({said}): check the URL.") from None
            raise _Passing(said) from None
        self._answered = True
        return found

    def _body(self, answer: Any, end: float) -> bytes:
        """What a server sends, which may never end: so much of it, until a moment of the clock."""
        body = bytearray()
        while chunk := answer.read1(1 << 16):
            body += chunk
            if len(body) > _LARGEST:
                raise BdpoError(
                    f"{self.url} answers with more than {_LARGEST >> 20} MiB, which is no chat completion: check that "
                    "the URL ends in the server's API root, often /v1."
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

    def _failed(self, status: int, answer: bytes, pause: float) -> Completion:
        """A failure as what it is: a filtered prompt, one that may pass, or what the user can mend."""
        if 400 <= status < 500 and status not in {401, 404, *_PASSING} and is_filtered(answer):
            return FILTERED
        said = excerpt(answer)
        failure = f"HTTP {status}{said and ': ' + said}"
        broke = b"insufficient_quota" in answer  # OpenAI says it with the status of too many requests
        if (status in _PASSING or status >= 500) and not broke:
            raise _Passing(failure, pause)
        mend = {
            401: "set OPENAI_API_KEY to a key that the server takes",
            403: "set OPENAI_API_KEY to a key that may use this model",
            404: f"check the URL and that the server knows a model '{self.model}'",
            429: "the account behind OPENAI_API_KEY has nothing left to spend",
        }.get(status, "check the model's name and the generation settings")
        kind = PromptRefused if status in _OF_ONE_PROMPT else BdpoError
        raise kind(f"{self.url} refuses the request ({failure}): {mend}.")


class EndpointGenerator:
    """Replies of a model behind an endpoint; takes the place of `generate.LocalGenerator`.

    The server renders the prompts (what it makes of control tokens typed in them is its affair) and decides what ends
    a reply. It is asked `workers` things at once, so that it can batch them. Sampled replies are as repeatable as the
    server's seeds are.

    Args:
        workers: requests at once.
        what: it is that comes, as the bar calls it.
    """

    may_cache = False  # a server may change the weights behind a name

    def __init__(self, endpoint: ChatEndpoint, workers: int = WORKERS, what: str = "replies") -> None:
        self.endpoint, self.workers, self.what = endpoint, workers, what

    @property
    def key(self) -> dict[str, Any]:
        """What is known of what replies depend on."""
        return {"endpoint": self.endpoint.url, "model": self.endpoint.model, **self.endpoint.more}

    def fingerprint(self, messages: Sequence[Message], where: str = "") -> str:
        """A hash of the conversation."""
        return hashlib.sha256(json.dumps(list(messages), sort_keys=True).encode()).hexdigest()

    def calls(self, prompts: Prompts, sampling: Sampling) -> Calls:
        """What making the replies will ask of the server."""
        texts = ["".join(message["content"] for message in messages) for messages in prompts.values()]
        return Calls.of(texts * sampling.samples, written=sampling.max_new_tokens)

    def replies(self, prompts: Prompts, sampling: Sampling, on_batch: OnBatch | None = None) -> dict[str, list[Reply]]:
        """All samples of every prompt, in the order of `prompts`; `on_batch` gets each reply as it comes.

        A prompt that the server does not take, where it takes others, has a reply that says so.

        Raises:
            BdpoError: as `ChatEndpoint.complete`; what is still asked for then is given up. Or a reply's opening is
                given, and the server does not show that it goes on from one.
        """
        asked = [(id, sample) for id in prompts for sample in range(sampling.samples)]
        made: dict[tuple[str, int], Reply] = {}
        pool = ThreadPoolExecutor(self.workers)
        try:
            with bar(self.what, len(asked), "reply", apart=_SILENT) as progress:
                if any(map(opening_of, prompts.values())):
                    list(_as_they_come([pool.submit(self._refuse_unless_it_continues)], progress))
                futures = [pool.submit(self._reply, id, sample, prompts[id], sampling) for id, sample in asked]
                for reply in _as_they_come(futures, progress):
                    made[reply.id, reply.sample] = reply
                    progress.update()
                    if on_batch:
                        on_batch([reply])
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        return {id: [made[id, sample] for sample in range(sampling.samples)] for id in prompts}

    def _reply(self, id: str, sample: int, messages: Sequence[Message], sampling: Sampling) -> Reply:
        opening = opening_of(messages)
        try:
            said = self.endpoint.complete(
                messages,
                further=_CONTINUED if opening else None,
                max_tokens=sampling.max_new_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                seed=sampling.seed_of(self.fingerprint(messages), sample) if sampling.temperature else None,
            )
        except PromptRefused as error:
            if not self._takes_others(sampling):
                raise BdpoError(f"Prompt {id}: {error}") from None
            tqdm.write(visible(f"Prompt {id} is left out: {error}"), file=sys.stderr)
            return Reply(id, sample, "", "untaken", 0, 0)
        text = said.text if said.text.startswith(opening) else begun(opening, said.text)  # some servers repeat it
        return Reply(id, sample, text, said.stop, said.prompt_tokens, said.tokens, said.thought)

    def _refuse_unless_it_continues(self) -> None:
        """Refuse a server that would take the opening of a reply for a whole turn.

        The same conversation is asked about with the last turn left open and closed: the end of turn is one token at
        least, so that a server which knows the difference counts fewer in the first.
        """
        conversation = [{"role": "user", "content": "Count to three."}, {"role": "assistant", "content": "One, two,"}]
        try:
            counted = [
                self.endpoint.complete(conversation, max_tokens=1, further=fields).prompt_tokens
                for fields in (_CONTINUED, _CLOSED)
            ]
        except PromptRefused:
            counted = [0, 0]
        if not 0 < counted[0] < counted[1]:
            raise BdpoError(
                f"{self.endpoint.url} does not show that it goes on from the opening of a reply "
                "(continue_final_message, as vLLM knows it): leave the transform prefill out, or load the model itself."
            )

    def _takes_others(self, sampling: Sampling) -> bool:
        """Whether the server takes a prompt that nothing is wrong with, under the same settings."""
        try:
            self.endpoint.complete(
                [{"role": "user", "content": "Hello."}],
                max_tokens=sampling.max_new_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                seed=0 if sampling.temperature else None,
            )
        except PromptRefused:
            return False
        return True


def _as_they_come(futures: Sequence[Future[Made]], progress: Any) -> Iterator[Made]:
    """What they give; the bar shows the time where nothing comes."""
    done: SimpleQueue[Future[Made]] = SimpleQueue()
    for future in futures:
        future.add_done_callback(done.put)
    left = len(futures)
    while left:
        try:
            made = done.get(timeout=1.0)
        except Empty:
            progress.refresh()
            continue
        left -= 1
        yield made.result()


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
