"""The trainer: what it logs and how it evaluates."""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

import bdpo.train.trainer
from bdpo.errors import BdpoError
from bdpo.method.metrics import COLUMNS, summarise, tercile_edges
from bdpo.score import score
from bdpo.score.folder import ScoredData
from bdpo.train import BDPOTrainer
from plain_dpo import (
    BETA,
    PAIRS,
    Make,
    assert_same_weights,
    log_ratio,
    plain_loss,
    plain_weights,
    steps_of,
    trained,
)
from tiny import tiny_model, tiny_tokenizer

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"


# --- metrics -------------------------------------------------------------------------------------------------------
def test_summarise_by_hand() -> None:
    #        loss  r_c  r_r  D_c  D_r  T_c T_r  w_c  w_r  s    d    M  kind
    table = torch.tensor([
        [0.5,  0.2, -0.1, 2.0, -1.0, 4., 2., 0.5, 1.5, 0.8, +1.0, 1., 0.],
        [0.7, -0.3,  0.1, -3.0, 1.0, 6., 4., 1.5, 0.5, 0.9, -1.0, 1., 0.],
        [0.3,  0.1,  0.1, 1.0,  1.0, 2., 1., 1.0, 1.0, 1.0,  0.0, 1., 0.],
    ])  # fmt: skip
    metrics = summarise(table, (-0.5, 1.0))  # an edge belongs to the upper third
    overall = {
        "pair_loss": 0.5, "rewards/chosen": 0.0, "rewards/rejected": 0.1 / 3, "rewards/margins": -0.1 / 3,
        "rewards/accuracies": 1 / 3,  # a margin of 0 is no win
        "logratios/chosen": 0.0, "logratios/rejected": 1 / 3,
        "logratios/chosen_per_token": (0.5 - 0.5 + 0.5) / 3, "logratios/rejected_per_token": (-0.5 + 0.25 + 1) / 3,
        "balance/chosen": 1.0, "balance/rejected": 1.0, "balance/scale": 0.9,
        "balance/chosen_min": 0.5, "balance/chosen_max": 1.5, "balance/rejected_min": 0.5,
        "balance/rejected_max": 1.5, "balance/scale_min": 0.8, "balance/scale_max": 1.0,
    }  # fmt: skip
    assert {name: metrics[name] for name in overall} == pytest.approx(overall, abs=1e-6)
    assert metrics["imbalance_low/pair_loss"] == pytest.approx(0.7)
    assert metrics["imbalance_mid/rewards/margins"] == pytest.approx(0.0)
    assert metrics["imbalance_high/logratios/chosen_per_token"] == pytest.approx(0.5)
    assert len(metrics) == len(overall) + 3 * 12


def test_kinds_are_averaged_alike() -> None:
    table = torch.ones(4, len(COLUMNS))
    columns = {
        "reward_chosen": [0.2, -0.3, 0.4, 9.0], "reward_rejected": [0.1, 0.1, 0.5, 0.0],
        "logratio_chosen": [2.0, -3.0, 4.0, 9.0], "logratio_rejected": [1.0, 1.0, 5.0, 0.0],
        "margin": [-1.0, -1.0, 2.0, 9.0], "kind": [1.0, 1.0, 2.0, 0.0],
    }  # fmt: skip
    for name, values in columns.items():
        table[:, COLUMNS.index(name)] = torch.tensor(values)
    expected = {
        "unsafe_ranking": 0.0, "harmless_ranking": 1.0, "balanced_ranking": 0.5,
        "unsafe_accuracy": 0.5, "harmless_accuracy": 0.0, "balanced_accuracy": 0.25,
        "unsafe_margin": -1.5, "harmless_margin": -1.0, "balanced_margin": -1.25,
    }  # fmt: skip
    metrics = summarise(table)
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)
    assert "balanced_margin" not in summarise(table[:2])  # one kind is no balance


def test_terciles_split_where_they_say_and_an_empty_one_is_left_out() -> None:
    assert tercile_edges(torch.tensor([3.0, 0.0, 1.0, 2.0])) == (1.0, 2.0)
    row = torch.zeros(1, len(COLUMNS))
    row[:, COLUMNS.index("length_chosen")] = row[:, COLUMNS.index("length_rejected")] = 1
    thirds = {name.split("/")[0] for name in summarise(row, (0.0, 1.0)) if name.startswith("imbalance_")}
    assert thirds == {"imbalance_mid"}
    assert summarise(torch.empty(0, len(COLUMNS)), (0.0, 1.0)) == {}


