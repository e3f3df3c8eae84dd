"""Work grows with the length of a text, not with its square: every regex of the room and every way into it.

The texts repeat one unit between a start and an end that make a pattern try again. The measure is processor time as a
ratio: eight times the text must cost less than 24 times as much (a square costs 64 times). Where the time is too short
to measure there is nothing to compare; a text that hangs is stopped by an alarm.
"""

import importlib
import itertools
import pkgutil
import re
import signal
import time

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
SIZE = 12000
SLOW = 0.1  # seconds under which a time says nothing about growth


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


def seconds(work, text):
    """Processor time, the least of three where it is worth measuring."""
    times = []
    while len(times) < 3:
        began = time.process_time()
        work(text)
        times.append(time.process_time() - began)
        if times[-1] < SLOW:
            break
    return min(times)


def grows_past_the_length(work, start, unit, end):
    def text(size):
        return start + unit * (size // len(unit)) + end

    whole = seconds(work, text(SIZE))
    return whole > SLOW and whole > 24 * seconds(work, text(SIZE // 8))


@pytest.fixture(autouse=True)
def alarm():
    def hangs(*_):
        raise AssertionError("one pattern takes minutes of processor time")

    handler = signal.signal(signal.SIGVTALRM, hangs)
    signal.setitimer(signal.ITIMER_VIRTUAL, 120)
    yield
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    signal.signal(signal.SIGVTALRM, handler)


@pytest.mark.parametrize("pattern", regexes())
def test_every_regex_is_linear(pattern):
    def work(text):
        pattern.fullmatch(text)
        for _ in pattern.finditer(text):
            pass

    slow = [t for t in itertools.product(STARTS, SIGNS, ["x"]) if grows_past_the_length(work, *t)]
    assert not slow, slow[:5]


# Paired with starts and ends that matter, so that the whole way in is walked in seconds.
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


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("start", ["5\nq", "the answer is ", "\\boxed{C)"])
def test_every_way_in_is_linear(way, start):
    slow = [u for u in UNITS if grows_past_the_length(WAYS[way], start, u, "x")]
    assert not slow, slow


@pytest.mark.parametrize("pattern", [r"q[ \t]*[0-9]*[ \t]*x", r"5\s*_\s*\{?\s*(\d+)"])
def test_the_measure_sees_a_square(pattern):
    start = "q" if pattern[0] == "q" else "5_"
    assert grows_past_the_length(re.compile(pattern).search, start, " ", "y")
