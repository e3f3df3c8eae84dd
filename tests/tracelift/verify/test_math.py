"""The math verifier: a table of what it must accept and refuse, and properties against an independent oracle.

The oracle of the properties is the construction itself: a value is drawn first and then written in many ways, so what
is right is known without any parser. The authors' own rule is written out here once, to show that everything right
that it accepts is accepted.
"""

import random
import re
from fractions import Fraction

import pytest

from support.dress import draw_value
from tracelift.verify.math import (
    extract_answer,
    gsm8k_flexible,
    gsm8k_strict,
    verify_math,
)
from tracelift.verify.verdict import Verdict

RIGHT = [
    # decimals and currency, which the authors' rule cuts at the point
    ("The answer is 3.5", "3.5"),
    ("The answer is 3.5.", "3.5"),
    ("$12.50", "12.5"),
    ("The answer is $12.50.", "12.50"),
    ("\\$18", "18"),
    ("$18$", "18"),
    ("\\(18\\)", "18"),
    ("18 dollars", "$18"),
    ("USD 12.50", "12.5"),
    ("Rs. 500", "500"),
    ("£ 5", "5"),
    # signs
    ("-5", "-5"),
    ("−5", "-5"),
    ("-$5", "-5"),
    ("$-5", "-5"),
    ("+7", "7"),
    ("x = - 5", "-5"),
    # a dash or a bullet is no sign
    ("Answer - 5", "5"),
    ("- 5", "5"),
    # thousands
    ("1,234", "1234"),
    ("$1,234.50", "1234.5"),
    ("1,00,000", "100000"),
    ("10 000", "10000"),
    ("10\\,000", "10000"),
    ("10{,}000", "10000"),
    ("1234.00", "1234"),
    ("72.", "72"),
    (".5", "0.5"),
    # fractions and mixed numbers
    ("1/2", "0.5"),
    ("3 / 4", "\\frac{3}{4}"),
    ("\\frac34", "3/4"),
    ("-\\dfrac{3}{4}", "-0.75"),
    ("\\boxed{\\frac{1}{2}}", "0.5"),
    ("\\boxed{\\frac{\\frac{1}{2}}{3}}", "1/6"),
    ("\\boxed{1\\frac{1}{2}}", "3/2"),
    ("1 1/2", "1.5"),
    ("1½ hours", "3/2"),
    ("3 and 1/2", "3.5"),
    ("1.5/2", "0.75"),
    ("So it is 5/6 of a pie.", "5/6"),
    ("0.333333", "1/3"),
    ("0.3333333", "1/3"),
    ("2/3", "0.666667"),
    ("0.666666", "2/3"),
    ("0.30000000000000004", "0.3"),
    # percent, scale words, scientific notation
    ("50%", "50"),
    ("50 percent", "50%"),
    ("50", "50%"),
    ("50%", "0.5"),
    ("0.5", "50%"),
    ("50\\%", "50"),
    ("1.5 million", "1500000"),
    ("1e3", "1000"),
    ("6.0e2", "600"),
    ("3.2 \\times 10^{3}", "3200"),
    ("3.2 x 10^3", "3200"),
    ("10^6", "1000000"),
    ("2^{10}", "1024"),
    ("$2k", "2000"),
    ("$2k per month", "2000"),
    ("so 20 = A", "20"),
    ("Week 3:210 pages", "210"),
    # units
    ("72 clips", "72"),
    ("5km", "5"),
    ("90^\\circ", "90"),
    ("5 cm^2", "5"),
    ("The area is 5 cm^2.", "5"),
    ("5 \\text{ cm}^2", "5"),
    ("\\boxed{12.50\\text{ dollars}}", "12.5"),
    ("3rd", "3"),
    ("72!", "72"),
    # where the answer stands
    ("#### 72", "72"),
    ("48/2 = 24\n24+48 = 72\n#### 72", "72"),
    ("#### \\boxed{5}", "5"),
    ("#### 1. Halve it\n48/2=24\n#### 2. Add\n24+48=72", "72"),
    ("### Step 1\nThe answer is $\\boxed{72}$.", "72"),
    ("<answer>72</answer>", "72"),
    ("<think>Is it 5? 6?</think>7", "7"),
    ("**Final Answer:** 72 clips", "72"),
    ("**72**", "72"),
    ("Final answer:\n72", "72"),
    ("The answer is therefore 12.", "12"),
    ("The answer is 48 + 24 = 72 clips.", "72"),
    ("The answer is 72 (48 + 24).", "72"),
    ("72 clips (48 + 24)", "72"),
    ("Answer: The 3 friends got 12 each.", "12"),
    ("The answer is that the 3 friends got 12 each.", "12"),
    ("48/2 = 24\n24+48 = 72", "72"),
    ("12 apples\n+ 5 apples\n= 17 apples", "17"),
    ("24 clips in May\n72 clips in total", "72"),
    ("72\nExplanation: 48/2=24, 48 + 24", "72"),
    ("Let me see.\n\nHow many are left? She has 5-3 = 2.", "2"),
    ("The answer is 70. No, that is wrong. The answer is 72.", "72"),
    ("x=72", "72"),
    ("approximately 12 hours", "12"),
    ("~ 12", "12"),
    # a base model that goes on
    ("72\n\nProblem:\nTom has 5 apples and eats 2.\n\nFinal answer:\n3", "72"),
    ("72\n\nTom has 3 apples. How many?\nThe answer is 1.", "72"),
    ("#### 72\n\nQ: Tom has 5 apples\n#### 5", "72"),
    ("72<|endoftext|>5", "72"),
    ("She needs 5 more.</s>Human: what is 3+4? 7", "5"),
    ("The answer is 5.\n\nTom has 2 cats. How many legs do they have?\nThe answer is 8.", "5"),
    ("\\boxed{5}\n\n### Question 2\nTom has 2 cats.\n\\boxed{8}", "5"),
    # no number at all
    ("Yes.", "yes"),
    ("The answer is yes.", "yes"),
    ("\\boxed{2\\sqrt{3}}", "$2\\sqrt{3}$"),
    ("The answer is: 3:30", "3:30"),
    ("\\text{(C)}", "C"),
    ("(1, 2)", "(1,2)"),
]

