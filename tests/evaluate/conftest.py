"""Fixtures of stage 3."""

import pytest


@pytest.fixture(autouse=True)
def no_folder_named(monkeypatch):
    monkeypatch.delenv("BDPO_DATA_DIR", raising=False)
