"""The local engine: a batch of prompts -> replies, through `transformers.generate`.

A call of `generate` ends where a quarter of the batch has ended, and the next one goes on with the others.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor
from tqdm import tqdm
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    PreTrainedTokenizerBase,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from bdpo.errors import BdpoError
from bdpo.evaluate.replies.cache import Leaving, roomy_cache
from bdpo.evaluate.replies.collect import OnBatch, Prompts, Reply, Sampling, begun, opening_of
from bdpo.evaluate.replies.progress import Progress
from bdpo.evaluate.replies.thoughts import MARKS, is_known, marks_around, opened_at_end, split_thought
from bdpo.forward.allocator import keep_freed_memory
from bdpo.models import device_of, weights_hash
from bdpo.pairs import Message
from bdpo.pairs.bounds import bounded
from bdpo.pairs.reasoning import CLOSE, OPEN
from bdpo.tokens import prompt_ids, stop_ids, tokenizer_key

# Of a batch, where nobody says: the products of a step use a CPU well only from about a hundred rows on, and the cache
# takes memory for each token (46 kB of the starter model, 131 kB of a model of 8B in bfloat16)
_MOST, _TOKENS = 128, 2**15


@dataclass(frozen=True)
class _Row:
    """One reply to be made."""

    id: str
    sample: int
    ids: list[int]  # of the prompt, and of the reply's opening behind it
    opening: str  # of the reply, where the model is given one


class LocalGenerator:
    """Replies of a model in memory, as it is handed in: an adapter that is on stays on.

    Greedy decoding depends on nothing but model and prompt, apart from rounding, which differs a little between
    batches of different make-up. Of the model's own generation settings only the end-of-sequence tokens count.

    Args:
        batch_size: replies made at once; halved where they do not fit in memory. None: as many as 32,768 tokens of
            prompts and replies allow, 128 at most.

    Raises:
        BdpoError: batch_size is below 1.
    """

    may_cache = True

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase, batch_size: int | None = None) -> None:
        if batch_size is not None and batch_size < 1:
            raise BdpoError(f"batch_size is {batch_size}: it must be at least 1.")
        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size
        own = model.generation_config.eos_token_id
        self.stop = sorted(stop_ids(tokenizer).union([] if own is None else [own] if isinstance(own, int) else own))
        self.thoughts = ThoughtMarks(tokenizer)

    @cached_property
    def key(self) -> dict[str, Any]:
        """What replies depend on beside prompt and sampling: weights, tokenizer, template, where a reply ends."""
        return {
            "weights": weights_hash(self.model),
            **tokenizer_key(self.tokenizer),
            "dtype": str(next(self.model.parameters()).dtype).removeprefix("torch."),
            "stop": self.stop,
            **self.thoughts.key,
        }

    def fingerprint(self, messages: Sequence[Message], where: str) -> str:
        """A hash of the prompt's token ids; `where` names the prompt in an error."""
        return _digest(prompt_ids(self.tokenizer, messages, where))

    def replies(self, prompts: Prompts, sampling: Sampling, on_batch: OnBatch | None = None) -> dict[str, list[Reply]]:
        """All samples of every prompt, in the order of `prompts`; `on_batch` gets each batch as it is made.

        Raises:
            BdpoError: a prompt with its reply is longer than the model can read, a template refuses a prompt, the
                logits are not finite, or one reply by itself does not fit in memory.
        """
        rows = [
            _Row(id, sample, ids, opening_of(messages))
            for id, messages in prompts.items()
            for ids in [prompt_ids(self.tokenizer, messages, id)]
            for sample in range(sampling.samples)
        ]
        self._refuse_too_long(rows, sampling)
        rows.sort(key=lambda row: -len(row.ids))  # like with like, and what does not fit shows at the start
        made: dict[str, list[Reply]] = {id: [] for id in prompts}
        with self._ready(sampling) as config, Progress(len(rows), sampling.max_new_tokens) as progress:
            while rows:
                batch = rows[: self._fitting(len(rows[0].ids) + sampling.max_new_tokens)]
                try:
                    for replies in self._batch(batch, sampling, config, progress):
                        done = {(reply.id, reply.sample) for reply in replies}
                        rows = [row for row in rows if (row.id, row.sample) not in done]
                        for reply in replies:
                            made[reply.id].append(reply)
                        progress.add(replies)
                        if on_batch:
                            on_batch(replies)
                except RuntimeError as error:
                    if not _is_out_of_memory(error):
                        raise
                    progress.again()
                    self._halve(len(batch))
        return {id: sorted(replies, key=lambda reply: reply.sample) for id, replies in made.items()}

    def _fitting(self, length: int) -> int:
        """How many replies are made at once whose prompts and replies may take `length` tokens each."""
        return self.batch_size or max(1, min(_MOST, _TOKENS // length))

    def _batch(
        self, rows: list[_Row], sampling: Sampling, config: GenerationConfig, progress: Progress
    ) -> Iterator[list[Reply]]:
        """The replies of one batch, as they end; the others go on in a smaller one, on the cache as it is."""
        device = device_of(self.model)
        width = max(len(row.ids) for row in rows)
        ids = torch.full((len(rows), width), config.pad_token_id)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, width - len(row.ids) :] = torch.tensor(row.ids)
            mask[i, width - len(row.ids) :] = 1
        ids, mask, cache = ids.to(device), mask.to(device), roomy_cache(self.model)
        drawing, stop = _drawing(rows, sampling, device), torch.tensor(self.stop, dtype=torch.long, device=device)
        while rows:
            finite, progress.step = Finite(len(rows), device), ids.shape[1] - width
            settings = copy(config)
            settings.max_new_tokens = width + sampling.max_new_tokens - ids.shape[1]
            going_on = {"past_key_values": cache, "stopping_criteria": [Leaving(stop, len(rows))]}
            ids = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                generation_config=settings,
                logits_processor=[finite, *drawing, progress],
                **(going_on if cache else {}),
            )
            if not finite.rows.all():
                raise BdpoError(
                    f"The model's logits for prompt {rows[int(finite.rows.int().argmin())].id} are not finite: its "
                    f"weights are damaged, or overflow in {self.model.dtype}; try --dtype float32."
                )
            ended = torch.isin(ids[:, width:], stop).any(-1)
            if (
                ids.shape[1] == width + sampling.max_new_tokens or not ended.any()
            ):  # or `generate` ended for its own reason
                ended = torch.ones_like(ended)
            places = {end: (ended == end).nonzero().flatten().tolist() for end in (True, False)}
            yield [self._reply(rows[i], ids[i, width:].tolist()) for i in places[True]]
            rows, ids, mask = [rows[i] for i in places[False]], ids[~ended], mask[~ended]
            mask = torch.cat([mask, mask.new_ones(len(mask), ids.shape[1] - mask.shape[1])], dim=1)
            if rows and cache:
                cache.batch_select_indices(torch.tensor(places[False]))
            for draw in drawing:
                if isinstance(draw, _Draw):
                    draw.keep(places[False])

    def _reply(self, row: _Row, generated: list[int]) -> Reply:
        """The reply in what was generated for a row, which goes on with padding behind the end."""
        end = next((i for i, token in enumerate(generated) if token in self.stop), None)
        text = self.thoughts.text(row.ids, generated[:end])
        if row.opening:
            text = begun(row.opening, self._blank(row.ids[-1], generated[:end], text) + text)
        tokens = len(generated) if end is None else end + 1
        return Reply(row.id, row.sample, text, "length" if end is None else "end", len(row.ids), tokens)

    def _blank(self, before: int, ids: list[int], text: str) -> str:
        """The blank between a token and a text behind it, which SentencePiece loses when it decodes these alone."""
        alone, both = (
            str(self.tokenizer.decode(part, skip_special_tokens=True)) for part in ([before], [before, *ids])
        )
        return " " if both[len(alone) :] == f" {text}" else ""

    def _halve(self, size: int) -> None:
        if size == 1:
            raise BdpoError("Not even one reply fits in memory: ask for fewer tokens, or take a smaller dtype.")
        self.batch_size = size // 2
        clear_device_cache(garbage_collection=True)
        tqdm.write(f"{size} replies at once do not fit in memory: going on with {self.batch_size}.", file=sys.stderr)

    def _refuse_too_long(self, rows: list[_Row], sampling: Sampling) -> None:
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        longest = max(rows, key=lambda row: len(row.ids), default=None)
        if limit and longest and len(longest.ids) + sampling.max_new_tokens > limit:
            raise BdpoError(
                f"Prompt {longest.id} has {len(longest.ids)} tokens, and with {sampling.max_new_tokens} new ones it is "
                f"longer than the {limit} that the model can read: ask for fewer, or leave the prompt out."
            )

    @contextmanager
    def _ready(self, sampling: Sampling) -> Iterator[GenerationConfig]:
        """The model in eval mode, its own generation settings (a temperature, a penalty) out of the way."""
        padding = self.tokenizer.pad_token_id
        config = GenerationConfig(
            max_new_tokens=sampling.max_new_tokens,
            do_sample=False,  # samples are drawn by `_Draw`
            eos_token_id=self.stop or None,
            pad_token_id=padding if padding is not None else [*self.stop, 0][0],
        )
        if device_of(self.model).type == "cpu":
            keep_freed_memory()
        models = [self.model, *([self.model.get_base_model()] if hasattr(self.model, "get_base_model") else [])]
        settings, was_training = [model.generation_config for model in models], self.model.training
        try:
            for model in models:
                model.generation_config = config
            self.model.eval()
            yield config
        finally:
            self.model.train(was_training)
            for model, own in zip(models, settings, strict=True):
                model.generation_config = own


