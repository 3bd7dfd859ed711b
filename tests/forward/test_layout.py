"""Trees laid out as tensors: an example by hand, what every token sees on random trees, batches and hanging."""

import doctest
import random

import pytest
import torch

from bdpo.errors import BdpoError
from bdpo.forward import layout as layouts
from bdpo.forward.layout import Tree, attention_mask, block_table, bucket, hang, lay_out

PAIR = Tree([7, 8, 9], [[1, 2], [3, 4, 5]])


def test_examples_in_the_docstrings():
    assert doctest.testmod(layouts).failed == 0


def test_a_pair_by_hand_shared():
    batch = lay_out([PAIR])
    assert batch.input_ids.tolist() == [[7, 8, 9, 1, 2, 3, 4, 5]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 3, 4, 5]]
    assert batch.block.tolist() == [[1, 1, 1, 2, 2, 3, 3, 3]] and batch.parent.tolist() == [0, 0, 1, 1]
    assert attention_mask(batch).int().tolist() == [
        [
            [
                [1, 0, 0, 0, 0, 0, 0, 0],
                [1, 1, 0, 0, 0, 0, 0, 0],
                [1, 1, 1, 0, 0, 0, 0, 0],
                [1, 1, 1, 1, 0, 0, 0, 0],
                [1, 1, 1, 1, 1, 0, 0, 0],
                [1, 1, 1, 0, 0, 1, 0, 0],
                [1, 1, 1, 0, 0, 1, 1, 0],
                [1, 1, 1, 0, 0, 1, 1, 1],
            ]
        ]
    ]
    assert batch.predictors.tolist() == [2, 3, 5, 6]  # 9 predicts 1 and 3; 1 -> 2, 3 -> 4, 4 -> 5
    assert batch.predictor_of.tolist() == [0, 1, 0, 2, 3]
    assert batch.targets.tolist() == [1, 2, 3, 4, 5]
    assert batch.branch_of.tolist() == [0, 0, 1, 1, 1]
    assert batch.lengths.tolist() == [2, 3]


def test_a_pair_by_hand_padded():
    batch = lay_out([PAIR], layout="padded", pad_id=99)
    assert batch.input_ids.tolist() == [[7, 8, 9, 1, 2, 99], [7, 8, 9, 3, 4, 5]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 0], [0, 1, 2, 3, 4, 5]]
    assert attention_mask(batch).tolist() == [[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]]
    assert batch.predictors.tolist() == [2, 3, 8, 9, 10]
    assert batch.targets.tolist() == [1, 2, 3, 4, 5]
    assert batch.branch_of.tolist() == [0, 0, 1, 1, 1]


def test_the_pad_id_may_be_a_token_of_the_reply():
    batch = lay_out([Tree([7], [[2, 2, 2], [1]])], layout="padded", pad_id=2)
    assert batch.targets.tolist() == [2, 2, 2, 1] and batch.lengths.tolist() == [3, 1]
    assert attention_mask(batch).tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]


SYSTEM = list(range(100, 110))  # ten tokens, enough to be shared


@pytest.mark.parametrize("layout", ["packed", "shared"])
def test_what_prefixes_begin_with_alike_is_laid_out_once(layout, monkeypatch):
    monkeypatch.setattr(layouts, "_ATTENTION_TOKENS", 10**9)  # one row
    trees = [Tree([*SYSTEM, 1, 2], [[3], [4, 5]]), Tree(SYSTEM, [[6, 7]]), Tree([*SYSTEM, 1, 8], [[9]])]
    batch = lay_out(trees, layout=layout)
    row = batch.input_ids[0].tolist()
    assert row[:10] == SYSTEM and sorted(row[10:]) == sorted([1, 2, 3, 4, 5, 6, 7, 1, 8, 9])
    assert batch.lengths.tolist() == [1, 2, 2, 1] and batch.targets.tolist() == [3, 4, 5, 6, 7, 9]
    if layout == "packed":
        assert row[10:] == [1, 2, 3, 4, 5, 6, 7, 1, 8, 9]
        assert batch.position_ids[0, 10:].tolist() == [10, 11, 12, 12, 13, 10, 11, 10, 11, 12]
        assert block_table(batch).tolist() == [[10, -1], [2, 0], [1, 1], [2, 1], [2, 0], [2, 0], [1, 5]]
        assert batch.predictors.tolist() == [9, 11, 13, 15, 18]  # the whole of the second prefix is shared: column 9


def test_seven_tokens_alike_are_not_worth_a_block():
    trees = [Tree([*SYSTEM[:7], 1], [[3]]), Tree([*SYSTEM[:7], 2], [[4]])]
    assert block_table(lay_out(trees, layout="packed")).tolist() == [[8, -1], [1, 0], [8, -1], [1, 2]]


