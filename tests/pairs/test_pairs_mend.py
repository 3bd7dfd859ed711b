"""Conflicts and duplicates: what is kept of pairs that were annotated more than once, and `bdpo data clean`."""

import gzip
import json
import random
from collections import Counter
from pathlib import Path

import pytest

from bdpo.errors import BdpoError
from bdpo.pairs import PreferencePair, check_pairs, load_pairs, mend_pairs, pairs_from_rows, write_pairs
from bdpo.pairs.clean import clean
from bdpo.pairs.mend import DISPUTED, IDENTICAL, OUTVOTED, REPEATED, TIED

PKU = Path(__file__).parents[3] / "shared" / "data" / "pku_saferlhf_test_pairs.jsonl.gz"


def annotated(votes: str, prompt: str = "Tea?") -> list[PreferencePair]:
    """A pair a letter, named by its place: y prefers Yes, n prefers No, = has Yes on both sides."""
    replies = {"y": ("Yes", "No"), "n": ("No", "Yes"), "=": ("Yes", "Yes")}
    return [PreferencePair(f"{votes}-{i}", prompt, *replies[vote]) for i, vote in enumerate(votes)]


def kept(votes: str, **how: str) -> tuple[list[int], dict[str, int]]:
    mended = mend_pairs(annotated(votes), **how)
    return [int(pair.id.rpartition("-")[2]) for pair in mended.pairs], mended.counts


@pytest.mark.parametrize(
    ("votes", "how", "places", "counts"),
    [
        ("y", {}, [0], {}),
        ("yy", {}, [0], {REPEATED: 1}),
        ("yy", {"duplicates": "keep"}, [0, 1], {}),
        ("yn", {}, [], {TIED: 2}),
        ("yynn", {"duplicates": "keep"}, [], {TIED: 4}),
        ("nyy", {}, [1], {OUTVOTED: 1, REPEATED: 1}),
        ("nyy", {"duplicates": "keep"}, [1, 2], {OUTVOTED: 1}),
        ("ynynn", {}, [1], {OUTVOTED: 2, REPEATED: 2}),
        ("nyy", {"conflicts": "drop"}, [], {DISPUTED: 3}),
        ("yy", {"conflicts": "drop"}, [0], {REPEATED: 1}),
        ("nyy", {"conflicts": "error"}, [0, 1], {REPEATED: 1}),
        ("nyy", {"conflicts": "error", "duplicates": "keep"}, [0, 1, 2], {}),
        ("=", {}, [], {IDENTICAL: 1}),
        ("=y=", {"conflicts": "drop"}, [1], {IDENTICAL: 2}),
        ("=", {"conflicts": "error"}, [0], {}),
    ],
)
def test_votes_decide(votes: str, how: dict, places: list[int], counts: dict) -> None:
    assert kept(votes, **how) == (places, counts)


def test_a_decision_says_what_was_dropped_for_what_and_the_votes() -> None:
    outvoted, repeated = mend_pairs(annotated("nyy")).decisions
    assert (outvoted.reason, outvoted.dropped, outvoted.kept) == (OUTVOTED, ("nyy-0",), ("nyy-1", "nyy-2"))
    assert (repeated.reason, repeated.dropped, repeated.kept) == (REPEATED, ("nyy-2",), ("nyy-1",))
    assert (outvoted.votes, repeated.votes) == ((2, 1), (2, 0))
    (tied,) = mend_pairs(annotated("yn")).decisions
    assert (tied.dropped, tied.kept, tied.votes) == (("yn-0", "yn-1"), (), (1, 1))


def test_pairs_are_the_same_as_the_check_takes_them() -> None:
    other = [PreferencePair("loud", "TEA", " No ", "Yes")]
    assert mend_pairs([*annotated("y"), *other]).counts == {TIED: 2}
    for apart in (PreferencePair("p", "Coffee?", "No", "Yes"), PreferencePair("p", "Tea?", "No", "Perhaps")):
        assert mend_pairs([*annotated("y"), apart]).counts == {}
    chat = PreferencePair("chat", ({"role": "user", "content": "Tea?"},), "No", "Yes")
    assert mend_pairs([*annotated("y"), chat]).counts == {}


def test_other_words_are_refused() -> None:
    with pytest.raises(BdpoError, match="conflicts is 'both': choose one of majority, drop, error"):
        mend_pairs([], conflicts="both")
    with pytest.raises(BdpoError, match="duplicates is 'error': choose one of keep, drop"):
        mend_pairs([], duplicates="error")


def slow_majority(pairs: list[PreferencePair]) -> list[str]:
    """The ids that majority and drop leave, found pair by pair from the counts of each direction."""
    votes = Counter((pair.prompt, pair.chosen, pair.rejected) for pair in pairs)
    seen, left = set(), []
    for pair in pairs:
        here = (pair.prompt, pair.chosen, pair.rejected)
        if votes[here] > votes[pair.prompt, pair.rejected, pair.chosen] and here not in seen:
            left.append(pair.id)
        seen.add(here)
    return left


def test_majority_is_what_counting_finds() -> None:
    draw = random.Random(3)
    for _ in range(50):
        pairs = [
            PreferencePair(f"p{i}", draw.choice("ab"), draw.choice("xyz"), draw.choice("xyz"))
            for i in range(draw.randint(1, 60))
        ]
        mended = mend_pairs(pairs)
        assert [pair.id for pair in mended.pairs] == slow_majority(pairs)
        assert sum(mended.counts.values()) == len(pairs) - len(mended.pairs)
        assert not {"conflicting_labels", "duplicate_pairs", "identical_responses"} & {
            finding.name for finding in check_pairs(pairs_from_rows(mended.pairs or annotated("y"))).findings
        }


