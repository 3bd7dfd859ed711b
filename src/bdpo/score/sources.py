"""Where stage 1 has its log-probabilities from: a model here, a server, or the server that made a folder before.

A source says what the numbers depend on (`key`), what else is known of it (`told`), which pairs it takes, and gives
the pass that the estimators ask.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from tqdm import tqdm

from bdpo.errors import BdpoError
from bdpo.files import read_json
from bdpo.forward.layout import Tree
from bdpo.forward.logprobs import choose_layout
from bdpo.forward.passes import Pass
from bdpo.forward.sharded import ShardedPass, sharded
from bdpo.models import known_as, weights_hash
from bdpo.pairs import PreferencePair
from bdpo.processes import processes, weights_are_sharded
from bdpo.score.estimators import Estimator
from bdpo.score.folder import is_served
from bdpo.score.served import ServedModel, ServedPass
from bdpo.terminal import bar
from bdpo.tokens import TokenizedPairs

if TYPE_CHECKING:
    from bdpo.score.scoring import ScoringOptions

TOLERANCE = 0.05  # nats/token: what bfloat16 may differ from float32 scores, before the first step of training too
_COMPARED = 4  # pairs


def weights_now(model: Any, training: dict[str, Any] | None) -> str:
    """The hash of the weights; that in the manifest of the training pairs' scores where this model made them."""
    return training["key"]["weights"] if training and not is_served(training) else weights_hash(model)


def source_of(model: Any, options: ScoringOptions, out: str | Path | None, training: dict[str, Any] | None) -> Source:
    """Who computes: the server where one is named, the one that made the folder `out`, else the model.

    Raises:
        BdpoError: as `ServedModel`, or the options ask for what a server does not give.
    """
    if options.endpoint is not None:
        if options.ches or options.estimator == "entropy":
            what = "CHES needs hidden states" if options.ches else "The estimator entropy needs all probabilities"
            raise BdpoError(f"{what}, which a server does not give: leave it out, or score the model itself.")
        return Served(model, ServedModel(options.endpoint, options.endpoint_model))
    if out is not None and (there := _made_by_server(Path(out))):
        return Made(Path(out), there)
    return Local(model, training, options.batch_tokens)


class Source:
    """What stage 1 needs to know of where its numbers come from."""

    key: dict[str, str]  # weights, dtype: part of `score_key`
    told: dict[str, Any]  # more for the manifest
    together = False  # whether all processes take part in every forward pass, also those that have no part to make

    def refuse_unfit(self, pairs: Sequence[PreferencePair], tokenized: TokenizedPairs, prefix: int) -> None:
        """Raise BdpoError where a pair is too long for the source, beside what `tokens.refuse_unfit` says."""

    def compare(self, tokenized: TokenizedPairs) -> None:
        """Raise BdpoError where the source is another model than the one here, as far as that can be seen."""

    @contextmanager
    def passes(self, progress: tqdm[Any], how: Estimator, longest: int) -> Iterator[Pass]:
        """The pass that an estimator asks; `longest` prefix + branch [tokens]."""
        raise NotImplementedError


@dataclass
class Local(Source):
    """A model in this process's memory; scored by shares where the launch's engine will share it out to train it."""

    model: Any
    training: dict[str, Any] | None = None
    batch_tokens: int | None = None

    def __post_init__(self) -> None:
        dtype = str(next(self.model.parameters()).dtype).removeprefix("torch.")
        self.key = {"weights": weights_now(self.model, self.training), "dtype": dtype}
        self.told = {"model": known_as(self.model)}
        self.together = weights_are_sharded() and not getattr(self.model, "is_quantized", False)

    @contextmanager
    def passes(self, progress: tqdm[Any], how: Estimator, longest: int) -> Iterator[Pass]:
        """The model in eval mode, as long as it is asked."""
        model = sharded(self.model) if self.together else self.model
        layout, why = choose_layout(model, longest)
        if layout == "padded":
            processes().print(f"Layout: padded, one reply a sequence, because {why}.")
        was_training = model.training
        model.eval()
        kind = ShardedPass if self.together else Pass
        frozen = kind(model, layout, progress, self.batch_tokens, how.entropy)
        yield frozen
        if isinstance(frozen, ShardedPass):
            frozen.join()
            del frozen, model
            gc.collect()  # its modules and their hooks hold each other, and the shares
        else:
            model.train(was_training)


