"""Attention by visible blocks against the softmax written out over a dense mask, and how many calls it takes."""

import pytest
import torch

from bdpo.forward import attention
from bdpo.forward.attention import block_attention
from bdpo.forward.layout import Tree, attention_mask, block_table, lay_out


def row(*shapes: tuple[int, list[int]]) -> list[Tree]:
    return [Tree([7] * prefix, [[9] * branch for branch in branches]) for prefix, branches in shapes]


EIGHT = row((40, [8] * 8))
LONG = row((10, [100, 20, 20, 120]))
TWO = row((12, [3, 5]), (20, [4, 4, 4]))  # they begin alike, and that is a block of its own
HEADS, KEY_HEADS, SIZE = 6, 3, 8


@pytest.mark.parametrize("trees", [EIGHT, LONG, TWO], ids=["eight", "long", "two"])
def test_numbers_and_gradients_are_those_of_the_dense_softmax(trees: list[Tree]) -> None:
    batch = lay_out(trees, layout="packed")
    length = batch.input_ids.shape[1]
    draw = torch.Generator().manual_seed(0)
    made = [torch.randn(1, n, length, SIZE, generator=draw, dtype=torch.float64) for n in (HEADS, KEY_HEADS, KEY_HEADS)]
    query, key, value = (x.requires_grad_() for x in made)
    found = block_attention(query, key, value, block_table(batch))

    every_key, every_value = (x.repeat_interleave(HEADS // KEY_HEADS, dim=1) for x in (key, value))
    scores = (query @ every_key.mT / SIZE**0.5).masked_fill(~attention_mask(batch), float("-inf"))
    dense = (scores.softmax(-1) @ every_value).transpose(1, 2)
    assert torch.allclose(found, dense, atol=1e-12, rtol=0)

    upstream = torch.randn(found.shape, generator=draw, dtype=torch.float64)
    ours, slow = (torch.autograd.grad(x, (query, key, value), upstream) for x in (found, dense))
    assert all(torch.allclose(a, b, atol=1e-11, rtol=0) for a, b in zip(ours, slow, strict=True))


@pytest.mark.parametrize(
    "trees, sizes",
    [
        (EIGHT, [40, 64]),  # the eight in one call
        (LONG, [10, 120, 20, 120]),  # 100 and 20 fit within 128 tokens, and no more
        # what both begin with; the branches of the first, whose prefix that is; the second's rest, its branches
        (TWO, [12, 8, 8, 12]),
    ],
    ids=["eight", "long", "two"],
)
def test_short_branches_of_one_prefix_share_a_call(
    trees: list[Tree], sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    sdpa = attention.scaled_dot_product_attention

    def counted(query: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        seen.append(query.shape[2])
        return sdpa(query, *args, **kwargs)

    monkeypatch.setattr(attention, "scaled_dot_product_attention", counted)
    batch = lay_out(trees, layout="packed")
    length = batch.input_ids.shape[1]
    block_attention(*(torch.ones(1, n, length, SIZE) for n in (4, 2, 2)), block_table(batch))
    assert seen == sizes
