"""The model card: what was trained on what, the figures, how to load it, and what is not known of it.

`bdpo train` writes it, and `BDPOTrainer.save_model` of what a trainer knows; `bdpo push` adds what an evaluation found.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from transformers.utils import logging

from bdpo.files import write_whole
from bdpo.method.balance import CONTROLS, Balance
from bdpo.models.gguf import STARTER, STARTER_LABEL, STARTER_ORIGIN
from bdpo.models.licence import licence_of
from bdpo.models.names import hub_name, known_as, told_elsewhere
from bdpo.score import NONE
from bdpo.score.folder import is_served
from bdpo.terminal import visible
from bdpo.train.options import MethodOptions

logger = logging.get_logger(__name__)
_SHOWN = {
    "eval_rewards/accuracies": "held-out preference accuracy",
    "eval_loss": "held-out loss",
    "eval_logratios/chosen": "held-out chosen log-ratio [nats]",
    "eval_logratios/rejected": "held-out rejected log-ratio [nats]",
    "train_loss": "training loss, mean over the run",
    "train_runtime": "training time since the last start [s]",
}
_TRAIN = (  # what a card says of a configuration: plain values
    "learning_rate", "warmup_steps", "num_train_epochs", "max_steps", "weight_decay", "seed",
    "per_device_train_batch_size", "gradient_accumulation_steps", "max_length",
)  # fmt: skip
_PEFT = "r", "lora_alpha", "lora_dropout"
BASE = """## Loading

The adapter belongs on the model that `adapter_config.json` names, by hub name and commit or by folder.

"""
STARTER_BASE = """## Loading

The adapter belongs on the starter model that bdpo makes in its cache, and `adapter_config.json` has its folder; of it
`bdpo push` sends the name alone. bdpo finds it on any machine. For transformers, peft or vLLM on another machine, write
whole weights: `bdpo merge RUN --out DIR`. The original SmolLM2-135M-Instruct is not that model: its weights differ.

"""
NO_BASE = "The base model is no model of the hub, or its name there is not known.\n"
_NOT_LEARNT = 0.01  # nats: log-ratios that small on both sides are no training
_MARK = "> **Caution.** "
_CAUTIONS = {
    "asked": "It was not evaluated: nothing is known of what it refuses or answers.",
    "learnt": "Training hardly moved it: it is the base model in all but name.",
}


@dataclass(frozen=True)
class Told:
    """What a card says."""

    label: str  # of the base model, for people
    base: str  # what the base is called: `starter`, a folder, or a name on the hub
    options: MethodOptions
    data: str  # what the pairs are called
    manifest: Mapping[str, Any]  # of their scores
    balance: Balance
    settings: Mapping[str, Any]  # by section
    metrics: Mapping[str, Any]  # the last ones
    adapter: bool  # what the weights beside it are
    counts: Mapping[str, int] | None = None  # rows dropped or changed, by reason; None: not known
    asked: bool = False  # whether it was evaluated
    revision: str | None = None  # of a base on the hub
    head: Mapping[str, Any] = field(default_factory=dict)  # more metadata


def method_name(options: MethodOptions) -> str:
    """What a loss and its balance are called together, for example B-DPO."""
    name = options.loss_type.upper()
    if not options.balance or not (options.balance_weights or options.balance_scale):
        return name
    control = f" ({options.weighting} weights, a control)" if options.weighting in CONTROLS else ""
    if options.balance_weights and options.balance_scale:
        return f"B-{name}{control}"
    return f"{name} + {'balancing weights' if options.balance_weights else 'scaling factor'} alone{control}"


def model_card(told: Told) -> str:
    """Markdown with the metadata block that the hub reads."""
    head: dict[str, Any] = {
        "library_name": "peft" if told.adapter else "transformers", "tags": ["bdpo", "dpo", "safety"],
    }  # fmt: skip
    base_name = STARTER_ORIGIN if told.base == STARTER else told.base and hub_name(told.base)
    head |= {"base_model": base_name} if base_name else {}
    head |= licence_of(told.base, told.revision)
    key, fit, tilt = told.manifest["key"], told.balance.fit, told.balance.tilt
    rows = "".join(f"- {n} rows {reason}\n" for reason, n in (told.counts or {}).items())
    changed = "" if told.counts is None else f"{rows or '- no row was dropped or changed' + chr(10)}\n"
    shown = ((text, told.metrics[name]) for name, text in _SHOWN.items() if name in told.metrics)
    figures = "".join(f"| {text} | {value:.4g} |\n" for text, value in shown)
    base = "" if not told.adapter else STARTER_BASE if told.base == STARTER else BASE
    weights = told_elsewhere(key["weights"]) if is_served(told.manifest) else key["weights"][:12]  # its name, or a hash
    estimator = key["estimator"]
    how = "not needed and not measured" if estimator == NONE else f"measured with the `{estimator}` estimator"
    card = f"""---
{yaml.safe_dump({**head, **told.head}, sort_keys=False).strip()}
---

