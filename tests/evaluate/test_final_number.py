"""The final number of a reply: the ways to write one, each with its value."""

import time
from fractions import Fraction

import pytest

from bdpo.evaluate.grading.answers import final_number, same_number

HALF, QUARTER = Fraction(1, 2), Fraction(1, 4)

MARKED = [
    ("#### 18", 18),
    ("####18", 18),
    ("#### **18**", 18),
    ("#### `18`.", 18),
    ("#### $18.", 18),
    ("#### 18 eggs", 18),
    ("#### 18 eggs in 7 days", 18),
    ("#### 18, since 3 + 4 = 7 are eaten", 18),
    ("#### 18 (9 * 2 = 18 for 7 days)", 18),
    ("#### 9*2 = 18", 18),
    ("#### 9*2 = $18 a day, 7 days", 18),
    ("#### 9 × 2 = 18", 18),
    ("#### 16 - 7 = 9 * 2 = 18", 18),
    ("#### 18 = 9*2", 18),
    ("#### 9*2", 18),
    ("#### $20 - $2", 18),
    ("#### 6 * 2 + 3 * 2", 18),
    ("#### x = 18", 18),
    ("#### x=18", 18),
    ("#### The answer is 18 of 20", 18),
    ("#### Answer: 18", 18),
    ("#### Total: $18 for 3 days", 18),
    ("#### About 18 in 3 days", 18),
    ("#### -18", -18),
    ("#### - 18", -18),
    ("#### 9 -> 18", 18),
    ("#### 55/3 ≈ 18.33", Fraction(1833, 100)),
    ("#### 3-5", 5),
    ("#### 10 to 15 minutes", 15),
    ("#### 12\nThat is 12 of 20.", 12),
    (r"\boxed{18}", 18),
    (r"$\boxed{18}$, or 7 each", 18),
    (r"\boxed{18\text{ cm}^2}", 18),
    (r"\boxed{18 \text{ cm}^{2}}", 18),
    (r"\boxed{18\,\mathrm{m}^3}", 18),
    (r"\boxed{\text{18 in 7 days}}", 18),
    (r"\boxed{\$18.50}", Fraction(37, 2)),
    (r"\boxed{18\%}", 18),
    (r"\boxed{x = 18}", 18),
    (r"\boxed{9 \times 2 = 18}", 18),
    (r"\boxed{9 \cdot 2}", 18),
    (r"\boxed{\frac{3}{4}}", 3 * QUARTER),
    (r"\boxed{\dfrac34}", 3 * QUARTER),
    (r"\boxed{-\frac{3}{4}}", -3 * QUARTER),
    (r"\boxed{\frac{-3}{4}}", -3 * QUARTER),
    (r"\boxed{\frac{1.5}{2}}", 3 * QUARTER),
    (r"\boxed{2\frac{1}{2}}", 5 * HALF),
    (r"\boxed{1{,}234}", 1234),
    (r"\boxed{1,\!234}", 1234),
    (r"\boxed{1\,234}", 1234),
    (r"\boxed{18^\circ}", 18),
    (r"\boxed{-18}", -18),
    (r"\boxed{x = - 18}", -18),
    (r"\boxed{5} is wrong, it is \boxed{18}", 18),
    (r"\boxed{\left(18\right)}", 18),
    (r"\boxed{1.8 \times 10^{3}}", 1800),
    (r"\boxed{2^{10}}", 1024),
    (r"\boxed{x_1 = 18}", 18),
    (r"\boxed{\text{eighteen}}", 18),
    (r"so $$x = \frac{36}{2} = 18\text{ cm}^2$$", 18),
    (r"$18$ eggs", 18),
    (r"\$18\%", 18),
    ("The answer is 18. I checked it in 3 ways.", 18),
    ("**Answer:** 18 (of 20)", 18),
    ("The final answer is: $18, for 7 days.", 18),
    ("Answer: x = 18, from 2 equations", 18),
]  # fmt: skip

