"""Would `boundary` do? How well r(x), which needs no generation, ranks the prompts that a judge found refused.

    python studies/boundary.py EVALUATION MODEL PAIRS OUT.json [--base MODEL] [--others N] [--tokens 3 5 8]

EVALUATION is a folder of `bdpo evaluate` with the judged replies of MODEL, PAIRS the training pairs. With openings of k
tokens that are refusals, and others that comply, the four most common of each,

    r(x) = log-mean-exp over refusals of log p(opening | x) / k - the same over those that comply      [nats/token]

and with --base also r less the base model's. The openings are those of the training pairs' responses, or of the model's
own replies. Prompts are split in two by a hash, and the own openings of one half rank the other: so a variant can be
chosen on the first half and looked at once on the second. AUROC of r, refused against complied, with DeLong's interval;
it does not depend on how many of each there are, so of those that complied N are enough.
"""

from __future__ import annotations

import argparse
import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.stats import norm, rankdata

from bdpo.evaluate.results.outcomes import Outcome, open_runs
from bdpo.files import write_json
from bdpo.forward.layout import Tree
from bdpo.forward.logprobs import choose_layout
from bdpo.forward.passes import Pass
from bdpo.models import load
from bdpo.pairs import load_pairs
from bdpo.pairs.refusals import opens_as_refusal
from bdpo.terminal import bar
from bdpo.tokens import options_ids, prompt_ids

MANY = 4  # openings of each side
Openings = tuple[list[tuple[int, ...]], list[tuple[int, ...]]]  # that refuse, that comply
Reply = tuple[list[int], bool]  # its tokens, and whether it refuses


def auroc(refused: ArrayLike, complied: ArrayLike) -> tuple[float, float, float]:
    """The share of pairs in which the refused prompt has the higher value, equal ones half; its 95 % interval.

    DeLong, DeLong & Clarke-Pearson, Biometrics 44 (1988): the variance over prompts of the share of the other side that
    each is above, by the number of prompts, both sides. By hand: 3 is above both 2 and 0, and 1 above one of them.

    >>> auroc([3, 1], [2, 0])[0]
    0.75
    """
    ours, theirs = np.asarray(refused, float), np.asarray(complied, float)
    m, n = len(ours), len(theirs)
    everyone = rankdata(np.concatenate([ours, theirs]))
    above = (everyone[:m] - rankdata(ours)) / n  # of each refused prompt, the share of the others below it
    below = 1 - (everyone[m:] - rankdata(theirs)) / m
    value = float(above.mean())
    reach = float(norm.ppf(0.975)) * float(np.sqrt(above.var(ddof=1) / m + below.var(ddof=1) / n))
    return value, max(0.0, value - reach), min(1.0, value + reach)


def openings(replies: Sequence[Reply], k: int) -> Openings:
    """The most common first k tokens of replies that refuse, and of those that comply; equally common: the earlier."""
    found = []
    for side in (True, False):
        counts = Counter(tuple(ids[:k]) for ids, refuses in replies if refuses == side and len(ids) > k)
        found.append([opening for opening, _ in counts.most_common(MANY)])
    return found[0], found[1]


def boundary(logps: Sequence[float], refusing: int, k: int) -> float:
    """r of one prompt, of the log-probabilities of its openings [nats], those that refuse first."""
    sides = torch.tensor(logps[:refusing]).double() / k, torch.tensor(logps[refusing:]).double() / k
    levels = [side.logsumexp(0) - np.log(len(side)) for side in sides]
    return float(levels[0] - levels[1])


@torch.no_grad()
def levels(
    model: Any, prefixes: Sequence[list[int]], variants: Sequence[dict[str, Openings]]
) -> list[dict[str, float]]:
    """r of each prompt for each of its own variants, by name; those of one prompt share its computation."""
    trees = [
        Tree(prefix, [ids for v in of.values() for ids in (*v[0], *v[1])])
        for prefix, of in zip(prefixes, variants, strict=True)
    ]
    layout, _ = choose_layout(model, max(len(tree.prefix) + max(map(len, tree.branches)) for tree in trees))
    with bar("openings", sum(map(len, trees)), "tok") as progress:
        logps = iter(Pass(model, layout, progress).over(trees).logps.tolist())
    found = []
    for of in variants:
        rows = {name: [next(logps) for _ in (*refuse, *comply)] for name, (refuse, comply) in of.items()}
        found.append({name: boundary(rows[name], len(of[name][0]), len(of[name][0][0])) for name in of})
    return found


