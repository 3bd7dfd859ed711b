"""Stage 1: one pass of the frozen model over the data -> a scored data set (see `bdpo.scored` for the folder)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from bdpo.allocator import keep_freed_memory
from bdpo.comprehension import contrastive_marginal, entropy_drop, pmi
from bdpo.errors import BdpoError
from bdpo.layout import Ids, Layout, Tree, bucket, hang, lay_out
from bdpo.logprobs import BranchLogps, branch_logps, choose_layout
from bdpo.models import cache_dir, processes, weights_hash
from bdpo.pairs import PreferencePair
from bdpo.scored import FORMAT, ScoredData, claim, is_whole, open_scores, part_path, write_part
from bdpo.tokens import TokenizedPair, TokenizedPairs, refuse_unfit, tokenize_pairs, tokenizer_key

PART_SIZE = 128  # pairs: what a killed run may lose; another size is another FORMAT
CONTRASTIVE_PROMPTS = 8
_ROW_TOKENS = 512  # longest row that replies are hung on one prefix in: attention grows with its square


@dataclass(frozen=True)
class Pass:
    """The frozen model and how batches are made for it; hands out sums of log-probabilities and entropies."""

    model: Any
    layout: Layout
    progress: tqdm[Any]
    # tokens a forward pass may hold; None: 1024 on a CPU, whose caches favour little, 8192 elsewhere
    batch_tokens: int | None = None
    entropy: bool = False

    def over(self, trees: Sequence[Tree]) -> BranchLogps:
        """Branch sums of all trees, in their order; batches are made of trees of like length."""
        if self.layout == "padded":  # one branch a sequence, and that is what its tokens are
            trees = [Tree(tree.prefix, [branch]) for tree in trees for branch in tree.branches]
        starts = [0, *accumulate(len(tree.branches) for tree in trees)]
        logps = torch.zeros(starts[-1], dtype=torch.float64)
        entropies = torch.zeros_like(logps) if self.entropy else None
        device = next(self.model.parameters()).device
        if device.type == "cpu":
            keep_freed_memory()
        budget = self.batch_tokens or (1024 if device.type == "cpu" else 8192)
        lengths = [len(tree) for tree in trees]
        for members in bucket(lengths, budget, padded=self.layout == "padded"):
            batch = lay_out([trees[i] for i in members], layout=self.layout).to(device)
            sums = branch_logps(self.model, batch, entropy=self.entropy)
            places = torch.cat([torch.arange(starts[i], starts[i + 1]) for i in members])
            logps[places] = sums.logps.cpu().double()
            if entropies is not None and sums.entropies is not None:
                entropies[places] = sums.entropies.cpu().double()
            self.progress.update(int(batch.lengths.sum()))
        return BranchLogps(logps, entropies)

    def conditional(self, prompts: Sequence[Ids], replies: Sequence[Ids]) -> BranchLogps:
        """Sums (2n,) of n pairs, each a tree on its own prompt; `replies` are n chosen, then n rejected."""
        n = len(prompts)
        sums = self.over([Tree(prompts[i], (replies[i], replies[n + i])) for i in range(n)])
        order = torch.arange(2 * n).view(n, 2).T.flatten()  # from chosen, rejected, chosen ... to all chosen first
        return _ordered(sums, order)

    def on(self, prefix: Ids, replies: Sequence[Ids]) -> BranchLogps:
        """Sums of many replies that hang on one prefix, in the order of `replies`."""
        hung = hang(prefix, replies, max(_ROW_TOKENS, 2 * len(prefix)))
        sums = self.over([tree for _, tree in hung])
        order = torch.tensor([i for members, _ in hung for i in members]).argsort()
        return _ordered(sums, order)


def _ordered(sums: BranchLogps, order: Tensor) -> BranchLogps:
    return BranchLogps(sums.logps[order], None if sums.entropies is None else sums.entropies[order])


@dataclass(frozen=True)
class Context:
    """What an estimator may use beside the pairs at hand."""

    null_ids: Ids
    prompts: Sequence[Ids] = ()  # contrastive: one more than is used, so that a pair's own prompt can be left out
    texts: Sequence[str] = ()  # of those prompts, whole: truncation may cut one text to several lists of ids
    own: Sequence[int] = ()  # for each pair at hand which of them is its own prompt, or -1


# (pass, n prompts, 2n replies: chosen, then rejected; context)
#   -> conditional (2n,) [nats], marginal (2n,) [nats], comprehension (2n,) [nats/token]
Measure = Callable[[Pass, Sequence[Ids], Sequence[Ids], Context], tuple[Tensor, Tensor, Tensor]]


@dataclass(frozen=True)
class Estimator:
    """How comprehension is measured."""

    measure: Measure
    passes: int  # how often each response token is computed, for the progress bar
    entropy: bool = False  # needs predictive entropies
    prompts: bool = False  # needs other prompts of the data set


def _by_pmi(run: Pass, prompts: Sequence[Ids], replies: Sequence[Ids], context: Context) -> tuple[Tensor, ...]:
    cond, marg = run.conditional(prompts, replies).logps, run.on(context.null_ids, replies).logps
    return cond, marg, pmi(cond, marg, _lengths(replies))


def _by_entropy(run: Pass, prompts: Sequence[Ids], replies: Sequence[Ids], context: Context) -> tuple[Tensor, ...]:
    cond, marg = run.conditional(prompts, replies), run.on(context.null_ids, replies)
    assert cond.entropies is not None and marg.entropies is not None
    return cond.logps, marg.logps, entropy_drop(cond.entropies, marg.entropies, _lengths(replies))


def _by_contrast(run: Pass, prompts: Sequence[Ids], replies: Sequence[Ids], context: Context) -> tuple[Tensor, ...]:
    cond = run.conditional(prompts, replies).logps
    others = torch.stack([run.on(prompt, replies).logps for prompt in context.prompts])  # (K + 1, 2n)
    kept = [  # of the K + 1 prompts, for each reply K that are not its own
        [k for k in range(len(context.prompts)) if k != own][:CONTRASTIVE_PROMPTS]
        for own in (*context.own, *context.own)
    ]
    marg = contrastive_marginal(others.gather(0, torch.tensor(kept).T))
    return cond, marg, pmi(cond, marg, _lengths(replies))


ESTIMATORS = {
    "pmi": Estimator(_by_pmi, passes=2),  # type: ignore[arg-type]
    "entropy": Estimator(_by_entropy, passes=2, entropy=True),  # type: ignore[arg-type]
    "contrastive": Estimator(_by_contrast, passes=CONTRASTIVE_PROMPTS + 2, prompts=True),  # type: ignore[arg-type]
}


def score(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[PreferencePair],
    out: str | Path | None = None,
    *,
    estimator: str = "pmi",
    max_length: int | None = 1024,
    batch_tokens: int | None = None,
    seed: int = 0,
    model_name: str = "",
    training: dict[str, Any] | None = None,
) -> ScoredData:
    """Score every pair under the frozen `model` and write the folder `out`; parts already there are kept.

    Without `out` the folder lies in the cache, named by what the scores depend on, so that no work is done twice.

    Under `accelerate launch` or `torchrun` the processes share the parts. The model is scored as it is handed in:
    an adapter that is on stays on.

    Args:
        estimator: a name of `ESTIMATORS`.
        max_length: longest prompt + longer reply [tokens].
        batch_tokens: tokens a forward pass may hold; changes speed and memory, not the numbers. None: 1024 on a
            CPU, whose caches favour little, 8192 elsewhere.
        seed: draws the prompts of the contrastive estimator.
        training: for held-out pairs, the manifest of the training pairs' scores, made of the model as it is now: its
            contrastive prompts are used, and the weights are not hashed again.

    Raises:
        BdpoError: unknown estimator, unfit pairs, `out` holds scores that depend on something else, or not writable.
    """
    if estimator not in ESTIMATORS:
        raise BdpoError(f"Unknown estimator '{estimator}': use one of {', '.join(ESTIMATORS)}.")
    how = ESTIMATORS[estimator]
    tokenized = tokenize_pairs(tokenizer, pairs, max_length=max_length)
    if training and training["key"]["estimator"] == estimator:
        others = training["other_prompts"]
    else:
        others = _other_prompts(pairs, tokenized, seed) if how.prompts else {}
    context = Context(tokenized.null_ids, list(others.values()), list(others))
    refuse_unfit(tokenizer, pairs, tokenized, model.config, prefix=_longest_prefix(context))
    weights = training["key"]["weights"] if training else weights_hash(model)
    manifest = {
        "format": FORMAT,
        "key": score_key(model, weights, pairs, tokenized, estimator, context, max_length),
        "model": model_name,
        "pairs": len(pairs),
        "parts": -(-len(pairs) // PART_SIZE),
        "max_length": max_length,
        "truncation": tokenized.counts,
        "other_prompts": others,  # of the contrastive estimator: text -> ids
        "tokenizer": tokenizer_key(tokenizer),
        "versions": {name: version(name) for name in ("bdpo", "torch", "transformers")},
    }
    out = cache_dir() / "scores" / key_digest(manifest["key"]) if out is None else Path(out)
    state = processes()
    with state.main_process_first():
        claim(out, manifest)
    missing = [part for part in range(manifest["parts"]) if not is_whole(part_path(out, part))]
    state.wait_for_everyone()  # all look before any writes, so that all share the same list
    mine = missing[state.process_index :: state.num_processes]
    if mine:
        what = "scoring held-out pairs" if training else "scoring"
        _make_parts(model, pairs, tokenized, mine, out, how, context, batch_tokens, what)
    state.wait_for_everyone()
    return open_scores(out)


@torch.no_grad()
def _make_parts(
    model: Any, pairs: Sequence[PreferencePair], tokenized: TokenizedPairs, parts: list[int], out: Path,
    how: Estimator, context: Context, batch_tokens: int | None, what: str,
) -> None:  # fmt: skip
    layout, why = choose_layout(model, _longest(tokenized, context))
    if layout == "padded":
        processes().print(f"Layout: padded, one reply a sequence, because {why}.")
    was_training = model.training
    model.eval()
    members = {part: range(part * PART_SIZE, min((part + 1) * PART_SIZE, len(pairs))) for part in parts}
    tokens = sum(_reply_tokens(tokenized.pairs[i]) for part in parts for i in members[part])
    with tqdm(desc=what, total=how.passes * tokens, unit="tok", disable=not processes().is_main_process) as progress:
        run = Pass(model, layout, progress, batch_tokens, how.entropy)
        for part in parts:
            mine = [pairs[i] for i in members[part]]
            ids = [tokenized.pairs[i] for i in members[part]]
            replies = [pair.chosen_ids for pair in ids] + [pair.rejected_ids for pair in ids]
            own = [context.texts.index(text) if text in context.texts else -1 for text in map(_prompt_text, mine)]
            at_hand = replace(context, own=own)
            measured = torch.stack(how.measure(run, [pair.prompt_ids for pair in ids], replies, at_hand))
            columns = measured.view(3, 2, -1)  # conditional, marginal, comprehension of chosen, rejected
            _refuse_non_finite(mine, columns)
            write_part(part_path(out, part), list(_rows(mine, ids, columns)))
    model.train(was_training)


def _rows(pairs: list[PreferencePair], ids: list[TokenizedPair], columns: Tensor) -> Iterator[dict[str, Any]]:
    for pair, tokens, (cond, marg, mi) in zip(pairs, ids, columns.permute(2, 0, 1).tolist(), strict=True):
        yield {
            "id": pair.id,
            "prompt_ids": tokens.prompt_ids,
            "chosen_ids": tokens.chosen_ids,
            "rejected_ids": tokens.rejected_ids,
            "ref_chosen_logps": cond[0],
            "ref_rejected_logps": cond[1],
            "chosen_marginal_logps": marg[0],
            "rejected_marginal_logps": marg[1],
            "chosen_mi": mi[0],
            "rejected_mi": mi[1],
            "chosen_safe": pair.chosen_safe,
            "rejected_safe": pair.rejected_safe,
            "category": list(pair.category),
            "source": pair.source,
        }


def score_key(
    model: Any,
    weights: str,
    pairs: Sequence[PreferencePair],
    tokenized: TokenizedPairs,
    estimator: str,
    context: Context,
    max_length: int | None = None,
) -> dict[str, Any]:
    """What the numbers depend on, and nothing else: not the layout, the batch size, beta or the temperature.

    Of the tokenizer and its template, that is the ids that they made of these pairs.
    """
    digest = hashlib.sha256()
    for pair, ids in zip(pairs, tokenized.pairs, strict=True):
        labels = (pair.id, pair.chosen_safe, pair.rejected_safe, pair.category, pair.source)
        digest.update(repr((labels, ids.prompt_ids, ids.chosen_ids, ids.rejected_ids)).encode())
    return {
        "weights": weights,
        "rows": digest.hexdigest(),  # tokenised ids after truncation, and the labels that travel with them
        "truncation": max_length if tokenized.counts else None,  # a ceiling that cut nothing changes nothing
        "estimator": estimator,
        "null_prompt": list(tokenized.null_ids),
        "contrastive_prompts": [list(prompt) for prompt in context.prompts],
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
    }


def key_digest(key: dict[str, Any]) -> str:
    """A short name for a key."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:20]


