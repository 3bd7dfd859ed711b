"""What training prints: widths, the numbers of the table at the end, and that the last step is always logged."""

import io
import os
import pty
import re
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from transformers import TrainerCallback

import bdpo.train.shown as shown
from bdpo.score.folder import ScoredData
from bdpo.terminal import LiveLine, bar
from bdpo.train import BDPOTrainer
from bdpo.train.shown import Shown, forms, print_training
from plain_dpo import Make

ROOM = {"loss": 0.69314, "rewards/accuracies": 0.625, "rewards/margins": 0.1234, "logratios/chosen": -1.234,
        "learning_rate": 3e-4, "grad_norm": 1.5, "imbalance_low/loss": 3.0}  # fmt: skip


def windows(trainer: BDPOTrainer) -> list[tuple[int, int, int]]:
    """Step, steps and pairs of each window of training that was logged."""
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    return [(entry["step"], entry["window/steps"], entry["window/pairs"]) for entry in logged]


def table(history: list[dict[str, Any]], width: int = 80) -> str:
    out = io.StringIO()
    print_training(history, Console(file=out, width=width))
    return out.getvalue()


# --- the last step -------------------------------------------------------------------------------------------------
def test_the_last_step_is_logged_and_each_pair_once(make: Make) -> None:
    trainer = make(logging_steps=4)  # 21 pairs: steps of 8, 8 and 5, twice
    trainer.train()
    assert windows(trainer) == [(4, 4, 8 + 8 + 5 + 8), (6, 2, 8 + 5)]
    trainer.train()
    assert windows(trainer)[-2:] == [(4, 4, 29), (6, 2, 13)], "trained once more, it counts from the beginning"


def test_the_last_step_is_logged_where_a_callback_ends_training(make: Make, held_out: ScoredData) -> None:
    class Stop(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_training_stop = state.global_step == 2

    class StopAtEvaluation(TrainerCallback):
        def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_training_stop = True

    trainer = make(logging_steps=10)
    trainer.callback_handler.callbacks.insert(0, Stop())
    trainer.train()
    assert windows(trainer) == [(2, 2, 16)]
    trainer = make(logging_steps=10, eval=held_out, eval_strategy="steps", eval_steps=4)
    trainer.add_callback(StopAtEvaluation())
    trainer.train()
    assert windows(trainer) == [(4, 4, 29)]


def test_nothing_is_logged_where_nothing_is_to_be(make: Make) -> None:
    trainer = make(logging_strategy="no")
    trainer.train()
    assert windows(trainer) == []


# --- the table -----------------------------------------------------------------------------------------------------
def test_the_training_column_is_the_mean_of_the_steps_that_it_names(make: Make, held_out: ScoredData) -> None:
    each, two = make(logging_steps=1), make(logging_steps=4, eval=held_out)
    for trainer in (each, two):
        trainer.train()
    two.evaluate()
    five, six = [entry for entry in each.state.log_history if "loss" in entry][-2:]
    assert (five["window/pairs"], six["window/pairs"]) == (8, 5)
    held = two.state.log_history[-1]
    printed = table(two.state.log_history)
    assert "training, steps 5-6, 13 pairs" in printed and "held out, step 6" in printed
    cells = [line.split("│") for line in printed.splitlines() if line.count("│") == 2]
    row = {name.strip(): [float(trained), float(said)] for name, trained, said in cells}
    assert row["loss"] == pytest.approx([(five["loss"] + six["loss"]) / 2, held["eval_loss"]], abs=6e-4)
    for name, key in (("preference accuracy", "rewards/accuracies"), ("reward margin", "rewards/margins"),
                      ("chosen log-ratio [nats]", "logratios/chosen"),
                      ("rejected log-ratio [nats]", "logratios/rejected")):  # fmt: skip
        assert row[name] == pytest.approx([(8 * five[key] + 5 * six[key]) / 13, held[f"eval_{key}"]], abs=6e-4)


def test_the_table_says_what_is_missing_and_fits(make: Make) -> None:
    assert table([]) == "No step of training was logged.\n"
    assert "No step of training" in table([{"eval_loss": 0.5, "step": 0}]) and "0.500" in table([{"eval_loss": 0.5}])
    last = {"loss": 0.5, "step": 12000, "window/steps": 500, "window/pairs": 16000}
    assert re.search(
        r"training, +┃ .*\n.*steps 11501-12000, 16000 pairs +┃", table([last, {"eval_loss": 0.5, "step": 7}])
    )
    for width in (80, 120):
        assert max(map(len, table([last, {"eval_loss": 0.5, "step": 12000}], width).splitlines())) <= width
    assert "training, step 7, 8 pairs" in table([last | {"step": 7, "window/steps": 1, "window/pairs": 8}])


def test_from_python_the_table_comes_at_the_end_of_train_alone(make: Make, capsys: Any) -> None:
    make(disable_tqdm=False, max_steps=1).train()
    assert capsys.readouterr().out.count("training, step 1, 8 pairs") == 1
    make(disable_tqdm=True, max_steps=1).train()
    assert capsys.readouterr().out == ""


# --- lines ---------------------------------------------------------------------------------------------------------
def test_each_form_of_a_line_has_its_room() -> None:
    long, middle, short, tight = forms("step 1234/2000", ROOM, left="12 min left")
    assert long == ("step 1234/2000  loss 0.6931  accuracy 0.62  margin +0.123  chosen log-ratio -1.23  "
                    "learning rate 3.0e-04  12 min left")  # fmt: skip
    assert middle == "1234/2000  loss 0.6931  acc 0.62  margin +0.123  chosen -1.23  lr 3.0e-04  12 min left"
    assert short == "1234/2000  loss 0.693  acc 0.62  margin +0.12  chosen -1.2  lr 3e-04  12 min left"
    assert 80 < len(long) <= 120 and len(tight) <= 80 and tight.split() == short.split()
    assert forms("step 1/2", {"rewards/margins": -0.0001})[0] == "step 1/2  margin +0.000"


@pytest.mark.parametrize("disable_tqdm", [True, False])
def test_off_a_terminal_there_are_plain_lines_without_dictionaries(
    make: Make, held_out: ScoredData, capsys: Any, disable_tqdm: bool
) -> None:
    trainer = make(logging_steps=4, eval=held_out, eval_strategy="steps", eval_steps=6, disable_tqdm=disable_tqdm)
    trainer.train()
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step ")]
    assert max(map(len, lines)) <= 120 and not any(mark in line for line in lines for mark in "{}'")
    told = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [line.split("  ")[:2] for line in lines] == [
        ["step 4/6", f"loss {told[0]['loss']:.4f}"],
        ["step 6/6", f"loss {told[1]['loss']:.4f}"],
        ["step 6/6", "held out:"],
        ["step 6/6", lines[3].split("  ")[1]],
    ]
    trainer.evaluate()
    assert "held out" not in capsys.readouterr().err, "it was said already"
    assert re.fullmatch(r"step 6/6  trained in \d+ s, [\d.e+]+ pairs/s, mean loss 0\.\d{4}", lines[3])
    assert re.search(r"  \d+ s left$", lines[0]) and "left" not in lines[1]


def test_what_others_log_is_a_line_that_commands_nothing(capsys: Any) -> None:
    state = SimpleNamespace(is_world_process_zero=True, global_step=3, max_steps=9)
    Shown().on_log(None, state, None, logs={"evaluate/x\x1b[2J": 0.25, "epoch": 0.5, **{f"n{i}": 1 for i in range(40)}})
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(r"step 3/9  evaluate/x\x1b[2J 0.25  n0 1  n1 1") and "epoch" not in lines[0]
    assert len(lines) == 3 and max(map(len, lines)) <= 120
    Shown().on_log(None, SimpleNamespace(is_world_process_zero=False), None, logs={"loss": 1.0})
    assert capsys.readouterr() == ("", "")


# --- in a terminal -------------------------------------------------------------------------------------------------
@contextmanager
def terminal(columns: int = 80) -> Iterator[list[str]]:
    """Standard error is a terminal; what came out of it is in the list when it is closed."""
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, columns))
    said: list[bytes] = []
    reader = threading.Thread(target=lambda: [said.append(piece) for piece in iter(lambda: _read(leader), b"")])
    reader.start()
    shown: list[str] = []
    with pytest.MonkeyPatch.context() as patch, os.fdopen(follower, "w", buffering=1) as stream:
        for name, value in {"TERM": "xterm", "COLUMNS": f"{columns}", "LINES": "24"}.items():
            patch.setenv(name, value)
        patch.setattr(sys, "stderr", stream)
        yield shown
        assert sys.stderr is stream, "and no other"
    reader.join()
    os.close(leader)
    shown.append(b"".join(said).decode())


