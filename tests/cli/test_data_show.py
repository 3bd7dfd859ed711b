"""`bdpo data show`: texts, comprehension, imbalance and weights; what it exports is read again."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bdpo.pairs import load_pairs
from bdpo.score.folder import open_scores
from tiny import Bdpo, furnish


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a tiny model and pairs, the working folder."""
    home = tmp_path_factory.mktemp("home")
    furnish(home, pairs=12)
    (home / "other.csv").write_text("id,prompt,chosen,rejected,source\npair-0,Tea?,Yes.,No.,mine\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BDPO_CACHE", str(home / "cache"))
        patch.chdir(home)
        yield home


@pytest.fixture
def scores(home: Path, bdpo_: Bdpo) -> Path:
    if not (home / "scores").exists():
        assert bdpo_("score", "--model", "model", "--data", "pairs.jsonl", "--out", "scores")[0] == 0
    return home / "scores"


def test_sorted_by_imbalance_with_weights(bdpo_: Bdpo, home: Path, scores: Path) -> None:
    rows = open_scores(scores).rows
    d = {row["id"]: row["chosen_mi"] - row["rejected_mi"] for row in rows}
    order = sorted(d, key=lambda id: -abs(d[id]))
    assert bdpo_("data", "show", "pairs.jsonl", "--scores", "scores", "--export", "all.csv")[0] == 0
    exported = list(csv.DictReader((home / "all.csv").open(newline="")))
    assert [row["id"] for row in exported] == order
    tau = np.std(list(d.values()))  # the paper's formula: w_c = 2 sigmoid(-d / tau)
    for row in exported:
        chosen, rejected, gap, w_c, w_r = (float(row[name]) for name in ("i_chosen", "i_rejected", "d", "w_c", "w_r"))
        assert gap == chosen - rejected == d[row["id"]]
        assert (w_c, w_r) == pytest.approx((2 / (1 + np.exp(gap / tau)), 2 / (1 + np.exp(-gap / tau))))
    code, out, _ = bdpo_("data", "show", "pairs.jsonl", "--scores", "scores", "--sort", "imbalance", "--top", "2")
    heads = [line for line in out.splitlines() if " d " in line and "w_c" in line]
    assert code == 0 and [line.split()[0] for line in heads] == order[:2]
    first = exported[0]
    numbers = "  ".join(f"{name} {float(first[name]):+.3f}" for name in ("i_chosen", "i_rejected", "d", "w_c", "w_r"))
    assert heads[0].startswith(f"{first['id']}  {numbers}")
    pair = next(pair for pair in load_pairs("pairs.jsonl").pairs if pair.id == order[0])
    assert all(text in " ".join(out.split()) for text in (pair.chosen, pair.rejected, pair.prompt[-1]["content"]))


def test_an_export_is_read_as_the_same_pairs(bdpo_: Bdpo, home: Path) -> None:
    assert bdpo_("data", "show", "pairs.jsonl", "--export", "same.csv")[1] == "Written: same.csv, 12 of 12 pairs.\n"
    assert load_pairs("same.csv").pairs == load_pairs("pairs.jsonl").pairs
    assert bdpo_("data", "show", "pairs.jsonl", "--top", "5", "--export", "five.csv")[0] == 0
    assert load_pairs("five.csv").pairs == load_pairs("pairs.jsonl").pairs[:5]


def test_the_prompt_as_the_model_sees_it(bdpo_: Bdpo, home: Path) -> None:
    rows = [
        {"id": "a", "prompt": [{"role": "user", "content": "Tea? [/x] \x1b[31m"}], "chosen": "Yes.", "rejected": "No."}
    ]
    (home / "one.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, _ = bdpo_("data", "show", "one.jsonl", "--template", "--model", "model")
    lines = [line.rstrip() for line in out.splitlines()]
    assert code == 0 and lines[1:] == [
        "a",
        "prompt    <|im_start|>user",
        "          Tea? [/x] \\x1b[31m<|im_end|>",
        "          <|im_start|>assistant",
        "",
        "chosen    Yes.",
        "rejected  No.",
    ]
    assert "prompt    Tea? [/x] \\x1b[31m" in bdpo_("data", "show", "one.jsonl")[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("pairs.jsonl --sort imbalance", "--sort imbalance needs --scores DIR"),
        ("other.csv --scores scores", "none of these pairs was scored there"),
        ("pairs.jsonl --scores nowhere", "nowhere is not a scored folder"),
        ("nowhere.jsonl", "nowhere.jsonl"),
    ],
)
def test_a_mistake_is_one_sentence(bdpo_: Bdpo, scores: Path, arguments: str, said: str) -> None:
    code, _, err = bdpo_("data", "show", *arguments.split())
    assert code == 2 and said in err and len(err.strip().splitlines()) == 1
