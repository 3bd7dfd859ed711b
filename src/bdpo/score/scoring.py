"""Stage 1: one pass of the frozen model over the data -> a scored data set (see `bdpo.score.folder` for the folder)."""

from __future__ import annotations

import hashlib
import json
import math
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from bdpo.errors import BdpoError, chosen_by, unknown
from bdpo.files import cache_dir, key_digest
from bdpo.forward.layout import Ids
from bdpo.forward.logprobs import BranchLogps
from bdpo.forward.passes import Pass
from bdpo.method.ches import ches
from bdpo.pairs import PreferencePair
from bdpo.processes import processes
from bdpo.score.estimators import CONTRASTIVE_PROMPTS, ESTIMATORS, NONE, Context, Estimator
from bdpo.score.folder import (
    CHES,
    FORMAT,
    HASH,
    MEASURED,
    REFERENCE,
    ScoredData,
    claim,
    missing_parts,
    open_scores,
    part_path,
    read_manifest,
    serving,
    write_part,
)
from bdpo.score.known import ids_hash, known_values
from bdpo.score.sources import Source, source_of
from bdpo.terminal import bar, visible
from bdpo.tokens import TokenizedPair, TokenizedPairs, refuse_unfit, tokenize_pairs, tokenizer_key

PART_SIZE = 128  # pairs: what a killed run may lose; another size is another FORMAT


@dataclass(frozen=True)
class ScoringOptions:
    """What stage 1 may be told."""

    estimator: str = "pmi"  # a name of `ESTIMATORS`; none: scores with any other serve as well
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

    Pairs that were scored before under the same weights, in folders beside `out`, are taken from there, and only the
    rest is computed. Without `out` the folder lies in the cache, named by what the scores depend on, so that no work is
    done twice. With the estimator `none` scores of the same pairs with comprehension are taken where they are there.

    Under `accelerate launch` or `torchrun` the processes share the parts. The model is scored as it is handed in:
    an adapter that is on stays on. `bdpo.score.sources` says who computes; with a server it may be `models.Unloaded`.

    Args:
        training: for held-out pairs, the manifest of the training pairs' scores, made of the model as it is now: its
            contrastive prompts are used, and the weights are not hashed again.
        elsewhere: how to choose another `out`, for the sentence that refuses it.
        changed: fields of `options` given one by one.

    Raises:
        BdpoError: unknown estimator, unfit pairs, an `out` that holds something else or is not writable, or a server's.
    """
    options = replace(options, **changed)
    if options.estimator not in ESTIMATORS:
        raise unknown("estimator", options.estimator, ESTIMATORS)
    tokenized = tokenize_pairs(tokenizer, pairs, max_length=options.max_length)
    context = _context(pairs, tokenized, options, training)
    refuse_unfit(tokenizer, pairs, tokenized, model.config, prefix=_longest_prefix(context))
    source = source_of(model, options, out, training)
    source.refuse_unfit(pairs, tokenized, _longest_prefix(context))
    manifest, state = _manifest(source, tokenizer, pairs, tokenized, context, options), processes()
    if options.estimator == NONE and (there := _measured(out, manifest["key"])):
        out, manifest = there, read_manifest(there)
        others = manifest["other_prompts"]
        context = Context(manifest["key"]["null_prompt"], list(others.values()), list(others))
        options = replace(options, estimator=manifest["key"]["estimator"])
    if out is None:
        out, elsewhere = cache_dir() / "scores" / key_digest(manifest["key"]), "set BDPO_CACHE to another folder"
    out = Path(out)
    with state.main_process_first(), chosen_by(elsewhere):
        claim(out, manifest)
    missing = missing_parts(out, manifest)
    known, hashes = _known(out, manifest, tokenized, missing, options)
    state.wait_for_everyone()  # all look before any writes, so that all share the same list
    mine = missing[state.process_index :: state.num_processes]
    if mine or (missing and source.together):
        source.compare(tokenized)
        what = "held-out" if training else "training"
        with chosen_by(elsewhere):
            _make_parts(source, pairs, tokenized, mine, out, context, options, known, hashes, f"scoring {what} pairs")
    state.wait_for_everyone()
    with state.main_process_first(), chosen_by(elsewhere):  # it makes the memory-mapped copy
        return replace(open_scores(out), scored_by=weakref.ref(model))


def _measured(out: str | Path | None, key: dict[str, Any]) -> Path | None:
    """Scores with comprehension that serve where none is asked for: begun in `out`, or whole ones in the cache."""
    if out is not None:
        found = serving([Path(out)], key)
    else:
        there = serving((cache_dir() / "scores").glob("*"), key)
        found = [folder for folder in there if not missing_parts(folder, read_manifest(folder))]
    first: list[Path | None] = [*found[:1], None][:1]
    broadcast_object_list(first)  # another run may have made some meanwhile, and all processes must go one way
    return first[0]


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
    context: Context, options: ScoringOptions, known: Tensor, hashes: Mapping[int, str], what: str,
) -> None:  # fmt: skip
    how: Estimator = ESTIMATORS[options.estimator]
    longest = _longest(tokenized, context)
    rows = {part: _members(part, len(pairs)) for part in parts}
    work = sum(_work(tokenized, known, members, how) for members in rows.values())
    with bar(what, work, "tok") as progress, source.passes(progress, how, longest) as frozen:
        for part, members in rows.items():
            mine, ids = [pairs[i] for i in members], [tokenized.pairs[i] for i in members]
            own = [context.texts.index(text) if text in context.texts else -1 for text in map(_prompt_text, mine)]
            values = _completed(frozen, how, ids, replace(context, own=own), known[list(members)], options.ches)
            _refuse_non_finite(mine, values)
            marks = [hashes[i] for i in members]
            write_part(part_path(out, part), list(_rows(mine, ids, marks, _columns(options), values)))


def _members(part: int, pairs: int) -> range:
    return range(part * PART_SIZE, min((part + 1) * PART_SIZE, pairs))


def _columns(options: ScoringOptions) -> tuple[str, ...]:
    """The columns that are computed, those of a pass on the pairs' own prompts first."""
    return REFERENCE + (CHES if options.ches else ()) + (MEASURED if options.estimator != NONE else ())


