"""Python code beside a model: never run, whatever is typed, but where the command line says so."""

import ast
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer, dynamic_module_utils

import bdpo
from bdpo import models
from bdpo.errors import BdpoError
from bdpo.models.remote_code import asking_nobody
from bdpo.pairs import write_pairs
from tiny import Bdpo, make_pairs, tiny_model, tiny_tokenizer

CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM
Path({canary!r}).write_text("it ran")
class CanaryConfig(LlamaConfig):
    model_type = "bird-in-a-mine"
class CanaryModel(LlamaForCausalLM):
    config_class = CanaryConfig
"""
FLAG = "--trust-remote-code"


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model, a tokenizer, a base and a generation loop that bring code along, which would write `canary`."""
    home = tmp_path_factory.mktemp("home")
    for name in ("model", "tokenizer", "generates"):
        tiny_model().save_pretrained(home / name)
        tiny_tokenizer().save_pretrained(home / name)
        (home / name / "canary_code.py").write_text(CODE.format(canary=str(home / "canary")))
    auto_map = {"AutoConfig": "canary_code.CanaryConfig", "AutoModelForCausalLM": "canary_code.CanaryModel"}
    edit(home / "model/config.json", model_type="bird-in-a-mine", auto_map=auto_map)
    edit(home / "tokenizer/tokenizer_config.json", tokenizer_class="CanaryTokenizer",
         auto_map={"AutoTokenizer": ["canary_code.CanaryTokenizer", None]})  # fmt: skip
    (home / "generates/custom_generate").mkdir()
    (home / "generates/custom_generate/generate.py").write_text(CODE.format(canary=str(home / "canary")))
    (home / "adapter").mkdir()
    (home / "adapter/adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": str(home / "model"), "r": 2})
    )
    write_pairs(home / "pairs.jsonl", make_pairs(4))
    yield home


@pytest.fixture
def typed(home: Path, bdpo_: Bdpo, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bdpo]:
    """The command in `home`, with `y` typed ahead and no trust left over."""
    monkeypatch.chdir(home)
    monkeypatch.setenv("BDPO_CACHE", str(home / "cache"))
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 5))
    (home / "canary").unlink(missing_ok=True)
    yield bdpo_
    models.trust_remote_code(False)


COMMANDS = {
    "data check": ["data", "check", "pairs.jsonl", "--model", "tokenizer"],
    "score": ["score", "--model", "model", "--data", "pairs.jsonl", "--out", "scores"],
    "train": ["train", "--out", "run", "--set", "data.train=pairs.jsonl", "--set", "model.name=model"],
    "dry run": ["train", "--dry-run", "--set", "data.train=pairs.jsonl", "--set", "model.name=model"],
    "evaluate": ["evaluate", "model", "--out", "evaluated", "--limit", "1"],
    "classifier": ["evaluate", "generates", "--out", "judged", "--judge", "classifier", "--judge-model", "model"],
    "llm": ["evaluate", "generates", "--out", "judged", "--judge", "llm", "--judge-model", "model"],
    "merge": ["merge", "adapter", "--out", "merged"],
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_no_command_runs_it_even_if_y_is_typed(home: Path, typed: Bdpo, words: list[str]) -> None:
    code, out, err = typed(*words)
    assert code == 2, err
    assert not (home / "canary").exists()
    said = [line for line in err.splitlines() if line.startswith("bdpo: ")]
    assert len(said) == 1 and "needs Python code of its own (auto_map in " in said[0] and FLAG in said[0]
    assert ("tokenizer_config.json)" if words[-1] == "tokenizer" else " config.json)") in said[0]
    assert "[y/N]" not in out + err and sys.stdin.read() == "y\n" * 5, "nothing was asked"


def test_nor_does_a_process_of_its_own(home: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "bdpo", *COMMANDS["score"]], input="y\n", capture_output=True,
                          text=True, cwd=home, timeout=120)  # fmt: skip
    assert done.returncode == 2 and not (home / "canary").exists()
    assert "needs Python code of its own" in done.stderr and "Traceback" not in done.stderr


