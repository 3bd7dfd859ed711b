"""A server that speaks OpenAI's chat completions (vLLM, llama.cpp, OpenAI): one request, with patience; many at once.

The request body is that of https://platform.openai.com/docs/api-reference/chat/create, of which only the fields are
used that all such servers know.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

from tqdm import tqdm

from bdpo.errors import BdpoError
from bdpo.evaluate.replies.collect import OnBatch, Prompts, Reply, Sampling
from bdpo.pairs import Message
from bdpo.secrets import is_secret

_PASSING = {408, 429}  # too slow, too many: another time it may do; so may every 5xx
_LONGEST_WAIT = 60.0  # seconds


@dataclass(frozen=True)
class Completion:
    """What a model said to a conversation."""

    text: str
    stop: Literal["end", "length"]  # it ended by itself, or ran into max_tokens
    prompt_tokens: int  # as the server counts them; 0 where it does not
    tokens: int  # of the reply; 0 where the server does not count


class ChatEndpoint:
    """An OpenAI-compatible endpoint; may be used by several threads at once.

    The key is read from OPENAI_API_KEY; without one none is sent.

    Args:
        url: base URL as OpenAI's clients take it, `http://localhost:8000/v1`; `/chat/completions` is added.
        model: the name that the server knows the model by.
        timeout: of one request [s].
        retries: requests that are made again on 408, 429, 5xx and broken connections, before it is an error.
        backoff: pause before the first of them [s]; it doubles each time, up to a minute, and is longer where the
            server says so (Retry-After).
    """

    def __init__(self, url: str, model: str, *, timeout: float = 600.0, retries: int = 5, backoff: float = 1.0) -> None:
        if "@" in urlsplit(url).netloc or any(is_secret(name, said) for name, said in parse_qsl(urlsplit(url).query)):
            raise BdpoError(
                f"The endpoint's URL (at {urlsplit(url).netloc.rpartition('@')[2]}) has a password or key in it, and "
                "URLs are written into the results: take it out and set the environment variable OPENAI_API_KEY."
            )
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
            raise BdpoError(f"The endpoint '{url}' is not a URL: write it like http://localhost:8000/v1.")
        self.url = url.rstrip("/").removesuffix("/chat/completions")
        self.model = model
        self.timeout, self.retries, self.backoff = timeout, retries, backoff

    def complete(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
    ) -> Completion:
        """The model's reply to a conversation.

        Raises:
            BdpoError: the endpoint cannot be reached, goes on failing, refuses the request, or answers with something
                other than a completion.
        """
        body: dict[str, Any] = {
            "model": self.model, "messages": list(messages), "max_tokens": max_tokens, "temperature": temperature,
            "top_p": top_p, **({} if seed is None else {"seed": seed}),
        }  # fmt: skip
        answer = self._post(json.dumps(body).encode())
        try:
            decoded = json.loads(answer)
            choice, usage = decoded["choices"][0], decoded.get("usage") or {}
            text = choice["message"].get("content") or choice["message"].get("refusal") or ""
            counts = [int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
            return Completion(str(text), "length" if choice.get("finish_reason") == "length" else "end", *counts)
        except (ValueError, LookupError, TypeError, AttributeError):
            raise BdpoError(
                f"{self.url} answers with something other than a chat completion ({_excerpt(answer)}): "
                "check that the URL ends in the server's API root, often /v1."
            ) from None

    def _post(self, body: bytes) -> bytes:
        """The body of the answer with status 200; passing failures are tried again."""
        headers = {"Content-Type": "application/json"}
        if os.environ.get("OPENAI_API_KEY"):
            headers["Authorization"] = f"Bearer {os.environ['OPENAI_API_KEY']}"
        request = urllib.request.Request(f"{self.url}/chat/completions", data=body, headers=headers)
        failure = ""
        for attempt in range(self.retries + 1):
            try:
                with _OPENER.open(request, timeout=self.timeout) as answer:
                    return bytes(answer.read())
            except urllib.error.HTTPError as error:
                with error:
                    failure, asked = self._passing(error), _seconds(error.headers.get("Retry-After"))
            except (OSError, HTTPException) as error:  # refused, reset, cut off, too slow
                failure, asked = str(getattr(error, "reason", error)) or type(error).__name__, 0.0
            if attempt < self.retries:
                time.sleep(min(max(self.backoff * 2**attempt, asked), _LONGEST_WAIT))
        raise BdpoError(
            f"{self.url} still fails after {self.retries + 1} tries ({failure}): check that the server is up and "
            "run the same command again."
        )

    def _passing(self, error: urllib.error.HTTPError) -> str:
        """What a passing failure says; any other is raised as what the user can mend."""
        try:
            said = _excerpt(error.read())
        except (OSError, HTTPException):
            said = ""
        failure = f"HTTP {error.code}{said and ': ' + said}"
        if error.code in _PASSING or error.code >= 500:
            return failure
        mend = {
            401: "set OPENAI_API_KEY to a key that the server takes",
            403: "set OPENAI_API_KEY to a key that may use this model",
            404: f"check the URL and that the server knows a model '{self.model}'",
        }.get(error.code, "check the model's name and the generation settings")
        raise BdpoError(f"{self.url} refuses the request ({failure}): {mend}.")


class EndpointGenerator:
    """Replies of a model behind an endpoint; takes the place of `generate.LocalGenerator`.

    The server renders the prompts (what it makes of control tokens typed in them is its affair) and decides what ends
    a reply. It is asked `workers` things at once, so that it can batch them. Sampled replies are as repeatable as the
    server's seeds are.
    """

    may_cache = False  # a server may change the weights behind a name

    def __init__(self, endpoint: ChatEndpoint, workers: int = 16) -> None:
        self.endpoint, self.workers = endpoint, workers

    @property
    def key(self) -> dict[str, Any]:
        """What is known of what replies depend on."""
        return {"endpoint": self.endpoint.url, "model": self.endpoint.model}

    def fingerprint(self, messages: Sequence[Message], where: str = "") -> str:
        """A hash of the conversation."""
        return hashlib.sha256(json.dumps(list(messages), sort_keys=True).encode()).hexdigest()

    def replies(self, prompts: Prompts, sampling: Sampling, on_batch: OnBatch | None = None) -> dict[str, list[Reply]]:
        """All samples of every prompt, in the order of `prompts`; `on_batch` gets each reply as it comes.

        Raises:
            BdpoError: as `ChatEndpoint.complete`; what is still asked for then is given up.
        """
        asked = [(id, sample) for id in prompts for sample in range(sampling.samples)]
        made: dict[tuple[str, int], Reply] = {}
        pool = ThreadPoolExecutor(self.workers)
        try:
            futures: list[Future[Reply]] = [
                pool.submit(self._reply, id, sample, prompts[id], sampling) for id, sample in asked
            ]
            for future in tqdm(as_completed(futures), desc="replies", total=len(asked), unit="reply"):
                reply = future.result()
                made[reply.id, reply.sample] = reply
                if on_batch:
                    on_batch([reply])
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        return {id: [made[id, sample] for sample in range(sampling.samples)] for id in prompts}

    def _reply(self, id: str, sample: int, messages: Sequence[Message], sampling: Sampling) -> Reply:
        said = self.endpoint.complete(
            messages,
            max_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=sampling.seed_of(self.fingerprint(messages), sample) if sampling.temperature else None,
        )
        return Reply(id, sample, said.text, said.stop, said.prompt_tokens, said.tokens)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Redirects are errors: the key would travel on to wherever they point."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


def _excerpt(answer: bytes) -> str:
    """The message of an error in OpenAI's form, else the beginning of what came, in one line."""
    text = answer.decode(errors="replace")
    try:
        said = json.loads(text)
        error = said.get("error", said)
        text = str(error["message"] if isinstance(error, dict) and "message" in error else error)
    except (ValueError, AttributeError):
        pass
    text = " ".join(text.split()).rstrip(".")
    return text if len(text) <= 200 else f"{text[:200]}..."


def _seconds(header: str | None) -> float:
    """Retry-After in seconds; 0 where it is not there or a date."""
    try:
        return max(0.0, float(header or 0))
    except ValueError:
        return 0.0
