"""Tokenizers and chat templates in the style of well-known model families, made in memory.

The vocabulary is small; what a family does is kept: its control tokens and which of them are special, its other added
tokens, its way with blanks and line breaks, and how its template closes a turn, opens a reply and treats reasoning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN25 = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    + CHATML
    + "{# <tool_call> and </tool_call> hold calls #}"
)
_TAIL = "{%- set seen = namespace(user=0) %}{%- for m in messages %}{%- if m.role == 'user' %}{%- set seen.user = loop.index0 %}{%- endif %}{%- endfor %}"  # noqa: E501
QWEN3 = (
    _TAIL
    + """{%- for m in messages %}
{%- if m.role == 'assistant' %}
    {%- set thought, said = '', m.content %}
    {%- if m.reasoning_content is string %}
        {%- set thought = m.reasoning_content %}
    {%- elif '</think>' in said %}
        {%- set thought = said.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
        {%- set said = said.split('</think>')[-1].lstrip('\\n') %}
    {%- endif %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if loop.index0 > seen.user %}{{- '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' }}{%- endif %}
    {{- said.lstrip('\\n') + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}"""
)
QWEN3_THINKING = QWEN3[: QWEN3.index("{%- if add_generation_prompt")] + (
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n' }}{%- endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
_ALTERNATE = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}" + _ALTERNATE + "{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content | trim + eos_token }}{% endif %}{% endfor %}"
)
MISTRAL_V1 = MISTRAL
GEMMA = (
    "{{ bos_token }}" + _ALTERNATE + "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
PHI3 = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
DEEPSEEK = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}{% endif %}"
    "{% if m.role == 'user' %}<｜User｜>{{ m.content }}{% endif %}{% if m.role == 'assistant' %}<｜Assistant｜>"
    "{{ m.content.split('</think>')[-1] }}<｜end▁of▁sentence｜>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<｜Assistant｜>{% endif %}"
)
DEEPSEEK_R1 = DEEPSEEK.replace("<｜Assistant｜>{% endif %}", "<｜Assistant｜><think>\n{% endif %}")
VICUNA = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}USER: {{ m.content }} {% else %}"
    "ASSISTANT: {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def byte_level(
    special: Sequence[str],
    added: Sequence[str] = (),
    *,
    eos: str,
    bos: str | None = None,
    template: str | None = None,
    normalizer: normalizers.Normalizer | None = None,
) -> PreTrainedTokenizerFast:
    """GPT-4's kind (Qwen, Llama-3, DeepSeek): bytes, words split by a pattern in which line breaks run together."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ċ", "Ċ"), (".", "Ċ"), ("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("i", "n"), ("Ġ", "a"), ("o", "u")]
    pieces = [*special, *alphabet, *(left + right for left, right in merges)]
    bpe = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges))
    pattern = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    return _made(bpe, special, added, normalizer, eos=eos, bos=bos, template=template)


def sentencepiece(
    special: Sequence[str],
    added: Sequence[str] = (),
    *,
    eos: str = "</s>",
    bos: str | None = "<s>",
    template: str | None = None,
    blank: str | None = "first",
    normalizer: normalizers.Normalizer | None = None,
) -> PreTrainedTokenizerFast:
    """Llama-2's kind (Mistral, Vicuna, Phi-3; Gemma without `blank`): blanks as U+2581, bytes for what is not known.

    Args:
        blank: how one blank is put before the first word. "first" and "always" are Metaspace's schemes, "prepend" is
            Llama-2's normaliser, which puts one after each control token too, and None puts none.
    """
    letters = sorted({*"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;!?[]/<>_|'()#", "▁"})
    merges = [("▁", "H"), ("▁", "t"), ("l", "o"), ("▁", "▁"), ("H", "i")]
    pieces = [*special, *(f"<0x{i:02X}>" for i in range(256)), *letters, *(a + b for a, b in merges)]
    bpe = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges, byte_fallback=True))
    if blank in ("first", "always"):
        bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=blank, split=False)
    else:
        steps = [normalizers.Prepend("▁")] if blank else []
        spaces: normalizers.Normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
        normalizer = normalizers.Sequence([normalizer, spaces]) if normalizer else spaces
    bpe.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return _made(bpe, special, added, normalizer, eos=eos, bos=bos, template=template, unk_token="<unk>")


def _made(
    tokenizer: Tokenizer,
    special: Sequence[str],
    added: Sequence[str],
    normalizer: normalizers.Normalizer | None,
    *,
    eos: str,
    bos: str | None,
    template: str | None,
    **names: str,
) -> PreTrainedTokenizerFast:
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.add_special_tokens([AddedToken(piece, special=True, normalized=False) for piece in special])
    # transformers reads text for tokens that are not special after it was normalised, and so do these
    tokenizer.add_tokens([AddedToken(piece, special=False, normalized=normalizer is not None) for piece in added])
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=eos, bos_token=bos, pad_token=eos, **names)
    made.chat_template = template
    return made