def test_the_flag_of_the_command_line_runs_it(home: Path, typed: Bdpo) -> None:
    code, _, err = typed(*COMMANDS["score"], FLAG)
    assert code == 0, err
    assert (home / "canary").read_text() == "it ran"
    assert (home / "scores/manifest.json").exists()


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("model.trust_remote_code", "unknown key"),
        (
            "train.trust_remote_code",
            "trust_remote_code is TRL's and not offered: --trust-remote-code on the command line",
        ),
        ("trust_remote_code", "unknown key"),
    ],
)
def test_no_recipe_can_say_it(home: Path, typed: Bdpo, key: str, said: str) -> None:
    code, _, err = typed(*COMMANDS["train"], "--set", f"{key}=true")
    assert code == 2 and said in err and not (home / "canary").exists()


def test_a_generation_loop_beside_plain_weights_is_left_alone(home: Path) -> None:
    loaded = models.load(home / "generates")
    assert not (home / "canary").exists()
    assert loaded.model.generate.__func__ is type(loaded.model).generate


@pytest.mark.parametrize(
    "file",
    [
        "processor_config.json",
        "preprocessor_config.json",
        "video_preprocessor_config.json",
        "generation_config.json",
        "adapter_config.json",
        "tokenizer_config.json",
        "config.json",
    ],
)
def test_no_file_of_a_model_brings_it_in_where_a_class_of_the_library_serves(home: Path, file: str) -> None:
    """Every kind of class is mapped, in every file that can map any; the model's type is one that transformers has."""
    kinds = ("Config", "Model", "ModelForCausalLM", "Processor", "ImageProcessor", "VideoProcessor", "FeatureExtractor")
    auto_map: dict[str, object] = {f"Auto{kind}": "canary_code.CanaryConfig" for kind in kinds}
    auto_map["AutoTokenizer"] = ["canary_code.CanaryConfig", "canary_code.CanaryConfig"]
    adapter = file == "adapter_config.json"
    folder = home / f"mapped in {file}"
    if adapter:
        lora = LoraConfig(r=2, target_modules=["q_proj"], base_model_name_or_path=str(home / "generates"))
        get_peft_model(tiny_model(), lora).save_pretrained(folder)
        auto_map = {"base_model_class": "CanaryModel", "parent_library": "canary_code"}
    else:
        shutil.copytree(home / "generates", folder)
    (folder / "canary_code.py").write_text(CODE.format(canary=str(home / "canary")))
    if not (folder / file).exists():
        (folder / file).write_text("{}")
    changed = {"base_model_name_or_path": str(home / "generates")} if adapter else {"processor_class": "CanaryConfig"}
    edit(folder / file, **{"auto_mapping" if adapter else "auto_map": auto_map}, **changed)
    assert models.load(folder).model.get_input_embeddings() is not None
    assert not (home / "canary").exists() and "canary_code" not in sys.modules


def test_what_others_load_is_not_asked_for_either(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a tokenizer that peft loads because an adapter names it."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    with pytest.raises(BdpoError, match="needs Python code of its own"), asking_nobody(home / "adapter"):
        AutoTokenizer.from_pretrained(home / "tokenizer")
    assert sys.stdin.read() == "y\n" and dynamic_module_utils.TIME_OUT_REMOTE_CODE > 0


def test_every_call_that_loads_goes_through_the_switch() -> None:
    found = []
    for path in Path(bdpo.__file__).parent.rglob("*.py"):
        if path.name == "remote_code.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            loads = isinstance(node, ast.Attribute) and node.attr in ("from_pretrained", "from_config")
            if loads and ast.unparse(node) != "models.from_config":
                found.append(f"{path.name}: {ast.unparse(node)}")
    # peft's read JSON and tensors alone
    assert sorted(found) == [
        "dryrun.py: PeftConfig.from_pretrained",
        "strict.py: PeftConfig.from_pretrained",
        "strict.py: PeftModel.from_pretrained",
    ]
