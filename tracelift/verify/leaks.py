"""Does a trace leak the final answer? The planner is asked for reasoning, not for the result.

The math half of the paper checks nothing of the kind, so a planner can earn uplift by writing "72" into its trace.
Three findings, from mild to plain: the value stands in the trace at all; it is announced ("the answer is 72"); it
stands there although no step of the trace yields it. A sound trace whose last step is computed states its value and
supports it; only `unsupported` is a leak in the strict sense.

Left out on purpose: leaks of final *code* (tracelift/programs/leaks.py), and answers in words.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from fractions import Fraction

from tracelift.verify.arithmetic import find_equations, plain
from tracelift.verify.expressions import NotArithmetic, Reader
from tracelift.verify.lexing import Token, normalise, tokens
from tracelift.verify.math import read_reference
from tracelift.verify.vocabulary import NEGATIVE, SCALES, counts, fraction_of

_ANNOUNCED = re.compile(
    r"(?:\banswer\s*(?:is|:|=)|####|\\(?:boxed|fbox)\s*\{|<answer>)[\s:*$({]*(?P<tail>[^\n]{0,80})", re.IGNORECASE
)
# What a solver may use without reading it in the problem: small counts, and the sizes of common units.
_SMALLEST_WORD = 13  # "one" and "two" are said of anything
_LONGEST_WORDS = 12  # words of one number
_COMMON = frozenset(map(Fraction, (*range(1, 13), 24, 30, 52, 60, 100, 365, 1000, Fraction(1, 2))))


@dataclass(frozen=True)
class Leak:
    """What a trace gives away. `stated`: the answer's value stands in it. `announced`: it is called the answer.
    `unsupported`: it is stated (and not merely a number of the problem), but no step of the trace computes it."""

    stated: bool
    announced: bool
    unsupported: bool


def leaks_answer(trace: str, answer: str, problem: str | None = None) -> Leak:
    """Whether `trace` gives away `answer` (a number; nothing is found for an answer that is none).

    A step yields the answer when an equation of the trace holds, has it on its right, and combines at least two
    numbers of which none is the answer itself. With `problem` given those numbers must also come from the problem,
    from earlier steps, or be common constants; and an answer that the problem itself mentions counts as stated only
    where it is announced or computed.
    """
    wanted = read_reference(answer)
    if wanted is None:
        return Leak(False, False, False)
    value, unit_value = wanted.value, wanted.unit_value
    text = plain(trace)
    mentioned = not mentions(trace).isdisjoint({value, unit_value})
    announced = _announces(trace, value)
    given = mentions(problem) if problem is not None else None
    supported = any(_yields(text, v, given) for v in {value, unit_value})
    stated = announced or supported or (mentioned and not (given is not None and value in given))
    return Leak(stated, announced, stated and not supported)


def announces_answer(trace: str, answer: str) -> bool:
    """Whether `trace` calls `answer` (a number) the answer: the quick third of `leaks_answer`."""
    wanted = read_reference(answer)
    return wanted is not None and _announces(trace, wanted.value)


def _announces(trace: str, value: Fraction) -> bool:
    for mark in _ANNOUNCED.finditer(trace):
        row = tokens(normalise(mark["tail"]))
        first = next((v for i in range(len(row)) if (v := _number_at(row, i, smallest_word=0)) is not None), None)
        if first is not None and value in first[0]:
            return True
    return False


@functools.lru_cache(maxsize=1024)  # a problem is asked about once for each of its traces
def mentions(text: str) -> frozenset[Fraction]:
    """The values of the numbers that stand in `text`, however dressed (`_72_`, `72x`, `\\fbox{72}`, "seventy-two"), with
    and without percent sign and scale. Number words count from thirteen on."""
    found: set[Fraction] = set()
    for line in text.split("\n"):
        row = tokens(normalise(line))
        i = 0
        while i < len(row):
            read = _number_at(row, i)
            found |= read[0] if read else set()
            i = read[1] if read else i + 1
    return frozenset(found)


def _number_at(row: list[Token], i: int, smallest_word: int = _SMALLEST_WORD) -> tuple[set[Fraction], int] | None:
    """(the values of the number that begins at i, the index after it)."""
    token = row[i]
    if token.kind == "word":
        if not counts(token.text.casefold().split("-")[0]):
            return None
        end = i + 1
        while end < len(row) and end - i < _LONGEST_WORDS and row[end].kind == "word":
            end += 1
        for stop in range(end, i, -1):
            if (spelt := fraction_of([t.text for t in row[i:stop]])) is not None:
                value = Fraction(-spelt if _negative(row, i) else spelt)
                return ({value}, stop) if spelt >= smallest_word or value < 0 else None
        return None
    if token.kind != "number" and token.text != "\\frac":
        return None
    reader = Reader(row[i : i + 24], remarks=True)
    try:
        value = reader.power(reader.atom(0), 0)
        if value.literal and reader.next_is("/", "*"):
            longer = Reader(row[i : i + 24], remarks=True)
            whole = longer.product(0)
            value, reader = (whole, longer) if whole.literal else (value, reader)
    except NotArithmetic:
        return {token.value}, i + 1
    if not value.literal or value.exact is None or len(reader.tokens) != len(row[i : i + 24]):
        return {token.value}, i + 1
    exact, end = value.exact, i + reader.at
    if _negative(row, i):
        exact = -exact
    follows = row[end].text.casefold() if end < len(row) else ""
    scale = SCALES.get(follows, 1)
    percent = value.percent or follows in ("percent", "per")
    return {exact, exact * scale, *([exact / 100] if percent else [])}, end


def _negative(row: list[Token], i: int) -> bool:
    """Whether a minus stands at the number that is no operator and no dash."""
    left = row[i - 2] if i > 1 else None
    if i and row[i - 1].text.casefold() in NEGATIVE:  # "10 minus 5" is a difference
        return left is None or not (
            left.kind == "number" or left.text in (")", "%", "}") or counts(left.text.casefold())
        )
    if not i or row[i - 1].text != "-" or row[i].spaced:
        return False
    return (
        left is None
        or (row[i - 1].spaced and left.kind != "number" and left.text not in (")", "%", "}"))
        or left.text in ("=", "(", ":")
    )


def _yields(text: str, value: Fraction, given: frozenset[Fraction] | None) -> bool:
    known = set(given) if given is not None else None
    for equation in find_equations(text):
        left, right = equation.left, equation.right
        grounded = known is None or all(operand in known or operand in _COMMON for operand in left.operands)
        announced = equation.holds and right.value == value and len(left.operands) > 1 and grounded
        if announced and value not in left.operands:
            return True
        if known is not None and equation.holds and grounded:
            known.add(right.value)
    return False
