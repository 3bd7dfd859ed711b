"""The generation engine against a bare `model.generate` on the same batches, in one process, in turn (A B A B).

    python -m benchmarks.generation [--model starter] [--prompts 75] [--tokens 64] [--batch-size 25] [--repeats 2]

The engine's time is that of what `bdpo evaluate` does for its replies: hash of the weights, template, tokens, looking
for replies kept, batches, decoding, writing. The bare one's is that of the calls of `generate` alone, on batches made
before. Both decode greedily, so the token counts must agree; where they do not, it is said, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
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


def main() -> int:
    """Run both in turn and print the table and the closing line."""
    args = _arguments()
    loaded = models.load(args.model, on_device=True)
    keep_freed_memory()  # the engine asks for it; the bare calls are not to go without
    items = [item for rows in load_suite("starter").items.values() for item in rows][: args.prompts]
    prompts = {f"{i} {item.id}": list(item.messages) for i, item in enumerate(items)}
    batches = bare_batches(loaded, prompts, args.batch_size)
    run_engine(loaded, dict(list(prompts.items())[:2]), Sampling(2), args.batch_size)  # warm up
    runs = []
    for repeat in range(args.repeats):
        print(f"run {repeat + 1} of {args.repeats} ...", file=sys.stderr, flush=True)
        engine = run_engine(loaded, prompts, Sampling(args.tokens), args.batch_size)
        runs.append((engine, run_bare(loaded, batches, args.tokens)))
    return report(runs, args, Console(width=100))


def run_engine(loaded: models.LoadedModel, prompts: Prompts, how: Sampling, batch_size: int) -> tuple[float, int]:
    """Seconds and generated tokens, with a cache that is empty."""
    with tempfile.TemporaryDirectory() as folder:
        cache = os.environ.get("BDPO_CACHE")
        os.environ["BDPO_CACHE"] = folder
        try:
            start = time.perf_counter()
            generator = LocalGenerator(loaded.model, loaded.tokenizer, batch_size)
            replies = collect(generator, prompts, how, os.path.join(folder, "replies.jsonl"))
            seconds = time.perf_counter() - start
        finally:
            os.environ.pop("BDPO_CACHE") if cache is None else os.environ.update(BDPO_CACHE=cache)
    return seconds, sum(reply.tokens for samples in replies.values() for reply in samples)


def bare_batches(loaded: models.LoadedModel, prompts: Prompts, batch_size: int) -> list[Any]:
    """The batches as the engine makes them, padded by the tokenizer."""
    ids = [prompt_ids(loaded.tokenizer, messages, id) for id, messages in prompts.items()]
    ids.sort(key=lambda row: -len(row))
    return [
        loaded.tokenizer.pad(
            {"input_ids": ids[start : start + batch_size]}, padding_side="left", return_tensors="pt"
        ).to(loaded.model.device)
        for start in range(0, len(ids), batch_size)
    ]


def run_bare(loaded: models.LoadedModel, batches: list[Any], tokens: int) -> tuple[float, int]:
    """Seconds of bare `generate` calls, and generated tokens."""
    start = time.perf_counter()
    made = [loaded.model.generate(**batch, max_new_tokens=tokens, do_sample=False) for batch in batches]
    made = [output.cpu() for output in made]
    seconds = time.perf_counter() - start
    end = torch.tensor(loaded.model.generation_config.eos_token_id)
    replies = [output[:, batch["input_ids"].shape[1] :] for output, batch in zip(made, batches, strict=True)]
    ends = [torch.isin(reply, end).long() for reply in replies]
    return seconds, sum(int((end.cumsum(-1) - end == 0).sum()) for end in ends)  # up to and with the first end


def report(runs: list[tuple[tuple[float, int], tuple[float, int]]], args: argparse.Namespace, console: Console) -> int:
    """Print the table and the closing line; 1 where the token counts differ."""
    console.print(
        f"{args.prompts} prompts x {args.tokens} tokens, {args.model}, batch {args.batch_size}, greedy, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    table = Table("run", "engine [s]", "bare [s]", "engine [tokens/s]", "bare [tokens/s]", "tokens")
    for number, ((engine, tokens), (bare, bare_tokens)) in enumerate(runs, start=1):
        table.add_row(
            str(number), f"{engine:.1f}", f"{bare:.1f}", f"{tokens / engine:.1f}", f"{bare_tokens / bare:.1f}",
            f"{tokens} / {bare_tokens}",
        )  # fmt: skip
    console.print(table)
    ratio = statistics.median((tokens / engine) / (others / bare) for (engine, tokens), (bare, others) in runs)
    seconds = statistics.median(engine for (engine, _), _ in runs)
    print(f"ratio tokens/s median={ratio:.3f} seconds median={seconds:.1f}")
    if any(tokens != others for (_, tokens), (_, others) in runs):
        console.print("[bold red]The token counts differ: this is not the same work.")
        return 1
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="starter")
    parser.add_argument("--prompts", type=int, default=75, help="of the starter suite's")
    parser.add_argument("--tokens", type=int, default=64, help="at most, a reply")
    parser.add_argument("--batch-size", type=int, default=25)
    parser.add_argument("--repeats", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
