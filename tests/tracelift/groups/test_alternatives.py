"""Sound traces told otherwise are the reference but for one harmless change, and what is not known to be sound is not made."""

import random
import re
from collections import Counter
from fractions import Fraction

import pytest

from support.arithmetic import equations
from support.group_seeds import SEEDS
from tracelift.groups.alternatives import MAKERS, make, says_the_same
from tracelift.groups.flaws.math import MAKERS as FLAWS
from tracelift.groups.flaws.math import make as make_flaw
from tracelift.groups.flaws.trace import clean_reference, parse_trace
from tracelift.rubrics import ALTERNATIVES

PROBLEM = (
    "Ann has 12 red pens, 7 blue pens and 5 green pens. Bob has 2 boxes of 9 pens. How many pens do they have in all?"
)
TRACE = "Ann has 12 + 7 + 5 = 24 pens.\nBob has 2 * 9 = 18 pens.\nTogether they have 24 + 18 = 42 pens."


def parsed(question, answer):
    return parse_trace(clean_reference(answer), question, answer.rpartition("####")[2])


def by_hand(text=TRACE, problem=PROBLEM, answer="42"):
    return parse_trace(text, problem, answer)


def all_told(kind, text=TRACE, problem=PROBLEM, answer="42", draws=40):
    trace = by_hand(text, problem, answer)
    made = (make(kind, trace, problem, answer, random.Random(i)) for i in range(draws))
    return {"\n".join(lines) for lines in made if lines}


def changed_lines(reference, lines):
    return [(a, b) for a, b in zip(reference, lines, strict=True) if a != b]


def bare(text):
    """The words and numbers of a text in any order; signs, brackets and leads left out."""
    return Counter(re.findall(r"[a-z]+|[0-9]+(?:[.,][0-9]+)*", text.lower()))


@pytest.mark.parametrize("kind", MAKERS)
def test_an_alternative_is_the_reference_but_for_what_its_kind_says(kind):
    made = 0
    for n, (question, answer) in enumerate(SEEDS):
        trace = parsed(question, answer)
        lines = make(kind, trace, question, answer.rpartition("####")[2], random.Random(n))
        if lines is None:
            continue
        made += 1
        reference = trace.text.split("\n")
        changes = changed_lines(reference, lines)
        assert all(a == b for line in lines for a, b in equations(line)), lines
        if kind == "steps_reordered":
            assert sorted(lines) == sorted(reference) and len(changes) == 2 and lines[-1] == reference[-1]
            continue
        ((before, after),) = changes
        if kind == "terms_exchanged":
            assert bare(before) == bare(after)
        elif kind == "sum_regrouped":
            assert after.replace("(", "").replace(")", "") == before and after.count("(") == 1
        elif kind == "product_as_sum":
            lost, won = bare(before) - bare(after), bare(after) - bare(before)
            assert (
                set(lost) <= {"2", "x"}
                and len(won) == 1
                and re.search(rf"{next(iter(won))} \+ \$?{next(iter(won))}", after)
            )
        else:
            assert (after == lines[-1]) and not (bare(after) - bare(before)) - Counter(
                ["so", "therefore", "thus", "hence"]
            )
    assert made >= {"product_as_sum": 1, "steps_reordered": 1, "sum_regrouped": 2}.get(kind, 8)


def test_by_hand():
    a, b, c = TRACE.split("\n")
    assert all_told("terms_exchanged") == {
        f"Ann has {terms} = 24 pens.\n{b}\n{c}" for terms in ("7 + 12 + 5", "5 + 7 + 12", "12 + 5 + 7")
    } | {f"{a}\nBob has 9 * 2 = 18 pens.\n{c}", f"{a}\n{b}\nTogether they have 18 + 24 = 42 pens."}
    assert all_told("sum_regrouped") == {f"Ann has 12 + (7 + 5) = 24 pens.\n{b}\n{c}"}
    assert all_told("product_as_sum") == {f"{a}\nBob has 9 + 9 = 18 pens.\n{c}"}
    assert all_told("steps_reordered") == {f"{b}\n{a}\n{c}"}
    leads = ("So ", "Therefore, ", "Thus, ", "Hence, ")
    assert all_told("reworded") == {f"{a}\n{b}\n{lead}together they have 24 + 18 = 42 pens." for lead in leads}


