"""What the time of scoring and of a training step is made of, by torch's profiler: shares, not seconds.

    OMP_NUM_THREADS=1 python -m benchmarks.shares --data starter --pairs 12
    OMP_NUM_THREADS=1 python -m benchmarks.shares --data long --pairs 2

The options are those of `benchmarks.vs_trl`. Scoring is the forward passes alone, on the pairs' prompts and on the null
prompt, without the hash of the weights and the files; training is every step but the first, which touches memory for
the first time. Each moment belongs to the innermost operator at work; what is left of the clock is Python, and the
profiler, which makes small operators look dearer than they are.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from tqdm import tqdm
from transformers import TrainerCallback, set_seed

from benchmarks import vs_trl

PRODUCTS = ("aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm", "aten::matmul", "aten::linear")
COPIES = ("aten::copy_", "aten::cat", "aten::clone", "aten::contiguous", "aten::_to_copy", "aten::index_select")
WITHIN = {  # what is called within an operator of such a name belongs to it
    "Optimizer.step": "optimiser",
    "scaled_dot_product": "attention",
    "_SlicedHead": "softmax of the LM head",
}
GROUPS = (
    "linear layers", "LoRA's products", "products of the LM head", *WITHIN.values(), "copies",
    "norms, rotation, activation, sums", "autograd and dispatch", "outside operators",
)  # fmt: skip


def group_of(event: Any, rank: int) -> str:
    """The group, one of `GROUPS`, that an event of the profiler spends its own time for.

    Args:
        event: of `profile(record_shapes=True)`.
        rank: of the LoRA adapter, which tells its products from the others.
    """
    at = event
    while at is not None:
        for name, group in WITHIN.items():
            if name in at.name:
                return "products of the LM head" if name == "_SlicedHead" and event.name in PRODUCTS else group
        at = at.cpu_parent
    if event.name in PRODUCTS:
        return "LoRA's products" if any(rank in shape[-2:] for shape in event.input_shapes) else "linear layers"
    if not event.name.startswith("aten::"):
        return "autograd and dispatch"
    return "copies" if event.name in COPIES else "norms, rotation, activation, sums"


def shares(events: Iterable[Any], seconds: float, rank: int) -> dict[str, float]:
    """Of `seconds` by the clock, the share of each group; what no event accounts for is outside operators."""
    spent: Counter[str] = Counter()
    for event in events:
        spent[group_of(event, rank)] += event.self_cpu_time_total / 1e6
    spent["outside operators"] = max(0.0, seconds - spent.total())
    return {group: spent[group] / seconds for group in GROUPS}


class Clocked(TrainerCallback):
    """Profiles every step but the first."""

    def __init__(self) -> None:
        self.profile, self.began, self.seconds = _profile(), 0.0, 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin behind the first step, and end with the last."""
        if state.global_step == 1:
            self.profile.start()
            self.began = time.perf_counter()
        if state.global_step == state.max_steps:
            self.seconds = time.perf_counter() - self.began
            self.profile.stop()


def scoring(model: Any, tokenizer: Any, pairs: Any) -> dict[str, float]:
    """Shares of the forward passes of stage 1, after one that is not counted."""
    from bdpo.forward.logprobs import choose_layout
    from bdpo.forward.passes import Pass
    from bdpo.tokens import tokenize_pairs

    tokens = tokenize_pairs(tokenizer, pairs, max_length=4096)
    prompts = [pair.prompt_ids for pair in tokens.pairs]
    replies = [*(pair.chosen_ids for pair in tokens.pairs), *(pair.rejected_ids for pair in tokens.pairs)]
    layout, _ = choose_layout(model, max(map(len, prompts)) + max(map(len, replies)))
    frozen = Pass(model.eval(), layout, tqdm(disable=True))
    with torch.no_grad():
        frozen.conditional(prompts, replies)
        with _profile() as found:
            start = time.perf_counter()
            frozen.conditional(prompts, replies)
            frozen.on(tokens.null_ids, replies)
            seconds = time.perf_counter() - start
    return shares(found.events(), seconds, rank=0)


def training(model: Any, tokenizer: Any, pairs: Any, args: Any) -> dict[str, float]:
    """Shares of the training steps behind the first."""
    from peft import LoraConfig

    from bdpo.score import score
    from bdpo.train import BDPOConfig, BDPOTrainer

    clocked = Clocked()
    with tempfile.TemporaryDirectory() as folder:
        scored = score(model, tokenizer, pairs, f"{folder}/scores", max_length=4096, estimator="none")
        set_seed(0)
        config = BDPOConfig(balance=False, **vs_trl._training(args, folder))
        adapter = None if args.full else LoraConfig(**vs_trl.LORA)
        trainer = BDPOTrainer(
            model, args=config, train_dataset=scored, processing_class=tokenizer, peft_config=adapter,
            callbacks=[clocked],
        )  # fmt: skip
        trainer.train()
    return shares(clocked.profile.events(), clocked.seconds, rank=0 if args.full else vs_trl.LORA["r"])


def _profile() -> Any:
    return profile(activities=[ProfilerActivity.CPU], record_shapes=True)


def main() -> int:
    """Print the table."""
    args = vs_trl._arguments()
    model, tokenizer = vs_trl._model(args)
    pairs = vs_trl._pairs(args)
    scored = scoring(model, tokenizer, pairs)
    trained = training(model, tokenizer, pairs, args)
    print(f"{args.data}, {args.pairs} pairs, batch {args.batch_size}, {torch.get_num_threads()} thread(s)")
    print("| share of the time [%] | scoring | training |\n| --- | ---: | ---: |")
    for group in GROUPS:
        print(f"| {group} | {100 * scored[group]:.1f} | {100 * trained[group]:.1f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
