"""`bdpo train --dry-run`: resolve everything, check the data, estimate time-free costs; train nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from transformers import AutoConfig, AutoModelForCausalLM

from bdpo import models
from bdpo.batches import StepSampler
from bdpo.card import method_name
from bdpo.config import Recipe
from bdpo.errors import BdpoError
from bdpo.memory import Memory, Shape, training_memory
from bdpo.pairs import CheckReport, LoadedPairs, check_pairs
from bdpo.run import bdpo_config, chat_template, lora_config, read_data, token_lengths
from bdpo.train_config import BDPOConfig


@dataclass(frozen=True)
class DryRun:
    """What a run would be."""

    method: str
    model: str
    train_pairs: int
    eval_pairs: int
    steps: int
    pairs_per_step: int
    shape: Shape
    memory: Memory
    report: CheckReport
    out: Path

    def render(self, console: Console) -> None:
        """Print it."""
        self.report.render(console)
        gb = {name: value / 1e9 for name, value in vars(self.memory).items()}
        shape = self.shape
        lines = (
            f"{self.method} on {self.model}: {self.train_pairs} pairs, {self.eval_pairs} held out.",
            f"{self.steps} optimiser steps of {self.pairs_per_step} pairs.",
            f"{shape.trainable:,} of {shape.parameters:,} weights are trained.",
            f"Largest micro-batch: {shape.tokens} tokens, {shape.replies} of them replies.",
            "Estimated peak memory a device, unsharded: "
            f"{self.memory.total / 1e9:.1f} GB ({', '.join(f'{name} {value:.1f}' for name, value in gb.items())}).",
            f"Nothing was trained. The run would go to {self.out}.",
        )
        for line in lines:
            console.print(line, highlight=False, soft_wrap=True)


def dry_run(recipe: Recipe, out: Path) -> DryRun:
    """Everything that can be known before training.

    Raises:
        BdpoError: what the run itself would stop at: model, data, options.
    """
    args = bdpo_config(recipe, out)
    tokenizer = models.load_tokenizer(recipe.model.name)
    tokenizer.chat_template = chat_template(recipe) or tokenizer.chat_template
    data = read_data(recipe, tokenizer)
    loaded = LoadedPairs(data.train, recipe.data.train, "as read", len(data.train), data.counts)
    lengths = token_lengths(recipe, tokenizer, data.train)
    shape = _shape(recipe, args, lengths)
    steps_an_epoch = -(-len(data.train) // args.pairs_per_step)
    stored = recipe.model.quantization or ("float32" if recipe.model.dtype == "auto" else recipe.model.dtype)
    return DryRun(
        method=method_name(recipe),
        model=recipe.model.name,
        train_pairs=len(data.train),
        eval_pairs=len(data.eval),
        steps=args.max_steps if args.max_steps > 0 else int(steps_an_epoch * args.num_train_epochs),
        pairs_per_step=args.pairs_per_step,
        shape=shape,
        memory=training_memory(
            shape,
            weights=stored,
            compute="bfloat16" if args.bf16 else "float32" if stored == "4bit" else stored,
            checkpointing=bool(args.gradient_checkpointing),
            adapter=recipe.peft is not None,
        ),
        report=check_pairs(loaded, tokenizer=tokenizer, max_length=recipe.data.max_length),
        out=out,
    )


def _shape(recipe: Recipe, args: BDPOConfig, lengths: list[tuple[int, int, int]]) -> Shape:
    """Count weights on the meta device (nothing is allocated), and tokens of the largest micro-batch."""
    config = AutoConfig.from_pretrained(models.base_folder(recipe.model.name)).get_text_config()
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
        parameters = model.num_parameters()
        adapter = lora_config(recipe)
        if adapter is not None:
            from peft import get_peft_model

            model = get_peft_model(model, adapter)
    totals = [sum(pair) for pair in lengths]
    sampler = StepSampler(
        totals,
        per_step=args.per_device_train_batch_size * args.gradient_accumulation_steps,
        micro=args.per_device_train_batch_size,
        seed=args.seed,
    )
    batches = [[i for i in batch if i >= 0] for batch in sampler]
    if not batches:
        raise BdpoError("No batch can be made: the data is smaller than a step and dataloader_drop_last is set.")
    largest = max(batches, key=lambda batch: sum(totals[i] for i in batch))
    return Shape(
        parameters=parameters,
        trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        intermediate=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        vocabulary=config.vocab_size,
        tokens=sum(totals[i] for i in largest),
        replies=sum(lengths[i][1] + lengths[i][2] for i in largest),
    )
