"""The twin of trl_dpo.py: the same loss at every step, without a reference model in memory.

    python examples/bdpo_dpo.py MODEL PAIRS.jsonl

`balance=False` is plain DPO; without it, it is B-DPO.
"""

import sys

from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from bdpo import BDPOConfig, BDPOTrainer


def main(model: str, pairs: str, out: str = "runs/bdpo", balance: bool = False) -> list[dict[str, float]]:
    """Train one epoch in the order of the data; what was logged."""
    trainer = BDPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model),
        args=BDPOConfig(
            output_dir=out, beta=0.1, learning_rate=1e-3, num_train_epochs=1,
            per_device_train_batch_size=4, logging_steps=1,
            train_sampling_strategy="sequential", lr_scheduler_type="constant", report_to="none", save_strategy="no",
            balance=balance,
        ),
        train_dataset=load_dataset("json", data_files=pairs, split="train"),
        processing_class=AutoTokenizer.from_pretrained(model),
    )  # fmt: skip
    trainer.train()
    return trainer.state.log_history


if __name__ == "__main__":
    main(*sys.argv[1:])
