"""A folder with a tiny model, pairs and recipes, and what the commands make of them where nothing stops them."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import forked
import yaml
from forked import Ended

from bdpo.pairs import write_pairs
from tiny import make_pairs, tiny_model, tiny_tokenizer

TRAIN = ("train", "--config", "recipe.yaml")
UNSAVED = ("train", "--config", "unsaved.yaml")
TWO = ("train", "--config", "two.yaml")  # two checkpoints are kept
SCORE = ("score", "--config", "recipe.yaml")
EVALUATE = ("evaluate", "model", "--limit", "4", "--max-new-tokens", "8")
CLEAN = ("data", "clean", "pairs.jsonl")
MERGE = ("merge", "whole-train")
EXPORT = ("export", "whole-train")
COMPARE = ("compare", "whole-evaluate")
REPORT = ("report", "whole-train", "--evaluation", "whole-evaluate")
SWEEP = ("sweep", "--config", "sweep.yaml")
# what a command makes: the ending where it is a file, and the files of a folder that are always the same
MADE: dict[str, tuple[str, tuple[str, ...]]] = {
    "train": ("", ("adapter_*", "tokenizer*")), "score": ("", ("data/*", "manifest.json")),
    "evaluate": ("", ("results.*",)), "data": (".jsonl", ()), "merge": ("", ("*.*",)), "export": ("", ("*.*",)),
    "compare": ("", ("compare.*",)), "report": (".html", ()),
    "sweep": ("", ("*.md", "cells/*/*/adapter_*", "cells/*/*/evaluation/*.md")),
}  # fmt: skip

_TAKEN = itertools.count(1)


@dataclass
class Home:
    """The folder; `whole-COMMAND` in it is what a command made that nothing stopped."""

    folder: Path
    expected: dict[str, str] = field(default_factory=dict)  # fingerprint, by command
    events: dict[tuple[str, ...], list[str]] = field(default_factory=dict)  # what nothing stopped did to files

    def new(self, name: str) -> Path:
        """A folder that is not there, or a file where the command of that name makes one."""
        ending = MADE[name][0] if name in MADE else ""
        return self.folder / f"{name}-{os.getpid()}-{next(_TAKEN)}{ending}"

    def copy(self, of: str) -> Path:
        """A copy of a folder."""
        new = self.new(of)
        shutil.copytree(self.folder / of, new)
        return new

    def run(self, *arguments: str, **how: Any) -> Ended:
        """Run a command to its end."""
        return forked.run(self.folder, *arguments, **how)

    def whole(self, command: str, out: Path) -> bool:
        """Whether a folder holds what a command makes that nothing stops."""
        return fingerprint(command, out) == self.expected[command]


def fingerprint(command: str, out: Path) -> str:
    """A hash of the result of a command that is the same whenever the result is."""
    ending, patterns = MADE[command]
    files = sorted(path for pattern in patterns for path in out.glob(pattern))
    if ending:
        files = [path for path in (out, out.with_suffix(".report.jsonl")) if path.exists()]
    digest = hashlib.sha256()
    for path in files:
        digest.update((b"" if ending else str(path.relative_to(out)).encode()) + path.read_bytes())
    if command == "train":
        digest.update(json.dumps(_losses(out)).encode())
    return digest.hexdigest() if files else ""


def _losses(out: Path) -> list[tuple[int, float]]:
    """(step, loss) of every step."""
    if not (out / "metrics.json").exists():
        return []
    history = json.loads((out / "metrics.json").read_text())["history"]
    return [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]


def make_home(folder: Path) -> Home:
    """Fill an empty folder; the runs take some seconds."""
    tiny_model().save_pretrained(folder / "model")
    tiny_tokenizer().save_pretrained(folder / "model")
    write_pairs(folder / "pairs.jsonl", make_pairs(21))
    train: dict[str, Any] = {
        "use_cpu": True, "disable_tqdm": True, "per_device_train_batch_size": 4, "max_steps": 7, "learning_rate": 1e-3,
        "logging_steps": 1, "save_strategy": "steps", "save_steps": 2, "save_total_limit": 1,
    }  # fmt: skip
    recipe = {"model": {"name": "model"}, "data": {"train": "pairs.jsonl"}, "peft": {"r": 8}, "train": train}
    others = {"recipe": {}, "unsaved": {"save_strategy": "no"}, "alone": {"save_only_model": True},
              "two": {"save_total_limit": 2}}  # fmt: skip
    for name, changed in others.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe | {"train": train | changed}))
    methods = {"DPO": "balance.enabled=false train.max_steps=2", "B-DPO": "train.max_steps=2"}
    study = {"recipe": "recipe.yaml", "methods": methods, "evaluate": {"pairs": "pairs.jsonl", "limit": 4}}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(study))
    home = Home(folder)
    for command in (TRAIN, SCORE, EVALUATE, CLEAN, MERGE, EXPORT, COMPARE, REPORT, SWEEP):
        out = folder / f"whole-{command[0]}{MADE[command[0]][0]}"
        ended = home.run(*command, "--out", str(out), cache=f"cache-{command[0]}")
        assert ended.code == 0, ended.said
        home.expected[command[0]] = fingerprint(command[0], out)
        home.events[command] = ended.events
    for command in (TRAIN, UNSAVED):  # as they are stopped: with scores in the cache
        ended = home.run(*command, "--out", str(home.new("train")), cache="cache-train")
        assert ended.code == 0, ended.said
        home.events[command] = ended.events
    return home