@dataclass
class Served(Source):
    """A server; `model` is compared with it where it is more than a name."""

    model: Any
    server: ServedModel

    def __post_init__(self) -> None:
        self.key = {"weights": f"served as {self.server.name}", "dtype": "as served"}
        endpoint = {"url": self.server.url, "model": self.server.model, "root": self.server.root}
        self.told = {"model": known_as(self.model), "endpoint": endpoint}

    def refuse_unfit(self, pairs: Sequence[PreferencePair], tokenized: TokenizedPairs, prefix: int) -> None:
        """The server makes one token of its own behind what it is sent."""
        most = self.server.most or float("inf")
        for pair, ids in zip(pairs, tokenized.pairs, strict=True):
            length = max(len(ids.prompt_ids), prefix) + max(len(ids.chosen_ids), len(ids.rejected_ids))
            if length + 1 > most:
                raise BdpoError(
                    f"Pair {pair.id}: a prompt with a reply, {length} tokens, and one that the server makes are more "
                    f"than the {most} that {self.server.url} takes: lower data.max_length, or start the server with "
                    "a larger --max-model-len."
                )

    @torch.no_grad()
    def compare(self, tokenized: TokenizedPairs) -> None:
        """The first pairs, under the model here where there is one; training compares its first batch in any case."""
        if not isinstance(self.model, nn.Module) or weights_are_sharded():
            processes().print("The weights are not here to compare: training will compare its first batch.")
            return
        trees = [Tree(pair.prompt_ids, (pair.chosen_ids, pair.rejected_ids)) for pair in tokenized.pairs[:_COMPARED]]
        lengths = torch.tensor([len(branch) for tree in trees for branch in tree.branches])
        with bar("comparing the server", 2 * int(lengths.sum()), "tok", after=1.0, leave=False) as progress:
            was_training = self.model.training
            self.model.eval()
            here = Pass(self.model, "padded", progress).over(trees).logps
            self.model.train(was_training)
            there = ServedPass(self.server, "padded", progress).over(trees).logps
        gap = float(((there - here) / lengths).abs().nan_to_num(float("inf")).max())
        if gap > TOLERANCE:
            raise BdpoError(
                f"{self.server.url} serves another model, adapter or precision: its log-probabilities are up to "
                f"{gap:.3g} nats/token away from those of the weights here, and {TOLERANCE:g} is allowed."
            )
        processes().print(f"The server's log-probabilities are those of the weights here within {gap:.2g} nats/token.")

    @contextmanager
    def passes(self, progress: tqdm[Any], how: Estimator, longest: int) -> Iterator[Pass]:
        """One request a reply."""
        yield ServedPass(self.server, "padded", progress)


@dataclass
class Made(Source):
    """The server that made a folder, which is not asked again: the folder is taken as it is."""

    out: Path
    manifest: dict[str, Any]

    def __post_init__(self) -> None:
        self.key = {name: self.manifest["key"].get(name) for name in ("weights", "dtype")}
        self.told = {name: self.manifest.get(name) for name in ("model", "endpoint")}

    def compare(self, tokenized: TokenizedPairs) -> None:
        """Called where parts are missing, and none can be added from here."""
        raise BdpoError(
            f"{self.out} was scored by {self.told['endpoint']['url']} and is not whole: score it with --endpoint "
            "again, or name the server (score.endpoint)."
        )


def _made_by_server(out: Path) -> dict[str, Any] | None:
    """The manifest of a folder that a server made, where it can be read; None of any other."""
    try:
        manifest = read_json(out / "manifest.json", "", key=dict, endpoint=dict)
    except BdpoError:
        return None
    return manifest if isinstance(manifest["endpoint"].get("url"), str) else None
