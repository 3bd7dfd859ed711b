"""Results as tables, for the terminal (rich) and as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from bdpo.evaluate.judges import DEGENERATE, FILTERED, UNFINISHED, UNJUDGED, UNTAKEN
from bdpo.evaluate.results.compare import Cell, ComparedRow, Comparison
from bdpo.evaluate.results.outcomes import Outcome, Run, prompt_scores
from bdpo.evaluate.results.statistics import Mean, Rate, mean, rate
from bdpo.evaluate.results.worst import FEWEST, worst_categories
from bdpo.terminal import plain


@dataclass(frozen=True)
class Grid:
    """A table of texts; a cell's lines stand one below the other."""

    title: str
    head: Sequence[str]  # the first column is to the left, the others to the right
    rows: list[Sequence[str]]
    notes: Sequence[str] = field(default_factory=tuple)

    def render(self, console: Console) -> None:
        """Print it; columns that a line has no room for stand in a further table below."""
        for columns in self._side_by_side(console.width):
            table = Table(title=None if columns[0] > 1 else plain(self.title), title_justify="left")
            table.add_column(plain(self.head[0]), no_wrap=True, overflow="fold")
            for place in columns:
                heading = plain(self.head[place])
                table.add_column(heading, justify="right", min_width=self._narrowest(place), overflow="fold")
            for row in self.rows:
                table.add_row(*(plain(row[place]) for place in (0, *columns)))
            console.print(table)
        for note in self.notes:
            console.print(plain(note))

    def _side_by_side(self, width: int) -> list[list[int]]:
        """The columns after the first, in groups that stand beside it in a line [characters]."""
        room = width - self._narrowest(0) - 4
        groups: list[list[int]] = [[]]
        left = room
        for place in range(1, len(self.head)):
            taken = self._narrowest(place) + 3  # with its line and the spaces around it
            if taken > left and groups[-1]:
                groups.append([])
                left = room
            groups[-1].append(place)
            left -= taken
        return groups

    def _narrowest(self, place: int) -> int:
        """What a column needs: its cells' longest line and the heading's longest word, and of the first its heading."""
        heading = self.head[place].split("\n") if place == 0 else self.head[place].split()
        return max(len(line) for line in [*heading, *(line for row in self.rows for line in row[place].split("\n"))])

    def markdown(self) -> str:
        """The same in Markdown."""
        lines = [f"## {self.title}", ""]
        lines += [_line(self.head), _line(["---", *["---:"] * (len(self.head) - 1)]), *map(_line, self.rows)]
        return "\n".join([*lines, "", *[f"{note}\n" for note in self.notes]])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", "<br>") for cell in cells) + " |"


# --- an evaluation ------------------------------------------------------------------------------------------------