def _read(leader: int) -> bytes:
    try:
        return os.read(leader, 65536)
    except OSError:  # the other end is closed
        return b""


def test_in_a_terminal_one_line_is_written_anew(
    make: Make, held_out: ScoredData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shown, "_OFTEN", 0)
    trainer = make(logging_steps=4, eval=held_out, eval_strategy="steps", eval_steps=6, disable_tqdm=False)
    with terminal() as told:
        trainer.train()
    said = told[0]
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).strip() for line in re.split(r"[\r\n]", said)]
    assert said.count("\x1b[2K") >= 6 and said.endswith("\r\n")
    assert said.count("\x1b[?25l") == said.count("\x1b[?25h"), "the cursor is shown again"
    loss = next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)
    assert any(re.match(r"step 1/6  \d+ s left$", line) for line in lines)
    assert any(re.match(rf"5/6  loss {loss:.4f}  acc \d.\d\d  margin", line) for line in lines)
    assert max(map(len, lines)) <= 80 and sum("held out:" in line for line in lines) == 1


def test_a_bar_takes_the_place_of_the_line_until_it_is_written_again() -> None:
    with terminal(40) as told:
        line = LiveLine()
        line.show(["a line that is too long for forty columns of it", "short"])
        with bar("scoring", 2, "tok") as progress:
            progress.update(2)
        line.show(["again"])
        line.close()
    parts = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", told[0]))
    first, *bars, last = dict.fromkeys(part for part in parts if part.strip())
    assert (first, last) == ("short", "again") and max(map(len, bars)) <= 40
    assert [part.split("|")[0] for part in bars] == ["scoring:   0%", "scoring: 100%"]
    assert told[0].count("\x1b[?25l") == told[0].count("\x1b[?25h") == 2


def test_the_terminal_is_left_as_it_was_where_training_stops(make: Make) -> None:
    class Stop(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 2:
                raise KeyboardInterrupt

    trainer = make(disable_tqdm=False)
    trainer.add_callback(Stop())
    with terminal() as told, pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert told[0].count("\x1b[?25l") == told[0].count("\x1b[?25h") == 1, "the cursor is shown again"
