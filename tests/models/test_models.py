"""Model names: what they resolve to and how they fail, loading, merging, the weights' hash."""

import errno
import json
import shutil
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM

from bdpo import files
from bdpo.errors import BdpoError
from bdpo.files import cache_dir
from bdpo.models import load, load_tokenizer, loading, merge, resolve, weights_hash, without_weights
from bdpo.train.config import BDPOConfig
from bdpo.train.prepare import policy
from tiny import CHATML, tiny_model, tiny_tokenizer

IDS = torch.tensor([[1, 50, 60, 70, 2]])


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("BDPO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def base(tmp_path):
    folder = tmp_path / "base"
    tiny_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def adapter(tmp_path, base):
    """An adapter without a tokenizer, whose B is not zero."""
    folder = tmp_path / "adapter"
    model = tiny_model()
    model.name_or_path = str(base)
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(model, config).save_pretrained(folder)
    return folder


@torch.no_grad()
def logits(model):
    return model.eval()(input_ids=IDS).logits


# --- names -----------------------------------------------------------------------------------------------------


def test_folders_resolve_to_themselves(base, adapter):
    assert resolve(base) == resolve(str(base)) == base
    assert resolve(adapter) == adapter


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("{tmp}/nowhere", "No model folder at .*/nowhere: check the path"),
        ("./nowhere", "No model folder at nowhere"),
        ("some/deep/path", "No model folder at some/deep/path"),
        ("{tmp}", "holds neither config.json nor adapter_config.json"),
        ("{tmp}/nowhere.gguf", "No GGUF file at .*/nowhere.gguf"),
        ("nowhere.gguf", "No GGUF file at nowhere.gguf"),
        ("{tmp}/text.gguf", "The GGUF file cannot be converted"),
    ],
)
def test_wrong_paths_are_one_sentence(name, says, tmp_path, cache):
    (tmp_path / "text.gguf").write_text("not a model")
    with pytest.raises(BdpoError, match=says) as refused:
        resolve(name.format(tmp=tmp_path))
    assert "\n" not in str(refused.value)
    assert not any(cache.glob("**/*.*"))


@pytest.mark.parametrize("name", ["gpt2-of-nobody", "nobody/no-such-model"])
def test_a_hub_name_without_a_network_is_one_sentence(name, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BdpoError, match=f"^'{name}' is neither a local model folder nor .* hub") as refused:
        resolve(name)
    assert "\n" not in str(refused.value) and "hf auth login" in str(refused.value)


def test_the_cache_folder_is_the_one_that_was_set_or_the_platforms(monkeypatch, tmp_path):
    monkeypatch.setenv("BDPO_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.setattr(files.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    for unset in (lambda: monkeypatch.setenv("BDPO_CACHE", ""), lambda: monkeypatch.delenv("BDPO_CACHE")):
        unset()
        assert cache_dir() == tmp_path / "xdg" / "bdpo"


# --- loading ---------------------------------------------------------------------------------------------------


def test_a_folder_loads_with_the_dtype_attention_and_template_asked_for(base):
    loaded = load(base, dtype="bfloat16", attn_implementation="eager", chat_template="{{ '' }}")
    assert loaded.model.dtype == torch.bfloat16 and loaded.model.config._attn_implementation == "eager"
    assert loaded.tokenizer.chat_template == "{{ '' }}" and loaded.label == str(base)
    plain = load(base)
    assert plain.model.dtype == torch.float32 and plain.tokenizer.chat_template == CHATML
    assert torch.equal(logits(plain.model), logits(tiny_model()))


def test_an_adapter_loads_on_its_base_and_stays_on(adapter, base):
    loaded = load(adapter)
    assert not any(p.requires_grad for name, p in loaded.model.named_parameters() if "lora_" in name)
    assert (logits(loaded.model) - logits(tiny_model())).abs().max() > 0.1
    with loaded.model.disable_adapter():
        assert torch.equal(logits(loaded.model), logits(tiny_model()))
    assert loaded.tokenizer.get_vocab() == load_tokenizer(adapter).get_vocab() == tiny_tokenizer().get_vocab()
    trainable = load(adapter, trainable_adapter=True).model
    assert all(p.requires_grad for name, p in trainable.named_parameters() if "lora_" in name)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda base, adapter: (base / "model.safetensors").write_bytes(b"\0" * 50), "Cannot load the model in"),
        (lambda base, adapter: (base / "model.safetensors").unlink(), "Cannot load the model in"),
        (lambda base, adapter: (adapter / "adapter_model.safetensors").write_bytes(b"\0"), "Cannot load the model in"),
        (lambda base, adapter: (adapter / "adapter_config.json").write_text("{"), "adapter_config.json is not JSON"),
        (lambda base, adapter: (adapter / "adapter_config.json").write_text("{}"), "names no base model"),
        (lambda base, adapter: shutil.rmtree(base), "No model folder at .*base"),
    ],
    ids=["base damaged", "base without weights", "adapter damaged", "no json", "no base named", "base gone"],
)
def test_a_damaged_model_is_one_sentence(damage, says, base, adapter):
    damage(base, adapter)
    with pytest.raises(BdpoError, match=says) as refused:
        load(adapter)
    assert "\n" not in str(refused.value)


