"""PKU-SafeRLHF and SafeDPO: which response is the chosen one, by whose rule, and what is drawn, dropped or swapped."""

import pytest

from bdpo.errors import BdpoError
from bdpo.pairs import PreferencePair, pairs_from_rows, safedpo_pairs


def pku(prompt, safe, better, safer, **more):
    return {
        "prompt": prompt,
        "response_0": "zero",
        "response_1": "one",
        "is_response_0_safe": safe[0],
        "is_response_1_safe": safe[1],
        "better_response_id": better,
        "safer_response_id": safer,
        **more,
    }


def test_pku_present_columns():
    row = pku(
        "Where is the key?",
        (False, True),
        better=0,
        safer=1,
        prompt_source="PKU",
        response_0_source="Alpaca-7B",
        response_1_source="Alpaca-7B",
        response_0_severity_level=2,
        response_1_severity_level=0,
        response_0_harm_category={"Privacy Violation": True, "Violence": False, "Cybercrime": True},
        response_1_harm_category={"Privacy Violation": True, "Violence": False, "Cybercrime": False},
        response_0_sha256="0" * 64,
        response_1_sha256="1" * 64,
    )
    expected = PreferencePair(
        id="row-1",
        prompt=({"role": "user", "content": "Where is the key?"},),
        chosen="one",
        rejected="zero",
        chosen_safe=True,
        rejected_safe=False,
        category=("Privacy Violation", "Cybercrime"),
        source="rows",
    )
    for prefer in ("safety-protocol", "safer"):
        loaded = pairs_from_rows([row], prefer=prefer)
        assert (loaded.format, loaded.pairs) == ("pku", [expected])
    pair = pairs_from_rows([row], prefer="helpful").pairs[0]
    assert (pair.chosen, pair.chosen_safe, pair.rejected_safe) == ("zero", False, True)


@pytest.mark.parametrize(
    ("prefer", "safe", "better", "safer", "chosen"),
    [
        ("safety-protocol", (True, True), 0, 1, "zero"),  # both safe: the more helpful
        ("safety-protocol", (True, True), 1, 0, "one"),
        ("safety-protocol", (True, False), 1, 0, "zero"),  # one safe: that one
        ("safety-protocol", (False, True), 0, 1, "one"),
        ("safer", (True, True), 0, 1, "one"),  # the id columns, whatever the labels
        ("safer", (False, False), 1, 0, "zero"),
        ("helpful", (True, True), 0, 1, "zero"),
        ("helpful", (False, True), 0, 1, "zero"),
    ],
)
def test_pku_preferences(prefer, safe, better, safer, chosen):
    pair = pairs_from_rows([pku("q", safe, better, safer)], prefer=prefer).pairs[0]
    assert pair.chosen == chosen
    assert (pair.chosen_safe, pair.rejected_safe) == (safe if chosen == "zero" else safe[::-1])
    assert pair.category == ()


def test_pku_drops_are_counted():
    rows = [
        pku("a", (True, False), 0, 0),
        pku("b", (False, False), 0, 1),
        pku("c", (False, False), 0, 1),
        pku("d", (True, True), None, 1),
        pku("e", (True, None), 0, 1),
    ]
    loaded = pairs_from_rows(rows, prefer="safety-protocol")
    assert [pair.id for pair in loaded.pairs] == ["row-1"]
    assert loaded.counts == {
        "dropped: both responses are unsafe": 2,
        "dropped: better_response_id names no response": 1,
        "dropped: a response has no safety label": 1,
    }


def test_pku_never_guesses():
    row = pku("a", (True, False), 0, 0)
    with pytest.raises(
        BdpoError, match=r"say with prefer .* safety-protocol \| safer \| helpful \(prefer is not given\)"
    ):
        pairs_from_rows([row])
    with pytest.raises(BdpoError, match="prefer is better"):
        pairs_from_rows([row], prefer="better")
    older = {name: cell for name, cell in row.items() if name != "safer_response_id"}
    assert pairs_from_rows([older], prefer="helpful").pairs[0].chosen == "zero"
    with pytest.raises(BdpoError, match="row 1: no column 'safer_response_id'"):
        pairs_from_rows([older], prefer="safer")
    with pytest.raises(BdpoError, match="'safer_response_id' is 2"):
        pairs_from_rows([pku("a", (True, False), 0, 2)], prefer="safer")
    unlabelled = {name: cell for name, cell in row.items() if not name.startswith("is_")}
    assert pairs_from_rows([unlabelled], prefer="safer").pairs[0].chosen_safe is None
    with pytest.raises(BdpoError, match="no column 'is_response_0_safe'"):
        pairs_from_rows([unlabelled], prefer="safety-protocol")


def test_sample_draws_as_many_safe_as_unsafe_prompts_in_order():
    rows = [pku(f"q{i}", (True, i % 3 == 0), 0, 0) for i in range(60)]  # 20 safe prompts, 40 unsafe ones
    loaded = pairs_from_rows(rows, prefer="safety-protocol", sample=10, seed=1)
    safe = [pair for pair in loaded.pairs if pair.rejected_safe]
    assert (len(safe), len(loaded.pairs)) == (10, 20)
    assert loaded.counts == {"dropped: not drawn for the sample": 40}
    numbers = [int(pair.id.removeprefix("row-")) for pair in loaded.pairs]
    assert numbers == sorted(numbers)
    assert loaded.pairs == pairs_from_rows(rows, prefer="safety-protocol", sample=10, seed=1).pairs
    assert loaded.pairs != pairs_from_rows(rows, prefer="safety-protocol", sample=10, seed=2).pairs


def test_sample_takes_all_where_there_are_fewer_and_says_so():
    rows = [pku(f"q{i}", (True, i < 3), 0, 0) for i in range(10)]
    loaded = pairs_from_rows(rows, prefer="safety-protocol", sample=5)
    assert len(loaded.pairs) == 8
    assert loaded.counts == {
        "sample: missing pairs with a safe prompt (all 3 taken)": 2,
        "dropped: not drawn for the sample": 2,
    }
    with pytest.raises(BdpoError, match="sample is 0"):
        pairs_from_rows(rows, prefer="safety-protocol", sample=0)
    with pytest.raises(BdpoError, match="sample needs pairs labelled"):
        pairs_from_rows([{"prompt": "a", "chosen": "b", "rejected": "c"}], sample=5)


# --- SafeDPO's data step ---------------------------------------------------------------------------------


def test_safedpo_swaps_drops_and_keeps():
    def pair(name, chosen_safe, rejected_safe):
        return PreferencePair(name, "q", f"{name} chosen", f"{name} rejected", chosen_safe, rejected_safe)

    pairs = [pair("a", True, True), pair("b", True, False), pair("c", False, True), pair("d", False, False)]
    kept, counts = safedpo_pairs(pairs)
    assert kept == [*pairs[:2], PreferencePair("c", "q", "c rejected", "c chosen", True, False)]
    assert counts == {
        "changed: chosen and rejected swapped (SafeDPO)": 1,
        "dropped: both replies are unsafe (SafeDPO)": 1,
    }
    assert safedpo_pairs(pairs[:2]) == (pairs[:2], {})
    with pytest.raises(BdpoError, match="Pair e: SafeDPO needs chosen_safe and rejected_safe"):
        safedpo_pairs([*pairs, pair("e", True, None)])