class ThoughtMarks:
    """What marks a thought in the replies of a model: the known marks, and those that its chat template writes.

    Some are control tokens, which decoding would lose, and some the template writes at the end of the prompt.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.own = _marks_of_template(tokenizer)
        controls = {token.content: id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
        known = [mark for marks in MARKS if controls.keys() >= {*marks.tokens} for mark in marks.tokens]
        self.kept = {controls[mark]: mark for mark in (*known, *(self.own or ())) if mark in controls}

    @property
    def key(self) -> dict[str, Any]:
        """What the text of a reply depends on, where it does."""
        opened = self._opened(prompt_ids(self.tokenizer, ({"role": "user", "content": "Hi"},), "A prompt"))
        marks = {"opened": opened, "kept": sorted(self.kept.values()), "own": self.own and list(self.own)}
        return {"thoughts": marks} if any(marks.values()) else {}

    def text(self, prompt: list[int], reply: list[int]) -> str:
        """The text of a reply, control tokens left out except around a thought; its opening mark may be the prompt's.

        Marks that nobody else knows become `<think>` and `</think>`.
        """
        plain = str(self.tokenizer.decode(reply, skip_special_tokens=True))
        opened = self._opened(prompt)
        whole = opened + (f"\n{plain}" if opened else plain)
        if not self.kept.keys().isdisjoint(reply):
            runs = groupby(reply, key=self.kept.get)
            said = (mark or str(self.tokenizer.decode([*ids], skip_special_tokens=True)) for mark, ids in runs)
            whole = f"{opened}\n{''.join(said)}" if opened else "".join(said)
        if self.own:
            whole = whole.replace(self.own[0], OPEN, 1).replace(self.own[1], CLOSE, 1)
        return plain if split_thought(whole).answer == whole else whole

    def _opened(self, prompt: list[int]) -> str:
        """The mark with which the prompt opens the thought, "" where it does not."""
        end = str(self.tokenizer.decode(prompt[-16:])).rstrip()
        return self.own[0] if self.own and end.endswith(self.own[0]) else opened_at_end(end)


def _marks_of_template(tokenizer: PreTrainedTokenizerBase) -> tuple[str, str] | None:
    """The marks that the chat template writes around a turn's reasoning, unless they are among the known ones."""
    thought, answer = "Because of 2719.", "Yes, 1931."
    reasoning = dict.fromkeys(("reasoning_content", "reasoning", "thinking"), thought)
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": answer}]
    try:
        with bounded():
            plain = str(tokenizer.apply_chat_template(turns, tokenize=False))
            rendered = str(tokenizer.apply_chat_template([turns[0], turns[1] | reasoning], tokenize=False))
    except Exception:  # templates raise what they like; this one does not take reasoning
        return None
    found = marks_around(rendered, thought, answer)
    return None if found is None or is_known(*found) or any(mark in plain for mark in found) else found