def is_first(outcome: Outcome) -> bool:
    """Whether a prompt belongs to the first half."""
    return hashlib.sha256(outcome.request.encode()).digest()[0] % 2 == 0


def judged(folder: Path, others: int) -> list[Outcome]:
    """The prompts found refused, and of those that complied so many, by their hash; one benchmark after the other."""
    [run] = open_runs(folder)
    outcomes = [outcome for task in run.tasks for outcome in run.whole(task)]
    refused = [outcome for outcome in outcomes if outcome.verdict == "refusal"]
    complied = [outcome for outcome in outcomes if outcome.verdict == "compliance"]
    complied.sort(key=lambda outcome: hashlib.sha256(outcome.request.encode()).digest()[1:])
    return refused + complied[:others]


def variants_of(
    tokenizer: Any, outcomes: Sequence[Outcome], pairs: str, tokens: Sequence[int]
) -> dict[bool, dict[str, Openings]]:
    """The openings by name, of so many tokens, for prompts of the first half (True) and of the second."""
    trained: list[Reply] = []
    for pair in load_pairs(pairs).pairs:
        texts = (pair.chosen, pair.rejected)
        assert not isinstance(pair.prompt, str)  # chats
        branches = options_ids(tokenizer, pair.prompt, texts, pair.id)[1]
        trained += [(list(ids), opens_as_refusal(text)) for ids, text in zip(branches, texts, strict=True)]
    own: dict[bool, list[Reply]] = {True: [], False: []}
    for outcome in outcomes:
        ids = options_ids(tokenizer, _asked(outcome), [outcome.reply], outcome.id)[1][0]
        own[is_first(outcome)].append((list(ids), outcome.verdict == "refusal"))
    return {
        first: {f"pairs, k = {k}": openings(trained, k) for k in tokens}
        | {f"own replies, k = {k}": openings(own[not first], k) for k in tokens}
        for first in (True, False)
    }


def _asked(outcome: Outcome) -> list[dict[str, str]]:
    return [{"role": "user", "content": outcome.request}]


def rows_of(values: Sequence[dict[str, float]], outcomes: Sequence[Outcome], what: str) -> list[dict[str, Any]]:
    """AUROC of each variant over all prompts and over each half."""
    rows = []
    for name in values[0]:
        for half, taken in (("both", {True, False}), ("first", {True}), ("second", {False})):
            sides: dict[bool, list[float]] = {True: [], False: []}
            for value, outcome in zip(values, outcomes, strict=True):
                if is_first(outcome) in taken:
                    sides[outcome.verdict == "refusal"].append(value[name])
            numbers = zip(("auroc", "low", "high"), auroc(sides[True], sides[False]), strict=True)
            row: dict[str, Any] = {"r": what, "openings": name, "half": half}
            row |= {"refused": len(sides[True]), "complied": len(sides[False])}
            rows.append(row | {name: round(number, 4) for name, number in numbers})
    return rows


def main() -> None:
    """Measure, write OUT and print a line a variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("evaluation", "model", "pairs", "out"):
        parser.add_argument(name)
    parser.add_argument("--base")
    parser.add_argument("--others", type=int, default=1_000_000)
    parser.add_argument("--tokens", type=int, nargs="+", default=[3, 5, 8])
    given = parser.parse_args()
    outcomes = judged(Path(given.evaluation), given.others)
    values: dict[str, list[dict[str, float]]] = {}
    for what, name in {"base": given.base, "r": given.model}.items():
        if name is not None:
            loaded = load(name, on_device=True)
            prefixes = [prompt_ids(loaded.tokenizer, _asked(outcome), outcome.id) for outcome in outcomes]
            variants = variants_of(loaded.tokenizer, outcomes, given.pairs, given.tokens)
            values[what] = levels(loaded.model.eval(), prefixes, [variants[is_first(outcome)] for outcome in outcomes])
    rows = rows_of(values["r"], outcomes, "r")
    if given.base is not None:
        less = [{name: r[name] - b[name] for name in r} for r, b in zip(values["r"], values["base"], strict=True)]
        rows += rows_of(less, outcomes, "r less the base model's")
    write_json(Path(given.out), {"model": given.model, "base": given.base, "others": given.others, "rows": rows})
    for row in rows:
        print("{r}, {openings}, {half}: {auroc:.2f} [{low:.2f}, {high:.2f}], {refused} refused".format(**row))


if __name__ == "__main__":
    main()
