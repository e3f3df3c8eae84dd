"""Properties of the answer reader over random dress: nothing different passes for another, everything equal passes.

Which wrong readers would still pass? One that reads only the forms of tests/support/dress.py; the table of cases beside
this file (answers.jsonl) and test_math.py hold others.
"""

import json
import os
import random
from fractions import Fraction
from pathlib import Path

import pytest

from tests.support.dress import BEHIND, EXPRESSIONS, MARKED, PLAIN, SENTENCES, TRAPS, draw_value, written
from tracelift.verify.math import reference_kind, verify_math
from tracelift.verify.verdict import Verdict

CASES = [json.loads(line) for line in (Path(__file__).parent / "answers.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['said'][:30]!r}-{case['reference']}")
def test_cases(case):
    assert verify_math(case["said"], case["reference"]).name == case["verdict"]


def test_long_reasoning_goes_before_any_limit():
    assert verify_math("<think>" + "2+2=4. " * 3000 + "</think>\n#### 31", "31") is Verdict.PASS
    assert verify_math("so 28. " * 3000 + "</think>31", "31") is Verdict.PASS
    assert verify_math("<think>" + "It is 31. " * 3000, "31") is Verdict.FAIL


def test_equal_values_pass_in_any_dress():
    rng = random.Random(3)
    for _ in range(4000):
        value = draw_value(rng)
        said, reference = rng.choice(MARKED + PLAIN).format(written(value, rng)), written(value, rng)
        assert verify_math(said, reference) is Verdict.PASS, (said, reference)
        plain = f"{float(value):.2f}"
        sentence = rng.choice(SENTENCES).format(plain)
        assert verify_math(sentence, plain) is Verdict.PASS, sentence


def near(value: Fraction, rng: random.Random) -> Fraction:
    return rng.choice([-value, value + 1, value * 10, value / 2, value + Fraction(1, 100), draw_value(rng)])


def test_no_value_passes_for_another():
    rng = random.Random(4)
    for _ in range(5000):
        value = draw_value(rng)
        other = near(value, rng)
        if other == value or (other * 100).denominator > 1:
            continue
        said = rng.choice(MARKED + PLAIN + SENTENCES).format(written(value, rng))
        reference = written(other, rng)
        assert verify_math(said, reference) is Verdict.FAIL, (said, reference)


def test_no_value_passes_from_within_a_trap():
    rng = random.Random(7)
    for _ in range(2000):
        value = abs(draw_value(rng)) + 2
        plain = str(value) if value.denominator == 1 else f"{float(value):.2f}"
        trapped = rng.choice(TRAPS).format(plain)
        assert verify_math(trapped, plain) is Verdict.FAIL, (trapped, plain)
        behind = f"{plain} {rng.choice(BEHIND)}"
        said = rng.choice(["{}", "\\boxed{{{}}}", "The answer is {}", "Answer: {}", "#### {}"]).format(behind)
        assert verify_math(said, plain) is Verdict.FAIL, (said, plain)


def test_no_expression_passes_for_another_or_for_a_number():
    rng = random.Random(5)
    numbers = ["5", "-5", "2", "3", "6", "7", "8", "10", "1/2", "30", "52", "1011", "-6", "5/6", "0.5"]
    for a in EXPRESSIONS:
        for b in EXPRESSIONS + numbers:
            said = rng.choice(MARKED + SENTENCES).format(a)
            if a != b:
                assert verify_math(said, b) is Verdict.FAIL, (said, b)
        for b in numbers:
            assert verify_math(rng.choice(MARKED + SENTENCES).format(b), a) is Verdict.FAIL, (b, a)


def test_an_expression_passes_for_itself_where_it_is_marked():
    for expression in EXPRESSIONS:
        for dress in MARKED:
            assert verify_math(dress.format(expression), expression) is Verdict.PASS, (dress, expression)


@pytest.mark.parametrize(
    ("sentence", "value"),
    [
        ("So she has 18 eggs left.", "18"),
        ("So Sara sent 15 + 18 = 33 letters.", "33"),
        ("The 3 friends got 12 each.", "12"),
        ("Half of them is 5.", "5"),
        ("She is left with $12.50.", "12.5"),
        ("Natalia sold 72 clips. I hope this helps!", "72"),
        ("In 2 hours she walks 3/4 of a mile.", "3/4"),
        ("The temperature is now -5 degrees.", "-5"),
        ("The value is now negative 5.", "-5"),
        ("It will take 80 hours / 10 hours/day = 8 days to finish.", "8"),
        ("She bought 6 more than 5.", None),
        ("She has less than 5 eggs.", None),
        ("The value is between 4 and 5.", None),
        ("She does not have 5 eggs.", None),
        ("She has half of 5 now.", None),
        ("So she has 3 eggs or 5.", None),
        ("She has 3 times 5 eggs.", None),
        ("She walked 5 hours 30 minutes.", None),
        ("So the equation is 2x = 5 now.", None),
        ("So we get x = 1 or x = 5 here.", None),
        ("The value is 5x now.", None),
        ("She has 5 dozen eggs.", None),
        ("She has 5 eggs. No, that is wrong.", None),
        ("They meet at 5 pm.", None),
        ("She has 6 red apples, 5 pears.", None),
        ("It is 5 and a half miles.", None),
    ],
)
def test_a_sentence_states_one_number_or_is_text(sentence, value):
    assert verify_math(sentence, value or "5") is (Verdict.PASS if value else Verdict.FAIL)


@pytest.mark.parametrize(
    ("reference", "kind"),
    [
        ("18", "number"), ("#### 1,234", "number"), ("12.50 dollars", "number"), ("seventy-two", "number"), ("C", "choice"),
        ("(C)", "choice"), ("E: the last", "choice"), ("Evelyn", "words"), ("no solution", "words"), ("The answer is yes.", "words"),
        ("x+5", "none"), (r"2\pi", "none"), ("(1,2)", "none"), ("5 or 6", "none"), ("3:30", "none"), ("x > 5", "none"),
        (r"\{1,2\}", "none"), ("5!", "none"), ("x y", "none"),
    ],
)  # fmt: skip
def test_what_a_reference_can_be_checked_as(reference, kind):
    assert reference_kind(reference) == kind


@pytest.mark.parametrize(
    "said", ["E", "(E)", "E)", "E.", "Option E", "\\boxed{E: the last}", "**E**", "The answer is (E)."]
)
def test_choices_in_their_usual_dress(said):
    assert verify_math(said, "E") is Verdict.PASS and verify_math(said, "(E)") is Verdict.PASS
    assert verify_math(said, "D") is Verdict.FAIL
    assert verify_math("Every man", "E") is verify_math("E flat", "E") is Verdict.FAIL


@pytest.mark.skipif("TRACELIFT_DATA" not in os.environ, reason="needs GSM8K: set TRACELIFT_DATA")
def test_gsm8k_references_pass_themselves_and_no_other():
    rows = Path(os.environ["TRACELIFT_DATA"], "gsm8k", "train.jsonl").read_text().splitlines()
    answers = [json.loads(line)["answer"] for line in rows]
    values = [Fraction(a.rpartition("####")[2].strip().replace(",", "")) for a in answers]
    rng = random.Random(6)
    for i, (answer, value) in enumerate(zip(answers, values, strict=True)):
        assert verify_math(f"#### {answer.rpartition('####')[2]}", answer) is Verdict.PASS
        assert verify_math(rng.choice(MARKED).format(written(value, rng)), answer) is Verdict.PASS, (i, value)
        other = rng.choice(values)
        wanted = Verdict.PASS if other == value else Verdict.FAIL
        assert verify_math(written(other, rng), answer) is wanted, (i, value, other)
