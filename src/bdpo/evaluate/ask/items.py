"""From a row of a benchmark to an item: one reader for each shape of row.

A reader takes one row and gives one `Item`, or None for a row that is not asked about (the other half of XSTest);
it raises `BdpoError` for a row that is wrong. What the model reads is the request as it was published, and for a
question with a right answer an instruction behind it that says in which form to answer.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, replace

from bdpo.errors import BdpoError
from bdpo.pairs import Message, fields
from bdpo.pairs.fields import Row

VERBALISERS: dict[str, tuple[str, ...]] = {
    "sst2": ("Negative", "Positive"),
    "qqp": ("No", "Yes"),
    "mnli": ("Yes", "Maybe", "No"),
    "mnli-mm": ("Yes", "Maybe", "No"),
    "qnli": ("Yes", "No"),
    "rte": ("Yes", "No"),
}
"""AdvGLUE's labels 0, 1, ... of each task as a chat model would say them (GLUE's own order: 0 is entailment)."""


@dataclass(frozen=True)
class Item:
    """One prompt of a benchmark, and what is needed to score the reply to it."""

    id: str  # unique in its benchmark; the published id, else a hash of what is asked, so that no order matters
    messages: tuple[Message, ...]  # the conversation as the model reads it
    request: str  # what is asked for in plain words, which a judge is shown where the messages wrap it up
    category: str = ""  # of the published data; samples are stratified by it
    answer: str = ""  # the reference answer
    options: tuple[str, ...] = ()  # replies among which the log-probability picks
    correct: int | None = None  # index of the right option
    kind: str = ""  # of a preference pair: unsafe or harmless
    prompt: str = ""  # of a preference pair: the same for all pairs with the same prompt


# --- readers: requests that a judge looks at --------------------------------------------------------------

Columns = tuple[str, ...]
"""The names that a column goes by, in the published file and on the hub."""


def request(row: Row, *, text: Columns, category: Columns = (), id: Columns = ()) -> Item:
    """A request as it is, with the columns of its text, its category and its id where there are such."""
    number = fields.optional_text(row, _first_there(row, id)) if id else ""
    return _asked(fields.text(row, _first_there(row, text)), _label(row, category), number)


def jailbreak(row: Row) -> Item | None:
    """JailbreakBench artefact: the goal wrapped in an attack; no prompt where the attack was given up."""
    if row.get("prompt") is None:
        return None
    item = request(row, text=("goal",), category=("category",), id=("index",))
    return replace(item, messages=_user(fields.text(row, "prompt")))


def harmbench(row: Row) -> Item | None:
    """HarmBench text behaviours, the standard ones: contextual ones need a context, copyright ones a hash."""
    if fields.text(row, "FunctionalCategory") != "standard":
        return None
    return request(row, text=("Behavior",), category=("SemanticCategory",), id=("BehaviorID",))


def labelled(row: Row, *, label: str, category: str) -> Item | None:
    """A row labelled safe or unsafe (XSTest, starter); None where the label is not the one asked for."""
    found = fields.text(row, "label")
    if found not in ("safe", "unsafe"):
        raise BdpoError(f"'label' is '{found}': it must be safe or unsafe.")
    return request(row, text=("prompt",), category=(category,), id=("id",)) if found == label else None


def sorry_bench(row: Row) -> Item | None:
    """SORRY-Bench's requests as they are; those in another style (slang, another language, a cipher) are left out."""
    if fields.optional_text(row, "prompt_style") not in ("", "base"):
        return None
    fields.require(row, "turns")
    turns = fields.names(row, "turns")
    if len(turns) != 1:
        raise BdpoError(f"'turns' has {len(turns)} entries: it must be a list of one text.")
    return _asked(turns[0], fields.optional_text(row, "category"), fields.optional_text(row, "question_id"))


def wildjailbreak(row: Row, *, kind: str) -> Item | None:
    """WildJailbreak's evaluation, adversarial prompts of harmful and of benign intent; one of the two kinds."""
    found = fields.text(row, "data_type")
    if found not in ("adversarial_harmful", "adversarial_benign"):
        raise BdpoError(f"'data_type' is '{found}': it must be adversarial_harmful or adversarial_benign.")
    return request(row, text=("adversarial",)) if found == f"adversarial_{kind}" else None


# --- readers: questions with a right answer ---------------------------------------------------------------

_GSM8K_ASK = "Reason step by step. Then give the final answer as a number, on a line of its own, behind ####."


def gsm8k(row: Row) -> Item:
    """GSM8K: the final number stands behind #### in the answer."""
    question, (_, mark, number) = fields.text(row, "question"), fields.text(row, "answer").rpartition("####")
    if not mark:
        raise BdpoError("'answer' has no ####, behind which the final number stands.")
    if not re.search(r"\d", number):
        raise BdpoError("'answer' has no number behind its ####.")
    return replace(_asked(question), messages=_user(f"{question}\n\n{_GSM8K_ASK}"), answer=number.strip())


