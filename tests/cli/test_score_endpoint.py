"""`bdpo score --endpoint` and a recipe with score.endpoint, against a stub of a vLLM server."""

import shutil
from pathlib import Path

import pytest

from bdpo.recipe.run import run_recipe
from bdpo.recipe.sections import load_recipe
from bdpo.score.folder import open_scores
from stub_server import Served, cards, serving
from tiny import Bdpo, furnish, tiny_model


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    furnish(home, pairs=6, held=3)
    return home


@pytest.fixture(autouse=True)
def surroundings(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setenv("BDPO_CACHE", str(home / "cache"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def test_score_by_a_server_and_the_next_command_needs_it_no_more(bdpo_: Bdpo, home: Path) -> None:
    with serving(Served(tiny_model()), models=cards("tiny")) as server:
        command = ("score", "--model", "model", "--data", "pairs.jsonl", "--out", "scores", "--endpoint", server.url)
        code, out, err = bdpo_(*command)
        assert code == 0, err
        assert "are those of the weights here within" in out
        assert "--set score.dir=scores" in out and "score.endpoint" not in out
        assert len(server.seen) == 6 * 4 + 4 * 2
        assert bdpo_(*command, "--endpoint-model", "tiny")[0] == 0 and len(server.seen) == 6 * 4 + 4 * 2
    code, _, err = bdpo_(*command, "--estimator", "entropy")
    assert code == 2 and "The estimator entropy needs all probabilities, which a server does not give" in err
    overrides = ["model.name=model", "data.train=pairs.jsonl", "data.eval=held.jsonl", "score.dir=scores",
                 "peft=null", "train={max_steps: 1, report_to: none, use_cpu: true, save_strategy: 'no'}"]  # fmt: skip
    result = run_recipe(load_recipe(None, overrides), home / "run")  # the server is gone
    assert result.scores.manifest == open_scores(home / "scores").manifest
    assert "(weights served as tiny (/m/tiny), as served)" in (home / "run" / "README.md").read_text()


def test_without_weights_the_tokenizer_and_the_config_are_enough(bdpo_: Bdpo, home: Path) -> None:
    shutil.copytree(home / "model", home / "bare", ignore=shutil.ignore_patterns("*.safetensors"))
    with serving(Served(tiny_model()), models=cards("tiny")) as server:
        code, out, err = bdpo_("score", "--model", "bare", "--data", "pairs.jsonl", "--out", "from-bare",
                               "--endpoint", server.url)  # fmt: skip
    assert code == 0, err
    assert "The weights are not here to compare: training will compare its first batch." in out
    assert open_scores(home / "from-bare").manifest["model"] == str(home / "bare")


def test_a_recipe_with_a_server_has_both_its_folders_from_there(home: Path) -> None:
    with serving(Served(tiny_model()), models=cards("tiny")) as server:
        overrides = ["model.name=model", "data.train=pairs.jsonl", "data.eval=held.jsonl", "peft=null",
                     f"score.endpoint={server.url}",
                     "train={max_steps: 1, report_to: none, use_cpu: true, save_strategy: 'no'}"]  # fmt: skip
        result = run_recipe(load_recipe(None, overrides), home / "by-server")
        assert len(server.seen) == 2 * 4 * 2 - 2 + (6 + 3) * 4  # compared: four pairs, and the three held out
    assert result.trainer.eval_dataset.manifest["endpoint"]["model"] == "tiny"
    assert abs(result.history[0]["logratios/chosen"]) < 1e-4


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((200, {"choices": [{"text": "?"}]}), "gives no log-probabilities of the tokens that it is sent"),
        ((400, {"error": {"message": "prompt too long"}}), "HTTP 400: prompt too long"),
    ],
)
def test_a_fault_of_the_server_is_one_sentence_and_exit_code_2(
    answer: object, says: str, bdpo_: Bdpo, tmp_path: Path
) -> None:
    with serving(answer, models=cards("tiny")) as server:
        code, _, err = bdpo_("score", "--model", "model", "--data", "pairs.jsonl", "--out", str(tmp_path / "never"),
                             "--endpoint", server.url)  # fmt: skip
    assert code == 2 and says in err
    assert [line for line in err.splitlines() if line.startswith("bdpo: ")] == err.splitlines()[-1:]
