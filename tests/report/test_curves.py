"""curves.svg of a run: every logged value is a point of its curve, at its height."""

import re
from pathlib import Path

import numpy as np
import pytest

from bdpo.report.figures_training import at_a_glance

HISTORY = [
    {"step": 2, "loss": 0.69, "rewards/accuracies": 0.5, "rewards/margins": 0.0, "logratios/chosen": 0.1,
     "logratios/rejected": -0.1},
    {"step": 2, "evaluate/starter-unsafe": 0.5},
    {"step": 6, "loss": 0.41, "rewards/accuracies": 0.75, "rewards/margins": 0.8, "logratios/chosen": -2.0,
     "logratios/rejected": -5.0},
    {"step": 6, "eval_loss": 0.55, "eval_rewards/accuracies": 0.6, "eval_rewards/margins": 0.3,
     "eval_logratios/chosen": -2.5, "eval_logratios/rejected": -4.0},
    {"step": 8, "loss": 0.33, "rewards/accuracies": 1.0, "rewards/margins": 1.1, "logratios/chosen": -3.0,
     "logratios/rejected": -9.0},
    {"step": 8, "train_loss": 0.5},
]  # fmt: skip
SERIES = [
    "training",
    "held out",
    "chosen reply",
    "chosen reply, held out",
    "rejected reply",
    "rejected reply, held out",
]


def lines(svg: str, series: str) -> list[np.ndarray]:
    """The places (n, 2) of each line of a series, in the order of the figure's parts."""
    drawn = re.findall(rf'<g id="s{SERIES.index(series)}">\s*<path d="([^"]*)"', svg)
    return [np.array(re.findall(r"[ML] (\S+) (\S+)", path), dtype=float) for path in drawn]


def test_every_logged_value_is_a_point_at_its_height(tmp_path: Path) -> None:
    at_a_glance(HISTORY).save(tmp_path, kinds=["svg"])
    assert [path.name for path in tmp_path.iterdir()] == ["curves.svg"]
    svg = (tmp_path / "curves.svg").read_text()
    keys = {"training": ["loss", "rewards/accuracies", "rewards/margins"], "chosen reply": ["logratios/chosen"],
            "rejected reply": ["logratios/rejected"]}  # fmt: skip
    trained = [entry for entry in HISTORY if "loss" in entry]
    for series, of in keys.items():
        for places, key in zip(lines(svg, series), of, strict=True):
            values = [entry[key] for entry in trained]
            across, up = (np.ptp(part) / np.ptp(said) for part, said in zip(places.T, ([2, 6, 8], values), strict=True))
            assert places[:, 0] - places[0, 0] == pytest.approx(across * (np.array([2, 6, 8]) - 2), abs=1e-3)
            assert places[0, 1] - places[:, 1] == pytest.approx(up * (np.array(values) - values[0]), abs=1e-3)
        held = {"training": "held out"}.get(series, f"{series}, held out")
        assert [len(places) for places in lines(svg, held)] == [1] * len(of)
    for told in ("training", "held out", "loss", "accuracy", "margin [nats]", "log-ratio [nats]", "optimiser step"):
        assert f">{told}</text>" in svg


def test_the_same_run_gives_the_same_bytes_and_no_logs_no_figure(tmp_path: Path) -> None:
    for name in ("one", "two"):
        at_a_glance(HISTORY).save(tmp_path / name, kinds=["svg"])
    assert (tmp_path / "one/curves.svg").read_bytes() == (tmp_path / "two/curves.svg").read_bytes()
    assert at_a_glance([{"step": 8, "train_loss": 0.5}]) is None