def _random_trees(seed):
    """Trees whose tokens are all different, so that a token names its place; by odd seeds, they begin alike."""
    draw = random.Random(seed)
    fresh = iter(range(1000, 10_000))
    system = SYSTEM if seed % 2 else []

    def ids():
        return [next(fresh) for _ in range(draw.randint(1, 9))]

    return [
        Tree(system + ids()[1 if system else 0 :], [ids() for _ in range(draw.randint(1, 4))])
        for _ in range(draw.randint(1, 7))
    ]


@pytest.mark.parametrize("dear_tokens", [1, 50, 10**9])  # rows as long as the longest tree, in between, one row
@pytest.mark.parametrize("layout", ["packed", "shared", "padded"])
@pytest.mark.parametrize("seed", range(20))
def test_each_reply_token_is_predicted_from_its_prefix_and_its_own_earlier_tokens_alone(
    seed, layout, dear_tokens, monkeypatch
):
    monkeypatch.setattr(layouts, "_ATTENTION_TOKENS", dear_tokens)
    trees = _random_trees(seed)
    batch = lay_out(trees, layout=layout, pad_id=0)
    mask = attention_mask(batch)
    length = batch.input_ids.shape[1]
    if layout == "padded":  # causal models see what is before them and not masked
        mask = (torch.ones(length, length).tril().bool() & mask.bool()[:, None, :])[:, None]
    paths = [(tree.prefix, branch) for tree in trees for branch in tree.branches]
    assert batch.lengths.tolist() == [len(branch) for _, branch in paths]
    n = 0
    for k, (prefix, branch) in enumerate(paths):
        for t, token in enumerate(branch):
            assert (batch.branch_of[n], batch.targets[n]) == (k, token)
            row, column = divmod(int(batch.predictors[batch.predictor_of[n]]), length)
            seen = mask[row, 0, column].nonzero().flatten()
            assert batch.input_ids[row, seen].tolist() == [*prefix, *branch[:t]]
            assert batch.position_ids[row, seen].tolist() == list(range(len(prefix) + t))
            n += 1
    assert n == len(batch.targets) and len(batch.predictors.unique()) == len(batch.predictors)
    assert mask[(batch.block > 0)[:, None]].any(-1).all()  # every token sees at least itself
    if layout != "padded":
        assert mask.any(-1).all()  # padding too: a softmax over nothing would be NaN


@pytest.mark.parametrize("seed", range(20))
def test_the_blocks_of_a_packed_row_say_what_its_mask_says(seed):
    batch = lay_out(_random_trees(seed), layout="packed")
    lengths, parents = block_table(batch).T.tolist()
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    visible = torch.zeros(sum(lengths), sum(lengths), dtype=torch.bool)
    for start, length, parent in zip(starts, lengths, parents, strict=True):
        own = slice(start, start + length)
        visible[own, own] = torch.ones(length, length).tril().bool()
        while parent >= 0:
            visible[own, starts[parent] : starts[parent] + lengths[parent]] = True
            parent = parents[parent]
    assert torch.equal(visible, attention_mask(batch)[0, 0])


@pytest.mark.parametrize("tree", [Tree([], [[1]]), Tree([1], [[2], []])])
def test_a_prefix_or_a_branch_without_tokens_is_refused(tree):
    with pytest.raises(BdpoError, match="at least one token"):
        lay_out([PAIR, tree])


@pytest.mark.parametrize("seed", range(10))
def test_batches_hold_all_within_budget_and_alike_in_length(seed):
    draw = random.Random(seed)
    lengths = [draw.randint(1, 60) for _ in range(50)]
    batches = bucket(lengths, 100)
    assert sorted(i for batch in batches for i in batch) == list(range(50))
    assert all(sum(lengths[i] for i in batch) <= 100 for batch in batches)
    assert [lengths[i] for batch in batches for i in batch] == sorted(lengths, reverse=True)
    assert bucket(lengths, 100) == batches


def test_an_item_above_the_budget_gets_its_own_batch():
    assert bucket([3, 500, 4], 10) == [[1], [2, 0]]


def test_hanging_fills_trees_up_to_the_room():
    branches = [[i] * n for i, n in enumerate((4, 2, 7, 3, 1))]
    hung = hang([9, 9], branches, room=10)  # 8 for branches
    assert [members for members, _ in hung] == [[2, 4], [0, 3], [1]]
    assert [len(tree) for _, tree in hung] == [10, 9, 4]
    assert all(tree.branches == [branches[i] for i in members] for members, tree in hung)


def test_a_branch_too_long_to_hang_gets_its_own_tree():
    hung = hang([9, 9], [[1] * 20, [2], [3]], room=10)
    assert [members for members, _ in hung] == [[0], [1, 2]]
