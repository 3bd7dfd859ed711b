"""What a model is called elsewhere: on the hub, and where paths of this machine are nobody's business."""

import json
from pathlib import Path

import pytest

from bdpo.models.names import hub_name, told_elsewhere


def adapter(folder: Path, base: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    return folder


@pytest.mark.parametrize("name", ["Qwen/Qwen2-0.5B", "gpt2"])
def test_a_name_that_is_no_path_here_is_the_hubs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert hub_name(name) == name and hub_name(adapter(tmp_path / "run", name)) == name
    (tmp_path / name).mkdir(parents=True)
    assert hub_name(name) is None, "a folder now"


@pytest.mark.parametrize(
    "name", ["/home/me/models/x", "./x", "~/x", "a/b/c", "starter", "m.gguf", "/c/SmolLM2-135M-Instruct-f32"]
)
def test_a_path_a_file_and_the_starter_have_no_name_there(name: str, tmp_path: Path) -> None:
    assert hub_name(name) is None and hub_name(adapter(tmp_path / "run", name)) is None


def test_a_folder_of_the_hubs_cache_says_the_repository(tmp_path: Path) -> None:
    cached = tmp_path / "models--Qwen--Qwen2-0.5B" / "snapshots" / ("a" * 40)
    cached.mkdir(parents=True)
    assert hub_name(cached) == "Qwen/Qwen2-0.5B" == hub_name(adapter(tmp_path / "run", str(cached)))
    assert hub_name("/elsewhere/models--gpt2/snapshots/main") == "gpt2"


def test_an_adapter_on_adapters_or_a_damaged_one_has_no_name(tmp_path: Path) -> None:
    first = adapter(tmp_path / "first", str(tmp_path / "second"))
    adapter(tmp_path / "second", str(first))
    assert hub_name(first) is None and hub_name(adapter(tmp_path / "third", 3)) is None


def test_of_a_path_the_last_part_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert told_elsewhere("data/mine.jsonl") == "data/mine.jsonl"  # may be a name on the hub
    (tmp_path / "data").mkdir()
    (tmp_path / "data/mine.jsonl").touch()
    told = ("data/mine.jsonl", "/home/me/x.json", "~/x.json", "../x.json", "adamw_torch", "")
    assert [*map(told_elsewhere, told)] == ["mine.jsonl", "x.json", "x.json", "x.json", "adamw_torch", ""]
