"""Traces that re-run themselves, and flaws whose consequences are checked by an independent reading of the text."""

import json
import os
import random
import re
from fractions import Fraction
from pathlib import Path

import pytest

from support.arithmetic import equations
from support.group_seeds import SEEDS
from tracelift.groups.flaws.math import MAKERS, make
from tracelift.groups.flaws.trace import (
    Edit,
    TraceError,
    clean_reference,
    givens,
    parse_trace,
)
from tracelift.groups.flaws.wording import statements
from tracelift.groups.rubric import (
    TABLE,
    place_of,
    rubric_of,
    sound_rubric,
    table_markdown,
)
from tracelift.rubrics import MATH_DIMENSIONS
from tracelift.verify.arithmetic import plain

CHANGES = {  # the kinds that lead to another answer, by the meaning of their names
    "miscopied_number",
    "slip_carried",
    "wrong_operator",
    "wrong_quantity",
    "double_count",
    "missed_term",
    "premature_stop",
    "unsupported_assumption",
    "other_question",
}


def parsed(question, answer):
    return parse_trace(clean_reference(answer), question, answer.rpartition("####")[2])


def all_seeds():
    """The small seeds, and 150 of GSM8K where the data are there."""
    seeds = list(SEEDS)
    data = os.environ.get("TRACELIFT_DATA")
    path = Path(data) / "gsm8k" / "train.jsonl" if data else None
    if path is not None and path.is_file():
        with path.open(encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        seeds += [(r["question"], r["answer"]) for r in random.Random(0).sample(rows, 150)]
    return seeds


def understood():
    for question, answer in all_seeds():
        try:
            yield question, parsed(question, answer)
        except TraceError:
            continue


# ----------------------------------------------------------------------------------------------------------- parsing


def test_calculator_marks_go_and_results_stay_once():
    raw = "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\n\nShe sold 48+24 = $<<48+24=72>>72.  \n#### 72"
    assert clean_reference(raw) == "Natalia sold 48/2 = 24 clips in May.\nShe sold 48+24 = $72."


@pytest.mark.parametrize("question,answer", SEEDS)
def test_a_trace_runs_to_itself(question, answer):
    trace = parsed(question, answer)
    run = trace.run(Edit())
    assert "\n".join(run.lines) == clean_reference(answer) == trace.text
    assert run.final == Fraction(answer.rpartition("#### ")[2])


def test_numbers_know_where_they_come_from():
    trace = parsed(*SEEDS[1])
    kinds = [[(s.text, trace.nodes[s.node].kind, trace.nodes[s.node].line) for s in line.slots] for line in trace.lines]
    assert kinds[0] == [("120", "given", -1), ("2", "given", -1), ("60", "result", 0)]  # "half" gives 2
    assert kinds[1] == [("60", "result", 0), ("25", "given", -1), ("85", "result", 1)]
    assert kinds[3][:2] == [("85", "result", 1), ("80", "result", 2)]
    announced = parsed(*SEEDS[4]).lines[1].slots[0]  # `10 bracelets because 80 / 8 = 10`: one quantity, not two
    assert announced.node == parsed(*SEEDS[4]).final


def test_a_changed_result_runs_through_every_later_line():
    trace = parsed(*SEEDS[1])
    run = trace.run(Edit(forced={(0, 2): Fraction(70)}))
    assert run.lines == (
        "There are 120 / 2 = 70 comics.",
        "After buying, there are 70 + 25 = 95 comics.",
        "After lending, there are 120 - 40 = 80 novels.",
        "The library holds 95 + 80 = 175 books.",
    )
    assert run.final == 175
    shown = trace.run(Edit(shown={(0, 2): Fraction(70)}))
    assert shown.lines[0] == "There are 120 / 2 = 70 comics." and shown.lines[1:] == trace.run(Edit()).lines[1:]
    assert trace.run(Edit(operator={(0, 0, 1): "-"})).lines[0] == "There are 120 - 2 = 118 comics."


def test_odd_numbers_are_refused():
    trace = parsed(*SEEDS[0])
    assert trace.run(Edit(operand={(1, 1): Fraction(9)})) is None  # 84 / 9 bags
    assert trace.run(Edit(operand={(0, 0): Fraction(0)}, operator={(0, 0, 1): "-"})) is None  # −36 apples
    money = parsed(*SEEDS[6])
    assert money.run(Edit(operand={(0, 0): Fraction(2)})).lines[0].endswith("$25.00.")  # keeps two decimals


@pytest.mark.parametrize(
    "trace,reason",
    [
        ("Let x be the price.\n2x + 3 = 13\nx = 10/2 = 5", "algebra with an unknown"),
        ("Price + 3 = 13, tax = fee.\nThen 10/2 = 5.", "an equation is not arithmetic"),
        ("She has 3 + 4 = 8.\nThen 8 - 3 = 5.", "a calculation is not right"),
        ("It falls by 3 - 7 = -3.\nThen 8 - 3 = 5.", "a calculation is not right"),
        ("It falls by 3 - 7 = 4.\nThen 8 - 3 = 5.", "a calculation is not right"),
        ("It falls by 7 - 3 = -4.\nThen 8 - 3 = 5.", "a calculation is not right"),
        ("It falls by 3 - 4 = -1.\nThen 9 - -1 = 10.", "a number comes from nowhere"),
        ("She has 3 + 4 = 7.\nThen 7 * 83 = 581.", "a number comes from nowhere"),
        ("She has 3 + 2 = 5.", "fewer than two calculations"),
        ("She has 3 + 4 = 7.\nThen 7 * 3 = 21.", "the last calculation does not give the answer"),
        ("She has 3 + 4 = 2 + 5 = 7.\nThen 7 - 2 = 5.", "an equation is not a calculation and its result"),
    ],
)
def test_what_is_not_understood_is_refused(trace, reason):
    with pytest.raises(TraceError, match=re.escape(reason)):
        parse_trace(trace, "She has 3 and 4 and 2.", "5")
    with pytest.raises(TraceError, match="not one number"):
        parse_trace(trace, "She has 3 and 4.", "five or six")


DEBT = "Kim has 5 dollars and buys a toy of 12 dollars. Then Kim earns 30 dollars."


@pytest.mark.parametrize(
    "text, said",
    [
        ("That is 5 - 12 = -7.\nThen -7 + 30 = 23.", ["-7", "-7", "23"]),
        ("That is $5 - $12 = -$7.\nKim has -$7, and -$7 + $30 = $23.", ["-7", "-7", "-7", "23"]),
        ("That is 5 - 12 = $-7.\nThen 30 + -7 = 23.", ["-7", "-7", "23"]),
        ("That is 5-12=(-7).\nThen 30+(-7) = 23", ["-7", "-7", "23"]),
        ("That is 5 − 12 = −7.\nThen −7 + 30 = 23.", ["-7", "-7", "23"]),
        ("That is 12 - 5 = 7.\nThen 30 - 7 = 23.", ["7", "7", "23"]),
        ("That is 5 - 12 = -7, and 12 - 5 = 7.\nThen 30 - 7 = 23.", ["-7", "7", "7", "23"]),
        ("That is 5 - 12 = -7 = -7.\nThen -7 + 30 = 23.", ["-7", "-7", "-7", "23"]),
    ],
)
def test_results_below_zero_keep_their_sign_where_they_are_used(text, said):
    """A minus between operands stays an operator, whatever results there are."""
    trace = parse_trace(text, DEBT, "23")
    slots = [s for line in trace.lines for s in line.slots if trace.nodes[s.node].kind == "result"]
    assert [s.said for s in slots] == said
    assert "\n".join(trace.run(Edit()).lines) == trace.text
    if said[0] == "-7" and said.count("7") == 0:
        owed = [s.result for s in trace.lines[0].sums][:1]
        run = trace.run(Edit(forced={(0, owed[0]): Fraction(-9)}))
        assert run.final == 21 and run.lines[1] == trace.lines[1].text.replace("7", "9").replace("23", "21")
        assert trace.run(Edit(forced={(0, owed[0]): Fraction(9)})) is None, "no sign of a number changes"


def test_what_is_said_of_a_seed_that_is_not_understood():
    with pytest.raises(TraceError) as error:
        parse_trace("Kim has 5 - 12 = -8 dollars.\nThen -8 + 30 = 22.", DEBT, "22")
    assert (str(error.value), error.value.detail) == ("a calculation is not right", "5 - 12 = -8")


def test_givens_in_digits_and_words():
    assert givens("Three boys eat 1,250 figs, half of 7.5, and 20% more") == {3, 1250, 2, Fraction(15, 2), 20}


# ------------------------------------------------------------------------------------------------------------- flaws


@pytest.mark.parametrize("kind", MAKERS)
def test_consequences_are_what_the_text_says(kind):
    made = 0
    for n, (question, trace) in enumerate(understood()):
        for attempt in range(3):
            flawed = make(kind, trace, question, random.Random(f"{kind} {n} {attempt}"))
            if flawed is None:
                continue
            made += 1
            truth = trace.nodes[trace.final].value
            text = "\n".join(flawed.lines)
            assert text != trace.text and 0 <= flawed.line < len(flawed.lines) and flawed.kind == kind
            assert (flawed.final != truth) == (kind in CHANGES), (kind, text)

            # No equation is false but the one that the flaw falsifies.
            found = [(i, a, b) for i, line in enumerate(flawed.lines) for a, b in equations(line)]
            false = [i for i, a, b in found if abs(a - b) > Fraction(1, 100)]
            if kind in ("slip_carried", "slip_repaired"):
                assert set(false) <= {flawed.line}, text
            else:
                assert not false, text

            # Where the last line of the reference is one plain calculation, so is that of a flawed one: its result is
            # the final answer the flaw is said to lead to.
            last = equations(flawed.lines[-1])
            if last and kind not in ("swapped_steps", "other_question"):
                assert last[-1][1] == flawed.final or kind == "slip_repaired", (flawed, text)

            # The flaw strikes one line; lines before it are the reference's, word for word.
            if kind not in ("dropped_step", "irrelevant_step", "misquoted_given"):
                reference = trace.text.split("\n")
                assert list(flawed.lines[: flawed.line]) == reference[: flawed.line]
                assert len(flawed.lines) <= len(reference)
    assert made >= 3, f"{kind} hardly ever finds a place"


def test_hand_checked_flaws():
    question, trace = SEEDS[1][0], parsed(*SEEDS[1])
    kinds = ("dropped_step", "swapped_steps", "premature_stop", "wrong_operator", "vague_step", "slip_repaired")
    texts = {kind: {make(kind, trace, question, random.Random(i)).lines for i in range(60)} for kind in kinds}
    a, b, c, d = trace.text.split("\n")
    assert texts["dropped_step"] == {(b, c, d), (a, c, d), (a, b, d)}
    assert texts["swapped_steps"] == {(b, a, c, d), (a, b, d, c)}  # b and c do not need each other
    assert texts["premature_stop"] == {(a, b), (a, b, c)}
    assert (a, "After buying, there are 60 - 25 = 35 comics.", c, "The library holds 35 + 80 = 115 books.") in texts[
        "wrong_operator"
    ]
    assert ("There are 60 comics.", b, c, d) in texts["vague_step"]
    assert all(lines[3] == d for lines in texts["slip_repaired"]) and len(texts["slip_repaired"]) > 5


def test_irrelevant_steps_are_true_and_used_by_nothing():
    for n, (question, trace) in enumerate(understood()):
        flawed = make("irrelevant_step", trace, question, random.Random(n))
        if flawed is not None:
            lines = list(flawed.lines)
            added = lines.pop(flawed.line)
            assert "\n".join(lines) == trace.text
            result = Fraction(re.search(r"= ([0-9]+)", added)[1])
            assert result not in {node.value for node in trace.nodes}


def test_quotations_are_sentences_of_the_problem():
    assert statements(SEEDS[0][0]) == [
        "Nora picked 48 apples on Monday and 36 apples on Tuesday.",
        "She packs them into bags of 7 apples.",
        "She sells each bag for $5.",
    ]


# ------------------------------------------------------------------------------------------------------------ labels


def test_every_kind_has_labels_and_no_flaw_is_perfect():
    assert set(TABLE) == set(MAKERS) and len(MAKERS) >= 12
    assert sound_rubric().total == 1.0 and set(sound_rubric().dimensions.values()) == {4}
    for kind in MAKERS:
        for place in ("early", "middle", "late"):
            for carried in (False, True):
                for changed in (False, True):
                    rubric = rubric_of(kind, place, carried, changed)
                    labels = rubric.dimensions
                    assert tuple(labels) == MATH_DIMENSIONS and all(0 <= v <= 4 for v in labels.values())
                    assert min(labels.values()) <= 2 and rubric.total <= 0.85
                    assert rubric.total == pytest.approx(sum(labels.values()) / 20 * (0.8 if changed else 1), abs=5e-4)
    assert table_markdown().count("\n") == len(MAKERS) + 2


def test_the_rules_on_top_of_the_table():
    base = rubric_of("slip_carried", "middle", True, True).dimensions
    early = rubric_of("slip_carried", "early", True, True).dimensions
    assert base == dict(zip(MATH_DIMENSIONS, (4, 4, 3, 1, 1), strict=True))
    assert early == base | {"step_coherence": 2}
    late = rubric_of("slip_repaired", "late", False, False).dimensions
    assert late == dict(zip(MATH_DIMENSIONS, (4, 4, 2, 1, 2), strict=True))
    assert [place_of(i, 3) for i in range(3)] == ["early", "middle", "late"]
    assert [place_of(i, 2) for i in range(2)] == ["early", "late"] and place_of(0, 1) == "middle"


def test_plain_text_survives_parsing():
    for _, trace in understood():
        assert plain(trace.text) == trace.text
