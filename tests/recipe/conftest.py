"""The folder that runs of these tests start from."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bdpo.report import figures_training
from tiny import furnish


@pytest.fixture(scope="module", autouse=True)
def curves() -> Iterator[None]:
    """curves.svg of a run holds the values that were to be drawn: drawing takes longer than the run, and the tests of
    reports look at the drawing."""

    def written(history: list[dict[str, Any]]) -> SimpleNamespace:
        keys = ("loss", "rewards/accuracies", "rewards/margins", "logratios/chosen", "logratios/rejected")
        drawn = {key: figures_training.series(history, key) for key in (*keys, *(f"eval_{key}" for key in keys))}

        def save(folder: Path, kinds: list[str]) -> None:
            (folder / "curves.svg").write_text(repr(drawn))

        return SimpleNamespace(save=save)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures_training, "at_a_glance", written)
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a tiny model, 21 pairs and 9 held-out pairs; bdpo's cache lies in it too."""
    home = tmp_path_factory.mktemp("home")
    furnish(home, pairs=21, held=9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BDPO_CACHE", str(home / "cache"))
        yield home
