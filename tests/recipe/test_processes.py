"""Two processes on CPUs (gloo): they must do what one does, under every engine, and end when one of them fails."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file
from torch import Tensor

from bdpo.pairs import write_pairs
from bdpo.recipe.run import run_recipe
from bdpo.recipe.sections import parse_recipe
from bdpo.score.folder import open_scores
from process_worker import REASON, cut
from tiny import make_pairs, tiny_model, tiny_tokenizer

CONFIGS = Path(__file__).parents[2] / "configs" / "accelerate"
WORKER = str(Path(__file__).parents[1] / "process_worker.py")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes=2", "--config_file"]
TIMEOUT = 300  # seconds; a launch takes about 10, one that hangs is killed, and a collective would wait for 1,800
ADAPTER, MODEL = "adapter_model.safetensors", "model.safetensors"


@dataclass(frozen=True)
class Home:
    """A folder with tiny models (their embeddings tied or not), 22 pairs, which make an uneven last step of 2 in
    steps of 4, and 7 held-out pairs; and the runs of one process in it."""

    folder: Path

    def recipe(self, name: str, *, accumulation: int = 1, **train: Any) -> dict[str, Any]:
        """LoRA (each pair with another's weights) or full weights; 20 steps of 4 pairs over four epochs, where 2
        processes go."""
        content: dict[str, Any] = {
            "model": {"name": str(self.folder / ("tied" if name == "full" else "model"))},
            "data": {"train": str(self.folder / "pairs.jsonl"), "eval": str(self.folder / "held.jsonl")},
            "train": {
                "per_device_train_batch_size": 2, "gradient_accumulation_steps": accumulation, "max_steps": 20,
                "learning_rate": 2e-3, "adam_epsilon": 1e-6, "logging_steps": 1, "save_strategy": "steps",
                "save_steps": 10, "disable_tqdm": True, "displacement_alarm": None,
                "gradient_checkpointing": name == "full",
            } | train,
        }  # fmt: skip
        lora = {"peft": {"r": 4}, "balance": {"weighting": "permuted", "center": "mean"}}
        return content | (lora if name == "lora" else {})

    def written(self, file: str, content: dict[str, Any]) -> str:
        path = self.folder / file
        path.write_text(yaml.safe_dump(content))
        return str(path)

    def alone(self, name: str) -> Path:
        """The run of one process, of one thread as those of `launch`: the number of threads decides the last bit."""
        out = self.folder / f"one-{name}"
        if not out.exists():
            recipe = self.recipe(name, accumulation=2) | {"score": {"dir": str(self.folder / f"scores-one-{name}")}}
            threads = torch.get_num_threads()
            torch.set_num_threads(1)
            run_recipe(parse_recipe(recipe), out)
            torch.set_num_threads(threads)
        return out


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("processes")
    for name, tied in (("model", False), ("tied", True)):
        tiny_model(tie_word_embeddings=tied).save_pretrained(folder / name)
        tiny_tokenizer().save_pretrained(folder / name)
    write_pairs(folder / "pairs.jsonl", make_pairs(22))
    write_pairs(folder / "held.jsonl", make_pairs(7, seed=1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BDPO_CACHE", str(folder / "cache"))
        yield Home(folder)


def launch(command: list[str], code: int = 0, **environment: str) -> str:
    """Run a command to its end and return its standard error; it and what it started is killed at `TIMEOUT`."""
    here = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"} | environment
    process = subprocess.Popen(
        command, env=os.environ | here, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )  # fmt: skip
    try:
        _, said = process.communicate(timeout=TIMEOUT)
    finally:
        if process.poll() is None:
            launcher = psutil.Process(process.pid)
            for started in (*launcher.children(recursive=True), launcher):
                started.kill()
    assert process.returncode == code, said[-4000:]
    return said


def trajectory(run: Path) -> list[dict[str, float]]:
    """Everything logged, step by step and in the evaluation; without what a clock or one process's share decides.

    Without the accuracy before the first step too: the policy is the reference then, margins are 0 but for rounding,
    and which side of 0 that falls on is nothing to compare.
    """
    timed = ("runtime", "per_second", "flos", "train_loss")
    first = (*timed, "accuracies")
    entries = json.loads((run / "metrics.json").read_text())["history"]
    return [
        {k: v for k, v in entry.items() if not any(word in k for word in (timed if i else first))}
        for i, entry in enumerate(entries)
    ]


def assert_same_run(run: Path, expected: Path, weights: str, tolerance: float = 1e-4) -> None:
    assert len(trajectory(run)) == len(trajectory(expected)) == 22  # steps, the evaluation, the summary
    for ours, theirs in zip(trajectory(run), trajectory(expected), strict=True):
        assert ours == pytest.approx(theirs, rel=tolerance, abs=tolerance)
    ours, theirs = load_file(run / weights), load_file(expected / weights)
    assert set(ours) - set(theirs) <= {"lm_head.weight"}, "engines write a tied head of its own"
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in theirs) < tolerance
    assert max(map(moved, theirs.values())) > 1e-3


def moved(weight: Tensor) -> float:
    return float(weight.abs().max())


# --- DDP, by the command line -------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def ddp(home: Home) -> Path:
    """A LoRA run of two processes that torchrun started."""
    recipe = home.written("lora.yaml", home.recipe("lora") | {"score": {"dir": str(home.folder / "scores-two")}})
    out = home.folder / "ddp-lora"
    launch([*TORCHRUN, "-m", "bdpo", "train", "--config", recipe, "--out", str(out)])
    return out


def test_two_processes_score_the_folder_of_one(home: Home, ddp: Path) -> None:
    two, one = open_scores(home.folder / "scores-two"), open_scores(home.alone("lora").with_name("scores-one-lora"))
    assert two.manifest == one.manifest
    for part in sorted((one.path / "data").glob("*.parquet")):
        assert (two.path / "data" / part.name).read_bytes() == part.read_bytes()


def test_lora_by_torchrun_follows_one_process(home: Home, ddp: Path) -> None:
    assert json.loads((ddp / "step.json").read_text()) == {"pairs_per_step": 4}, "2 x 1 x two processes"
    assert_same_run(ddp, home.alone("lora"), ADAPTER)


def test_a_checkpoint_of_two_processes_resumes_in_one(home: Home, ddp: Path, tmp_path: Path) -> None:
    run_recipe(parse_recipe(home.recipe("lora", accumulation=2)), cut(ddp, 10, tmp_path), resume=True)
    assert_same_run(tmp_path, home.alone("lora"), ADAPTER)


def test_a_checkpoint_of_one_process_resumes_in_two(home: Home, tmp_path: Path) -> None:
    cut(home.alone("full"), 10, tmp_path)
    recipe = home.written("full.yaml", home.recipe("full"))
    resume = ["-m", "bdpo", "train", "--config", recipe, "--out", str(tmp_path), "--resume"]
    launch([*ACCELERATE, str(CONFIGS / "ddp.yaml"), *resume])
    assert_same_run(tmp_path, home.alone("full"), MODEL)


# --- sharded engines, by their configs ----------------------------------------------------------------------------
def sharded(home: Home, engine: str, config: str, names: list[str], **environment: str) -> Path:
    arguments = []
    for name in names:
        configured: dict[str, Any] = {"accelerator_config": {"use_configured_state": True}}
        if name == "lora":  # other micro-batches of the same steps
            configured["tokens_per_batch"] = 400
        scores = {"score": {"dir": str(home.folder / f"scores-{config}-{name}")}}
        arguments.append(home.written(f"{config}-{name}.yaml", home.recipe(name, **configured) | scores))
        arguments.append(str(home.folder / f"{config}-{name}"))
    place = next(folder / f"{config}.yaml" for folder in (CONFIGS, home.folder) if (folder / f"{config}.yaml").exists())
    launch([*ACCELERATE, str(place), WORKER, "run", engine, *arguments], **environment)
    return home.folder / config


def assert_same_scores(home: Home, config: str, *names: str) -> None:
    """The scored folders are those of one process, to 1e-5 nats/token and, of sums, 1e-6 of their size."""
    for name in names:
        two, one = (open_scores(home.alone(name).with_name(f"scores-{by}-{name}")) for by in (config, "one"))
        assert two.manifest == one.manifest
        for side in ("chosen", "rejected"):
            assert two.rows[f"{side}_mi"] == pytest.approx(one.rows[f"{side}_mi"], abs=1e-5)
            assert two.rows[f"ref_{side}_logps"] == pytest.approx(one.rows[f"ref_{side}_logps"], rel=1e-6)


def test_fsdp2_scores_by_shares_follows_one_process_and_resumes(home: Home) -> None:
    place = sharded(home, "FSDP", "fsdp2", ["full", "lora"])
    assert_same_scores(home, "fsdp2", "full", "lora")
    assert_same_run(Path(f"{place}-full"), home.alone("full"), MODEL)
    assert_same_run(Path(f"{place}-full-resumed"), home.alone("full"), MODEL)
    assert_same_run(Path(f"{place}-lora"), home.alone("lora"), ADAPTER)


with_deepspeed = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed")


@with_deepspeed
@pytest.mark.parametrize("config", ["zero2", "zero3"])
def test_deepspeed_follows_one_process_and_resumes(home: Home, config: str) -> None:
    place = sharded(home, "DEEPSPEED", config, ["full", "lora"], DS_ACCELERATOR="cpu")
    assert_same_scores(home, config, "full", "lora")
    assert_same_run(Path(f"{place}-full"), home.alone("full"), MODEL)
    assert_same_run(Path(f"{place}-full-resumed"), home.alone("full"), MODEL)
    assert_same_run(Path(f"{place}-lora"), home.alone("lora"), ADAPTER)


@with_deepspeed
def test_zero3_by_a_config_file_of_deepspeeds_own_scores_by_shares_and_saves_whole_weights(home: Home) -> None:
    auto = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
    own = home.folder / "zero3.json"
    own.write_text(json.dumps({name: "auto" for name in auto} | {"zero_optimization": {"stage": 3}}))
    launched = yaml.safe_load((CONFIGS / "zero3.yaml").read_text())
    del launched["mixed_precision"]  # accelerate refuses it beside a file
    home.written("file3.yaml", launched | {"deepspeed_config": {"deepspeed_config_file": str(own)}})
    place = sharded(home, "DEEPSPEED", "file3", ["full"], DS_ACCELERATOR="cpu")
    assert_same_scores(home, "file3", "full")
    assert_same_run(Path(f"{place}-full"), home.alone("full"), MODEL)


# --- a process that fails ------------------------------------------------------------------------------------------
def dying(home: Home, how: str) -> str:
    """Standard error of a launch whose rank 1 fails at its third step while rank 0 waits for it."""
    scores = home.alone("lora").with_name("scores-one-lora")
    recipe = home.written("dying.yaml", home.recipe("lora") | {"score": {"dir": str(scores)}})
    out = home.folder / f"dying-{how}"
    return launch([*TORCHRUN, WORKER, "die", how, "train", "--config", recipe, "--out", str(out)], code=1)


def test_an_error_on_one_rank_ends_the_run_with_its_sentence(home: Home) -> None:
    said = dying(home, "softly")
    assert said.count(f"bdpo: {REASON}") == 1
    assert "local_rank: 1" in said


def test_a_rank_that_is_killed_ends_the_run_and_is_named(home: Home) -> None:
    said = dying(home, "hard")
    assert "exitcode  : 77" in said
    assert "local_rank: 1" in said


def test_an_error_on_all_ranks_is_said_once(home: Home) -> None:
    said = launch([*TORCHRUN, "-m", "bdpo", "train", "--set", "los.name=dpo", "--out", str(home.folder / "x")], code=1)
    assert said.count("bdpo: ") == 1
    assert "did you mean 'loss'" in said


# --- the configs ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_config_is_whole_and_names_its_own_command(config: Path) -> None:
    text = config.read_text()
    assert f"accelerate launch --config_file configs/accelerate/{config.name} --num_processes 8 -m bdpo train" in text
    loaded = load_config_from_file(str(config))  # refuses keys that it does not know
    assert loaded.mixed_precision == "no", "the recipe says it"
    assert loaded.main_process_port == 0
    assert str(loaded.fsdp_config.get("fsdp_cpu_ram_efficient_loading", "false")).lower() == "false"
    assert not loaded.deepspeed_config.get("zero3_init_flag", False)
