"""Scorers of answers: right and wrong ones, and the values behind them."""

import doctest
import math
from fractions import Fraction

import pytest

from bdpo.evaluate.ask.items import VERBALISERS
from bdpo.evaluate.grading import answers
from bdpo.evaluate.grading.answers import contains_answer, final_number, picked, same_number


def test_examples_in_docstrings():
    assert doctest.testmod(answers).failed == 0


@pytest.mark.parametrize(
    ("reply", "number"),
    [
        ("She has 16 - 7 = 9 eggs left, and sells them for 18 dollars.", 18),
        ("It is 18.", 18),
        ("It is 18.50.", Fraction(37, 2)),
        ("That makes $1,450,000.", 1_450_000),
        ("**$2,125.00**", 2125),
        (r"\$70,000", 70_000),
        (r"\boxed{1{,}000} km, in 7 days", 1000),
        (r"\boxed{x = 12} and not \boxed{\text{none}}, of 20", 12),
        (r"\boxed{3} or rather \boxed{\frac{3}{4}}", Fraction(3, 4)),
        ("#### 42", 42),
        ("First #### 41, no:\n#### $1,042.50 for 3 years", Fraction(2085, 2)),
        ("\\boxed{5}\n#### 6", 6),
        ("#### Step 1: add\n9 + 9 = 18", 18),
        ("#### 2. Add them up\nThat is 5 eggs.", 5),
        ("#### .5", Fraction(1, 2)),
        ("The change is -3.", -3),
        ("-$5", -5),
        ("$-5", -5),
        ("a loss of −10", -10),
        ("7 - 5", 5),
        ("10-5", 5),
        ("between 3–5", 5),
        ("- 5 apples", 5),
        ("3/4", Fraction(3, 4)),
        ("24/6", 4),
        ("2 1/2 cups", Fraction(5, 2)),
        ("-1/2", Fraction(-1, 2)),
        ("on 3/4/2020", 2020),
        ("$18.00/hour", 18),
        ("5/0", 0),
        ("50%", 50),
        ("12,34", Fraction(617, 50)),
        ("3 litres of H2O", 3),
    ],
)
def test_final_number(reply, number):
    assert final_number(reply) == number


@pytest.mark.parametrize("loop", ["1", "1,111", ",111", "1 ", "1/", "-", "$-1", "\\boxed{", "#### ", "{,}1"])
def test_endless_replies_are_read_in_time(loop):
    assert not same_number("1" + loop * 5000, "18")


@pytest.mark.parametrize("reply", ["", "No idea.", "CO2"])
def test_a_reply_without_a_number(reply):
    assert final_number(reply) is None
    assert same_number(reply, "18") is False


@pytest.mark.parametrize(
    ("reply", "answer", "right"),
    [
        ("so 2,125 in all", "2125", True),
        ("so 2125.00 in all", "2,125", True),
        ("so 2124 in all", "2,125", False),
        ("#### 0.75", "3/4", True),
        ("#### 0.74", "3/4", False),
        ("#### -3", "-3", True),
        ("#### 3", "-3", False),
        ("18 eggs, no: 19", "18", False),
    ],
)
def test_same_number(reply, answer, right):
    assert same_number(reply, answer) is right


@pytest.mark.parametrize(
    ("logps", "index"),
    [
        ([-1.0, -2.0], 0),
        ([-2.0, -1.0, -3.0], 1),
        ([-1.0, -1.0, -2.0], None),
        ([-1.0, -2.0, -2.0], 0),
        ([math.nan, -1.0], None),
        ([-math.inf, -1.0], 1),
        ([-math.inf, -math.inf], None),
        ([], None),
    ],
)
def test_picked(logps, index):
    assert picked(logps) == index


def test_verbalisers_have_an_option_for_each_label():
    assert {task: len(options) for task, options in VERBALISERS.items()} == {
        "sst2": 2, "qqp": 2, "mnli": 3, "mnli-mm": 3, "qnli": 2, "rte": 2,
    }  # fmt: skip
    assert all(len(set(options)) == len(options) for options in VERBALISERS.values())
    # GLUE's order: entailment is 0 in the NLI tasks, a duplicate 1 in QQP, positive 1 in SST-2
    assert [VERBALISERS[task][0] for task in ("mnli", "mnli-mm", "qnli", "rte")] == ["Yes"] * 4
    assert (VERBALISERS["qqp"][1], VERBALISERS["sst2"][1]) == ("Yes", "Positive")


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("The river is the Ötztaler Ache, in Tyrol.", "Ötztaler Ache"),
        ("it is the OTZTALER ACHE", "the Ötztaler Ache."),
        ("It has 1,200 inhabitants.", "1200"),
        ("Weight: 3.5 kg", "3.5 kg"),
        ("On 17 January 1987.", "January 17, 1987"),
        ("on the 17th of January, 1987", "January 17, 1987"),
        ("A Trip to the Moon", "a trip to the moon"),
        ("Trip to the Moon", "A Trip to the Moon"),
        ("It's O'Brien’s", "O’Briens"),
        ("Vitamin A, I think", "vitamin A"),
        ("The University of York", "University of York"),
        ("It was not Rome.", "Rome"),  # known to be taken for right
    ],
)
def test_contains_answer(reply, answer):
    assert contains_answer(reply, answer) is True


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("The Rhine.", "Ötztaler Ache"),
        ("", "Rome"),
        ("Romeo", "Rome"),
        ("In 1991.", "1990"),
        ("Weight: 3.5 kg", "5 kg"),
        ("12000", "1,200"),
        ("On 18 January 1987.", "January 17, 1987"),
        ("Ache of Ötztaler", "Ötztaler Ache"),  # only a date may turn its words round
        ("Vitamin C", "vitamin A"),
        ("anything", ""),
        ("anything", "!"),
        ("twelve", "12"),  # known to be taken for wrong
    ],
)
def test_does_not_contain_answer(reply, answer):
    assert contains_answer(reply, answer) is False
