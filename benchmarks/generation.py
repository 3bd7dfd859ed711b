"""The generation engine against `model.generate` on batches of 25 prompts of like length, in turn in one process.

    python -m benchmarks.generation [--model starter] [--prompts 80] [--tokens 64] [--batch-size 25] [--repeats 2]

That is what the engine was: it now takes more rows at once, and those that end leave. Its time is that of what
`bdpo evaluate` does for its replies: hash of the weights, template, tokens, looking for replies kept, batches,
decoding, writing. The other's is that of the calls of `generate` alone. Both decode greedily, so the texts must be the
same; where they are not, it is said, and the exit code is 1.

The bound is what a step of a batch cannot be faster than: weights and cache read once at the rate at which memory is
read, and the products of its rows at the rate of one large product.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from bdpo import models
from bdpo.evaluate.ask.benchmarks import load_suite
from bdpo.evaluate.replies.collect import Prompts, Sampling, collect
from bdpo.evaluate.replies.generate import LocalGenerator
from bdpo.forward.allocator import keep_freed_memory
from bdpo.tokens import prompt_ids

Made = tuple[float, dict[str, tuple[int, str]]]  # seconds; of each prompt the reply's tokens and text


def main() -> int:
    """Run both in turn and print the table and the closing line."""
    args = _arguments()
    loaded = models.load(args.model, on_device=True)
    keep_freed_memory()  # the engine asks for it; the bare calls are not to go without
    items = [item for rows in load_suite("starter").items.values() for item in rows][: args.prompts]
    prompts = {f"{i} {item.id}": list(item.messages) for i, item in enumerate(items)}
    batches = bare_batches(loaded, prompts, args.batch_size)
    run_engine(loaded, dict(list(prompts.items())[:2]), Sampling(2))  # warm up
    runs = []
    for repeat in range(args.repeats):
        print(f"run {repeat + 1} of {args.repeats} ...", file=sys.stderr, flush=True)
        engine = run_engine(loaded, prompts, Sampling(args.tokens))
        runs.append((engine, run_bare(loaded, batches, args.tokens)))
    for rows in (args.batch_size, len(items)):
        memory, products = bound(loaded, rows, 60 + args.tokens // 2)
        print(f"bound of a step of {rows} replies: memory {1e3 * memory:.0f} ms, products {1e3 * products:.0f} ms")
    return report(runs, args, Console(width=110))


def run_engine(loaded: models.LoadedModel, prompts: Prompts, how: Sampling) -> Made:
    """Replies with a cache that is empty."""
    with tempfile.TemporaryDirectory() as folder:
        cache = os.environ.get("BDPO_CACHE")
        os.environ["BDPO_CACHE"] = folder
        try:
            start = time.perf_counter()
            replies = collect(
                LocalGenerator(loaded.model, loaded.tokenizer), prompts, how, os.path.join(folder, "replies.jsonl")
            )
            seconds = time.perf_counter() - start
        finally:
            os.environ.pop("BDPO_CACHE") if cache is None else os.environ.update(BDPO_CACHE=cache)
    return seconds, {id: (samples[0].tokens, samples[0].text) for id, samples in replies.items()}


def bare_batches(loaded: models.LoadedModel, prompts: Prompts, batch_size: int) -> list[tuple[list[str], Any]]:
    """Batches of prompts of like length, padded by the tokenizer, and whose they are."""
    ids = {id: prompt_ids(loaded.tokenizer, messages, id) for id, messages in prompts.items()}
    order = sorted(ids, key=lambda id: -len(ids[id]))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return [
        (
            batch,
            loaded.tokenizer.pad({"input_ids": [ids[id] for id in batch]}, padding_side="left", return_tensors="pt").to(
                loaded.model.device
            ),
        )
        for batch in batches
    ]


def run_bare(loaded: models.LoadedModel, batches: list[tuple[list[str], Any]], tokens: int) -> Made:
    """Replies of bare `generate` calls."""
    start = time.perf_counter()
    outputs = [loaded.model.generate(**batch, max_new_tokens=tokens, do_sample=False).cpu() for _, batch in batches]
    seconds = time.perf_counter() - start
    ends = loaded.model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    made = {}
    for (ids, batch), output in zip(batches, outputs, strict=True):
        for id, reply in zip(ids, output[:, batch["input_ids"].shape[1] :].tolist(), strict=True):
            length = next((i + 1 for i, token in enumerate(reply) if token in ends), len(reply))
            made[id] = (length, loaded.tokenizer.decode(reply[:length], skip_special_tokens=True))
    return seconds, made


def bound(loaded: models.LoadedModel, rows: int, length: int) -> tuple[float, float]:
    """Seconds that a step of `rows` replies of `length` tokens takes at least: (memory, products)."""
    config = loaded.model.config
    weights = sum(p.numel() * p.element_size() for p in loaded.model.parameters())
    heads, size = (
        config.num_key_value_heads,
        getattr(config, "head_dim", 0) or (config.hidden_size // config.num_attention_heads),
    )
    kept = 2 * config.num_hidden_layers * heads * size * loaded.model.dtype.itemsize * length * rows
    large = torch.ones(2**26)
    a, b = torch.ones(1024, 1024), torch.ones(1024, 1024)
    read = min(_seconds(large.sum) for _ in range(5)) / (large.numel() * 4)
    product = min(_seconds(lambda: a @ b) for _ in range(9)) / 2**31
    return (weights + kept) * read, 2 * sum(p.numel() for p in loaded.model.parameters()) * rows * product


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def report(runs: list[tuple[Made, Made]], args: argparse.Namespace, console: Console) -> int:
    """Print the table and the closing line; 1 where a reply differs."""
    console.print(
        f"{args.prompts} prompts x {args.tokens} tokens, {args.model}, greedy, bare in batches of {args.batch_size}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}", soft_wrap=True,
    )  # fmt: skip
    table = Table("run", "engine [s]", "bare [s]", "engine [replies/s]", "bare [replies/s]", "tokens", "same replies")
    same = [sum(made[id] == others[id] for id in made) for (_, made), (_, others) in runs]
    for number, (((engine, made), (bare, _)), alike) in enumerate(zip(runs, same, strict=True), start=1):
        table.add_row(
            str(number), f"{engine:.1f}", f"{bare:.1f}", f"{len(made) / engine:.2f}", f"{len(made) / bare:.2f}",
            str(sum(tokens for tokens, _ in made.values())), f"{alike} of {len(made)}",
        )  # fmt: skip
    console.print(table)
    ratio = statistics.median(bare / engine for (engine, _), (bare, _) in runs)
    seconds = statistics.median(engine for (engine, _), _ in runs)
    print(f"ratio replies/s median={ratio:.3f} seconds median={seconds:.1f}")
    if any(made != others for (_, made), (_, others) in runs):
        console.print("[bold red]Replies differ: this is not the same work.")
        return 1
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="starter")
    parser.add_argument("--prompts", type=int, default=80, help="of the starter suite's")
    parser.add_argument("--tokens", type=int, default=64, help="at most, a reply")
    parser.add_argument("--batch-size", type=int, default=25, help="of the bare calls")
    parser.add_argument("--repeats", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
