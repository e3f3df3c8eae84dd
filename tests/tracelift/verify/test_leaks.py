"""Exact arithmetic in prose, and whether a trace gives its answer away."""

import ast
import operator
import random
from fractions import Fraction

import pytest

from tracelift.verify.arithmetic import ExpressionError, evaluate, find_equations
from tracelift.verify.leaks import announces_answer, leaks_answer


@pytest.mark.parametrize(
    "expression,value",
    [
        ("100-50-30-15", 5),
        ("(3+4)*$5/2", Fraction(35, 2)),
        ("0.1+0.2", Fraction(3, 10)),
        ("20%*50", 10),
        ("20% of 50", 10),
        ("12 x 2", 24),
        ("5 apples x $3", 15),
        ("2(3+4)", 14),
        ("-3--4", 1),
        ("48÷2", 24),
        ("1,000/4", 250),
        ("\\frac{1}{2}*8", 4),
        ("8/4/2", 1),
    ],
)
def test_evaluate(expression, value):
    assert evaluate(expression) == value


@pytest.mark.parametrize("expression", ["", "1+", "1/0", "(1", "1)", "x+1", "((((", "(" * 5000, "9" * 5000, "1 2"])
def test_what_is_no_expression_is_refused(expression):
    with pytest.raises(ExpressionError):
        evaluate(expression)
    with pytest.raises(ExpressionError):
        evaluate("999999999*" * 500 + "1")  # bounded growth


def exact(node):
    """The oracle: Python's own parser, evaluated over fractions."""
    ops = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
    if isinstance(node, ast.BinOp):
        return ops[type(node.op)](exact(node.left), exact(node.right))
    if isinstance(node, ast.UnaryOp):
        return -exact(node.operand)
    return Fraction(str(node.value))


def test_evaluate_agrees_with_pythons_grammar():
    rng = random.Random(0)

    def grow(depth):
        if depth == 0 or rng.random() < 0.2:
            return rng.choice(["3", "7", "12", "0.5", "2.25", "100"])
        a, b = grow(depth - 1), grow(depth - 1)
        text = f"{a}{rng.choice([' + ', '-', '*', ' / '])}{b}"
        return f"({text})" if rng.random() < 0.5 else text

    for _ in range(2000):
        text = grow(4)
        try:
            expected = exact(ast.parse(text, mode="eval").body)
        except ZeroDivisionError:
            continue
        assert evaluate(text) == expected, text


def sides(text):
    return [(text[e.left.start : e.left.end], e.right.value, e.holds) for e in find_equations(text)]


def test_equations_are_found_in_prose():
    assert sides("Natalia sold 48/2 = 24 clips in May.") == [("48/2", 24, True)]
    assert sides("5 apples + 3 apples = 8 apples.") == [("5 apples + 3", 8, True)]
    assert sides("5 apples x $3 = $15 total") == [("5 apples x $3", 15, True)]
    assert sides("So 48 + 24 = 72 = 60 + 12.") == [("48 + 24", 72, True), ("72", 72, True)]
    assert sides("He has 5 pears and 3 + 4 = 8 plums") == [("3 + 4", 8, False)]
    assert sides("1. 3*4=12 2. 12-2 = 10") == [("3*4", 12, True), ("12-2", 10, True)]
    assert sides("x = 5, so y = 7") == []
    assert sides("first\n2+2 = 4") == [("2+2", 4, True)]


PROBLEM = "Natalia sold 48 clips in April and half as many in May. How many altogether?"


@pytest.mark.parametrize(
    "trace,stated,announced,unsupported",
    [
        ("Halve 48 to get May, then add both months.", False, False, False),
        ("48/2 = 24 in May.", False, False, False),
        ("48/2 = 24. 48+24 = 72.", True, False, False),
        ("48/2 = 24. 48+24 = 72. The answer is 72.", True, True, False),
        ("The answer is 72.", True, True, True),
        ("Add both months. \\boxed{72}", True, True, True),
        ("It comes to $72.00 in all.", True, False, True),
        ("72*1 = 72", True, False, True),  # computed from itself
        ("48+25 = 72", True, False, True),  # a false step yields nothing
        ("144/2 = 72", True, False, True),  # from a number that came from nowhere
        ("172 and 7.2 and 720", False, False, False),
    ],
)
def test_leaks(trace, stated, announced, unsupported):
    leak = leaks_answer(trace, "72", PROBLEM)
    assert (leak.stated, leak.announced, leak.unsupported) == (stated, announced, unsupported)


def test_without_the_problem_any_operands_support():
    assert not leaks_answer("144/2 = 72", "72").unsupported
    assert leaks_answer("The answer is 72.", "#### 72").unsupported


def test_an_answer_that_the_problem_mentions_leaks_only_when_called_the_answer():
    problem = "Ann has 5 apples and buys 3, then eats 3. How many?"
    assert not leaks_answer("She starts with 5 apples, then adds and takes 3.", "5", problem).stated
    assert leaks_answer("She has 5 apples. The answer is 5.", "5", problem).announced
    assert not leaks_answer("5+3 = 8, 8-3 = 5.", "5", problem).unsupported


@pytest.mark.parametrize(
    ("said", "stated"),
    [
        ("_72_", True), ("72x", True), ("total_72", True), ("x72", True), ("\\fbox{72}", True), ("\\underline{72}", True),
        ("seventy-two", True), ("７２", True), ("$72.00", True), ("72:00", True), ("720", False), ("7.2", False),
        ("seventy-three", False), ("1,722", False), ("70 + 2", False), ("seventy and two", False),
    ],
)  # fmt: skip
def test_a_value_leaks_in_any_dress(said, stated):
    assert leaks_answer(f"Then it is {said} in May.", "72", PROBLEM).stated is stated


def test_announced_in_any_dress():
    for said in ("\\fbox{72}", "The answer is seventy-two.", "Answer: _72_", "#### 72", "the answer is $72"):
        assert leaks_answer(said, "72", PROBLEM).announced and announces_answer(said, "72")
    assert not announces_answer("The answer is 12 more than 60.", "72")


def test_a_last_step_left_undone_states_nothing():
    leak = leaks_answer("48/2 = 24. Then 48 + 24.", "72", PROBLEM)
    assert not (leak.stated or leak.announced or leak.unsupported)


def test_an_answer_in_words_leaks_nothing():
    assert not leaks_answer("The answer is yes, 3 of them.", "yes").stated


@pytest.mark.parametrize(
    ("trace", "answer", "stated"),
    [
        ("Then it is minus 5 now.", "-5", True),
        ("Then it is negative five now.", "-5", True),
        ("Then it is minus 5 now.", "5", False),
        ("Take 10 minus 5 now.", "-5", False),
        ("Take 10 minus 5 now.", "5", True),
        ("so " * 3000 + "72", "72", True),
        ("It is one hundred and five now.", "105", True),
        ("It is five now.", "5", False),
    ],
)
def test_signs_words_and_long_lines(trace, answer, stated):
    assert leaks_answer(trace, answer).stated is stated


def test_a_small_number_word_is_announced_where_it_is_called_the_answer():
    assert announces_answer("The answer is five.", "5") and announces_answer("The answer is minus five.", "-5")
    assert not announces_answer("The answer is five.", "6")
