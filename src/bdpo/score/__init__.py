"""Stage 1: how well the frozen model comprehends each response, and the reference log-probabilities, in one pass.

scoring.py     (model, tokenizer, pairs) -> the scored folder; what its numbers depend on
sources.py     where the log-probabilities come from: the model here, or a server
served.py      ... of a server
estimators.py  which sums of log-probabilities comprehension is made of
folder.py      the scored data set on disk
known.py       what folders beside it say already of its pairs
summary.py     what a scored data set says: statistics by category
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bdpo.later import later

if TYPE_CHECKING:
    from bdpo.score.estimators import ESTIMATORS
    from bdpo.score.folder import NONE, ScoredData, open_scores
    from bdpo.score.scoring import ScoringOptions, score

__all__ = ["ESTIMATORS", "NONE", "ScoredData", "ScoringOptions", "open_scores", "score"]

__getattr__ = later(
    __name__,
    {
        "estimators": ["ESTIMATORS"],
        "folder": ["NONE", "ScoredData", "open_scores"],
        "scoring": ["ScoringOptions", "score"],
    },
)
