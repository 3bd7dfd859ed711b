"""Per-pair statistics of a window of training -> the numbers that are logged (pure). docs/metrics.md defines them."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from bdpo.pairs.kinds import KINDS


@dataclass(frozen=True, eq=False)
class PairStatistics:
    """What is known of B pairs after their forward pass, all (B,); the fields are the columns of a table."""

    loss: Tensor  # nats
    reward_chosen: Tensor
    reward_rejected: Tensor
    logratio_chosen: Tensor  # nats
    logratio_rejected: Tensor
    length_chosen: Tensor  # tokens
    length_rejected: Tensor
    weight_chosen: Tensor
    weight_rejected: Tensor
    scale: Tensor
    imbalance: Tensor  # nats/token; nan where not measured
    margin: Tensor  # log pi(chosen) - log pi(rejected), nats
    kind: Tensor  # 1 + the place in KINDS; 0: neither, or not told

    def table(self) -> Tensor:
        """(B, len(COLUMNS)) float32, one row a pair."""
        return torch.stack([getattr(self, name).float() for name in COLUMNS], dim=1)


COLUMNS = tuple(column.name for column in fields(PairStatistics))


def summarise(table: Tensor, tercile_edges: tuple[float, float] | None = None) -> dict[str, float]:
    """Means (and extremes of the weights) over pairs, overall and by tercile of imbalance.

    Args:
        table: (n, len(COLUMNS)) float, one row a pair; no rows give no metrics.
        tercile_edges: the two inner edges of imbalance over the training set [nats/token]; None: no terciles.
    """
    if not len(table):
        return {}
    column = dict(zip(COLUMNS, table.double().T, strict=True))
    metrics = _means(column)
    for name in ("weight_chosen", "weight_rejected", "scale"):
        short = _weight_name(name)
        metrics |= {f"{short}_min": column[name].min().item(), f"{short}_max": column[name].max().item()}
    metrics |= _by_kind(column)
    if tercile_edges is not None:
        low, high = tercile_edges
        imbalance = column["imbalance"]
        thirds = {
            "low": imbalance < low,
            "mid": (imbalance >= low) & (imbalance < high),
            "high": imbalance >= high,
        }
        for third, members in thirds.items():
            if members.any():
                means = _means({name: values[members] for name, values in column.items()})
                metrics |= {f"imbalance_{third}/{name}": value for name, value in means.items()}
    return metrics


def metric_names() -> list[str]:
    """Every name that `summarise` may give.

    >>> [name for name in metric_names() if name.endswith("/margins")][:2]
    ['rewards/margins', 'imbalance_low/rewards/margins']
    """
    return list(summarise(torch.arange(3.0)[:, None].expand(3, len(COLUMNS)), tercile_edges=(1.0, 2.0)))


def tercile_edges(imbalance: Tensor) -> tuple[float, float] | None:
    """Inner edges of the terciles of (N,) imbalances [nats/token]; None where one is nan, which is: not measured."""
    if imbalance.isnan().any():
        return None
    low, high = torch.quantile(imbalance.double(), torch.tensor([1 / 3, 2 / 3], dtype=torch.float64)).tolist()
    return low, high


def _means(column: dict[str, Tensor]) -> dict[str, float]:
    margin = column["reward_chosen"] - column["reward_rejected"]
    values = {
        "pair_loss": column["loss"],
        "rewards/chosen": column["reward_chosen"],
        "rewards/rejected": column["reward_rejected"],
        "rewards/margins": margin,
        "rewards/accuracies": (margin > 0).double(),
        "logratios/chosen": column["logratio_chosen"],
        "logratios/rejected": column["logratio_rejected"],
        "logratios/chosen_per_token": column["logratio_chosen"] / column["length_chosen"],
        "logratios/rejected_per_token": column["logratio_rejected"] / column["length_rejected"],
        **{_weight_name(name): column[name] for name in ("weight_chosen", "weight_rejected", "scale")},
    }
    return {name: value.mean().item() for name, value in values.items()}


def _by_kind(column: dict[str, Tensor]) -> dict[str, float]:
    """Accuracies and log-ratio margin of each kind, and where both are there their plain averages."""
    logratio = column["logratio_chosen"] - column["logratio_rejected"]
    reward = column["reward_chosen"] - column["reward_rejected"]
    values = {"ranking": column["margin"] > 0, "accuracy": reward > 0, "margin": logratio}
    metrics: dict[str, float] = {}
    for name, value in values.items():
        means = {kind: value[column["kind"] == at].double() for at, kind in enumerate(KINDS, start=1)}
        found = {kind: members.mean().item() for kind, members in means.items() if len(members)}
        metrics |= {f"{kind}_{name}": mean for kind, mean in found.items()}
        if len(found) == len(KINDS):
            metrics[f"balanced_{name}"] = sum(found.values()) / len(KINDS)
    return metrics


def _weight_name(column: str) -> str:
    return "balance/" + column.removeprefix("weight_")
