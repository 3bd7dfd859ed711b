"""A loss of your own: one function and one line in the table; the balance comes with it.

    python examples/custom_loss.py

APO-zero (arXiv:2408.06266 eq. 7) draws each response by itself, the chosen one up and the rejected one down.
"""

import sys

import torch
from peft import LoraConfig
from torch import Tensor

from bdpo import BDPOConfig, BDPOTrainer, load_pairs
from bdpo.method.losses import LOSSES, Loss, PairLogps, Weights, log_ratios


def apo_zero(logps: PairLogps, weights: Weights = None, *, beta: float = 0.1) -> Tensor:
    """L = 1 - sigma(beta k_c Delta_c) + sigma(beta k_r Delta_r), (B,)."""
    chosen, rejected = log_ratios(logps, weights)
    return 1 - torch.sigmoid(beta * chosen) + torch.sigmoid(beta * rejected)


LOSSES["apo_zero"] = Loss(apo_zero)


def main(out: str = "runs/custom-loss", pairs: int = 16) -> float:
    """Train three epochs on a few embedded pairs; the mean loss, which is 1 where nothing was learnt."""
    trainer = BDPOTrainer(
        model="starter",
        args=BDPOConfig(
            output_dir=out, loss_type="apo_zero", beta=0.2, num_train_epochs=3,
            learning_rate=3e-4, per_device_train_batch_size=8,
            report_to="none", save_strategy="no",
        ),
        train_dataset=load_pairs("starter").pairs[:pairs],
        peft_config=LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"),
    )  # fmt: skip
    return trainer.train().training_loss


if __name__ == "__main__":
    print(f"mean loss {main(*sys.argv[1:2]):.4f}")
