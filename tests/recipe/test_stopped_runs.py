"""A run that was stopped or damaged: what is resumed, begun again or refused, and that nothing differs."""

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

import bdpo.recipe.run
from bdpo.errors import BdpoError
from bdpo.pairs import write_pairs
from bdpo.processes import Stopped
from bdpo.recipe.checkpoints import find_checkpoints
from bdpo.recipe.folder import how_to_go_on
from bdpo.recipe.run import run_recipe
from bdpo.recipe.sections import BalanceSection, Recipe, parse_recipe
from tiny import make_pairs, tiny_model, tiny_tokenizer

STATE = ["adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"]
STEPS = 7  # of 4 pairs of 21: the sixth ends an epoch, the seventh does not


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a tiny model, its pairs and the run of `recipe_in` that nothing stopped."""
    home = tmp_path_factory.mktemp("home")
    tiny_model().save_pretrained(home / "model")
    tiny_tokenizer().save_pretrained(home / "model")
    write_pairs(home / "pairs.jsonl", make_pairs(21))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BDPO_CACHE", str(home / "cache"))
        run_recipe(recipe_in(home), home / "whole")
        yield home


def recipe_in(home: Path, **train: Any) -> Recipe:
    """LoRA, `STEPS` steps, checkpoints of 2, 4, 6 and the last, of which three are kept."""
    given: dict[str, Any] = {
        "use_cpu": True, "disable_tqdm": True, "per_device_train_batch_size": 4, "max_steps": STEPS,
        "learning_rate": 1e-3, "logging_steps": 1, "save_strategy": "steps", "save_steps": 2,
        "save_total_limit": 3,
    }  # fmt: skip
    data = {"train": str(home / "pairs.jsonl")}
    return parse_recipe(
        {"model": {"name": str(home / "model")}, "data": data, "peft": {"r": 4}, "train": given | train}
    )


def result(run: Path) -> tuple[bytes, list[float]]:
    """The adapter's bytes, and the loss of each step and of all."""
    metrics = json.loads((run / "metrics.json").read_text())
    losses = [e["loss"] for e in metrics["history"] if "loss" in e]
    return (run / "adapter_model.safetensors").read_bytes(), [*losses, metrics["final"]["train_loss"]]


def checkpoint_names(run: Path) -> list[str]:
    return sorted(path.name for path in run.glob("checkpoint-*"))


@pytest.fixture
def stopped(home: Path, tmp_path: Path) -> Path:
    """The run as it was after the checkpoint of step 6."""
    run = tmp_path / "run"
    for checkpoint in ("checkpoint-4", "checkpoint-6"):
        shutil.copytree(home / "whole" / checkpoint, run / checkpoint)
    for record in ("recipe.yaml", "scores.json", "step.json"):
        shutil.copy(home / "whole" / record, run)
    return run


class Send(TrainerCallback):
    """Sends a signal at an event of a step."""

    def __init__(self, number: signal.Signals, event: str, step: int) -> None:
        def send(args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == step:
                signal.raise_signal(number)

        setattr(self, event, send)


# --- determinism ---------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bytes(home: Path, tmp_path: Path) -> None:
    run_recipe(recipe_in(home), tmp_path / "again")
    assert result(tmp_path / "again") == result(home / "whole")
    run_recipe(recipe_in(home, seed=43), tmp_path / "other")
    assert result(tmp_path / "other")[0] != result(home / "whole")[0]


# --- checkpoints ----------------------------------------------------------------------------------------------------


def test_a_manifest_has_every_file_and_its_step(home: Path) -> None:
    checkpoint = home / "whole" / "checkpoint-6"
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    assert (manifest["step"], manifest["resumable"]) == (6, True)
    assert set(manifest["files"]) | {"manifest.json"} == {path.name for path in checkpoint.iterdir()}
    assert set(STATE) < set(manifest["files"])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "file", ["adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"]
)
@pytest.mark.parametrize(("harm", "fault"), [(Path.unlink, "missing"), (flip, "damaged")])
def test_a_damaged_checkpoint_is_passed_over_by_name(
    stopped: Path, file: str, harm: Callable[[Path], None], fault: str
) -> None:
    harm(stopped / "checkpoint-6" / file)
    found = find_checkpoints(stopped)
    assert found.complete == stopped / "checkpoint-4"
    assert found.passed_over == {stopped / "checkpoint-6": f"{file} is {fault}"}


