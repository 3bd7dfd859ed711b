"""What of the benchmarks can be wrong without a GPU: which cells are asked for, and what the table makes of results."""

import argparse

from benchmarks import gpu

ARGS = argparse.Namespace(device="cuda", dtype="bfloat16", model="llama-1b", pairs=None)


def test_the_cells_of_the_gpu_table_and_their_batches() -> None:
    every = list(gpu.cells())
    assert len(every) == len(set(every)) == 12 and every[0] == (128, 49152, False)
    asked = " ".join(gpu.command((2048, 151936, True), ARGS))
    # 8,192 tokens hold three pairs of 2048 + 2 * 64 = 2176, and eight steps are 24 pairs
    assert "--pairs 24 --batch-size 3 --lengths 2048 64 64 --full" in asked and "--vocabulary 151936" in asked


def test_the_gpu_table_by_hand() -> None:
    about = {"device": "a card", "torch": "2", "pairs": 10}
    ours = {"seconds": 5.0, "train_seconds": 4.0, "peak": 3e9, "losses": [0.5], "flops": [1e12, 6e12], "rate": 3e12}
    theirs = {"seconds": 10.0, "peak": 6e9, "losses": [0.51]}
    table = gpu.report({(128, 49152, False): {"bdpo": ours | about, "trl": theirs | about}}, [(512, 1, True)], "m")
    # 6e12 operations at 3e12 a second are 2 s, of 4
    assert "| 128 | 49,152 | LoRA | 2.00 / 1.00 | 2.00 | 3.00 / 6.00 | 0.50 | 0.50 | yes |" in table
    assert table.startswith("m, a card, torch 2, 3.00 TFLOP/s") and "left out for time: (512, 1, True)" in table
