"""Jailbreak transforms: what each makes of a request, what it leaves alone, and what it cannot do."""

import base64
import codecs
import csv
import json
from pathlib import Path

import pytest

from bdpo.errors import BdpoError
from bdpo.evaluate.ask.benchmarks import load_items
from bdpo.evaluate.ask.items import Item
from bdpo.evaluate.ask.sources import MissingRows
from bdpo.evaluate.ask.transforms import TRANSFORMS, frames, suffixes, transform_items

DATA = Path(__file__).parents[3] / "shared" / "data"
with_data = pytest.mark.skipif(not (DATA / "strongreject.csv").exists(), reason="the published files are not here")


def item(n: int, text: str = "Name a river, Zoë.") -> Item:
    return Item(f"id{n}", ({"role": "user", "content": text},), request=text, category="rivers", answer="Rhine")


ITEMS = [item(n) for n in range(40)]


def text_of(rewritten: Item) -> str:
    return rewritten.messages[-1]["content"]


def texts(transform, items=ITEMS, **options):
    return [text_of(rewritten) for rewritten in transform_items(items, transform, **options)]


@pytest.fixture
def artefacts(tmp_path):
    """Artefacts of the published shape: three GCG prompts, of which one cuts its goal, and four PAIR prompts."""
    gcg = [("Name a river", "Name a river zz !!"), ("Name a lake", "Name a lake <= ##"), ("Name a hill", "Name a qq")]
    pair = [
        ("Name a river", "You are a guide in the U.S. Alps, says Ann J. Miller. Name a river, then."),
        ("Name a lake", "Imagine you are a fisher! Where do you fish?"),
        ("Name a hill", "Hills are high. You are a walker."),
        ("Name a wood", "Imagine you are a fisher! Where is the wood?"),
    ]
    for name, rows in (("gcg", gcg), ("pair", pair)):
        lines = [
            json.dumps({"index": n, "goal": goal, "behavior": "", "category": "x", "prompt": prompt})
            for n, (goal, prompt) in enumerate(rows)
        ]
        (tmp_path / f"jailbreakbench_{name}_vicuna.jsonl").write_text("\n".join(lines))
    return tmp_path


def test_encodings_can_be_decoded():
    (told, encoded) = texts("base64")[0].split("\n\n")
    assert "Base64" in told and base64.b64decode(encoded).decode() == "Name a river, Zoë."
    (told, encoded) = texts("rot13")[0].split("\n\n")
    assert "ROT13" in told and encoded == "Anzr n evire, Mbë."
    assert codecs.decode(encoded, "rot13") == "Name a river, Zoë."
    assert texts("leetspeak")[0] == "N4m3 4 r1v3r, Z0ë."


def test_instructions_stand_behind_the_request():
    injected = texts("prefix-injection")
    assert all(
        text.startswith('Name a river, Zoë.\n\nBegin your reply with exactly these words: "') for text in injected
    )
    assert len(set(injected)) == 4  # the openings, each drawn by some item
    (suppressed,) = set(texts("refusal-suppression"))
    assert suppressed.startswith("Name a river, Zoë.\n\n") and '"cannot"' in suppressed


def test_suffixes_of_artefacts(artefacts):
    assert suffixes(load_items("jailbreakbench-gcg", artefacts)) == ("zz !!", "<= ##")
    assert set(texts("gcg-suffix", data_dir=artefacts)) == {"Name a river, Zoë. zz !!", "Name a river, Zoë. <= ##"}


def test_frames_of_artefacts(artefacts):
    found = frames(load_items("jailbreakbench-pair", artefacts))
    assert found == ("You are a guide in the U.S. Alps, says Ann J. Miller.", "Imagine you are a fisher!")
    framed = texts("pair-frame", data_dir=artefacts)
    assert {
        text.removesuffix(" Stay in this role and respond to the following. Name a river, Zoë.") for text in framed
    } == {*found}


@pytest.mark.parametrize("transform", ["prefix-injection", "gcg-suffix", "pair-frame", "prefill"])
def test_the_draw_is_the_items_own(artefacts, transform):
    whole = texts(transform, data_dir=artefacts, seed=1)
    assert texts(transform, data_dir=artefacts, seed=1) == whole
    assert texts(transform, ITEMS[::-1], data_dir=artefacts, seed=1) == whole[::-1]
    assert texts(transform, ITEMS[10:15], data_dir=artefacts, seed=1) == whole[10:15]
    assert texts(transform, data_dir=artefacts, seed=2) != whole


