"""Log-probabilities from a server: those of the tokens that it is sent, vLLM's `prompt_logprobs`.

Token ids go as ids, so that the server's tokenizer and chat template have no say. For a prefix and a response that
continues it, one request; its answer has one entry a token, null for the first, which nothing predicts:

    {"choices": [{"prompt_logprobs": [null, {"314": {"logprob": -1.25, "rank": 3}}, {"27": {"logprob": -0.5}}, ...]}]}

The form is that of vLLM's server (`CompletionRequest.prompt_logprobs`: with 0 the sent token is the only one of its
entry), which takes nothing of it from its prefix cache. vLLM writes -9999 for a probability of 0.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from bdpo.endpoint import Answer, Endpoint, at_once, error_status
from bdpo.errors import BdpoError, unknown
from bdpo.forward.layout import Ids, Tree
from bdpo.forward.logprobs import BranchLogps
from bdpo.forward.passes import Pass

_NONE_LEFT = -9999.0  # what vLLM writes for log 0, which JSON does not know
_LONGER = "lower data.max_length, or start the server with a larger --max-model-len"


class ServedModel(Endpoint):
    """A model behind a server, which is asked for its name; may be used by several threads at once.

    Args:
        url, patience: as `Endpoint` takes them.
        model: the name that the server knows the model by; None: the only one that it serves.

    Raises:
        BdpoError: the server does not answer, or serves no such model, or several where none is named.
    """

    def __init__(self, url: str, model: str | None = None, **patience: Any) -> None:
        super().__init__(url, model or "", **patience)
        cards = self.patiently(self._cards)
        if model is None and len(cards) > 1:
            names = ", ".join(cards)
            raise BdpoError(f"{self.url} serves several models ({names}): name one with --endpoint-model.")
        if model is not None and model not in cards:
            raise unknown(f"model of {self.url},", model, cards)
        self.model, card = (model, cards[model]) if model is not None else next(iter(cards.items()))
        root, most = card.get("root"), card.get("max_model_len")
        self.root = root if isinstance(root, str) else ""
        self.most = most if isinstance(most, int) else None  # tokens of a request, the one that is made included

    @property
    def name(self) -> str:
        """What the server calls the model, and what it loaded it from where it says so."""
        return f"{self.model} ({self.root})" if self.root not in ("", self.model) else self.model

    def logps(self, prefix: Ids, branch: Ids) -> float:
        """Log-probability of a branch after its prefix [nats]; NaN where one of a token is no number or none is left.

        Raises:
            BdpoError: as `Endpoint.patiently`; the request is refused; or the answer has no log-probabilities of the
                tokens that were sent.
        """
        ids = [*map(int, prefix), *map(int, branch)]
        body = {"model": self.model, "prompt": ids, "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0}
        given = self.patiently(partial(self._given, body))
        if len(given) != len(ids):
            raise BdpoError(
                f"{self.url} gives log-probabilities of {len(given)} tokens where {len(ids)} were sent: it cuts what "
                f"it is sent, or adds to it; {_LONGER}."
            )
        return math.fsum(self._of_token(given[at], ids[at], at) for at in range(len(prefix), len(ids)))

    def _given(self, body: dict[str, Any]) -> list[Any]:
        answer = self.send("/completions", body)
        if answer.status != 200 or error_status(answer.body) is not None:
            failed = answer.status if answer.status != 200 else error_status(answer.body)
            raise self.refusal(Answer(failed or 400, answer.body, answer.pause), f"{_LONGER}; or see what it says")
        decoded = _decoded(answer.body)
        choices = decoded.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise self.something_else(answer, "a completion")
        given = choices[0].get("prompt_logprobs")
        if not isinstance(given, list):
            raise BdpoError(
                f"{self.url} gives no log-probabilities of the tokens that it is sent (prompt_logprobs): take vLLM's "
                "server, or score the model itself, without --endpoint."
            )
        return given

    def _of_token(self, entry: Any, token: int, at: int) -> float:
        found = entry.get(str(token)) if isinstance(entry, dict) else None
        logprob = found.get("logprob") if isinstance(found, dict) else None
        if found is None or not isinstance(logprob, int | float | None):
            raise BdpoError(
                f"{self.url} gives no log-probability of token {token} at place {at}, where it was sent: serve the "
                "model whose tokenizer --model has."
            )
        fit = logprob is not None and _NONE_LEFT < logprob <= 1e-3  # NaN fits nothing
        return float(logprob) if fit and logprob is not None else math.nan

    def _cards(self) -> dict[str, dict[str, Any]]:
        """What the server says of each model that it serves, by name."""
        answer = self.send("/models")
        if answer.status != 200:
            raise self.refusal(answer, "check the URL")
        cards = _decoded(answer.body).get("data")
        if not isinstance(cards, list) or not all(isinstance(c, dict) and isinstance(c.get("id"), str) for c in cards):
            raise self.something_else(answer, "a list of its models")
        if not cards:
            raise BdpoError(f"{self.url} serves no model: start it with one.")
        return {card["id"]: card for card in cards}


@dataclass(frozen=True)
class ServedPass(Pass):
    """A `Pass` whose sums a server gives: one request a branch, several at once. `model` is a `ServedModel`."""

    def over(self, trees: Sequence[Tree], *, hidden: bool = False) -> BranchLogps:
        """Branch sums of all trees, in their order."""
        asked = [(tree.prefix, branch) for tree in trees for branch in tree.branches]
        logps = torch.zeros(len(asked), dtype=torch.float64)
        for i, found in at_once(lambda one: self.model.logps(*one), asked, idle=self.progress.refresh):
            logps[i] = found
            self.progress.update(len(asked[i][1]))
        return BranchLogps(logps, None)


def _decoded(body: bytes) -> dict[str, Any]:
    try:
        decoded = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return decoded if isinstance(decoded, dict) else {}
