"""Work grows with the length of a text, not with its square: every regex of the room and every way into it.

The texts repeat one unit between a start and an end that make a pattern try again. At 100,000 characters what is linear
takes milliseconds, and a square minutes: an alarm on the process' own processor time, which does not pass while others
run, tells one from the other. Texts that once cost a square or more are asked in every run; all combinations are marked
slow (make test-slow).
"""

import importlib
import itertools
import pkgutil
import re
import signal

import pytest

import tracelift.verify
from tracelift.programs import leaks as program_leaks
from tracelift.verify.arithmetic import find_equations
from tracelift.verify.boxed import delimited
from tracelift.verify.leaks import leaks_answer
from tracelift.verify.math import as_text, gsm8k_flexible, gsm8k_strict, reference_kind, verify_math

STARTS = [
    "", "5\nq", "5\nproblem", "5\n## user", "answer", "the answer is", "answer:", "answer **", "5_", "5_{", "C)", "option C", "$5",
    "\\boxed", "\\boxed{", "\\frac", "\\frac{5}", "\\text", "\\sqrt", "5^", "^{", "####", "5\n####", "<think>", "5\n\n", "<|", "**",
    "**5", "1", "5e", "5 and", "return ", "O(", "x = ", "it is not", "\\begin{a}", "5\n---", "(5", "5 clips",
]  # fmt: skip
UNITS = [
    " ", "\t", "\n", " \n", "1", "a", ",111", " 111", ".111", "'111", "_111", ",11", "(", ")", "{", "}", "[", "*", "**", "_", "<", "<<",
    "$", "-", "+", "=", ":", ".", ". ", ", ", "\\", "`", "#", "|", "/1", "^2", "1 ", "a ", "a, ", "one ", "and ", "\\boxed{", "\\text{",
    "answer is ", "answer: ", "answer is .\n", "not ", "q\n", "\nq", "<think>", "<answer>", "\n\nhow ", "5=", "5+", "hundred ",
]  # fmt: skip
SIGNS = list(" \t\n1a({*_.")
SIZE = 100_000
MOST_S = 20  # of processor time for one text


def modules():
    names = [m.name for m in pkgutil.iter_modules(tracelift.verify.__path__)]
    return [importlib.import_module(f"tracelift.verify.{name}") for name in names] + [program_leaks]


def regexes():
    for module in modules():
        for name, found in vars(module).items():
            for i, item in enumerate(found if isinstance(found, (list, tuple)) else [found]):
                pattern = item[0] if isinstance(item, tuple) and item else item
                if isinstance(pattern, re.Pattern):
                    yield pytest.param(pattern, id=f"{module.__name__.rpartition('.')[2]}.{name}.{i}")


def text_of(start, unit, end):
    return start + unit * (SIZE // len(unit)) + end


def within_limit(work, text, most_s=MOST_S):
    def hangs(*_):
        raise TimeoutError

    handler = signal.signal(signal.SIGVTALRM, hangs)
    signal.setitimer(signal.ITIMER_VIRTUAL, most_s)
    try:
        work(text)
        return True
    except TimeoutError:
        return False
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, handler)


@pytest.mark.slow
@pytest.mark.parametrize("pattern", list(regexes()))
def test_every_regex_is_linear(pattern):
    def work(text):
        pattern.fullmatch(text)
        for _ in pattern.finditer(text):
            pass

    for shape in itertools.product(STARTS, SIGNS, ["x"]):
        assert within_limit(work, text_of(*shape)), shape


WAYS = {
    "prediction": lambda text: verify_math(text, "7"),
    "words": lambda text: verify_math(text, "no solution"),
    "choice": lambda text: verify_math(text, "C"),
    "reference": lambda text: verify_math("7", text),
    "kind": reference_kind,
    "text": as_text,
    "leaks": lambda text: leaks_answer(text, "72", "48 clips"),
    "problem": lambda text: leaks_answer("48+24 = 72", "72", text),
    "equations": find_equations,
    "latex": lambda text: delimited(text, "7"),
    "strict": gsm8k_strict,
    "flexible": gsm8k_flexible,
    "program": lambda text: program_leaks.leaks_program(text, text[:50]),
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("start", ["", "5\nq", "the answer is ", "\\boxed{", "C)", "5 "])
def test_every_way_in_is_linear(way, start):
    for unit, end in itertools.product(UNITS, ("x", "")):
        assert within_limit(WAYS[way], text_of(start, unit, end)), (unit, end)


FOUND = [
    ("5\nq", " "), ("5\nproblem", " "), ("5\ninput", " "), ("answer", " "), ("5_", " "), ("the answer is ", "a, "),
    ("\\boxed{", "{"), ("", "\\boxed{"), ("", "1."), ("5 ", "hundred "), ("C)", " "), ("", "answer is "),
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_texts_that_once_cost_a_square_cost_their_length(way):
    for start, unit in FOUND:
        assert within_limit(WAYS[way], text_of(start, unit, "x")), (start, unit)


@pytest.mark.parametrize("pattern", [r"q[ \t]*[0-9]*[ \t]*x", r"5\s*_\s*\{?\s*(\d+)"])
def test_the_alarm_tells_a_square(pattern):
    start = "q" if pattern[0] == "q" else "5_"
    assert not within_limit(re.compile(pattern).search, text_of(start, " ", "y"), most_s=1)
