"""What is asked.

benchmarks.py  the table: one record a benchmark; suites; items, sampled
items.py       rows of published files -> prompts
sources.py     where rows come from: a folder, the hub, the package
transforms.py  the same prompts in other wordings
"""

from __future__ import annotations

from typing import Literal, get_args

Suite = Literal["safety", "over-refusal", "capability"]
AVERAGED: tuple[str, ...] = get_args(Suite)
"""What the overall average of a comparison is of; preferences are shown and not averaged."""
