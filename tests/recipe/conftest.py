"""The folder that runs of these tests start from."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tiny import furnish


@pytest.fixture(scope="module", autouse=True)
def curves(undrawn: None) -> None:
    """The tests of reports look at the drawing."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a tiny model, 21 pairs and 9 held-out pairs; bdpo's cache lies in it too."""
    home = tmp_path_factory.mktemp("home")
    furnish(home, pairs=21, held=9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BDPO_CACHE", str(home / "cache"))
        yield home
