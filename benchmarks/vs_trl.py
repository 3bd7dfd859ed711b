"""bdpo against TRL's DPOTrainer on the same pairs, batches and LoRA start, in fresh processes, in turn (A B A B).

    python -m benchmarks.vs_trl [--data hh_rlhf_harmless_base_test.jsonl.gz] [--pairs 32] [--batch-size 4]

End to end means: from tokenising to the last optimiser step, model loading left out. For bdpo that is scoring and
training, for TRL training with its online reference (and, with --precompute, its precomputed one). Both train plain
DPO at a constant learning rate, dropout off, so the losses after the last step must agree; where they do not, the
table says so and the exit code is 1. Ratios are taken run by run, since a machine's speed drifts.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from rich.console import Console
from rich.table import Table

LEARNING_RATE = 1e-4
LORA = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
TOLERANCE = 1e-3  # of the losses after the last step


def main() -> int:
    """Run the comparison, or one worker of it."""
    args = _arguments()
    if args.worker:
        print(json.dumps(WORKERS[args.worker](args)))
        return 0
    names = ["bdpo", "trl", *(["trl-precomputed"] if args.precompute else [])]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for repeat in range(args.repeats):
        for name in names:
            print(f"run {repeat + 1} of {args.repeats}: {name} ...", file=sys.stderr, flush=True)
            runs[name].append(_in_fresh_process(name))
    return report(runs, args, Console(width=100))


def report(runs: dict[str, list[dict[str, Any]]], args: argparse.Namespace, console: Console) -> int:
    """Print the table and the closing line; 1 where the losses differ."""
    ours = runs["bdpo"]
    first = ours[0]
    console.print(
        f"{args.pairs} pairs ({args.data or 'random tokens of HH-RLHF lengths'}), batch {args.batch_size}, "
        f"{first['tokens'] / args.pairs:.0f} tokens a pair (prompt once), starter model, LoRA r=16, float32, "
        f"{os.cpu_count()} cores, torch {first['torch']}, {first['matmul'] / 1e9:.0f} GFLOP/s matmul"
    )
    table = Table("", "pairs/s", "score [s]", "train [s]", "tokens/s", "peak memory [GB]", "last loss")
    for name, results in runs.items():
        for r in results:
            table.add_row(
                name, f"{args.pairs / r['seconds']:.3f}", f"{r.get('score_seconds', 0):.1f}",
                f"{r['train_seconds']:.1f}", f"{first['tokens'] / r['seconds']:.0f}", f"{r['peak'] / 1e9:.2f}",
                f"{r['loss']:.5f}",
            )  # fmt: skip
    console.print(table)
    gap = max(abs(r["loss"] - o["loss"]) for results in runs.values() for r, o in zip(results, ours, strict=True))
    if gap > TOLERANCE:
        console.print(f"[bold red]The losses after the last step differ by {gap:.2g}: this is not the same work.")
    for name in [name for name in runs if name != "bdpo"]:
        speed = [t["seconds"] / o["seconds"] for o, t in zip(ours, runs[name], strict=True)]
        memory = [o["peak"] / t["peak"] for o, t in zip(ours, runs[name], strict=True)]
        console.print(f"against {name}: pairs/s {_spread(speed)}, memory {_spread(memory)}")
    speed = [t["seconds"] / o["seconds"] for o, t in zip(ours, runs["trl"], strict=True)]
    memory = [o["peak"] / t["peak"] for o, t in zip(ours, runs["trl"], strict=True)]
    floor = statistics.median(o["train_flops"] / o["matmul"] / o["train_seconds"] for o in ours)
    print(
        f"ratio pairs/s median={statistics.median(speed):.2f} memory median={statistics.median(memory):.2f} "
        f"floor={floor:.2f}"
    )
    return 1 if gap > TOLERANCE else 0


def run_bdpo(args: argparse.Namespace) -> dict[str, Any]:
    """Score and train with bdpo."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BDPO_SCORES"] = folder
        from peft import LoraConfig
        from transformers import set_seed

        from bdpo import models
        from bdpo.score import score
        from bdpo.train import BDPOConfig, BDPOTrainer

        loaded = models.load("starter")
        pairs = _pairs(args)
        start = time.perf_counter()
        scored = score(loaded.model, loaded.tokenizer, pairs, os.path.join(folder, "scores"))
        scoring = time.perf_counter() - start
        set_seed(0)
        trainer = BDPOTrainer(
            loaded.model,
            args=BDPOConfig(balance=False, beta=0.1, **_training(args, folder)),
            train_dataset=scored,
            processing_class=loaded.tokenizer,
            peft_config=LoraConfig(**LORA),
        )
        trainer.train()
        seconds = time.perf_counter() - start
        rows = scored.rows
        lengths = [
            tuple(map(len, ids))
            for ids in zip(rows["prompt_ids"], rows["chosen_ids"], rows["rejected_ids"], strict=True)
        ]
    return _result(trainer, seconds, score_seconds=scoring) | {
        "tokens": sum(map(sum, lengths)),
        "train_flops": train_flops(trainer.model, lengths),
        "matmul": matmul_rate(),
    }


