"""BDPOConfig: what a training run is told, flat, as TrainingArguments is."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import wraps
from typing import Any, TypeVar

from transformers import TrainingArguments

from bdpo.errors import BdpoError
from bdpo.processes import on_cpu
from bdpo.secrets import without_secrets
from bdpo.train.options import MethodOptions
from bdpo.train.trl import without_trl
from bdpo.train.unfit import refuse_unfit

Config = TypeVar("Config", bound=type)


def _takes_trl(config: Config) -> Config:
    """Let the class be called with what is TRL's alone (`bdpo.train.trl`)."""
    plain = config.__init__  # type: ignore[misc]

    @wraps(plain)
    def init(self: Any, *given: Any, **named: Any) -> None:
        plain(self, *given, **without_trl(named))

    config.__init__ = init  # type: ignore[misc]
    return config


@_takes_trl
@dataclass
class BDPOConfig(MethodOptions, TrainingArguments):
    """TrainingArguments with the loss, the balance and the scoring; names as in TRL's DPOConfig where it has them."""

    learning_rate: float = field(default=1e-6, metadata={"help": "Initial learning rate of AdamW."})
    logging_steps: float = field(default=10, metadata={"help": "Log every so many optimiser steps."})
    # every weight takes part in every step, and looking for those that do not costs a pass over the graph
    ddp_find_unused_parameters: bool | None = field(default=False, metadata={"help": "As in TrainingArguments."})
    tokens_per_batch: int | None = field(
        default=None,
        metadata={
            "help": "Tokens that a micro-batch may hold, prompts once. The pairs of a step stay what batch size x "
            "accumulation x processes make them, and are dealt into as few micro-batches as this allows; None: "
            "micro-batches of per_device_train_batch_size pairs."
        },
    )
    scores_dir: str | None = field(
        default=None, metadata={"help": "Folder in which raw pairs are scored, by data set; None: the cache."}
    )
    disable_dropout: bool = field(
        default=True, metadata={"help": "Set every dropout to 0, so that log-ratios start at 0."}
    )
    displacement_alarm: float | None = field(
        default=-10.0,
        metadata={"help": "Warn when the mean chosen log-ratio falls below this [nats]; None: never."},
    )

    _VALID_DICT_FIELDS = [*TrainingArguments._VALID_DICT_FIELDS, "loss_params"]  # noqa: RUF012

    def __post_init__(self) -> None:
        self.use_cpu = self.use_cpu or on_cpu()
        super().__post_init__()
        if isinstance(self.loss_type, list):  # TRL's form
            if len(self.loss_type) != 1:
                raise BdpoError("loss_type takes one loss; for an added NLL term set loss_params: {nll_weight: ...}.")
            self.loss_type = self.loss_type[0]
        if self.loss_type == "sigmoid":
            self.loss_type = "dpo"
        self.refuse_unfit_method()
        refuse_unfit(self)

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled into training_args.bin: everything but secrets, such as hub_token."""
        return dict(without_secrets(vars(self)))

    def __copy__(self) -> BDPOConfig:
        """A copy in memory, which is not pickled, keeps them."""
        copied = object.__new__(type(self))
        copied.__dict__.update(vars(self))
        return copied

    @property
    def pairs_per_step(self) -> int:
        """Pairs of an optimiser step, over all processes."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps * self.world_size
