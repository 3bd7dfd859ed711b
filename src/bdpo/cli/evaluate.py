"""The commands of stage 3: evaluate, compare, judge-agreement. Parses, calls, prints."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bdpo.cli.usage import Commands
from bdpo.terminal import plain, reading, say

if TYPE_CHECKING:
    from bdpo.evaluate.evaluation import Subject

EPILOG = "Errors are one sentence and exit code 2; add --debug anywhere for the traceback."
evaluate_app = Commands()


def _trust(trusted: bool) -> None:
    from bdpo.models.remote_code import trust_remote_code

    trust_remote_code(trusted)


TrustRemoteCode = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        help="Run Python code that comes with a model; read it first.",
        callback=_trust,
    ),
]


Judge = Annotated[str, typer.Option(help="Who says what a reply does, by a name of docs/judges.md.")]
JudgeModel = Annotated[str | None, typer.Option(help="Model of a judge that is one: a folder or a name.")]
JudgeEndpoint = Annotated[
    str | None, typer.Option(help="OpenAI-compatible URL of the judge's model; its key in OPENAI_API_KEY.")
]
Models = Annotated[
    list[str],
    typer.Argument(
        metavar="[NAME=]MODEL", help="Models by name, folder, adapter or hub name; one NAME for several: seeds."
    ),
]
Out = Annotated[Path, typer.Option(help="Folder of the results; run again to go on, or to add models.")]
Suite = Annotated[
    str, typer.Option(help="Suites or benchmarks by name, as docs/evaluation.md lists them; several with commas.")
]
DataDir = Annotated[Path | None, typer.Option(help="Folder with the published files; BDPO_DATA_DIR, else the hub.")]
Limit = Annotated[int | None, typer.Option(help="Prompts of each benchmark, drawn by category.")]
Seed = Annotated[int, typer.Option(help="Seed of the draw, the transforms and the sampling.")]
Transform = Annotated[str, typer.Option(help="Ask in other wordings: base64, gcg-suffix, ...; with commas.")]
Pairs = Annotated[str | None, typer.Option(help="Preference data: which replies the model ranks higher.")]
PairsSplit = Annotated[str | None, typer.Option(help="Split of --pairs, such as test or validation.")]
PairsKind = Annotated[str | None, typer.Option(help="Column of --pairs that says unsafe or harmless.")]
Prefer = Annotated[str | None, typer.Option(help="--pairs is PKU-SafeRLHF: safety-protocol, safer or helpful.")]
LmEval = Annotated[str, typer.Option("--lm-eval", help="Tasks of lm-evaluation-harness; with commas.")]
MaxNewTokens = Annotated[int, typer.Option(help="Longest reply, in tokens.")]
Temperature = Annotated[float, typer.Option(help="0: greedy.")]
TopP = Annotated[float, typer.Option(help="Nucleus sampling; 1 leaves the distribution whole.")]
Samples = Annotated[int, typer.Option(help="Replies a prompt; several need a temperature.")]
BatchSize = Annotated[
    int | None, typer.Option(help="Replies at once, halved where they do not fit; left out: by their length.")
]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16, float16, or auto: as it is stored.")]
DeviceMap = Annotated[
    str | None, typer.Option(help="Spread a model over GPUs, CPU and disk: auto, balanced or sequential.")
]
Endpoint = Annotated[
    str | None, typer.Option(help="OpenAI-compatible URL that serves the models, such as vLLM's; key: OPENAI_API_KEY.")
]
ChatTemplate = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Jinja file in place of the models' chat templates.")
]
ChatTemplateKwargs = Annotated[
    str, typer.Option(metavar="JSON", help="Variables of the chat template: '{\"enable_thinking\": false}'.")
]
FilteredIsSafe = Annotated[
    bool,
    typer.Option("--filtered-is-safe", help="Count what a provider's filter takes as refused; else it is not counted."),
]
Workers = Annotated[int, typer.Option(min=1, help="Requests at once to an endpoint.")]


@evaluate_app.command(epilog=EPILOG)
def evaluate(
    models: Models, out: Out, suite: Suite = "starter", data_dir: DataDir = None, limit: Limit = None, seed: Seed = 0,
    transform: Transform = "", pairs: Pairs = None, pairs_split: PairsSplit = None, pairs_kind: PairsKind = None,
    prefer: Prefer = None, lm_eval: LmEval = "", judge: Judge = "rules", judge_model: JudgeModel = None,
    judge_endpoint: JudgeEndpoint = None, max_new_tokens: MaxNewTokens = 256, temperature: Temperature = 0.0,
    top_p: TopP = 1.0, samples: Samples = 1, batch_size: BatchSize = None, dtype: Dtype = "float32",
    device_map: DeviceMap = None, endpoint: Endpoint = None, workers: Workers = 16,
    chat_template: ChatTemplate = None, chat_template_kwargs: ChatTemplateKwargs = "{}",
    filtered_is_safe: FilteredIsSafe = False, trust_remote_code: TrustRemoteCode = False,
) -> None:  # fmt: skip
    """Ask models the prompts of benchmarks, and judge their replies (stage 3).

    Safety, over-refusal, capability, each rate with its interval. A stopped evaluation goes on where it was; asking
    the same again costs nothing. Then: bdpo compare DIR.
    """
    from bdpo.evaluate.named import named_models
    from bdpo.models.names import local_folder

    named = named_models(models)
    for _, model in named if endpoint is None else ():
        local_folder(model)  # before anything is loaded

    from rich.console import Console

    from bdpo.errors import BdpoError
    from bdpo.evaluate import evaluation
    from bdpo.evaluate.grading.lm_eval import Harness
    from bdpo.evaluate.judges import make_judge
    from bdpo.evaluate.plan import Plan, plan_tasks
    from bdpo.evaluate.replies.collect import Sampling
    from bdpo.evaluate.results.kind_table import kind_grids
    from bdpo.evaluate.results.tables import evaluation_grids

    console = Console()
    sampling = Sampling(max_new_tokens, temperature, top_p, samples, seed)
    variables = _template_variables(chat_template_kwargs)
    if lm_eval and endpoint:
        raise BdpoError("--lm-eval needs the model itself, which an endpoint does not give: leave out one of the two.")
    harness = Harness(_split(lm_eval), limit, batch_size or 25) if lm_eval else None
    subjects = _subjects(
        named, endpoint, chat_template, variables, workers, dtype=dtype, batch_size=batch_size, device_map=device_map
    )
    reading(", ".join(filter(None, (suite, pairs))), torch=endpoint is None)
    judged_by = make_judge(judge, model=judge_model, endpoint=judge_endpoint, workers=workers)
    plan = Plan(
        suite, data_dir, limit, seed, _split(transform), pairs, pairs_split, pairs_kind, prefer, sampling,
        filtered_is_safe,
    )  # fmt: skip
    tasks, missing = plan_tasks(plan, judged_by, logps=endpoint is None)
    for why in missing.values():
        say(console, f"Left out: {why}")
    for grid in evaluation_grids(evaluation.evaluate(subjects, tasks, out, judged_by, harness)):
        grid.render(console)
    for grid in kind_grids(out):
        grid.render(console)
    say(console, f"Results: {out}. Next: bdpo compare {shlex.quote(str(out))}")


@evaluate_app.command(epilog=EPILOG)
def compare(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR", help="Folders of bdpo evaluate.")],
    baseline: Annotated[str | None, typer.Option(help="NAME that the others are compared with; the first one.")] = None,
    weights: Annotated[
        str, typer.Option(help="Of the suites in the overall average: safety=2,over-refusal=1,... ; all the same.")
    ] = "",
    out: Annotated[Path | None, typer.Option(help="Folder of compare.json and compare.md; the first DIR.")] = None,
    show: Annotated[
        Literal["flips"] | None, typer.Option(help="Also print flips: prompts gained and lost, with both replies.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Flips of each benchmark and method, gained and lost each.")] = 5,
    curve: Annotated[
        bool, typer.Option("--curve", help="Also methods as curves over settings: refusals at equal answers.")
    ] = False,
) -> None:
    """Compare models on the same prompts: rates, averages, differences with intervals and p values, a verdict.

    Refuses runs whose prompts, judge or generation settings differ.
    """
    from rich.console import Console

    from bdpo.evaluate.results.compare import compare as compared
    from bdpo.evaluate.results.compare import methods_of
    from bdpo.evaluate.results.tables import comparison_grids, worst_grids
    from bdpo.evaluate.results.weights import parse_weights
    from bdpo.files import write_json, write_whole
    from bdpo.report.evaluated import OVER_REFUSAL, PREFERENCES, SAFETY, Evaluated
    from bdpo.report.verdict import verdict

    comparison = compared(folders, baseline=baseline, weights=parse_weights(weights))
    methods = methods_of(folders)
    grids, console = comparison_grids(comparison) + worst_grids(comparison), Console()
    more: dict[str, Any] = {}
    if curve:
        from bdpo.evaluate.results.curve_table import compared_curves, curve_grid

        curves = compared_curves(methods, baseline)
        grids, more = [*grids, curve_grid(curves)], curves.to_dict()
    for grid in grids:
        grid.render(console)
    if show:
        from bdpo.cli.tables import render_flips
        from bdpo.evaluate.results.flips import flips

        render_flips(flips(comparison, methods, top), comparison.baseline, console)
    found = Evaluated(folders, comparison, methods)
    asked = {SAFETY, OVER_REFUSAL, PREFERENCES} & {row.suite for row in comparison.rows}
    verdicts = {method: verdict(found.evidence(method)).sentence for method in found.others if asked}
    told = [f"{method}: {sentence}" for method, sentence in verdicts.items()]
    out = out or folders[0]
    write_json(out / "compare.json", comparison.to_dict() | {"verdicts": verdicts} | more)
    text = "\n".join([*(grid.markdown() for grid in grids), *(f"{line}\n" for line in told)])
    write_whole(out / "compare.md", f"# Comparison\n\n{text}".encode())
    say(console, f"Written: {out / 'compare.json'} and compare.md.")
    for line in told:
        console.print(plain(line))


@evaluate_app.command("judge-agreement", epilog=EPILOG)
def judge_agreement(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Labelled replies: a CSV, JSONL or Parquet with prompt, reply, label."),
    ],
    judge: Judge = "rules",
    judge_model: JudgeModel = None,
    judge_endpoint: JudgeEndpoint = None,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Compare a judge's verdicts with labels given by hand: accuracy, Cohen's kappa, confusion table."""
    from rich.console import Console

    from bdpo.evaluate.judges import make_judge
    from bdpo.evaluate.judges.agreement import agreement

    found = agreement(file, make_judge(judge, model=judge_model, endpoint=judge_endpoint))
    if as_json:
        print(json.dumps(found.to_dict(), indent=2))
    else:
        found.render(Console())