def test_what_is_no_whole_checkpoint_is_passed_over(stopped: Path) -> None:
    (stopped / "checkpoint-99").mkdir()
    (stopped / "checkpoint-best").mkdir()
    (stopped / "checkpoint-100").touch()
    shutil.copytree(stopped / "checkpoint-6", stopped / "checkpoint-8")
    (stopped / "checkpoint-6" / "manifest.json").write_text("{}")
    assert find_checkpoints(stopped).passed_over == {
        stopped / "checkpoint-99": "it was not written to its end",
        stopped / "checkpoint-8": "it is a copy of checkpoint-6",
        stopped / "checkpoint-6": "its manifest.json is damaged",
    }


def test_resuming_takes_the_newest_complete_checkpoint_names_others_and_ends_alike(
    stopped: Path, home: Path, capsys: pytest.CaptureFixture
) -> None:
    flip(stopped / "checkpoint-6" / "optimizer.pt")
    (stopped / "checkpoint-99").mkdir()
    run_recipe(recipe_in(home), stopped, resume=True)
    said = capsys.readouterr().err
    assert f"{stopped}/checkpoint-6 is passed over: optimizer.pt is damaged.\n" in said
    assert f"{stopped}/checkpoint-99 is passed over: it was not written to its end.\n" in said
    assert result(stopped) == result(home / "whole")
    assert checkpoint_names(stopped) == ["checkpoint-4", "checkpoint-6", "checkpoint-7"]
    curves = [(run / "curves.svg").read_bytes() for run in (stopped, home / "whole")]
    assert curves[0] == curves[1], "of all steps, also those before the stop"


def test_where_no_checkpoint_is_complete_resuming_is_refused_and_beginning_is_not(stopped: Path, home: Path) -> None:
    shutil.rmtree(stopped / "checkpoint-4")
    (stopped / "checkpoint-6" / "scheduler.pt").unlink()
    said = r"no checkpoint to resume from \(checkpoint-6: scheduler.pt is missing\): leave --resume out, to begin again"
    with pytest.raises(BdpoError, match=said):
        run_recipe(recipe_in(home), stopped, resume=True)
    assert checkpoint_names(stopped) == ["checkpoint-6"]
    run_recipe(recipe_in(home), stopped)
    assert result(stopped) == result(home / "whole")


def test_a_run_that_saves_the_model_alone_is_not_resumed(home: Path, tmp_path: Path) -> None:
    run, recipe = tmp_path / "run", recipe_in(home, save_only_model=True)
    with pytest.raises(Stopped):
        run_recipe(recipe, run, callbacks=[Send(signal.SIGTERM, "on_step_end", 3)])
    assert checkpoint_names(run) == ["checkpoint-2"]
    with pytest.raises(
        BdpoError, match=r"checkpoint-2: it holds the model alone, as train.save_only_model says\): choose"
    ):
        run_recipe(recipe, run, resume=True)
    with pytest.raises(BdpoError, match="run is not empty: choose another --out, or remove it"):
        run_recipe(recipe, run)
    assert how_to_go_on(run) == "to begin again choose another --out, or remove it"


