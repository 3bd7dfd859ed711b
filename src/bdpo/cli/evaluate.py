"""The commands of stage 3: evaluate, compare, judge-agreement. Parses, calls, prints."""

from __future__ import annotations

import json
import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bdpo.terminal import say

EPILOG = "Errors are one sentence and exit code 2; add --debug anywhere for the traceback."
evaluate_app = typer.Typer()


class JudgeName(StrEnum):
    """The judges there are."""

    RULES = "rules"
    CLASSIFIER = "classifier"
    LLM = "llm"


Judge = Annotated[JudgeName, typer.Option(help="Who says what a reply does; docs/judges.md.")]
JudgeModel = Annotated[str | None, typer.Option(help="Model of the classifier or llm judge: a folder or a name.")]
JudgeEndpoint = Annotated[str | None, typer.Option(help="OpenAI-compatible URL at which the llm judge answers.")]


@evaluate_app.command(epilog=EPILOG)
def evaluate(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]MODEL...", help="Models by name, folder, adapter or hub name; one NAME for several: seeds."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the results; run again to go on, or to add models.")],
    suite: Annotated[
        str, typer.Option(help="safety, over-refusal, capability, starter, or benchmarks; several with commas.")
    ] = "starter",
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder with the published files; BDPO_DATA_DIR, else the hub.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Prompts of each benchmark, drawn by category.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draw, the transforms and the sampling.")] = 0,
    transform: Annotated[str, typer.Option(help="Ask in other wordings: base64, gcg-suffix, ...; with commas.")] = "",
    pairs: Annotated[str | None, typer.Option(help="Preference data: which replies the model ranks higher.")] = None,
    pairs_split: Annotated[str | None, typer.Option(help="Split of --pairs, such as test or validation.")] = None,
    prefer: Annotated[
        str | None, typer.Option(help="--pairs is PKU-SafeRLHF: safety-protocol, safer or helpful.")
    ] = None,
    lm_eval: Annotated[str, typer.Option("--lm-eval", help="Tasks of lm-evaluation-harness; with commas.")] = "",
    judge: Judge = JudgeName.RULES,
    judge_model: JudgeModel = None,
    judge_endpoint: JudgeEndpoint = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest reply, in tokens.")] = 256,
    temperature: Annotated[float, typer.Option(help="0: greedy.")] = 0.0,
    samples: Annotated[int, typer.Option(help="Replies a prompt; several need a temperature.")] = 1,
    batch_size: Annotated[int, typer.Option(help="Replies at once; halved where they do not fit.")] = 25,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16, or auto: as it is stored.")] = "float32",
    endpoint: Annotated[
        str | None, typer.Option(help="OpenAI-compatible URL that serves the models, such as vLLM's.")
    ] = None,
) -> None:
    """Ask models the prompts of benchmarks, and judge their replies (stage 3).

    Safety, over-refusal, capability, each rate with its interval. A stopped evaluation goes on where it was; asking
    the same again costs nothing. Then: bdpo compare DIR.
    """
    from rich.console import Console

    from bdpo.errors import BdpoError
    from bdpo.evaluate.evaluation import (
        Plan,
        endpoint_models,
        local_models,
        named_models,
        plan_tasks,
    )
    from bdpo.evaluate.evaluation import (
        evaluate as run_evaluation,
    )
    from bdpo.evaluate.judges import make_judge
    from bdpo.evaluate.lm_eval import Harness
    from bdpo.evaluate.replies import Sampling
    from bdpo.evaluate.tables import evaluation_grids

    console = Console()
    named = named_models(models)
    sampling = Sampling(max_new_tokens, temperature=temperature, samples=samples, seed=seed)
    if lm_eval and endpoint:
        raise BdpoError("--lm-eval needs the model itself, which an endpoint does not give: leave out one of the two.")
    harness = Harness(_split(lm_eval), limit, batch_size) if lm_eval else None
    judged_by = make_judge(judge.value, model=judge_model, endpoint=judge_endpoint)
    plan = Plan(suite, data_dir, limit, seed, _split(transform), pairs, pairs_split, prefer, sampling)
    tasks, missing = plan_tasks(plan, judged_by, logps=endpoint is None)
    for why in missing.values():
        say(console, f"Left out: {why}")
    if endpoint is None:
        subjects = local_models(named, dtype=dtype, batch_size=batch_size)
    else:
        subjects = endpoint_models(named, endpoint)
    for grid in evaluation_grids(run_evaluation(subjects, tasks, out, judged_by, harness)):
        grid.render(console)
    say(console, f"Results: {out}. Next: bdpo compare {shlex.quote(str(out))}")


@evaluate_app.command(epilog=EPILOG)
def compare(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders of bdpo evaluate.")],
    baseline: Annotated[str | None, typer.Option(help="NAME that the others are compared with; the first one.")] = None,
    weights: Annotated[
        str, typer.Option(help="Of the suites in the overall average: safety=2,over-refusal=1,... ; all the same.")
    ] = "",
    out: Annotated[Path | None, typer.Option(help="Folder of compare.json and compare.md; the first DIR.")] = None,
) -> None:
    """Compare models on the same prompts: rates, averages, differences with intervals and p values.

    Refuses runs whose prompts, judge or generation settings differ.
    """
    from rich.console import Console

    from bdpo.evaluate.compare import compare as compared
    from bdpo.evaluate.compare import parse_weights
    from bdpo.evaluate.tables import comparison_grids
    from bdpo.files import write_json, write_whole

    comparison = compared(folders, baseline=baseline, weights=parse_weights(weights))
    grids, console = comparison_grids(comparison), Console()
    for grid in grids:
        grid.render(console)
    out = out or folders[0]
    write_json(out / "compare.json", comparison.to_dict())
    write_whole(out / "compare.md", ("# Comparison\n\n" + "\n".join(grid.markdown() for grid in grids)).encode())
    say(console, f"Written: {out / 'compare.json'} and compare.md.")


@evaluate_app.command("judge-agreement", epilog=EPILOG)
def judge_agreement(
    file: Annotated[Path, typer.Argument(help="Labelled replies: a CSV, JSONL or Parquet with prompt, reply, label.")],
    judge: Judge = JudgeName.RULES,
    judge_model: JudgeModel = None,
    judge_endpoint: JudgeEndpoint = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Compare a judge's verdicts with labels given by hand: accuracy, Cohen's kappa, confusion table."""
    from rich.console import Console

    from bdpo.evaluate.agreement import agreement
    from bdpo.evaluate.judges import make_judge

    found = agreement(file, make_judge(judge.value, model=judge_model, endpoint=judge_endpoint))
    if as_json:
        print(json.dumps(found.to_dict(), indent=2))
    else:
        found.render(Console())


def _split(names: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in names.split(",") if name.strip())
