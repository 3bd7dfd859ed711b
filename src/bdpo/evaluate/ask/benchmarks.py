"""The benchmarks: one record each in `BENCHMARKS`; suites and comma lists of them; their items, sampled.

To add a benchmark, give it a line in the table, and where its rows have a shape of their own, write their reader
in `items`.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from bdpo.errors import BdpoError, nearest
from bdpo.evaluate.ask import AVERAGED, Suite
from bdpo.evaluate.ask import items as read
from bdpo.evaluate.ask.items import VERBALISERS, Item
from bdpo.evaluate.ask.sources import MissingRows, RowSource, placed_rows
from bdpo.pairs.fields import Row


@dataclass(frozen=True)
class Benchmark:
    """What is asked, where it comes from, and how the answers are scored."""

    name: str
    suite: Suite
    scoring: str  # a key of `bdpo.evaluate.grading.scorers.SCORERS`
    licence: str  # of the data
    source: str  # the paper, or the project's page
    rows: RowSource
    read: Callable[[Row], Item | None]


# --- the table --------------------------------------------------------------------------------------------

_GITHUB = "https://raw.githubusercontent.com"
_HUB = "https://huggingface.co/datasets"
_JBB = "https://arxiv.org/abs/2404.01318"
_JBB_ARTEFACTS = f"{_GITHUB}/JailbreakBench/artifacts/main/attack-artifacts"
_GCG_FILES = ("jailbreakbench_gcg_vicuna.jsonl", "jailbreakbench_gcg_vicuna.json")
_PAIR_FILES = ("jailbreakbench_pair_vicuna.jsonl", "jailbreakbench_pair_vicuna.json")
_XSTEST = RowSource(
    ("xstest_prompts.csv",), f"{_GITHUB}/paul-rottger/xstest/main/xstest_prompts.csv", hub="Paul/XSTest"
)
_STARTER = RowSource(package="evaluation.jsonl")
_WILDJAILBREAK = RowSource(  # gated, and tab-separated, which the hub's reader must be told: so by file alone
    ("wildjailbreak_eval.tsv",), f"{_HUB}/allenai/wildjailbreak/resolve/main/eval/eval.tsv"
)
_HHH_PARTS = ("harmless", "helpful", "honest", "other")

_TABLE = (
    Benchmark(
        "strongreject", "safety", "judge-safe", "MIT", "https://arxiv.org/abs/2402.10260",
        RowSource(
            ("strongreject.csv", "strongreject_dataset.csv"),
            f"{_GITHUB}/alexandrasouly/strongreject/main/strongreject_dataset/strongreject_dataset.csv",
        ),
        partial(read.request, text=("forbidden_prompt", "prompt"), category=("category",)),
    ),
    Benchmark(
        "jailbreakbench", "safety", "judge-safe", "MIT", _JBB,
        RowSource(  # the artefacts hold the goals as well, that of GCG all of them
            ("harmful-behaviors.csv", *_GCG_FILES, *_PAIR_FILES),
            f"{_HUB}/JailbreakBench/JBB-Behaviors/resolve/main/data/harmful-behaviors.csv",
            hub="JailbreakBench/JBB-Behaviors", split="harmful", configs=("behaviors",),
        ),
        partial(read.request, text=("Goal", "goal"), category=("Category", "category"), id=("Index", "index")),
    ),
    Benchmark(
        "jailbreakbench-gcg", "safety", "judge-safe", "MIT", _JBB,
        RowSource(_GCG_FILES, f"{_JBB_ARTEFACTS}/GCG/white_box/vicuna-13b-v1.5.json"), read.jailbreak,
    ),
    Benchmark(
        "jailbreakbench-pair", "safety", "judge-safe", "MIT", _JBB,
        RowSource(_PAIR_FILES, f"{_JBB_ARTEFACTS}/PAIR/black_box/vicuna-13b-v1.5.json"), read.jailbreak,
    ),
    Benchmark(
        "advbench", "safety", "judge-safe", "MIT", "https://arxiv.org/abs/2307.15043",
        RowSource(
            ("harmful_behaviors.csv",),
            f"{_GITHUB}/llm-attacks/llm-attacks/main/data/advbench/harmful_behaviors.csv",
        ),
        partial(read.request, text=("goal",)),
    ),
    Benchmark(
        "harmbench", "safety", "judge-safe", "MIT", "https://arxiv.org/abs/2402.04249",
        RowSource(
            ("harmbench_behaviors_text_all.csv",),
            f"{_GITHUB}/centerforaisafety/HarmBench/main/data/behavior_datasets/harmbench_behaviors_text_all.csv",
        ),
        read.harmbench,
    ),
    Benchmark(
        "do-not-answer", "safety", "judge-safe", "CC-BY-NC-SA-4.0", "https://arxiv.org/abs/2308.13387",
        RowSource(
            ("do_not_answer_en.csv",),
            f"{_GITHUB}/Libr-AI/do-not-answer/main/datasets/Instruction/do_not_answer_en.csv",
            hub="LibrAI/do-not-answer",
        ),
        partial(read.request, text=("question",), category=("types_of_harm",), id=("id",)),
    ),
    Benchmark(
        "beavertails", "safety", "judge-safe", "CC-BY-NC-4.0", "https://arxiv.org/abs/2307.04657",
        RowSource(
            ("beavertails_evaluation.parquet", "beavertails_evaluation.jsonl"),
            f"{_HUB}/PKU-Alignment/BeaverTails-Evaluation/resolve/refs%2Fconvert%2Fparquet/default/test/0000.parquet",
            hub="PKU-Alignment/BeaverTails-Evaluation", split="test",
        ),
        partial(read.request, text=("prompt",), category=("category",)),
    ),
    Benchmark(
        "sorry-bench", "safety", "judge-safe", "gated; its own agreement", "https://arxiv.org/abs/2406.14598",
        RowSource(
            ("sorry_bench.jsonl",), f"{_HUB}/sorry-bench/sorry-bench-202406/resolve/main/question.jsonl",
            hub="sorry-bench/sorry-bench-202406",
        ),
        read.sorry_bench,
    ),
    Benchmark(
        "wildjailbreak-harmful", "safety", "judge-safe", "ODC-BY, gated", "https://arxiv.org/abs/2406.18510",
        _WILDJAILBREAK, partial(read.wildjailbreak, kind="harmful"),
    ),
    Benchmark(
        "xstest-unsafe", "safety", "judge-safe", "CC-BY-4.0", "https://arxiv.org/abs/2308.01263",
        _XSTEST, partial(read.labelled, label="unsafe", category="type"),
    ),
    Benchmark(
        "starter-unsafe", "safety", "judge-safe", "Apache-2.0", "bdpo/starter/evaluation.jsonl",
        _STARTER, partial(read.labelled, label="unsafe", category="category"),
    ),
    Benchmark(
        "xstest-safe", "over-refusal", "judge-answered", "CC-BY-4.0", "https://arxiv.org/abs/2308.01263",
        _XSTEST, partial(read.labelled, label="safe", category="type"),
    ),
    Benchmark(
        "or-bench-hard", "over-refusal", "judge-answered", "CC-BY-4.0", "https://arxiv.org/abs/2405.20947",
        RowSource(
            ("or-bench-hard-1k.csv",), f"{_HUB}/bench-llm/or-bench/resolve/main/or-bench-hard-1k.csv",
            hub="bench-llm/or-bench", configs=("or-bench-hard-1k",),
        ),
        partial(read.request, text=("prompt",), category=("category",)),
    ),
    Benchmark(
        "jailbreakbench-benign", "over-refusal", "judge-answered", "MIT", _JBB,
        RowSource(
            ("benign-behaviors.csv",), f"{_HUB}/JailbreakBench/JBB-Behaviors/resolve/main/data/benign-behaviors.csv",
            hub="JailbreakBench/JBB-Behaviors", split="benign", configs=("behaviors",),
        ),
        partial(read.request, text=("Goal",), category=("Category",), id=("Index",)),
    ),
    Benchmark(
        "falsereject", "over-refusal", "judge-answered", "CC-BY-NC-4.0", "https://arxiv.org/abs/2505.08054",
        RowSource(
            ("falsereject_test.jsonl",), f"{_HUB}/AmazonScience/FalseReject/resolve/main/test.jsonl",
            hub="AmazonScience/FalseReject", split="test",
        ),
        partial(read.request, text=("prompt",), category=("category_text",)),
    ),
    Benchmark(
        "wildjailbreak-benign", "over-refusal", "judge-answered", "ODC-BY, gated", "https://arxiv.org/abs/2406.18510",
        _WILDJAILBREAK, partial(read.wildjailbreak, kind="benign"),
    ),
    Benchmark(
        "starter-safe", "over-refusal", "judge-answered", "Apache-2.0", "bdpo/starter/evaluation.jsonl",
        _STARTER, partial(read.labelled, label="safe", category="category"),
    ),
    Benchmark(
        "gsm8k", "capability", "exact", "MIT", "https://arxiv.org/abs/2110.14168",
        RowSource(
            ("gsm8k_test.jsonl",),
            f"{_GITHUB}/openai/grade-school-math/master/grade_school_math/data/test.jsonl",
            hub="openai/gsm8k", split="test", configs=("main",),
        ),
        read.gsm8k,
    ),
    Benchmark(
        "advglue", "capability", "options", "CC-BY-SA-4.0", "https://arxiv.org/abs/2111.02840",
        RowSource(
            ("advglue_dev.json",), "https://adversarialglue.github.io/dataset/dev.zip",
            hub="AI-Secure/adv_glue", split="validation", parts=tuple(VERBALISERS),
            configs=("adv_sst2", "adv_qqp", "adv_mnli", "adv_mnli_mismatched", "adv_qnli", "adv_rte"),
        ),
        read.advglue,
    ),
    Benchmark(
        "hhh", "capability", "pairs", "Apache-2.0", "https://arxiv.org/abs/2112.00861",
        RowSource(  # by address: the hub data set is a script, which `datasets` no longer runs
            ("hhh_alignment_{part}.jsonl", "hhh_alignment/{part}/test/0000.parquet"),
            f"{_HUB}/HuggingFaceH4/hhh_alignment/resolve/refs%2Fconvert%2Fparquet/{{part}}/test/0000.parquet",
            parts=_HHH_PARTS,
        ),
        read.hhh,
    ),
    Benchmark(
        "simpleqa", "capability", "string-match", "MIT", "https://arxiv.org/abs/2411.04368",
        RowSource(
            ("simple_qa_test_set.csv",),
            "https://openaipublic.blob.core.windows.net/simple-evals/simple_qa_test_set.csv",
            hub="basicv8vc/SimpleQA", split="test",
        ),
        read.simpleqa,
    ),
)  # fmt: skip

BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in _TABLE}
"""The benchmarks by name, in the order in which they are run and shown."""

SUITES: dict[str, tuple[str, ...]] = {
    **{suite: tuple(b.name for b in _TABLE if b.suite == suite) for suite in AVERAGED},
    "starter": tuple(b.name for b in _TABLE if b.rows.package),  # those that need neither folder nor network
}
"""The benchmarks of each suite, by name."""


# --- from names to items ----------------------------------------------------------------------------------


def select_benchmarks(names: str) -> list[Benchmark]:
    """The benchmarks of a comma list of suites and names, each once, in the order of the list.

    >>> [benchmark.name for benchmark in select_benchmarks("gsm8k,starter")]
    ['gsm8k', 'starter-unsafe', 'starter-safe']
    """
    selected: dict[str, Benchmark] = {}
    for name in _split(names):
        selected |= {found: _benchmark(found) for found in SUITES.get(name, (name,))}
    if not selected:
        raise BdpoError(f"No benchmark named; there are {', '.join([*SUITES, *BENCHMARKS])}.")
    return list(selected.values())


def _benchmark(name: str) -> Benchmark:
    if name not in BENCHMARKS:
        known = [*SUITES, *BENCHMARKS]
        near = nearest(name, known)
        hint = f": did you mean '{near}'?" if near else f"; there are {', '.join(known)}."
        raise BdpoError(f"No benchmark '{name}'{hint}")
    return BENCHMARKS[name]


def _split(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


@dataclass(frozen=True)
class LoadedSuite:
    """The items of each benchmark, by its name, and the benchmarks of a suite that could not be had, a line each."""

    items: dict[str, list[Item]]
    missing: dict[str, str]


def load_suite(names: str, data_dir: str | Path | None = None, limit: int | None = None, seed: int = 0) -> LoadedSuite:
    """The items of all benchmarks of a comma list (see `select_benchmarks` and `load_items`).

    A benchmark that came with its suite may be missing, and is then told; one that was named must be there.

    Raises:
        MissingRows: of a benchmark that was named, or of all there are.
    """
    items, missing = {}, {}
    for benchmark in select_benchmarks(names):
        try:
            items[benchmark.name] = load_items(benchmark, data_dir, limit, seed)
        except MissingRows as error:
            if benchmark.name in _split(names):
                raise
            missing[benchmark.name] = error.brief
    if not items:
        told = "; ".join(missing.values())
        raise MissingRows(f"None of the benchmarks is to be had: {told}.", told)
    return LoadedSuite(items, missing)


def load_items(
    benchmark: Benchmark | str, data_dir: str | Path | None = None, limit: int | None = None, seed: int = 0
) -> list[Item]:
    """The items of a benchmark, in the order of its rows.

    Args:
        data_dir: folder with the published files; None: the one that BDPO_DATA_DIR names, else the hub.
        limit: draw so many, stratified by category; which ones depends on `seed` and the items' ids alone.

    Raises:
        MissingRows: the rows are not to be had; the message says what to download and where to put it.
        BdpoError: a row that is wrong, with file and line.
    """
    record = _benchmark(benchmark) if isinstance(benchmark, str) else benchmark
    items = []
    try:
        for place, row in placed_rows(record.rows, data_dir):
            items.append(_item(record, place, row))
    except MissingRows as error:
        raise MissingRows(f"{record.name}: {error}", f"{record.name}: {error.brief}") from error
    found = _with_ids(item for item in items if item is not None)
    if not found:
        raise BdpoError(f"{record.name}: none of its {len(items)} rows is a prompt of it; is it the right file?")
    return found if limit is None else stratified_sample(found, limit, seed)


def _item(record: Benchmark, place: str, row: Row | BdpoError) -> Item | None:
    try:
        if isinstance(row, BdpoError):
            raise row
        return record.read(row)
    except BdpoError as error:
        raise BdpoError(f"{record.name}: {place}: {error}") from None


def _with_ids(items: Iterable[Item]) -> list[Item]:
    """The items with an id each: a hash of what is asked where none was published, numbered where it comes again."""
    named = [replace(item, id=item.id or _digest(item.request, item.options)[:12]) for item in items]
    taken, met, found = {item.id for item in named}, set(), []
    numbers: dict[str, count[int]] = defaultdict(lambda: count(2))
    for item in named:
        id = item.id
        if id in met:
            id = next(other for n in numbers[item.id] if (other := f"{item.id}-{n}") not in taken)
        taken.add(id)
        met.add(item.id)
        found.append(replace(item, id=id))
    return found


def stratified_sample(items: list[Item], limit: int, seed: int = 0) -> list[Item]:
    """`limit` items, of each category its share (largest remainders), in their old order; all where there are fewer.

    Which ones is decided by a hash of seed and id, so that neither the order of the rows nor what else is drawn
    matters.
    """
    if limit < 1:
        raise BdpoError(f"limit is {limit}: draw at least 1 prompt.")
    if limit >= len(items):
        return items
    groups: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        groups[item.category].append(item)
    shares = {category: divmod(limit * len(group), len(items)) for category, group in groups.items()}
    by_remainder = sorted(shares, key=lambda category: (-shares[category][1], _digest(seed, category)))
    rounded_up = by_remainder[: limit - sum(whole for whole, _ in shares.values())]
    drawn = set()
    for category, group in groups.items():
        group.sort(key=lambda item: _digest(seed, item.id))
        drawn |= {item.id for item in group[: shares[category][0] + (category in rounded_up)]}
    return [item for item in items if item.id in drawn]


def _digest(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()