WRONG = [
    ("3", "3.5"),
    ("The answer is 3.5", "3"),
    ("The answer is $12.50", "12"),
    ("72", "-72"),
    ("10-5", "-5"),
    ("10 - 5", "5"),
    ("48+24", "24"),
    ("The answer is 48 + 24.", "48"),
    ("The answer is 48 + 24.", "24"),
    ("1 1/2", "1/2"),
    ("1½", "5.5"),
    (".5", "5"),
    ("3:30", "30"),
    ("2\\sqrt{3}", "3"),
    ("2\\sqrt{3}", "2"),
    ("5\\pi", "5"),
    ("x^2", "2"),
    ("H2O", "2"),
    ("2x", "2"),
    ("2k", "2"),
    ("20 = 4 * 5 = x", "4"),
    ("20 = 4 + 16", "16"),
    ("5e3", "3"),
    ("10^6", "6"),
    ("5 or 6", "5"),
    ("5 or 6", "6"),
    ("$5$ or $6$", "6"),
    ("between 5 and 6", "5"),
    ("5-6", "6"),
    ("±5", "5"),
    ("1, 2, 3", "3"),
    ("12,5", "125"),
    ("\\boxed{5, 7}", "7"),
    ("\\boxed{(1,2)}", "2"),
    ("1.5 million", "15"),
    ("1.5 million", "1.5"),  # a scale is part of the number
    ("$2k per month", "2"),
    ("The answer is 10 apples and 5 oranges", "10"),  # several quantities are no number
    ("50%", "50 million"),
    ("50", "0.5"),
    ("0.0000001", "0"),
    ("0.0000001", "0.0000002"),
    ("1.0000001", "1"),
    ("0.3333", "1/3"),
    ("12345678901", "12345678900"),
    ("33.33", "33.34"),
    ("3/0", "3"),
    ("", "72"),
    ("   ", "72"),
    ("no idea", "72"),
    ("no", "yes"),
    ("72\n\nQuestion: 5+5?\nAnswer: 10", "10"),
    ("#### 72\n#### 5", "5"),
    ("\\boxed{72", "7"),
]


