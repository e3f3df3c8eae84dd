"""What math-verify takes for equal and is not, and what stays equal: whole verdicts through the child."""

import importlib.util

import pytest

from tracelift.executor.judge import TaskJudge
from tracelift.tasks.task import Task
from tracelift.verify.latex import LatexJudge
from tracelift.verify.verdict import Verdict

pytestmark = pytest.mark.skipif(importlib.util.find_spec("math_verify") is None, reason="math-verify is not installed")

DIFFERENT = [
    (r"2^{-60}", r"2^{-61}"),
    (r"10^{-20}", r"10^{-21}"),
    (r"\frac{1}{2004!}", r"\frac{1}{2006!}"),
    (r"x = 2^{-60}", r"x = 2^{-61}"),
    (r"\{2^{-60}, 1\}", r"\{2^{-61}, 1\}"),
    (r"\{1,2\}", "(1,2)"),
    (r"\left\{1, 2\right\}", r"\left(1, 2\right)"),
    ("10_2", "10"),
    ("52_8", "52_9"),
    (r"4\sqrt(2)", "4"),
    ("0.1234567", "0.1234568"),
    ("0.1234567", r"\frac{1234568}{10000000}"),
    ("x+2^{-60}", "x+2^{-61}"),
    ("2^{-60}+i", "2^{-61}+i"),
    ("x<2^{-60}", "x<2^{-61}"),
    (r"\frac{x}{2^{60}}", r"\frac{x}{2^{61}}"),
    (r"\begin{pmatrix}2^{-60}\\1\end{pmatrix}", r"\begin{pmatrix}2^{-61}\\1\end{pmatrix}"),
]
EQUAL = [
    ("(x+1)^2", "x^2+2x+1"),
    ("x+0.5", r"x+\frac{1}{2}"),
    (r"\frac{x}{3}", r"\frac{1}{3}x"),
    ("x<2", "2>x"),
    ("3+2i", "2i+3"),
    ("x=2y+1", "x=1+2y"),
    (r"\sqrt{x^2}\cdot 3", r"3\sqrt{x^2}"),
    (r"2^{-60}", r"\frac{1}{2^{60}}"),
    (r"4\sqrt(2)", r"4\sqrt{2}"),
    (r"\{1,2\}", r"\{2,1\}"),
    (r"\{1,2\}", "1, 2"),
    ("52_8", "52_{8}"),
    (r"\frac{1}{3}", "0.333333"),
    (r"\sqrt{8}", r"2\sqrt{2}"),
    (r"50\%", "50"),
    (r"50\%", "0.5"),
    ("1.0", "1"),
    ("x = 2", "2"),
    ("0.5", r"\frac{1}{2}"),
]


@pytest.fixture(scope="module")
def judge():
    with LatexJudge(seconds=30) as judge:
        yield judge


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_different_values_fail_both_ways(judge, a, b):
    assert judge(a, f"\\boxed{{{b}}}")[0] is judge(b, f"\\boxed{{{a}}}")[0] is Verdict.FAIL


@pytest.mark.parametrize(("a", "b"), EQUAL)
def test_equal_values_pass(judge, a, b):
    assert judge(a, f"\\boxed{{{b}}}")[0] is Verdict.PASS


def test_what_stands_beside_an_answer_is_read(judge):
    assert (
        judge("5", r"-\boxed{5}")[0] is judge("5", "It is not $5$")[0] is judge("5", r"\boxed{5}\pi")[0] is Verdict.FAIL
    )
    assert judge("-5", r"$-\boxed{5}$")[0] is judge("5", r"So it is $\boxed{5}$.")[0] is Verdict.PASS


def test_reasoning_is_no_answer(judge):
    assert judge("5", r"<think>\boxed{5}")[0] is Verdict.FAIL
    assert judge("5", "<think>$7$</think> $5$")[0] is Verdict.PASS


def test_a_task_of_latex_answers_goes_to_that_judge():
    judge = TaskJudge()
    task = Task("p", "Half of pi?", r"\frac{\pi}{2}", verifier="latex")
    right, wrong = judge([(task, r"\pi/2"), (task, "2")])
    judge.close()
    assert (right.verdict, wrong.verdict) == (Verdict.PASS, Verdict.FAIL)
