"""Stage 1: one pass of the frozen model over the data -> a scored data set (see `bdpo.score.folder` for the folder)."""

from __future__ import annotations

import hashlib
import json
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from bdpo.errors import BdpoError, chosen_by, unknown
from bdpo.files import cache_dir, key_digest
from bdpo.forward.layout import Ids
from bdpo.method.ches import ches
from bdpo.pairs import PreferencePair
from bdpo.processes import processes
from bdpo.score.estimators import CONTRASTIVE_PROMPTS, ESTIMATORS, Context, Estimator
from bdpo.score.folder import CHES, FORMAT, ScoredData, claim, is_whole, open_scores, part_path, write_part
from bdpo.score.sources import Source, source_of
from bdpo.terminal import bar
from bdpo.tokens import TokenizedPair, TokenizedPairs, refuse_unfit, tokenize_pairs, tokenizer_key

PART_SIZE = 128  # pairs: what a killed run may lose; another size is another FORMAT


@dataclass(frozen=True)
class ScoringOptions:
    """What stage 1 may be told."""

    estimator: str = "pmi"  # a name of `ESTIMATORS`
    max_length: int | None = 1024  # longest prompt + longer response [tokens]
    # tokens a forward pass may hold; changes speed and memory, not the numbers. None: by the device
    batch_tokens: int | None = None
    seed: int = 0  # draws the prompts of the contrastive estimator
    ches: bool = False  # measure the similarity of a pair's responses as well (see `bdpo.method.ches`)
    endpoint: str | None = None  # URL of a server that gives the log-probabilities in place of the model
    endpoint_model: str | None = None  # what it calls the model; None: the only one that it serves


def score(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[PreferencePair],
    out: str | Path | None = None,
    options: ScoringOptions = ScoringOptions(),  # frozen
    *,
    training: dict[str, Any] | None = None,
    elsewhere: str = "choose another --out",
    **changed: Any,
) -> ScoredData:
    """Score every pair under the frozen `model` and write the folder `out`; parts already there are kept.

    Without `out` the folder lies in the cache, named by what the scores depend on, so that no work is done twice.

    Under `accelerate launch` or `torchrun` the processes share the parts. The model is scored as it is handed in:
    an adapter that is on stays on. With `endpoint` a server gives the log-probabilities (see `bdpo.score.served`), and
    `model` may be a name and a config (`models.without_weights`); a folder so made is taken without the server too.

    Args:
        training: for held-out pairs, the manifest of the training pairs' scores, made of the model as it is now: its
            contrastive prompts are used, and the weights are not hashed again.
        elsewhere: how to choose another `out`, for the sentence that refuses it.
        changed: fields of `options` given one by one.

    Raises:
        BdpoError: unknown estimator, unfit pairs, `out` holds scores that depend on something else, or not writable;
            or the server cannot be asked, serves another model than this one, or gives no log-probabilities.
    """
    options = replace(options, **changed)
    if options.estimator not in ESTIMATORS:
        raise unknown("estimator", options.estimator, ESTIMATORS)
    tokenized = tokenize_pairs(tokenizer, pairs, max_length=options.max_length)
    context = _context(pairs, tokenized, options, training)
    refuse_unfit(tokenizer, pairs, tokenized, model.config, prefix=_longest_prefix(context))
    source = source_of(model, options, None if out is None else Path(out), training)
    source.refuse_unfit(pairs, tokenized, _longest_prefix(context))
    manifest = _manifest(source, tokenizer, pairs, tokenized, context, options)
    if out is None:
        out, elsewhere = cache_dir() / "scores" / key_digest(manifest["key"]), "set BDPO_CACHE to another folder"
    out = Path(out)
    state = processes()
    with state.main_process_first(), chosen_by(elsewhere):
        claim(out, manifest)
    missing = [part for part in range(manifest["parts"]) if not is_whole(part_path(out, part), manifest["key"])]
    state.wait_for_everyone()  # all look before any writes, so that all share the same list
    mine = missing[state.process_index :: state.num_processes]
    if mine or (missing and source.together):
        source.compare(tokenized)
        what = "scoring held-out pairs" if training else "scoring training pairs"
        with chosen_by(elsewhere):
            _make_parts(source, pairs, tokenized, mine, out, context, options, what)
    state.wait_for_everyone()
    with state.main_process_first(), chosen_by(elsewhere):  # it makes the memory-mapped copy
        return replace(open_scores(out), scored_by=weakref.ref(model))


