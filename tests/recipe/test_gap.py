"""The gap between training and held-out pairs, by hand."""

import pytest

from bdpo.recipe.gap import generalisation_gap


def log(epoch: float, pairs: int, accuracy: float, margin: float) -> dict[str, float]:
    return {"epoch": epoch, "window/pairs": pairs, "rewards/accuracies": accuracy, "rewards/margins": margin}


HELD = {"eval_rewards/accuracies": 0.6, "eval_rewards/margins": 1.0}


def test_the_gap_is_of_the_last_epoch_and_each_pair_counts_once() -> None:
    history = [log(1.0, 8, 0.1, -5), log(1.5, 6, 1.0, 3.0), {"epoch": 2.0, "eval_loss": 1.0}, log(2.0, 2, 0.6, 7.0)]
    # accuracy (6 * 1 + 2 * 0.6) / 8 = 0.9, margin (6 * 3 + 2 * 7) / 8 = 4
    found = generalisation_gap(history, HELD)
    assert found == {"gap/accuracies": pytest.approx(0.3), "gap/margins": pytest.approx(3.0)}


def test_what_was_not_logged_has_no_gap() -> None:
    assert generalisation_gap([], HELD) == {} and generalisation_gap([log(1, 2, 1, 1)], {"train_loss": 1.0}) == {}
