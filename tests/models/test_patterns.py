"""Patterns of an adapter's config: one that never ends is refused, in every field in which peft has patterns."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model

from bdpo.errors import BdpoError
from bdpo.models import load, patterns
from bdpo.train.prepare import with_adapter
from tiny import tiny_model, tiny_tokenizer

NAMES = [f"model.layers.{i}.self_attn.{part}_proj" for i in range(2) for part in "qkvo"]
ENDLESS = "(.+)+x"  # on n letters without an x it tries 2**n splits
ADVERSE = r"([a-z_]+)+\d"


@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": ENDLESS},
        {"exclude_modules": ENDLESS},
        {"feedforward_modules": ENDLESS, "target_modules": ["q_proj"]},
        {"modules_to_save": ["lm_head", ADVERSE]},
        {"layers_pattern": ADVERSE},
        {"rank_pattern": {"q_proj": 2, ADVERSE: 4}},
    ],
    ids=lambda config: next(iter(config)),
)
def test_a_pattern_without_end_is_named(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "SECONDS", 0.3)
    long = [f"{name}.{'post_attention_layernorm' * 2}" for name in NAMES]
    with pytest.raises(
        BdpoError, match=r"a\.json: matching the pattern .* does not end in 0\.3 s, as repeats"
    ) as error:
        patterns.refuse_endless(config, [*NAMES, *long], "a.json")
    assert repr(ENDLESS if ENDLESS in str(config) else ADVERSE) in str(error.value)


def test_plain_names_need_no_process_and_patterns_that_end_or_are_none_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    many = {"target_modules": r".*\.layers\.\d+\.self_attn\.(q|v)_proj", "rank_pattern": {r".*q_proj": 2, "((+": 1}}
    patterns.refuse_endless(many, NAMES, "a.json")
    monkeypatch.setattr(subprocess, "run", None)
    plain = {"target_modules": {"q_proj", "v_proj"}, "modules_to_save": ["lm_head"], "exclude_modules": r"(lm_head|\d)"}
    patterns.refuse_endless(plain, NAMES, "a.json")


def test_it_is_refused_where_an_adapter_is_loaded_and_where_one_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patterns, "SECONDS", 0.3)
    tiny_model().save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    get_peft_model(tiny_model(), LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(tmp_path / "adapter")
    file = tmp_path / "adapter/adapter_config.json"
    said = {"base_model_name_or_path": str(tmp_path / "base"), "exclude_modules": ENDLESS}
    file.write_text(json.dumps(json.loads(file.read_text()) | said))
    with pytest.raises(BdpoError, match=r"adapter_config\.json: matching the pattern"):
        load(tmp_path / "adapter")
    with pytest.raises(BdpoError, match=r"^peft: matching the pattern"):
        with_adapter(tiny_model(), LoraConfig(r=2, target_modules=ENDLESS))
