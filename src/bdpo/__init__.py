"""bdpo: Balanced Direct Preference Optimization for the safety alignment of chat models.

One straight way for the data; each module is one arrow, each stage writes what the next one reads, and an import
points only to the left:

    pairs -> tokens -> layout -> logprobs -> comprehension -> balance -> losses -> train -> evaluate

    pairs/            PreferencePair; readers for files and hub data sets; the data check
    tokens.py         chat template -> token ids of a prompt and its two replies
    layout.py         a prefix and its branches -> one batch of tensors
    logprobs.py       THE function from (model, batch) to log-probabilities (attention.py, head.py, lora.py: its parts)
    comprehension.py  log-likelihoods -> mutual information (pure)
    balance.py        mutual information -> weights and scale (pure)
    losses.py         log-ratios -> loss, rewards (pure)
    score.py          stage 1: one pass of the frozen model -> a scored data set (scored.py: its folder)
    train_config.py   stage 2: BDPOConfig
    train.py          stage 2: BDPOTrainer (prepare.py, batches.py, metrics.py: what goes in and out)
    run.py            a recipe from beginning to end (config.py: what a recipe may say; card.py: the model card)
    models.py         what a model name means (allocator.py, memory.py: speed and size on the machine at hand)
    evaluate/         stage 3: benchmarks, generation, judges, statistics; nothing left of it imports it
    cli.py            the commands (cli_evaluate.py: those of stage 3; demo.py, dryrun.py, summary.py: what they show)
    starter/          the embedded data set

In Python:

    from bdpo import BDPOConfig, BDPOTrainer, load_pairs
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bdpo.errors import BdpoError
    from bdpo.pairs import PreferencePair, load_pairs
    from bdpo.train import BDPOTrainer
    from bdpo.train_config import BDPOConfig

__version__ = "0.1.0"
__all__ = ["BDPOConfig", "BDPOTrainer", "BdpoError", "PreferencePair", "load_pairs"]

_HOME = {
    "BDPOConfig": "bdpo.train_config",
    "BDPOTrainer": "bdpo.train",
    "BdpoError": "bdpo.errors",
    "PreferencePair": "bdpo.pairs",
    "load_pairs": "bdpo.pairs",
}


def __getattr__(name: str) -> Any:
    """Load public names when they are asked for: torch and transformers take seconds, `bdpo --help` must not."""
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'bdpo' has no attribute '{name}'")