@pytest.mark.parametrize("prediction,reference", RIGHT)
def test_right_answers_pass(prediction, reference):
    assert verify_math(prediction, reference) is Verdict.PASS, extract_answer(prediction)


@pytest.mark.parametrize("prediction,reference", WRONG)
def test_wrong_answers_fail(prediction, reference):
    assert verify_math(prediction, reference) is Verdict.FAIL, extract_answer(prediction)


def test_an_empty_reference_is_an_error_and_other_types_are_refused():
    assert verify_math("72", "") is Verdict.ERROR
    assert verify_math("72", " \n") is Verdict.ERROR
    with pytest.raises(TypeError, match="int"):
        verify_math("72", 72)


def test_a_whole_gsm8k_solution_serves_as_reference():
    gold = "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\nAltogether 48+24 = <<48+24=72>>72 clips.\n#### 72"
    assert verify_math("72", gold) is Verdict.PASS
    assert verify_math("24", gold) is Verdict.FAIL


@pytest.mark.parametrize(
    "text",
    [
        "9" * 100_000,
        "1e999999999",
        "2^999999999",
        "10**10**10**10",
        "(" * 50_000 + "5",
        "\\frac{" * 20_000 + "1",
        "\\boxed{" * 20_000,
        "1," * 50_000,
        "1/" * 50_000,
        " " * 100_000 + "x",
        "1 " * 50_000,
        "\n\nhow " * 20_000,
        "answer is " * 20_000,
        "-" * 100_000 + "5",
        "$" * 100_000,
        "<<" * 50_000,
        "\\text{" * 20_000 + "5" + "}" * 20_000,
    ],
    ids=lambda text: f"{text[:8]!r}x{len(text)}",
)
def test_hostile_outputs_are_judged_in_bounded_work(text):
    # Quadratic patterns would take minutes here, and doubling powers all memory; no verdict may be an exception.
    assert verify_math(text, "7") in (Verdict.PASS, Verdict.FAIL)
    assert verify_math("7", text[:2000]) is not Verdict.PASS


# ------------------------------------------------------------------------------------------------------- properties


def written(value: Fraction, rng: random.Random) -> str:
    """One of the many ways in which `value` (with at most two decimals) can be written exactly."""
    sign, size = ("-" if value < 0 else ""), abs(value)
    forms = []
    if size.denominator == 1:
        n = int(size)
        forms += [f"{sign}{n}", f"{sign}{n:,}", f"{sign}{n}.0", f"{sign}${n:,}", f"{sign}{n}.00"]
        forms += [f"{sign}\\text{{{n}}}", f"\\frac{{{sign}{2 * n}}}{{2}}", f"{sign}{n}/1"]
    else:
        decimal = f"{float(size):.2f}"
        forms += [f"{sign}{decimal}", f"{sign}${decimal}", f"{sign}{float(size):,.2f}", f"{sign}{decimal}0"]
        top, bottom = size.numerator, size.denominator
        forms += [f"{sign}{top}/{bottom}", f"{sign}\\frac{{{top}}}{{{bottom}}}"]
        if size > 1 and not sign:
            rest = size - int(size)
            forms += [f"{int(size)} {rest.numerator}/{rest.denominator}"]
    return rng.choice(forms)