def _manifest(
    source: Source, tokenizer: PreTrainedTokenizerBase, pairs: Sequence[PreferencePair], tokenized: TokenizedPairs,
    context: Context, options: ScoringOptions,
) -> dict[str, Any]:  # fmt: skip
    return {
        "format": FORMAT,
        "key": score_key(source.key, pairs, tokenized, options.estimator, context, options.max_length)
        | ({"ches": True} if options.ches else {}),  # so that scores without it stay what they were
        **source.told,
        "pairs": len(pairs),
        "parts": -(-len(pairs) // PART_SIZE),
        "max_length": options.max_length,
        "truncation": tokenized.counts,
        "other_prompts": dict(zip(context.texts, context.prompts, strict=True)),  # of the contrastive estimator
        "tokenizer": tokenizer_key(tokenizer),
        "versions": {name: version(name) for name in ("bdpo", "torch", "transformers")},
    }


@torch.no_grad()
def _make_parts(
    source: Source, pairs: Sequence[PreferencePair], tokenized: TokenizedPairs, parts: list[int], out: Path,
    context: Context, options: ScoringOptions, what: str,
) -> None:  # fmt: skip
    how: Estimator = ESTIMATORS[options.estimator]
    members = {part: range(part * PART_SIZE, min((part + 1) * PART_SIZE, len(pairs))) for part in parts}
    tokens = sum(_reply_tokens(tokenized.pairs[i]) for part in parts for i in members[part])
    longest = _longest(tokenized, context)
    with bar(what, how.passes * tokens, "tok") as progress, source.passes(progress, how, longest) as frozen:
        for part in parts:
            mine = [pairs[i] for i in members[part]]
            ids = [tokenized.pairs[i] for i in members[part]]
            replies = [pair.chosen_ids for pair in ids] + [pair.rejected_ids for pair in ids]
            own = [context.texts.index(text) if text in context.texts else -1 for text in map(_prompt_text, mine)]
            at_hand = replace(context, own=own)
            cond = frozen.conditional([pair.prompt_ids for pair in ids], replies, hidden=options.ches)
            measured = torch.stack([cond.logps, *how.measure(frozen, cond, replies, at_hand)])
            columns = measured.view(3, 2, -1)  # conditional, marginal, comprehension of chosen, rejected
            _refuse_non_finite(mine, columns)
            similar = _similarities(cond.hidden, replies)
            write_part(part_path(out, part), list(_rows(mine, ids, columns, similar)))


def _rows(
    pairs: list[PreferencePair], ids: list[TokenizedPair], columns: Tensor, similar: list[dict[str, float]]
) -> Iterator[dict[str, Any]]:
    measured = columns.permute(2, 0, 1).tolist()
    for pair, tokens, (cond, marg, mi), ches_columns in zip(pairs, ids, measured, similar, strict=True):
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
            "prompt_kind": pair.prompt_kind,
            **ches_columns,
        }


def _similarities(hidden: Tensor | None, replies: Sequence[Ids]) -> list[dict[str, float]]:
    """The columns of CHES of each pair, from the sums (2n, D) of n chosen, then n rejected replies; none of none."""
    if hidden is None:
        return [{} for _ in range(len(replies) // 2)]
    lengths = torch.tensor([len(reply) for reply in replies])[:, None]
    plain, normalised = (ches(*states.chunk(2)).tolist() for states in (hidden, hidden.double() / lengths))
    return [dict(zip(CHES, both, strict=True)) for both in zip(plain, normalised, strict=True)]


def score_key(
    source: dict[str, str],
    pairs: Sequence[PreferencePair],
    tokenized: TokenizedPairs,
    estimator: str,
    context: Context,
    max_length: int | None = None,
) -> dict[str, Any]:
    """What the numbers depend on, and nothing else: not the layout, the batch size, beta or the temperature.

    Of the tokenizer and its template, that is the ids that they made of these pairs. `source` has the hash of the
    weights, or what a server calls them, and their dtype.
    """
    digest = hashlib.sha256()
    for pair, ids in zip(pairs, tokenized.pairs, strict=True):
        labels: tuple[Any, ...] = (pair.id, pair.chosen_safe, pair.rejected_safe, pair.category, pair.source)
        labels += (pair.prompt_kind,) if pair.prompt_kind else ()  # so that scores without any stay what they were
        digest.update(repr((labels, ids.prompt_ids, ids.chosen_ids, ids.rejected_ids)).encode())
    return {
        **source,
        "rows": digest.hexdigest(),  # tokenised ids after truncation, and the labels that travel with them
        "truncation": max_length if tokenized.counts else None,  # a ceiling that cut nothing changes nothing
        "estimator": estimator,
        "null_prompt": list(tokenized.null_ids),
        "contrastive_prompts": [list(prompt) for prompt in context.prompts],
    }


def _context(
    pairs: Sequence[PreferencePair], tokenized: TokenizedPairs, options: ScoringOptions, training: dict[str, Any] | None
) -> Context:
    """The null prompt, and other prompts where the estimator needs them: the training pairs' for held-out ones."""
    others: dict[str, Ids] = {}
    if training and training["key"]["estimator"] == options.estimator:
        others = training["other_prompts"]
    elif ESTIMATORS[options.estimator].prompts:
        others = _other_prompts(pairs, tokenized, options.seed)
    return Context(tokenized.null_ids, list(others.values()), list(others))


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
    """Longest of the prompts that every response is hung on beside its own [tokens]."""
    return max(len(prefix) for prefix in (context.null_ids, *context.prompts))


def _reply_tokens(pair: TokenizedPair) -> int:
    return len(pair.chosen_ids) + len(pair.rejected_ids)


def _refuse_non_finite(pairs: Sequence[PreferencePair], columns: Tensor) -> None:
    bad = (~columns.isfinite()).any(0).any(0).nonzero().flatten().tolist()
    if bad:
        names = ", ".join(pairs[i].id for i in bad[:5])
        raise BdpoError(f"The model gives non-finite log-probabilities to pairs {names}: score them in float32.")
