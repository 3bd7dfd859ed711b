"""Replies over OpenAI's chat completions (vLLM, llama.cpp, OpenAI).

Of the request body only the fields are used that all such servers know.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tqdm import tqdm

from bdpo.endpoint import PASSING, SILENT, WORKERS, Endpoint, PromptRefused, at_once, error_status
from bdpo.errors import BdpoError
from bdpo.evaluate.replies.collect import OnBatch, Prompts, Reply, Sampling, begun, opening_of
from bdpo.evaluate.replies.completions import FILTERED, Completion, is_filtered, read_completion
from bdpo.evaluate.replies.estimate import Calls
from bdpo.pairs import Message
from bdpo.terminal import bar, visible

_CONTINUED = {"continue_final_message": True, "add_generation_prompt": False}  # vLLM's fields
_CLOSED = {"continue_final_message": False, "add_generation_prompt": False}


class ChatEndpoint(Endpoint):
    """An OpenAI-compatible endpoint for conversations; may be used by several threads at once.

    Args:
        url, model, patience: as `Endpoint` takes them; `/chat/completions` is added to the URL.
        template_variables: sent as `chat_template_kwargs`, where there are any.
    """

    def __init__(
        self, url: str, model: str, *, template_variables: Mapping[str, Any] | None = None, **patience: Any
    ) -> None:
        super().__init__(url, model, **patience)
        self.more = {"chat_template_kwargs": dict(template_variables)} if template_variables else {}
        self._limit = "max_tokens"  # what the server calls the longest reply

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
        return self.patiently(lambda: self._once(body, max_tokens))

    def _once(self, body: Mapping[str, Any], max_tokens: int) -> Completion:
        limit = self._limit
        answer = self.send("/chat/completions", {**body, limit: max_tokens})
        if answer.status == 200 and (completion := read_completion(answer.body)) is not None:
            return completion
        failed = error_status(answer.body) if answer.status == 200 else answer.status
        if failed is None:
            raise self.something_else(answer, "a chat completion")
        if failed == 400 and limit == "max_tokens" and b"max_completion_tokens" in answer.body:
            self._limit = "max_completion_tokens"  # OpenAI's newer name, by which its newer models go
            return self._once(body, max_tokens)
        if 400 <= failed < 500 and failed not in {401, 404, *PASSING} and is_filtered(answer.body):
            return FILTERED
        raise self.refusal(replace(answer, status=failed))


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

        def ask(one: tuple[str, int]) -> Reply:
            return self._reply(*one, prompts[one[0]], sampling)

        with bar(self.what, len(asked), "reply", apart=SILENT) as progress:
            if any(map(opening_of, prompts.values())):
                list(at_once(lambda check: check(), [self._refuse_unless_it_continues], 1, progress.refresh))
            for _, reply in at_once(ask, asked, self.workers, progress.refresh):
                made[reply.id, reply.sample] = reply
                progress.update()
                if on_batch:
                    on_batch([reply])
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
