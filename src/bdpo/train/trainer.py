"""Stage 2: BDPOTrainer. Only the policy is in memory; the reference was scored in stage 1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PrinterCallback, Trainer, TrainerCallback
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK
from transformers.trainer_utils import EvalLoopOutput
from transformers.utils import logging

from bdpo import models
from bdpo.errors import BdpoError
from bdpo.files import follow_umask
from bdpo.forward.allocator import keep_freed_memory
from bdpo.forward.layout import Layout
from bdpo.forward.logprobs import branch_logps, choose_layout
from bdpo.method.logps import PairLogps, PairWeights
from bdpo.method.losses import pair_losses, rewards
from bdpo.method.metrics import COLUMNS, PairStatistics, summarise, tercile_edges
from bdpo.score.sources import TOLERANCE
from bdpo.terminal import no_library_bars
from bdpo.train.batches import PairBatch, PairCollator, ScoredRows, StepLoader, StepSampler
from bdpo.train.card import card_to_push, write_card
from bdpo.train.config import BDPOConfig
from bdpo.train.prepare import Pairs, policy, refuse_second_adapter, scored_rows, training_steps
from bdpo.train.shown import PAIRS, STEPS, EndTable, LastStep, Shown, mean_loss, without_noise

logger = logging.get_logger(__name__)


class FiniteGradients(TrainerCallback):
    """Stops before a gradient that is not finite reaches the weights, as it may where the loss itself is finite.

    Not for float16, whose scaler skips such steps by itself. DeepSpeed keeps its gradients elsewhere and does likewise.
    """

    def __init__(self) -> None:
        self.ids: list[str] = []  # of the step's pairs in this process so far

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look at the gradients as they are about to be applied."""
        ids, self.ids = self.ids, []
        gradients = [p.grad for p in kwargs["model"].parameters() if p.grad is not None]
        norm: Any = nn.utils.get_total_norm(gradients)
        if not args.fp16 and not getattr(norm, "full_tensor", lambda: norm)().isfinite():
            raise BdpoError(
                f"The gradient is not finite at step {state.global_step + 1}, for pairs {_some(ids)}. "
                "Training stopped before it moved a weight and the last checkpoint is intact: lower the learning "
                "rate, or look at these pairs."
            )


