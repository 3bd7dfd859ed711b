"""A run on the Hugging Face hub: its weights, and a card that says what it is and what is known of it.

No path of this machine leaves it: what lies here is called by the last part of its path.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bdpo.errors import BdpoError, first_line
from bdpo.evaluate.results.outcomes import Run, open_runs
from bdpo.evaluate.results.tables import summary
from bdpo.files import read_bytes, read_json
from bdpo.models.gguf import STARTER_FOLDER
from bdpo.models.names import HUB_NAME, hub_name
from bdpo.secrets import refuse_secrets

SENT = (
    "adapter_config.json", "adapter_model.safetensors", "config.json", "generation_config.json", "model*.safetensors",
    "model.safetensors.index.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "chat_template.jinja",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
)  # fmt: skip
"""What leaves the machine beside the card; neither texts of the data nor how it was trained on."""


@dataclass(frozen=True)
class Publication:
    """What is sent: files of the run's folder, and the card."""

    folder: Path
    files: list[str]
    card: str
    adapter: dict[str, Any]  # adapter_config.json as it is sent; empty where there is none

    @property
    def license(self) -> str | None:
        """Of the base model, as the card says it."""
        said = yaml.safe_load(self.card.split("---\n", 2)[1]).get("license")
        return None if said is None else str(said)

    @property
    def base(self) -> str | None:
        """The base model's name on the hub, as the card says it."""
        said = yaml.safe_load(self.card.split("---\n", 2)[1]).get("base_model")
        return None if said is None else str(said)

    @property
    def lost(self) -> str | None:
        """What others will not find, and the mend: the base of an adapter that no loader can fetch."""
        name = self.adapter.get("base_model_name_or_path")
        if name is None or hub_name(name):
            return None
        finder, mend = "no loader finds it", "name its repository with --base ORG/NAME, or hand on plain weights"
        if name == STARTER_FOLDER:
            finder, mend = "bdpo alone finds it", "for vLLM and PEFT hand on plain weights"
        return (
            f"adapter_config.json names its base by a folder of this machine; it is sent as '{name}', and {finder}: "
            f"{mend} (bdpo merge {self.folder} --out DIR)."
        )


def publication(
    run: Path, *, evaluation: Path | None = None, license: str | None = None, base: str | None = None
) -> Publication:
    """What `publish` would send of a run.

    Args:
        evaluation: the folder of an evaluation that asked this run; None: `evaluation` in the run's folder, if any.
        license: of the base model; None: what the run's card says, which is what the files beside the base said.
        base: the base model's name on the hub; None: what adapter_config.json or the card says, where that is one.

    Raises:
        BdpoError: no finished run, an evaluation that did not ask it, or a base that is no name on the hub.
    """
    if base is not None:
        _refuse_no_name(base)
    if not (run / "README.md").exists():
        raise BdpoError(f"{run} holds no finished run (no README.md): name the folder of a run of `bdpo train`.")
    files = sorted(path.name for pattern in SENT for path in run.glob(pattern))
    if not any(name.endswith(".safetensors") for name in files):
        raise BdpoError(f"{run} holds no weights (*.safetensors): train it again, or name another folder.")
    asked = evaluation or (run / "evaluation" if (run / "evaluation").is_dir() else None)
    found = None if asked is None else _asked(run, asked)
    card = read_bytes(run / "README.md").decode("utf-8")
    card = card_for_hub(card, _final(run), found, license, base or hub_name(run))
    return Publication(run, ["README.md", *files], card, _adapter(run, base))


def _adapter(run: Path, base: str | None) -> dict[str, Any]:
    """adapter_config.json with the base's name on the hub, or without the path to it; empty where there is none."""
    path = run / "adapter_config.json"
    if not path.exists():
        return {}
    config = read_json(path, "train again, or copy the run again", base_model_name_or_path=str)
    if base is not None:
        return {**config, "base_model_name_or_path": base, "revision": None}
    name = Path(config["base_model_name_or_path"]).name  # "./", or loaders would take it for a name on the hub
    return {**config, "base_model_name_or_path": hub_name(run) or (name if name == STARTER_FOLDER else f"./{name}")}


def _refuse_no_name(name: str) -> None:
    if not re.fullmatch(HUB_NAME, name):
        raise BdpoError(f"'{name}' is no name on the hub: write ORG/NAME.")


def publish(made: Publication, name: str, *, private: bool = False) -> str:
    """Send it in one commit; the address of the repository.

    Raises:
        BdpoError: the hub cannot be reached, or refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError

    _refuse_no_name(name)
    made_here = {"README.md": made.card.encode(), "adapter_config.json": json.dumps(made.adapter, indent=2).encode()}
    operations = [CommitOperationAdd(file, made_here.get(file, made.folder / file)) for file in made.files]
    try:
        api = HfApi()
        address = api.create_repo(name, private=private, exist_ok=True)
        api.create_commit(name, operations, commit_message="Upload with bdpo")
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise BdpoError(
            f"{name} cannot be pushed ({first_line(error)}): check the name, the network and `hf auth login`."
        ) from error
    return str(address)


def card_for_hub(
    card: str, final: dict[str, float], found: Run | None, license: str | None = None, base: str | None = None
) -> str:
    """The run's card with what the hub reads: results as `model-index`, data set, licence; and cautions.

    Args:
        final: the last metrics of training.
        found: what was asked of the run; None: nothing.
        base: the base model's name on the hub; None: as the card has it.
    """
    from bdpo.train.card import BASE, NO_BASE, STARTER_BASE, cautioned  # torch

    _, front, text = card.split("---\n", 2)
    head: dict[str, Any] = yaml.safe_load(front)
    title = next(line.removeprefix("# ") for line in text.splitlines() if line.startswith("# "))
    head |= {"license": license} if license else {}
    text = text.replace(STARTER_BASE, BASE) if base else text
    if base := base or hub_name(head.pop("base_model", ".")):
        head, text = {**head, "base_model": base}, text.replace(NO_BASE, "")
    data = re.search(r"pairs from `([^`]+)`", text)
    if data and re.fullmatch(HUB_NAME, data[1]) and not Path(data[1]).exists():
        head["datasets"] = [data[1]]  # on the hub
    elif data:  # where it lies here is nobody's business
        text = text.replace(f"pairs from `{data[1]}`", f"pairs from `{Path(data[1]).name}`")
    results = [] if found is None else _results(found)
    if results:
        head["model-index"] = [{"name": title, "results": results}]
    refuse_secrets(head, "the card")
    return cautioned(f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n{text}", final, asked=bool(results))


def _results(found: Run) -> list[dict[str, Any]]:
    """A result of each benchmark, in per cent, as the hub's model-index has them."""
    return [
        {
            "task": {"type": "text-generation"},
            "dataset": {"name": row["task"], "type": row["task"]},
            "metrics": [
                {"type": row["measure"], "value": round(100 * row["score"], 1), "name": f"{row['measure']} [%]"}
            ],
        }
        for row in summary([found])
        if row.get("score") is not None
    ]


def _asked(run: Path, evaluation: Path) -> Run:
    found = [one for one in open_runs(evaluation) if Path(one.model).exists() and Path(one.model).samefile(run)]
    if not found:
        raise BdpoError(f"{evaluation} did not ask {run}: name the folder of an evaluation that did.")
    return found[0]


def _final(run: Path) -> dict[str, float]:
    metrics = run / "metrics.json"
    return dict(read_json(metrics, "train again", final=dict)["final"]) if metrics.exists() else {}
