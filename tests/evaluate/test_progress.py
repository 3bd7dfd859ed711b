"""Signs of life: what is said of the time that replies take, with a clock that is set by hand."""

import doctest
from pathlib import Path
from typing import Any

import pytest
import torch

from bdpo.evaluate.replies import progress
from bdpo.evaluate.replies.collect import Reply, Sampling
from bdpo.evaluate.replies.estimate import Estimate
from bdpo.evaluate.replies.generate import LocalGenerator
from bdpo.evaluate.replies.progress import Progress
from tiny import tiny_model, tiny_tokenizer


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    return now


def replies(n: int) -> list[Reply]:
    return [Reply(f"p{i}", 0, "", "end", 1, 10) for i in range(n)]


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(progress).failed == 0


def test_the_first_batch_says_how_long_all_will_take_at_most(clock: list[float]) -> None:
    ids, scores = torch.zeros(20, 3), torch.rand(20, 5)
    with Progress(50, 256) as bar:
        for _ in range(4):
            clock[0] += 0.5
            assert bar(ids, scores) is scores
        # half a second a token, 256 tokens, three batches of 20, 20 and 10: 384 s
        assert bar.bar.postfix == "token 4 of 256, at most 6 min"
        bar.add(replies(20))
        assert (bar.bar.n, bar.bar.postfix) == (20, "100 tok/s")  # 200 tokens in two seconds
        clock[0] += 1
        bar(ids, scores)
        assert bar.bar.postfix == "token 1 of 256", "from here on the bar has an estimate of its own"


def test_an_estimate_is_said_once(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    estimate = Estimate("DPO", 100)
    for batch in (10, 10, 30, 50):
        clock[0] += 2.0 * batch
        estimate(replies(batch))
    assert capsys.readouterr().err == "DPO: 20 of 100 replies are there, the others take about 3 min\n"
    few = Estimate("DPO", 8)
    for _ in range(4):
        clock[0] += 3
        few(replies(2))
    assert capsys.readouterr().err == "DPO: 4 of 8 replies are there, the others take about 6 s\n"
    Estimate("DPO", 4)(replies(4))
    assert capsys.readouterr().err == ""


def test_each_step_of_generation_is_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    def step(self: Any, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        seen.append((len(scores), self.longest))
        return scores

    monkeypatch.setattr(Progress, "__call__", step)
    model = tiny_model()
    model.generation_config.eos_token_id = None
    prompts = {f"p{i}": [{"role": "user", "content": f"number {i}"}] for i in range(3)}
    made = LocalGenerator(model, tiny_tokenizer(), 2).replies(prompts, Sampling(6))
    longest = max(reply.tokens for said in made.values() for reply in said)
    assert longest == 6 and seen[:6] == [(2, 6)] * 6
