"""Which pairs a run trains on and which it holds out: drawn by a seed, swapped by labels, cut by length."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bdpo.errors import BdpoError
from bdpo.pairs import PreferencePair, write_pairs
from bdpo.recipe.data import hold_out, read_data
from bdpo.recipe.parts import token_lengths
from bdpo.recipe.sections import Recipe, parse_recipe
from tiny import make_pairs, tiny_tokenizer


def recipe_in(home: Path, **sections: Any) -> Recipe:
    data = {"train": str(home / "pairs.jsonl"), "eval": str(home / "held.jsonl"), **sections.pop("data", {})}
    return parse_recipe({"model": {"name": str(home / "model")}, "data": data, **sections})


def test_limit_draws_training_pairs_seeded_and_counts_the_rest(home: Path) -> None:
    def ids(**data: Any) -> list[str]:
        return [pair.id for pair in read_data(recipe_in(home, data=data)).train]

    first = ids(limit=5)
    assert len(first) == 5 and first == ids(limit=5) != ids(limit=5, seed=1)
    read = read_data(recipe_in(home, data={"limit": 5}))
    assert read.counts == {"dropped: beyond data.limit": 16} and len(read.eval) == 9


def test_held_out_pairs_share_no_prompt_with_training() -> None:
    twins = [pair for one in make_pairs(12) for pair in (one, replace(one, id=f"{one.id}-twin", chosen="Other."))]
    rest, held = hold_out(twins, 5, seed=0)
    assert len(held) == 6 and len(rest) == 18  # whole prompts, so one more than asked
    assert not {repr(pair.prompt) for pair in rest} & {repr(pair.prompt) for pair in held}
    assert hold_out(twins, 5, seed=0) == (rest, held) != hold_out(twins, 5, seed=1)
    assert hold_out(twins, 0, seed=0) == (twins, [])


def test_holding_everything_out_is_refused(home: Path) -> None:
    with pytest.raises(BdpoError, match=r"no pairs are left to train on; lower data\.holdout"):
        read_data(recipe_in(home, data={"eval": None, "holdout": 21}))


def test_safedpo_swaps_and_drops_as_a_data_step(home: Path) -> None:
    labels = [(True, False), (False, True), (False, False), (True, True)]
    pairs = [
        PreferencePair(f"p{i}", ({"role": "user", "content": f"Ask {i}"},), "C", "R", chosen_safe=c, rejected_safe=r)
        for i, (c, r) in enumerate(labels)
    ]
    write_pairs(home / "labelled.jsonl", pairs)
    data = {"train": str(home / "labelled.jsonl"), "eval": None}
    read = read_data(recipe_in(home, data=data, loss={"name": "safedpo"}))
    assert [(pair.id, pair.chosen) for pair in read.train] == [("p0", "C"), ("p1", "R"), ("p3", "C")]
    assert sorted(read.counts.values()) == [1, 1]
    plain = read_data(recipe_in(home, data=data))
    assert [pair.chosen for pair in plain.train] == ["C"] * 4


def test_token_lengths_are_those_after_truncation(home: Path) -> None:
    pair = PreferencePair("p", ({"role": "user", "content": "abc"},), "de", "f" * 30)
    # <|im_start|> u s e r \n a b c <|im_end|> \n, <|im_start|> a s s i s t a n t \n; replies end <|im_end|> \n
    ids = tiny_tokenizer()("<|im_start|>user\nabc<|im_end|>\n<|im_start|>assistant\n")["input_ids"]
    prompt = len(ids)
    assert token_lengths(recipe_in(home), tiny_tokenizer(), [pair]) == [(prompt, 4, 32)]
    cut = recipe_in(home, data={"max_length": prompt + 10})
    ((kept, chosen, rejected),) = token_lengths(cut, tiny_tokenizer(), [pair])
    assert kept + max(chosen, rejected) == prompt + 10 and chosen == 4 and rejected < 32
