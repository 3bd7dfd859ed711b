"""Weights shared out over two processes: the scored folder of one, and no process holds the whole."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from reference import PAIRS, SIDES, numbers

from bdpo.score import score
from bdpo.score.folder import open_scores
from tiny import tiny_model

SCRIPT = """
import json
import os
import sys
import torch
from pathlib import Path
from tiny import make_pairs, tiny_model, tiny_tokenizer
from bdpo.forward import sharded
from bdpo.processes import weights_are_sharded
from bdpo.score import scoring, sources

torch.set_num_threads(1)
scoring.PART_SIZE = 4
held = []
share_out = sharded.sharded

def kept(model):
    shares = share_out(model)
    held.append(sum(p.to_local().numel() for p in shares.parameters()) / sum(p.numel() for p in model.parameters()))
    return shares

sources.sharded = kept
out, pairs = Path(sys.argv[1]), make_pairs(12)
zero3 = out / f"zero3-{os.environ['RANK']}.json"
zero3.write_text(json.dumps({"zero_optimization": {"stage": 3}}))

def told(**variables):
    "Have accelerate launch said so."
    os.environ |= {f"ACCELERATE_{name}": value for name, value in variables.items()}

told(USE_DEEPSPEED="true", DEEPSPEED_ZERO_STAGE="2")
assert not weights_are_sharded()
for kind, config, options, engine in (
    ("llama", {}, {"ches": True}, {"USE_DEEPSPEED": "false", "USE_FSDP": "true"}),
    ("llama", {"tie_word_embeddings": True}, {"estimator": "entropy"},
     {"USE_FSDP": "false", "USE_DEEPSPEED": "true", "DEEPSPEED_ZERO_STAGE": "3"}),
    ("gemma2", {}, {}, {"DEEPSPEED_ZERO_STAGE": "2", "DEEPSPEED_CONFIG_FILE": str(zero3)}),  # the file counts
):
    told(**engine)
    model = tiny_model(kind, **config)
    before = [p.clone() for p in model.parameters()]
    scoring.score(model, tiny_tokenizer(), pairs, out / f"{kind}{len(config)}", **options)
    assert all(torch.equal(a, b) and not b.is_meta for a, b in zip(before, model.parameters(), strict=True))
scoring.score(tiny_model(), tiny_tokenizer(), pairs, out / "llama0", ches=True)  # all is there
print("held", *(f"{share:.2f}" for share in held), flush=True)
"""


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Folders that two processes made, as `accelerate launch` would start them for FSDP and for ZeRO-3.

    Scoring by shares is torch's, whatever the engine, so that no DeepSpeed is needed.
    """
    out = tmp_path_factory.mktemp("sharded")
    (out / "script.py").write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    here = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [*torchrun, str(out / "script.py"), str(out)]
    launched = subprocess.run(command, env=os.environ | here, capture_output=True, text=True, timeout=300)
    assert launched.returncode == 0, launched.stderr[-3000:]
    held = [line.split()[1:] for line in launched.stdout.splitlines() if line.startswith("held")]
    assert len(held) == 2 and all(0.45 < float(share) < 0.55 for shares in held for share in shares)
    assert [len(shares) for shares in held] == [3, 3]  # the last folder was whole
    return out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind", "config", "options"),
    [
        ("llama0", "llama", {}, {"ches": True}),
        ("llama1", "llama", {"tie_word_embeddings": True}, {"estimator": "entropy"}),
        ("gemma20", "gemma2", {}, {}),  # probed, and caps its logits: two forward passes for the first batch
    ],
)
def test_two_processes_with_a_half_of_the_weights_each_score_the_folder_of_one(
    name, kind, config, options, out, tokenizer, tmp_path
):
    one = score(tiny_model(kind, **config), tokenizer, PAIRS, tmp_path / "one", **options)
    two = open_scores(out / name)
    assert two.manifest == one.manifest
    assert (numbers(two) - numbers(one)).div(numbers(one).abs().clamp(min=1)).abs().max() < 1e-6
    for side in SIDES:
        assert two.rows[f"{side}_mi"] == pytest.approx(one.rows[f"{side}_mi"], abs=1e-5)  # nats/token
    if "ches" in options:
        assert torch.allclose(torch.tensor(two.rows["ches"][:]), torch.tensor(one.rows["ches"][:]), rtol=1e-4)
