"""Index arithmetic of the layouts on drawn trees: every layout holds the same tokens, seen through the same eyes."""

from hypothesis import given, settings
from hypothesis import strategies as st

from bdpo.forward.layout import BranchBatch, Tree, attention_mask, bucket, hang, lay_out, spread

EXAMPLES = settings(max_examples=40, deadline=None, derandomize=True, database=None)
IDS = st.lists(st.integers(1, 9), min_size=1, max_size=12)
BRANCHES = st.lists(IDS, min_size=1, max_size=4)
TREES = st.lists(
    st.builds(Tree, st.one_of(IDS, IDS.map(lambda ids: [*range(10, 20), *ids])), BRANCHES), min_size=1, max_size=5
)
LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=20)


def contexts(batch: BranchBatch) -> list[tuple[int, list[tuple[int, int]], int]]:
    """Of each response token: its branch, the (position, id) pairs that its predictor sees, and the token."""
    length = batch.input_ids.shape[1]
    mask = attention_mask(batch)
    seen = (mask[:, None, :] * mask[:, :, None]).bool().tril() if batch.layout == "padded" else mask[:, 0]
    found = []
    for n, target in enumerate(batch.targets.tolist()):
        row, column = divmod(int(batch.predictors[batch.predictor_of[n]]), length)
        visible = seen[row, column].nonzero().flatten()
        positions, ids = batch.position_ids[row, visible].tolist(), batch.input_ids[row, visible].tolist()
        found.append((int(batch.branch_of[n]), sorted(zip(positions, ids, strict=True)), target))
    return found


@EXAMPLES
@given(trees=TREES)
def test_every_response_token_is_predicted_from_its_prefix_and_what_it_follows(trees: list[Tree]) -> None:
    branches = [(tree.prefix, branch) for tree in trees for branch in tree.branches]
    expected = [
        (k, list(enumerate([*prefix, *branch[:t]])), branch[t])
        for k, (prefix, branch) in enumerate(branches)
        for t in range(len(branch))
    ]
    for layout in ("packed", "shared", "padded"):
        batch = lay_out(trees, layout=layout)
        assert contexts(batch) == expected, layout
        assert batch.lengths.tolist() == [len(branch) for _, branch in branches]


@EXAMPLES
@given(lengths=LENGTHS, budget=st.integers(1, 60), count=st.integers(1, 8), prefix=IDS)
def test_nothing_is_lost_or_taken_twice(lengths: list[int], budget: int, count: int, prefix: list[int]) -> None:
    everything = list(range(len(lengths)))
    for padded in (False, True):
        batches = bucket(lengths, budget, padded=padded)
        assert sorted(i for batch in batches for i in batch) == everything
        for batch in batches:
            cost = max(lengths[i] for i in batch) * len(batch) if padded else sum(lengths[i] for i in batch)
            assert cost <= budget or len(batch) == 1
    rows = spread(lengths, count)
    assert len(rows) == count and sorted(i for row in rows for i in row) == everything
    totals = [sum(lengths[i] for i in row) for row in rows]
    assert max(totals) - min(totals) <= max(lengths)
    trees = hang(prefix, [[1] * length for length in lengths], budget)
    assert sorted(i for members, _ in trees for i in members) == everything
    assert all(len(tree) <= budget or len(members) == 1 for members, tree in trees)
