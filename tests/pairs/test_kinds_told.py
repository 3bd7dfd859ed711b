"""What kind a pair is of: a column of the data says it, else labels and openings tell what they can."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bdpo.pairs import PreferencePair, load_pairs
from bdpo.pairs.kinds import kind_of, pair_kind

NO, TEA, CARE = "I'm sorry, but I can't help with that.", "Stir it well.", "Talk to somebody you trust first."


@pytest.mark.parametrize(
    ("chosen", "rejected", "safe", "kind"),
    [
        (CARE, TEA, (True, False), "unsafe"),
        (NO, NO, (True, False), "unsafe"),
        (TEA, CARE, (False, True), ""),
        (TEA, CARE, (False, False), ""),
        (NO, TEA, (False, None), ""),
        (CARE, TEA, (True, True), ""),  # two safe replies to a harmful prompt look just so
        (NO, TEA, (True, True), ""),
        (NO, NO, (True, True), ""),
        (TEA, NO, (True, True), "harmless"),
        (TEA, NO, (None, None), "harmless"),
        (TEA, NO, (True, None), "harmless"),
        (NO, TEA, (None, None), "unsafe"),
        (NO, TEA, (True, None), "unsafe"),
        (TEA, CARE, (None, None), ""),
        (TEA, f"<think>\nShould I?\n</think>\n\n{NO}", (None, None), "harmless"),
    ],
)
def test_labels_and_openings_tell(chosen: str, rejected: str, safe: tuple[bool | None, bool | None], kind: str) -> None:
    assert kind_of(chosen, rejected, *safe) == kind


def test_the_column_is_believed_before_labels_and_openings() -> None:
    pair = PreferencePair("a", "Tea?", TEA, CARE, True, True)
    assert [pair_kind(replace(pair, prompt_kind=said)) for said in ("harmless", "unsafe", "")] == [
        "harmless", "unsafe", "",
    ]  # fmt: skip
    assert pair_kind(replace(pair, rejected_safe=False, prompt_kind="harmless")) == "harmless"


def test_pku_pairs_of_two_safe_replies_are_of_no_kind_unless_a_column_says_so(tmp_path: Path) -> None:
    row = {
        "prompt": "How do I hurt him?", "response_0": CARE, "response_1": "Do not hurt anybody.",
        "is_response_0_safe": True, "is_response_1_safe": True, "better_response_id": 0, "safer_response_id": 0,
        "kind_said": "unsafe",
    }  # fmt: skip
    (tmp_path / "pku.jsonl").write_text(json.dumps(row))
    for columns, kind in (({}, ""), ({"prompt_kind": "kind_said"}, "unsafe")):
        (pair,) = load_pairs(tmp_path / "pku.jsonl", prefer="helpful", columns=columns).pairs
        assert pair_kind(pair) == kind
