"""The working folder of the tests of sweeps."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bdpo.report.figures_training
import bdpo.sweep.run
from tiny import furnish

RECIPE = """
model: {name: model}
data: {train: pairs.jsonl, eval: held.jsonl}
train: {use_cpu: true, disable_tqdm: true, per_device_train_batch_size: 4, max_steps: 2, learning_rate: 1.0e-2,
        logging_steps: 1, save_strategy: steps, save_steps: 1}
peft: {r: 2, target_modules: [q_proj, v_proj]}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a tiny model, pairs and a recipe; bdpo's cache lies in it, and it is the working folder."""
    home = tmp_path_factory.mktemp("home")
    furnish(home, pairs=8, held=4)
    (home / "recipe.yaml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BDPO_CACHE", str(home / "cache"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        patch.chdir(home)
        yield home


@pytest.fixture(autouse=True)
def pages(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, Path]]:
    """The pages asked for from now on: what of, and where to. Neither they nor the curves of a run are drawn, which
    would take longer than a tiny cell; tests of reports and of runs look at those."""
    asked: list[tuple[Path, Path]] = []

    def noted(folders: list[Path], path: Path, **how: Any) -> None:
        asked.extend((folder, path) for folder in folders)

    monkeypatch.setattr(bdpo.sweep.run, "write_report", noted)
    monkeypatch.setattr(bdpo.report.figures_training, "at_a_glance", lambda history: None)
    return asked
