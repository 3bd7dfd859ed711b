"""What a recipe may say: one model a section, and the YAML that fills them. Unknown keys are errors.

A recipe is checked twice: `first_look` needs neither torch nor transformers and answers at once; what a loss, the
trainer and an adapter take only they know.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Self, get_args, get_type_hints

import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, create_model, model_validator

from bdpo import train
from bdpo.errors import BdpoError
from bdpo.files import read_bytes
from bdpo.models.names import local_folder
from bdpo.pairs.sources import refuse_missing
from bdpo.recipe.checked import fields_written, fit, refuse_unknown, sentence, typed
from bdpo.secrets import refuse_secrets
from bdpo.train.options import NAMES, RECIPE_KEYS, MethodOptions
from bdpo.train.trl import NOT_OFFERED, without_trl
from bdpo.yaml_text import as_meant, load_yaml


class Section(BaseModel):
    """A section of a recipe: frozen, and refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class ModelSection(Section):
    """The model as it is handed in: it is the reference, and the policy starts from it."""

    name: str = "starter"  # starter, a folder, a PEFT adapter folder, a .gguf file, or a hub name
    revision: str | None = None  # of a hub name
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    attn_implementation: str | None = None  # sdpa, eager or flex_attention; others fall back to the padded layout
    device_map: str | dict[str, str | int] | None = None  # over GPUs, CPU and disk, to score; auto, balanced, ...
    quantization: Literal["4bit"] | None = None  # QLoRA; needs the extra `qlora`
    chat_template: str | None = None  # a Jinja template that replaces the tokenizer's, or the path of one
    chat_template_kwargs: dict[str, JsonValue] = {}  # variables of the template, such as enable_thinking: false


class DataSection(Section):
    """Preference pairs: a file, a folder of save_to_disk, a hub name, or `starter`."""

    train: str = "starter"
    split: str | None = None
    eval: str | None = None  # None: as `holdout` says
    eval_split: str | None = None
    config: str | None = None  # configuration of a hub data set
    format: str | None = None  # None: recognised; canonical, trl, hh, pku, orca, alpaca, sharegpt, helpsteer
    columns: dict[str, str] = {}  # our name of a column: its name in the data, such as {prompt: question}
    as_chat: bool = False  # a text prompt becomes one message of the user; else the model continues it as it stands
    prefer: Literal["safety-protocol", "safer", "helpful"] | None = None  # PKU-SafeRLHF: must be said
    conflicts: Literal["majority", "drop", "error"] = "majority"  # two replies that are preferred both ways
    duplicates: Literal["keep", "drop"] = "drop"  # the same pair again
    sample: int | None = Field(default=None, ge=1)  # PKU-SafeRLHF: so many safe-prompt and so many unsafe-prompt pairs
    limit: int | None = Field(default=None, ge=1)  # train on so many pairs, drawn with `seed`
    # hold so many pairs out for evaluation, drawn with `seed`, none sharing a prompt with training; None: of `starter`
    # its validation pairs are there, and of other data none
    holdout: int | None = Field(default=None, ge=0)
    seed: int = Field(default=0, ge=0)
    max_length: int | None = Field(default=1024, ge=2)  # prompt + longer reply [tokens]
    # of a reply: keep trains on it as on the rest of the reply, drop takes it out of replies and prompts
    reasoning: Literal["keep", "drop"] = "keep"
    strip_control_tokens: bool = False  # strip control tokens found in the text; else such a pair is an error

    @model_validator(mode="after")
    def _held_out_once(self) -> Self:
        if self.eval is not None and self.holdout:
            raise ValueError("`eval` and `holdout` both say what is held out: leave one out (`eval: null`)")
        if self.eval is None and self.eval_split is not None:
            raise ValueError("`eval_split` is a split of `eval`, which is not there: set it, or `eval_split: null`")
        return self

    def held_in(self) -> tuple[str, str | None] | None:
        """Data and split that held-out pairs are read from; None where they are taken out of `train`, or none are."""
        if self.eval is not None:
            return self.eval, self.eval_split
        of_the_starter = self.train == "starter" and self.split in (None, "train") and self.holdout is None
        return ("starter", "validation") if of_the_starter else None


def _of_table(section: str) -> type[Section]:
    """A section with the keys that the table of options (`bdpo.train.options`) gives it."""
    hints = get_type_hints(MethodOptions)
    keys: dict[str, Any] = {}
    for key, option in RECIPE_KEYS.items():
        of, _, name = key.partition(".")
        if of == section:
            said = option.metadata["help"].said
            more: dict[str, Any] = {"default": option.default, "description": option.metadata["help"]}
            more |= {bound: said[bound] for bound in ("gt", "ge") if bound in said}
            if key in NAMES:
                more["json_schema_extra"] = partial(_with_names, key)
            keys[name] = (
                hints[option.name],
                Field(**more),
            )
    return create_model(section, __base__=Section, **keys)


def _with_names(key: str, schema: dict[str, Any]) -> None:
    schema["enum"] = list(NAMES[key]())


class ScoreSection(_of_table("score")):  # type: ignore[misc]
    """Stage 1."""

    dir: str | None = None  # a scored folder to use or make; None: the cache, keyed by what the scores depend on


