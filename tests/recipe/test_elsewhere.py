"""A folder of scores that cannot be used: the sentence names what chose it, whoever asked for the scores."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bdpo.errors import BdpoError
from bdpo.pairs import write_pairs
from bdpo.recipe.run import run_recipe
from bdpo.recipe.sections import parse_recipe
from bdpo.score import score
from bdpo.train import BDPOConfig, BDPOTrainer
from tiny import make_pairs, tiny_model, tiny_tokenizer

PAIRS = make_pairs(12)
SCORE_DIR = (
    r"name another score\.dir, leave it out, or say the data section \(holdout, limit, seed\) as when it was scored"
)
WAYS = {"--out": "choose another --out", "score.dir": SCORE_DIR, "scores_dir": "set scores_dir to another folder",
        "BDPO_CACHE": "set BDPO_CACHE to another folder"}  # fmt: skip
Ask = Callable[[str, Path], Any]


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ask]:
    """Ask for scores in a folder that was chosen in one of the ways."""
    tiny_model().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    write_pairs(tmp_path / "pairs.jsonl", PAIRS)

    def asked(way: str, folder: Path) -> Any:
        monkeypatch.setenv("BDPO_CACHE", str(folder if way == "BDPO_CACHE" else tmp_path / "cache"))
        if way == "--out":
            return score(tiny_model(), tiny_tokenizer(), PAIRS, folder)
        if way == "scores_dir":
            args = BDPOConfig(output_dir=str(tmp_path / "run"), use_cpu=True, scores_dir=str(folder))
            return BDPOTrainer(tiny_model(), args=args, train_dataset=PAIRS, processing_class=tiny_tokenizer())
        recipe = {
            "model": {"name": str(tmp_path / "model")}, "train": {"use_cpu": True, "disable_tqdm": True},
            "data": {"train": str(tmp_path / "pairs.jsonl"), "holdout": 3},
            "score": {"dir": str(folder) if way == "score.dir" else None},
        }  # fmt: skip
        return run_recipe(parse_recipe(recipe), tmp_path / "run")

    yield asked


@pytest.mark.parametrize("way", WAYS)
def test_no_room_says_where_else_to_go(ask: Ask, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        BdpoError, match=rf"No space left on device\): make room, or {WAYS[way]}.*\. What is there is kept"
    ):
        ask(way, tmp_path / "scores")


@pytest.mark.parametrize("way", WAYS)
def test_a_place_below_a_file_says_where_else_to_go(ask: Ask, way: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BdpoError, match=rf"Cannot write in .*file/.* \(.*\): {WAYS[way]}"):
        ask(way, tmp_path / "file" / "scores")


@pytest.mark.parametrize("way", ["--out", "score.dir", "scores_dir"])
def test_other_scores_and_other_things_say_where_else_to_go(ask: Ask, way: str, tmp_path: Path) -> None:
    other = tmp_path / "scores" / ("train" if way == "scores_dir" else "")
    score(tiny_model(), tiny_tokenizer(), make_pairs(5), other)
    what = r"depend on something else; it differs in the number of pairs \(5 there, .*\)"
    with pytest.raises(BdpoError, match=rf"{what}: {WAYS[way]}.* remove the"):
        ask(way, tmp_path / "scores")
    (tmp_path / "full" / "train").mkdir(parents=True)
    (tmp_path / "full" / "train" / "notes.txt").write_text("mine")
    with pytest.raises(BdpoError, match=rf"is not an empty folder and holds no scores: {WAYS[way]}"):
        ask(way, tmp_path / "full")


def test_scores_of_all_pairs_and_a_holdout_are_told_what_differs(ask: Ask, tmp_path: Path) -> None:
    """`bdpo score` over everything, then training with a holdout: the training pairs are others."""
    score(tiny_model(), tiny_tokenizer(), PAIRS, tmp_path / "scores")
    with pytest.raises(BdpoError, match=SCORE_DIR) as refused:
        ask("score.dir", tmp_path / "scores")
    assert "--out" not in str(refused.value)
    assert ask("score.dir", tmp_path / "others").scores.path == tmp_path / "others"