def _known(
    out: Path, manifest: dict[str, Any], tokenized: TokenizedPairs, missing: list[int], options: ScoringOptions
) -> tuple[Tensor, dict[int, str]]:
    """What was scored before of the pairs of missing parts, (N, columns) float64, nan where it is to be computed; and
    the `ids_hash` of each of these pairs by its place."""
    columns, n = _columns(options), len(tokenized.pairs)
    values = torch.full((n, len(columns)), math.nan, dtype=torch.float64)
    hashes = {i: ids_hash(tokenized.pairs[i]) for part in missing for i in _members(part, n)}
    rows = [*hashes]
    if not rows:
        return values, hashes
    found, folders = known_values(out, manifest, [*hashes.values()], columns)
    values[rows] = torch.from_numpy(found)
    anew, measured = _left(values[rows], ESTIMATORS[options.estimator])
    if not anew.all():
        alone = int((measured & ~anew).sum())
        place = folders[0] if len(folders) == 1 else folders[0].parent
        processes().print(
            f"{int((~anew).sum())} of {len(rows)} pairs were scored before (in {visible(place)})"
            + (f", {alone} of them without comprehension." if alone else ".")
        )
    return values, hashes


def _left(values: Tensor, how: Estimator) -> tuple[Tensor, Tensor]:
    """Of pairs with `values` (n, columns): which are to be computed on their prompts, and which are to be measured."""
    first = values.shape[1] - (len(MEASURED) if how.measure else 0)
    anew, measured = values[:, :first].isnan().any(1), values[:, first:].isnan().any(1)
    return (anew | measured, anew | measured) if how.entropy else (anew, measured)  # which needs both passes' entropies


