"""bdpo against TRL's DPOTrainer on the same pairs, batches and LoRA start, in fresh processes, in turn (A B A B).

    python -m benchmarks.vs_trl --data hh_rlhf_harmless_base_test.jsonl.gz   32 pairs, with the lengths of the whole
    python -m benchmarks.vs_trl --data starter                               32 starter pairs
    python -m benchmarks.vs_trl --data long                                  4 pairs of 1,500 + 2 x 250 tokens, batch 1
    python -m benchmarks.vs_trl --data starter --epochs 2                    two epochs; also --settings 4
    python -m benchmarks.vs_trl --quick                                      8 pairs of random words, under 4 minutes
    python -m benchmarks.vs_trl --device cuda --dtype bfloat16 --model llama-1b --data long --pairs 64 --batch-size 8

End to end means: from tokenising to the last optimiser step, model loading left out. For bdpo that is scoring and
training, for TRL training with its online reference, and once with its precomputed one. Both train plain DPO at a
constant learning rate, dropout off, so the losses after the last step must agree; where they do not, the table says so
and the exit code is 1. Ratios are taken run by run, since a machine's speed drifts.

With several epochs, or several settings (runs on the same data that differ in beta and seed, one after another in a
process), bdpo scores once. TRL's online reference is computed at each step; its precomputed one at each run, since TRL
keeps it by the hash of the whole model, fresh adapter included. Both are run each time, and the closing line is against
the faster one.

The floor is the time that the operations of the work would take at the rate of a matrix product measured in the same
process (`flops`).
"""

from __future__ import annotations