def summary(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """A plain record for each model and task: score with its interval, n, and what else the replies were.

    A task that is not whole yet is left out.
    """
    records = []
    for run in runs:
        for task, record in run.tasks.items():
            outcomes = run.outcomes(task)
            if len(outcomes) == record.expected:
                about = {"name": run.name, "model": run.label, "folder": run.folder.name, "task": task}
                records.append(about | {"suite": record.suite, "measure": record.measure} | _numbers(outcomes))
    return records


def _numbers(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    scores = [score for score in prompt_scores(outcomes).values() if score is not None]
    margins = [outcome.margin for outcome in outcomes if outcome.margin is not None]
    generated = [outcome for outcome in outcomes if outcome.stop in ("end", "length")]
    without = Counter(outcome.verdict for outcome in outcomes if outcome.score is None)
    verdicts = Counter(outcome.verdict for outcome in outcomes if outcome.verdict)
    plain = all(score in (0, 1) for score in scores) and not any(outcome.sample for outcome in outcomes)
    found = (rate(int(sum(scores)), len(scores)) if plain else mean(scores, shares=True)) if scores else None
    return {
        "score": found and found.value,
        "low": found and found.low,
        "high": found and found.high,
        "n": len(scores),
        "verdicts": dict(sorted(verdicts.items())),
        "unread": without.total() - without[FILTERED] - without[UNTAKEN],
        "filtered": verdicts[FILTERED],
        "filtered_uncounted": without[FILTERED],
        "untaken": without[UNTAKEN],
        "cut": sum(outcome.stop == "length" for outcome in generated) / len(generated) if generated else None,
        "tokens": sum(outcome.tokens for outcome in generated) / len(generated) if generated else None,
        "unfinished": verdicts[UNFINISHED] / len(outcomes) if any(outcome.thought for outcome in outcomes) else None,
        "margin": sum(margins) / len(margins) if margins else None,
    }


def evaluation_grids(records: Sequence[dict[str, Any]]) -> list[Grid]:
    """A table for each suite: a row for each model and benchmark."""
    grids = []
    for suite in dict.fromkeys(record["suite"] for record in records):
        members = [record for record in records if record["suite"] == suite]
        tasks = list(dict.fromkeys(record["task"] for record in members))
        names = Counter(record["name"] for record in members if record["task"] == tasks[0])
        rows = [
            _row(record, record["name"] if names[record["name"]] == 1 else f"{record['name']} ({record['model']})")
            for task in tasks
            for record in members
            if record["task"] == task
        ]
        measures = {record["task"]: record["measure"] for record in members}
        told = "; ".join(
            f"{measure} ({', '.join(task for task in tasks if measures[task] == measure)})"
            for measure in dict.fromkeys(measures.values())
        )
        head = ("benchmark", "model", "score [95 % interval]", "n", "degenerate", "cut")
        more = (_unread, _untaken, _filtered, _unfinished, _margins)
        notes = (f"Score: {told}.", *(line for lines in more for line in lines(members)))
        grids.append(Grid(f"{suite} [%]", head, rows, notes))
    return grids


def _row(record: dict[str, Any], name: str) -> Sequence[str]:
    judged = sum(n for verdict, n in record["verdicts"].items() if verdict not in UNJUDGED)
    degenerate = f"{100 * record['verdicts'].get(DEGENERATE, 0) / judged:.1f}" if judged else "-"
    score = "-"
    if record["score"] is not None:
        score = f"{100 * record['score']:.1f} [{100 * record['low']:.1f}, {100 * record['high']:.1f}]"
    cut = "-" if record["cut"] is None else f"{100 * record['cut']:.0f}"
    return (record["task"], name, score, str(record["n"]), degenerate, cut)


def _unread(records: Sequence[dict[str, Any]]) -> list[str]:
    found = [f"{record['unread']} of {record['name']} on {record['task']}" for record in records if record["unread"]]
    return [f"Verdicts that could not be read, not counted in n: {', '.join(found)}."] if found else []


def _untaken(records: Sequence[dict[str, Any]]) -> list[str]:
    found = [f"{record['untaken']} of {record['name']} on {record['task']}" for record in records if record["untaken"]]
    return (
        [f"Prompts that the server does not take (too long?), not counted in n: {', '.join(found)}."] if found else []
    )


def _filtered(records: Sequence[dict[str, Any]]) -> list[str]:
    """How often a provider's filter took prompt or reply, and what that counts as."""
    lines = []
    for counts, uncounted in (("not counted in n", True), ("counted as refused", False)):
        found = [
            f"{record['filtered']} of {record['name']} on {record['task']}"
            for record in records
            if record["filtered"] and bool(record["filtered_uncounted"]) == uncounted
        ]
        lines += [f"Filtered by the provider, {counts}: {', '.join(found)}."] if found else []
    return lines


def _unfinished(records: Sequence[dict[str, Any]]) -> list[str]:
    found = [
        f"{100 * record['unfinished']:.0f} % of {record['name']} on {record['task']}"
        for record in records
        if record["unfinished"] is not None
    ]
    return [f"Thoughts that never ended, neither safe nor an answer: {', '.join(found)}."] if found else []


def _margins(records: Sequence[dict[str, Any]]) -> list[str]:
    found = [f"{record['margin']:.2f} of {record['name']}" for record in records if record["margin"] is not None]
    return [f"Mean margin [nats]: {', '.join(found)}."] if found else []


# --- a comparison -------------------------------------------------------------------------------------------------


def comparison_grids(comparison: Comparison) -> list[Grid]:
    """The averages, then the benchmarks; a column for each method."""
    seeds = {name: f"\n{len(models)} seeds" for name, models in comparison.methods.items() if len(models) > 1}
    head = ("", "n", *(f"{name}{seeds.get(name, '')}" for name in comparison.methods))
    averages = [row for row in comparison.rows if row.kind in ("suite", "overall")]
    others = [row for row in comparison.rows if row.kind not in ("suite", "overall")]
    notes = [_legend(comparison), *_measures(others)]
    if seeds:
        notes.append("±: standard deviation of the seeds' scores. With several seeds there is no p.")
    if comparison.left_out:
        notes.append(f"Not in every run, and left out: {', '.join(comparison.left_out)}.")
    grids = []
    if averages:
        weights = ", ".join(f"{weight:.2f} {suite}" for suite, weight in comparison.weights.items())
        told = (
            "Higher is better: safety is safe responses, over-refusal is harmless prompts answered. "
            f"Suites are means over their benchmarks, and overall is {weights}."
        )
        rows = [_compared(row, comparison) for row in averages]
        grids.append(Grid("Averages [%]", head, rows, (told,)))
    return [*grids, Grid("Benchmarks [%]", head, [_compared(row, comparison) for row in others], notes)]


def _legend(comparison: Comparison) -> str:
    """What the lines of a cell are, of those that the table has."""
    cells = [cell for row in comparison.rows for cell in row.cells.values()]
    differs = any(cell.difference for cell in cells)
    newcombe = ", Newcombe's for differences of rates" if differs else ""
    told = [f"[low, high]: 95 % intervals, Wilson's for rates and their averages{newcombe}, bootstrap for the rest."]
    if differs:
        told.append(f"Below each score its difference to {comparison.baseline}, paired on the same prompts.")
    if any(cell.gained or cell.lost for cell in cells):
        told.append("Gained, lost: prompts on which the one alone or the other alone succeeds.")
    if any(cell.p_holm is not None for cell in cells):
        told.append("p: McNemar, exact, with Holm's correction over the table.")
    return " ".join(told)


def worst_grids(comparison: Comparison) -> list[Grid]:
    """The lowest category of each method, a row for each benchmark that has categories."""
    found = {(worst.benchmark, worst.method): worst for worst in worst_categories(comparison.categories)}
    rows: list[Sequence[str]] = [
        (
            benchmark,
            *(
                f"{worst.category}, n {worst.n}\n{score_text(Cell(worst.score), 'benchmark')}"
                for worst in (found[benchmark, method] for method in comparison.methods)
            ),
        )
        for benchmark in dict.fromkeys(benchmark for benchmark, _ in found)
    ]
    note = (
        f"The category with the lowest score, of those with at least {FEWEST} prompts. The lowest of several looks "
        "lower than it is: the interval knows nothing of that choice."
    )
    return [Grid("Worst category [%]", ("", *comparison.methods), rows, (note,))] if rows else []


def _measures(rows: Sequence[ComparedRow]) -> list[str]:
    told = dict.fromkeys(row.measure for row in rows)
    names = {measure: ", ".join(row.name for row in rows if row.measure == measure) for measure in told}
    lines = [f"{names[measure]}: {measure}." for measure in told]
    unread = [f"{row.unread} of {row.name}" for row in rows if row.unread]
    lines += [f"Prompts left out, whose verdict could not be read: {', '.join(unread)}."] if unread else []
    untaken = [f"{row.untaken} of {row.name}" for row in rows if row.untaken]
    lines += [f"Prompts left out, which a server did not take: {', '.join(untaken)}."] if untaken else []
    filtered = [f"{row.filtered} of {row.name}" for row in rows if row.filtered]
    return lines + ([f"Prompts left out, filtered by a provider: {', '.join(filtered)}."] if filtered else [])


def _compared(row: ComparedRow, comparison: Comparison) -> Sequence[str]:
    cells = [_cell(row.cells.get(name), row.kind) for name in comparison.methods]
    return (row.name, str(row.n), *cells)


def score_text(cell: Cell | None, kind: str) -> str:
    """A score of a row of this kind and, below it, its interval."""
    if cell is None:
        return "-"
    scale, digits = _scale(kind)
    score = cell.score
    value = f"{scale * score.value:.{digits}f}{_spread(score, scale, digits)}"
    return f"{value}\n[{scale * score.low:.{digits}f}, {scale * score.high:.{digits}f}]"


def _scale(kind: str) -> tuple[int, int]:
    """By what scores are multiplied, and their decimals."""
    return (1, 2) if kind == "nats" else (100, 1)


def _cell(cell: Cell | None, kind: str) -> str:
    lines = [score_text(cell, kind)]
    if cell is None:
        return lines[0]
    scale, digits = _scale(kind)
    if cell.difference is not None:
        d = cell.difference
        lines.append(f"{scale * d.value:+.{digits}f} [{scale * d.low:+.{digits}f}, {scale * d.high:+.{digits}f}]")
    if cell.gained or cell.lost:
        lines.append(f"{len(cell.gained)} gained, {len(cell.lost)} lost")
    if cell.p_holm is not None:
        lines.append("p < 0.001" if cell.p_holm < 0.001 else f"p = {cell.p_holm:.3f}")
    return "\n".join(lines)


def _spread(score: Rate | Mean, scale: float, digits: int) -> str:
    std = getattr(score, "std", None)
    return "" if std is None else f" ± {scale * std:.{digits}f}"
