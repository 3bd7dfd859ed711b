"""A recipe from beginning to end on a tiny model: what a run's folder holds, and that it can be used and repeated."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

import bdpo.score.scoring
import bdpo.train.prepare
from bdpo import models
from bdpo.errors import BdpoError
from bdpo.pairs import PreferencePair, write_pairs
from bdpo.recipe.card import method_name
from bdpo.recipe.parts import load_model
from bdpo.recipe.run import RunResult, run_recipe
from bdpo.recipe.sections import Recipe, load_recipe, parse_recipe
from bdpo.score.folder import open_scores
from tiny import CHATML, make_pairs, tiny_model, tiny_tokenizer

IDS = torch.tensor([[1, 40, 41, 42, 2, 50, 51]])


def recipe_in(home: Path, **sections: Any) -> Recipe:
    content: dict[str, Any] = {
        "model": {"name": str(home / "model")},
        "data": {"train": str(home / "pairs.jsonl"), "eval": str(home / "held.jsonl")},
        "train": {
            "use_cpu": True, "disable_tqdm": True, "per_device_train_batch_size": 8, "num_train_epochs": 2,
            "learning_rate": 1e-3, "logging_steps": 1, "save_strategy": "epoch", "eval_strategy": "epoch",
        },
    }  # fmt: skip
    return parse_recipe({name: {**content.get(name, {}), **sections.get(name, {})} for name in {*content, *sections}})


LORA = {"r": 4, "target_modules": ["q_proj", "v_proj"]}


@pytest.fixture(scope="module")
def lora(home: Path) -> RunResult:
    return run_recipe(recipe_in(home, peft=LORA), home / "lora")


@pytest.fixture(scope="module")
def full(home: Path) -> RunResult:
    return run_recipe(recipe_in(home, loss={"name": "ipo", "beta": 0.5}), home / "full")


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def history(folder: Path) -> list[dict[str, float]]:
    return json.loads((folder / "metrics.json").read_text())["history"]


def losses(folder: Path) -> list[float]:
    return [entry["loss"] for entry in history(folder) if "loss" in entry]


# --- what a run leaves behind --------------------------------------------------------------------------------------
def test_the_adapter_loads_with_peft_and_is_what_was_trained(lora: RunResult) -> None:
    loaded = logits(AutoPeftModelForCausalLM.from_pretrained(lora.out))
    assert torch.allclose(loaded, logits(lora.trainer.model), atol=1e-6)
    assert (loaded - logits(tiny_model())).abs().max() > 1e-2, "training moved it"
    assert sorted(path.name for path in lora.out.glob("*.safetensors")) == ["adapter_model.safetensors"]


def test_the_full_model_loads_with_transformers_and_is_what_was_trained(full: RunResult) -> None:
    loaded = logits(AutoModelForCausalLM.from_pretrained(full.out))
    assert torch.allclose(loaded, logits(full.trainer.model), atol=1e-6)
    assert (loaded - logits(tiny_model())).abs().max() > 1e-2


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_the_tokenizer_comes_along_with_its_template(kind: str, request: pytest.FixtureRequest) -> None:
    tokenizer = AutoTokenizer.from_pretrained(request.getfixturevalue(kind).out)
    assert tokenizer.chat_template == CHATML
    assert tokenizer.get_vocab() == tiny_tokenizer().get_vocab()


def test_merging_gives_plain_weights_with_the_same_output(lora: RunResult, home: Path) -> None:
    merged = models.merge(lora.out, home / "merged")
    assert not (merged / "adapter_config.json").exists()
    assert torch.allclose(logits(AutoModelForCausalLM.from_pretrained(merged)), logits(lora.trainer.model), atol=1e-5)
    assert AutoTokenizer.from_pretrained(merged).chat_template == CHATML


def test_the_metrics_are_those_of_the_run(lora: RunResult, home: Path) -> None:
    final = json.loads((lora.out / "metrics.json").read_text())["final"]
    assert final == lora.metrics
    assert losses(lora.out)[0] == pytest.approx(0.693147, abs=1e-5) and len(losses(lora.out)) == 6
    last = [entry for entry in history(lora.out) if "eval_loss" in entry][-1]
    assert final["eval_loss"] == last["eval_loss"] and final["eval_rewards/accuracies"] * 9 % 1 == pytest.approx(0)


def test_scores_json_is_the_manifest_of_the_training_scores(lora: RunResult) -> None:
    manifest = json.loads((lora.out / "scores.json").read_text())
    assert manifest == open_scores(lora.scores.path).manifest and manifest["pairs"] == 21
    assert manifest["key"]["weights"] == models.weights_hash(tiny_model())


def test_the_model_card_names_method_data_scores_and_figures(lora: RunResult, full: RunResult, home: Path) -> None:
    card = (lora.out / "README.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    assert head["library_name"] == "peft" and "bdpo" in head["tags"] and "base_model" not in head  # a folder
    for said in (
        "aligned with B-DPO",
        "bdpo's own instantiation",
        "21 pairs from `pairs.jsonl`",
        "The base model is no model of the hub, or its name there is not known.",
        "`pmi` estimator",
        models.weights_hash(tiny_model())[:12],
        f"held-out loss | {lora.metrics['eval_loss']:.4g} |",
        f"held-out preference accuracy | {lora.metrics['eval_rewards/accuracies']:.4g} |",
        "learning_rate: 0.001",
    ):
        assert said in card
    assert "# model, aligned with" in card and str(home) not in card
    assert "belongs on the model that `adapter_config.json` names" in card
    other = (full.out / "README.md").read_text()
    assert "## Loading" not in other
    assert "aligned with B-IPO" in other and yaml.safe_load(other.split("---")[1])["library_name"] == "transformers"


@pytest.mark.parametrize(
    ("balance", "name"),
    [
        ({}, "B-DPO"),
        ({"weighting": "ratio", "center": "mean"}, "B-DPO"),
        ({"weighting": "reversed"}, "B-DPO (reversed weights, a control)"),
        ({"enabled": False, "weighting": "reversed"}, "DPO"),
        ({"enabled": False}, "DPO"),
        ({"weights": False, "scale": False}, "DPO"),
        ({"scale": False}, "DPO + balancing weights alone"),
        ({"weights": False}, "DPO + scaling factor alone"),
    ],
)
def test_the_four_cells_of_the_ablation_have_their_names(balance: dict, name: str) -> None:
    assert method_name(parse_recipe({"balance": balance})) == name


def test_the_written_recipe_is_the_resolved_one_and_repeats_the_run(lora: RunResult, home: Path) -> None:
    written = load_recipe(lora.out / "recipe.yaml")
    assert written == recipe_in(home, peft=LORA)
    again = run_recipe(written, home / "again")
    assert losses(again.out) == pytest.approx(losses(lora.out), abs=1e-7)
    assert torch.allclose(logits(again.trainer.model), logits(lora.trainer.model), atol=1e-6)


# --- scores are made once ---------------------------------------------------------------------------------------
@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many parts were computed by each pass of the reference."""
    made: list[int] = []
    make_parts: Callable[..., None] = bdpo.score.scoring._make_parts

    def counted(model: Any, pairs: Any, tokenized: Any, parts: list[int], *rest: Any) -> None:
        made.append(len(parts))
        make_parts(model, pairs, tokenized, parts, *rest)

    monkeypatch.setattr(bdpo.score.scoring, "_make_parts", counted)
    return made


