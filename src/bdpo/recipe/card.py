"""The model card of a run (see `bdpo.train.card`): what its recipe says is in it too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bdpo.recipe.sections import Recipe

if TYPE_CHECKING:
    from bdpo.method.balance import Balance
    from bdpo.score.folder import ScoredData

_BESIDE = """`recipe.yaml` repeats the run, `scores.json` says what the reference numbers depend on, and `metrics.json`
has every logged value. Preference accuracy is not safety: evaluate the model before it meets people.
"""


def method_name(recipe: Recipe) -> str:
    """What the loss and the balance of a recipe are called together, for example B-DPO."""
    from bdpo.train.card import method_name as name_of

    return name_of(recipe.options())


def model_card(
    recipe: Recipe, label: str, scores: ScoredData, balance: Balance, counts: dict[str, int], metrics: dict[str, Any],
    *,
    adapter: bool, asked: bool,
) -> str:  # fmt: skip
    """Markdown with the metadata block that the hub reads.

    Args:
        adapter: what the weights beside it are.
        asked: whether it was evaluated while it was trained.
    """
    from bdpo.train.card import Told
    from bdpo.train.card import model_card as card_of

    settings = {"loss": recipe.loss.model_dump(), "balance": recipe.balance.model_dump(), "train": recipe.train,
                "peft": recipe.peft}  # fmt: skip
    return card_of(
        Told(
            label=label, base=recipe.model.name, options=recipe.options(), data=recipe.data.train,
            manifest=scores.manifest, balance=balance, settings=settings, metrics=metrics, adapter=adapter,
            counts=counts, asked=asked, revision=recipe.model.revision,
        )
    ) + _BESIDE  # fmt: skip