def test_old_checkpoints_go_only_when_the_next_is_complete(home: Path, tmp_path: Path) -> None:
    seen = []

    class Look(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            seen.append(checkpoint_names(tmp_path / "run"))

    run_recipe(recipe_in(home, save_total_limit=1), tmp_path / "run", callbacks=[Look()])
    assert seen == [[f"checkpoint-{step}" for step in steps] for steps in ((2,), (2, 4), (4, 6), (6, 7))]
    assert checkpoint_names(tmp_path / "run") == ["checkpoint-7"]


def test_a_checkpoint_of_the_last_step_is_resumed_without_a_further_one(stopped: Path, home: Path) -> None:
    shutil.copytree(home / "whole" / "checkpoint-7", stopped / "checkpoint-7")
    manifest = stopped / "checkpoint-7" / "manifest.json"
    before = manifest.stat().st_mtime_ns
    resumed = run_recipe(recipe_in(home), stopped, resume=True)
    assert resumed.trainer.state.global_step == STEPS
    assert result(stopped) == result(home / "whole")
    assert manifest.stat().st_mtime_ns == before, "it is not written again"


@pytest.mark.parametrize("balance", [{"center": "mean"}, {"weighting": "permuted"}], ids=lambda b: "-".join(b.values()))
def test_a_resumed_run_weighs_its_pairs_as_the_run_that_nothing_stopped(
    home: Path, tmp_path: Path, balance: dict[str, str]
) -> None:
    recipe = recipe_in(home).model_copy(update={"balance": BalanceSection(**balance)})
    whole = run_recipe(recipe, tmp_path / "whole")
    with pytest.raises(Stopped):
        run_recipe(recipe, tmp_path / "run", callbacks=[Send(signal.SIGTERM, "on_step_begin", 2)])
    resumed = run_recipe(recipe, tmp_path / "run", resume=True)
    ours, theirs = resumed.trainer.balance, whole.trainer.balance
    assert ours.fit == theirs.fit and torch.equal(ours.chosen_weight, theirs.chosen_weight)
    assert result(tmp_path / "run") == result(tmp_path / "whole")
    assert result(tmp_path / "run")[0] != result(home / "whole")[0], "the option reaches the loss"
    card = (tmp_path / "run" / "README.md").read_text()
    assert f"tau {ours.fit.tau:.4g} nats/token, mean imbalance taken off {ours.fit.mean:.4g}" in card


# --- stops ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "event", "step", "kept"),
    [
        (signal.SIGTERM, "on_step_begin", 2, 3),  # the step under way is finished
        (signal.SIGINT, "on_pre_optimizer_step", 4, 5),
        (signal.SIGTERM, "on_save", 4, 5),
        (signal.SIGINT, "on_step_end", 6, 6),  # the end of an epoch, where a checkpoint was due anyway
        (signal.SIGTERM, "on_step_end", STEPS, STEPS),
    ],
)
def test_a_signal_stops_with_a_checkpoint_and_the_run_ends_alike(
    home: Path, tmp_path: Path, number: signal.Signals, event: str, step: int, kept: int
) -> None:
    run = tmp_path / "run"
    with pytest.raises(Stopped) as stop:
        run_recipe(recipe_in(home), run, callbacks=[Send(number, event, step)])
    assert stop.value.number == number
    assert find_checkpoints(run).complete == run / f"checkpoint-{kept}"
    assert how_to_go_on(run) == "run the same command again with --resume"
    run_recipe(recipe_in(home), run, resume=True)
    assert result(run) == result(home / "whole")


