"""What a run would stop at after its pairs were scored, asked before: values, and what is not installed."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DynamoBackend
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from transformers import Trainer, TrainingArguments, get_scheduler
from transformers.integrations import get_available_reporting_integrations
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.trainer_optimizer import is_optimizer_factory
from transformers.trainer_utils import SaveStrategy
from transformers.training_args import ParallelMode
from transformers.utils import is_liger_kernel_available

from bdpo.errors import BdpoError, first_line, unknown
from bdpo.method.metrics import metric_names

TRACKERS = "tensorboard", "wandb", "trackio"  # the extra `trackers` of pyproject.toml
_NEEDS_NO_KEY = "offline", "dryrun", "disabled"  # modes of wandb


def _from(least: float, below: float = math.inf) -> Callable[[float], bool]:
    return lambda value: least <= value < below


_COUNT = _from(1), "must be at least 1"
_COUNT_OR_NONE = _from(1), "must be at least 1, or left out"
_NOT_NEGATIVE = _from(0), "must be a number from 0 up"
_INTERVAL = (lambda steps: 0 < steps < math.inf), "must be a number above 0"
_SEED = _from(0, 2**32), "must be from 0 to 4294967295"
_BOUNDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "per_device_train_batch_size": _COUNT,
    "per_device_eval_batch_size": _COUNT,
    "gradient_accumulation_steps": (_from(1, 100_001), "must be at least 1 and at most 100000"),  # gone through
    "tokens_per_batch": _COUNT_OR_NONE,
    "max_steps": (lambda steps: steps == -1 or steps >= 1, "must be at least 1, or left out"),
    "num_train_epochs": (lambda epochs: 0 < epochs < math.inf, "must be a number above 0"),
    "learning_rate": _NOT_NEGATIVE,
    "weight_decay": _NOT_NEGATIVE,
    "adam_epsilon": _NOT_NEGATIVE,
    "max_grad_norm": (lambda norm: norm >= 0, "must be a number from 0 up"),
    "neftune_noise_alpha": _NOT_NEGATIVE,
    "warmup_steps": _NOT_NEGATIVE,
    "logging_steps": _INTERVAL,
    "eval_steps": _INTERVAL,
    "eval_delay": _NOT_NEGATIVE,
    "eval_accumulation_steps": _COUNT_OR_NONE,
    "torch_empty_cache_steps": _COUNT_OR_NONE,
    "dataloader_prefetch_factor": _COUNT_OR_NONE,
    "displacement_alarm": (_from(-math.inf), "must be a number, or null"),
    "save_steps": _INTERVAL,
    "save_total_limit": _COUNT_OR_NONE,
    "dataloader_num_workers": _NOT_NEGATIVE,
    "seed": _SEED,
    "data_seed": _SEED,
    "label_smoothing_factor": (
        lambda factor: factor == 0, "has no effect on preference pairs: set label_smoothing of the loss dpo or robust"
    ),
}  # fmt: skip


def refuse_unfit(args: TrainingArguments) -> None:
    """Raise BdpoError for arguments under which training would stop, or do nothing, after the pairs were scored."""
    for name, (fits, sentence) in _BOUNDS.items():
        value = getattr(args, name)
        if value is not None and not fits(value):
            raise BdpoError(f"{name} is {value}: it {sentence}.")
    nan = [name for name, value in vars(args).items() if isinstance(value, float) and math.isnan(value)]
    if nan:
        raise BdpoError(f"{nan[0]} is nan: give a number, or leave it out.")
    _refuse_trackers(args.report_to or ())
    if args.use_liger_kernel and not is_liger_kernel_available():
        raise BdpoError("use_liger_kernel needs liger-kernel: pip install liger-kernel, or leave it out.")
    _refuse_engines(args)
    _refuse_compiling(args)
    metric, known = args.metric_for_best_model, {"loss", *metric_names()} - {"pair_loss"}
    if metric is None and args.save_strategy == SaveStrategy.BEST:
        raise BdpoError("save_strategy is best: say by which metric, in metric_for_best_model.")
    if metric is not None and metric.removeprefix("eval_") not in known:
        raise unknown("metric_for_best_model", metric, sorted(name for name in known if "imbalance_" not in name))
    if metric is not None and "imbalance_" in metric and not getattr(args, "needs_comprehension", True):
        raise BdpoError(
            f"metric_for_best_model is {metric}, and without the balance no imbalance is measured: choose another one, "
            "or in place of balance=False set temperature=inf, which measures and balances nothing."
        )
    checkpoint = args.resume_from_checkpoint
    if isinstance(checkpoint, str) and not Path(checkpoint).is_dir():
        raise BdpoError(f"resume_from_checkpoint is {checkpoint!r}, which is no folder: give that of a checkpoint.")
    _try_schedule(args, _try_optimizer(args))


def _refuse_trackers(names: Iterable[str]) -> None:
    """Refuse trackers that are not installed, do not load, or do not know where to send what they are told."""
    available = get_available_reporting_integrations()
    for name in names:
        if name not in available:
            ours = f"pip install 'bdpo[trackers]', which brings {', '.join(TRACKERS)}, or leave it out"
            raise BdpoError(f"report_to names {name}, which is not installed: {ours}.")
        if name not in TRACKERS:  # others may begin something as soon as they are made
            continue
        try:
            INTEGRATION_TO_CALLBACK[name]()
            ready = name != "wandb" or _wandb_is_ready()
        except Exception as error:  # each library's own
            raise BdpoError(f"report_to names {name}, which does not start: {first_line(error)}") from error
        if not ready:
            raise BdpoError(
                "report_to names wandb, which has no API key: run wandb login or set WANDB_API_KEY, or set WANDB_MODE "
                "to offline to write to this machine alone."
            )


def _wandb_is_ready() -> bool:
    """Whether wandb can begin a run without asking anything, which it would do only after the pairs were scored."""
    import wandb

    if wandb.run is not None or os.environ.get("WANDB_MODE") in _NEEDS_NO_KEY:
        return True
    if wandb.setup().settings.mode in _NEEDS_NO_KEY or wandb.login(prompt=False, verify=False):
        return True
    wandb.teardown()  # so that it reads its settings anew once they are mended, which may be in this process
    return False


def _refuse_engines(args: TrainingArguments) -> None:
    """Refuse FSDP in one process, and ZeRO-3 of which stage 1 does not know."""
    if args.fsdp and args.parallel_mode != ParallelMode.DISTRIBUTED:
        raise BdpoError("fsdp needs several processes: start them with accelerate launch or torchrun, or leave it out.")
    if args.deepspeed and (plugin := args.deepspeed_plugin) is not None and plugin.zero_stage == 3:
        raise BdpoError(
            "deepspeed shares out the weights (ZeRO-3), which scoring must know of as well: leave it out, and start "
            "with accelerate launch --use_deepspeed --deepspeed_config_file FILE."
        )


def _refuse_compiling(args: TrainingArguments) -> None:
    if not args.torch_compile:
        return
    backend, known = args.torch_compile_backend, [kind.value.lower() for kind in DynamoBackend if kind.value != "NO"]
    if backend not in known:
        raise unknown("torch_compile_backend", backend, known)
    if backend not in torch.compiler.list_backends(exclude_tags=()):  # asked last, since it takes seconds
        raise BdpoError(f"torch_compile_backend {backend} is not installed: install it, or take inductor.")
    modes = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
    if args.torch_compile_mode not in (None, *modes):
        raise unknown("torch_compile_mode", args.torch_compile_mode, modes)


def _try_optimizer(args: TrainingArguments) -> torch.optim.Optimizer:
    """The optimiser of the run over one weight, or a plain one where it cannot be made without the model."""
    weight = nn.Parameter(torch.zeros(2, 2))
    try:
        kind, how = Trainer.get_optimizer_cls_and_kwargs(args)
        if not is_optimizer_factory(kind) and "params" not in how:
            return kind([weight], **how)
    except Exception as error:  # each library's own
        if "need to pass a" not in str(error):  # the model
            raise BdpoError(f"optim is {_word(args.optim)}: {first_line(error)}") from error
    return torch.optim.SGD([weight], lr=args.learning_rate)


def _try_schedule(args: TrainingArguments, optimizer: torch.optim.Optimizer) -> None:
    """Make the schedule of the learning rate and take some steps of it."""
    kind: Any = args.lr_scheduler_type
    try:
        schedule = get_scheduler(
            kind, optimizer=optimizer, num_warmup_steps=1, num_training_steps=1000,
            scheduler_specific_kwargs=args.lr_scheduler_kwargs,  # type: ignore[arg-type]
        )  # fmt: skip
        for _ in range(3):
            optimizer.step()
            schedule.step(*([0.0] if isinstance(schedule, ReduceLROnPlateau) else []))
    except Exception as error:  # a name or a value that the schedule does not take
        raise BdpoError(
            f"lr_scheduler_type {_word(kind)} does not take lr_scheduler_kwargs "
            f"{args.lr_scheduler_kwargs or {}}: {first_line(error)}."
        ) from error


def _word(name: Any) -> str:
    """A name of transformers' lists, which may be a member of an Enum."""
    return str(getattr(name, "value", name))
