"""A training run as the report reads it: its folder, and the scores that it names; a sweep as its runs."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from bdpo import models
from bdpo.errors import BdpoError, first_line
from bdpo.files import read_bytes, read_json
from bdpo.report.recorded import as_held_out, as_history, as_recipe, as_record
from bdpo.yaml_text import read_yaml

if TYPE_CHECKING:
    from bdpo.score import ScoredData

_ELSEWHERE = "name the folder of a run of `bdpo train`"
_GO_ON = "run the same `bdpo sweep` again, it goes on where it was"
SWEEP, COMPARED = "sweep.json", "compare.json"
CHOSEN = "chosen"  # by --choose: its prompts are others than those that the settings were picked on
TRAINED, EVALUATED = ("trained", "finished"), ("finished",)  # states of a sweep's cells
TEXT = 1500  # characters of a text that are shown


@dataclass(frozen=True)
class TrainedRun:
    """What a run's folder holds; `absent` says in a sentence what it lacks."""

    folder: Path
    recipe: dict[str, Any]
    record: dict[str, Any]  # run.json; empty where an older version of bdpo made the run
    history: list[dict[str, float]]
    final: dict[str, float]
    held_out: dict[str, list[Any]]  # the columns of heldout.parquet
    scores: ScoredData | None
    absent: str
    called: str = ""  # by its sweep

    @property
    def name(self) -> str:
        return self.called or str(self.record.get("method") or self.folder.name)

    @property
    def seed(self) -> int:
        return int(self.recipe.get("train", {}).get("seed", 42))

    @cached_property
    def points(self) -> list[Point]:
        """The scored training pairs; none where comprehension was not measured."""
        if self.scores is None or not self.scores.measured:
            return []
        rows, group = self.scores.rows, self._groups()
        values = zip(rows["id"], rows["chosen_mi"], rows["rejected_mi"], group, strict=True)
        return [Point(place, *value) for place, value in enumerate(values)]

    def _groups(self) -> Iterator[str]:
        """What pairs are coloured by: the first category where there are some, else the label of the rejected reply."""
        assert self.scores is not None
        rows = self.scores.rows
        categories = [names[0] if names else "" for names in rows["category"]]
        if any(categories):
            return (category or "no category" for category in categories)
        label = {True: "rejected is safe", False: "rejected is unsafe", None: "not labelled"}
        return (label[safe] for safe in rows["rejected_safe"])

    def texts(self, point: Point) -> tuple[str, str, str]:
        """Prompt, chosen and rejected reply of a pair, decoded from its tokens."""
        assert self.scores is not None
        row, tokenizer = self.scores.rows[point.place], self._tokenizer
        prompt, chosen, rejected = (
            tokenizer.decode(row[f"{part}_ids"], skip_special_tokens=True).strip()
            for part in ("prompt", "chosen", "rejected")
        )
        return shortened(prompt), shortened(chosen), shortened(rejected)

    @cached_property
    def _tokenizer(self) -> Any:
        return models.load_tokenizer(self.folder)


@dataclass(frozen=True)
class Point:
    """A training pair: comprehension of both replies [nats/token]."""

    place: int  # among the rows
    id: str
    chosen: float
    rejected: float
    group: str

    @property
    def imbalance(self) -> float:
        return self.chosen - self.rejected


def open_runs(folder: Path) -> tuple[list[TrainedRun], list[Path]]:
    """What lies in a folder: a run, or the cells of a sweep; and the folders of their evaluations.

    Raises:
        BdpoError: it is neither, or nothing in it is finished.
    """
    if not (folder / SWEEP).exists():
        evaluation = folder / "evaluation"
        return [open_run(folder)], [evaluation] if evaluation.is_dir() else []
    cells = read_json(folder / SWEEP, _GO_ON, study=dict, cells=list)["cells"]
    try:
        there = {cell["name"]: folder / cell["folder"] for cell in cells}
        trained = [(there[c["name"]], c["label"]) for c in cells if c["state"] in TRAINED and c["seed"] is not None]
        evaluations = [there[cell["name"]] / "evaluation" for cell in cells if cell["state"] in EVALUATED]
    except (KeyError, TypeError) as error:
        raise BdpoError(f"{folder / SWEEP} is not as bdpo sweep writes it: {_GO_ON}.") from error
    if not trained and not evaluations:
        raise BdpoError(f"{folder} holds no finished cell: {_GO_ON}.")
    chosen = folder / CHOSEN
    evaluations = [chosen] if (chosen / COMPARED).exists() else evaluations
    return [open_run(*cell) for cell in trained], evaluations


def compared_with(folder: Path) -> dict[str, str]:
    """The `baseline` that `bdpo sweep` compared its settings with, and the `reference` of rewards; {} for a run."""
    there = [path for path in (folder / CHOSEN / COMPARED, folder / COMPARED) if path.exists()]
    if not (folder / SWEEP).exists() or not there:
        return {}
    found = read_json(there[0], _GO_ON)
    return {name: found[name] for name in ("baseline", "reference") if isinstance(found.get(name), str)}


def open_run(folder: Path, called: str = "") -> TrainedRun:
    """Read a run's folder.

    Raises:
        BdpoError: it holds no finished run, or a file in it is not as it was written.
    """
    if not (folder / "metrics.json").exists():
        raise BdpoError(f"{folder} holds no finished run (no metrics.json): {_ELSEWHERE}.")
    metrics = read_json(folder / "metrics.json", _ELSEWHERE, history=list, final=dict)
    try:
        recipe = as_recipe(read_yaml(folder / "recipe.yaml"))
        held_out = folder / "heldout.parquet"
        held = as_held_out(pq.read_table(io.BytesIO(read_bytes(held_out))).to_pydict()) if held_out.exists() else {}
        there = (folder / "run.json").exists()
        record = as_record(read_json(folder / "run.json", _ELSEWHERE)) if there else {}
    except (OSError, ValueError) as error:
        raise BdpoError(f"{folder} cannot be read ({first_line(error)}): {_ELSEWHERE}.") from error
    absent = "" if there else f"{folder} has no run.json: it was trained by an earlier version of bdpo."
    scores = None
    if there:
        from bdpo.score.folder import open_scores, serves  # which takes a second to load

        try:
            scores = open_scores(record["scores"]["train"]["path"])
            if not serves(scores.manifest["key"], record["scores"]["train"]["key"]):
                scores, absent = None, f"The scores that {folder} was trained on were replaced by others."
            elif not scores.measured:
                absent = f"Comprehension was not measured for {folder}: it trained without the balance."
        except BdpoError as error:
            absent = f"The scores that {folder} was trained on cannot be read: {error}"
    history = as_history(metrics["history"])
    return TrainedRun(folder, recipe, record, history, metrics["final"], held, scores, absent, called)


def shortened(text: str) -> str:
    """A text of at most `TEXT` characters, with a mark where it goes on.

    >>> shortened("a" * 1501)[-5:]
    'a ...'
    """
    return text if len(text) <= TEXT else f"{text[:TEXT]} ..."
