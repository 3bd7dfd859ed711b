"""Bad input ends in one or two sentences that say what, where and the mend; no traceback, no hang, no half file."""

import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from bad_data import DATA
from bad_evaluations import EVALUATIONS
from bad_models import MODELS
from bad_recipes import RECIPES
from case import Bad, write

from bdpo.pairs import write_pairs
from bdpo.score import score
from tiny import Bdpo, make_pairs, tiny_model, tiny_tokenizer

TABLES = {"data": DATA, "recipe": RECIPES, "model": MODELS, "evaluation": EVALUATIONS}
CASES = {f"{table}: {name}": case for table, cases in TABLES.items() for name, case in cases.items()}
TOO_LONG = 60  # seconds: a hang, and no measure of speed


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a tiny model, pairs, scores of them and a recipe; bdpo's cache lies in it."""
    home = tmp_path_factory.mktemp("home")
    model, tokenizer, pairs = tiny_model(), tiny_tokenizer(), make_pairs(4)
    model.save_pretrained(home / "model")
    tokenizer.save_pretrained(home / "model")
    write_pairs(home / "pairs.jsonl", pairs)
    score(model, tokenizer, pairs, home / "scores")
    (home / "recipe.yaml").write_text(
        "model: {name: model}\ndata: {train: pairs.jsonl}\ntrain: {use_cpu: true, disable_tqdm: true, max_steps: 1}\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BDPO_CACHE", str(home / "cache"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.delenv("BDPO_DATA_DIR", raising=False)
        patch.setattr("bdpo.pairs.bounds.STEPS", 50_000)  # of a million, which take half a minute
        yield home


@pytest.fixture
def folder(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of one case: what `home` has, to be changed at will."""
    for name in ("model", "scores"):
        shutil.copytree(home / name, tmp_path / name)
    for name in ("pairs.jsonl", "recipe.yaml"):
        shutil.copy(home / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise AssertionError(f"it hung for {TOO_LONG} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(TOO_LONG)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def contents(folder: Path, leaves: str = "") -> dict[Path, bytes]:
    """Every file but the memory-mapped copy of scores and the one that may be left."""
    files = (path for path in folder.rglob("*") if path.is_file() and path != folder / leaves)
    return {path: path.read_bytes() for path in files if ".arrow" not in path.parts}


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 120


@pytest.mark.parametrize("name", CASES)
def test_a_bad_input_is_refused_in_a_sentence(bdpo_: Bdpo, folder: Path, name: str) -> None:
    case: Bad = CASES[name]
    for file, content in case.files.items():
        write(folder / file, content)
    before = contents(folder)
    code, out, err = bdpo_(*case.command.split(" "))
    printed = " ".join((out if case.code == 1 else err).split())
    assert code == case.code, (out, err)
    assert "Traceback" not in out + err
    if case.code == 2:
        (sentence,) = [line for line in err.splitlines() if line.startswith("bdpo: ")]
        ours = re.sub(r"\([^()]*\)", "", sentence)  # what others said stands in brackets
        assert err.endswith(sentence + "\n") and len(re.findall(r"[.?!](?= [A-Z`]|$)", ours)) <= 2, sentence
        printed = sentence
    missing = [words for words in case.said if words not in printed]
    assert not missing, printed
    assert contents(folder, case.leaves) == before, "nothing is left behind, and nothing changed"