class Finite(LogitsProcessor):
    """Keeps which rows had a finite highest logit at every step; looked at once a batch, so that no step waits."""

    def __init__(self, rows: int, device: torch.device) -> None:
        self.rows = torch.ones(rows, dtype=torch.bool, device=device)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """scores (B, V) -> the same."""
        self.rows &= scores.amax(-1).isfinite()
        return scores


class _Draw(LogitsProcessor):
    """Turns greedy decoding into sampling, with a random generator a row, so that no row depends on the others.

    argmax(s + g) is a draw from softmax(s) where the g are independent standard Gumbel variables, g = -log e with
    e ~ Exp(1) (the Gumbel-max trick; Maddison et al. 2014, arXiv:1411.0030).
    """

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """scores (B, V) float32 -> noisy scores (B, V)."""
        noise = torch.empty_like(scores)
        for row, generator in zip(noise, self.generators, strict=True):
            row.exponential_(generator=generator)
        return scores - noise.clamp_min_(2**-25).log_()  # some devices draw an exact 0, which would win always

    def keep(self, rows: Sequence[int]) -> None:
        """The other rows leave."""
        self.generators = [self.generators[row] for row in rows]


def _drawing(rows: list[_Row], sampling: Sampling, device: torch.device) -> list[LogitsProcessor]:
    if sampling.temperature == 0:
        return []
    seeds = [sampling.seed_of(_digest(row.ids), row.sample) for row in rows]
    nucleus = [TopPLogitsWarper(sampling.top_p)] if sampling.top_p < 1 else []
    return [TemperatureLogitsWarper(float(sampling.temperature)), *nucleus, _Draw(seeds, device)]


def _is_out_of_memory(error: RuntimeError) -> bool:
    """On an accelerator, on Linux, or as the allocators of macOS and Windows say it."""
    return (
        isinstance(error, torch.OutOfMemoryError)
        or should_reduce_batch_size(error)
        or "not enough memory" in str(error)
    )


def _digest(ids: list[int]) -> str:
    return hashlib.sha256(repr(ids).encode()).hexdigest()
