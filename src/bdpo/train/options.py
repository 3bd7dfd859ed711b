"""The options of loss, balance and scoring: one table for the trainer's flat configuration and the recipe's sections.

A field of `MethodOptions` is the option: its type, its default, its bounds, what it is for, and under `recipe` the key
that a recipe gives it by. The sections `balance` and `score` of a recipe are made of this table, and what a recipe says
reaches the trainer by it. A new option of the balance is one field here, named like the keyword of
`bdpo.method.balance.balance` that it becomes in its recipe key (balance.temperature -> temperature).

The tables that options are names of bring torch along, so that they are looked into when a name is checked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import Field, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from bdpo.errors import BdpoError

if TYPE_CHECKING:
    from bdpo.score import ScoringOptions


class Help(str):
    """What an option is for, with what else is said of it, since HfArgumentParser hands all metadata to argparse."""

    said: dict[str, Any]

    def __new__(cls, text: str, **said: Any) -> Help:
        help = super().__new__(cls, text)
        help.said = said
        return help


def _option(recipe: str, default: Any, help: str, **more: Any) -> Any:
    """A field; `more`: bounds of the value (gt, ge), or what gives the `names` that it is one of."""
    return field(default=default, metadata={"help": Help(help, recipe=recipe, **more)})


def _weightings() -> tuple[str, ...]:
    from bdpo.method.balance import WEIGHTINGS

    return tuple(WEIGHTINGS)


def _centers() -> tuple[str, ...]:
    from bdpo.method.balance import CENTERS

    return CENTERS


def _estimators() -> tuple[str, ...]:
    from bdpo.score import ESTIMATORS

    return tuple(ESTIMATORS)


@dataclass
class MethodOptions:
    """Loss, balance and scoring; names as in TRL's DPOConfig where it has them."""

    loss_type: str = _option("loss.name", "dpo", "A name of bdpo.losses.LOSSES; 'sigmoid' means dpo.")
    beta: float | None = _option("loss.beta", None, "Strength of the pull to the reference; None: the loss's own.")
    label_smoothing: float | None = _option("loss.label_smoothing", None, "Probability of a wrong label (dpo, robust).")
    loss_params: dict[str, float] | str | None = _option(  # noqa: RUF009
        "loss", None, "Further parameters of the loss, such as gamma or nll_weight."
    )
    balance: bool = _option("balance.enabled", True, "False: weights and scale are 1, the plain loss.")
    balance_weights: bool = _option("balance.weights", True, "Balancing weights; False leaves the scale alone.")
    balance_scale: bool = _option("balance.scale", True, "Scaling factor; False leaves the weights alone.")
    weighting: str = _option(
        "balance.weighting",
        "sigmoid",
        "A name of bdpo.balance.WEIGHTINGS; reversed, permuted and constant are controls.",
        names=_weightings,
    )
    temperature: float = _option(
        "balance.temperature", 1.0, "Softens (> 1) or sharpens (< 1) the weights; inf is the plain loss.", gt=0
    )
    center: str = _option(
        "balance.center", "none", "mean: the imbalance less its mean over the training set, without a tilt.",
        names=_centers,
    )  # fmt: skip
    balance_seed: int = _option("balance.seed", 0, "Draws whose weights a pair has, with weighting 'permuted'.", ge=0)
    estimator: str = _option(
        "score.estimator", "pmi", "How comprehension is measured where the balance needs it: a name of "
        "bdpo.score.ESTIMATORS.",
        names=_estimators,
    )  # fmt: skip
    score_batch_tokens: int | None = _option(
        "score.batch_tokens", None, "Tokens of a forward pass when pairs are scored; None: by the device.", ge=1
    )
    score_ches: bool = _option(
        "score.ches", False, "Also measure CHES, the similarity of a pair's hidden states; a diagnosis, nothing else."
    )
    score_endpoint: str | None = _option(
        "score.endpoint", None, "URL of a vLLM server that scores in place of the model, http://localhost:8000/v1."
    )
    score_endpoint_model: str | None = _option(
        "score.endpoint_model", None, "What that server calls the model; None: the only one that it serves."
    )
    score_seed: int = _option("data.seed", 0, "Draws the other prompts of the contrastive estimator.", ge=0)
    max_length: int | None = _option("data.max_length", 1024, "Longest prompt + longer response [tokens].")

    def hyperparameters(self) -> dict[str, float]:
        """The loss's keyword values that were set."""
        given = {"beta": self.beta, "label_smoothing": self.label_smoothing}
        assert not isinstance(self.loss_params, str)
        return {name: value for name, value in given.items() if value is not None} | (self.loss_params or {})

    def balancing(self) -> dict[str, Any]:
        """Keywords of `bdpo.method.balance.balance`."""
        return {
            key.removeprefix("balance."): getattr(self, option.name)
            for key, option in RECIPE_KEYS.items()
            if key.startswith("balance.")
        }

    @property
    def needs_comprehension(self) -> bool:
        """Whether training needs comprehension; at an infinite temperature it is measured all the same."""
        return self.balance and (self.balance_weights or self.balance_scale)

    def scoring(self, *, measure: bool = False) -> ScoringOptions:
        """What stage 1 is told: to measure comprehension where the balance needs it, or `measure` asks for it.

        Raises:
            BdpoError: it is to be measured, and the estimator is `none`.
        """
        from bdpo.score import NONE, ScoringOptions

        measure = measure or self.needs_comprehension
        if measure and self.estimator == NONE:
            raise BdpoError(
                "score.estimator is none, and comprehension is asked for: name another one (pmi), or train with "
                "balance.enabled=false."
            )
        estimator = self.estimator if measure else NONE
        return ScoringOptions(
            estimator, self.max_length, self.score_batch_tokens, self.score_seed, self.score_ches, self.score_endpoint,
            self.score_endpoint_model,
        )  # fmt: skip

    def refuse_unfit_method(self) -> None:
        """Raise BdpoError for a name that is in no table, or a value that the loss or the balance does not take."""
        from bdpo.method.balance import balance
        from bdpo.method.losses import loss_parameters

        loss_parameters(self.loss_type, **self.hyperparameters())
        balance([0.0], [0.0], **self.balancing())
        self.scoring()


RECIPE_KEYS: dict[str, Field[Any]] = {
    option.metadata["help"].said["recipe"]: option for option in fields(MethodOptions)
}
NAMES: dict[str, Callable[[], tuple[str, ...]]] = {
    key: said["names"] for key, option in RECIPE_KEYS.items() if "names" in (said := option.metadata["help"].said)
}
"""What gives the names of the keys that take one of a table's."""
