"""What `bdpo data show` prints and exports: pairs with their texts, and what their scores say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bdpo.cli.tables import as_csv
from bdpo.errors import BdpoError, chosen_by
from bdpo.files import write_whole
from bdpo.pairs import PreferencePair
from bdpo.terminal import plain, say

PRINTED = 20
SCORED = ("i_chosen", "i_rejected", "d", "w_c", "w_r")
HEAD = (
    "id",
    "prompt",
    "chosen",
    "rejected",
    "chosen_safe",
    "rejected_safe",
    "category",
    "source",
    "prompt_kind",
    *SCORED,
)


@dataclass(frozen=True)
class Shown:
    """A pair; its comprehension, imbalance [nats/token] and weights in the order of `SCORED`, empty if not scored."""

    pair: PreferencePair
    scores: tuple[float, ...] = ()


def show(
    pairs: Sequence[PreferencePair], scores: Path | None, console: Console, *, by_imbalance: bool = True,
    top: int | None = None, tokenizer: Any = None, export: Path | None = None,
) -> None:  # fmt: skip
    """Print pairs, or write them as CSV.

    Args:
        scores: a scored folder made of them.
        by_imbalance: see `with_scores`.
        top: the first ones only; None: all of them in a file, `PRINTED` of them on the console.
        tokenizer: whose template the prompts are shown in; None: none.
    """
    shown = [Shown(pair) for pair in pairs]
    if scores is not None:
        shown = with_scores(pairs, scores, by_imbalance=by_imbalance)
    if export is None:
        for one in shown[: top or PRINTED]:
            render_pair(one, tokenizer, console)
        return
    rows = [export_row(one, tokenizer) for one in shown[:top]]
    with chosen_by("choose another --export"):
        write_whole(export, as_csv([HEAD, *rows]))
    say(console, f"Written: {export}, {len(rows)} of {len(pairs)} pairs.")


def with_scores(pairs: Sequence[PreferencePair], folder: Path, *, by_imbalance: bool) -> list[Shown]:
    """The pairs with what a scored folder says of them, weights as the default balance has them.

    A pair is known there by its id, source and labels; the folder has no texts.

    Args:
        by_imbalance: the largest |d| first, and pairs that were not scored last; else in the order of the data.

    Raises:
        BdpoError: the folder cannot be read, was made of other data, or has no comprehension.
    """
    from bdpo.method.balance import balance
    from bdpo.score import open_scores

    scored = open_scores(folder)
    if not scored.measured:
        raise BdpoError(f"--scores {folder}: comprehension was not measured there; run bdpo score into another folder.")
    rows = scored.rows
    chosen, rejected = (list(rows[f"{side}_mi"]) for side in ("chosen", "rejected"))
    weights = balance(chosen, rejected)
    d = [c - r for c, r in zip(chosen, rejected, strict=True)]
    columns = (chosen, rejected, d, weights.chosen_weight.tolist(), weights.rejected_weight.tolist())
    labels = (rows[name] for name in ("id", "source", "chosen_safe", "rejected_safe", "category"))
    keys = ((*label, tuple(category or ())) for *label, category in zip(*labels, strict=True))
    scores = dict(zip(keys, zip(*columns, strict=True), strict=True))
    shown = [
        Shown(p, scores.get((p.id, p.source, p.chosen_safe, p.rejected_safe, p.category), ())) for p in pairs
    ]  # fmt: skip
    if not any(one.scores for one in shown):
        raise BdpoError(f"--scores {folder}: none of these pairs was scored there; name the scores of this data.")
    if by_imbalance:
        shown.sort(key=lambda one: -abs(one.scores[2]) if one.scores else 1)
    return shown


def prompt_text(pair: PreferencePair, tokenizer: Any = None) -> str:
    """The prompt: as the template of a tokenizer renders it, else a user's message alone, or all with their roles."""
    from bdpo.pairs.rendering import render

    if isinstance(pair.prompt, str):
        return pair.prompt
    if tokenizer is not None:
        return render(tokenizer, pair.prompt, f"pair {pair.id}", add_generation_prompt=True)
    if len(pair.prompt) == 1:
        return str(pair.prompt[0]["content"])
    return "\n".join(f"{message['role']}: {message['content']}" for message in pair.prompt)


def render_pair(one: Shown, tokenizer: Any, console: Console) -> None:
    """Print a pair's texts below a line of its numbers and labels."""
    pair = one.pair
    told = [f"{name} {value:+.3f}" for name, value in zip(SCORED, one.scores, strict=False)]  # none where not scored
    sides = {"chosen": pair.chosen_safe, "rejected": pair.rejected_safe}
    told += [f"{side} {'safe' if safe else 'unsafe'}" for side, safe in sides.items() if safe is not None]
    console.print()
    console.print(plain("  ".join([pair.id, *told, *pair.category]), "bold"))
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    texts = {"prompt": prompt_text(pair, tokenizer), "chosen": pair.chosen, "rejected": pair.rejected}
    for name, text in texts.items():
        table.add_row(plain(name), plain(text))
    console.print(table)


def export_row(one: Shown, tokenizer: Any) -> list[object]:
    """A row of a CSV that `load_pairs` reads, under `HEAD`; with a tokenizer the prompt is that of its template."""
    pair = one.pair
    as_text = tokenizer is not None or isinstance(pair.prompt, str)
    prompt = prompt_text(pair, tokenizer) if as_text else json.dumps(pair.prompt, ensure_ascii=False)
    labels = ["" if safe is None else str(safe).lower() for safe in (pair.chosen_safe, pair.rejected_safe)]
    category = json.dumps(list(pair.category), ensure_ascii=False)
    about = (pair.id, prompt, pair.chosen, pair.rejected, *labels, category, pair.source, pair.prompt_kind)
    return [*about, *(one.scores or [""] * len(SCORED))]
