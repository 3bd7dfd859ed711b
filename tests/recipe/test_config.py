"""Recipes: what may be said, what is refused and with which words, and that the shipped ones parse."""

import dataclasses
import re
from pathlib import Path

import pytest
import yaml

from bdpo.errors import BdpoError
from bdpo.method.losses import LOSSES
from bdpo.recipe.parts import bdpo_config
from bdpo.recipe.sections import Recipe, load_recipe, parse_recipe, train_keys
from bdpo.train import BDPOConfig

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


def recipe_from(tmp_path: Path, text: str, *overrides: str) -> Recipe:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return load_recipe(path, list(overrides))


def refusal(tmp_path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(BdpoError) as caught:
        recipe_from(tmp_path, text, *overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("blance: {enabled: false}", "'balance'"),
        ("data: {trian: starter}", "'train'"),
        ("model: {dtpye: float32}", "'dtype'"),
        ("balance: {temprature: 2}", "'temperature'"),
        ("train: {learning_rte: 1}", "'learning_rate'"),
        ("peft: {lora_alhpa: 1}", "'lora_alpha'"),
        ("loss: {name: hinges}", "'hinge'"),
        ("train: {beta: 0.1}", "'loss.beta'"),
        ("train: {loss_type: ipo}", "'loss.name'"),
        ("train: {max_length: 512}", "'data.max_length'"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_right_name(tmp_path: Path, text: str, name: str) -> None:
    message = refusal(tmp_path, text)
    assert f"did you mean {name}?" in message and "recipe.yaml" in message


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("data: {limit: many}", "data.limit is 'many', but it should be a valid integer"),
        ("data: {limit: 0}", "data.limit is 0, but it should be greater than or equal to 1"),
        ("train: {learning_rate: fast}", "train.learning_rate is 'fast', but it should be a valid number"),
        ("train: {bf16: maybe}", "train.bf16 is 'maybe', but it should be a valid boolean"),
        ("peft: {r: wide}", "peft.r is 'wide', but it should be a valid integer"),
        ("balance: {temperature: 0}", "balance.temperature is 0, but it should be greater than 0"),
        (
            "balance: {weighting: ratoi}",
            "balance.weighting is 'ratoi', but it should be 'sigmoid', 'ratio', 'reversed', ",
        ),
        ("balance: {center: median}", "balance.center is 'median', but it should be 'none' or 'mean'"),
        ("model: {dtype: fp32}", "model.dtype is 'fp32', but it should be 'auto', 'float32'"),
        ("train: 3", "train is 3, but it should be a section with keys"),
        ("loss: dpo", "loss is 'dpo', but it should be a section with keys"),
        ("1: 2", "keys should be strings"),
        ("- a list", "must hold sections (model:, data:, ...), not a list"),
        ("a: [", "cannot be read as YAML"),
    ],
)
def test_an_ill_typed_value_is_refused_in_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    assert sentence in refusal(tmp_path, text)


def test_numbers_that_are_text_to_yaml_become_numbers(tmp_path: Path) -> None:
    assert yaml.safe_load("1e-4") == "1e-4", "YAML 1.1 wants 1.0e-4"
    recipe = recipe_from(tmp_path, "train: {learning_rate: 1e-4}\nloss: {beta: 1e-1}\nbalance: {temperature: 1e+1}")
    args = bdpo_config(recipe, tmp_path)
    assert (args.learning_rate, args.beta, args.temperature) == (1e-4, 0.1, 10.0)


def test_words_of_truth_are_text_where_the_field_is_text(tmp_path: Path) -> None:
    text = "train: {save_strategy: no, eval_strategy: no}\nmodel: {revision: on}\ndata: {columns: {prompt: yes}}"
    recipe = recipe_from(tmp_path, text, "train.logging_strategy=no", "data.split=off")
    assert (recipe.train["save_strategy"], recipe.train["eval_strategy"]) == ("no", "no")
    assert recipe.train["logging_strategy"] == "no"
    assert (recipe.model.revision, recipe.data.columns, recipe.data.split) == ("on", {"prompt": "yes"}, "off")
    assert str(bdpo_config(recipe, tmp_path).save_strategy) == "SaveStrategy.NO"


def test_words_of_truth_are_truth_where_the_field_takes_it(tmp_path: Path) -> None:
    text = """
balance: {enabled: no, scale: off, weights: true}
train: {use_cpu: yes, gradient_checkpointing_kwargs: {use_reentrant: no}}
model: {chat_template_kwargs: {enable_thinking: off}}
peft: {use_rslora: on, init_lora_weights: false}
"""
    recipe = recipe_from(tmp_path, text, "data.as_chat=yes")
    assert (recipe.balance.enabled, recipe.balance.scale, recipe.balance.weights) == (False, False, True)
    assert recipe.train == {"use_cpu": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
    assert recipe.model.chat_template_kwargs == {"enable_thinking": False} and recipe.data.as_chat is True
    assert recipe.peft == {"use_rslora": True, "init_lora_weights": False}


def test_sections_left_empty_are_their_defaults(tmp_path: Path) -> None:
    assert recipe_from(tmp_path, "data:\ntrain:\nbalance:\npeft:\n") == Recipe()


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(BdpoError, match=r"No recipe at .*absent\.yaml"):
        load_recipe(tmp_path / "absent.yaml")


# --- --set -----------------------------------------------------------------------------------------------------
def test_set_goes_over_the_recipe_and_leaves_the_rest(tmp_path: Path) -> None:
    text = "data: {limit: 5, holdout: 2}\npeft: {r: 8}"
    recipe = recipe_from(
        tmp_path, text, "data.limit=7", "balance.enabled=false", "loss.name=ipo", "train.learning_rate=2e-5"
    )
    assert (recipe.data.limit, recipe.data.holdout, recipe.peft) == (7, 2, {"r": 8})
    assert not recipe.balance.enabled and recipe.loss.name == "ipo"
    assert recipe.train == {"learning_rate": 2e-5}


@pytest.mark.parametrize(
    ("override", "peft"),
    [("peft=null", None), ("peft={}", {}), ("peft.target_modules=[q_proj, v_proj]", {"r": 8, "target_modules": [...]})],
)
def test_set_of_a_whole_section_and_of_a_list(tmp_path: Path, override: str, peft: object) -> None:
    found = recipe_from(tmp_path, "peft: {r: 8}", override).peft
    if found and "target_modules" in found:
        assert sorted(found["target_modules"]) == ["q_proj", "v_proj"]
        found = found | {"target_modules": [...]}
    assert found == peft


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("loss.beta", "write section.key=value"),
        ("loss.beta=[1", "the value is not YAML"),
        ("losss.beta=1", "did you mean 'loss'?"),
        ("data.limit=many", "data.limit is 'many'"),
        ("model.name=x", "model is 3 in the recipe, not a section"),
    ],
)
def test_a_wrong_set_is_refused(tmp_path: Path, override: str, sentence: str) -> None:
    said = refusal(tmp_path, "model: 3" if "model" in override else "", override)
    assert sentence in said and f"--set {override}" in said


