"""Fixtures of stage 1."""

import pytest

from bdpo.forward import passes
from bdpo.score import known, scoring, sources
from tiny import tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(autouse=True)
def small_parts(monkeypatch, tmp_path):
    """Three parts for twelve pairs, and a cache of the test's own."""
    monkeypatch.setattr(scoring, "PART_SIZE", 4)
    monkeypatch.setenv("BDPO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))


@pytest.fixture
def use(monkeypatch):
    """Choose a layout by name in place of the model's own."""
    return lambda layout: monkeypatch.setattr(sources, "choose_layout", lambda *_: (layout, "the test says so"))


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """Every folder is scored as if none lay beside it, so that tests may compare them; test_known.py is of those."""
    monkeypatch.setattr(known, "_tables", lambda out, manifest: iter(()))


@pytest.fixture
def counted(monkeypatch):
    """Response tokens of each forward pass."""
    tokens = []
    branch_logps = passes.branch_logps

    def of(model, batch, **how):
        tokens.append(int(batch.lengths.sum()))
        return branch_logps(model, batch, **how)

    monkeypatch.setattr(passes, "branch_logps", of)
    return tokens
