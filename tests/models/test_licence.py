"""What a card says of a base model's licence: only what the files beside the base say."""

import json
import os
from pathlib import Path

import pytest

from bdpo.models.licence import licence_of

APACHE = "\n                                 Apache License\n                           Version 2.0, January 2004\n"
README = "---\nlanguage: en\n{}\n---\n\nlicense: mit\n"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"README.md": README.format("license: apache-2.0")}, {"license": "apache-2.0"}),
        ({"README.md": README.format("license: 'gemma'  # of Google").replace("\n", "\r\n")}, {"license": "gemma"}),
        (
            {"README.md": README.format("license: other\nlicense_name: house\nlicense_link: https://example.org/l")},
            {"license": "other", "license_name": "house", "license_link": "https://example.org/l"},
        ),
        (  # a link to a file that is not sent would lead nowhere
            {"README.md": README.format("license: other\nlicense_name: house\nlicense_link: LICENSE")},
            {"license": "other", "license_name": "house"},
        ),
        ({"README.md": README.format("license: llama2"), "LICENSE": APACHE}, {"license": "llama2"}),
        ({"README.md": README.format("tags: [a]"), "LICENSE.txt": APACHE}, {"license": "apache-2.0"}),
        ({"LICENSE": "MIT License\n\nCopyright (c) 2024"}, {"license": "mit"}),
        ({"LICENSE": "LLAMA 3.1 COMMUNITY LICENSE AGREEMENT"}, {"license": "llama3.1"}),
        ({"LICENSE": "Modified MIT License\n"}, {}),
        ({"LICENSE": "You may ask us."}, {}),
        ({"README.md": "license: mit\n"}, {}),  # no metadata
        ({"README.md": README.format("license: [mit, apache-2.0]")}, {}),
        ({"README.md": README.format("license: \x1b[31mred")}, {}),  # what a terminal would obey
        ({}, {}),
    ],
)
def test_a_folder(files: dict[str, str], expected: dict[str, str], tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text, newline="")
    assert licence_of(str(tmp_path)) == expected


def test_an_adapter_has_its_own_or_else_that_of_its_base(tmp_path: Path) -> None:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    base.mkdir()
    adapter.mkdir()
    (base / "LICENSE").write_text(APACHE)
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base), "revision": [1]}))
    assert licence_of(str(adapter)) == {"license": "apache-2.0"}
    (adapter / "README.md").write_text(README.format("license: mit"))
    assert licence_of(str(adapter)) == {"license": "mit"}
    (adapter / "README.md").unlink()
    (adapter / "adapter_config.json").write_text("{")
    assert licence_of(str(adapter)) == {}


def test_a_hub_name_is_looked_up_in_the_cache_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    there = tmp_path / "models--some--model"
    for commit, licence in (("a" * 40, "mit"), ("b" * 40, "gemma")):
        (there / "snapshots" / commit).mkdir(parents=True)
        (there / "snapshots" / commit / "config.json").write_text("{}")
        (there / "snapshots" / commit / "README.md").write_text(README.format(f"license: {licence}"))
    (there / "refs").mkdir()
    (there / "refs/main").write_text("a" * 40)
    assert licence_of("some/model") == {"license": "mit"}
    assert licence_of("some/model", "b" * 40) == {"license": "gemma"}
    assert licence_of("some/other") == {} and licence_of("no--name/../x") == {}


def test_the_starter_and_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert licence_of("starter") == {"license": "apache-2.0"}  # general.license of its GGUF file
    os.mkfifo(tmp_path / "README.md")
    (tmp_path / "LICENSE").mkdir()
    assert licence_of(str(tmp_path)) == {}
