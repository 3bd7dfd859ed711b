"""Readers on drawn rows: what was written is read again, whatever the file, and any bytes are rows or an error."""

import csv
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bdpo.errors import BdpoError
from bdpo.pairs import PreferencePair, load_pairs, write_pairs
from bdpo.pairs.formats import split_implicit_prompt
from bdpo.pairs.sources import FILE_READERS

EXAMPLES = settings(max_examples=40, deadline=None, derandomize=True, database=None)
TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), min_size=1, max_size=20)
REPLY = TEXT.filter(lambda text: not text.lstrip().startswith(("[", "{")))
ROLES = ("user", "assistant")
PROMPT = st.integers(0, 1).flatmap(
    lambda turns: st.tuples(*[TEXT] * (2 * turns + 1)).map(
        lambda said: tuple({"role": ROLES[i % 2], "content": text} for i, text in enumerate(said))
    )
)
PAIRS = st.lists(
    st.tuples(PROMPT, REPLY, REPLY, st.sampled_from([True, False, None]), st.lists(TEXT, max_size=2).map(tuple)),
    min_size=1,
    max_size=4,
).map(
    lambda rows: [
        PreferencePair(f"p{i}", prompt, chosen, rejected, safe, None, category, "drawn")
        for i, (prompt, chosen, rejected, safe, category) in enumerate(rows)
    ]
)


def row(pair: PreferencePair) -> dict[str, object]:
    return {**vars(pair), "prompt": list(pair.prompt), "category": list(pair.category)}


@EXAMPLES
@given(pairs=PAIRS)
def test_what_is_written_is_read_again(pairs: list[PreferencePair]) -> None:
    with TemporaryDirectory() as folder:
        jsonl, listed, table = (Path(folder) / name for name in ("x.jsonl", "x.json", "x.csv"))
        write_pairs(jsonl, pairs)
        listed.write_text(json.dumps([row(pair) for pair in pairs]), encoding="utf-8")
        with table.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(row(pairs[0])))
            writer.writeheader()
            for pair in pairs:
                cells = row(pair)
                lists = {key: json.dumps(cells[key]) for key in ("prompt", "category")}
                writer.writerow({**cells, **lists})
        for path in (jsonl, listed, table):
            assert load_pairs(path, format="canonical").pairs == pairs, path.suffix


@pytest.mark.parametrize("suffix", FILE_READERS)
@EXAMPLES
@given(content=st.one_of(st.binary(max_size=60), st.text('{}[]":,;\n\\u0aé', max_size=60).map(str.encode)))
def test_any_bytes_are_rows_or_an_error(suffix: str, content: bytes) -> None:
    try:
        rows = list(FILE_READERS[suffix](content))
    except BdpoError:
        return
    assert all(place and (isinstance(cell, BdpoError) or hasattr(cell, "keys")) for place, cell in rows)


@EXAMPLES
@given(prompt=TEXT, chosen=TEXT, rejected=TEXT)
def test_an_implicit_prompt_is_cut_off_and_nothing_is_lost(prompt: str, chosen: str, rejected: str) -> None:
    try:
        cut, left, right = split_implicit_prompt(prompt + chosen, prompt + rejected)
    except Exception as dropped:
        assert "share no prompt" in str(dropped)
        return
    assert (cut + left, cut + right) == (prompt + chosen, prompt + rejected)