def test_another_beta_rate_temperature_or_loss_does_not_score_again(
    lora: RunResult, home: Path, passes: list[int]
) -> None:
    loss, balance = {"name": "hinge", "beta": 0.7}, {"temperature": 3.0}
    recipe = recipe_in(home, peft=LORA, loss=loss, balance=balance, train={"learning_rate": 1e-4})
    result = run_recipe(recipe, home / "other-beta")
    assert passes == [] and result.scores.path == lora.scores.path


def test_the_weights_are_hashed_once_a_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    real = bdpo.score.sources.weights_hash
    monkeypatch.setattr(bdpo.score.sources, "weights_hash", lambda m: (hashed.append("once"), real(m))[1])
    run_recipe(recipe_in(home, train={"max_steps": 1, "eval_strategy": "no"}), home / "hashed")
    assert hashed == ["once"]


def test_too_few_held_out_prompts_do_not_stop_a_contrastive_run(home: Path) -> None:
    write_pairs(home / "few.jsonl", make_pairs(3, seed=4))
    few = {"eval": str(home / "few.jsonl")}
    result = run_recipe(
        recipe_in(home, data=few, score={"estimator": "contrastive"}, train={"max_steps": 1, "eval_strategy": "no"}),
        home / "contrastive",
    )
    assert result.metrics["eval_rewards/accuracies"] * 3 % 1 == pytest.approx(0)