@dataclass(frozen=True)
class Family:
    """One family: how to make its tokenizer, and what its texts must and need not be free of."""

    make: partial[PreTrainedTokenizerFast]
    controls: tuple[str, ...]  # some strings that must not come from a text
    plain: tuple[str, ...]  # some added tokens that are mere text
    system: bool = True  # takes a system message


_QWEN_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>")
_QWEN_ADDED = ("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|repo_name|>")
_THINK = ("<tool_response>", "<think>", "</think>")
_DEEPSEEK_SPECIAL = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>")
_DEEPSEEK_ADDED = ("<｜User｜>", "<｜Assistant｜>", "<｜fim▁begin｜>", "<｜tool▁calls▁begin｜>", "<think>", "</think>", "<|EOT|>")  # fmt: skip  # noqa: E501
_SPM = ("<unk>", "<s>", "</s>")
_HTML = ("<table>", "</td>", "<h1>", "<b>", "</b>", "<s>", "</s>", "<code>")
_RUNS = ("\n\n", "\t\t", "▁▁▁▁", "▁▁▁▁▁▁▁▁")

_qwen = partial(byte_level, _QWEN_SPECIAL, eos="<|im_end|>")
_deepseek = partial(byte_level, _DEEPSEEK_SPECIAL, _DEEPSEEK_ADDED, eos="<｜end▁of▁sentence｜>", bos="<｜begin▁of▁sentence｜>")  # fmt: skip  # noqa: E501

FAMILIES = {
    "chatml": Family(partial(byte_level, _QWEN_SPECIAL[:3], eos="<|im_end|>", template=CHATML), _QWEN_SPECIAL[:3], ()),
    "qwen2.5": Family(partial(_qwen, _QWEN_ADDED, template=QWEN25), (*_QWEN_SPECIAL, *_QWEN_ADDED), ()),
    "qwen3": Family(
        partial(_qwen, (*_QWEN_ADDED, *_THINK), template=QWEN3), (*_QWEN_SPECIAL, *_QWEN_ADDED, *_THINK), ()
    ),
    "qwen3-thinking": Family(
        partial(_qwen, (*_QWEN_ADDED, *_THINK), template=QWEN3_THINKING), (*_QWEN_SPECIAL, *_THINK), ()
    ),
    "llama3": Family(
        partial(
            byte_level,
            ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
            ("<|reserved_special_token_5|>",),
            eos="<|eot_id|>", bos="<|begin_of_text|>", template=LLAMA3,
        ),
        ("<|begin_of_text|>", "<|start_header_id|>", "<|eot_id|>", "<|reserved_special_token_5|>"),
        (),
    ),
    "mistral": Family(
        partial(sentencepiece, (*_SPM, "[INST]", "[/INST]", "[TOOL_CALLS]"), template=MISTRAL),
        ("<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]"),
        (),
        system=False,
    ),
    "mistral-v1": Family(
        partial(sentencepiece, _SPM, template=MISTRAL_V1, blank="prepend"), ("<s>", "</s>"), (), system=False
    ),
    "gemma": Family(
        partial(
            sentencepiece,
            ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"),
            (*_HTML, *_RUNS, "<unused7>", "[toxicity=0]"),
            eos="<eos>", bos="<bos>", template=GEMMA, blank=None,
        ),
        ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>", "<unused7>", "[toxicity=0]"),
        (*_HTML, "\n\n", "\t\t", "    "),
        system=False,
    ),
    "phi3": Family(
        partial(
            sentencepiece,
            ("<unk>", "<s>", "<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>"),
            ("</s>", *_RUNS),
            eos="<|endoftext|>", template=PHI3, blank="prepend",
        ),
        ("<s>", "</s>", "<|endoftext|>", "<|user|>", "<|end|>"),
        ("\n\n", "\t\t", "    "),
    ),
    "phi2": Family(  # GPT-NeoX's kind: added tokens for runs of blanks
        partial(byte_level, ("<|endoftext|>",), ("  ", "    ", "\t\t", "\t\t\t"), eos="<|endoftext|>"),
        ("<|endoftext|>",),
        ("  ", "    ", "\t\t\t"),
    ),
    "deepseek": Family(partial(_deepseek, template=DEEPSEEK), (*_DEEPSEEK_SPECIAL, *_DEEPSEEK_ADDED), ()),
    "deepseek-r1": Family(partial(_deepseek, template=DEEPSEEK_R1), (*_DEEPSEEK_SPECIAL, *_DEEPSEEK_ADDED), ()),
    "vicuna": Family(partial(sentencepiece, _SPM, template=VICUNA, blank="prepend"), ("<s>", "</s>"), ()),
}  # fmt: skip
