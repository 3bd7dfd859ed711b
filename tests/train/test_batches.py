"""Steps of training: the same pairs whatever the split, fillers that weigh nothing, and what a batch carries."""

import doctest
from itertools import chain

import pytest
import torch
from datasets import Dataset

from bdpo.method.balance import balance
from bdpo.score.folder import COLUMNS
from bdpo.train import batches
from bdpo.train.batches import Filler, PairCollator, ScoredRows, StepSampler

LENGTHS = [7, 3, 9, 9, 1, 5, 8, 2, 6, 4, 7, 3, 9, 2, 5, 8, 6, 1, 4, 7, 3]  # of 21 rows

SPLITS = [(8, 1, 1), (4, 2, 1), (2, 4, 1), (1, 8, 1), (4, 1, 2), (2, 2, 2), (1, 2, 4), (2, 1, 4), (1, 1, 8)]


def sampled(micro: int, accumulation: int, world: int, *, epoch: int = 0, seed: int = 3, **options) -> list[list[int]]:
    """What the ranks take together, step by step, fillers included."""
    ranks = []
    for rank in range(world):
        sampler = StepSampler(
            LENGTHS, per_step=micro * accumulation * world, micro=micro, rank=rank, world=world, seed=seed, **options
        )
        sampler.set_epoch(epoch)
        ranks.append(list(sampler))
        assert len(sampler) == len(ranks[-1])
        assert all(1 <= len(batch) <= micro for batch in ranks[-1]), "every micro-batch can be computed"
    steps = len(ranks[0]) // accumulation
    assert all(len(rank) == steps * accumulation for rank in ranks), "a rank has fewer micro-batches"
    return [
        list(chain.from_iterable(chain.from_iterable(r[s * accumulation : (s + 1) * accumulation] for r in ranks)))
        for s in range(steps)
    ]


def real(step: list[int | Filler]) -> set[int]:
    return {i for i in step if not isinstance(i, Filler)}


def test_docstring_examples() -> None:
    assert doctest.testmod(batches).failed == 0


@pytest.mark.parametrize("split", SPLITS[1:])
@pytest.mark.parametrize("epoch", [0, 1])
def test_a_step_is_the_same_pairs_for_every_split_of_eight(split: tuple[int, int, int], epoch: int) -> None:
    assert [real(s) for s in sampled(*split, epoch=epoch)] == [real(s) for s in sampled(8, 1, 1, epoch=epoch)]