def test_a_scored_folder_named_in_the_recipe_is_made_then_used(home: Path, passes: list[int]) -> None:
    scores = {"dir": str(home / "scores")}
    short = {"max_steps": 1, "eval_strategy": "no"}
    data = {"eval": None, "max_length": 60}
    first = run_recipe(recipe_in(home, score=scores, data=data, train=short), home / "dir-1")
    run_recipe(recipe_in(home, score=scores, data=data, train=short), home / "dir-2")
    assert passes == [1] and first.scores.path == home / "scores"
    with pytest.raises(BdpoError, match=r"differs in the truncation to data\.max_length"):
        run_recipe(recipe_in(home, score=scores, data={**data, "max_length": 50}, train=short), home / "dir-3")


# --- resuming ----------------------------------------------------------------------------------------------------
def test_resuming_a_run_that_was_cut_ends_like_the_whole_one(lora: RunResult, home: Path) -> None:
    recipe = recipe_in(home, peft=LORA)
    # the run is cut in its second epoch, after the checkpoint of step 3
    cut = home / "cut"
    cut.mkdir()
    shutil.copytree(lora.out / "checkpoint-3", cut / "checkpoint-3")
    for written_at_the_start in ("recipe.yaml", "scores.json", "step.json"):
        shutil.copy(lora.out / written_at_the_start, cut)
    resumed = run_recipe(recipe, cut, resume=True)
    assert resumed.trainer.state.global_step == 6
    assert torch.allclose(logits(resumed.trainer.model), logits(lora.trainer.model), atol=1e-6)
    assert losses(cut) == pytest.approx(losses(lora.out), abs=1e-6)


@pytest.fixture
def begun(home: Path, tmp_path: Path) -> Path:
    """A run's folder as a stop in the second epoch leaves it."""

    class Stop(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 4:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe_in(home, peft=LORA), tmp_path / "begun", callbacks=[Stop()])
    held = {path.name for path in (tmp_path / "begun").iterdir()}
    assert held == {"checkpoint-3", "recipe.yaml", "scores.json", "step.json"}
    return tmp_path / "begun"


def test_a_changed_recipe_or_data_set_is_not_resumed_and_the_fields_are_named(
    begun: Path, home: Path, passes: list[int]
) -> None:
    before = {path: path.read_bytes() for path in begun.glob("*.*")}

    def refused(**sections: Any) -> str:
        with pytest.raises(BdpoError) as error:
            run_recipe(recipe_in(home, **{"peft": LORA, **sections}), begun, resume=True)
        return str(error.value)

    said = refused(loss={"beta": 0.3}, train={"learning_rate": 0.002})
    assert "differs in loss.beta (None there, 0.3 now); train.learning_rate (0.001 there, 0.002 now). Resume" in said
    assert "peft.r (4 there, 8 now)" in refused(peft={**LORA, "r": 8})
    assert "train.num_train_epochs (2.0 there, 3.0 now)" in refused(train={"num_train_epochs": 3})
    assert "peft.r (4 there, None now)" in refused(peft={})
    split = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 3}
    assert "was begun with 8 pairs a step and these settings make 3: choose" in refused(train=split)
    assert passes == [], "before any work"
    shutil.copy(home / "pairs.jsonl", home / "aside.jsonl")
    write_pairs(home / "pairs.jsonl", make_pairs(20))
    assert "was begun with other scores; they differ in the number of pairs (21 there, 20 now)" in refused()
    shutil.move(home / "aside.jsonl", home / "pairs.jsonl")
    assert {path: path.read_bytes() for path in begun.glob("*.*")} == before
    (begun / "recipe.yaml").unlink()
    assert "begun holds no recipe.yaml to compare with: bring it back" in refused()