def _work(tokenized: TokenizedPairs, known: Tensor, members: range, how: Estimator) -> int:
    """Response tokens that will be computed."""
    anew, measured = _left(known[list(members)], how)
    passes = (anew + (how.passes - 1) * measured).tolist()
    return sum(n * _reply_tokens(tokenized.pairs[i]) for i, n in zip(members, passes, strict=True))


def _completed(
    frozen: Pass, how: Estimator, ids: Sequence[TokenizedPair], context: Context, values: Tensor, similar: bool
) -> Tensor:
    """The columns of n pairs, (n, columns); what is nan in `values` is computed."""
    values, entropies = values.clone(), None
    anew, measured = _left(values, how)
    if anew.any():
        some = [pair for pair, asked in zip(ids, anew, strict=True) if asked]
        replies = _replies(some)
        sums = frozen.conditional([pair.prompt_ids for pair in some], replies, hidden=similar)
        columns = [sums.logps.view(2, -1), *_similarities(sums.hidden, replies)]
        values[anew, : sum(map(len, columns))] = torch.cat(columns).T
        entropies = sums.entropies
    if how.measure is not None and measured.any():
        some = [pair for pair, asked in zip(ids, measured, strict=True) if asked]
        own = [of for of, asked in zip(context.own, measured, strict=True) if asked]
        cond = BranchLogps(values[measured, :2].T.flatten(), entropies)
        found = how.measure(frozen, cond, _replies(some), replace(context, own=own))
        values[measured, -len(MEASURED) :] = torch.cat(found).view(len(MEASURED), -1).T
    return values


def _rows(
    pairs: list[PreferencePair], ids: list[TokenizedPair], hashes: list[str], columns: Sequence[str], values: Tensor
) -> Iterator[dict[str, Any]]:
    for pair, tokens, mark, numbers in zip(pairs, ids, hashes, values.tolist(), strict=True):
        yield {
            "id": pair.id,
            "prompt_ids": tokens.prompt_ids,
            "chosen_ids": tokens.chosen_ids,
            "rejected_ids": tokens.rejected_ids,
            **dict(zip(columns, numbers, strict=True)),
            "chosen_safe": pair.chosen_safe,
            "rejected_safe": pair.rejected_safe,
            "category": list(pair.category),
            "source": pair.source,
            "prompt_kind": pair.prompt_kind,
            HASH: mark,
        }


def _similarities(hidden: Tensor | None, replies: Sequence[Ids]) -> list[Tensor]:
    """The columns of CHES (2, n), from the sums (2n, D) of n chosen, then n rejected replies; none of none."""
    if hidden is None:
        return []
    lengths = torch.tensor([len(reply) for reply in replies])[:, None]
    return [torch.stack([ches(*states.chunk(2)) for states in (hidden, hidden.double() / lengths)])]


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
        "null_prompt": list(context.null_ids),
        "contrastive_prompts": [list(prompt) for prompt in context.prompts],
    }


def _context(
    pairs: Sequence[PreferencePair], tokenized: TokenizedPairs, options: ScoringOptions, training: dict[str, Any] | None
) -> Context:
    """The null prompt, and other prompts where the estimator needs them: the training pairs' for held-out ones."""
    others: dict[str, Ids] = {}
    if options.estimator == NONE:
        return Context(())
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
    return max(len(prefix) for prefix in (context.null_ids, *context.prompts))  # 0 where comprehension is not measured


def _replies(pairs: Sequence[TokenizedPair]) -> list[Ids]:
    """All chosen, then all rejected."""
    return [*(pair.chosen_ids for pair in pairs), *(pair.rejected_ids for pair in pairs)]


def _reply_tokens(pair: TokenizedPair) -> int:
    return len(pair.chosen_ids) + len(pair.rejected_ids)


def _refuse_non_finite(pairs: Sequence[PreferencePair], columns: Tensor) -> None:
    bad = (~columns.isfinite()).any(1).nonzero().flatten().tolist()
    if bad:
        names = ", ".join(pairs[i].id for i in bad[:5])
        raise BdpoError(f"The model gives non-finite log-probabilities to pairs {names}: score them in float32.")
