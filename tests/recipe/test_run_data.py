"""The pairs of a run: mended, mapped and warned of, and shown by `bdpo train`, `bdpo score` and `bdpo data`."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bdpo.errors import BdpoError
from bdpo.pairs import PreferencePair, load_pairs, write_pairs
from bdpo.pairs.check import TEXT_PROMPTS
from bdpo.pairs.mend import OUTVOTED, REPEATED, TIED
from bdpo.recipe.dryrun import dry_run
from bdpo.recipe.run import read_data
from bdpo.recipe.sections import Recipe, load_recipe, parse_recipe
from tiny import Bdpo, make_pairs, tiny_model, tiny_tokenizer

RECIPES = Path(__file__).parents[2] / "recipes"
PKU = Path(__file__).parents[3] / "shared" / "data" / "pku_saferlhf_test_pairs.jsonl.gz"
WRAPPED = "changed: the text prompt became a message of the user"


def asked(prompt: str) -> tuple[dict[str, str], ...]:
    return ({"role": "user", "content": prompt},)


def annotations() -> list[PreferencePair]:
    """Twelve rows of eight pairs: p0 stands there twice, p1 is preferred 2 to 1, p2 as often each way."""
    pairs = [PreferencePair(f"p{i}", asked(f"What is {i}?"), f"It is {i}.", "No idea.", True, False) for i in range(8)]
    votes = [("again", 0, False), ("other", 1, True), ("second", 1, False), ("tied", 2, True)]
    for name, i, swap in votes:
        chosen, rejected = (pairs[i].rejected, pairs[i].chosen) if swap else (pairs[i].chosen, pairs[i].rejected)
        pairs.append(PreferencePair(name, pairs[i].prompt, chosen, rejected, True, False))
    return pairs


def pku_row(pair: PreferencePair, place: int) -> dict[str, Any]:
    """A pair in the columns of PKU-SafeRLHF; odd rows have the chosen response second."""
    first = place % 2
    replies, safe = [pair.chosen, pair.rejected], [pair.chosen_safe, pair.rejected_safe]
    if first:
        replies, safe = replies[::-1], safe[::-1]
    harms = {"Privacy Violation": False, "Violence": True}
    columns = {f"response_{i}": replies[i] for i in (0, 1)} | {f"is_response_{i}_safe": safe[i] for i in (0, 1)}
    columns |= {f"response_{i}_harm_category": {k: v and not safe[i] for k, v in harms.items()} for i in (0, 1)}
    columns |= {f"response_{i}_severity_level": 0 if safe[i] else 2 for i in (0, 1)}
    columns |= {f"response_{i}_sha256": "0" * 64 for i in (0, 1)} | {f"response_{i}_source": "Alpaca" for i in (0, 1)}
    ranked = {"better_response_id": 1 - first, "safer_response_id": first}
    return {"prompt": pair.prompt[-1]["content"], "prompt_source": "BeaverTails", **columns, **ranked}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("home")
    tiny_model().save_pretrained(home / "model")
    tiny_tokenizer().save_pretrained(home / "model")
    write_pairs(home / "annotated.jsonl", annotations())
    write_pairs(home / "held.jsonl", [*make_pairs(3, seed=1), *(pair for pair in annotations() if pair.id == "tied")])
    write_pairs(home / "text.jsonl", [PreferencePair(f"t{i}", f"{i} is", " odd", " even") for i in range(3)])
    rows = [{"ask": f"What is {i}?", "chosen": f"It is {i}.", "rejected": "It is not."} for i in range(4)]
    (home / "ask.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BDPO_CACHE", str(home / "cache"))
        patch.chdir(home)
        yield home


def recipe(data: dict[str, Any], **sections: Any) -> Recipe:
    return parse_recipe({"model": {"name": "model"}, "data": {"train": "annotated.jsonl", **data}, **sections})


def ids(pairs: list[PreferencePair]) -> list[str]:
    return [pair.id for pair in pairs]


# --- read_data ----------------------------------------------------------------------------------------------------
def test_a_run_mends_its_pairs_unless_the_recipe_says_otherwise(home: Path) -> None:
    read = read_data(recipe({}))
    assert ids(read.train) == ["p0", "p1", "p3", "p4", "p5", "p6", "p7"]
    assert read.counts == {REPEATED: 2, OUTVOTED: 1, TIED: 2}
    kept = read_data(recipe({"duplicates": "keep"}))
    assert ids(kept.train) == ["p0", "p1", "p3", "p4", "p5", "p6", "p7", "again", "second"]
    dropped = read_data(recipe({"conflicts": "drop"}))
    assert ids(dropped.train) == ["p0", "p3", "p4", "p5", "p6", "p7"]
    assert len(read_data(recipe({"conflicts": "error", "duplicates": "keep"})).train) == 12
    for key, value in (("conflicts", "both"), ("duplicates", "error")):
        with pytest.raises(BdpoError, match=f"data.{key} is '{value}'"):
            recipe({key: value})


def test_the_limit_and_the_holdout_are_drawn_from_mended_pairs(home: Path) -> None:
    read = read_data(recipe({"limit": 6}))
    assert len(read.train) == 6 and read.counts["dropped: beyond data.limit"] == 1
    read = read_data(recipe({"holdout": 2}))
    assert (len(read.train), len(read.eval)) == (5, 2)


def test_held_out_pairs_are_mended_alike_and_counted_apart(home: Path) -> None:
    write_pairs(home / "twice.jsonl", [pair for pair in annotations() if pair.id in ("p0", "again", "p3")])
    read = read_data(recipe({"eval": "twice.jsonl"}))
    assert ids(read.eval) == ["p0", "p3"] and read.eval_counts == {REPEATED: 1}
    assert f"1 held-out rows {REPEATED}" in read.lines()


def test_the_starters_held_out_pairs_go_with_the_starters_training_pairs(home: Path) -> None:
    for recipe_file in (None, RECIPES / "starter.yaml"):
        own = ["model.name=model", "data.train=annotated.jsonl"]
        starter = load_recipe(recipe_file, own[:1])
        read = read_data(starter)
        assert read.eval == load_pairs("starter", split="validation").pairs and len(read.eval) == 85
        assert read.told(starter) == "339 pairs of starter, 85 held out (starter, validation)."
        mine = load_recipe(recipe_file, own)
        assert read_data(mine).told(mine) == (
            "7 pairs of annotated.jsonl, none held out; data.holdout=N would take N of them."
        )
        for said, held in (("data.eval=starter", "339 held out (starter)"), ("data.holdout=2", "2 held out")):
            mine = load_recipe(recipe_file, [*own, said])
            assert read_data(mine).told(mine).endswith(f"pairs of annotated.jsonl, {held}.")
    for said in ("data.holdout=0", "data.split=validation"):
        assert read_data(load_recipe(None, ["model.name=model", said])).eval == []


def test_safedpo_swaps_before_annotations_are_counted(home: Path) -> None:
    one = PreferencePair("one", asked("Tea?"), "Unsafe.", "Safe.", chosen_safe=False, rejected_safe=True)
    two = PreferencePair("two", asked("Tea?"), "Safe.", "Unsafe.", chosen_safe=True, rejected_safe=False)
    write_pairs(home / "labelled.jsonl", [one, two, *annotations()[3:8]])
    read = read_data(recipe({"train": "labelled.jsonl"}, loss={"name": "safedpo"}))
    assert (read.train[0].id, read.train[0].chosen, len(read.train)) == ("one", "Safe.", 6)
    assert read.counts == {"changed: chosen and rejected swapped (SafeDPO)": 1, REPEATED: 1}
    assert read_data(recipe({"train": "labelled.jsonl"})).counts == {TIED: 2}


def test_text_prompts_are_warned_of_where_the_model_has_a_template(home: Path) -> None:
    read = read_data(recipe({"train": "text.jsonl"}))
    assert read.warnings == [TEXT_PROMPTS] and read.lines() == [f"Warning: {TEXT_PROMPTS}"]
    wrapped = read_data(recipe({"train": "text.jsonl", "as_chat": True}))
    assert wrapped.warnings == [] and wrapped.counts == {WRAPPED: 3}
    assert wrapped.train[1].prompt == asked("1 is")
    assert read_data(recipe({})).warnings == []
    tiny_model().save_pretrained(home / "base")
    tiny_tokenizer(chat_template=None).save_pretrained(home / "base")
    assert read_data(recipe({"train": "text.jsonl"}, model={"name": "base"})).warnings == []
    given = {"name": "base", "chat_template": "{{ messages[0].content }}"}
    assert read_data(recipe({"train": "text.jsonl"}, model=given)).warnings == [TEXT_PROMPTS]


def test_columns_are_mapped_in_a_recipe(home: Path) -> None:
    read = read_data(recipe({"train": "ask.jsonl", "columns": {"prompt": "ask"}, "as_chat": True}))
    assert [pair.prompt for pair in read.train] == [asked(f"What is {i}?") for i in range(4)]
    with pytest.raises(BdpoError, match=r"data\.columns is 'ask', but it should be a section with keys"):
        recipe({"columns": "ask"})


def test_the_starter_data_beside_other_data_is_read_as_itself(home: Path) -> None:
    write_table(home / "table.jsonl", annotations())
    read = read_data(recipe({"train": "table.jsonl", "prefer": "safer", "format": "pku", "eval": "starter"}))
    assert len(read.train) == 7 and len(read.eval) == len(load_pairs("starter").pairs)
    read = read_data(recipe({"train": "ask.jsonl", "columns": {"prompt": "ask"}, "as_chat": True, "eval": "starter"}))
    assert len(read.train) == 4 and read.eval == load_pairs("starter").pairs


# --- what the commands show ---------------------------------------------------------------------------------------
TRAIN = (
    "--set", "model.name=model", "--set", "data.train=annotated.jsonl", "--set", "train.use_cpu=true",
    "--set", "train.max_steps=1", "--set", "train.disable_tqdm=true",
)  # fmt: skip
COUNTED = (f"  2 rows {REPEATED}\n", f"  1 rows {OUTVOTED}\n", f"  2 rows {TIED}\n")


def test_train_and_score_show_what_was_dropped(bdpo_: Bdpo, home: Path) -> None:
    code, out, _ = bdpo_("train", *TRAIN, "--set", "data.holdout=2", "--out", "run")
    assert code == 0 and "5 pairs of annotated.jsonl, 2 held out.\n" in out and all(line in out for line in COUNTED)
    assert out.index("5 pairs") < out.index("Training and held-out pairs"), "before it trains"
    card = (home / "run" / "README.md").read_text()
    assert "5 pairs from `annotated.jsonl`" in card and f"- 2 rows {REPEATED}" in card
    code, out, _ = bdpo_("score", "--model", "model", "--data", "annotated.jsonl", "--out", "scores")
    assert code == 0 and "7 pairs of annotated.jsonl" in out and all(line in out for line in COUNTED)
    code, out, _ = bdpo_("train", *TRAIN, "--dry-run")
    assert code == 0 and all(line in out for line in COUNTED)


def test_conflicts_error_stops_as_the_check_does(bdpo_: Bdpo) -> None:
    code, _, err = bdpo_("train", *TRAIN, "--set", "data.conflicts=error", "--out", "never")
    assert code == 2 and "annotated.jsonl: conflicting labels in 4 pairs (first: p1)." in err


def test_the_command_that_an_error_names_can_be_pasted(bdpo_: Bdpo) -> None:
    Path("a file.jsonl").write_bytes(Path("annotated.jsonl").read_bytes())
    named = ("--set", "data.train=a file.jsonl", "--set", "data.conflicts=error", "--out", "never")
    code, _, err = bdpo_("train", *TRAIN, *named)
    assert code == 2 and "`bdpo data check 'a file.jsonl'` shows all." in err


def test_text_prompts_are_warned_of_in_training_and_in_the_check(bdpo_: Bdpo) -> None:
    text = ("--set", "data.train=text.jsonl", "--out")
    code, out, _ = bdpo_("train", *TRAIN, *text, "run-text")
    assert code == 0 and TEXT_PROMPTS in out
    code, out, _ = bdpo_("train", *TRAIN, *text, "run-chat", "--set", "data.as_chat=true")
    assert code == 0 and f"  3 rows {WRAPPED}\n" in out and TEXT_PROMPTS not in out
    check = ("data", "check", "text.jsonl", "--model", "model", "--json")
    code, out, _ = bdpo_(*check)
    (found,) = [finding for finding in json.loads(out)["findings"] if finding["name"] == "text_prompts"]
    assert (code, found["severity"], found["count"], found["explanation"]) == (0, "warning", 3, TEXT_PROMPTS)
    report = json.loads(bdpo_(*check, "--as-chat")[1])
    assert "text_prompts" in report["passed"] and report["counts"] == {WRAPPED: 3}


def test_the_check_mends_nothing_and_says_what_training_would(bdpo_: Bdpo) -> None:
    code, out, _ = bdpo_("data", "check", "annotated.jsonl", "--model", "model", "--json")
    found = {finding["name"]: finding for finding in json.loads(out)["findings"]}
    assert code == 1 and json.loads(out)["n_pairs"] == 12
    conflict, duplicate = found["conflicting_labels"], found["duplicate_pairs"]
    assert (conflict["severity"], conflict["count"], duplicate["count"]) == ("error", 5, 2)
    assert "keeps what most annotations prefer, here 2 of the 5, and drops the others" in conflict["explanation"]
    assert "Training does, unless data.duplicates is keep" in duplicate["explanation"]


def test_the_check_takes_a_mapping(bdpo_: Bdpo) -> None:
    check = ("data", "check", "ask.jsonl", "--model", "model")
    code, out, _ = bdpo_(*check, "--columns", "prompt=ask", "--as-chat")
    assert code == 0 and "ask.jsonl (canonical): 4 pairs of 4 rows" in out
    code, _, err = bdpo_(*check, "--columns", "ask")
    assert code == 2 and "write OURS=THEIRS, for example --columns prompt=question" in err


def test_clean_is_what_training_takes(bdpo_: Bdpo, home: Path) -> None:
    code, out, err = bdpo_("data", "clean", "annotated.jsonl", "--out", "mended.jsonl")
    assert (code, err) == (0, "") and all(line in out for line in COUNTED)
    assert load_pairs(home / "mended.jsonl").pairs == read_data(recipe({})).train
    code, _, err = bdpo_("data", "clean", "annotated.jsonl", "--out", "annotated.jsonl")
    assert code == 2 and "choose another name" in err
    code, out, _ = bdpo_("data", "clean", "ask.jsonl", "--out", "x.jsonl", "--columns", "prompt=ask", "--as-chat")
    assert code == 0 and f"  4 rows {WRAPPED}\n" in out


def test_a_dry_run_ends_with_what_the_run_would_stop_at(bdpo_: Bdpo, home: Path) -> None:
    write_pairs(home / "fine.jsonl", make_pairs(3, seed=2))
    dry = ("train", "--dry-run", "--set", "model.name=model", "--set", "data.conflicts=error", "--set")
    code, out, err = bdpo_(*dry, "data.train=annotated.jsonl")
    assert code == 2 and "Nothing was trained." in out
    assert "bdpo: The run would stop here: annotated.jsonl: conflicting labels in 4 pairs" in err
    code, out, err = bdpo_(*dry, "data.train=fine.jsonl", "--set", "data.eval=annotated.jsonl")
    assert code == 2 and "would stop here: annotated.jsonl: conflicting labels in 4 pairs" in err
    assert bdpo_(*dry, "data.train=fine.jsonl")[0] == 0


# --- the recipes on PKU-SafeRLHF's columns ------------------------------------------------------------------------
def local(name: str, table: Path) -> Recipe:
    """A recipe of the project on a table here and the tiny model, which has no bfloat16 arithmetic to ask for."""
    pku = [f"data.{key}={table}" for key in ("train", "eval")] + ["data.split=null", "data.eval_split=null"]
    return load_recipe(RECIPES / name, ["model.name=model", *pku, "data.prefer=safety-protocol"])


def write_table(path: Path, pairs: list[PreferencePair]) -> None:
    path.write_text("".join(json.dumps(pku_row(pair, place)) + "\n" for place, pair in enumerate(pairs)))


@pytest.mark.parametrize("name", sorted(path.name for path in RECIPES.glob("*.yaml")))
def test_each_recipe_passes_its_dry_run_on_pku_columns(home: Path, tmp_path: Path, name: str) -> None:
    write_table(home / "table.jsonl", annotations())
    dry = dry_run(local(name, home / "table.jsonl"), tmp_path / "run")
    assert (dry.train_pairs, dry.eval_pairs, dry.report.has_errors) == (7, 7, False)
    assert {reason: dry.report.counts[reason] for reason in (REPEATED, OUTVOTED, TIED)} == {
        REPEATED: 2, OUTVOTED: 1, TIED: 2,
    }  # fmt: skip


@pytest.mark.skipif(not PKU.exists(), reason="the PKU-SafeRLHF file is not here")
@pytest.mark.parametrize("name", sorted(path.name for path in RECIPES.glob("*.yaml")))
def test_each_recipe_passes_its_dry_run_on_real_annotations(home: Path, tmp_path: Path, name: str) -> None:
    rows = [json.loads(line) for line in gzip.decompress(PKU.read_bytes()).decode().splitlines()[:600]]
    write_pairs(home / "real.jsonl", [PreferencePair(**row) for row in rows])
    write_table(home / "real-table.jsonl", load_pairs(home / "real.jsonl").pairs)
    dry = dry_run(local(name, home / "real-table.jsonl"), tmp_path / "run")
    assert not dry.report.has_errors
    canonical = read_data(recipe({"train": "real.jsonl"}))
    assert dry.train_pairs == len(canonical.train)
    assert dry.report.counts[REPEATED] == canonical.counts[REPEATED] > 0