PLAIN = [
    ("18 dollars each for two, so 36", 36),
    ("She makes $18.", 18),
    ("She makes 18 $ a day", 18),
    ("18 €", 18),
    ("£1,234.50", Fraction(2469, 2)),
    ("USD 18", 18),
    ("USD18", 18),
    ("Rs.18", 18),
    ("18%", 18),
    ("18 percent", 18),
    ("18 cm^2", 18),
    ("18 cm²", 18),
    ("18 m3", 18),
    ("18 km/h", 18),
    ("18 m/s^2", 18),
    ("18 kg of CO2", 18),
    ("18kg", 18),
    ("10³", 1000),
    ("10^3", 1000),
    ("10^-2", Fraction(1, 100)),
    ("2e3", 2000),
    ("1.5E+3", 1500),
    ("1.5 x 10^3", 1500),
    ("1.5 × 10³ metres", 1500),
    ("3 million", 3_000_000),
    ("$1.5 billion", 1_500_000_000),
    ("1,234", 1234),
    ("1 234", 1234),
    ("1\u00a0234", 1234),
    ("1\u2009234", 1234),
    ("1\u202f234", 1234),
    ("1\u2007234 567", 1_234_567),
    ("1'234", 1234),
    ("1’234’567", 1_234_567),
    ("1_234", 1234),
    ("12,34,567", 1_234_567),
    ("1.234.567", 1_234_567),
    ("1.234,56", Fraction(123_456, 100)),
    ("1 234,56", Fraction(123_456, 100)),
    ("1,234.56", Fraction(123_456, 100)),
    ("12,5 kg", 25 * HALF),
    ("12,34", Fraction(1234, 100)),
    ("0,125", Fraction(1, 8)),
    ("1.234", Fraction(1234, 1000)),
    ("1,2,3", 3),
    ("3, 18", 18),
    ("−18", -18),
    ("–18", -18),
    ("-$18", -18),
    ("minus 18", -18),
    ("negative 18", -18),
    ("20 minus 18", 18),
    ("1/2", HALF),
    ("½", HALF),
    ("2½ cups", 5 * HALF),
    ("2 1/2", 5 * HALF),
    ("2 and 1/2", 5 * HALF),
    ("1⁄2", HALF),
    ("18.0", 18),
    ("__18__", 18),
    ("*18*", 18),
    ("1\u200b8", 18),
    ("１８", 18),
    ("between 3 and 5", 5),
    ("9*2=18", 18),
    (r"\(18\)", 18),
    (r"\[ 9 \times 2 = 18 \]", 18),
    ("at 5:00 pm", 5),
]  # fmt: skip

BESIDE = [  # dates, steps and number words: they count where the reply has no other number
    ("She has 18 dollars on March 5, 2024.", 18),
    ("She has 18 dollars on the 5th of March 2024.", 18),
    ("18 dollars, paid on 2024-03-05", 18),
    ("18 dollars, paid on 5/3/2024", 18),
    ("March 5, 2024", 2024),
    ("1. 9 * 2 = 18\n2. Done", 18),
    ("Step 1: 9 * 2 = 18\nStep 2: we are done", 18),
    ("It is 18, as step 2 shows", 18),
    ("eighteen", 18),
    ("So she has twenty-five eggs.", 25),
    ("one hundred and eighteen", 118),
    ("two thousand three hundred", 2300),
    ("eighteen, and no one else has one", 18),
]  # fmt: skip


@pytest.mark.parametrize(("reply", "number"), MARKED + PLAIN + BESIDE)
def test_every_form_has_its_value(reply, number):
    assert final_number(reply) == number


@pytest.mark.parametrize(("reply", "number"), MARKED + PLAIN)
def test_work_before_it_and_a_full_stop_behind_it_change_nothing(reply, number):
    work = "First, 16 - 3 - 4 = 9 of 16 remain.\n"
    assert final_number(work + reply) == final_number(f"{work}{reply}.") == number


@pytest.mark.parametrize(
    "loop",
    [
        *("1 234 ", "1.234.", "12,34,", "9*", "9*3 = ", "2^9", "2^99*", "10^999 * 10^999 * ", "9 to 10 to ", "(", "½"),
        *("answer is 1 ", "####1", "\\frac{1", "\\text{", "one hundred ", "1 and ", "March 5, ", "1/1/", "1:00"),
    ],
)
def test_endless_forms_are_read_in_time(loop):
    start = time.process_time()  # others may have the processor meanwhile
    for head in ("", "#### ", "\\boxed{"):
        assert not same_number(head + loop * 5000, "18")
    assert time.process_time() - start < 5


@pytest.mark.parametrize("reply", ["No one knows.", "one", "CO2", "m^2", "x_1"])
def test_no_number(reply):
    assert final_number(reply) is None