def test_what_moves_no_weight_may_be_changed_on_resuming(begun: Path, lora: RunResult, home: Path) -> None:
    shown = {"logging_steps": 2, "save_total_limit": 1, "displacement_alarm": None}
    split = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    resumed = run_recipe(
        recipe_in(home, peft=LORA, train=shown | split, score={"batch_tokens": 300}), begun, resume=True
    )
    assert torch.allclose(logits(resumed.trainer.model), logits(lora.trainer.model), atol=1e-6)
    assert load_recipe(begun / "recipe.yaml").train["logging_steps"] == 2


def test_a_run_that_stopped_before_its_first_checkpoint_is_started_again(home: Path, tmp_path: Path) -> None:
    class Stop(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            raise KeyboardInterrupt

    short = recipe_in(home, peft=LORA, train={"max_steps": 1})
    with pytest.raises(KeyboardInterrupt):
        run_recipe(short, tmp_path / "run", callbacks=[Stop()])
    assert run_recipe(short, tmp_path / "run").trainer.state.global_step == 1


def test_a_run_does_not_write_over_another_nor_resume_from_nothing(home: Path, lora: RunResult) -> None:
    recipe = recipe_in(home, peft=LORA)
    with pytest.raises(BdpoError, match=r"lora is not empty: resume it \(--resume\), choose another --out"):
        run_recipe(recipe, lora.out)
    for missing in (home / "absent", home / "cache"):
        with pytest.raises(BdpoError, match="holds no checkpoint to resume from"):
            run_recipe(recipe, missing, resume=True)
    with pytest.raises(BdpoError, match=r"pairs\.jsonl is a file"):
        run_recipe(recipe, home / "pairs.jsonl")


# --- models and data ----------------------------------------------------------------------------------------------
def test_an_adapter_is_trained_further_and_a_second_one_refused_before_scoring(
    lora: RunResult, home: Path, passes: list[int]
) -> None:
    adapted = {"name": str(lora.out)}
    with pytest.raises(BdpoError, match="already carries an adapter"):
        run_recipe(recipe_in(home, model=adapted, peft=LORA), home / "second")
    assert passes == []
    result = run_recipe(recipe_in(home, model=adapted), home / "further")
    assert losses(result.out)[0] == pytest.approx(0.693147, abs=1e-5), "its reference is itself"
    further = AutoPeftModelForCausalLM.from_pretrained(result.out)
    assert (logits(further) - logits(lora.trainer.model)).abs().max() > 1e-3
    head = yaml.safe_load((result.out / "README.md").read_text().split("---")[1])
    assert head["library_name"] == "peft"


def test_a_chat_template_may_be_a_file(home: Path) -> None:
    template = home / "plain.jinja"
    text = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    template.write_text(text)
    assert load_model(recipe_in(home, model={"chat_template": str(template)})).tokenizer.chat_template == text
    with pytest.raises(BdpoError, match=r"model\.chat_template: .*absent\.jinja cannot be read"):
        load_model(recipe_in(home, model={"chat_template": str(home / "absent.jinja")}))


def test_errors_of_the_data_check_stop_a_run_before_scoring_and_warnings_do_not(home: Path, passes: list[int]) -> None:
    def run(pairs: list[PreferencePair], name: str, **sections: Any) -> RunResult:
        write_pairs(home / "flawed.jsonl", pairs)
        data = {"train": str(home / "flawed.jsonl"), "eval": None, "conflicts": "error"}
        short = {"max_steps": 1, "eval_strategy": "no"}
        return run_recipe(recipe_in(home, data=data, train=short, **sections), home / name)

    pairs = make_pairs(6, seed=8)
    swapped = replace(pairs[1], id="swapped", chosen=pairs[1].rejected, rejected=pairs[1].chosen)
    said = r"flawed\.jsonl: conflicting labels in 2 pairs \(first: pair-1\)\. .* `bdpo data check .*\.jsonl` shows all"
    with pytest.raises(BdpoError, match=said):
        run([*pairs, swapped], "conflict")
    unsafe = [replace(pairs[0], chosen_safe=False, rejected_safe=True), *pairs[1:]]
    with pytest.raises(BdpoError, match=r"unsafe chosen in 1 pairs \(first: pair-0\)\. .* SafeDPO's data step"):
        run(unsafe, "unsafe")
    assert passes == []
    assert run(unsafe, "safedpo", loss={"name": "safedpo"}).trainer.state.global_step == 1
    assert run([*pairs, replace(pairs[0], id="again")], "warned").trainer.state.global_step == 1
