"""`bdpo train --dry-run`: resolve everything, check the data, estimate time-free costs; train nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from rich.console import Console
from transformers import AutoModelForCausalLM

from bdpo import models
from bdpo.errors import BdpoError
from bdpo.models.patterns import refuse_endless
from bdpo.pairs import CheckReport, LoadedPairs, check_pairs
from bdpo.recipe.card import method_name
from bdpo.recipe.data import RunData, read_data, refuse_errors
from bdpo.recipe.memory import Memory, Shape, training_memory
from bdpo.recipe.parts import bdpo_config, load_tokenizer, lora_config, token_lengths
from bdpo.recipe.sections import Recipe
from bdpo.terminal import say
from bdpo.train.batches import Filler, StepSampler
from bdpo.train.config import BDPOConfig
from bdpo.train.prepare import refuse_second_adapter, training_steps, with_adapter

Lengths: TypeAlias = list[tuple[int, int, int]]  # tokens of prompt, chosen and rejected, by pair


@dataclass(frozen=True)
class DryRun:
    """What a run would be."""

    method: str
    model: str
    train_pairs: int
    eval_pairs: int
    told: str  # of these, for people
    steps: int
    pairs_per_step: int
    shape: Shape
    memory: Memory
    report: CheckReport
    out: Path
    fault: str | None  # what the run would stop at

    def render(self, console: Console) -> None:
        """Print it."""
        self.report.render(console)
        gb = {name: value / 1e9 for name, value in vars(self.memory).items()}
        shape = self.shape
        lines = (
            f"{self.method} on {self.model}: {self.told}",
            f"{self.steps} optimiser steps of {self.pairs_per_step} pairs.",
            f"{shape.trainable:,} of {shape.parameters:,} weights are trained.",
            f"Largest micro-batch: {shape.tokens} tokens, {shape.replies} of them replies.",
            "Estimated peak memory a device, unsharded: "
            f"{self.memory.total / 1e9:.1f} GB ({', '.join(f'{name} {value:.1f}' for name, value in gb.items())}).",
            f"Nothing was trained. The run would go to {self.out}.",
        )
        for line in lines:
            say(console, line)


def dry_run(recipe: Recipe, out: Path) -> DryRun:
    """Everything that can be known before training.

    Raises:
        BdpoError: what the run itself would stop at: model, data, options.
    """
    args = bdpo_config(recipe, out)
    model = _meta_model(recipe)
    tokenizer = load_tokenizer(recipe)
    data = read_data(recipe)
    loaded = LoadedPairs(data.train, recipe.data.train, "as read", len(data.train), data.counts)
    lengths = token_lengths(recipe, tokenizer, data.train, model.config)
    steps, largest = _steps(args, lengths)
    shape = _shape(model, [lengths[i] for i in largest])
    dtype = str(model.dtype).removeprefix("torch.") if recipe.model.dtype == "auto" else recipe.model.dtype
    stored = recipe.model.quantization or dtype
    cast = "bfloat16" if args.bf16 else "float16" if args.fp16 else None
    return DryRun(
        method=method_name(recipe),
        model=recipe.model.name,
        train_pairs=len(data.train),
        eval_pairs=len(data.eval),
        told=data.told(recipe),
        steps=steps,
        pairs_per_step=args.pairs_per_step,
        shape=shape,
        memory=training_memory(
            shape,
            weights=stored,
            compute=cast or dtype,
            checkpointing=bool(args.gradient_checkpointing),
            adapter=hasattr(model, "peft_config"),
            cpu=args.device.type == "cpu",
        ),
        report=check_pairs(loaded, tokenizer=tokenizer, max_length=recipe.data.max_length),
        out=out,
        fault=_fault(recipe, data),
    )


def _fault(recipe: Recipe, data: RunData) -> str | None:
    """What the run would say of errors in its training pairs or in the held-out ones."""
    try:
        refuse_errors(recipe, data)
    except BdpoError as error:
        return str(error)
    return None


def _meta_model(recipe: Recipe) -> Any:
    """The model as it would be trained, on the meta device: it has shapes, and nothing is allocated."""
    section = recipe.model
    folder = models.resolve(section.name, revision=section.revision)
    how = {} if section.attn_implementation is None else {"attn_implementation": section.attn_implementation}
    with models.loading_of(f"the model in {folder}"):
        config = models.config_in(models.base_folder(section.name, revision=section.revision))
        with torch.device("meta"):
            model: Any = models.from_config(AutoModelForCausalLM, config.get_text_config(), **how)
    carries = (folder / "adapter_config.json").exists()
    if carries:
        models.fit_vocabulary(model, folder)
    with torch.device("meta"):
        if carries:
            from peft import PeftConfig, get_peft_model

            carried = PeftConfig.from_pretrained(str(folder))
            carried.inference_mode = False
            names = [name for name, _ in model.named_modules()]
            refuse_endless(carried.to_dict(), names, str(folder / "adapter_config.json"))
            model = get_peft_model(model, carried)
        adapter = lora_config(recipe)
        refuse_second_adapter(model, adapter)
        return model if adapter is None else with_adapter(model, adapter)


def _steps(args: BDPOConfig, lengths: Lengths) -> tuple[int, list[int]]:
    """How many optimiser steps there will be, and the pairs of the largest micro-batch of an epoch."""
    totals = [sum(pair) for pair in lengths]
    sampler = StepSampler(totals, **training_steps(args, totals)[1])  # of world 1, so the batches of all processes
    batches = [[i for i in batch if not isinstance(i, Filler)] for batch in sampler]
    if not batches:
        raise BdpoError("No batch can be made: the data is smaller than a step and dataloader_drop_last is set.")
    steps = math.ceil(len(list(sampler.steps())) * args.num_train_epochs)
    return args.max_steps if args.max_steps > 0 else steps, max(batches, key=lambda b: sum(totals[i] for i in b))


def _shape(model: Any, batch: Lengths) -> Shape:
    """Weights of the model, and tokens of a micro-batch."""
    config = model.config.get_text_config()
    adapted = hasattr(model, "peft_config")
    return Shape(
        parameters=sum(p.numel() for p in model.parameters() if not (adapted and p.requires_grad)),
        trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        intermediate=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        vocabulary=config.vocab_size,
        tokens=sum(map(sum, batch)),
        replies=sum(chosen + rejected for _, chosen, rejected in batch),
    )
