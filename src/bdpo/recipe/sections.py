"""What a recipe may say: one model a section, and the YAML that fills them. Unknown keys are errors."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    TypeAdapter,
    ValidationError,
    create_model,
    model_validator,
)

from bdpo.errors import BdpoError, nearest
from bdpo.files import read_bytes
from bdpo.method.losses import loss_parameters
from bdpo.recipe.yaml_text import as_meant, load_yaml
from bdpo.secrets import refuse_secrets
from bdpo.train.config import BDPOConfig
from bdpo.train.options import RECIPE_KEYS, MethodOptions
from bdpo.train.trl import without_trl


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
    eval: str | None = None  # None: `holdout` pairs of the training data
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
    # hold so many pairs out for evaluation, drawn with `seed`, none sharing a prompt with training
    holdout: int = Field(default=0, ge=0)
    seed: int = Field(default=0, ge=0)
    max_length: int | None = Field(default=1024, ge=2)  # prompt + longer reply [tokens]
    # of a reply: keep trains on it as on the rest of the reply, drop takes it out of replies and prompts
    reasoning: Literal["keep", "drop"] = "keep"
    strip_control_tokens: bool = False  # strip control tokens found in the text; else such a pair is an error


def _of_table(section: str) -> type[Section]:
    """A section with the keys that the table of options (`bdpo.train.options`) gives it."""
    hints = get_type_hints(MethodOptions)
    keys: dict[str, Any] = {}
    for key, option in RECIPE_KEYS.items():
        of, _, name = key.partition(".")
        if of == section:
            said = option.metadata["help"].said
            kind = Literal[said["names"]] if "names" in said else hints[option.name]
            bounds = {bound: said[bound] for bound in ("gt", "ge") if bound in said}
            keys[name] = (kind, Field(default=option.default, description=option.metadata["help"], **bounds))
    return create_model(section, __base__=Section, **keys)


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


_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")

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
    stages = [{} if path is None else read_sections(path)]  # the recipe after each of the overrides
    for override in overrides or []:
        stages.append(_overridden(stages[-1], override))
    where = str(path or "recipe")
    try:
        return parse_recipe(stages[-1], where=where)
    except BdpoError as error:
        said = str(error)
        guilty = _guilty(stages, said, where)
        raise (
            error if guilty == 0 else BdpoError(f"--set {(overrides or [])[guilty - 1]}{said[len(where) :]}")
        ) from None


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


def _guilty(stages: list[dict[str, Any]], said: str, where: str) -> int:
    """From which of the stages on a recipe is refused in these words; 0 is the recipe without overrides."""
    guilty = len(stages) - 1
    while guilty and _refusal(stages[guilty - 1], where) == said:
        guilty -= 1
    return guilty


def _refusal(content: dict[str, Any], where: str) -> str | None:
    try:
        parse_recipe(content, where=where)
    except BdpoError as error:
        return str(error)
    return None


def parse_recipe(content: dict[str, Any], *, where: str = "recipe") -> Recipe:
    """Check a recipe's content. Raises BdpoError as `load_recipe` does."""
    refuse_secrets(content, where)
    content = {section: _as_meant(section, keys) for section, keys in content.items()}
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        raise BdpoError(f"{where}: {sentence(error, Recipe)}") from None
    try:
        loss_parameters(recipe.loss.name, **(recipe.loss.model_extra or {}))
    except BdpoError as error:
        raise BdpoError(f"{where}: loss: {error}") from None
    try:
        train = without_trl(recipe.train)
    except BdpoError as error:
        raise BdpoError(f"{where}: train: {error}") from None
    checked = {"train": _typed(train, BDPOConfig, f"{where}: train", elsewhere=ELSEWHERE)}
    if recipe.peft is not None:
        from peft import LoraConfig

        checked["peft"] = _typed(recipe.peft, LoraConfig, f"{where}: peft")
    return recipe.model_copy(update=checked)


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
        return get_type_hints(BDPOConfig)
    if section == "peft":
        from peft import LoraConfig

        return get_type_hints(LoraConfig)
    kind: Any = Recipe.model_fields[section].annotation if section in Recipe.model_fields else None
    models = [option for option in (*get_args(kind), kind) if hasattr(option, "model_fields")]
    return {name: field.annotation for model in models for name, field in model.model_fields.items()}


def sentence(error: ValidationError, root: type[BaseModel]) -> str:
    """The first complaint of pydantic of a `root`, in the user's words."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden":
        kind = root if len(path) == 1 else root.model_fields[path[0]].annotation
        section: Any = next(kind for kind in (*get_args(kind), kind) if hasattr(kind, "model_fields"))
        return f"unknown key '{'.'.join(path)}'{_nearest(path[-1], list(section.model_fields))}"
    return f"{'.'.join(path)} is {first['input']!r}, but {_wish(error)}."


def _wish(error: ValidationError) -> str:
    """What pydantic says a value should be."""
    first = error.errors()[0]
    if first["type"] in ("model_type", "dict_type"):
        return "it should be a section with keys"
    message = str(first["msg"]).replace("Input should", "it should")
    return message[0].lower() + message[1:]


def _number(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _numbers(value: Any) -> Any:
    """Numbers like 1e-6, which are text to YAML, within a mapping or a list: no type says there what they are."""
    if isinstance(value, dict):
        return {key: _numbers(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_numbers(inner) for inner in value]
    return float(value) if isinstance(value, str) and _EXPONENT.fullmatch(value) else value


def _nearest(name: str, known: list[str]) -> str:
    near = nearest(name, known)
    if near:
        return f": did you mean '{near}'?"
    return f"; there are {', '.join(known[:12])}{', ...' if len(known) > 12 else '.'}"


def _typed(values: dict[str, Any], kind: type, where: str, elsewhere: dict[str, str] | None = None) -> dict[str, Any]:
    """Check names and types of values against the fields of a dataclass; `1e-4`, text to YAML, becomes a number.

    `elsewhere` names fields that may not stand here, and where they belong.
    """
    elsewhere = elsewhere or {}
    known = [f.name for f in dataclasses.fields(kind) if f.init and f.name not in elsewhere]
    hints = get_type_hints(kind)
    typed = {}
    for name, value in values.items():
        if name not in known:
            near = f": did you mean '{elsewhere[name]}'?" if name in elsewhere else _nearest(str(name), known)
            raise BdpoError(f"{where}: unknown key '{name}'{near}")
        try:
            adapter = TypeAdapter(hints[name], config=ConfigDict(arbitrary_types_allowed=True))
            typed[name] = adapter.validate_python(_numbers(value) if isinstance(value, dict) else value)
        except ValidationError as error:
            raise BdpoError(f"{where}.{name} is {value!r}, but {_wish(error)}.") from None
    return typed
