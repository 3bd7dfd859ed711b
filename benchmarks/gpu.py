"""bdpo against TRL on one GPU: random weights, bfloat16, by prompt length, width of the LM head, and what is trained.

    python -m benchmarks.gpu --model llama-1b                     also llama-3b, qwen2-1.5b
    python -m benchmarks.gpu --device cpu --model tiny --pairs 4  that the command works, on a CPU

Each cell is one run of either in a fresh process, as `benchmarks.vs_trl` makes them: replies of 64 tokens, TRL with its
online reference. What would begin after `--minutes` is left out, and said. Goals: pairs/s at least 1.5 times TRL's, and
2 times for prompts of 2,048 tokens; memory at most 0.6; half of the matmul rate in a training step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import product
from typing import Any

PROMPTS = (128, 512, 2048)  # tokens
VOCABULARIES = (49152, 151936)  # the first is what the tokenizer of the pairs has
REPLY = 64
BATCH_TOKENS = 8192  # of a step, each pair counted with its prompt once

Cell = tuple[int, int, bool]  # tokens of the prompt, width of the head, whether all weights are trained


def main() -> int:
    """Measure the cells and print the table; 1 where losses differ."""
    args = _arguments()
    begun = time.perf_counter()
    measured: dict[Cell, dict[str, dict[str, Any]]] = {}
    left_out = []
    for cell in cells():
        if time.perf_counter() - begun > 60 * args.minutes:
            left_out.append(cell)
            continue
        print(f"{cell} ...", file=sys.stderr, flush=True)
        measured[cell] = {name: _in_fresh_process(command(cell, args), name) for name in ("bdpo", "trl")}
    print(report(measured, left_out, args.model))
    return 0 if all(_agree(runs) for runs in measured.values()) else 1


def cells() -> Iterator[Cell]:
    """LoRA first, short prompts before long ones."""
    for full, vocabulary, prompt in product((False, True), VOCABULARIES, PROMPTS):
        yield prompt, vocabulary, full


def command(cell: Cell, args: argparse.Namespace) -> list[str]:
    """How `benchmarks.vs_trl` is asked for a cell: eight steps, of as many pairs as `BATCH_TOKENS` hold."""
    prompt, vocabulary, full = cell
    batch = max(1, BATCH_TOKENS // (prompt + 2 * REPLY))
    pairs = args.pairs or 8 * batch
    asked = {
        "device": args.device, "dtype": args.dtype, "model": args.model, "vocabulary": vocabulary, "data": "long",
        "pairs": pairs, "batch-size": min(batch, pairs),
    }  # fmt: skip
    options = [part for name, value in asked.items() for part in (f"--{name}", str(value))]
    return [*options, "--lengths", str(prompt), str(REPLY), str(REPLY), *(["--full"] if full else [])]


def report(measured: dict[Cell, dict[str, dict[str, Any]]], left_out: list[Cell], model: str) -> str:
    """The table in Markdown, with the medians in its last row."""
    lines = [
        "| prompt | head | trained | pairs/s bdpo / TRL | ratio | memory bdpo / TRL [GB] | ratio | step of the floor | "
        "losses agree |",
        "| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    speeds, memories = [], []
    for (prompt, vocabulary, full), runs in measured.items():
        ours, theirs = runs["bdpo"], runs["trl"]
        speeds.append(theirs["seconds"] / ours["seconds"])
        memories.append(ours["peak"] / theirs["peak"])
        floor = ours["flops"][1] / ours["rate"] / ours["train_seconds"]
        lines.append(
            f"| {prompt:,} | {vocabulary:,} | {'all' if full else 'LoRA'} | "
            f"{ours['pairs'] / ours['seconds']:.2f} / {theirs['pairs'] / theirs['seconds']:.2f} | {speeds[-1]:.2f} | "
            f"{ours['peak'] / 1e9:.2f} / {theirs['peak'] / 1e9:.2f} | {memories[-1]:.2f} | {floor:.2f} | "
            f"{'yes' if _agree(runs) else 'NO'} |"
        )
    if measured:
        first = next(iter(measured.values()))["bdpo"]
        lines.insert(0, f"{model}, {first['device']}, torch {first['torch']}, {first['rate'] / 1e12:.2f} TFLOP/s\n")
        middle = f"{statistics.median(speeds):.2f} | | {statistics.median(memories):.2f}"
        lines.append(f"| median | | | | {middle} | | |")
    return "\n".join([*lines, *(f"left out for time: {cell}" for cell in left_out)])


def _agree(runs: dict[str, dict[str, Any]]) -> bool:
    """Whether the last losses agree; bfloat16 has three digits."""
    ours, theirs = runs["bdpo"]["losses"][-1], runs["trl"]["losses"][-1]
    return abs(ours - theirs) <= 0.03 * max(abs(ours), abs(theirs))


def _in_fresh_process(options: list[str], worker: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.vs_trl", *options, "--worker", worker], capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"The {worker} run failed:\n{done.stderr[-3000:]}")
    pairs = int(options[options.index("--pairs") + 1])
    return dict(json.loads(done.stdout.strip().splitlines()[-1])) | {"pairs": pairs}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="llama-1b", help="llama-1b, llama-3b, qwen2-1.5b, or tiny")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16"])
    parser.add_argument("--pairs", type=int, help="of a cell; left out: eight steps")
    parser.add_argument("--minutes", type=float, default=9.0)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
