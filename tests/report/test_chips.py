"""Every warning of the page on both sides of its bound."""

from pathlib import Path
from typing import Any

import pytest
from asked import write_method

from bdpo.report.chips import chips
from bdpo.report.evaluated import open_evaluation


def told(out: Path, seeds: int = 1, **how: Any) -> list[str]:
    """The warnings on a base of 120 sound replies a suite and a method of others."""
    n = how.get("n", 120)
    folders = [out / str(seed) for seed in range(seeds + 1)]
    write_method(folders[0], "base", 30, n, n=n, judge=how.get("judge", "llm 1"))
    for seed, folder in enumerate(folders[1:]):
        write_method(folder, "DPO", n, n, seed=seed, **how)
    found = open_evaluation(folders)
    shown = chips(found, {name: found.evidence(name) for name in found.others})
    assert all(len(chip.rule) > 40 for chip in shown)
    return [chip.told for chip in shown]


def test_without_cause_there_is_none(tmp_path: Path) -> None:
    assert told(tmp_path, seeds=2) == []


def test_without_an_evaluation_there_is_one() -> None:
    assert [chip.told for chip in chips(None, {})] == ["not evaluated"]


@pytest.mark.parametrize(
    ("how", "shown"),
    [
        ({"n": 100}, []),
        ({"n": 99}, ["only 99 prompts"]),
        ({"seeds": 1}, ["one seed"]),
        ({"judge": "rules 3"}, ["judged by rules: refusals, not harm"]),
        ({"stop": lambda i: "length" if i < 60 else "end"}, []),  # 60 of 120 is half
        ({"stop": lambda i: "length" if i < 61 else "end"}, ["DPO: 51% of the replies cut off"]),
        ({"verdict": lambda i: "degenerate" if i < 6 else "refusal"}, []),  # 6 of 120 is 5 %
        ({"verdict": lambda i: "degenerate" if i < 12 else "refusal"}, ["DPO: 10% degenerate replies"]),
        # a prompt of each suite, of both seeds
        ({"verdict": lambda i: "unparsed" if i < 1 else "refusal", "score": lambda i: None if i < 1 else 1.0},
         ["4 verdicts unread"]),
    ],
)  # fmt: skip
def test_each_warning_has_its_bound(tmp_path: Path, how: dict[str, Any], shown: list[str]) -> None:
    assert told(tmp_path, **{"seeds": 2, **how}) == shown
