"""DPO with TRL; bdpo_dpo.py is the same with bdpo.

pip install trl && python examples/trl_dpo.py MODEL PAIRS.jsonl
"""

import sys

from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer


def main(model: str, pairs: str, out: str = "runs/trl") -> list[dict[str, float]]:
    """Train one epoch in the order of the data; what was logged."""
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model),
        args=DPOConfig(
            output_dir=out, beta=0.1, learning_rate=1e-3, num_train_epochs=1,
            per_device_train_batch_size=4, logging_steps=1,
            train_sampling_strategy="sequential", lr_scheduler_type="constant", bf16=False,
            gradient_checkpointing=False, report_to="none", save_strategy="no",
        ),
        train_dataset=load_dataset("json", data_files=pairs, split="train"),
        processing_class=AutoTokenizer.from_pretrained(model),
    )  # fmt: skip
    trainer.train()
    return trainer.state.log_history


if __name__ == "__main__":
    main(*sys.argv[1:])
