"""Fixtures of stage 3."""

import pytest


@pytest.fixture(autouse=True)
def no_folder_named(monkeypatch):
    monkeypatch.delenv("BDPO_DATA_DIR", raising=False)


@pytest.fixture
def no_key_and_no_pauses(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    pauses = []
    monkeypatch.setattr("bdpo.endpoint._wait", pauses.append)
    return pauses
