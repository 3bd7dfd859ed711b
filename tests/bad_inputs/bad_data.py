"""Bad data: what a file is, what a row says, what the rows say together."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from case import Bad, bad, fifo, pair

SCORE = "score --model model --out never --data"
CHECK = "data check --model model"
TRAIN = "train --config recipe.yaml --out never"
GOOD = pair(id="good")
USER = {"role": "user", "content": "Why?"}


def lines(*rows: str) -> str:
    return "".join(row + "\n" for row in rows)


def talk(*turns: dict) -> list[dict]:
    return [GOOD, pair(prompt=list(turns))]


def twice(path: Path) -> None:
    names = ["prompt", "chosen", "chosen", "rejected"]
    pq.write_table(pa.table([pa.array([name]) for name in names], names=names), path)


def parquet(cut: int | None = None, **columns: Any) -> Callable[[Path], None]:
    """A Parquet file of one row, changed; `cut` leaves so many bytes out at the end."""
    sound = {"prompt": ["Why?"], "chosen": ["So."], "rejected": ["No."]}

    def make(path: Path) -> None:
        pq.write_table(pa.table(sound | columns), path)
        path.write_bytes(path.read_bytes()[:cut])

    return make


def arrow(path: Path) -> None:
    with pa.ipc.new_file(str(path), pa.schema([("prompt", pa.string())])):
        pass


def no_text(path: Path) -> None:
    """Bytes that are said to be text and are not UTF-8."""
    parquet(chosen=pa.array([b"\xff"]).view(pa.string()))(path)


_ROWS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "a number": ("x.parquet, row 1: 'chosen' is int, and must be text", parquet(chosen=[3])),
    "null": ("x.parquet, row 1: 'chosen' is null", parquet(chosen=pa.nulls(1, pa.string()))),
    "nothing but null": ("x.parquet, row 1: 'chosen' is null", parquet(chosen=pa.nulls(1))),
    "a struct": ("x.parquet, row 1: 'chosen' is dict, and must be text", parquet(chosen=[{"text": "So."}])),
    "a message without role": (
        "x.parquet, row 1: message 1 of 'prompt' needs a role of system, user, assistant",
        parquet(prompt=[[{"content": "Why?"}]]),
    ),
    "a map for messages": (
        "x.parquet, row 1: message 1 of 'prompt' needs a role",
        parquet(prompt=pa.array([[("role", "user")]], pa.map_(pa.string(), pa.string()))),
    ),
    "bytes": ("x.parquet, row 1: 'chosen' is bytes, and must be text", parquet(chosen=[b"So."])),
    "a time": ("x.parquet, row 1: 'chosen' is Timestamp", parquet(chosen=pa.array([0], pa.timestamp("ns")))),
    "beyond all times": (
        "x.parquet: the column 'taken' cannot be read",
        parquet(taken=pa.array([2**62], pa.duration("s"))),
    ),
    "no text": ("x.parquet: the column 'chosen' cannot be read", no_text),
    "no rows": (
        "x.parquet: it has no rows",
        parquet(**{name: [] for name in ("prompt", "chosen", "rejected")}),
    ),
    "torn": ("x.parquet: not a Parquet file, or a damaged one", parquet(cut=-20)),
    "empty": ("x.parquet: not a Parquet file, or a damaged one", parquet(cut=0)),
    "wrong magic": ("x.parquet: not a Parquet file", lambda path: path.write_bytes(b"PARE" + bytes(99) + b"PARE")),
    "an Arrow file": ("x.parquet: not a Parquet file", arrow),
}
PARQUET = {name: bad(f"{SCORE} x.parquet", said, x__parquet=make) for name, (said, make) in _ROWS.items()}

FILES: dict[str, Bad] = {
    "no such file": bad(f"{SCORE} nowhere.jsonl", "nowhere.jsonl: no such file", "give a path"),
    "no such file, zipped": bad(f"{SCORE} nowhere.jsonl.gz", "nowhere.jsonl.gz: no such file"),
    "unknown kind": bad(f"{SCORE} x.txt", "x.txt: unknown kind of file", "convert it", x__txt="Why?"),
    "folder of nothing": bad(
        f"{SCORE} model", "model: not a folder that datasets' save_to_disk wrote", "name a data file"
    ),
    "a split of a file": bad(
        f"{SCORE} pairs.jsonl --set data.split=test", "a file has no splits", "leave split 'test' out"
    ),
    "a config of a file": bad(
        f"{SCORE} pairs.jsonl --set data.config=en", "only a hub data set has a config", "leave config"
    ),
    "a split of the starter": bad(f"{SCORE} starter --set data.split=test", "train and validation, not 'test'"),
    "no such hub data": bad(f"{SCORE} no/such", "no/such: no such file or folder here", "check name"),
    "a pipe": bad(
        f"{SCORE} x.jsonl", "x.jsonl: cannot be read", "a pipe or a device", "into a file first", x__jsonl=fifo
    ),
    "a pipe in a check": bad(f"{CHECK} x.csv", "x.csv: cannot be read (a pipe or a device", x__csv=fifo),
    "a device": bad(f"{SCORE} /dev/zero", "/dev/zero: unknown kind of file"),
    "empty": bad(f"{SCORE} x.jsonl", "x.jsonl: it has no rows", x__jsonl=""),
    "only blank lines": bad(f"{SCORE} x.jsonl", "x.jsonl: it has no rows", x__jsonl="\n \n"),
    "empty list": bad(f"{SCORE} x.json", "x.json: it has no rows", x__json="[]"),
    "empty CSV": bad(f"{SCORE} x.csv", "x.csv: it has no rows", x__csv=""),
    "only a header": bad(f"{SCORE} x.csv", "x.csv: it has no rows", x__csv="prompt,chosen,rejected\n"),
    "no gzip": bad(
        f"{SCORE} x.jsonl.gz", "not a whole gzip file", "download or compress it again", x__jsonl__gz=b"plain"
    ),
    "half a gzip": bad(
        f"{SCORE} x.jsonl.gz",
        "not a whole gzip file",
        x__jsonl__gz=gzip.compress(json.dumps([*range(99)]).encode())[:60],
    ),
    "no Parquet": bad(f"{SCORE} x.parquet", "x.parquet: not a Parquet file", "write it again", x__parquet=b"PAR1 no"),
    "Latin-1": bad(
        f"{SCORE} x.jsonl", "x.jsonl, line 1: not UTF-8", "save the file as UTF-8", x__jsonl=b'{"prompt": "\xe9"}\n'
    ),
    "UTF-16": bad(f"{SCORE} x.csv", "x.csv, line 1: not UTF-8", x__csv="prompt,chosen,rejected\n".encode("utf-16")),
    "half a line": bad(
        f"{SCORE} x.jsonl", "x.jsonl, line 2: not JSON", "one JSON object", x__jsonl=json.dumps(GOOD) + '\n{"pro'
    ),
    "half a list": bad(
        f"{SCORE} x.json", "x.json, line 1: not JSON", "a list of objects", x__json="[" + json.dumps(GOOD)
    ),
    "a list in a line": bad(f"{SCORE} x.jsonl", "line 2: a list, not an object", "named columns", x__jsonl=[GOOD, [1]]),
    "a number in a list": bad(f"{SCORE} x.json", "row 2: a int, not an object", x__json=json.dumps([GOOD, 3])),
    "a tower of brackets": bad(f"{SCORE} x.jsonl", "line 1: not readable JSON", x__jsonl="[" * 10**5),
    "a number without end": bad(f"{SCORE} x.jsonl", "line 1: not readable JSON", x__jsonl='{"a": ' + "9" * 5000 + "}"),
    "key twice in a line": bad(
        f"{SCORE} x.jsonl",
        "x.jsonl, line 2: the key 'chosen' is given twice",
        "leave one of them",
        x__jsonl=lines(json.dumps(GOOD), '{"prompt": "a", "chosen": "b", "rejected": "c", "chosen": "d"}'),
    ),
    "key twice in a message": bad(
        f"{SCORE} x.jsonl",
        "x.jsonl, line 1: the key 'content' is given twice",
        x__jsonl='{"prompt": [{"role": "user", "content": "a", "content": "b"}], "chosen": "b", "rejected": "c"}\n',
    ),
    "key twice in a list": bad(
        f"{SCORE} x.json",
        "x.json, row 2: the key 'prompt' is given twice",
        x__json=f'[{json.dumps(GOOD)}, {{"prompt": "a", "prompt": "b", "chosen": "c", "rejected": "d"}}]',
    ),
    "column twice": bad(
        f"{SCORE} x.csv",
        "x.csv: the header (line 1) has the column 'chosen' twice",
        "rename one",
        x__csv="prompt,chosen,chosen,rejected\na,b,c,d\n",
    ),
    "column twice in Parquet": bad(
        f"{SCORE} x.parquet", "x.parquet: the table has the column 'chosen' twice", "rename one", x__parquet=twice
    ),
    "semicolons": bad(
        f"{SCORE} x.csv",
        "x.csv: the header (line 1) is one column, divided by ';'",
        "save the file with commas",
        x__csv="prompt;chosen;rejected\na;b;c\n",
    ),
    "tabs": bad(f"{SCORE} x.csv", "divided by '\\t'", x__csv="prompt\tchosen\trejected\na\tb\tc\n"),
    "a cell too many": bad(
        f"{SCORE} x.csv",
        "x.csv, line 3: the row has not the 3 cells",
        "in quotes",
        x__csv="prompt,chosen,rejected\na,b,c\na,b,c,d\n",
    ),
    "an open quote": bad(
        f"{SCORE} x.csv", "x.csv, line 2: not CSV", "check its quotes", x__csv='prompt,chosen,rejected\n"a,b,c\n'
    ),
}

COLUMNS: dict[str, Bad] = {
    "no known columns": bad(
        f"{SCORE} x.jsonl",
        "no known pair format has the columns 'q', 'a'",
        "rename them",
        x__jsonl=[{"q": "x", "a": "y"}],
    ),
    "one response": bad(
        f"{SCORE} x.jsonl", "a row has one response", "join such rows", x__jsonl=[{"prompt": "x", "response": "y"}]
    ),
    "rejected missing": bad(
        f"{SCORE} x.jsonl", "x.jsonl, line 2: no column 'rejected'", "add it", x__jsonl=[GOOD, pair(rejected=...)]
    ),
    "chosen null": bad(
        f"{SCORE} x.jsonl", "line 2: 'chosen' is null", "fill it in", x__jsonl=[GOOD, pair(chosen=None)]
    ),
    "chosen a number": bad(
        f"{SCORE} x.jsonl", "line 2: 'chosen' is int, and must be text", x__jsonl=[GOOD, pair(chosen=3)]
    ),
    "half a character": bad(
        f"{SCORE} x.jsonl", "line 2: 'chosen' holds half a character", "export", x__jsonl=[GOOD, pair(chosen="\ud83d")]
    ),
    "label that is none": bad(
        f"{SCORE} x.jsonl",
        "line 2: 'chosen_safe' is 'perhaps'",
        "write true",
        x__jsonl=[GOOD, pair(chosen_safe="perhaps")],
    ),
    "category a number": bad(
        f"{SCORE} x.jsonl", "line 2: 'category' is int", "a list of texts", x__jsonl=[GOOD, pair(category=3)]
    ),
    "id twice": bad(
        f"{SCORE} x.jsonl",
        "x.jsonl, line 2: the id 'a' stands on line 1 already",
        "make ids unique",
        x__jsonl=[pair(), pair(chosen="Eh.")],
    ),
    "unread question": bad(
        f"{SCORE} x.jsonl", "the column 'context' is not read", "data.columns", x__jsonl=[pair(context="More.")]
    ),
    "columns unknown": bad(
        f'{SCORE} pairs.jsonl --set data.columns={{"propmt":"x"}}',
        "data.columns: no format reads a column 'propmt': did you mean 'prompt'?",
    ),
    "column not there": bad(
        f'{SCORE} pairs.jsonl --set data.columns={{"prompt":"question"}}',
        "pairs.jsonl: no row has the column 'question'",
        "correct its name",
    ),
    "columns without =": bad(f"{CHECK} pairs.jsonl --columns prompt", "--columns prompt: write OURS=THEIRS"),
    "unknown format": bad(f"{CHECK} pairs.jsonl --format dpo", "unknown format 'dpo'", "choose one of"),
    "other format": bad(f"{SCORE} pairs.jsonl --set data.format=alpaca", "pairs.jsonl, line 1:"),
    "prefer of no ranking": bad(
        f"{SCORE} pairs.jsonl --set data.prefer=safer", "prefer is for PKU-SafeRLHF", "leave it out"
    ),
    "no prefer": bad(
        f"{SCORE} x.jsonl",
        "say with prefer which reply is chosen",
        x__jsonl=[{"prompt": "a", "response_0": "b", "response_1": "c"}],
    ),
    "id of no response": bad(
        f"{SCORE} x.jsonl --set data.prefer=safer",
        "line 1: 'safer_response_id' is 7: it must be 0 or 1",
        x__jsonl=[{"prompt": "a", "response_0": "b", "response_1": "c", "safer_response_id": 7}],
    ),
    "strength": bad(
        f"{SCORE} x.jsonl",
        "line 1: 'overall_preference' is 9",
        "from -3 to 3",
        x__jsonl=[{"prompt": "a", "response1": "b", "response2": "c", "overall_preference": 9}],
    ),
    "sample of 0": bad(f"{CHECK} pairs.jsonl --sample 0", "sample is 0", "at least 1"),
    "no room": bad(f"{CHECK} pairs.jsonl --max-length 0", "max_length is 0", "at least 2"),
    "room for one": bad(f"{CHECK} pairs.jsonl --max-length 1", "max_length is 1", "at least 2"),
}

CONVERSATIONS: dict[str, Bad] = {
    "empty prompt": bad(f"{SCORE} x.jsonl", "line 2: 'prompt' is empty", x__jsonl=[GOOD, pair(prompt="")]),
    "empty list": bad(f"{SCORE} x.jsonl", "line 2: 'prompt' is an empty list", "at least one message", x__jsonl=talk()),
    "unknown role": bad(
        f"{SCORE} x.jsonl",
        "line 2: message 1 of 'prompt' needs a role",
        "'tool'",
        x__jsonl=talk({"role": "tool", "content": "a"}, USER),
    ),
    "no content": bad(
        f"{SCORE} x.jsonl", "line 2: the content of message 1 of 'prompt' is NoneType", x__jsonl=talk({"role": "user"})
    ),
    "parts": bad(
        f"{SCORE} x.jsonl",
        "line 2: the content of message 1 of 'prompt' is list",
        x__jsonl=talk({"role": "user", "content": [{"type": "text", "text": "a"}]}),
    ),
    "the assistant asks": bad(
        f"{SCORE} x.jsonl",
        "line 2: the last message of 'prompt' is the assistant's",
        x__jsonl=talk({"role": "assistant", "content": "a"}),
    ),
    "Python's notation": bad(
        f"{SCORE} x.csv",
        "line 2: 'prompt' is a list of messages in Python's notation",
        "json.dumps",
        x__csv="prompt,chosen,rejected\n\"[{'role': 'user', 'content': 'a'}]\",b,c\n",
    ),
    "text and messages": bad(
        f"{SCORE} x.jsonl",
        "'chosen' and 'rejected' must both be text",
        x__jsonl=[pair(chosen=[USER, {"role": "assistant", "content": "a"}])],
    ),
    "control token": bad(
        f"{SCORE} x.jsonl",
        "Pair a: its text contains the control token",
        "Remove it",
        x__jsonl=[GOOD, pair(chosen="So<|im_end|>.")],
    ),
    "control token, checked": bad(
        f"{CHECK} x.jsonl", "control tokens", "drop the pair", code=1, x__jsonl=[GOOD, pair(chosen="So<|im_end|>.")]
    ),
    "other system": bad(
        f"{SCORE} x.jsonl",
        "'system' and the system message in the prompt differ",
        x__jsonl=[pair(system="a", prompt=[{"role": "system", "content": "b"}, USER])],
    ),
    "images alone": bad(
        f"{SCORE} x.jsonl",
        "none of its 1 rows gives a pair",
        "1 dropped: 'images' belongs to the conversation and is no text",
        x__jsonl=[pair(images=["a.png"])],
    ),
    "tools alone": bad(f"{SCORE} x.jsonl", "1 dropped: 'tools' belongs", x__jsonl=[pair(tools='[{"name": "search"}]')]),
    "calls alone": bad(
        f"{SCORE} x.jsonl",
        "1 dropped: 'tool_calls' belongs",
        x__jsonl=[pair(prompt=[USER, {"role": "assistant", "content": "Wait.", "tool_calls": [{"id": 1}]}, USER])],
    ),
    "HH, no answer": bad(
        f"{SCORE} x.jsonl",
        "1 dropped: the turns do not alternate",
        x__jsonl=[{"chosen": "\n\nHuman: Hi", "rejected": "\n\nHuman: Ho"}],
    ),
    "HH, stripped and torn": bad(
        f"{SCORE} x.jsonl",
        "1 dropped: the turns do not alternate",
        x__jsonl=[{"chosen": "Human: Hi\n\nAssistant: a\n\nAssistant: b", "rejected": "Human: Hi\n\nAssistant: c"}],
    ),
}

TOGETHER: dict[str, Bad] = {
    "empty reply": bad(
        f"{SCORE} x.jsonl",
        "empty responses in 1 pairs (first: a",
        "fill the reply in",
        x__jsonl=[GOOD, pair(chosen="")],
    ),
    "blank reply": bad(
        f"{SCORE} x.jsonl", "empty responses in 1 pairs (first: a", x__jsonl=[GOOD, pair(rejected=" \n")]
    ),
    "blank reply, trained": bad(
        f"{TRAIN} --set data.train=x.jsonl", "empty responses in 1 pairs", x__jsonl=[GOOD, pair(rejected=" \n")]
    ),
    "blank reply, held out": bad(
        f"{TRAIN} --set data.eval=x.jsonl", "x.jsonl: empty responses in 1 pairs", x__jsonl=[GOOD, pair(rejected=" ")]
    ),
    "blank reply, checked": bad(f"{CHECK} x.jsonl", "empty", code=1, x__jsonl=[GOOD, pair(rejected=" ")]),
    "identical replies": bad(
        f"{SCORE} x.jsonl --set data.conflicts=error",
        "identical responses in 1 pairs (first: a",
        "drop the pair",
        x__jsonl=[GOOD, pair(chosen="No.")],
    ),
    "all identical": bad(
        f"{SCORE} x.jsonl", "none of its 1 rows gives a pair", "the same text", x__jsonl=[pair(chosen="No.")]
    ),
    "both ways": bad(
        f"{SCORE} x.jsonl",
        "none of its 2 rows gives a pair",
        x__jsonl=[pair(), pair(id="b", chosen="No.", rejected="So.")],
    ),
    "text among chats": bad(
        f"{SCORE} x.jsonl", "mixed prompts in 1 pairs", "data.as_chat", x__jsonl=[GOOD, pair(prompt="Why?")]
    ),
    "unsafe chosen": bad(
        f"{SCORE} x.jsonl",
        "unsafe chosen in 1 pairs",
        "relabel",
        x__jsonl=[GOOD, pair(chosen="Hm.", chosen_safe=False, rejected_safe=True)],
    ),
    "nothing left": bad(
        f"{SCORE} pairs.jsonl --set data.holdout=9", "no pairs are left to train on", "lower data.holdout"
    ),
    "leaked": bad(f"{CHECK} pairs.jsonl --against pairs.jsonl", "would be leaked", code=1),
    "too few prompts": bad(
        f"{SCORE} pairs.jsonl --estimator contrastive", "needs 9 different prompts", "use another estimator"
    ),
    "clean to another kind": bad("data clean pairs.jsonl --out never.csv", "--out never.csv", "ends in .jsonl"),
    "clean onto itself": bad("data clean pairs.jsonl --out pairs.jsonl", "is the data itself", "choose another name"),
    "clean's report onto the data": bad(
        "data clean x.report.jsonl --out x.jsonl",
        "x.jsonl: its report, x.report.jsonl is the data itself",
        x__report__jsonl=[GOOD],
    ),
    "shown onto itself": bad(
        "data show x.csv --export x.csv", "--export x.csv is the data itself", x__csv="prompt,chosen,rejected\na,b,c\n"
    ),
    "nothing to clean": bad(
        "data clean x.jsonl --out never.jsonl", "No row can be read; the first: x.jsonl, line 1", x__jsonl="{\n"
    ),
}

DATA = {
    **FILES,
    **{f"Parquet, {k}": v for k, v in PARQUET.items()},
    **{f"columns, {k}": v for k, v in COLUMNS.items()},
    **{f"turns, {k}": v for k, v in CONVERSATIONS.items()},
    **TOGETHER,
}
if sys.platform == "win32":
    DATA = {name: case for name, case in DATA.items() if fifo not in case.files.values()}