# --- the loss and the trainer's own checks -----------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("loss: {name: dpo, gamma: 1}", "no hyperparameter 'gamma'; it has: beta, label_smoothing, nll_weight"),
        ("loss: {name: simpo, label_smoothing: 0.1}", "'simpo' has no hyperparameter 'label_smoothing'"),
        ("loss: {beta: 0}", "'beta' of the loss 'dpo' must be a number above 0"),
        ("loss: {beta: strong}", "must be a number above 0, not 'strong'"),
    ],
)  # fmt: skip
def test_parameters_are_checked_against_the_loss(tmp_path: Path, text: str, sentence: str) -> None:
    assert sentence in refusal(tmp_path, text)


def test_a_recipe_becomes_the_trainers_configuration(tmp_path: Path) -> None:
    recipe = parse_recipe(
        {
            "loss": {"name": "simpo", "beta": 2.5, "gamma": 0.5},
            "balance": {"scale": False, "weighting": "ratio", "temperature": 3},
            "score": {"estimator": "entropy", "batch_tokens": 100},
            "data": {"max_length": 77},
            "train": {"per_device_train_batch_size": 3, "output_dir": "elsewhere", "displacement_alarm": -3},
        }
    )
    args = bdpo_config(recipe, tmp_path / "run")
    assert (args.loss_type, args.beta, args.loss_params) == ("simpo", 2.5, {"gamma": 0.5})
    assert (args.balance, args.balance_weights, args.balance_scale) == (True, True, False)
    assert (args.weighting, args.temperature, args.estimator) == ("ratio", 3.0, "entropy")
    assert (args.max_length, args.score_batch_tokens, args.displacement_alarm) == (77, 100, -3.0)
    assert (args.per_device_train_batch_size, args.output_dir) == (3, str(tmp_path / "run"))


