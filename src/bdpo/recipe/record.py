"""What a run writes down of itself for the report: run.json, and heldout.parquet, held-out pairs before and after."""

from __future__ import annotations

import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from bdpo.files import file_hash, file_made_whole, write_json
from bdpo.method.losses import loss_parameters
from bdpo.pairs.check_report import CheckReport
from bdpo.pairs.kinds import KINDS
from bdpo.pairs.reasoning import split_reasoning
from bdpo.pairs.record import PreferencePair
from bdpo.pairs.refusals import opens_as_refusal
from bdpo.recipe.folder import HELD_OUT, RUN
from bdpo.score import ScoredData
from bdpo.secrets import is_secret
from bdpo.train import BDPOTrainer

FORMAT = 1


def write_record(
    out: Path, trainer: BDPOTrainer, scores: ScoredData, eval_scores: ScoredData | None, *, started: datetime,
    method: str, label: str, report: CheckReport, refusals: dict[str, float], counts: dict[str, int],
) -> None:  # fmt: skip
    """Write both files beside the weights in `out`; docs/report.md says what stands in them.

    Args:
        started: of this process's part of the run; a resumed run has others before it.
        report: the data check of the training pairs.
        refusals: of `refusal_shares`.
    """
    ended = datetime.now(UTC)
    write_json(out / RUN, {
        "format": FORMAT,
        "method": method,
        "label": label,
        "command": shlex.join("..." if is_secret("", word) else word for word in sys.argv),
        "started": started.isoformat(timespec="seconds"),
        "ended": ended.isoformat(timespec="seconds"),
        "seconds": round((ended - started).total_seconds(), 1),
        "device": device_name(),
        "peak_memory_bytes": peak_memory(),
        "processes": trainer.args.world_size,
        "scores": {"train": _scores(scores), "eval": None if eval_scores is None else _scores(eval_scores)},
        "weights": {path.name: file_hash(path) for path in sorted(out.glob("*.safetensors"))},
        "tau": finite(trainer.balance.fit.tau),
        "beta": loss_parameters(trainer.args.loss_type, **trainer.args.hyperparameters()).get("beta"),
        "mean_imbalance": trainer.balance.fit.mean,  # that was taken off (balance.center), else 0
        "mean_weights": dict(zip(("chosen", "rejected"), trainer.balance.tilt, strict=True)),
        "tercile_edges": None if trainer.tercile_edges is None else list(trainer.tercile_edges),
        "pairs": {"train": len(scores.rows), "held_out": 0 if eval_scores is None else len(eval_scores.rows)},
        "versions": {name: sys.modules[name].__version__ for name in ("bdpo", "torch", "transformers")},
        "data": {
            "counts": counts,
            "refusals": refusals,
            "findings": [vars(finding) for finding in report.findings],
        },
    })  # fmt: skip
    if eval_scores is not None:
        with file_made_whole(out / HELD_OUT) as temporary:
            pq.write_table(held_out_table(trainer), temporary)


def held_out_table(trainer: BDPOTrainer) -> pa.Table:
    """One row a held-out pair, in the data's order, after `trainer.evaluate()`.

    id; kind (unsafe, harmless or empty); d [nats/token], null where not measured; w_c, w_r; and of each side the
    reference's log-probability [nats] (`before`) and the trained model's (`after`), whose difference is the log-ratio.
    """
    rows: Any = trainer.eval_dataset
    columns: dict[str, Any] = {
        "id": list(rows.rows["id"]),
        "kind": [("", *KINDS)[at] for at in rows.kinds],
        "d": pa.array(rows.imbalance.numpy(), from_pandas=True),  # nan as null
        "w_c": rows.balance.chosen_weight.tolist(),
        "w_r": rows.balance.rejected_weight.tolist(),
    }
    for place, side in enumerate(("chosen", "rejected")):
        ratios = [trainer.held_out[id][place] for id in columns["id"]]
        before = list(rows.rows[f"ref_{side}_logps"])
        columns[f"{side}_logps_before"] = before
        columns[f"{side}_logps_after"] = [logp + ratio for logp, ratio in zip(before, ratios, strict=True)]
    return pa.table(columns)


def refusal_shares(pairs: list[PreferencePair]) -> dict[str, float]:
    """Share of the replies that open as a refusal (told by stock phrases), of the chosen and of the rejected ones."""
    sides = {"chosen": [pair.chosen for pair in pairs], "rejected": [pair.rejected for pair in pairs]}
    return {
        side: sum(opens_as_refusal(split_reasoning(reply)[1]) for reply in replies) / len(replies)
        for side, replies in sides.items()
    }


def device_name() -> str:
    """What this process computes on."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"


def peak_memory() -> int:
    """Most memory that this process held so far [bytes]: of the GPU where there is one, else of the machine."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def finite(number: float) -> float | None:
    """The number, or None for infinity, which JSON does not have."""
    return number if abs(number) < float("inf") else None


def _scores(scores: ScoredData) -> dict[str, Any]:
    return {"path": str(scores.path.resolve()), "key": scores.manifest["key"]}
