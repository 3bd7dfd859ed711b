"""The files of a run as somebody may have changed them: what the page computes with must be of its kind.

What else is in them is only shown, and that as text.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError


class _Told(BaseModel):
    """What the page computes with of a file that somebody may have changed; what else is there is shown as it is."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())


class _Train(_Told):
    seed: int = 42
    displacement_alarm: float | None = None


class _Balance(_Told):
    weighting: str = ""


class _Recipe(_Told):
    __pydantic_extra__: dict[str, dict[str, Any] | None] = Field(init=False)
    model: dict[str, Any]
    train: _Train
    balance: _Balance


class _Scores(_Told):
    path: str
    key: dict[str, Any]


class _BothScores(_Told):
    train: _Scores


class _Finding(_Told):
    severity: str
    name: str
    count: int
    explanation: str


class _Refusals(_Told):
    chosen: float
    rejected: float


class _Data(_Told):
    refusals: _Refusals
    findings: list[_Finding]


class _Record(_Told):
    scores: _BothScores
    method: str | None = None
    tau: float | None = None
    mean_imbalance: float = 0.0
    weights: dict[str, str] = {}
    peak_memory_bytes: float | None = None
    data: _Data | None = None


_HELD_OUT = ("id", "d", "w_c", "w_r", *(f"{side}_logps_{when}" for side in ("chosen", "rejected")
                                       for when in ("before", "after")))  # fmt: skip


def as_recipe(content: Any) -> dict[str, Any]:
    """The content of recipe.yaml. Raises ValueError as all of these do, where it is of another kind."""
    _fits(_Recipe, content, "recipe.yaml")
    return dict(content)


def as_record(content: Any) -> dict[str, Any]:
    """The content of run.json."""
    _fits(_Record, content, "run.json")
    return dict(content)


def as_history(logged: list[Any]) -> list[dict[str, float]]:
    """What was logged: the numbers of each entry."""
    entries = [entry for entry in logged if isinstance(entry, dict)]
    return [{key: value for key, value in entry.items() if isinstance(value, int | float)} for entry in entries]


def as_held_out(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """The columns of heldout.parquet."""
    for name in _HELD_OUT:
        kinds = {"id": str, "d": float | None}.get(name, float)
        if name not in columns or not all(isinstance(value, kinds) for value in columns[name]):
            raise ValueError(f"heldout.parquet: the column {name} is not as it was written")
    return columns


def _fits(kind: type[_Told], content: Any, file: str) -> None:
    try:
        kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        about = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{file}{about and ': ' + about}: {first['msg']}") from None