@pytest.mark.parametrize("split", SPLITS)
def test_every_pair_comes_once_an_epoch_and_fillers_only_in_the_last_step(split: tuple[int, int, int]) -> None:
    steps = sampled(*split)
    assert sorted(i for step in steps for i in step if not isinstance(i, Filler)) == list(range(21))
    micro, accumulation, world = split
    empty = accumulation * world - -(-5 // micro)  # micro-batches that the 5 pairs of the last step leave over
    assert [sum(isinstance(i, Filler) for i in step) for step in steps] == [0, 0, empty]
    assert {i.row for i in steps[-1] if isinstance(i, Filler)} <= real(steps[-1]), (
        "a filler repeats a pair of its own step"
    )


@pytest.mark.parametrize("world", [1, 2])
def test_pairs_dealt_by_tokens_are_those_of_the_step_in_batches_of_about_one_size(world: int) -> None:
    ranks = [
        list(StepSampler([9, 1, 8, 2, 7, 3, 5, 5], per_step=4, micro=4, rank=r, world=world, shuffle=False, dealt=2))
        for r in range(world)
    ]
    assert [len(batches) for batches in ranks] == [4 // world] * world
    every = [batch for together in zip(*ranks, strict=True) for batch in together]
    assert every == [[0, 1], [2, 3], [4, 5], [6, 7]]  # 10 tokens each


def test_fewer_pairs_than_a_step_has_places() -> None:
    assert list(StepSampler([5, 9], per_step=8, micro=4, shuffle=False)) == [[1, 0], [Filler(0)]]


def test_drop_last_leaves_the_uneven_step_out() -> None:
    steps = sampled(2, 2, 2, drop_last=True)
    assert len(steps) == 2 and not any(isinstance(i, Filler) for step in steps for i in step)


def test_the_order_is_new_each_epoch_and_seeded() -> None:
    first, again, second, other = (
        sampled(8, 1, 1),
        sampled(8, 1, 1),
        sampled(8, 1, 1, epoch=1),
        sampled(8, 1, 1, seed=4),
    )
    assert first == again
    assert real(first[0]) != real(second[0]) and real(first[0]) != real(other[0])


def test_unshuffled_steps_are_in_the_order_of_the_rows() -> None:
    assert [real(step) for step in sampled(4, 2, 1, shuffle=False)] == [
        set(range(8)),
        set(range(8, 16)),
        set(range(16, 21)),
    ]


def test_what_is_computed_together_has_like_length() -> None:
    micro = list(StepSampler(LENGTHS, per_step=8, micro=2, seed=3))[:4]  # the first step
    lengths = [LENGTHS[i] for i in chain.from_iterable(micro)]
    assert lengths == sorted(lengths, reverse=True)


# --- rows and batches ---------------------------------------------------------------------------------------
def scored(n: int = 3) -> Dataset:
    rows = [
        {
            "id": f"p{i}",
            "prompt_ids": [1] * (i + 1),
            "chosen_ids": [2] * (i + 2),
            "rejected_ids": [3] * (2 * i + 1),
            "ref_chosen_logps": -200.1 - i,
            "ref_rejected_logps": -300.3 - i,
            "chosen_marginal_logps": -210.0,
            "rejected_marginal_logps": -310.0,
            "chosen_mi": 0.5 + i,
            "rejected_mi": 0.25,
            "chosen_safe": [True, False, None][i % 3],
            "rejected_safe": [False, None, True][i % 3],
            "category": [],
            "source": "hand",
            "prompt_kind": "",
            "ches": None,
            "ches_normalised": None,
            "ids_hash": "",
        }
        for i in range(n)
    ]
    return Dataset.from_list(rows).select_columns(COLUMNS.names)


def as_rows(dataset: Dataset) -> ScoredRows:
    return ScoredRows(dataset, balance(list(dataset["chosen_mi"]), list(dataset["rejected_mi"])), {})


def test_rows_know_their_lengths_and_imbalance() -> None:
    rows = as_rows(scored())
    assert rows.lengths == [1 + 2 + 1, 2 + 3 + 3, 3 + 4 + 5]
    assert rows.longest == 3 + 5  # prompt + longer reply
    assert rows.imbalance.tolist() == [0.25, 1.25, 2.25]


def test_a_selection_of_rows_is_measured_and_not_the_table_beneath() -> None:
    rows = as_rows(scored(5).select([4, 1]))
    assert rows.lengths == [5 + 6 + 9, 2 + 3 + 3] and rows.longest == 5 + 9
    assert [rows[i]["id"] for i in range(2)] == ["p4", "p1"]


def test_a_negative_index_is_the_same_row_as_a_filler() -> None:
    rows = as_rows(scored())
    pair, filler = rows[2], rows[Filler(2)]
    assert pair.pop("real") is True and filler.pop("real") is False
    assert pair == filler and pair["id"] == "p2"


def test_a_batch_carries_the_rows_unchanged() -> None:
    rows = as_rows(scored())
    batch = PairCollator("shared", pad_id=0)([rows[0], rows[1], rows[Filler(0)]])["pairs"]
    assert batch.ids == ["p0", "p1", "p0"]
    assert batch.real.tolist() == [True, True, False]
    assert batch.chosen_unsafe.tolist() == [False, True, False]
    assert batch.rejected_unsafe.tolist() == [True, False, True]  # not labelled counts as safe
    assert batch.branches.lengths.tolist() == [2, 1, 3, 3, 2, 1]  # chosen, rejected of each pair
    assert batch.ref_chosen.dtype == torch.float32
    assert batch.ref_chosen.tolist() == torch.tensor([-200.1, -201.1, -200.1]).tolist()
    expected = balance([0.5, 1.5, 2.5], [0.25] * 3)
    assert torch.equal(batch.chosen_weight, expected.chosen_weight[[0, 1, 0]].float())
    assert torch.equal(batch.scale, expected.scale[[0, 1, 0]].float())


def test_moving_a_batch_moves_every_tensor_and_keeps_the_ids() -> None:
    rows = as_rows(scored())
    moved = PairCollator("padded", pad_id=0)([rows[1]])["pairs"].to("meta")
    assert moved.ref_chosen.is_meta and moved.branches.input_ids.is_meta and moved.ids == ["p1"]
