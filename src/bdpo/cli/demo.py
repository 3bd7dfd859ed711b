"""`bdpo demo`: the whole way on the embedded default, explained as it goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bdpo import models
from bdpo.cli.recipe import STARTER, copied_first
from bdpo.cli.tables import render_summary
from bdpo.evaluate.ask import AVERAGED
from bdpo.evaluate.evaluation import evaluate, local_models
from bdpo.evaluate.judges import make_judge
from bdpo.evaluate.plan import Plan, plan_tasks
from bdpo.evaluate.replies.collect import Sampling
from bdpo.evaluate.results.kind_table import kind_grids
from bdpo.evaluate.results.outcomes import Run, open_runs
from bdpo.pairs import check_pairs, load_pairs
from bdpo.recipe.data import read_data
from bdpo.recipe.parts import load_model
from bdpo.recipe.run import run_recipe
from bdpo.recipe.sections import parse_recipe
from bdpo.report.page import write_report
from bdpo.score import score
from bdpo.score.summary import summarise_scores
from bdpo.terminal import plain, say
from bdpo.train.shown import print_training

_RANKED = Plan("", pairs="starter", pairs_split="validation")
_ASKED = Plan("starter", limit=8, sampling=Sampling(max_new_tokens=48))  # of each kind; a quarter of a minute a model


def demo_recipe(pairs: int) -> dict[str, Any]:
    """The recipe of the demo, on a seeded draw of the starter data."""
    return {
        "model": {"name": "starter"},
        "data": {"train": "starter", "limit": pairs},
        "train": {
            "num_train_epochs": 1,
            "per_device_train_batch_size": 8,
            "per_device_eval_batch_size": 8,
            "learning_rate": 3e-4,
            "lr_scheduler_type": "cosine",
            "warmup_steps": 2,
            "logging_steps": 3,
            "save_strategy": "no",
        },
        "peft": {"r": 16, "lora_alpha": 32},
    }


def run_demo(out: Path, *, pairs: int, console: Console) -> Path:
    """Check, score, train and compare before with after; returns the run's folder."""
    out = _free(out)
    recipe = parse_recipe(demo_recipe(pairs), where="demo")
    _step(console, 1, f"Check the starter data ({models.STARTER_LABEL} is the model)")
    loaded = load_model(recipe)
    check_pairs(load_pairs("starter"), against=load_pairs("starter", split="validation"),
                tokenizer=loaded.tokenizer, max_length=recipe.data.max_length).render(console)  # fmt: skip
    _step(console, 2, f"Measure comprehension: one pass of the frozen model over {pairs} pairs")
    options = recipe.options().scoring(measure=True)
    scores = score(loaded.model, loaded.tokenizer, read_data(recipe).train, options=options)
    render_summary(summarise_scores(scores.rows, **recipe.options().balancing()), console)
    _step(console, 3, "Train with B-DPO (LoRA): the better understood reply of a pair pulls less")
    result = run_recipe(recipe, out)
    print_training(result.history, console)
    _step(console, 4, "Evaluate before and after, all held out: how pairs are ranked, and a few replies")
    show_change(("before", "starter"), ("after", str(out)), out / "evaluation", console)
    write_report([out], out / "report.html")
    say(
        console,
        f"\nThe run lies in {out}: the adapter, recipe.yaml, metrics.json and README.md, its model card."
        f"\nThe scores lie in {scores.path}; training again with another beta or loss reuses them."
        f"\nThe evaluation lies in {out / 'evaluation'}. Its pairs show what training changed; its few replies are for "
        "the eye, and no verdict: this shows the way, not a safer model. docs/evaluation.md has the larger evaluation. "
        "Next, on your own pairs:"
        "\n  bdpo data check YOUR_PAIRS.jsonl"
        f"\n  {copied_first()}bdpo train --config {STARTER} --set data.train=YOUR_PAIRS.jsonl --out runs/mine"
        f"\nAll of it on one page, for your browser: {out / 'report.html'}",
    )
    return out


def show_change(before: tuple[str, str], after: tuple[str, str], folder: Path, console: Console) -> None:
    """Evaluate two models, each a name and what it means; print preferences by kind and a few replies."""
    judge = make_judge("rules")
    tasks = [task for plan in (_RANKED, _ASKED) for task in plan_tasks(plan, judge)[0]]
    evaluate(local_models([before, after]), tasks, folder, judge)
    for grid in kind_grids(folder):
        grid.render(console)
    say(
        console,
        f"Look at the reward: in how many pairs did {after[0]} raise the chosen reply over the rejected one, measured "
        f"from {before[0]}? Chance is 50 % and a margin of 0; refusing more, and nothing else, raises one kind and "
        "lowers the other.",
    )
    console.print(sample_replies(*open_runs(folder)))


def sample_replies(before: Run, after: Run, *, each: int = 2) -> Table:
    """The first replies of each benchmark side by side, with what the judge made of them."""
    table = Table(title="Sample replies", title_justify="left", show_lines=True)
    for heading in ("prompt", "before", "after"):
        table.add_column(heading, ratio=1, overflow="fold")
    for task in [name for name, record in before.tasks.items() if record.suite in AVERAGED]:
        for old, new in list(zip(before.whole(task), after.whole(task), strict=True))[:each]:
            replies = (f"{outcome.reply.strip()}\n({outcome.verdict})" for outcome in (old, new))
            table.add_row(*map(plain, (old.request, *replies)))
    return table


def _free(out: Path) -> Path:
    """`out`, or the first of out-2, out-3 ... that is not taken."""
    candidates = [out, *(out.with_name(f"{out.name}-{n}") for n in range(2, 100))]
    return next(path for path in candidates if not path.exists())


def _step(console: Console, number: int, text: str) -> None:
    console.print()
    say(console, f"{number}. {text}", "bold")