def _subjects(
    named: list[tuple[str, str]], endpoint: str | None, chat_template: Path | None, variables: dict[str, Any],
    workers: int, **local: Any,
) -> Iterable[Subject]:  # fmt: skip
    """The models, behind an endpoint or to be loaded here in turn."""
    from bdpo.errors import BdpoError
    from bdpo.evaluate.evaluation import endpoint_models, local_models

    if endpoint is not None:
        if chat_template is not None:
            raise BdpoError("--chat-template is for models loaded here: start the server of --endpoint with it.")
        return endpoint_models(named, endpoint, workers=workers, template_variables=variables)
    template = _text_of(chat_template, "--chat-template")
    return local_models(named, chat_template=template, template_variables=variables, **local)


def _template_variables(text: str) -> dict[str, Any]:
    """The object of --chat-template-kwargs."""
    from bdpo.errors import BdpoError
    from bdpo.secrets import refuse_secrets

    try:
        variables = json.loads(text)
    except (ValueError, RecursionError):
        variables = None
    if not isinstance(variables, dict):
        raise BdpoError(
            f"--chat-template-kwargs: '{text}' is no JSON object; write it like '{{\"enable_thinking\": false}}'."
        )
    refuse_secrets(variables, "--chat-template-kwargs")
    return variables


def _text_of(path: Path | None, option: str) -> str | None:
    from bdpo.errors import BdpoError
    from bdpo.files import read_bytes

    try:
        return None if path is None else read_bytes(path).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise BdpoError(f"{option}: {path} cannot be read ({getattr(error, 'strerror', None) or error}).") from error


def _split(names: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in names.split(",") if name.strip())
