"""Two processes: each with the whole weights, or with a half of them; the scored folder is that of one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from reference import PAIRS, SIDES, numbers, parts

from bdpo.score import score
from bdpo.score.folder import open_scores
from tiny import make_pairs, tiny_model

SCRIPT = """
import json
import os
import sys
import torch
from pathlib import Path
from torch.nn.parallel import DistributedDataParallel
from tiny import make_pairs, tiny_model, tiny_tokenizer
from bdpo.score import scoring, sources
from bdpo.forward import sharded
from bdpo.processes import weights_are_sharded
from bdpo.forward.layout import Tree, lay_out
from bdpo.forward.logprobs import branch_logps

torch.set_num_threads(1)
scoring.PART_SIZE = 4
out, pairs = Path(sys.argv[1]), make_pairs(12)

# the whole weights in each
model = tiny_model()
written = []
write = scoring.write_part
scoring.write_part = lambda path, rows: (written.append(path.name), write(path, rows))
data = scoring.score(model, tiny_tokenizer(), pairs, out / "whole" / "two")
wrapped = DistributedDataParallel(model)
batch = lay_out([Tree([5, 6, 7], [[8, 9], [10]])])
gap = (branch_logps(wrapped, batch).logps - branch_logps(model, batch).logps).abs().max()
print(f"wrote {len(written)} of {len(data.rows)} gap {gap:.0e}\\n", end="", flush=True)
scoring.score(model, tiny_tokenizer(), make_pairs(20), out / "whole" / "two-more")

# a half in each, as `accelerate launch` says it for FSDP and for ZeRO-3; the shares are torch's, whatever the engine
held = []
share_out = sharded.sharded

def kept(model):
    shares = share_out(model)
    held.append(sum(p.to_local().numel() for p in shares.parameters()) / sum(p.numel() for p in model.parameters()))
    return shares

sources.sharded = kept
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
def launched(tmp_path_factory):
    """Folder that two processes wrote in, what they printed, and what they said on standard error.

    Scoring by shares is torch's, whatever engine `accelerate launch` is told of, so that no DeepSpeed is needed.
    """
    out = tmp_path_factory.mktemp("two")
    (out / "script.py").write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    here = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [*torchrun, str(out / "script.py"), str(out)]
    done = subprocess.run(command, env=os.environ | here, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return out, done.stdout, done.stderr


@pytest.mark.slow
def test_two_processes_write_the_same_bytes_as_one_and_share_the_parts(launched, model, tokenizer, tmp_path):
    folder, printed, said = launched
    out = folder / "whole" / "two"
    known = f"12 of 20 pairs were scored before (in {out})."
    lines = sorted(line for line in printed.split("\n") if not line.startswith("held"))
    assert lines == ["", known, "wrote 1 of 12 gap 0e+00", "wrote 2 of 12 gap 0e+00"]
    assert said.count("scoring training pairs: 0%") == 5  # one bar each time, the three with halves included
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as each of the two has: the last bits of a matrix product depend on it
    try:
        one = score(model, tokenizer, PAIRS, tmp_path / "one")
    finally:
        torch.set_num_threads(threads)
    assert parts(out) == parts(one.path)
    assert open_scores(out).manifest == one.manifest
    more = open_scores(folder / "whole" / "two-more")
    fresh = score(model, tokenizer, make_pairs(20), tmp_path / "one-more")
    assert torch.allclose(numbers(more), numbers(fresh), atol=1e-5, rtol=1e-6) and more.manifest == fresh.manifest


@pytest.mark.slow
def test_no_process_holds_more_than_its_half(launched):
    held = [line.split()[1:] for line in launched[1].splitlines() if line.startswith("held")]
    assert len(held) == 2 and all(0.45 < float(share) < 0.55 for shares in held for share in shares)
    assert [len(shares) for shares in held] == [3, 3]  # the last folder was whole


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
    name, kind, config, options, launched, tokenizer, tmp_path
):
    one = score(tiny_model(kind, **config), tokenizer, PAIRS, tmp_path / "one", **options)
    two = open_scores(launched[0] / name)
    assert two.manifest == one.manifest
    assert (numbers(two) - numbers(one)).div(numbers(one).abs().clamp(min=1)).abs().max() < 1e-6
    for side in SIDES:
        assert two.rows[f"{side}_mi"] == pytest.approx(one.rows[f"{side}_mi"], abs=1e-5)  # nats/token
    if "ches" in options:
        assert torch.allclose(torch.tensor(two.rows["ches"][:]), torch.tensor(one.rows["ches"][:]), rtol=1e-4)
