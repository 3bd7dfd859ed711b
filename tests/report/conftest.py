"""Two runs of a tiny model, and an evaluation written by hand, with texts that would like to be markup."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from asked import write_method

from bdpo.recipe.run import run_recipe
from bdpo.recipe.sections import parse_recipe
from tiny import furnish

HOSTILE = (
    "<script>document.title='taken'</script></script><img src=x onerror=\"document.title='taken'\">"
    "{{ 7*7 }} <b onmouseover=alert(1)>bold</b> \x1b[31mred \u202egnp.exe &lt;i&gt; </style></details>"
)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Path]]:
    """Folders of a B-DPO and a DPO run, 60 pairs and 20 held out."""
    home = tmp_path_factory.mktemp("trained")
    furnish(home, pairs=60, held=20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BDPO_CACHE", str(home / "cache"))
        for name, enabled in (("bdpo", True), ("dpo", False)):
            recipe = parse_recipe({
                "model": {"name": str(home / "model")},
                "balance": {"enabled": enabled},
                "data": {"train": str(home / "pairs.jsonl"), "eval": str(home / "held.jsonl")},
                "train": {"use_cpu": True, "disable_tqdm": True, "per_device_train_batch_size": 8, "logging_steps": 1,
                          "learning_rate": 3e-4, "num_train_epochs": 2, "save_strategy": "no",
                          "eval_strategy": "steps", "eval_steps": 4},
            })  # fmt: skip
            run_recipe(recipe, home / name)
        yield [home / "bdpo", home / "dpo"]


@pytest.fixture(scope="session")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base refuses 30 and answers 110 of 120; DPO 90 and 80, B-DPO 84 and 109."""
    out = tmp_path_factory.mktemp("evaluation")
    for name, refused, answered in (("base", 30, 110), ("DPO", 90, 80), ("B-DPO", 84, 109)):
        write_method(out, name, refused, answered)
    return out


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation whose every text would like to be markup."""
    out = tmp_path_factory.mktemp("hostile")
    texts = {"request": HOSTILE, "reply": HOSTILE, "reason": HOSTILE, "category": HOSTILE}
    write_method(out, "base", 30, 110, **texts)
    write_method(out, "<script>alert(2)</script>$x^2$", 90, 80, **texts)
    return out


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where `bdpo_` runs."""
    return tmp_path