def test_what_cannot_be_had_is_refused(base, tmp_path):
    with pytest.raises(BdpoError, match="Unknown dtype 'float8': use one of float32, bfloat16, float16, auto"):
        load(base, dtype="float8")
    with pytest.raises(BdpoError, match="Unknown quantization '3bit'"):
        load(base, quantization="3bit")
    tiny_model("gemma2").save_pretrained(tmp_path / "gemma2")
    tiny_tokenizer().save_pretrained(tmp_path / "gemma2")
    with pytest.raises(BdpoError, match=r"Cannot load the model in .*gemma2: .*scaled_dot_product_attention"):
        load(tmp_path / "gemma2", attn_implementation="sdpa")  # soft-capping needs eager
    assert load(tmp_path / "gemma2").model.config._attn_implementation == "eager"
    (base / "tokenizer.json").unlink()
    (base / "tokenizer_config.json").unlink()
    with pytest.raises(BdpoError, match="Cannot load a tokenizer from"):
        load_tokenizer(base)


def test_an_adapter_names_its_hub_model_by_name_and_commit_and_loads_from_there(base, tmp_path, monkeypatch):
    snapshot = tmp_path / "hub" / "models--some--model" / "snapshots" / ("c0ffee" * 7)[:40]
    shutil.copytree(base, snapshot)
    asked = []

    def download(name, revision=None, **how):
        asked.append((name, revision))
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    model = load("some/model", revision="v1").model
    assert model.name_or_path == "some/model"
    args = BDPOConfig(output_dir=str(tmp_path / "run"), use_cpu=True)
    lora = LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    adapted = policy(model, lora, args)
    adapted.save_pretrained(tmp_path / "run")
    config = json.loads((tmp_path / "run" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("some/model", snapshot.name)
    assert torch.equal(logits(load(tmp_path / "run").model), logits(adapted))
    assert asked == [("some/model", "v1"), ("some/model", snapshot.name)]


@pytest.mark.parametrize("stored", ["safetensors", "bin"])
def test_older_weights_are_asked_of_the_hub_where_there_are_no_newer_ones(stored, base, tmp_path, monkeypatch):
    snapshot = tmp_path / "models--some--model" / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    torch.save(tiny_model().state_dict(), base / "pytorch_model.bin")
    if stored == "bin":
        (base / "model.safetensors").unlink()

    def download(name, *, revision, allow_patterns, ignore_patterns):
        for path in base.iterdir():
            if any(fnmatch(path.name, pattern) for pattern in allow_patterns):
                shutil.copy(path, snapshot)
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert torch.equal(logits(load("some/model").model), logits(tiny_model()))
    assert (snapshot / "pytorch_model.bin").exists() == (stored == "bin"), "never both"


def test_a_tokenizer_or_a_config_asks_the_hub_for_no_weights(base, tmp_path, monkeypatch):
    snapshot = tmp_path / "models--some--model" / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    asked = []

    def download(name, *, revision, allow_patterns, ignore_patterns):
        asked.append(allow_patterns)
        for path in base.iterdir():
            if any(fnmatch(path.name, pattern) for pattern in allow_patterns):
                shutil.copy(path, snapshot)
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert load_tokenizer("some/model").eos_token == "<|im_end|>"
    named = without_weights("some/model")
    assert (named.model.name_or_path, named.model.config.vocab_size) == ("some/model", 320)
    assert not any(fnmatch("model.safetensors", pattern) for patterns in asked for pattern in patterns)
    assert not (snapshot / "model.safetensors").exists()
    assert torch.equal(logits(load("some/model").model), logits(tiny_model()))  # which asks for the rest
    assert without_weights("some/model") is None  # its weights are at hand now
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=1000))
    assert without_weights("some/model") is not None  # ... and too many for the memory


