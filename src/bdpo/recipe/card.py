"""The model card of a run."""

from __future__ import annotations

from typing import Any

import yaml

from bdpo.method.balance import CONTROLS, Balance
from bdpo.recipe.sections import Recipe
from bdpo.score.folder import ScoredData
from bdpo.score.sources import is_served

_SHOWN = {
    "eval_rewards/accuracies": "held-out preference accuracy",
    "eval_loss": "held-out loss",
    "eval_logratios/chosen": "held-out chosen log-ratio [nats]",
    "eval_logratios/rejected": "held-out rejected log-ratio [nats]",
    "train_loss": "training loss, mean over the run",
    "train_runtime": "training time [s]",
}

_BASE = """## Loading

The adapter belongs on the model that `adapter_config.json` names, by hub name and commit or by folder.

"""
_STARTER_BASE = """## Loading

The adapter belongs on the starter model that bdpo makes in its cache, and `adapter_config.json` has its folder on the
machine that trained. bdpo finds it on any machine. For transformers, peft or vLLM on another machine, write whole
weights: `bdpo merge RUN --out DIR`. The original SmolLM2-135M-Instruct is not that model: its weights differ.

"""


def method_name(recipe: Recipe) -> str:
    """What the loss and the balance of a recipe are called together, for example B-DPO."""
    name = recipe.loss.name.upper()
    if not recipe.balance.enabled or not (recipe.balance.weights or recipe.balance.scale):
        return name
    control = f" ({recipe.balance.weighting} weights, a control)" if recipe.balance.weighting in CONTROLS else ""
    if recipe.balance.weights and recipe.balance.scale:
        return f"B-{name}{control}"
    return f"{name} + {'balancing weights' if recipe.balance.weights else 'scaling factor'} alone{control}"


def model_card(
    recipe: Recipe, label: str, scores: ScoredData, balance: Balance, counts: dict[str, int], metrics: dict[str, Any],
    *,
    adapter: bool,
) -> str:  # fmt: skip
    """Markdown with the metadata block that the hub reads; `adapter` says what the weights beside it are."""
    head: dict[str, Any] = {"library_name": "peft" if adapter else "transformers", "tags": ["bdpo", "dpo", "safety"]}
    if recipe.model.name != "starter":
        head["base_model"] = recipe.model.name
    changed = "".join(f"- {n} rows {reason}\n" for reason, n in counts.items()) or "- no row was dropped or changed\n"
    figures = "".join(f"| {text} | {metrics[name]:.4g} |\n" for name, text in _SHOWN.items() if name in metrics)
    base = "" if not adapter else _STARTER_BASE if recipe.model.name == "starter" else _BASE
    settings = {"loss": recipe.loss.model_dump(), "balance": recipe.balance.model_dump(), "train": recipe.train,
                "peft": recipe.peft}  # fmt: skip
    weights = scores.manifest["key"]["weights"]  # a hash, or what a server calls them
    weights = weights if is_served(scores.manifest) else weights[:12]
    return f"""---
{yaml.safe_dump(head, sort_keys=False).strip()}
---

# {label}, aligned with {method_name(recipe)}

Made with bdpo. B-DPO follows the idea of arXiv:2603.22829 (the better comprehended
reply of a pair pulls less); its formulas are bdpo's own instantiation of the public abstract.

## Data

{scores.manifest["pairs"]} pairs from `{recipe.data.train}`.

{changed}
Comprehension was measured with the `{scores.manifest["key"]["estimator"]}` estimator
(weights {weights}, {scores.manifest["key"]["dtype"]}).
Balance over these pairs: tau {balance.fit.tau:.4g} nats/token, mean imbalance taken off {balance.fit.mean:.4g}
nats/token; mean weights {balance.tilt[0]:.3f} chosen and {balance.tilt[1]:.3f} rejected.

## Figures

| | |
| --- | --- |
{figures}
{base}## Settings

```yaml
{yaml.safe_dump(settings, sort_keys=False).strip()}
```

`recipe.yaml` repeats the run, `scores.json` says what the reference numbers depend on, and `metrics.json` has every
logged value. Preference accuracy is not safety: evaluate the model before it meets people.
"""
