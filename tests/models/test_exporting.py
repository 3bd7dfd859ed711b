"""What is exported is the model that was trained, with its template and tokens; GGUF by another's converter."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

from bdpo.errors import BdpoError
from bdpo.models import export, load, merging
from tiny import furnish, tiny_model, tiny_tokenizer

FAKE = """import sys
out = sys.argv[sys.argv.index("--outfile") + 1]
kind = sys.argv[sys.argv.index("--outtype") + 1]
if kind == "f32":
    sys.exit("no room for f32")
open(out, "w").write(f"GGUF {kind} of {sys.argv[1]}")
"""


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    furnish(tmp_path, pairs=1)
    model = get_peft_model(tiny_model(), LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.5)
    model.peft_config["default"].base_model_name_or_path = str(tmp_path / "model")
    model.save_pretrained(tmp_path / "adapter")
    tiny_tokenizer().save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


@torch.no_grad()
def logits(folder: Path) -> torch.Tensor:
    return load(folder).model(input_ids=torch.arange(3, 13)[None]).logits


def test_an_adapter_and_whole_weights_come_out_as_they_are(adapter: Path, tmp_path: Path) -> None:
    torch.testing.assert_close(logits(export(adapter, tmp_path / "a")), logits(adapter), atol=1e-5, rtol=0)
    assert not torch.allclose(logits(tmp_path / "a"), logits(tmp_path / "model"), atol=1e-2)  # it does something
    assert torch.equal(logits(export(tmp_path / "a", tmp_path / "b")), logits(tmp_path / "a"))
    assert load(tmp_path / "b").tokenizer.chat_template == tiny_tokenizer().chat_template


def test_another_template_is_refused_and_nothing_is_written(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = merging._texts
    monkeypatch.setattr(merging, "_texts", lambda t: texts(t) | {"chat template": id(t)})
    with pytest.raises(BdpoError, match="The chat template that were written are not those of"):
        export(adapter, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_gguf(adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("LLAMA_CPP", raising=False)
    with pytest.raises(BdpoError, match=r"convert_hf_to_gguf\.py is not here: clone llama.cpp"):
        export(adapter, tmp_path / "a", gguf="q8_0")
    with pytest.raises(BdpoError, match="Unknown GGUF type 'q4'"):
        export(adapter, tmp_path / "a", gguf="q4")
    assert not (tmp_path / "a").exists()  # both are known before the weights are written
    (tmp_path / "convert_hf_to_gguf.py").write_text(FAKE)
    monkeypatch.setenv("LLAMA_CPP", str(tmp_path))
    export(adapter, tmp_path / "a", gguf="q8_0")
    assert (tmp_path / "a/model-q8_0.gguf").read_text() == f"GGUF q8_0 of {tmp_path / 'a'}"
    assert (tmp_path / "a/Modelfile").read_text() == 'FROM ./model-q8_0.gguf\nPARAMETER stop "<|im_end|>"\n'
    with pytest.raises(BdpoError, match="no room for f32"):
        export(adapter, tmp_path / "b", gguf="f32")
    assert (tmp_path / "b/model.safetensors").exists()