class BalanceSection(_of_table("balance")):  # type: ignore[misc]
    """Which response pulls less, and how much."""


class LossSection(BaseModel):
    """A loss by name, and its own parameters as further keys (checked against the loss)."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = "dpo"

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, values: Any) -> Any:
        """TRL's name for dpo, and numbers like 1e-1, which are text to YAML."""
        if not isinstance(values, dict):
            return values
        plain = {key: value if key == "name" else _number(value) for key, value in values.items()}
        return plain | {"name": "dpo"} if plain.get("name") == "sigmoid" else plain


class EvaluateSection(Section):
    """What `bdpo train` asks the model while it trains and at the end; without the section it asks nothing."""

    suite: str = "starter"  # suites and benchmarks, as for `bdpo evaluate --suite`
    every: int | None = Field(default=None, ge=1)  # steps; None: at the end only
    limit: int | None = Field(default=16, ge=1)  # prompts of each benchmark, drawn with data.seed
    max_new_tokens: int = Field(default=64, ge=1)
    # training stops above this share of harmless prompts not answered
    stop_over_refusal: float | None = Field(default=None, ge=0, le=1)
    stop_displacement: float | None = Field(default=None, lt=0)  # ... below this mean chosen log-ratio [nats]


class Recipe(Section):
    """A whole run."""

    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    score: ScoreSection = ScoreSection()
    balance: BalanceSection = BalanceSection()
    loss: LossSection = LossSection()
    train: dict[str, Any] = {}  # passed to TrainingArguments
    peft: dict[str, Any] | None = None  # passed to LoraConfig; null trains all weights
    evaluate: EvaluateSection | None = None

    def options(self) -> MethodOptions:
        """What the sections say of loss, balance and scoring."""
        loss = dict(self.loss.model_extra or {})
        values: dict[str, Any] = {}
        for key, option in RECIPE_KEYS.items():
            section, _, name = key.partition(".")
            if section != "loss":
                values[option.name] = getattr(getattr(self, section), name)
            elif name and name != "name":
                values[option.name] = loss.pop(name, None)
        return MethodOptions(**values, loss_type=self.loss.name, loss_params=loss or None)

    @model_validator(mode="before")
    @classmethod
    def _without_empty_sections(cls, content: Any) -> Any:
        """A section whose keys are all commented out is None to YAML."""
        if not isinstance(content, dict):
            return content
        return {name: keys for name, keys in content.items() if keys is not None or name not in cls.model_fields}


# what the trainer's config holds and a recipe says in another section than train
ELSEWHERE = {option.name: key for key, option in RECIPE_KEYS.items()} | {
    "scores_dir": "score.dir",
    "resume_from_checkpoint": "--resume",
}