def test_training_logs_the_windows_pairs_unweighted(make: Make, scores: ScoredData) -> None:
    # the log after step 1 was taken before it moved the weights; the one after step 2 saw one step of AdamW
    trainer = make(max_steps=2, lr_scheduler_type="constant")
    steps = steps_of(trainer, 1)
    trainer.train()
    first, second = (entry for entry in trainer.state.log_history if "loss" in entry)
    assert first["logratios/chosen"] == pytest.approx(0, abs=1e-4) and first["rewards/margins"] == pytest.approx(
        0, abs=1e-4
    )
    moved = make(max_steps=1, lr_scheduler_type="constant")
    moved.train()
    deltas = {side: [] for side in ("chosen", "rejected")}
    with torch.no_grad():
        for row in (scores.rows[i] for i in steps[1]):
            for side, values in deltas.items():
                values.append(log_ratio(moved.model, tiny_model(), row, side).item())
    mean = {side: sum(values) / 8 for side, values in deltas.items()}
    assert second["logratios/chosen"] == pytest.approx(mean["chosen"], abs=1e-3)
    assert second["rewards/rejected"] == pytest.approx(BETA * mean["rejected"], abs=1e-3)
    assert second["rewards/margins"] == pytest.approx(BETA * (mean["chosen"] - mean["rejected"]), abs=1e-3)
    wins = sum(c > r for c, r in zip(deltas["chosen"], deltas["rejected"], strict=True)) / 8
    assert second["rewards/accuracies"] == pytest.approx(wins)


def test_evaluation_counts_each_pair_once_and_weighs_with_the_training_tau(
    make: Make, scores: ScoredData, held_out: ScoredData
) -> None:
    trainer = make(eval=held_out, per_device_eval_batch_size=4)
    trainer.train()
    metrics = trainer.evaluate()
    d = torch.tensor(list(scores.rows["chosen_mi"])) - torch.tensor(list(scores.rows["rejected_mi"]))
    rows = list(held_out.rows)
    with torch.no_grad():
        weights = plain_weights(rows, tau=d.std(correction=0).item())
        pairs = zip(rows, weights, strict=True)
        losses = [plain_loss(trainer.model, tiny_model(), row, weight).item() for row, weight in pairs]
    assert metrics["eval_loss"] == pytest.approx(sum(losses) / 13, abs=1e-5)
    assert metrics["eval_balance/scale"] == pytest.approx(sum(s for s, _, _ in weights) / 13, abs=1e-6)
    assert metrics["eval_rewards/accuracies"] * 13 == pytest.approx(round(metrics["eval_rewards/accuracies"] * 13))


def test_held_out_pairs_are_centred_by_the_training_sets_mean(
    make: Make, scores: ScoredData, held_out: ScoredData
) -> None:
    trainer = make(eval=held_out, center="mean", per_device_eval_batch_size=4)
    d, of_held_out = (
        [row["chosen_mi"] - row["rejected_mi"] for row in data.rows] for data in (scores, held_out)
    )  # fmt: skip
    mean = sum(d) / len(d)
    tau = (sum((x - mean) ** 2 for x in d) / len(d)) ** 0.5
    expected = [2 / (1 + math.exp((x - mean) / tau)) for x in of_held_out]
    assert trainer.eval_dataset.balance.chosen_weight.tolist() == pytest.approx(expected, abs=1e-9)
    assert trainer.evaluate()["eval_balance/chosen"] == pytest.approx(sum(expected) / 13, abs=1e-6)


def logs_of(trainer: BDPOTrainer) -> list[dict[str, float]]:
    return [entry for entry in trainer.state.log_history if "loss" in entry]


def test_evaluation_leaves_training_and_its_logs_as_they_were(make: Make, held_out: ScoredData) -> None:
    plain, evaluated = make(max_steps=3), make(max_steps=3, eval=held_out, eval_strategy="steps", eval_steps=1)
    weights, same = trained(plain)[1], trained(evaluated)[1]
    assert logs_of(evaluated) == logs_of(plain)
    assert_same_weights(same, weights, 0)


def test_the_logs_of_a_step_do_not_depend_on_its_split(make: Make) -> None:
    whole, split = make(max_steps=3), make(max_steps=3, per_device_train_batch_size=1, gradient_accumulation_steps=8)
    whole.train()
    split.train()
    later = zip(logs_of(split)[1:], logs_of(whole)[1:], strict=True)  # accuracies of the first are ties, by rounding
    for ours, theirs in later:  # the third step has fillers
        assert ours == pytest.approx(theirs, abs=1e-3)


@pytest.mark.parametrize(("pairs", "micro", "batches"), [(13, 4, 4), (13, 8, 2), (13, 1, 13), (13, 13, 1)])
def test_evaluation_computes_no_more_batches_than_it_needs(
    make: Make, held_out: ScoredData, pairs: int, micro: int, batches: int
) -> None:
    loader = make(eval=held_out, per_device_eval_batch_size=micro).get_eval_dataloader()
    assert len(held_out.rows) == pairs and len(loader) == batches
    assert sum(int(batch["pairs"].real.sum()) for batch in loader) == pairs


@pytest.fixture
def warnings_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    heard: list[str] = []
    monkeypatch.setattr(bdpo.train.trainer.logger, "warning", heard.append)
    yield heard


