"""Branches that share a prompt against a plain forward pass of the prompt, in turn in one process.

    python -m benchmarks.branches [--model starter] [--prompt 40] [--branches 8] [--tokens 8] [--repeats 15]

The plain pass makes logits at all its positions, as `model(input_ids)` does.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch

from bdpo import models
from bdpo.forward.allocator import keep_freed_memory
from bdpo.forward.layout import Tree, lay_out
from bdpo.forward.logprobs import branch_logps, choose_layout


@torch.no_grad()
def main() -> int:
    """Print the median ratio of a pass over the tree to one over its prompt."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="starter")
    parser.add_argument("--prompt", type=int, default=40, help="tokens")
    parser.add_argument("--branches", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=8, help="of a branch")
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    model = models.load(args.model, on_device=True).model.eval()
    keep_freed_memory()
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 1000, (args.prompt + args.branches * args.tokens,), generator=draw)
    prompt, branches = ids[: args.prompt], ids[args.prompt :].view(args.branches, args.tokens)
    tree = Tree(prompt.tolist(), branches.tolist())
    layout, _ = choose_layout(model, args.prompt + args.tokens)
    batch = lay_out([tree], layout=layout).to(model.device)
    plain = prompt[None].to(model.device)
    ratios = []
    for _ in range(args.repeats):
        alone = _seconds(lambda: model(input_ids=plain, use_cache=False))
        ratios.append(_seconds(lambda: branch_logps(model, batch)) / alone)
    print(f"{args.branches} branches of {args.tokens} tokens on a prompt of {args.prompt}, {layout}, {args.model}")
    print(f"ratio median={statistics.median(ratios):.2f} min={min(ratios):.2f} max={max(ratios):.2f}")
    return 0


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
