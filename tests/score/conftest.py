"""Fixtures of stage 1."""

import pytest

from bdpo.score import scoring, sources
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
