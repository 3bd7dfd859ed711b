"""A call written for TRL's DPOTrainer runs, or says which argument is not offered and what to do."""

import dataclasses
import logging
import math
import re
from pathlib import Path
from typing import Any

import pytest
from transformers import HfArgumentParser

from bdpo.errors import BdpoError
from bdpo.recipe.sections import parse_recipe
from bdpo.train import BDPOConfig
from bdpo.train.trl import NOT_OFFERED, without_trl

PAGE = Path(__file__).parents[2] / "docs" / "switching-from-trl.md"


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("bdpo"), "propagate", True)
    caplog.set_level(logging.WARNING)
    return caplog


def config(tmp_path: Path, **given: Any) -> BDPOConfig:
    return BDPOConfig(output_dir=str(tmp_path), use_cpu=True, **given)


def test_every_argument_of_trls_config_is_one_of_bdpos_or_stands_in_the_table(tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    fields = dataclasses.fields(trl.DPOConfig)
    known = {field.name for field in dataclasses.fields(BDPOConfig)}
    assert {field.name for field in fields} <= known | set(NOT_OFFERED) and not known & set(NOT_OFFERED)
    defaults = {f.name: f.default for f in fields if f.name in NOT_OFFERED and f.default is not dataclasses.MISSING}
    assert len(defaults) > 15
    without_trl(defaults)  # what asks for nothing is no error


def test_the_page_on_switching_names_every_argument_of_the_table() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert [name for name in NOT_OFFERED if f"`{name}`" not in page] == []


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"dataset_num_proc": 4}, "dataset_num_proc is TRL's and is passed over: tokenising is done in one process"),
        ({"precompute_ref_log_probs": True}, "the reference is always scored beforehand"),
        ({"max_prompt_length": 512}, "max_prompt_length .* max_length holds for prompt"),
        ({"padding_value": 0}, "padding_value .* masked by position"),
        ({"truncation_mode": "keep_start"}, "the prompt is cut first, from its left"),
    ],
)
def test_what_changes_nothing_is_passed_over_with_a_warning(
    tmp_path: Path, said: pytest.LogCaptureFixture, given: dict, why: str
) -> None:
    args = config(tmp_path, beta=0.2, **given)
    assert args.beta == 0.2 and not any(hasattr(args, name) for name in given)
    (message,) = said.messages
    assert re.search(why, message)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"sync_ref_model": True}, "sync_ref_model is TRL's and not offered: a reference that moves cannot be scored"),
        ({"f_divergence_type": "js_divergence"}, "reverse KL only"),
        ({"ld_alpha": 0.5}, "see ipo and simpo"),
        ({"rpo_alpha": 1.0}, r"loss_params=\{'nll_weight': ...\}"),
        ({"loss_weights": [1.0, 0.5]}, "other mixtures are not offered"),
        ({"model_init_kwargs": {"dtype": "bfloat16"}}, "the model section of a recipe"),
        ({"reference_free": True}, "losses without a reference are cpo, simpo and orpo"),
        ({"trust_remote_code": True}, "--trust-remote-code on the command line; in Python load such a model"),
    ],
)
def test_what_would_change_something_is_refused_with_its_row_in_python_and_in_a_recipe(
    tmp_path: Path, given: dict, why: str
) -> None:
    with pytest.raises(BdpoError, match=f"{why}.*docs/switching-from-trl.md"):
        config(tmp_path, **given)
    with pytest.raises(BdpoError, match=f"recipe: train: {next(iter(given))} is TRL's and not offered: .*"):
        parse_recipe({"train": given})


@pytest.mark.parametrize(
    "given",
    [{"sync_ref_model": False}, {"f_divergence_type": "reverse_kl"}, {"ld_alpha": None}, {"model_init_kwargs": {}},
     {"router_aux_loss_coef": 0.0}],
)  # fmt: skip
def test_what_asks_for_nothing_is_passed_over_without_a_word(
    tmp_path: Path, said: pytest.LogCaptureFixture, given: dict
) -> None:
    config(tmp_path, **given)
    assert said.messages == []


def test_a_recipe_may_carry_what_changes_nothing_and_does_not_keep_it() -> None:
    assert parse_recipe({"train": {"dataset_num_proc": 4, "seed": 3}}).train == {"seed": 3}


def test_an_argument_that_nobody_knows_is_a_type_error_as_in_any_dataclass(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="batch_sise"):
        config(tmp_path, batch_sise=3)


def test_the_config_is_still_a_dataclass_that_parsers_and_replace_read(tmp_path: Path) -> None:
    (args,) = HfArgumentParser(BDPOConfig).parse_args_into_dataclasses(
        ["--output_dir", str(tmp_path), "--beta", "0.3", "--use_cpu", "true"]
    )
    assert args.beta == 0.3 and dataclasses.replace(args, temperature=math.inf).temperature == math.inf