# {told_elsewhere(told.label)}, aligned with {method_name(told.options)}

Made with bdpo. B-DPO follows the idea of arXiv:2603.22829 (the better comprehended
reply of a pair pulls less); its formulas are bdpo's own instantiation of the public abstract.
{"" if base_name else NO_BASE}
## Data

{told.manifest["pairs"]} pairs from `{told_elsewhere(told.data)}`.

{changed}Comprehension was {how}
(weights {weights}, {key["dtype"]}).
Balance over these pairs: tau {fit.tau:.4g} nats/token, mean imbalance taken off {fit.mean:.4g}
nats/token; mean weights {tilt[0]:.3f} chosen and {tilt[1]:.3f} rejected.

## Figures

| | |
| --- | --- |
{figures}
{base}## Settings

```yaml
{yaml.safe_dump(_settings_elsewhere(told.settings), sort_keys=False).strip()}
```

"""
    return cautioned(card, told.metrics, asked=told.asked)


def _settings_elsewhere(said: Any) -> Any:
    """Settings without paths of this machine, such as that of a DeepSpeed configuration."""
    if isinstance(said, Mapping):
        return {key: _settings_elsewhere(value) for key, value in said.items()}
    if isinstance(said, list):
        return [_settings_elsewhere(value) for value in said]
    return told_elsewhere(said) if isinstance(said, str) else said


def cautioned(card: str, final: Mapping[str, Any], *, asked: bool) -> str:
    """The card with a caution below its title where nothing was evaluated or nothing was learnt, and without others.

    Args:
        final: the last metrics of training.
        asked: whether it was evaluated.
    """
    ratios = [abs(final[key]) for key in ("eval_logratios/chosen", "eval_logratios/rejected") if key in final]
    unmoved = bool(ratios) and max(ratios) < _NOT_LEARNT
    cautions = [*([] if asked else [_CAUTIONS["asked"]]), *([_CAUTIONS["learnt"]] if unmoved else [])]
    note = "".join(f"{_MARK}{caution}\n\n" for caution in cautions)
    card = re.sub(rf"^{re.escape(_MARK)}.*\n\n", "", card, flags=re.MULTILINE)
    return re.sub(r"^(# .*\n\n)", lambda title: title[0] + note, card, count=1, flags=re.MULTILINE)


def write_card(trainer: Any, folder: Path, **head: Any) -> None:
    """Write README.md beside the weights in `folder`, of what a `BDPOTrainer` knows; `head`: more metadata."""
    rows, args = trainer.train_dataset, trainer.args
    model = trainer.accelerator.unwrap_model(trainer.model)
    base = known_as(model)
    logged = {name: value for entry in trainer.state.log_history for name, value in entry.items()}
    sources = sorted({source for source in rows.rows["source"] if source})
    settings: dict[str, Any] = {
        "loss": {"name": args.loss_type, **args.hyperparameters()},
        "balance": args.balancing(),
        "train": {name: getattr(args, name) for name in _TRAIN},
    }
    for config in getattr(trainer.model, "peft_config", {}).values():
        settings["peft"] = {name: getattr(config, name) for name in _PEFT if hasattr(config, name)}
    told = Told(
        label=STARTER_LABEL if base == STARTER else base,
        base=base,
        options=args,
        data=", ".join(sources) or "data without a name",
        manifest=rows.manifest,
        balance=trainer.balance,
        settings=settings,
        metrics=logged,
        adapter=(folder / "adapter_config.json").exists(),
        asked=any(name.startswith("evaluate/") for name in logged),
        revision=getattr(model.config, "_commit_hash", None),
        head={name: value for name, value in head.items() if value},
    )
    write_whole(folder / "README.md", model_card(told))


def card_to_push(trainer: Any, **head: Any) -> None:
    """`write_card` where transformers is about to push from; warns of an adapter whose base nobody will find."""
    folder = Path(str(trainer.args.output_dir))
    write_card(trainer, folder, **head)
    if (folder / "adapter_config.json").exists() and hub_name(folder) is None:
        told = f"adapter_config.json in {folder} names its base by a folder of this machine, which others read and do "
        mend = "not find: set base_model_name_or_path to its name on the hub, or use `bdpo push`."
        logger.warning(visible(told + mend))
