"""The slow and plain version of B-DPO that the trainer is held to, and what the trainer's tests share."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.functional import logsigmoid
from torch.testing import assert_close

from bdpo.score.folder import ScoredData
from bdpo.train import BDPOTrainer
from tiny import make_pairs, tiny_model

PAIRS = make_pairs(21)
HELD_OUT = make_pairs(13, seed=1)
BETA = 0.1
RATE = 5e-4

Make = Callable[..., BDPOTrainer]


def losses_of(trainer: BDPOTrainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def trained(trainer: BDPOTrainer, **how: Any) -> tuple[list[float], dict[str, Tensor]]:
    """Losses step by step, and the final weights."""
    trainer.train(**how)
    return losses_of(trainer), {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


def assert_same_weights(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float) -> None:
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        assert_close(weight, theirs[name], atol=tolerance, rtol=0, msg=lambda m, name=name: f"{name}: {m}")


def changed(scores: ScoredData, column: str, values: dict[int, Any]) -> ScoredData:
    rows = [{**row, column: values.get(i, row[column])} for i, row in enumerate(scores.rows)]
    return replace(scores, rows=Dataset.from_list(rows, features=scores.rows.features))


# --- slow and plain versions ------------------------------------------------------------------------------------
def slow_logp(model: Any, prompt: list[int], reply: list[int]) -> Tensor:
    """log pi(reply | prompt): one sequence, no mask, no packing."""
    logits = model(input_ids=torch.tensor([prompt + reply])).logits[0]
    logps = logits.double().log_softmax(-1)
    return torch.stack([logps[len(prompt) - 1 + t, token] for t, token in enumerate(reply)]).sum()


def plain_weights(rows: list[dict], tau: float | None = None) -> list[tuple[float, float, float]]:
    """(s, w_c, w_r) of each pair, straight from method.md."""
    d = [row["chosen_mi"] - row["rejected_mi"] for row in rows]
    if tau is None:
        mean = sum(d) / len(d)
        tau = math.sqrt(sum((x - mean) ** 2 for x in d) / len(d))
    weights = []
    for x in d:
        w_c, w_r = 2 / (1 + math.exp(x / tau)), 2 / (1 + math.exp(-x / tau))
        weights.append((math.sqrt(2 / (w_c**2 + w_r**2)), w_c, w_r))
    return weights


def log_ratio(model: Any, reference: Any, row: dict, side: str) -> Tensor:
    with torch.no_grad():
        ref = slow_logp(reference, row["prompt_ids"], row[f"{side}_ids"])
    return slow_logp(model, row["prompt_ids"], row[f"{side}_ids"]) - ref


def plain_loss(model: Any, reference: Any, row: dict, weight: tuple[float, float, float]) -> Tensor:
    """-log sigma(beta s (w_c Delta_c - w_r Delta_r)) of one pair."""
    s, w_c, w_r = weight
    chosen, rejected = (log_ratio(model, reference, row, side) for side in ("chosen", "rejected"))
    return -logsigmoid(BETA * s * (w_c * chosen - w_r * rejected))


def plain_training(steps: list[list[int]], scores: ScoredData, weights: list[tuple[float, float, float]]) -> Any:
    """AdamW on the mean pair loss of each step, clipped at 1, learning rate falling linearly; (losses, weights)."""
    model, reference, rows = tiny_model(), tiny_model(), list(scores.rows)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, eps=1e-6, weight_decay=0.0)
    losses = []
    for number, step in enumerate(steps):
        optimizer.param_groups[0]["lr"] = RATE * (1 - number / len(steps))
        loss = torch.stack([plain_loss(model, reference, rows[i], weights[i]) for i in step]).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses, {name: p.detach() for name, p in model.named_parameters()}


def steps_of(trainer: BDPOTrainer, epochs: int) -> list[list[int]]:
    sampler = trainer.get_train_dataloader().batch_sampler
    steps = []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        steps += list(sampler.steps())
    return steps