def test_loading_mends_before_the_sample_is_drawn() -> None:
    def row(i: int, safe: int) -> dict:
        return {"prompt": f"q{i}", "response_0": "zero", "response_1": "one", "is_response_0_safe": safe == 0,
                "is_response_1_safe": safe == 1, "safer_response_id": safe}  # fmt: skip

    rows = [row(i, 0) for i in range(6)] + [row(0, 0), row(1, 1), row(2, 1), row(2, 1)]
    loaded = pairs_from_rows(rows, prefer="safer", conflicts="majority", duplicates="drop", sample=5)
    assert loaded.counts == {
        TIED: 2, OUTVOTED: 1, REPEATED: 2, "sample: missing pairs with a safe prompt (all 0 taken)": 5,
    }  # fmt: skip
    assert [(pair.id, pair.chosen) for pair in loaded.pairs] == [
        ("row-1", "zero"), ("row-4", "zero"), ("row-5", "zero"), ("row-6", "zero"), ("row-9", "one"),
    ]  # fmt: skip
    assert len(pairs_from_rows(rows, prefer="safer").pairs) == 10, "as they are, unless it is asked for"


@pytest.mark.skipif(not PKU.exists(), reason="the PKU-SafeRLHF file is not here")
def test_real_annotations() -> None:
    lines = gzip.decompress(PKU.read_bytes()).decode().splitlines()
    rows = [json.loads(line) for line in lines]
    # the check's key is coarser than equal texts in one point: case and marks at the end of the prompt
    votes = Counter((row["prompt"][0]["content"], row["chosen"].strip(), row["rejected"].strip()) for row in rows)
    won = [key for key, n in votes.items() if n > votes[key[0], key[2], key[1]]]
    loaded = load_pairs(PKU, conflicts="majority", duplicates="drop")
    assert len(loaded.pairs) == len(won) == 3318
    assert loaded.counts == {REPEATED: 1545, TIED: 256, OUTVOTED: 16}
    assert load_pairs(PKU, conflicts="drop").counts == {DISPUTED: 304}


# --- bdpo data clean ----------------------------------------------------------------------------------------------


def test_clean_writes_the_mended_set_and_each_decision(tmp_path: Path) -> None:
    source, out = tmp_path / "annotated.jsonl", tmp_path / "made" / "mended.jsonl"
    write_pairs(source, [*annotated("nyy"), *annotated("yn", "Milk?"), *annotated("y", "Sugar?")])
    source.write_text(source.read_text() + '{"prompt": "Cake?", "chosen": "Yes"}\n')
    cleaned = clean(source, out)
    assert [pair.id for pair in load_pairs(out).pairs] == ["nyy-1", "y-0"]
    assert load_pairs(out).pairs == mend_pairs(load_pairs(source, on_error="collect").pairs).pairs
    unread = (
        f"{source}, line 7: no column 'rejected' (the columns are 'prompt', 'chosen'): add it, or rename the one meant."
    )
    report = [json.loads(line) for line in (tmp_path / "made" / "mended.report.jsonl").read_text().splitlines()]
    assert report == [
        {"reason": "dropped: they cannot be read", "row": unread},
        {"reason": OUTVOTED, "dropped": ["nyy-0"], "kept": ["nyy-1", "nyy-2"], "votes": [2, 1]},
        {"reason": REPEATED, "dropped": ["nyy-2"], "kept": ["nyy-1"], "votes": [2, 0]},
        {"reason": TIED, "dropped": ["yn-0", "yn-1"], "kept": [], "votes": [1, 1]},
    ]
    assert cleaned.lines() == [
        f"2 pairs of 7 rows of {source} (canonical): {out}",
        "  1 rows dropped: they cannot be read",
        f"  1 rows {OUTVOTED}",
        f"  1 rows {REPEATED}",
        f"  2 rows {TIED}",
        f"  {unread}",
        f"Each decision: {tmp_path / 'made' / 'mended.report.jsonl'}",
    ]
    clean(source, out, conflicts="error", duplicates="keep")
    assert len(load_pairs(out).pairs) == 6


def test_clean_says_what_it_does_not_mend(tmp_path: Path) -> None:
    write_pairs(tmp_path / "a.jsonl", [*annotated("y"), PreferencePair("e", "Milk?", "", "No")])
    out = tmp_path / "b.jsonl"
    said = f"Not mended, and bdpo train stops at it: empty responses (1). See bdpo data check {out}."
    assert clean(tmp_path / "a.jsonl", out).lines()[-1] == said


def test_clean_refuses_what_would_lose_data(tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl"
    write_pairs(source, annotated("yn"))
    before = source.read_bytes()
    with pytest.raises(BdpoError, match=r"is the data itself: choose another name"):
        clean(source, tmp_path / "." / "a.jsonl")
    with pytest.raises(BdpoError, match=r"give a name that ends in \.jsonl"):
        clean(source, tmp_path / "a.jsonl.gz")
    (tmp_path / "broken.jsonl").write_text("nonsense\n")
    with pytest.raises(BdpoError, match=r"No row can be read; the first: .*broken\.jsonl, line 1"):
        clean(tmp_path / "broken.jsonl", tmp_path / "c.jsonl")
    assert source.read_bytes() == before and not (tmp_path / "c.jsonl").exists()