@pytest.mark.parametrize(("warmup", "warned"), [(5, 0), (6, 1), (0.99, 1), (0, 0)])
def test_a_warm_up_as_long_as_the_run_is_warned_of(
    make: Make, warnings_of: list[str], warmup: float, warned: int
) -> None:
    make(warmup_steps=warmup).create_scheduler(6, torch.optim.SGD([torch.zeros(1)]))
    assert [
        line.startswith("The warm-up (6 optimiser steps) is not shorter than the run (6),") for line in warnings_of
    ] == [True] * warned


@pytest.mark.parametrize(("alarm", "warned"), [(-10.0, 1), (-13.0, 0), (None, 0)])
def test_the_displacement_alarm_warns_below_its_value(
    make: Make, warnings_of: list[str], alarm: float | None, warned: int
) -> None:
    trainer = make(displacement_alarm=alarm)
    row = torch.ones(2, len(COLUMNS))
    row[:, COLUMNS.index("logratio_chosen")] = torch.tensor([-15.0, -9.0])
    trainer._table.append(row)
    trainer.log({"loss": 0.5})
    assert len(warnings_of) == warned
    if warned:
        assert "mean log-ratio of chosen replies is -12.0 nats (alarm at -10)" in warnings_of[0]


class Heard(TrainerCallback):
    def __init__(self) -> None:
        self.logs: list[dict] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        self.logs.append(dict(logs))


BY_PAIR = {
    "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "logratios/chosen",
    "logratios/rejected", "logratios/chosen_per_token", "logratios/rejected_per_token", "balance/chosen",
    "balance/rejected", "balance/scale",
}  # fmt: skip
EXTREMES = {f"balance/{side}_{end}" for side in ("chosen", "rejected", "scale") for end in ("min", "max")}
BY_KIND = {f"eval_{kind}_{name}" for kind in ("unsafe", "harmless", "balanced")
           for name in ("ranking", "accuracy", "margin")}  # fmt: skip
OF_TRAINER = {"loss", "grad_norm", "learning_rate", "epoch"}
WINDOW = {"window/steps", "window/pairs"}


@pytest.fixture
def logged(make: Make, held_out: ScoredData) -> tuple[set[str], set[str]]:
    """Names logged in training and in evaluation."""
    trainer, heard = make(eval=held_out, eval_strategy="steps", eval_steps=3), Heard()
    trainer.add_callback(heard)
    trainer.train()
    training = set().union(*(logs for logs in heard.logs if "loss" in logs))
    evaluation = set().union(*(logs for logs in heard.logs if "eval_loss" in logs))
    return training, evaluation


def test_exactly_these_names_are_logged(logged: tuple[set[str], set[str]]) -> None:
    training, evaluation = logged
    thirds = {f"imbalance_{third}/{name}" for third in ("low", "mid", "high") for name in BY_PAIR}
    assert training - OF_TRAINER == BY_PAIR | EXTREMES | thirds | WINDOW
    losses = {"eval_loss", *(f"eval_imbalance_{third}/pair_loss" for third in ("low", "mid", "high"))}
    clock = {"eval_runtime", "eval_samples_per_second", "eval_steps_per_second", "epoch"}
    assert evaluation - clock == losses | BY_KIND | {f"eval_{name}" for name in BY_PAIR | EXTREMES | thirds}


def test_the_docs_page_defines_exactly_the_names_in_the_history(make: Make, held_out: ScoredData) -> None:
    trainer = make(eval=held_out, eval_strategy="steps", eval_steps=3)
    trainer.train()
    text = DOCS.read_text(encoding="utf-8")
    defined = {*re.findall(r"^\| `([^`]+)`", text, re.MULTILINE), *re.findall(r"`(imbalance_\w+/[^`]+)`", text)}
    by_callback = {
        "evaluate/BENCHMARK",
        "evaluate/degenerate",
        "evaluate/unfinished",
    }  # see test_evaluation_callback.py
    assert by_callback <= defined
    defined -= by_callback | {"gap/accuracies", "gap/margins"}  # of a whole run: tests/recipe/test_gap.py
    names = set().union(*trainer.state.log_history)
    assert {name if name in defined else name.removeprefix("eval_") for name in names} == defined


def test_without_an_imbalance_there_are_no_terciles() -> None:
    assert tercile_edges(torch.tensor([1.0, float("nan"), 2.0])) is None
    row = torch.full((2, len(COLUMNS)), 2.0)
    row[:, COLUMNS.index("imbalance")] = float("nan")
    assert summarise(row, (0.0, 1.0)) == summarise(row, None), "held-out pairs that were not measured"


def test_scores_without_comprehension_are_refused_where_the_balance_needs_it(make: Make, tmp_path: Path) -> None:
    alone = score(tiny_model(), tiny_tokenizer(), PAIRS, tmp_path / "alone", estimator="none")
    with pytest.raises(BdpoError, match="alone holds scores without comprehension, which the balance needs: run bdpo"):
        make(alone)
    assert make(alone, balance=False).tercile_edges is None
