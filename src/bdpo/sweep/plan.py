"""What a sweep is: a recipe, methods, a grid and seeds; and its cells, which are ordinary recipes with folders.

DIR/sweep.json, results.md, compare.json, compare.md    what came out (see `results`)
DIR/scores/KEY/                                         a scored data set, one for all cells that train on it
DIR/cells/SETTING/seed-K/                               a run (see `recipe.run`)
DIR/cells/SETTING/seed-K/evaluation/                    its evaluation (see `evaluate.results.outcomes`)
DIR/cells/base/evaluation/                              that of the model as it comes
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import inf
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from bdpo.errors import BdpoError, refuse_twice
from bdpo.evaluate.plan import Plan
from bdpo.evaluate.replies.collect import Sampling
from bdpo.files import key_digest
from bdpo.recipe.card import method_name
from bdpo.recipe.checked import sentence
from bdpo.recipe.sections import Recipe, Section, load_recipe, read_sections
from bdpo.yaml_text import as_meant

BASE = "base"


class Asked(Section):
    """What every cell is asked after training; fields as the options of `bdpo evaluate`."""

    suite: str | None = None  # None: starter, or nothing but the pairs where there are such
    data_dir: str | None = None
    limit: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)
    transform: str = ""
    pairs: str | None = None
    pairs_split: str | None = None
    pairs_kind: str | None = None
    prefer: str | None = None
    max_new_tokens: int = Field(default=256, ge=1)

    def plan(self) -> Plan:
        """The same for `plan_tasks`."""
        suite = ("" if self.pairs else "starter") if self.suite is None else self.suite
        transforms = tuple(name.strip() for name in self.transform.split(",") if name.strip())
        sampling = Sampling(self.max_new_tokens, seed=self.seed)
        return Plan(
            suite, self.data_dir, self.limit, self.seed, transforms, self.pairs, self.pairs_split,
            pairs_kind=self.pairs_kind, prefer=self.prefer, sampling=sampling,
        )  # fmt: skip


class Study(Section):
    """A sweep as a YAML file holds it, or as the options of `bdpo sweep` say."""

    recipe: str | None = None  # path of a recipe, from the file's own folder; None: the defaults
    set: tuple[str, ...] = ()  # section.key=value, over the recipe
    grid: tuple[str, ...] = ()  # section.key=value,value,...
    methods: dict[str, str] = Field(default={})  # name: overrides, separated by spaces; none: the recipe as it is
    seeds: int = Field(default=1, ge=1)  # train.seed is 1, 2, ...
    evaluate: Asked = Asked()
    baseline: str | None = None  # the setting that others are compared with; None: the first
    choose: str | None = None  # see `choose`


@dataclass(frozen=True)
class Cell:
    """One run of a sweep, or the model as it comes."""

    label: str  # method and setting; the seeds of one setting share it
    method: str
    setting: dict[str, str]
    seed: int | None  # None: the model as it comes, which is only evaluated
    recipe: Recipe
    name: str  # of its folder below cells/
    folder: Path

    @property
    def evaluation(self) -> Path:
        """The folder of its evaluation."""
        return self.folder / "evaluation"


def load_study(path: Path | None) -> Study:
    """A study's file, or a recipe's as a study of nothing but it.

    Raises:
        BdpoError: unreadable, an unknown key or an ill-typed value.
    """
    if path is None:
        return Study()
    content = read_sections(path)
    if not content.keys() & (Study.model_fields.keys() - Recipe.model_fields.keys()):
        return Study(recipe=str(path))
    content = {key: _plain(value) for key, value in content.items()}
    try:
        study = Study.model_validate(content)
    except ValidationError as error:
        raise BdpoError(f"{path}: {sentence(error, Study)}") from None
    return study if study.recipe is None else study.model_copy(update={"recipe": str(path.parent / study.recipe)})


def _plain(value: Any) -> Any:
    """YAML's words of truth as text, also within mappings and lists: no key of a study is a truth."""
    if isinstance(value, dict):
        return {as_meant(key, str): _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else as_meant(value, str)


# --- cells --------------------------------------------------------------------------------------------------------


def cells(study: Study, out: Path) -> list[Cell]:
    """The cells of a study, all seeds of a setting after each other, after the model as it comes.

    A key of the grid does not vary a method that sets it itself, nor one of the balance where it changes nothing.
    Where the models differ, none is the base of all, and none is evaluated as it comes.

    Raises:
        BdpoError: a key or value that no recipe takes, a grid without values, names or settings not told apart.
    """
    axes = [_axis(text) for text in study.grid]
    refuse_twice([key for key, _ in axes], "--grid {} is given twice: put its values into one, with commas.")
    plain = _recipe(study, {})
    found = []
    for method, overrides in _methods(study, plain).items():
        fixed = {text.partition("=")[0].strip() for text in overrides}
        own = [(key, values) for key, values in axes if key not in fixed]
        settings = _settings(study, method, dict.fromkeys(overrides, f"--method {method}"), own)
        for label, (setting, given) in settings.items():
            found += [_cell(study, label, method, setting, seed, given, out) for seed in range(1, study.seeds + 1)]
    refuse_twice([cell.name for cell in found], "Two settings would share the folder {}: name a method otherwise.")
    models = {cell.recipe.model.model_dump_json() for cell in found}
    base = [] if len(models) > 1 else [Cell(BASE, BASE, {}, None, plain, BASE, out / "cells" / BASE)]
    return base + found


def _settings(
    study: Study, method: str, overrides: dict[str, str], axes: Sequence[tuple[str, list[str]]]
) -> dict[str, tuple[dict[str, str], dict[str, str]]]:
    """The settings of a method by their labels, each with all overrides and the options that gave them."""
    found: dict[str, tuple[dict[str, str], dict[str, str]]] = {}
    labels: dict[str, str] = {}  # by recipe
    for values in product(*(values for _, values in axes)):
        whole = dict(zip((key for key, _ in axes), values, strict=True))
        idle = _idle(_recipe(study, overrides | {f"{key}={value}": "--grid" for key, value in whole.items()}))
        setting = {key: value for key, value in whole.items() if key not in idle}
        given = overrides | {f"{key}={value}": "--grid" for key, value in setting.items()}
        label = " ".join([method, *(f"{key}={value}" for key, value in setting.items())])
        same = labels.setdefault(_recipe(study, given).model_dump_json(), label)
        if same != label:
            raise BdpoError(f"--grid: '{same}' and '{label}' are one and the same; leave one of the values out.")
        found[label] = setting, given
    return found


def _idle(recipe: Recipe) -> set[str]:
    """The keys of the balance that change nothing where the others are as in this recipe."""
    balance = recipe.balance
    if not balance.enabled:
        return {f"balance.{key}" for key in type(balance).model_fields} - {"balance.enabled"}
    if balance.temperature == inf:
        return {f"balance.{key}" for key in ("weighting", "center", "seed", "weights", "scale")}
    if not (balance.weights or balance.scale):
        return {f"balance.{key}" for key in ("weighting", "center", "seed", "temperature")}
    idle = {"balance.temperature"} if balance.weighting == "ratio" else set()
    return idle if balance.weighting == "permuted" else {*idle, "balance.seed"}


def _cell(
    study: Study, label: str, method: str, setting: dict[str, str], seed: int, given: dict[str, str], out: Path
) -> Cell:
    recipe = _recipe(study, {**given, f"train.seed={seed}": "--seeds"})
    if recipe.score.dir is None:
        recipe = recipe.model_copy(update={"score": recipe.score.model_copy(update={"dir": str(_scores(recipe, out))})})
    name = f"{_slug(label)}/seed-{seed}"
    return Cell(label, method, setting, seed, recipe, name, out / "cells" / name)


def _scores(recipe: Recipe, out: Path) -> Path:
    """The scored data set of a recipe, named by the sections that it depends on."""
    content = recipe.model_dump(mode="json")
    key = {section: content[section] for section in ("model", "data")}
    key |= {"score": {name: value for name, value in content["score"].items() if name not in ("dir", "batch_tokens")}}
    return out / "scores" / key_digest(key | {"swapped": recipe.loss.name == "safedpo"})[:8]


def _recipe(study: Study, given: Mapping[str, str]) -> Recipe:
    """The study's recipe with further overrides, each with the option that gave it."""
    try:
        return load_recipe(study.recipe, [*study.set, *given])
    except BdpoError as error:
        said = str(error)
        for override, option in given.items():
            if said.startswith(f"--set {override}:"):
                raise BdpoError(f"{option} {said.removeprefix('--set ')}") from None
        raise


def _methods(study: Study, plain: Recipe) -> dict[str, list[str]]:
    """The overrides of each method; without any, the recipe as it is."""
    if not study.methods:
        return {method_name(plain): []}
    methods = {}
    for name, overrides in study.methods.items():
        if not re.search(r"\w", name) or name.lower() == BASE:
            raise BdpoError(f"--method {name}={overrides}: '{name}' is no name for a method; use another.")
        try:
            methods[name] = shlex.split(overrides)
        except ValueError as error:
            raise BdpoError(f"--method {name}={overrides}: {error}; mend the quotes.") from None
        _refuse_seed(methods[name], f"--method {name}")
    return methods


def _axis(text: str) -> tuple[str, list[str]]:
    """Key and values of --grid section.key=value,value,...; commas in brackets do not part values.

    >>> _axis("peft.target_modules=[q_proj,v_proj], all-linear")
    ('peft.target_modules', ['[q_proj,v_proj]', 'all-linear'])
    """
    key, _, listed = (part.strip() for part in text.partition("="))
    values = [value.strip() for value in re.split(r",(?![^\[{]*[\]}])", listed)]
    if not re.fullmatch(r"\w+\.\w+", key) or not all(values):
        raise BdpoError(f"--grid {text}: write section.key=value,value, for example --grid loss.beta=0.05,0.1.")
    refuse_twice(values, f"--grid {text}: the value {{}} is given twice; leave one of them.")
    _refuse_seed([f"{key}="], f"--grid {text}")
    return key, values


def _refuse_seed(overrides: Iterable[str], where: str) -> None:
    if any(text.partition("=")[0].strip() == "train.seed" for text in overrides):
        raise BdpoError(f"{where}: train.seed is 1 to --seeds in every setting; leave it out, or say --seeds.")


def _slug(label: str) -> str:
    """A name for a folder."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", label.replace("=", "-")).strip("_.")


def method_option(texts: Sequence[str]) -> dict[str, str]:
    """The methods of --method NAME=OVERRIDES.

    >>> method_option(["DPO=balance.enabled=false", "B-DPO="])
    {'DPO': 'balance.enabled=false', 'B-DPO': ''}
    """
    parts = [text.partition("=") for text in texts]
    for text, (name, equals, _) in zip(texts, parts, strict=True):
        if not equals or not name.strip():
            raise BdpoError(f"--method {text}: write NAME=OVERRIDES, for example --method DPO=balance.enabled=false.")
    refuse_twice([name.strip() for name, *_ in parts], "--method {} is given twice: give each method its own name.")
    return {name.strip(): overrides for name, _, overrides in parts}