def run_trl(args: argparse.Namespace) -> dict[str, Any]:
    """Train with TRL's DPOTrainer, reference online or precomputed."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import set_seed
    from trl import DPOConfig, DPOTrainer

    from bdpo import models

    loaded = models.load("starter")
    rows = [
        {
            "prompt": list(pair.prompt),
            "chosen": [{"role": "assistant", "content": pair.chosen}],
            "rejected": [{"role": "assistant", "content": pair.rejected}],
        }
        for pair in _pairs(args)
    ]
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        set_seed(0)
        trainer = DPOTrainer(
            loaded.model,
            args=DPOConfig(
                beta=0.1, max_length=1024, bf16=False, gradient_checkpointing=False,
                precompute_ref_log_probs=args.worker == "trl-precomputed", **_training(args, folder),
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=loaded.tokenizer,
            peft_config=LoraConfig(**LORA),
        )  # fmt: skip
        before = time.perf_counter() - start
        trainer.train()
        seconds = time.perf_counter() - start
    return _result(trainer, seconds, score_seconds=before)


WORKERS = {"bdpo": run_bdpo, "trl": run_trl, "trl-precomputed": run_trl}


def train_flops(model: Any, lengths: list[tuple[int, ...]]) -> float:
    """Operations that training on these pairs needs: forward, and gradients of activations (and of LoRA's weights).

    Prompt tokens once; the LM head at response positions only; attention over visible tokens; the frozen weights
    need no gradient, so the backward pass costs as much as the forward one.
    """
    config = model.config
    head = config.vocab_size * config.hidden_size
    embedding = head if config.tie_word_embeddings else 2 * head
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad) - embedding
    lora = sum(p.numel() for p in model.parameters() if p.requires_grad)
    attention = 4 * config.num_hidden_layers * config.num_attention_heads * config.head_dim  # a token seen
    total = 0.0
    for prompt, chosen, rejected in lengths:
        tokens, replies = prompt + chosen + rejected, chosen + rejected
        seen = prompt * prompt / 2 + sum(reply * (prompt + reply / 2) for reply in (chosen, rejected))
        total += 2 * (2 * frozen * tokens + 2 * head * replies + attention * seen) + 6 * lora * tokens
    return total


def matmul_rate(seconds: float = 2.0) -> float:
    """Float32 operations a second of a matrix product of the model's own shape (1024 x 576 x 1536)."""
    import torch

    a, b = torch.randn(1024, 576), torch.randn(576, 1536)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        a @ b
        count += 1
    return count * 2 * 1024 * 576 * 1536 / (time.perf_counter() - start)


def _training(args: argparse.Namespace, folder: str) -> dict[str, Any]:
    return {
        "output_dir": folder,
        "per_device_train_batch_size": args.batch_size,
        "num_train_epochs": 1,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "train_sampling_strategy": "sequential",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 0,
    }


def _pairs(args: argparse.Namespace) -> list[Any]:
    """Pairs of --data whose lengths are those of the whole, else pairs of random words with HH-RLHF's lengths."""
    import random

    from bdpo.pairs import PreferencePair, load_pairs

    if args.data:
        return representative(load_pairs(args.data).pairs, args.pairs)
    draw = random.Random(0)
    words = ["time", "river", "stone", "garden", "window", "quiet", "yellow", "paper", "letter"]

    def text(mean: int) -> str:
        return " ".join(draw.choice(words) for _ in range(max(3, round(draw.lognormvariate(0, 0.6) * mean * 0.85))))

    return [
        PreferencePair(f"random-{i}", ({"role": "user", "content": text(115)},), text(38), text(48))
        for i in range(args.pairs)
    ]


def representative(pairs: list[Any], n: int) -> list[Any]:
    """n pairs at equal steps through the order of length, shuffled (seed 0): a plain draw of 32 strays by a fourth."""
    import random

    def length(pair: Any) -> int:
        return len(str(pair.prompt)) + len(pair.chosen) + len(pair.rejected)

    by_length = sorted(pairs, key=length)
    drawn = [by_length[int((i + 0.5) * len(pairs) / n)] for i in range(n)]
    random.Random(0).shuffle(drawn)
    return drawn


def _result(trainer: Any, seconds: float, score_seconds: float) -> dict[str, Any]:
    import torch

    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {
        "seconds": seconds,
        "score_seconds": score_seconds,
        "train_seconds": seconds - score_seconds,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "loss": losses[-1],
        "torch": torch.__version__,
    }


def _in_fresh_process(worker: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.vs_trl", *sys.argv[1:], "--worker", worker]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    if done.returncode:
        raise SystemExit(f"The {worker} run failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def _spread(values: list[float]) -> str:
    return f"min {min(values):.2f}, median {statistics.median(values):.2f}, max {max(values):.2f}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="pairs to train on (for example HH-RLHF harmless-base); left out: random words")
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--precompute", action="store_true", help="also run TRL with precompute_ref_log_probs")
    parser.add_argument("--quick", action="store_true", help="8 pairs of HH-RLHF lengths, one run each")
    parser.add_argument("--worker", choices=sorted(WORKERS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.quick:
        args.pairs, args.repeats, args.data = 8, 1, None
    return args


if __name__ == "__main__":
    sys.exit(main())