TEMPLATES = [
    "{}",
    " {} ",
    "{}.",
    "{} apples",
    "#### {}",
    "The answer is {}.",
    "The answer is: {}",
    "the final answer is {} dollars.",
    "Final answer: {}",
    "**Answer:** {}",
    "\\boxed{{{}}}",
    "$\\boxed{{{}}}$.",
    "7 of the 12 boys left.\nThe answer is {}",
    "First 3 + 4 = 7. Then 7 times 6 is 42. So she has {}.",
    "= {}",
    "3 + 4 = {}",
    "{}\n\nProblem:\nTom has 999983 apples.\n\nFinal answer:\n999983",
    "{}\n\nQuestion: how much is 999983?\nAnswer: 999983",
]


def test_a_value_passes_against_itself_however_it_is_written():
    rng = random.Random(0)
    for _ in range(6000):
        value = draw_value(rng)
        prediction = rng.choice(TEMPLATES).format(written(value, rng))
        reference = written(value, rng)
        assert verify_math(prediction, reference) is Verdict.PASS, (prediction, reference, extract_answer(prediction))


def test_another_value_fails_however_it_is_written():
    rng = random.Random(1)
    for _ in range(6000):
        value = draw_value(rng)
        other = rng.choice([value + 1, -value, value * 10, value + Fraction(1, 100), value / 2, Fraction(999_983)])
        if other == value:
            continue
        prediction = rng.choice(TEMPLATES).format(written(value, rng))
        reference = f"{other.numerator}/{other.denominator}"
        assert verify_math(prediction, reference) is Verdict.FAIL, (prediction, reference, extract_answer(prediction))


def paper_value(text):
    """The authors' reading of an answer as their math trainer does it: markers, then the last number; None if none."""
    text = re.sub(r"\\boxed\s*\{([^{}]+)\}", r"\1", text.strip())
    text = re.sub(r"\\frac\s*\{([^{}]+)\}\s*\{([^{}]+)\}", r"\1/\2", text)
    numeral = r"[-+]?\d[\d,]*(?:\.\d+)?(?:\s*/\s*[-+]?\d[\d,]*(?:\.\d+)?)?"
    if "####" in text:
        text = text.rsplit("####", 1)[1]
    else:
        for pattern in (r"(?:the\s+)?answer\s+is\s*[:=]?\s*([^\n.]+)", r"final\s+answer\s*[:=]?\s*([^\n.]+)", numeral):
            if found := re.findall(pattern, text, flags=re.I):
                text = found[-1]
                break
    match = re.search(numeral, text.replace("$", "").replace(",", ""))
    try:
        return Fraction(match[0].replace(" ", "")) if match else None
    except (ValueError, ZeroDivisionError):
        return None


def test_everything_right_that_the_papers_rule_accepts_is_accepted():
    rng = random.Random(2)
    accepted = 0
    for _ in range(6000):
        value = draw_value(rng)
        prediction, reference = rng.choice(TEMPLATES).format(written(value, rng)), written(value, rng)
        if paper_value(prediction) == paper_value(reference) == value:
            accepted += 1
            assert verify_math(prediction, reference) is Verdict.PASS, (prediction, reference)
    assert 2000 < accepted < 6000  # the paper's rule gets many right, and not all: both facts are the point
    # ... and its known misreadings, in its own words.
    assert paper_value("The answer is 3.5") == 3 and paper_value("The answer is $12.50") == 12


# ------------------------------------------------------------------------------------- GSM8K's two extraction rules


@pytest.mark.parametrize(
    "text,strict,flexible",
    [
        ("So 48+24 = 72.\n#### 72", "72", "72"),
        ("#### 1,234.", "1234", "1234"),
        ("#### 18.0", "18.0", "18.0"),  # not 18: both rules compare strings
        ("####72", None, "72"),
        ("#### $72", None, "72"),
        ("#### 5\n#### 6", "5", "6"),
        ("It costs $12.50 each", None, "12.50"),
        ("7", None, "7"),
        ("-7", None, "-7"),
        ("10-5", None, "-5"),
        ("no number", None, None),
    ],
)
def test_gsm8k_rules(text, strict, flexible):
    assert gsm8k_strict(text) == strict and gsm8k_flexible(text) == flexible