def load_recipe(path: str | Path | None, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe, with `section.key=value` overrides (values are YAML).

    Raises:
        BdpoError: unreadable file, unknown or ill-typed key (with the nearest right name), a secret.
    """
    look, read = (partial(_checked, path, overrides or [], check) for check in (_own_sections, parse_recipe))
    look()  # what needs no torch is refused before it is loaded
    return read()


def first_look(path: str | Path | None, overrides: list[str] | None = None) -> Recipe:
    """A recipe as far as it can be read without torch, to be looked at before it is loaded (see `load_recipe`).

    Raises:
        BdpoError: as `load_recipe`, but for what the loss, the trainer and the adapter do not take; or the model or
            the data are paths at which there is nothing.
    """
    recipe = _checked(path, overrides or [], _own_sections)
    local_folder(recipe.model.name)
    for data in filter(None, (recipe.data.train, recipe.data.eval)):
        refuse_missing(data)
    return recipe


def _checked(path: str | Path | None, overrides: list[str], check: Callable[..., Recipe]) -> Recipe:
    """The recipe at `path` with overrides; a complaint names the override that it is about."""
    stages = [{} if path is None else read_sections(path)]  # the recipe after each of the overrides
    for override in overrides:
        stages.append(_overridden(stages[-1], override))
    where = str(path or "recipe")
    try:
        return check(stages[-1], where=where)
    except BdpoError as error:
        said = str(error)
        guilty = len(stages) - 1  # from that stage on it is refused in these words; 0 is without overrides
        while guilty and _refusal(check, stages[guilty - 1], where) == said:
            guilty -= 1
        raise (error if guilty == 0 else BdpoError(f"--set {overrides[guilty - 1]}{said[len(where) :]}")) from None


def read_sections(path: str | Path) -> dict[str, Any]:
    """The content of a YAML file of sections.

    Raises:
        BdpoError: it cannot be read, or holds something else.
    """
    try:
        content = load_yaml(read_bytes(Path(path)).decode("utf-8-sig")) or {}
    except FileNotFoundError:
        raise BdpoError(f"No recipe at {path}: check --config.") from None
    except OSError as error:
        raise BdpoError(f"{path} cannot be read ({error.strerror}): check --config.") from error
    except UnicodeDecodeError as error:
        raise BdpoError(f"{path} cannot be read as YAML: it is not UTF-8 ({error.reason}).") from error
    except BdpoError as error:
        raise BdpoError(f"{path} cannot be read as YAML: {error}.") from error
    if not isinstance(content, dict):
        raise BdpoError(f"{path} must hold sections (model:, data:, ...), not a {type(content).__name__}.")
    return content


def _refusal(check: Callable[..., Recipe], content: dict[str, Any], where: str) -> str | None:
    try:
        check(content, where=where)
    except BdpoError as error:
        return str(error)
    return None


def parse_recipe(content: dict[str, Any], *, where: str = "recipe") -> Recipe:
    """Check a recipe's content. Raises BdpoError as `load_recipe` does."""
    recipe = _own_sections(content, where=where)
    from bdpo.method.losses import loss_parameters
    from bdpo.train.config import BDPOConfig

    for key, names in NAMES.items():
        section, _, name = key.partition(".")
        fit(getattr(getattr(recipe, section), name), Literal[names()], f"{where}: {key}")
    try:
        loss_parameters(recipe.loss.name, **(recipe.loss.model_extra or {}))
    except BdpoError as error:
        raise BdpoError(f"{where}: loss: {error}") from None
    try:
        given = without_trl(_as_meant("train", recipe.train))
    except BdpoError as error:
        raise BdpoError(f"{where}: train: {error}") from None
    checked = {"train": typed(given, BDPOConfig, f"{where}: train", elsewhere=ELSEWHERE)}
    if recipe.peft is not None:
        from peft import LoraConfig

        checked["peft"] = typed(_as_meant("peft", recipe.peft), LoraConfig, f"{where}: peft")
    return recipe.model_copy(update=checked)


def _own_sections(content: dict[str, Any], *, where: str = "recipe") -> Recipe:
    """The recipe with what `train` and `peft` hold, and the names of tables, as they stand."""
    refuse_secrets(content, where)
    others = ("train", "peft")
    meant = {
        section: keys if section in others and isinstance(keys, dict) else _as_meant(section, keys)
        for section, keys in content.items()
    }
    try:
        recipe = Recipe.model_validate(meant)
    except ValidationError as error:
        raise BdpoError(f"{where}: {sentence(error, Recipe)}") from None
    for key in recipe.train:
        if key not in NOT_OFFERED and (known := train_keys()):
            refuse_unknown(str(key), known, f"{where}: train", ELSEWHERE)
    return recipe


@cache
def train_keys() -> list[str]:
    """What `train` may hold, told without loading transformers; nothing where its source does not tell."""
    spec = find_spec("transformers")
    theirs = Path((spec.submodule_search_locations or [""])[0] if spec else "", "training_args.py")
    inherited = fields_written(theirs, "TrainingArguments")
    own = fields_written(Path(train.__path__[0], "config.py"), "BDPOConfig", "MethodOptions", "TrainingArguments")
    ours = (option.name for option in RECIPE_KEYS.values())
    return list(dict.fromkeys([*inherited, *ours, *own])) if inherited and own else []


def as_override(key: str, text: str) -> str:
    """`key=text` for --set, quoted where YAML would take the text for something else."""
    try:
        same = yaml.safe_load(text) == text
    except (yaml.YAMLError, ValueError, RecursionError):
        same = False
    return f"{key}={text if same else json.dumps(text, ensure_ascii=False)}"


def _overridden(content: dict[str, Any], override: str) -> dict[str, Any]:
    """The recipe with an override, `section.key=value` or `section=value`."""
    name, equals, value = override.partition("=")
    section, dot, key = name.strip().partition(".")
    if not equals or not section:
        raise BdpoError(f"--set {override}: write section.key=value, for example --set loss.beta=0.2.")
    try:
        parsed = load_yaml(value)
    except BdpoError as error:
        raise BdpoError(f"--set {override}: the value is not YAML ({error}); mend it, or quote it.") from None
    refuse_secrets(parsed, "--set", name.strip())
    there = content.get(section)
    if dot and not isinstance(there or {}, dict):
        raise BdpoError(f"--set {override}: {section} is {there!r} in the recipe, not a section with keys.")
    return {**content, section: {**(there or {}), key: parsed} if dot else parsed}


def _as_meant(section: Any, keys: Any) -> Any:
    """The content of a section with YAML's words of truth as its fields take them."""
    if not isinstance(keys, dict):
        return as_meant(keys, dict)
    hints, other = _hints(section), float if section == "loss" else Any  # a loss's own parameters are numbers
    return {as_meant(key, str): as_meant(value, hints.get(key, other)) for key, value in keys.items()}


def _hints(section: Any) -> dict[str, Any]:
    """The types of a section's fields."""
    if section == "train":
        from bdpo.train.config import BDPOConfig

        return get_type_hints(BDPOConfig)
    if section == "peft":
        from peft import LoraConfig

        return get_type_hints(LoraConfig)
    kind: Any = Recipe.model_fields[section].annotation if section in Recipe.model_fields else None
    models = [option for option in (*get_args(kind), kind) if hasattr(option, "model_fields")]
    return {name: field.annotation for model in models for name, field in model.model_fields.items()}


def _number(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