def test_an_adapter_names_a_local_model_by_its_whole_path(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load("base").model.name_or_path == str(base)


def test_an_adapter_of_the_starter_from_another_machine_finds_the_starter_here(adapter, base, cache):
    here = cache / "models" / "SmolLM2-135M-Instruct-f32"
    shutil.copytree(base, here)
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "/home/someone/.cache/bdpo/models/SmolLM2-135M-Instruct-f32"
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    assert load(adapter).model.base_model.model.name_or_path == str(here)


def test_an_adapter_on_an_adapter_is_refused_since_peft_would_lose_one(adapter, tmp_path):
    shutil.copytree(adapter, tmp_path / "second")
    config = json.loads((adapter / "adapter_config.json").read_text())
    (tmp_path / "second" / "adapter_config.json").write_text(
        json.dumps({**config, "base_model_name_or_path": str(adapter)})
    )
    with pytest.raises(BdpoError, match=r"belongs on another adapter, .*adapter: merge that one first \(bdpo merge\)"):
        load(tmp_path / "second")


def test_4bit_weights_are_made_on_the_device_of_this_process(base, monkeypatch):
    class Stop(Exception):
        pass

    def from_pretrained(folder, **how):
        assert how["quantization_config"] == "nf4" and how["device_map"] == {"": torch.device("cuda", 1)}
        raise Stop

    second = SimpleNamespace(device=torch.device("cuda", 1))
    monkeypatch.setattr(loading, "processes", lambda: second)
    monkeypatch.setattr(loading, "_quantization_config", lambda name: "nf4")
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", from_pretrained)
    with pytest.raises(Stop):
        load(base, quantization="4bit")


# --- merging ---------------------------------------------------------------------------------------------------


def test_merged_weights_give_the_adapters_logits(adapter, tmp_path):
    out = merge(adapter, tmp_path / "new" / "merged")
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in out.iterdir()}
    assert not (out / "adapter_config.json").exists()
    assert (logits(load(out).model) - logits(load(adapter).model)).abs().max() < 1e-5
    assert load(out).tokenizer.chat_template == CHATML
    assert out.stat().st_mode == tmp_path.joinpath("new").stat().st_mode  # others may read it as any new folder


def test_merging_refuses_what_is_no_adapter_and_a_full_folder(base, adapter, tmp_path):
    with pytest.raises(BdpoError, match="holds no adapter"):
        merge(base, tmp_path / "merged")
    with pytest.raises(BdpoError, match="is not empty"):
        merge(adapter, base)
    (tmp_path / "empty").mkdir()
    assert (merge(adapter, tmp_path / "empty") / "model.safetensors").exists()


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("I/O error: No space left on device")],
)
def test_a_full_disk_while_merging_leaves_nothing_behind(error, adapter, tmp_path, monkeypatch):
    def save(self, folder, **how):
        Path(folder, "model.safetensors").write_bytes(b"half")
        raise error

    monkeypatch.setattr("transformers.PreTrainedModel.save_pretrained", save)
    with pytest.raises(BdpoError, match=r"Could not write .*merged \(.*No space left on device\): make room"):
        merge(adapter, tmp_path / "out" / "merged")
    assert list((tmp_path / "out").iterdir()) == []


# --- the hash of the weights -----------------------------------------------------------------------------------


def test_the_hash_changes_with_one_weight_and_not_with_reloading(base):
    loaded = load(base).model
    first = weights_hash(loaded)
    assert first == weights_hash(load(base).model) == weights_hash(tiny_model())
    with torch.no_grad():
        loaded.model.layers[1].mlp.up_proj.weight[3, 4] += 1e-6
    assert weights_hash(loaded) != first
    assert weights_hash(tiny_model().bfloat16()) != first
    assert weights_hash(tiny_model(seed=1)) != first


def test_the_hash_changes_with_the_adapter_and_with_what_is_no_weight(adapter):
    first = weights_hash(load(adapter).model)
    assert first == weights_hash(load(adapter).model) != weights_hash(tiny_model())
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 2 * config["lora_alpha"]}))
    assert weights_hash(load(adapter).model) != first  # the same A and B, twice as strong
    rope = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
    assert weights_hash(tiny_model(rope_parameters=rope)) != weights_hash(tiny_model())
    assert weights_hash(tiny_model("mistral-windowed")) != weights_hash(tiny_model("mistral"))


@pytest.mark.parametrize(
    "other",
    [
        {"rms_norm_eps": 1e-3},
        {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16},  # matrices of the same shapes
        {"hidden_act": "gelu"},
    ],
)
def test_the_hash_changes_with_whatever_of_the_config_changes_the_numbers(other):
    changed = tiny_model(**other)
    assert not torch.allclose(logits(changed), logits(tiny_model()), atol=1e-3)
    weights = tiny_model().state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in changed.state_dict().items())
    assert weights_hash(changed) != weights_hash(tiny_model())


def test_the_hash_changes_with_soft_caps_and_with_which_layers_have_a_window():
    first = weights_hash(tiny_model("gemma2"))
    assert weights_hash(tiny_model("gemma2", final_logit_softcapping=5.0)) != first
    assert weights_hash(tiny_model("gemma2", layer_types=["full_attention"] * 2)) != first


def test_the_hash_does_not_change_with_what_changes_no_number(base):
    model = tiny_model(attn_implementation="eager", attention_dropout=0.3)
    model.config.use_cache, model.config.pad_token_id = False, 7
    model.config._name_or_path = "elsewhere"
    assert weights_hash(model) == weights_hash(load(base, dtype="auto").model)
