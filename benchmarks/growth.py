"""How time and memory of reading, check, scoring and a training step grow with pairs, length and vocabulary.

    python -m benchmarks.growth [--pairs 1000 10000 100000] [--out benchmarks/results/growth.md]

Each point runs in a fresh process of one thread, and times are CPU seconds, so that other work on the machine does not
show. The models are random and very small, so that what is seen is what bdpo itself takes for the data, and not the
model: with pairs, memory must stay flat and time grow in proportion. Memory is the peak of what cannot be dropped
(RssAnon, sampled), above what was there when a part began, and in all; the scored data set is mapped from its files,
whose pages the kernel takes back when it wants them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SMALLEST = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
SMALL = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4}
WORDS = 250  # the texts are made of so many words, one token each
TEMPLATE = "{% for m in messages %}<{{ m.role }}> {{ m.content }} <end> {% endfor %}<assistant>"
STEPS, BATCH = 20, 4


def main() -> None:
    """Measure all points, or one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="*", default=[1000, 10_000, 100_000])
    parser.add_argument("--lengths", type=int, nargs="*", default=[128, 512, 2048], help="prompt + both replies")
    parser.add_argument("--vocabularies", type=int, nargs="*", default=[1000, 32_000, 152_000])
    parser.add_argument("--out", type=Path, help="also write the tables into this file")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(measure(**args.worker)))
        return
    few = {"pairs": 64, "model": SMALL}
    tables = (
        _table("pairs", [{"pairs": n, "prompt": 24, "reply": 8, "model": SMALLEST} for n in args.pairs]),
        _table("length", [{"prompt": n // 2, "reply": n // 4, **few} for n in args.lengths]),
        _table("vocabulary", [{"vocabulary": n, "prompt": 64, "reply": 32, **few} for n in args.vocabularies]),
    )
    text = _report("\n\n".join(table for table in tables if table))
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")


def measure(pairs: int, prompt: int, reply: int, model: dict[str, int], vocabulary: int = 1000) -> dict[str, Any]:
    """One point: read, check and score `pairs` pairs, train for `STEPS` steps; lengths in tokens, memory in bytes."""
    import torch

    from bdpo.pairs import check_pairs, load_pairs, write_pairs
    from bdpo.score import score
    from bdpo.train import BDPOConfig, BDPOTrainer

    tokenizer = _tokenizer()
    causal = _model(model, vocabulary)
    result: dict[str, Any] = {"pairs": pairs, "length": prompt + 2 * reply, "vocabulary": vocabulary}
    with tempfile.TemporaryDirectory() as folder:
        write_pairs(Path(folder) / "pairs.jsonl", _texts(pairs, prompt, reply))
        with _measured(result, "read"):
            loaded = load_pairs(Path(folder) / "pairs.jsonl")
        with _measured(result, "check"):
            check_pairs(loaded, tokenizer=tokenizer, max_length=1024)
        with _measured(result, "score"):
            scored = score(causal, tokenizer, loaded.pairs, Path(folder) / "scores")
        result["files"] = sum(path.stat().st_size for path in scored.path.rglob("*") if path.is_file())
        del loaded
        clock = _steps()
        with _measured(result, "train"):
            trainer = BDPOTrainer(
                causal,
                args=BDPOConfig(
                    output_dir=folder, per_device_train_batch_size=BATCH, max_steps=STEPS, disable_tqdm=True,
                    report_to="none", save_strategy="no", logging_strategy="no",
                ),
                train_dataset=scored,
                processing_class=tokenizer,
                callbacks=[clock],
            )  # fmt: skip
            trainer.train()
    result["step_seconds"] = sorted(clock.seconds)[STEPS // 2]
    return result | {"torch": torch.__version__}


class _Peak(threading.Thread):
    """Samples this process's anonymous memory until told to stop."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.before = self.peak = _anonymous()
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.01):
            self.peak = max(self.peak, _anonymous())


@contextmanager
def _measured(result: dict[str, Any], name: str) -> Iterator[None]:
    peak, start = _Peak(), time.process_time()
    peak.start()
    yield
    peak.done.set()
    peak.join()
    result |= {f"{name}_seconds": time.process_time() - start, f"{name}_bytes": peak.peak - peak.before}
    result["peak"] = max(result.get("peak", 0), peak.peak)


def _anonymous() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise SystemExit("This benchmark reads /proc/self/status: it needs Linux.")


def _steps() -> Any:
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        """Seconds of each step."""

        def __init__(self) -> None:
            self.seconds: list[float] = []

        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.start = time.process_time()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            self.seconds.append(time.process_time() - self.start)

    return Clock()


def _model(shape: dict[str, int], vocabulary: int) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, max_position_embeddings=4096, **shape))


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<user>", "<assistant>", "<end>"]
    vocabulary = {word: i for i, word in enumerate([*special, *(f"w{i}" for i in range(WORDS))])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<end>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>", pad_token="<end>")
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def _texts(pairs: int, prompt: int, reply: int) -> Iterator[Any]:
    from bdpo.pairs import PreferencePair

    draw = random.Random(0)

    def text(length: int) -> str:
        return " ".join(f"w{i}" for i in draw.choices(range(WORDS), k=length))

    for i in range(pairs):
        yield PreferencePair(f"p{i}", ({"role": "user", "content": text(prompt)},), text(reply), text(reply))


def _table(axis: str, points: list[dict[str, Any]]) -> str:
    """Measure the points and lay them out, each time also per pair or step, so that growth can be seen."""
    if not points:
        return ""
    rows = [f"| {axis} | read [s] | read [MB] | check [s] | check [MB] | scoring [s] | scoring [ms/pair] |"
            " scoring [MB] | step [ms] | training [MB] | in all [MB] | files [MB] |", "| ---: " * 12 + "|"]  # fmt: skip
    for point in points:
        print(f"{axis}: {point} ...", file=sys.stderr, flush=True)
        r = _in_fresh_process(point)
        rows.append(
            f"| {r[axis]:,} | {r['read_seconds']:.1f} | {r['read_bytes'] / 1e6:.0f} | {r['check_seconds']:.1f} | "
            f"{r['check_bytes'] / 1e6:.0f} | {r['score_seconds']:.1f} | {1e3 * r['score_seconds'] / r['pairs']:.2f} | "
            f"{r['score_bytes'] / 1e6:.0f} | {1e3 * r['step_seconds']:.1f} | {r['train_bytes'] / 1e6:.0f} | "
            f"{r['peak'] / 1e6:.0f} | {r['files'] / 1e6:.0f} |"
        )
    return "\n".join(rows)


def _in_fresh_process(point: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.growth", "--worker", json.dumps(point)]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=one_thread)
    if done.returncode:
        raise SystemExit(f"{point}: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _report(tables: str) -> str:
    command = " ".join(["python -m benchmarks.growth", *sys.argv[1:]])
    date = time.strftime("%d %B %Y")
    return f"""# Growth

    {command}

{os.cpu_count()} cores, {date}. Times are CPU seconds of a process with one thread. Memory is the sampled peak
of anonymous memory above what was there when a part began, and of the whole process; what is read stays until training.
Files are the scored folder with its mapped copy. Training is full fine-tuning with batch {BATCH}, the median of {STEPS}
steps. Pairs: 24 + 8 + 8 words, a Llama of one layer, 16 wide. Length (prompt + both replies, half of it prompt) and
vocabulary: 64 pairs, a Llama of four layers, 128 wide.

{tables}"""


if __name__ == "__main__":
    main()