def _other_prompts(pairs: Sequence[PreferencePair], tokenized: TokenizedPairs, seed: int) -> dict[str, Ids]:
    """K + 1 prompts of the data set, drawn by `seed`: their whole text, and their ids."""
    ids = {_prompt_text(pair): done.prompt_ids for pair, done in zip(pairs, tokenized.pairs, strict=True)}
    if len(ids) <= CONTRASTIVE_PROMPTS:
        raise BdpoError(
            f"The contrastive estimator needs {CONTRASTIVE_PROMPTS + 1} different prompts and the data has "
            f"{len(ids)}: use another estimator."
        )
    return {text: ids[text] for text in Random(seed).sample(sorted(ids), CONTRASTIVE_PROMPTS + 1)}


def _prompt_text(pair: PreferencePair) -> str:
    return json.dumps(pair.prompt)


def _longest(tokenized: TokenizedPairs, context: Context) -> int:
    """Longest prefix + branch that will be laid out [tokens]."""
    shared = _longest_prefix(context)
    return max(max(len(p.prompt_ids), shared) + max(len(p.chosen_ids), len(p.rejected_ids)) for p in tokenized.pairs)


def _longest_prefix(context: Context) -> int:
    """Longest of the prompts that every reply is hung on beside its own [tokens]."""
    return max(len(prefix) for prefix in (context.null_ids, *context.prompts))


def _lengths(replies: Sequence[Ids]) -> Tensor:
    return torch.tensor([len(reply) for reply in replies])


def _reply_tokens(pair: TokenizedPair) -> int:
    return len(pair.chosen_ids) + len(pair.rejected_ids)


def _refuse_non_finite(pairs: Sequence[PreferencePair], columns: Tensor) -> None:
    bad = (~columns.isfinite()).any(0).any(0).nonzero().flatten().tolist()
    if bad:
        names = ", ".join(pairs[i].id for i in bad[:5])
        raise BdpoError(f"The model gives non-finite log-probabilities to pairs {names}: score them in float32.")
