"""curves.svg of a run as the values that were to be drawn, for tests that look at other things than the drawing."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bdpo.files import write_whole
from bdpo.report.figures_training import series


def values(history: list[dict[str, Any]]) -> SimpleNamespace:
    """In place of `at_a_glance`: to draw takes longer than to train a tiny model."""
    keys = ("loss", "rewards/accuracies", "rewards/margins", "logratios/chosen", "logratios/rejected")
    drawn = {key: series(history, key) for key in (*keys, *(f"eval_{key}" for key in keys))}

    def save(folder: Path, kinds: list[str]) -> None:
        write_whole(folder / "curves.svg", repr(drawn))

    return SimpleNamespace(save=save)