class BDPOTrainer(Trainer):
    """Balanced DPO on transformers.Trainer, and every loss of `bdpo.method.losses` with or without the balance.

    Args:
        model: a causal language model, its name, or a PeftModel whose adapter is to be trained further. The
            reference is the model as it is handed in, adapter included.
        args: BDPOConfig.
        train_dataset: scored data (a folder of `bdpo score`, or `ScoredData`), or raw pairs (a list of PreferencePair,
            or a Dataset in any shape that `bdpo.pairs` reads), which are scored first. Of raw pairs, repetitions are
            dropped and contradictions decided by the majority (`mend_pairs`), with a warning.
        eval_dataset: the same for held-out pairs.
        processing_class: the tokenizer; None loads the model's.
        peft_config: a LoraConfig or the like puts a new adapter on the model, and only that is trained.
        ref_model: only None; kept so that a call written for TRL's DPOTrainer runs.

    Raises:
        BdpoError: scores of another model, unfit pairs, nn.DataParallel, or a loss or gradient that is not finite.
    """

    args: BDPOConfig

    def __init__(
        self,
        model: Any,
        ref_model: None = None,
        args: BDPOConfig | None = None,
        train_dataset: Pairs | None = None,
        eval_dataset: Pairs | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        peft_config: Any | None = None,
    ) -> None:
        args = args or BDPOConfig()
        _refuse(args, ref_model, train_dataset, eval_dataset)
        if isinstance(model, str):
            loaded = models.load(model, trainable_adapter=peft_config is None, on_device=True)
            model, processing_class = loaded.model, processing_class or loaded.tokenizer
        refuse_second_adapter(model, peft_config)
        if processing_class is None:
            processing_class = models.from_files(
                AutoTokenizer, model.config._name_or_path, revision=getattr(model.config, "_commit_hash", None)
            )
        train_rows = scored_rows(train_dataset, "train", model, processing_class, args)
        args, self.sampling = training_steps(args, train_rows.lengths)
        eval_rows = None
        if eval_dataset is not None:
            eval_rows = scored_rows(eval_dataset, "eval", model, processing_class, args, train_rows)
        model = policy(model, peft_config, args)
        self.balance = train_rows.balance  # of the training pairs
        self.tercile_edges = tercile_edges(train_rows.imbalance)  # None where comprehension was not measured
        self.layout: Layout
        self.layout, why = choose_layout(model, max(rows.longest for rows in (train_rows, eval_rows) if rows))
        if self.layout == "padded":
            logger.warning(f"Layout: padded, one reply a sequence, because {why}.")
        self._table: list[Tensor] = []  # statistics of the pairs since the last log
        self._steps = 0  # since then
        self.held_out: dict[str, tuple[float, float]] = {}  # of `evaluate`: id -> log-ratios of both [nats]
        self._checked = False
        self._gradients = FiniteGradients()
        if args.device.type == "cpu":
            keep_freed_memory()
        super().__init__(
            model=model,
            args=args,
            data_collator=PairCollator(self.layout, _pad_id(processing_class)),
            train_dataset=train_rows,
            eval_dataset=eval_rows,
            processing_class=processing_class,
            callbacks=callbacks,
            optimizers=optimizers,
        )
        for theirs in (DEFAULT_PROGRESS_CALLBACK, PrinterCallback):
            self.remove_callback(theirs)
        self.shown = Shown()
        for ours in (self._gradients, LastStep(), self.shown, EndTable()):
            self.add_callback(ours)
        # compute_loss divides by the pairs of the whole step, so Trainer must not divide by the accumulation
        self.model_accepts_loss_kwargs = True
        self.loss_is_scaled_for_ga = True

    def get_total_train_batch_size(self, args: BDPOConfig) -> int:  # type: ignore[override]
        """Pairs of an optimiser step; under a token budget accumulation does not tell."""
        return int(self.sampling["per_step"])

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train, and leave the terminal as it was, however training ends."""
        self._table.clear()
        self._steps = 0
        try:
            with without_noise():
                return super().train(*args, **kwargs)
        finally:
            self.shown.close()

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The learning rate's schedule; warns of a run that ends before its warm-up does."""
        warmup = self.args.get_warmup_steps(num_training_steps)
        makes_one = self.lr_scheduler is None and self.args.lr_scheduler_type != "constant"
        if makes_one and warmup >= num_training_steps and self.is_world_process_zero():
            logger.warning(
                f"The warm-up ({warmup} optimiser steps) is not shorter than the run ({num_training_steps}), so the "
                f"learning rate never reaches {self.args.learning_rate:g}: train on more pairs or for more epochs, or "
                "set warmup_steps (in a recipe: train.warmup_steps) to 0."
            )
        return super().create_scheduler(num_training_steps, optimizer)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the weights, of a checkpoint too, for whoever may read the other files."""
        with no_library_bars():
            super().save_model(output_dir, _internal_call)
        if self.args.should_save:
            folder = Path(output_dir or str(self.args.output_dir))
            if _internal_call:  # a checkpoint has no card; peft's own names the folder of the base
                (folder / "README.md").unlink(missing_ok=True)
            else:
                write_card(self, folder)
            follow_umask(folder)

    def create_model_card(self, *given: Any, **told: Any) -> None:
        """Write the card that `push_to_hub` sends."""
        if self.is_world_process_zero():
            card_to_push(self, license=told.get("license"))

    # --- batches: a step is a fixed list of pairs --------------------------------------------------------------

    def get_train_dataloader(self) -> StepLoader:
        """This process's micro-batches of every step."""
        return self._loader(self.train_dataset, **self.sampling)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> StepLoader:
        """This process's share of the evaluation pairs."""
        micro = self.args.per_device_eval_batch_size
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        if not isinstance(rows, ScoredRows):
            raise BdpoError("Give evaluation pairs to BDPOTrainer as eval_dataset: their reference is scored with it.")
        # about 16 batches at a time are sorted by length, with as few fillers as can be
        batch = micro * self.args.world_size
        chunks = -(-len(rows) // (16 * batch))
        return self._loader(rows, micro=micro, per_step=-(-len(rows) // (chunks * batch)) * batch, shuffle=False)

    def _loader(self, rows: Any, **steps: Any) -> StepLoader:
        world, rank = self.args.world_size, self.args.process_index
        sampler = StepSampler(rows.lengths, rank=rank, world=world, **steps)
        return StepLoader(
            rows,
            batch_sampler=sampler,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            persistent_workers=self.args.dataloader_persistent_workers,
        )

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list[Any], Any]:
        """The micro-batches of a step, and how many pairs the step has over all processes.

        None beyond the last step: Trainer would take one more where it resumes from a checkpoint of the last one.
        """
        if self.state.global_step >= self.state.max_steps:
            return [], None
        self._steps += 1
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        count = sum(int(batch["pairs"].real.sum()) for batch in batches)
        return batches, self.accelerator.reduce(torch.tensor(count, device=device), "sum")

    # --- the loss ------------------------------------------------------------------------------------------------

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Sum of the pair losses over the number of pairs in the step (or in this batch, where that is not given)."""
        batch: PairBatch = inputs["pairs"].to(self.args.device)
        logps = self._logps(model, batch)
        weights = PairWeights(batch.scale * batch.chosen_weight, batch.scale * batch.rejected_weight)
        losses = pair_losses(self.args.loss_type, logps, weights, **self.args.hyperparameters())
        self._refuse_non_finite(losses, batch)
        if model.training and not self._checked:
            self._check_first_batch(model, logps, batch)
        statistics = self._statistics(losses, logps, batch)
        if model.training:
            self._table.append(statistics)
            self._gradients.ids += [id for id, real in zip(batch.ids, batch.real.tolist(), strict=True) if real]
        if num_items_in_batch is None:
            loss = (losses * batch.real).sum() / batch.real.sum().clamp(min=1)
        else:  # engines average gradients over processes, so the sum is restored
            loss = (losses * batch.real).sum() * (self.args.world_size / num_items_in_batch)
        return (loss, statistics) if return_outputs else loss

    def _logps(self, model: nn.Module, batch: PairBatch) -> PairLogps:
        chosen, rejected = branch_logps(model, batch.branches).logps.view(-1, 2).T
        lengths = batch.branches.lengths.view(-1, 2)
        return PairLogps(
            chosen=chosen,
            rejected=rejected,
            ref_chosen=batch.ref_chosen,
            ref_rejected=batch.ref_rejected,
            chosen_lengths=lengths[:, 0],
            rejected_lengths=lengths[:, 1],
            chosen_unsafe=batch.chosen_unsafe,
            rejected_unsafe=batch.rejected_unsafe,
        )

    @torch.no_grad()
    def _statistics(self, losses: Tensor, logps: PairLogps, batch: PairBatch) -> Tensor:
        """Rows of `PairStatistics` for the real pairs of a batch (n, columns)."""
        chosen_reward, rejected_reward = rewards(self.args.loss_type, logps, self.args.beta)
        statistics = PairStatistics(
            loss=losses,
            reward_chosen=chosen_reward,
            reward_rejected=rejected_reward,
            logratio_chosen=logps.chosen - logps.ref_chosen,
            logratio_rejected=logps.rejected - logps.ref_rejected,
            length_chosen=logps.chosen_lengths,
            length_rejected=logps.rejected_lengths,
            weight_chosen=batch.chosen_weight,
            weight_rejected=batch.rejected_weight,
            scale=batch.scale,
            imbalance=batch.imbalance,
            margin=logps.chosen - logps.rejected,
            kind=batch.kind,
        )
        return statistics.table()[batch.real]

    def _refuse_non_finite(self, losses: Tensor, batch: PairBatch) -> None:
        bad = [batch.ids[i] for i in (~losses.isfinite()).nonzero().flatten().tolist()]
        if bad:
            raise BdpoError(
                f"The loss is not finite at step {self.state.global_step + 1}, for pairs {_some(bad)}. "
                "Training stopped and the last checkpoint is intact: lower the learning rate, or look at these pairs."
            )

    def _check_first_batch(self, model: nn.Module, logps: PairLogps, batch: PairBatch) -> None:
        """Before the first step the policy is the reference, so all log-ratios must be near 0."""
        self._checked = True
        if self.state.global_step > 0:  # resumed: the policy has moved
            return
        if not self.args.disable_dropout or self.args.neftune_noise_alpha:
            model.eval()
            with torch.no_grad():
                logps = self._logps(model, batch)
            model.train()
        per_token = torch.stack([
            (logps.chosen - logps.ref_chosen) / logps.chosen_lengths,
            (logps.rejected - logps.ref_rejected) / logps.rejected_lengths,
        ]).abs().amax(0)  # fmt: skip
        worst = int(per_token.argmax())
        if per_token[worst] > TOLERANCE:
            raise BdpoError(
                f"Before any step the log-ratio of pair {batch.ids[worst]} is {per_token[worst]:.3f} nats/token away "
                "from 0: the scores belong to another model, adapter or precision. Score again with this model."
            )

    # --- evaluation and logging ----------------------------------------------------------------------------------

    @torch.no_grad()
    def evaluation_loop(  # type: ignore[override]
        self,
        dataloader: StepLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Metrics of `bdpo.method.metrics` over the evaluation pairs, each pair counted once."""
        model = self.model_wrapped
        model.eval()
        self.callback_handler.eval_dataloader = dataloader
        tables, ids = [], []
        for inputs in dataloader:
            pairs: PairBatch = inputs["pairs"]
            ids += [id for id, real in zip(pairs.ids, pairs.real.tolist(), strict=True) if real]
            with self.compute_loss_context_manager():
                _, statistics = self.compute_loss(model, inputs, return_outputs=True)
            tables.append(statistics)
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        table = self._gathered(tables)
        ratios = table[:, [COLUMNS.index("logratio_chosen"), COLUMNS.index("logratio_rejected")]].tolist()
        self.held_out = dict(zip(gather_object(ids), map(tuple, ratios), strict=True))
        metrics = {f"{metric_key_prefix}_{k}": v for k, v in summarise(table, self.tercile_edges).items()}
        metrics[f"{metric_key_prefix}_loss"] = metrics.pop(f"{metric_key_prefix}_pair_loss")
        return EvalLoopOutput(predictions=None, label_ids=None, metrics=metrics, num_samples=len(table))  # type: ignore[arg-type]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the metrics of the pairs seen since the last log, and warn of displacement."""
        if "loss" in logs:
            table = self._gathered(self._table)
            metrics = {STEPS: self._steps, PAIRS: len(table)} | summarise(table, self.tercile_edges)
            self._table.clear()
            self._steps = 0
            alarm, fallen = self.args.displacement_alarm, metrics.get("logratios/chosen", 0.0)
            if alarm is not None and fallen < alarm and self.is_world_process_zero():
                logger.warning(
                    f"Displacement: the mean log-ratio of chosen replies is {fallen:.1f} nats (alarm at {alarm:g}). "
                    "The model is unlearning the preferred replies too; raise beta, add an NLL term or train less."
                )
            logs = logs | {name: value for name, value in metrics.items() if not name.endswith("pair_loss")}
        if "train_loss" in logs:
            logs |= mean_loss(self.state.log_history)  # in place, since train() returns this dictionary
        super().log(logs, start_time)

    def _gathered(self, tables: list[Tensor]) -> Tensor:
        """All processes' rows; they may hold different numbers of them."""
        table = torch.cat(tables) if tables else torch.empty(0, len(COLUMNS), device=self.args.device)
        if self.args.world_size > 1:
            table = self.accelerator.gather(self.accelerator.pad_across_processes(table, pad_index=float("nan")))
            table = table[~table[:, 0].isnan()]
        return table.cpu()

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Forward and backward, 6 operations a parameter and token."""
        parameters = sum(p.numel() for p in self.accelerator.unwrap_model(self.model).parameters())
        return 6 * inputs["pairs"].branches.input_ids.numel() * parameters


def _refuse(args: BDPOConfig, ref_model: Any, train_dataset: Any, eval_dataset: Any) -> None:
    """Stop at arguments that cannot be meant, before any work."""
    if ref_model is not None:
        raise BdpoError("ref_model must be None: the reference is the model as handed in, scored before training.")
    if train_dataset is None:
        raise BdpoError("train_dataset is missing: give raw pairs or a scored folder.")
    if args.eval_strategy != "no" and eval_dataset is None:
        raise BdpoError("eval_strategy needs held-out pairs: give eval_dataset, or leave it out.")
    if args.n_gpu > 1:
        raise BdpoError(
            "nn.DataParallel is not supported: launch one process a GPU (accelerate launch, or torchrun), or make "
            "one GPU visible (CUDA_VISIBLE_DEVICES=0)."
        )


def _some(ids: list[str]) -> str:
    return ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")


def _pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    return 0 if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