def simpleqa(row: Row) -> Item:
    """SimpleQA: `metadata` is a Python dict as text, with the topic."""
    try:
        topic = ast.literal_eval(fields.optional_text(row, "metadata") or "{}")["topic"]
    except (ValueError, SyntaxError, KeyError, TypeError):
        topic = ""
    answer = fields.text(row, "answer")
    if not answer.strip():
        raise BdpoError("'answer' is empty: fill it in, or take the row out.")
    return replace(_asked(fields.text(row, "problem"), str(topic)), answer=answer)


_NLI = ("premise", "hypothesis", 'Does the premise entail the hypothesis? Answer "Yes", "Maybe" or "No".')
_ADVGLUE_ASK = {  # the columns of each task, and the question put behind them
    "sst2": ("sentence", "", 'Is the sentiment of this sentence "Positive" or "Negative"?'),
    "qqp": ("question1", "question2", 'Do these two questions ask the same? Answer "Yes" or "No".'),
    "mnli": _NLI,
    "mnli-mm": _NLI,
    "qnli": ("question", "sentence", 'Does the sentence answer the question? Answer "Yes" or "No".'),
    "rte": ("sentence1", "sentence2", 'Does the first sentence entail the second? Answer "Yes" or "No".'),
}


def advglue(row: Row) -> Item:
    """AdvGLUE: the task stands under "part"; each label is verbalised as one of the options."""
    task = fields.text(row, "part")
    if task not in VERBALISERS:
        raise BdpoError(f"'{task}' is no AdvGLUE task; there are {', '.join(VERBALISERS)}.")
    first, second, ask = _ADVGLUE_ASK[task]
    columns = [column for column in (first, second) if column]
    told = "\n".join(f"{column.rstrip('12').capitalize()}: {fields.text(row, column)}" for column in columns)
    label, options = fields.value(row, "label"), VERBALISERS[task]
    if label not in range(len(options)):
        raise BdpoError(f"'label' is {label!r}: it must be one of 0 to {len(options) - 1} for {task}.")
    number = fields.optional_text(row, "idx")
    item = _asked(f"{told}\n\n{ask}", task, f"{task}-{number}" if number else "")
    return replace(item, options=options, correct=int(label))


_HHH_MARK = re.compile(r"(?:^|\n\n)(Human|Assistant):\s*")


def hhh(row: Row) -> Item:
    """HHH alignment: two answers, of which the label 1 marks the better; the part is the category."""
    targets = fields.value(row, "targets")
    try:
        options, labels = tuple(map(str, targets["choices"])), [int(label) for label in targets["labels"]]
    except (KeyError, TypeError, ValueError):
        raise BdpoError("'targets' must hold 'choices' (texts) and 'labels' (0 or 1).") from None
    if len(options) != len(labels) or len(options) < 2 or labels.count(1) != 1:
        raise BdpoError("'targets' must hold a label for each of its choices, exactly one of them 1.")
    asked = _asked(fields.text(row, "input"), _label(row, ("part",)))
    return replace(asked, messages=_turns(asked.request), options=options, correct=labels.index(1))


def _turns(text: str) -> tuple[Message, ...]:
    """The conversation in a text with "Human:" and "Assistant:" marks; the text of one user where there are none."""
    before, *marked = _HHH_MARK.split(text)
    roles = ["user" if speaker == "Human" else "assistant" for speaker in marked[::2]]
    said = [turn.strip() for turn in marked[1::2]]
    if before.strip():  # the first turn may go without its mark
        roles, said = ["user", *roles], [before.strip(), *said]
    if len(said) % 2 == 0 and said and not said[-1]:  # a closing "Assistant:" asks for the reply
        roles, said = roles[:-1], said[:-1]
    alternate = ["user", "assistant"] * len(roles)
    if roles != alternate[: len(roles)] or len(roles) % 2 == 0:
        return _user(text)
    return tuple({"role": role, "content": turn} for role, turn in zip(roles, said, strict=True))


# --- what the readers share -------------------------------------------------------------------------------


def _user(text: str) -> tuple[Message, ...]:
    return ({"role": "user", "content": text},)


def _asked(text: str, category: str = "", id: str = "") -> Item:
    if not text.strip():
        raise BdpoError("the prompt is empty: fill it in, or take the row out.")
    return Item(id=id, messages=_user(text), request=text, category=category)


def _first_there(row: Row, columns: Columns) -> str:
    """The first of the columns that the row has; the first of all where it has none, so that the fault names it."""
    return next((column for column in columns if column in row), columns[0])


def _label(row: Row, columns: Columns) -> str:
    return ", ".join(fields.names(row, _first_there(row, columns))) if columns else ""