@pytest.mark.parametrize("name", ["dpo", "sigmoid"])
def test_trls_name_of_dpo_is_dpo(tmp_path: Path, name: str) -> None:
    assert bdpo_config(parse_recipe({"loss": {"name": name}}), tmp_path).loss_type == "dpo"


@pytest.mark.parametrize(
    ("train", "sentence"),
    [
        ({"eval_strategy": "epoch"}, "needs held-out pairs: set data.eval or data.holdout"),
        ({"eval_strategy": "sometimes"}, "sometimes is not a valid IntervalStrategy"),
        ({"report_to": "nowhere"}, "names nowhere, which is not installed"),
        ({"per_device_train_batch_size": 0}, "per_device_train_batch_size is 0: it must be at least 1"),
    ],
)
def test_what_training_arguments_refuse_is_one_sentence(tmp_path: Path, train: dict, sentence: str) -> None:
    with pytest.raises(BdpoError, match=sentence):
        bdpo_config(parse_recipe({"data": {"holdout": 0}, "train": train}), tmp_path)


# --- the recipes that ship ----------------------------------------------------------------------------------------
def test_there_is_a_recipe_for_the_starter_and_for_each_model_of_the_source() -> None:
    assert {"starter", "qwen2-7b", "mistral-7b", "vicuna-7b", "qwen2.5-0.5b"} <= {path.stem for path in RECIPES}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_parses_and_each_baseline_is_one_set_away(path: Path, tmp_path: Path) -> None:
    def arguments(*overrides: str) -> BDPOConfig:
        return bdpo_config(load_recipe(path, ["train.bf16=false", *overrides]), tmp_path)  # bf16 asks for a GPU

    b_dpo, dpo = arguments(), arguments("balance.enabled=false")
    assert (b_dpo.loss_type, b_dpo.balance, dpo.balance) == ("dpo", True, False)
    for loss in LOSSES:
        args = arguments(f"loss.name={loss}")
        assert args.loss_type == loss and args.hyperparameters() == {}, "another loss would inherit dpo's values"
    assert path.read_text(encoding="utf-8").startswith("#") and f"--config recipes/{path.name}" in path.read_text()


# --- the train section asks before any work ------------------------------------------------------------------------
def test_numbers_with_an_exponent_are_numbers_within_mappings_too(tmp_path: Path) -> None:
    said = "train.lr_scheduler_kwargs={min_lr: 1e-7, deep: {also: [-2E+3, 1.5e2]}, word: 1e, version: '3'}"
    kwargs = load_recipe(None, [said]).train["lr_scheduler_kwargs"]
    assert kwargs["min_lr"] == 1e-7 and kwargs["deep"] == {"also": [-2000.0, 150.0]}
    assert (kwargs["word"], kwargs["version"]) == ("1e", "3")
    recipe = load_recipe(
        None, ["train.lr_scheduler_type=cosine_with_min_lr", "train.lr_scheduler_kwargs={min_lr: 1e-7}"]
    )
    assert bdpo_config(recipe, tmp_path).lr_scheduler_kwargs == {"min_lr": 1e-7}


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("train.resume_from_checkpoint=latest", "unknown key 'resume_from_checkpoint': did you mean '--resume'?"),
        ("train.sync_ref_model=true", "train: sync_ref_model is TRL's and not offered"),
    ],
)
def test_what_a_recipe_does_not_say_names_what_does(override: str, sentence: str) -> None:
    with pytest.raises(BdpoError, match=re.escape(sentence)):
        load_recipe(None, [override])


@pytest.mark.parametrize(
    ("train", "sentence"),
    [
        ({"num_train_epochs": 0}, "train: num_train_epochs is 0.0: it must be a number above 0"),
        ({"seed": -1}, "train: seed is -1: it must be from 0"),
        ({"learning_rate": "nan"}, "train: learning_rate is nan"),
        ({"label_smoothing_factor": 0.1}, "train: label_smoothing_factor is 0.1: it has no effect"),
    ],
)
def test_an_unfit_value_of_the_train_section_is_refused_with_its_name(
    tmp_path: Path, train: dict, sentence: str
) -> None:
    with pytest.raises(BdpoError, match=sentence):
        bdpo_config(parse_recipe({"train": train}), tmp_path)


def test_the_keys_of_train_are_told_without_transformers() -> None:
    """From its source, since it takes seconds to load: they are the fields that the configuration takes."""
    assert set(train_keys()) == {field.name for field in dataclasses.fields(BDPOConfig) if field.init}
