"""A container's user: no HOME, no entry in the passwd file. The commands work where the cache has a folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bdpo.files import cache_dir, expanded
from tiny import furnish

NOBODY = """
import contextlib, io, json, os, pwd, sys
def none(uid): raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = none
from bdpo.cli import main

def run(environment):
    os.environ |= environment
    out = "-".join(["run", *environment])
    sys.argv, said, code = ["bdpo", "train", "--config", "recipe.yaml", "--out", out], io.StringIO(), 0
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    for name in environment:
        del os.environ[name]
    return code, said.getvalue()

print(json.dumps([run(environment) for environment in json.load(sys.stdin)]))
"""
RECIPE = """
model: {name: model}
data: {train: pairs.jsonl, holdout: 3}
train: {use_cpu: true, disable_tqdm: true, per_device_train_batch_size: 4, max_steps: 1, save_strategy: "no"}
peft: {r: 4, target_modules: [q_proj]}
"""
WHERE = {"BDPO_CACHE": "scores", "XDG_CACHE_HOME": "bdpo/scores"}  # variable: where scores lie in its folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("nobody")
    furnish(home, pairs=12)
    (home / "recipe.yaml").write_text(RECIPE)
    return home


@pytest.fixture(scope="module")
def ended(home: Path) -> dict[str, tuple[int, str]]:
    """Exit code and standard error of `bdpo train`, by the variable that names the cache: first by none. One process
    with nothing else in its environment runs it each time, since most of its time would go into imports."""
    bare = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ} | {"OMP_NUM_THREADS": "1"}
    asked = json.dumps([{}, *({variable: str(home / variable)} for variable in WHERE)])
    done = subprocess.run(
        [sys.executable, "-c", NOBODY], cwd=home, env=bare, input=asked, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(zip(["", *WHERE], json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("variable", WHERE)
def test_training_needs_no_home_where_the_cache_has_a_folder(
    home: Path, ended: dict[str, tuple[int, str]], variable: str
) -> None:
    code, err = ended[variable]
    assert code == 0, err
    assert (home / f"run-{variable}" / "adapter_model.safetensors").exists()
    assert (home / variable / WHERE[variable]).is_dir() and not (home / "~").exists()


def test_without_a_folder_for_the_cache_one_sentence_asks_for_it(home: Path, ended: dict[str, tuple[int, str]]) -> None:
    code, err = ended[""]
    assert code == 2 and err.endswith(
        "bdpo: There is no home folder to keep the cache in: set BDPO_CACHE to a folder.\n"
    )
    assert "Traceback" not in err and not (home / "~").exists()


def test_a_path_below_a_home_that_is_not_there_is_one_that_does_not_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.path.expanduser", lambda path: os.fspath(path))  # what it does for such a user
    assert expanded("~/model") == Path("~/model")
    monkeypatch.setenv("BDPO_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
