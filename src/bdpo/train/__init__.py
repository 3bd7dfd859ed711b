"""Stage 2: training on scored pairs; the reference was scored in stage 1 and is not in memory.

options.py  the options of loss, balance and scoring: one table for trainer and recipe
card.py     the model card
config.py   BDPOConfig: these options and TrainingArguments
prepare.py  what a trainer is given -> scored rows and the policy
shown.py    what training says while it runs
batches.py  scored rows -> the micro-batches of a step
trainer.py  BDPOTrainer
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bdpo.later import later

if TYPE_CHECKING:
    from bdpo.train.config import BDPOConfig
    from bdpo.train.trainer import BDPOTrainer

__all__ = ["BDPOConfig", "BDPOTrainer"]

__getattr__ = later(__name__, {"config": ["BDPOConfig"], "trainer": ["BDPOTrainer"]})
