"""BDPOConfig: what a training run is told, flat, as TrainingArguments is."""

from __future__ import annotations

from dataclasses import dataclass, field

from transformers import TrainingArguments

from bdpo.balance import balance
from bdpo.errors import BdpoError
from bdpo.losses import loss_parameters
from bdpo.models import on_cpu


@dataclass
class BDPOConfig(TrainingArguments):
    """TrainingArguments with the loss, the balance and the scoring; names as in TRL's DPOConfig where it has them."""

    learning_rate: float = field(default=1e-6, metadata={"help": "Initial learning rate of AdamW."})
    logging_steps: float = field(default=10, metadata={"help": "Log every so many optimiser steps."})
    # every weight takes part in every step, and looking for those that do not costs a pass over the graph
    ddp_find_unused_parameters: bool | None = field(default=False, metadata={"help": "As in TrainingArguments."})
    loss_type: str = field(default="dpo", metadata={"help": "A name of bdpo.losses.LOSSES; 'sigmoid' means dpo."})
    beta: float | None = field(
        default=None, metadata={"help": "Strength of the pull to the reference; None: the loss's own."}
    )
    label_smoothing: float | None = field(
        default=None, metadata={"help": "Probability of a wrong label (dpo, robust)."}
    )
    loss_params: dict[str, float] | str | None = field(
        default=None, metadata={"help": "Further parameters of the loss, such as gamma or nll_weight."}
    )
    balance: bool = field(default=True, metadata={"help": "False: weights and scale are 1, the plain loss."})
    balance_weights: bool = field(default=True, metadata={"help": "Balancing weights; False leaves the scale alone."})
    balance_scale: bool = field(default=True, metadata={"help": "Scaling factor; False leaves the weights alone."})
    weighting: str = field(default="sigmoid", metadata={"help": "A name of bdpo.balance.WEIGHTINGS."})
    temperature: float = field(default=1.0, metadata={"help": "Softens (> 1) or sharpens (< 1) the weights."})
    estimator: str = field(
        default="pmi", metadata={"help": "How raw pairs are scored: a name of bdpo.score.ESTIMATORS."}
    )
    max_length: int | None = field(
        default=1024, metadata={"help": "Longest prompt + longer reply of raw pairs [tokens]."}
    )
    score_batch_tokens: int | None = field(
        default=None, metadata={"help": "Tokens of a forward pass when raw pairs are scored; None: by the device."}
    )
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
        loss_parameters(self.loss_type, **self.hyperparameters())  # refuses what does not fit
        balance([0.0], [0.0], weighting=self.weighting, temperature=self.temperature)  # likewise
        for name in ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"):
            if getattr(self, name) < 1:
                raise BdpoError(f"{name} is {getattr(self, name)}: it must be at least 1.")
        if self.tokens_per_batch is not None and self.tokens_per_batch < 1:
            raise BdpoError(f"tokens_per_batch is {self.tokens_per_batch}: it must be at least 1, or left out.")

    @property
    def pairs_per_step(self) -> int:
        """Pairs of an optimiser step, over all processes."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps * self.world_size

    def hyperparameters(self) -> dict[str, float]:
        """The loss's keyword values that were set."""
        given = {"beta": self.beta, "label_smoothing": self.label_smoothing}
        assert not isinstance(self.loss_params, str)
        return {name: value for name, value in given.items() if value is not None} | (self.loss_params or {})
