"""Checkpoints that somebody else wrote, whole by their manifest: no pickle in them runs code, none leads elsewhere."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bdpo.errors import BdpoError
from bdpo.pairs import write_pairs
from bdpo.recipe.checkpoints import find_checkpoints, write_manifest
from bdpo.recipe.run import run_recipe
from bdpo.recipe.sections import Recipe, parse_recipe
from tiny import make_pairs, tiny_model, tiny_tokenizer


class Opened:
    """Makes a folder where it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.canary),)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A tiny model, pairs, and a run of two steps with a checkpoint of the first."""
    home = tmp_path_factory.mktemp("home")
    tiny_model().save_pretrained(home / "model")
    tiny_tokenizer().save_pretrained(home / "model")
    write_pairs(home / "pairs.jsonl", make_pairs(8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BDPO_CACHE", str(home / "cache"))
        run_recipe(recipe_in(home), home / "whole")
        yield home


def recipe_in(home: Path) -> Recipe:
    train = {"use_cpu": True, "disable_tqdm": True, "per_device_train_batch_size": 4, "max_steps": 2, "save_steps": 1}
    content = {"model": {"name": str(home / "model")}, "data": {"train": str(home / "pairs.jsonl")}, "peft": {"r": 2}}
    return parse_recipe(content | {"train": train})


@pytest.fixture
def stopped(home: Path, tmp_path: Path) -> Path:
    run = tmp_path / "run"
    shutil.copytree(home / "whole" / "checkpoint-1", run / "checkpoint-1")
    for record in ("recipe.yaml", "scores.json", "step.json"):
        shutil.copy(home / "whole" / record, run)
    return run


@pytest.mark.parametrize("bare", [True, False])
@pytest.mark.parametrize("file", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_pickle_with_code_is_refused(home: Path, stopped: Path, tmp_path: Path, file: str, bare: bool) -> None:
    checkpoint, evil = stopped / "checkpoint-1", Opened(tmp_path / "canary")
    if bare:
        (checkpoint / file).write_bytes(pickle.dumps(evil))
    else:
        torch.save({"state": evil}, checkpoint / file)
    write_manifest(checkpoint, resumable=True)
    with pytest.raises(BdpoError, match="holds more than tensors, and then it could run code"):
        run_recipe(recipe_in(home), stopped, resume=True)
    assert not (tmp_path / "canary").exists()


def test_the_settings_of_the_trainer_are_not_unpickled(home: Path, stopped: Path, tmp_path: Path) -> None:
    checkpoint = stopped / "checkpoint-1"
    (checkpoint / "training_args.bin").write_bytes(pickle.dumps(Opened(tmp_path / "canary")))
    write_manifest(checkpoint, resumable=True)
    run_recipe(recipe_in(home), stopped, resume=True)
    assert not (tmp_path / "canary").exists()
    finished = [(run / "adapter_model.safetensors").read_bytes() for run in (stopped, home / "whole")]
    assert finished[0] == finished[1]


def test_a_manifest_names_no_file_elsewhere(stopped: Path) -> None:
    manifest = stopped / "checkpoint-1" / "manifest.json"
    content = json.loads(manifest.read_text())
    content["files"]["../recipe.yaml"] = {"size": 1, "sha256": ""}
    manifest.write_text(json.dumps(content))
    found = find_checkpoints(stopped)
    assert found.passed_over == {manifest.parent: "its manifest.json names ../recipe.yaml, which is not in it"}
