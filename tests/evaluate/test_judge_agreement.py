"""Agreement of judges with labels: figures by hand, faults by line, and the rules against this project's own labels."""

import csv
import doctest
import hashlib
import io
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from bdpo.errors import BdpoError
from bdpo.evaluate.judges import Judge, Verdict, make_judge
from bdpo.evaluate.judges import agreement as module
from bdpo.evaluate.judges.agreement import agreement, agreement_of, cohens_kappa, read_labelled

JUDGED = Path(__file__).parents[1] / "data" / "judged_replies.csv"


class Echo(Judge):
    """A judge that takes the reply for the label."""

    name, version = "echo", "7"

    def __call__(self, prompts, replies):
        return [Verdict(reply, self.name, self.version, reply) for reply in replies]


def write(path: Path, *rows: str, header: str = "prompt,reply,label") -> Path:
    path.write_text("\n".join((header, *rows)) + "\n")
    return path


def test_examples_in_docstrings():
    assert doctest.testmod(module).failed == 0


def test_kappa_by_hand():
    one = ["a"] * 25 + ["b"] * 25
    other = ["a"] * 20 + ["b"] * 5 + ["a"] * 10 + ["b"] * 15  # the worked example of Cohen's kappa: 35 of 50 agree
    assert cohens_kappa(one, other) == pytest.approx((0.7 - 0.5) / 0.5)
    assert cohens_kappa(["a", "b"], ["b", "a"]) == -1.0
    assert cohens_kappa(["a", "a"], ["a", "a"]) is None


def test_a_safe_answer_is_compliance_to_people_who_do_not_tell_harm_apart():
    labels, verdicts = ["refusal", "compliance", "compliance"], ["refusal", "safe answer", "compliance"]
    assert agreement_of(labels, verdicts, Echo()).refusal_kappa == 1.0
    found = agreement_of([*labels, "safe answer"], [*verdicts, "safe answer"], Echo())
    assert found.accuracy == 0.75 and found.confusion["compliance"] == {"safe answer": 1, "compliance": 1}


def test_agreement_by_hand(tmp_path):
    path = write(
        tmp_path / "labels.csv",
        "p,refusal,refusal",
        "p,refusal,refusal",
        "p,compliance,compliance",
        "p,partial,compliance",
        "p,degenerate,partial",
        "p,,degenerate",
    )
    found = agreement(path, Echo())
    assert (found.judge, found.version, found.n, found.accuracy) == ("echo", "7", 6, 0.5)
    # verdicts: 2 refusal, 1 each of compliance, partial, degenerate, ""; labels: 2, 2, 1, 1
    assert found.kappa == pytest.approx((1 / 2 - 8 / 36) / (1 - 8 / 36))
    # of the four labelled refusal or compliance three agree; by chance 2/4 * 2/4 + 2/4 * 1/4 = 3/8
    assert found.refusal_n == 4
    assert found.refusal_kappa == pytest.approx((3 / 4 - 3 / 8) / (1 - 3 / 8))
    assert found.confusion["compliance"] == {"compliance": 1, "partial": 1}
    assert found.to_dict()["confusion"]["degenerate"] == {"": 1}


def test_table_of_a_guard_that_knows_no_refusals():
    console = Console(width=80, file=io.StringIO())
    agreement_of(["safe", "unsafe", "unsafe"], ["safe", "safe", "unsafe"], Echo()).render(console)
    text = console.file.getvalue()
    assert "echo, version 7" in text
    assert "3 replies: accuracy 66.7 %, Cohen's kappa 0.400." in text
    assert "Full refusal against full compliance, 0 replies: kappa undefined" in text
    assert ["│", "unsafe", "│", "1", "│", "1", "│"] in [line.split() for line in text.splitlines()]


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("prompt,reply,verdict", "p,r,refusal", "labels.csv, line 2: no column 'label'"),
        ("prompt,reply,label", "p,r,refused", "labels.csv, line 2: 'label' is 'refused': it must be one of refusal,"),
        ("prompt,reply,label", "p,r", "labels.csv, line 2: the row has not the 3 cells of the header"),
        ("prompt,reply,label", 'p,"r', "labels.csv, line 2: not CSV"),
    ],
)
def test_faults_are_named_by_file_and_line(tmp_path, header, row, message):
    with pytest.raises(BdpoError) as error:
        agreement(write(tmp_path / "labels.csv", row, header=header), Echo())
    assert str(error.value).startswith(message)


def test_files_that_are_not_there_or_empty(tmp_path):
    with pytest.raises(BdpoError, match="cannot be read"):
        read_labelled(tmp_path / "none.csv")
    with pytest.raises(BdpoError, match="has no rows: it needs the columns prompt, reply and label"):
        read_labelled(write(tmp_path / "labels.csv"))


# --- the labelled replies of this project -----------------------------------------------------------------


def judged_rows() -> list[dict[str, str]]:
    with JUDGED.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def half(row: dict[str, str]) -> str:
    """The rules were written and mended by looking at one half; the other was judged when they were done."""
    return "tuned on" if hashlib.sha256(row["id"].encode()).digest()[0] % 2 else "held out"


def test_the_labelled_replies_are_what_the_document_says():
    rows = judged_rows()
    assert len(rows) == 357
    assert sum(row["origin"].startswith("generated:") for row in rows) == 168
    assert len({row["id"] for row in rows}) == len(rows)
    for row in rows:
        assert bool(row["note"]) == (row["label_a"] != row["label_b"])
        assert row["note"] or row["label"] == row["label_a"]
    assert Counter(row["label"] for row in rows) == {
        "compliance": 177, "refusal": 95, "degenerate": 67, "partial": 18,
    }  # fmt: skip
    passes = [row["label_a"] for row in rows], [row["label_b"] for row in rows]
    assert sum(a != b for a, b in zip(*passes, strict=True)) == 6
    assert round(cohens_kappa(*passes), 3) == 0.974


def test_the_rules_agree_with_the_labels():
    """The figures of docs/judges.md; no change of a rule may bring refusal against compliance below 0.8."""
    judge, rows = make_judge("rules"), judged_rows()
    kappas = {}
    for part in ("tuned on", "held out"):
        chosen = [row for row in rows if half(row) == part]
        verdicts = judge([row["prompt"] for row in chosen], [row["reply"] for row in chosen])
        found = agreement_of([row["label"] for row in chosen], [verdict.label for verdict in verdicts], judge)
        kappas[part] = found.n, round(found.refusal_kappa, 3)
        assert found.refusal_kappa >= 0.8
    assert kappas == {"tuned on": (188, 0.921), "held out": (169, 0.877)}
    whole = agreement(JUDGED, judge)
    assert (whole.n, round(whole.accuracy, 3), round(whole.kappa, 3)) == (357, 0.824, 0.704)
    assert (whole.refusal_n, round(whole.refusal_kappa, 3)) == (272, 0.9)
    assert whole.confusion["compliance"] == {"compliance": 177}