import argparse
import json
import os
import random
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
LONG = (1500, 250, 250)  # tokens of prompt, chosen, rejected
_LLAMA = {"vocab_size": 49152, "tie_word_embeddings": True, "max_position_embeddings": 4096}
RANDOM_MODELS = {  # speed and memory do not depend on the values of the weights
    "llama-1b": _LLAMA | {"hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32,
                          "num_key_value_heads": 8, "head_dim": 64, "intermediate_size": 8192},
    "llama-3b": _LLAMA | {"hidden_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 24,
                          "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 8192},
    "tiny": _LLAMA | {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
    "qwen2-1.5b": _LLAMA | {"model_type": "qwen2", "vocab_size": 151936, "hidden_size": 1536, "num_hidden_layers": 28,
                            "num_attention_heads": 12, "num_key_value_heads": 2, "intermediate_size": 8960},
}  # fmt: skip


def main() -> int:
    """Run the comparison, or one worker of it."""
    args = _arguments()
    if args.worker:
        print(json.dumps(WORKERS[args.worker](args)))
        return 0
    again = args.epochs * args.settings > 1
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in WORKERS if again or name != "trl-precomputed"}
    for repeat in range(args.repeats):
        for name in runs:
            print(f"run {repeat + 1} of {args.repeats}: {name} ...", file=sys.stderr, flush=True)
            runs[name].append(_in_fresh_process(name))
    if not (args.quick or again):
        print("once: trl-precomputed ...", file=sys.stderr, flush=True)
        runs["trl-precomputed"] = [_in_fresh_process("trl-precomputed")]
    return report(runs, args, Console(width=110))


def report(runs: dict[str, list[dict[str, Any]]], args: argparse.Namespace, console: Console) -> int:
    """Print the table and the closing line; 1 where the losses differ."""
    ours = runs["bdpo"]
    first = ours[0]
    console.print(
        f"{args.pairs} pairs ({args.data or 'random words of HH-RLHF lengths'}), batch {args.batch_size}, "
        f"{first['tokens'] / args.pairs:.0f} tokens a pair (prompt once), {args.model} model, "
        f"{args.epochs} epochs, {args.settings} settings, "
        f"{'all weights' if args.full else 'LoRA r=16'}, {args.dtype}, "
        f"{'checkpointing, ' if args.checkpointing else ''}"
        f"{first['device']}, torch {first['torch']}, matrix products {first['rate'] / 1e9:.0f} GFLOP/s",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    table = Table("", "pairs/s", "reference [s]", "train [s]", "tokens/s", "peak [GB]", "last loss", "of the floor")
    seen = args.pairs * args.epochs * args.settings
    for name, results in runs.items():
        for r in results:
            floor = sum(r["flops"]) / r["rate"] / r["seconds"] if "flops" in r else None
            table.add_row(
                name, f"{seen / r['seconds']:.3f}", f"{r['reference_seconds']:.1f}", f"{r['train_seconds']:.1f}",
                f"{first['tokens'] * seen / args.pairs / r['seconds']:.0f}", f"{r['peak'] / 1e9:.2f}",
                f"{r['losses'][-1]:.5f}",
                "" if floor is None else f"{floor:.2f}",
            )  # fmt: skip
    console.print(table)
    gap = max(
        abs(loss - of_first)
        for results in runs.values() for r in results
        for loss, of_first in zip(r["losses"], first["losses"], strict=True)
    )  # fmt: skip
    if gap > TOLERANCE:
        console.print(f"[bold red]The losses after the last step differ by {gap:.2g}: this is not the same work.")
    for name in [name for name in runs if name != "bdpo"]:
        speed, memory = _ratios(ours, runs[name])
        console.print(f"against {name}: pairs/s {_spread(speed)}; memory {_spread(memory)}", highlight=False)
    rival = min(
        (name for name in runs if name != "bdpo" and len(runs[name]) == len(ours)),
        key=lambda name: statistics.median(r["seconds"] for r in runs[name]),
    )
    speed, memory = _ratios(ours, runs[rival])
    floor = statistics.median(o["flops"][1] / o["rate"] / o["train_seconds"] for o in ours)
    print(
        f"ratio pairs/s median={statistics.median(speed):.2f} memory median={statistics.median(memory):.2f} "
        f"floor={floor:.2f}" + ("" if rival == "trl" else f" against {rival}")
    )
    return 1 if gap > TOLERANCE else 0


def _ratios(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    """Speed and memory, run by run, of the runs that both made."""
    both = list(zip(ours, theirs, strict=False))
    return [t["seconds"] / o["seconds"] for o, t in both], [o["peak"] / t["peak"] for o, t in both]


def run_bdpo(args: argparse.Namespace) -> dict[str, Any]:
    """Score once and train with bdpo, for each setting."""
    from peft import LoraConfig
    from transformers import set_seed

    from bdpo.forward.layout import Tree, lay_out
    from bdpo.score import score
    from bdpo.train import BDPOConfig, BDPOTrainer

    pairs, scored = _pairs(args), None
    scoring, training, losses = 0.0, 0.0, []
    with tempfile.TemporaryDirectory() as folder:
        for beta, seed in _settings(args):
            model, tokenizer = _model(args)
            if scored is None:
                start = time.perf_counter()
                scored = score(model, tokenizer, pairs, os.path.join(folder, "scores"), max_length=4096)
                scoring = time.perf_counter() - start
            start = time.perf_counter()
            set_seed(seed)
            trainer = BDPOTrainer(
                model,
                args=BDPOConfig(balance=False, beta=beta, **_training(args, folder)),
                train_dataset=scored,
                processing_class=tokenizer,
                peft_config=None if args.full else LoraConfig(**LORA),
            )
            trainer.train()
            training += time.perf_counter() - start
            losses.append(_last_loss(trainer))
        assert scored is not None
        trees = [Tree(row["prompt_ids"], (row["chosen_ids"], row["rejected_ids"])) for row in scored.rows]
    steps = [trees[i : i + args.batch_size] for i in range(0, len(trees), args.batch_size)]
    computed = sum(lay_out(step, layout="packed").input_ids.numel() for step in steps)
    of_scoring, of_training = flops(trainer.model, trees, computed, args.checkpointing)
    return _result(args, scoring + training, losses, reference=scoring) | {
        "tokens": sum(map(len, trees)),
        "flops": (of_scoring, of_training * args.epochs * args.settings),
        "rate": matmul_rate(trainer.model),
    }


def run_trl(args: argparse.Namespace) -> dict[str, Any]:
    """Train with TRL's DPOTrainer, reference online or precomputed, for each setting."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import set_seed
    from trl import DPOConfig, DPOTrainer

    rows = Dataset.from_list([
        {
            "prompt": list(pair.prompt),
            "chosen": [{"role": "assistant", "content": pair.chosen}],
            "rejected": [{"role": "assistant", "content": pair.rejected}],
        }
        for pair in _pairs(args)
    ])  # fmt: skip
    before, seconds, losses = 0.0, 0.0, []
    with tempfile.TemporaryDirectory() as folder:
        for beta, seed in _settings(args):
            model, tokenizer = _model(args)
            start = time.perf_counter()
            set_seed(seed)
            trainer = DPOTrainer(
                model,
                args=DPOConfig(
                    beta=beta, max_length=4096, precompute_ref_log_probs=args.worker == "trl-precomputed",
                    **_training(args, folder),
                ),
                train_dataset=rows,
                processing_class=tokenizer,
                peft_config=None if args.full else LoraConfig(**LORA),
            )  # fmt: skip
            before += time.perf_counter() - start
            trainer.train()
            seconds += time.perf_counter() - start
            losses.append(_last_loss(trainer))
    return _result(args, seconds, losses, reference=before)


def _settings(args: argparse.Namespace) -> list[tuple[float, int]]:
    """Beta and seed of each run."""
    return [(0.1 * 2**k, k) for k in range(args.settings)]


def _last_loss(trainer: Any) -> float:
    return float([entry["loss"] for entry in trainer.state.log_history if "loss" in entry][-1])


WORKERS = {"bdpo": run_bdpo, "trl": run_trl, "trl-precomputed": run_trl}


def flops(model: Any, trees: list[Any], computed: int, checkpointing: bool) -> tuple[float, float]:
    """Operations that scoring and that training on these pairs need: (scoring, training).

    The LM head at response positions only; attention over visible tokens. Scoring: a forward pass of the pairs, and of
    the replies without their prompts. Training: a forward pass, gradients of activations, which cost as much, and of
    the weights that are trained; with checkpointing the forward pass again, less the head.

    Args:
        computed: tokens of all pairs, prompts once, and once a step what the prompts of a step begin with alike (the
            attention within that is counted for each pair).
    """
    config = model.config
    head = config.vocab_size * config.hidden_size
    embedding = head if config.tie_word_embeddings else 2 * head
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    full = trained > head
    body = sum(p.numel() for p in model.parameters()) - embedding
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    attention = 4 * config.num_hidden_layers * config.num_attention_heads * size  # a token seen
    replies = [(len(tree.prefix), len(reply)) for tree in trees for reply in tree.branches]
    tokens = sum(reply for _, reply in replies)
    seen = sum(len(tree.prefix) ** 2 / 2 for tree in trees) + sum(reply * (p + reply / 2) for p, reply in replies)
    alone = sum(reply * reply / 2 for _, reply in replies)
    layers = 2 * body * computed + attention * seen
    scoring = layers + 2 * body * tokens + attention * alone + 2 * (2 * head * tokens)
    weights = 2 * (body * computed + head * tokens) if full else 2 * trained * computed
    return scoring, (3 if checkpointing else 2) * layers + 2 * (2 * head * tokens) + weights


def matmul_rate(model: Any, seconds: float = 2.0) -> float:
    """Operations a second of a matrix product of the model's own shape, 1024 tokens through its MLP."""
    import torch

    parameter = next(model.parameters())
    like = {"device": parameter.device, "dtype": parameter.dtype}
    a = torch.randn(1024, model.config.hidden_size, **like)
    b = torch.randn(model.config.hidden_size, model.config.intermediate_size, **like)
    wait = torch.cuda.synchronize if a.is_cuda else lambda: None
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for _ in range(8):
            a @ b
        wait()
        count += 8
    return count * 2 * a.numel() * b.shape[1] / (time.perf_counter() - start)


def _model(args: argparse.Namespace) -> tuple[Any, Any]:
    """The model on its device, and the tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from bdpo import models

    dtype = getattr(torch, args.dtype)
    if args.model in RANDOM_MODELS:
        tokenizer = models.load_tokenizer("starter")
        shape = dict(RANDOM_MODELS[args.model]) | ({"vocab_size": args.vocabulary} if args.vocabulary else {})
        config = AutoConfig.for_model(
            shape.pop("model_type", "llama"), **shape, eos_token_id=tokenizer.eos_token_id, pad_token_id=2
        )
        torch.manual_seed(0)
        with torch.device(args.device):
            return AutoModelForCausalLM.from_config(config, dtype=dtype), tokenizer
    loaded = models.load(args.model, dtype=args.dtype)
    return loaded.model.to(args.device), loaded.tokenizer


def _training(args: argparse.Namespace, folder: str) -> dict[str, Any]:
    return {
        "output_dir": folder,
        "per_device_train_batch_size": args.batch_size,
        "num_train_epochs": args.epochs,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "train_sampling_strategy": "sequential",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 0,
        "bf16": args.dtype == "bfloat16",
        "gradient_checkpointing": args.checkpointing,
        "use_cpu": args.device == "cpu",
    }


def _pairs(args: argparse.Namespace) -> list[Any]:
    """Pairs of --data whose lengths are those of the whole, long ones, or pairs of random words with HH's lengths."""
    from bdpo.pairs import PreferencePair, load_pairs

    if args.data not in (None, "long"):
        return representative(load_pairs(args.data).pairs, args.pairs)
    draw = random.Random(0)
    words = ["time", "river", "stone", "garden", "window", "quiet", "yellow", "paper", "letter"]  # a token each

    def text(mean: int, spread: float = 0.6) -> str:
        return " ".join(draw.choice(words) for _ in range(max(3, round(draw.lognormvariate(0, spread) * mean * 0.85))))

    def exact(length: int) -> str:
        return " ".join(draw.choice(words) for _ in range(length))

    def texts() -> tuple[str, ...]:
        return tuple(map(exact, args.lengths)) if args.data == "long" else (text(115), text(38), text(48))

    return [
        PreferencePair(f"random-{i}", ({"role": "user", "content": prompt},), chosen, rejected)
        for i, (prompt, chosen, rejected) in enumerate(texts() for _ in range(args.pairs))
    ]


def representative(pairs: list[Any], n: int) -> list[Any]:
    """n pairs at equal steps through the order of length, shuffled (seed 0): a plain draw of 32 strays by a fourth."""

    def length(pair: Any) -> int:
        return len(str(pair.prompt)) + len(pair.chosen) + len(pair.rejected)

    by_length = sorted(pairs, key=length)
    drawn = [by_length[int((i + 0.5) * len(pairs) / n)] for i in range(n)]
    random.Random(0).shuffle(drawn)
    return drawn


def _result(args: argparse.Namespace, seconds: float, losses: list[float], reference: float) -> dict[str, Any]:
    import torch

    on_gpu = args.device.startswith("cuda")
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "seconds": seconds,
        "reference_seconds": reference,  # TRL's online reference is part of its training
        "train_seconds": seconds - reference,
        "peak": torch.cuda.max_memory_allocated() if on_gpu else resident,
        "losses": losses,
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if on_gpu else f"{os.cpu_count()} CPU cores",
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
    parser.add_argument("--data", help="a file of pairs, starter, or long; left out: random words of HH-RLHF lengths")
    parser.add_argument("--pairs", type=int, help="32; 4 of the long ones")
    parser.add_argument("--lengths", type=int, nargs=3, default=LONG, help="tokens of the long ones' texts")
    parser.add_argument("--batch-size", type=int, help="pairs of a step: 4; 1 of the long ones")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--settings", type=int, default=1, help="runs on the same data, of other betas and seeds")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", default="starter", help=f"starter, another model, or {', '.join(RANDOM_MODELS)}")
    parser.add_argument("--vocabulary", type=int, help="of a random model: its width of the LM head, 49,152 or more")
    parser.add_argument("--full", action="store_true", help="train all weights instead of LoRA")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--quick", action="store_true", help="8 pairs of HH-RLHF lengths, one run each")
    parser.add_argument("--worker", choices=sorted(WORKERS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.quick:
        args.pairs, args.repeats, args.data = 8, 1, None
    long = args.data == "long"
    args.checkpointing = long and sum(args.lengths) >= 1000
    args.pairs, args.batch_size = args.pairs or (4 if long else 32), args.batch_size or (1 if long else 4)
    return args


if __name__ == "__main__":
    sys.exit(main())