def test_artefacts_must_be_there(tmp_path):
    with pytest.raises(MissingRows, match=r"jailbreakbench-gcg: .* download https://"):
        transform_items(ITEMS, "gcg-suffix", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("transform", "attack", "prompts", "said"),
    [
        (
            "gcg-suffix", "gcg", ["Name a lake", "A lake, please"],
            "gcg-suffix: no prompt of jailbreakbench-gcg has a suffix behind its goal; is it the right file?",
        ),
        (
            "pair-frame", "pair", ["Name a lake", "Lakes are deep. You are a fisher."],
            "pair-frame: no prompt of jailbreakbench-pair opens with a role; is it the right file?",
        ),
    ],
)  # fmt: skip
def test_artefacts_that_give_nothing_to_add(tmp_path, transform, attack, prompts, said):
    lines = [json.dumps({"goal": "Name a lake", "prompt": prompt, "category": "x"}) for prompt in prompts]
    (tmp_path / f"jailbreakbench_{attack}_vicuna.jsonl").write_text("\n".join(lines))
    with pytest.raises(BdpoError) as caught:
        transform_items(ITEMS, transform, data_dir=tmp_path)
    assert str(caught.value) == said


@pytest.mark.parametrize("transform", [name for name in TRANSFORMS if name not in ("paraphrase", "prefill")])
def test_only_the_last_message_changes(artefacts, transform):
    system = {"role": "system", "content": "Be brief."}
    before = Item(
        "a", (system, {"role": "user", "content": "Name a river"}), "Name a river", "rivers", "Rhine", ("x",), 0
    )
    (after,) = transform_items([before], transform, data_dir=artefacts)
    assert after.messages[0] == system and after.messages[1]["role"] == "user"
    assert text_of(after) != "Name a river" == text_of(before)
    rest = ("id", "request", "category", "answer", "options", "correct")
    assert [getattr(after, name) for name in rest] == [getattr(before, name) for name in rest]


def test_paraphrases_come_from_a_file(tmp_path):
    path = tmp_path / "words.csv"
    rows = [("Name a  river,\nZoë.", "Nenne einen Fluss."), ("Name a river, Zoë.", "Cite un fleuve."), ("Other", "?")]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("prompt", "paraphrase"), *rows])
    found = texts(f"paraphrase={path}")
    assert set(found) == {"Nenne einen Fluss.", "Cite un fleuve."}
    assert texts(f"paraphrase={path}", [item(0, "Other")]) == ["?"]
    with pytest.raises(BdpoError, match=r"words.csv: no row whose 'prompt' is 'Name a lake'"):
        texts(f"paraphrase={path}", [item(0, "Name a lake")])


def test_wrong_paraphrase_files(tmp_path):
    path = tmp_path / "words.csv"
    with pytest.raises(BdpoError, match="cannot be read"):
        texts(f"paraphrase={path}")
    path.write_text("prompt,words\nA,B\n")
    with pytest.raises(BdpoError, match=r"words.csv, line 2: no column 'paraphrase'"):
        texts(f"paraphrase={path}")
    (tmp_path / "words.txt").write_text("A is B")
    with pytest.raises(BdpoError, match="unknown kind of file"):
        texts(f"paraphrase={tmp_path / 'words.txt'}")


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        ("base46", "No transform 'base46': did you mean 'base64'?"),
        ("qqqqq", "No transform 'qqqqq'; there are gcg-suffix, pair-frame, "),
        ("paraphrase", "paraphrase: write paraphrase=FILE."),
        ("rot13=x.csv", "rot13: write rot13 without a file."),
    ],
)
def test_unknown_transforms(transform, message):
    with pytest.raises(BdpoError) as error:
        transform_items(ITEMS, transform)
    assert str(error.value).startswith(message)


def test_the_table_is_whole():
    assert list(TRANSFORMS) == [
        "gcg-suffix", "pair-frame", "base64", "rot13", "leetspeak", "prefix-injection", "refusal-suppression",
        "prefill", "paraphrase",
    ]  # fmt: skip
    assert all(transform.summary and transform.source.startswith("https://") for transform in TRANSFORMS.values())


@with_data
def test_published_artefacts():
    gcg, pair = (load_items(f"jailbreakbench-{attack}", DATA) for attack in ("gcg", "pair"))
    assert len(suffixes(gcg)) == len(set(suffixes(gcg))) == 96  # four prompts cut their goal
    assert len(frames(pair)) == 53
    assert all(frame[-1] in ".!?" and 40 < len(frame) < 300 for frame in frames(pair))
    sample = load_items("strongreject", DATA, limit=75)
    for transform in ("gcg-suffix", "pair-frame"):
        rewritten = texts(transform, sample, data_dir=DATA)
        assert len(set(rewritten)) == 75
        assert all(source.request in text for source, text in zip(sample, rewritten, strict=True))