def test_a_signal_before_the_first_step_stops_at_once(home: Path, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run_recipe(recipe_in(home), tmp_path / "run", callbacks=[Send(signal.SIGTERM, "on_train_begin", 0)])
    assert checkpoint_names(tmp_path / "run") == []
    assert how_to_go_on(tmp_path / "run") == "run the same command again"


def test_a_run_without_checkpoints_writes_one_when_it_is_stopped(home: Path, tmp_path: Path) -> None:
    recipe = recipe_in(home, save_strategy="no")
    with pytest.raises(Stopped):
        run_recipe(recipe, tmp_path / "run", callbacks=[Send(signal.SIGINT, "on_step_begin", 4)])
    assert checkpoint_names(tmp_path / "run") == ["checkpoint-5"]
    run_recipe(recipe, tmp_path / "run", resume=True)
    assert result(tmp_path / "run") == result(home / "whole")


def test_a_signal_during_the_final_save_is_waited_with(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_end = bdpo.recipe.run._write_end

    def stopped(*args: Any) -> None:
        signal.raise_signal(signal.SIGTERM)
        write_end(*args)

    monkeypatch.setattr(bdpo.recipe.run, "_write_end", stopped)
    run, recipe = tmp_path / "run", recipe_in(home, save_strategy="no")
    with pytest.raises(Stopped):
        run_recipe(recipe, run)
    assert result(run) == result(home / "whole") and how_to_go_on(run) == "the run is finished"
    for resume, said in ((False, "run holds a finished run: choose"), (True, "no checkpoint to resume from: choose")):
        with pytest.raises(BdpoError, match=said):
            run_recipe(recipe, run, resume=resume)


# --- the result -------------------------------------------------------------------------------------------------------


def test_a_result_that_was_written_but_not_moved_is_moved_by_the_next_command(home: Path, tmp_path: Path) -> None:
    run, recipe = tmp_path / "run", recipe_in(home, save_strategy="no")
    run_recipe(recipe, run)
    saved = run / ".saved"
    saved.mkdir()
    for name in ("README.md", "metrics.json", "adapter_model.safetensors"):  # the others were moved before the stop
        (run / name).rename(saved / name)
    with pytest.raises(BdpoError, match="finished run"):
        run_recipe(recipe, run)
    assert result(run) == result(home / "whole") and not saved.exists()


def test_half_a_result_is_nothing_to_lose(home: Path, tmp_path: Path) -> None:
    run, recipe = tmp_path / "run", recipe_in(home, save_strategy="no")
    (run / ".saving").mkdir(parents=True)
    (run / ".saving" / "adapter_config.json").write_text("{")
    for record in ("recipe.yaml", "scores.json", "step.json"):
        shutil.copy(home / "whole" / record, run)
    with pytest.raises(BdpoError, match="no checkpoint to resume from: leave --resume out, to begin again"):
        run_recipe(recipe, run, resume=True)
    run_recipe(recipe, run)
    assert result(run) == result(home / "whole") and not (run / ".saving").exists()


def test_no_room_for_a_manifest_is_no_room_for_its_checkpoint(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, write = tmp_path / "run", Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if path.name.startswith(".manifest.json") and path.parent.name == "checkpoint-4":
            raise OSError(28, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    said = (
        r"Cannot write in .*run \(No space left on device\): make room; then run the same command again with --resume\."
    )
    with pytest.raises(BdpoError, match=said):
        run_recipe(recipe_in(home), run)
    assert checkpoint_names(run) == ["checkpoint-2"]


@pytest.mark.parametrize(
    ("writer", "resumed"),
    [("torch.save", "checkpoint-2"), ("bdpo.recipe.run._write_end", "checkpoint-7")],
)
def test_a_full_disk_is_one_sentence_and_with_room_the_run_goes_on(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str, resumed: str
) -> None:
    run = tmp_path / "run"
    write = torch.save if writer == "torch.save" else bdpo.recipe.run._write_end

    def full(*args: Any, **kwargs: Any) -> None:
        if writer != "torch.save" or "checkpoint-4" in str(args[1]):
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534")
        write(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(writer, full)
        said = r"Cannot write in .*run \(no room is left\): make room; then run the same command again with --resume\."
        with pytest.raises(BdpoError, match=said):
            run_recipe(recipe_in(home), run)
    assert find_checkpoints(run).complete == run / resumed and find_checkpoints(run).passed_over == {}
    run_recipe(recipe_in(home), run, resume=True)
    assert result(run) == result(home / "whole")


# --- records ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "content", "says"),
    [
        ("recipe.yaml", "", r"recipe\.yaml is not as it was written \(.*\): bring it back, or choose another --out"),
        ("recipe.yaml", "model:\n  name: [", r"recipe\.yaml is not as it was written \(.*\): bring it back"),
        ("recipe.yaml", "model:\n  name: starter\n", r"recipe\.yaml is not as it was written \(sections are missing\)"),
        ("scores.json", "", r"scores\.json is not JSON \(.*\): bring it back, or choose another --out"),
        ("scores.json", "{}", r"scores\.json holds no 'key', or not as it was written: bring it back"),
        ("step.json", '{"pairs', r"step\.json is not JSON \(.*\): bring it back"),
        ("step.json", '{"pairs_per_step": "4"}', r"step\.json holds no 'pairs_per_step'"),
    ],
)
def test_a_torn_record_is_one_sentence(stopped: Path, home: Path, record: str, content: str, says: str) -> None:
    (stopped / record).write_text(content)
    with pytest.raises(BdpoError, match=says):
        run_recipe(recipe_in(home), stopped, resume=True)
    shutil.copy(home / "whole" / record, stopped)
    run_recipe(recipe_in(home), stopped, resume=True)
    assert result(stopped) == result(home / "whole")
