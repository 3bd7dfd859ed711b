"""The losses against TRL's numbers: those of its trainers' own methods on the same log-probabilities."""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from pair_logps import BETA, make_pairs
from torch.testing import assert_close

from bdpo.method import losses
from bdpo.method.losses import PairLogps, pair_losses, rewards


def trl_dpo(loss_type: str, logps: PairLogps, **settings) -> tuple[torch.Tensor, dict]:
    """TRL's own DPOTrainer._compute_loss on these log-probabilities, through a stand-in for the model.

    A response of T tokens is given T equal token log-probabilities; the prompt is one token.
    """
    from trl import DPOTrainer

    lengths = torch.cat([logps.chosen_lengths, logps.rejected_lengths])
    completion_mask = (torch.arange(1 + int(lengths.max())) - 1 < lengths[:, None]).long()
    completion_mask[:, 0] = 0
    mask = completion_mask[:, 1:]
    sums = torch.cat([logps.chosen, logps.rejected])
    token_logps = (sums / lengths)[:, None] * mask

    class Model:
        training = True

        def __call__(self, **_) -> SimpleNamespace:
            zeros = torch.zeros_like(token_logps)
            return SimpleNamespace(log_probs=token_logps, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool())

    trainer = object.__new__(DPOTrainer)
    gather = SimpleNamespace(device="cpu", gather=lambda t: t, gather_for_metrics=lambda t: t)
    attributes = dict(
        model=Model(), accelerator=gather, aux_loss_enabled=False, ld_alpha=None, precompute_ref_logps=True,
        f_divergence_type="reverse_kl", beta=BETA, label_smoothing=0.0, loss_types=[loss_type],
        loss_weights=[1.0], use_weighting=False, _total_train_tokens=0, _tp_size=1,
        _metrics={"train": defaultdict(list)},
    )  # fmt: skip
    trainer.__dict__.update(attributes | settings)
    inputs = {
        "input_ids": torch.zeros_like(completion_mask),
        "attention_mask": torch.ones_like(completion_mask),
        "completion_mask": completion_mask,
        "ref_chosen_logps": logps.ref_chosen,
        "ref_rejected_logps": logps.ref_rejected,
    }
    loss = trainer._compute_loss(trainer.model, inputs, return_outputs=False)
    return loss, trainer._metrics["train"]


@pytest.mark.parametrize(
    "name, loss_type, hyper",
    [
        ("dpo", "sigmoid", {}),
        ("dpo", "sigmoid", {"beta": 0.5}),
        ("ipo", "ipo", {}),
        ("hinge", "hinge", {}),
        ("hinge", "hinge", {"beta": 0.5}),
        ("robust", "robust", {"label_smoothing": 0.1}),
        ("robust", "robust", {"label_smoothing": 0.3}),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_against_trls_dpo_trainer(name: str, loss_type: str, hyper: dict, seed: int) -> None:
    pytest.importorskip("trl")
    logps = make_pairs(seed)
    theirs, metrics = trl_dpo(loss_type, logps, **hyper)
    ours = pair_losses(name, logps, **({"beta": BETA} | hyper)).mean()
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-9)
    inputs = (logps.chosen, logps.rejected)
    assert_close(torch.autograd.grad(ours, inputs), torch.autograd.grad(theirs, inputs), rtol=0, atol=1e-9)
    chosen, rejected = rewards(name, logps, hyper.get("beta", BETA))
    assert chosen.mean().item() == pytest.approx(metrics["rewards/chosen"][0], abs=1e-9)
    assert (chosen - rejected).mean().item() == pytest.approx(metrics["rewards/margins"][0], abs=1e-9)


def test_nll_of_one_pair_is_trls_sft_loss() -> None:
    pytest.importorskip("trl")
    logps = make_pairs(count=1)
    assert losses.nll(logps).item() == pytest.approx(trl_dpo("sft", logps)[0].item(), abs=1e-9)


@pytest.mark.parametrize("name, loss_type", [("cpo", "sigmoid"), ("simpo", "simpo")])
def test_against_trls_cpo_trainer(name: str, loss_type: str) -> None:
    trl_cpo = pytest.importorskip("trl.experimental.cpo")
    logps, beta, gamma = make_pairs(), 0.7, 0.4
    chosen, rejected = logps.chosen, logps.rejected
    if name == "simpo":
        chosen, rejected = chosen / logps.chosen_lengths, rejected / logps.rejected_lengths
    trainer = SimpleNamespace(alpha=0.0, beta=beta, loss_type=loss_type, label_smoothing=0.0, simpo_gamma=gamma)
    trainer.accelerator = SimpleNamespace(device="cpu")
    theirs, *their_rewards = trl_cpo.CPOTrainer.cpo_loss(trainer, chosen, rejected)
    extra = {"gamma": gamma} if name == "simpo" else {}
    assert_close(pair_losses(name, logps, beta=beta, nll_weight=0, **extra), theirs, rtol=0, atol=1e-12)
    assert_close(list(rewards(name, logps, beta)), their_rewards)


def test_against_trls_orpo_trainer() -> None:
    trl_orpo = pytest.importorskip("trl.experimental.orpo")
    logps = make_pairs(dtype=torch.float32)
    trainer = SimpleNamespace(beta=0.2, accelerator=SimpleNamespace(device="cpu"))
    theirs, *their_rewards, _, _ = trl_orpo.ORPOTrainer.odds_ratio_loss(
        trainer, logps.chosen / logps.chosen_lengths, logps.rejected / logps.rejected_lengths
    )
    assert_close(pair_losses("orpo", logps, beta=0.2, nll_weight=0), -theirs)
    assert_close(list(rewards("orpo", logps, 0.2)), their_rewards)
