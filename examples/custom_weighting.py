"""A weighting of your own: one function of both comprehensions and one line in the table.

    python examples/custom_weighting.py

Here the better understood response pulls half as much as the other, however large the imbalance is.
"""

import sys

import torch
from peft import LoraConfig
from torch import Tensor

from bdpo import BDPOConfig, BDPOTrainer, load_pairs
from bdpo.method.balance import WEIGHTINGS, Fit


def halved(chosen_mi: Tensor, rejected_mi: Tensor, fit: Fit) -> tuple[Tensor, Tensor]:
    """w_c = 2/3 and w_r = 4/3 where the chosen response is better understood, else the other way round; 1 at a tie."""
    side = torch.sign(chosen_mi - rejected_mi)
    return 1 - side / 3, 1 + side / 3


WEIGHTINGS["halved"] = halved


def main(out: str = "runs/custom-weighting", pairs: int = 16) -> list[dict[str, float]]:
    """Train one epoch on a few embedded pairs; what was logged, in which balance/chosen is the mean of w_c."""
    trainer = BDPOTrainer(
        model="starter",
        args=BDPOConfig(
            output_dir=out, weighting="halved", num_train_epochs=1,
            learning_rate=3e-4, per_device_train_batch_size=8, logging_steps=1,
            report_to="none", save_strategy="no",
        ),
        train_dataset=load_pairs("starter").pairs[:pairs],
        peft_config=LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"),
    )  # fmt: skip
    trainer.train()
    return trainer.state.log_history


if __name__ == "__main__":
    for entry in main(*sys.argv[1:2]):
        if "balance/chosen" in entry:
            print(f"step {entry['step']}: mean w_c {entry['balance/chosen']:.3f}, loss {entry['loss']:.4f}")
