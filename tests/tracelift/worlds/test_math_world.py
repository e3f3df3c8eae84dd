"""The demo world: problems are right, flaws do what their record says, and the checker finds each one."""

import random
import re
from fractions import Fraction

import pytest

from tracelift.rubrics import MATH_DIMENSIONS
from tracelift.worlds.build.math_proofreading import tagged_trace
from tracelift.worlds.math import (
    FLAWS,
    apply_flaw,
    check_trace,
    make_problem,
    misconceived_trace,
    rubric_of,
)
from tracelift.worlds.math.derivation import Step
from tracelift.worlds.math.flaws import DIMENSIONS, RUBRIC
from tracelift.worlds.math.problems import MathProblem
from tracelift.worlds.math.validity import final_value

PROBLEMS = [make_problem(3, i) for i in range(400)]
WORDS = {"buys": 1, "finds": 1, "brings": 1, "loses": -1, "sells": -1, "gives": -1}


def answer_by_reading(text: str) -> int:
    """An independent solver: reads the story sentence by sentence, knows nothing of steps."""
    sentences = re.findall(r"[^.?]+[.?]", text)
    name = sentences[0].split()[0]
    own = Fraction(re.search(r"\d+", sentences[0])[0])
    friends = None
    for s in sentences[1:-1]:
        numbers = [int(n) for n in re.findall(r"\d+", s)]
        if "years old" in s or "costs" in s or "walk home" in s:
            continue
        if m := re.search(r"(\d+) (?:fewer|\w+ less)", s):
            friends = own - int(m[1])
        elif "times as many" in s:
            friends = own * numbers[0]
        elif re.search(r"than " + name, s):
            friends = own + numbers[0]
        elif "half" in s:
            own /= 2
        elif "bags" in s:
            own += numbers[0] * numbers[1]
        elif "a day" in s:
            own -= numbers[0] * numbers[1]
        else:
            sign = next(v for word, v in WORDS.items() if word in s)
            own += sign * numbers[0]
    question = sentences[-1]
    if "together" in question:
        return int(own + friends)
    return int(friends if name not in question else own)


def test_answers_agree_with_an_independent_reader():
    for p in PROBLEMS:
        assert p.answer == answer_by_reading(p.text), p.text


def test_same_arguments_same_problem_and_series_differ():
    assert make_problem(3, 7) == PROBLEMS[7]
    assert len({make_problem(s, i).text for s in (3, 4) for i in range(300)}) > 595


def test_reference_traces_are_valid_and_keep_the_answer_back():
    for p in PROBLEMS:
        assert check_trace(p, p.trace).valid, p.trace
        assert final_value(p.trace) == p.answer
        assert not p.trace.endswith(f"= {p.answer}.")


@pytest.mark.parametrize("kind", sorted(FLAWS))
def test_every_flaw_is_found_and_its_consequence_is_as_recorded(kind):
    struck = 0
    for i, p in enumerate(PROBLEMS):
        flaw = apply_flaw(p, kind, random.Random(i))
        if flaw is None:
            continue
        struck += 1
        assert not check_trace(p, flaw.trace).valid, (p.text, flaw)
        assert flaw.changes_answer == (final_value(flaw.trace) != p.answer)
    assert struck > 40


def test_both_sorts_of_flaw_exist():
    changed = {
        k: [f.changes_answer for i, p in enumerate(PROBLEMS) if (f := apply_flaw(p, k, random.Random(i)))]
        for k in FLAWS
    }
    unseen = {k for k, v in changed.items() if not any(v)}
    assert unseen == {
        "slip_not_carried",
        "right_number_wrong_operator",
        "wrong_reason",
        "irrelevant_step",
        "duplicated_step",
        "answer_leaked",
    }
    assert all(sum(v) > 0.9 * len(v) for k, v in changed.items() if k not in unseen)


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        (lambda t: t.replace("Bags:", "Days:"), "wrong_reason"),
        (lambda t: t.replace("5 * 3 = 15", "5 * 3 = 16"), "false_arithmetic"),
        (lambda t: t.replace("Bags: 5 * 3 = 15. ", ""), "missing_step"),
        (lambda t: t.replace("4 + 15 = 19.", "4 + 15 = 19. More: 4 + 15 = 19."), "duplicate"),
        (lambda t: t[:-1] + " = 12.", "answer_leaked"),
        (lambda t: t + " Trust me.", "unreadable"),
        (lambda t: "", "unreadable"),
        (lambda t: t.rsplit(" Left", 1)[0], "missing_step"),
    ],
)
def test_faults_have_names(edit, fault):
    steps = (Step("Bags", 5, "*", 3, "packs"), Step("More", 4, "+", -1, "gain"), Step("Left", -2, "-", 7, "loss"))
    p = MathProblem("x", "", steps, steps, 12, None)
    assert p.trace == "Bags: 5 * 3 = 15. More: 4 + 15 = 19. Left: 19 - 7."
    assert check_trace(p, p.trace).valid
    assert check_trace(p, p.trace.replace("5 * 3", "3 * 5").replace("4 + 15", "15 + 4")).valid
    assert not check_trace(p, p.trace.replace("19 - 7", "7 - 19")).valid
    assert check_trace(p, edit(p.trace)).fault == fault


def test_misconceptions_of_both_sorts():
    wrong = sum(final_value(misconceived_trace(p, random.Random(i))) != p.answer for i, p in enumerate(PROBLEMS))
    hidden = sum(
        final_value(t) == p.answer and not check_trace(p, t).valid
        for i, p in enumerate(PROBLEMS)
        for t in [misconceived_trace(p, random.Random(i))]
    )
    assert 0.2 < wrong / len(PROBLEMS) < 0.7 and hidden / len(PROBLEMS) > 0.2
    assert all(check_trace(p, misconceived_trace(p, random.Random(0), strength=0.0)).valid for p in PROBLEMS)


def test_rubric_table_is_complete():
    assert DIMENSIONS == MATH_DIMENSIONS
    assert set(RUBRIC) == {None, *FLAWS}
    assert rubric_of(None)[1] == 1.0 and all(rubric_of(k)[1] < 1.0 for k in FLAWS)


def test_proofreading_tags_agree_with_the_checker():
    """A trace whose every word is tagged + is valid, and no other is; two pieces of code that share nothing but the world."""
    clean = 0
    for i, p in enumerate(PROBLEMS):
        *pieces, (closing, verdict) = tagged_trace(p, random.Random(i))
        text, right = "".join(t for t, *_ in pieces), all(tag == " +" for _, tag, *_ in pieces)
        assert check_trace(p, text).valid == right == (verdict == " +"), (p.text, pieces)
        assert closing == "\n</reasoning>"
        clean += right
    assert len(PROBLEMS) / 10 < clean < len(PROBLEMS) / 2


def test_proofreading_says_what_is_meant():
    """Up to the first wrong word, what is meant spells the start of a sound telling, and the wrong word ends that."""
    for i, p in enumerate(PROBLEMS):
        *pieces, _ = tagged_trace(p, random.Random(i))
        for text, tag, *meant in pieces:
            if tag == " -":
                assert text != meant[0]
                break
            assert [text] == meant
