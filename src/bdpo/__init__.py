"""bdpo: Balanced Direct Preference Optimization for the safety alignment of chat models.

One straight way for the data. Each stage writes what the next one reads, and an import points only to rooms that stand
before its own; a test keeps it.

    pairs -> tokens -> forward -> method (comprehension, balance, losses) -> score -> train -> evaluate -> report

    later.py  errors.py  files.py  processes.py    the ground: what is loaded late; one exception; artefacts and their
                                                   keys; this process among others
    secrets.py   ... and what is never written
    terminal.py  ... and text from outside, shown so that it commands nothing
    yaml_text.py ... and YAML, which may unfold without end
    endpoint.py  ... and a server that is asked, with patience
    starter/     the embedded data set
    recipes/     what `bdpo recipe` hands out
    pairs/       rows of any source -> PreferencePair; the data check
    tokens.py    chat template -> token ids of a prompt and its two responses
    models/      what a model name means; loading; merging
    forward/     (model, trees) -> log-probabilities, fast
    method/      comprehension, balance, losses, metrics: the paper, pure
    score/       stage 1: one pass of the frozen model -> a scored folder
    train/       stage 2: BDPOConfig, BDPOTrainer
    evaluate/    stage 3: benchmarks, replies, judges, comparison
    report/      one page: the verdict, figures, changed replies
    recipe/      a run from beginning to end
    sweep/       many runs that differ in method, setting or seed
    cli/         the commands; nothing imports it

Each room's `__init__` says what stands in it. docs/architecture.md follows one pair through the house.

In Python:

    from bdpo import BDPOConfig, BDPOTrainer, load_pairs

`bdpo.balance`, `bdpo.comprehension`, `bdpo.losses` and `bdpo.scored` are short names of modules in method/ and score/.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bdpo.later import later

if TYPE_CHECKING:
    from bdpo.errors import BdpoError
    from bdpo.pairs import PreferencePair, load_pairs
    from bdpo.train import BDPOTrainer
    from bdpo.train.config import BDPOConfig

__version__ = "0.1.0"
__all__ = ["BDPOConfig", "BDPOTrainer", "BdpoError", "PreferencePair", "load_pairs"]

__getattr__ = later(
    __name__,
    {
        "errors": ["BdpoError"],
        "pairs": ["PreferencePair", "load_pairs"],
        "train.config": ["BDPOConfig"],
        "train.trainer": ["BDPOTrainer"],
    },
)