UNITS = "A shop has 3 rows of 4 lamps at $6 a lamp. It sells all but 2 lamps. What does it get?"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("It has 3 rows * 4 lamps = 12 lamps.\nIt sells 12 - 2 = 10 lamps.\nIt gets 10 x $6 = $60.",
         {"It has 4 lamps * 3 rows = 12 lamps.\nIt sells 12 - 2 = 10 lamps.\nIt gets 10 x $6 = $60.",
          "It has 3 rows * 4 lamps = 12 lamps.\nIt sells 12 - 2 = 10 lamps.\nIt gets $6 x 10 = $60."}),
        ("It has 3 rows * 4 lamps = 12 lamps.\nIt sells 12 - 2 = 10 lamps.\nIt gets 10 * 6 / 1 = $60.",
         {"It has 4 lamps * 3 rows = 12 lamps.\nIt sells 12 - 2 = 10 lamps.\nIt gets 10 * 6 / 1 = $60."}),
        ("It has 3 * 4 lamps in all the rows = 12 lamps.\nIt sells 12 - 2 = 10 lamps.\nIt gets (10) * 6 = $60.", set()),
    ],
    ids=["units and currency move along", "one kind of operator alone", "neither clauses nor brackets"],
)  # fmt: skip
def test_terms_keep_what_belongs_to_them(text, told):
    assert all_told("terms_exchanged", text, UNITS, "60") == told


POINTING = [
    "Bob has 2 * 9 = 18 pens.\nShe has 12 + 7 + 5 = 24 pens.\nSo 18 + 24 = 42 pens.",
    "Bob has 2 * 9 = 18 pens.\nAnn, his friend, has 12 + 7 + 5 = 24 pens.\nSo 18 + 24 = 42 pens.",
    "Bob has 2 * 9 = 18 pens.\nThen Ann has 12 + 7 + 5 = 24 pens.\nSo 18 + 24 = 42 pens.",
    "Bob has 2 * 9 = 18 pens.\nAnn has 12 + 7 + 5 = 24 pens.\nThose are 18 + 24 = 42 pens.",
    "Bob has 2 * 9 = 18 pens.\nThe rest of the pens are 12 + 7 + 5 = 24.\nSo 18 + 24 = 42 pens.",
    "Bob has 2 * 9 = 18 pens.\nAnn is poor.\nAnn has 12 + 7 + 5 = 24 pens, and 18 + 24 = 42.",
    "Ann has 12 + 7 + 5 = 24 pens.\nBob has 24 - 12 = 12 pens.\nSo 24 + 12 + 7 - 1 = 42 pens.",
]


@pytest.mark.parametrize("text", POINTING)
def test_steps_that_lean_on_each_other_keep_their_order(text):
    assert all_told("steps_reordered", text) == set()


def test_two_that_was_worked_out_stays():
    """`2 * 9` where an earlier step gave the 2: as 9 + 9 that step would be needed by nothing."""
    text = "There are 7 - 5 = 2 boxes.\nBob has 2 * 9 = 18 pens.\nAll are 12 + 7 + 5 + 18 = 42."
    assert all_told("product_as_sum", text) == set()
    assert all_told("product_as_sum", text.replace("7 - 5 = 2", "7 - 6 = 1")) != set(), "and without that it does not"


WRONG = [
    "Ann has 12 + 7 + 5 = 25 pens.\nBob has 2 * 9 = 18 pens.\nTogether they have 25 + 18 = 43 pens.",
    "Ann has 12 + 7 = 19 pens.\nBob has 2 * 9 = 18 pens.\nTogether they have 19 + 18 = 37 pens.",
    "Bob has 2 * 9 = 18 pens.\nTogether they have 24 + 18 = 42 pens.\nAnn has 12 + 7 + 5 = 24 pens.",
    "Ann has 12 + 7 + 5 = 24 pens.\nBob has 2 + 9 = 11 pens.\nTogether they have 24 + 11 = 35 pens.",
    "Ann has 12 * 2 = 24 pens.\nBob has 2 * 9 = 18 pens.\nTogether they have 24 + 18 = 42 pens.",
    "Ann has 12 + 7 + 5 = 24 pens.\nBob has 9 + 9 = 18 pens.\nTogether they have 24 + 18 = 42 pens.",
    "Ann has 24 pens.\nBob has 2 * 9 = 18 pens.\nTogether they have 24 + 18 = 42 pens.",
]


@pytest.mark.parametrize("text", WRONG)
def test_what_says_something_else_is_refused(text):
    """Among them one with the right results from other quantities, and the doubled number where no kind allows for it."""
    assert not says_the_same(by_hand(), tuple(text.split("\n")), PROBLEM, "42", set())
    assert says_the_same(by_hand(), tuple(TRACE.split("\n")), PROBLEM, "42", set())


def test_no_flaw_passes_for_an_alternative():
    tried = 0
    for n, (question, answer) in enumerate(SEEDS):
        trace, final = parsed(question, answer), answer.rpartition("####")[2]
        for kind in set(FLAWS) - {"misquoted_given", "wrong_entity"}:  # which are wrong in words alone
            flawed = make_flaw(kind, trace, question, random.Random(f"{kind} {n}"))
            if flawed is not None:
                tried += 1
                assert not says_the_same(trace, flawed.lines, question, final, {Fraction(2)}), (kind, flawed.lines)
    assert tried > 150


def test_the_kinds_are_those_of_the_table():
    assert list(MAKERS) == [k for k in ALTERNATIVES if k != "steps_merged"], (
        "a result left to the reader: the worlds alone"
    )
