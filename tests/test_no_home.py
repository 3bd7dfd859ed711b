"""A container's user: no HOME, no entry in the passwd file. The commands work where the cache has a folder."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bdpo.files import cache_dir, expanded
from bdpo.pairs import write_pairs
from tiny import make_pairs, tiny_model, tiny_tokenizer

NOBODY = """
import os, pwd, sys
def none(uid): raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = none
sys.argv[0] = "bdpo"
from bdpo.cli import main
main()
"""
RECIPE = """
model: {name: model}
data: {train: pairs.jsonl, holdout: 3}
train: {use_cpu: true, disable_tqdm: true, per_device_train_batch_size: 4, max_steps: 1, save_strategy: "no"}
peft: {r: 4, target_modules: [q_proj]}
"""
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """`bdpo` with nothing in its environment but what is given: exit code and standard error."""
    tiny_model().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    write_pairs(tmp_path / "pairs.jsonl", make_pairs(12))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    bare = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ} | {"OMP_NUM_THREADS": "1"}

    def ran(*arguments: str, **environment: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-c", NOBODY, *arguments], cwd=tmp_path, env=bare | environment, capture_output=True,
            text=True, timeout=120,
        )  # fmt: skip
        return done.returncode, done.stderr

    return ran


@pytest.mark.parametrize(("variable", "below"), [("BDPO_CACHE", "scores"), ("XDG_CACHE_HOME", "bdpo/scores")])
def test_training_needs_no_home_where_the_cache_has_a_folder(
    run: Run, tmp_path: Path, variable: str, below: str
) -> None:
    code, err = run("train", "--config", "recipe.yaml", "--out", "run", **{variable: str(tmp_path / "cache")})
    assert code == 0, err
    assert (tmp_path / "run" / "adapter_model.safetensors").exists() and (tmp_path / "cache" / below).is_dir()
    assert not (tmp_path / "~").exists()


def test_without_a_folder_for_the_cache_one_sentence_asks_for_it(run: Run, tmp_path: Path) -> None:
    code, err = run("train", "--config", "recipe.yaml", "--out", "run")
    assert code == 2 and err.endswith(
        "bdpo: There is no home folder to keep the cache in: set BDPO_CACHE to a folder.\n"
    )
    assert "Traceback" not in err and not (tmp_path / "~").exists()


def test_a_path_below_a_home_that_is_not_there_is_one_that_does_not_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.path.expanduser", lambda path: os.fspath(path))  # what it does for such a user
    assert expanded("~/model") == Path("~/model")
    monkeypatch.setenv("BDPO_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
