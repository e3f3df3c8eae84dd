"""Does a trace leak the final answer? The planner is asked for reasoning, not for the result.

The math half of the paper checks nothing of the kind, so a planner can earn uplift by writing "72" into its trace.
Three findings, from mild to plain: the value stands in the trace at all; it is announced ("the answer is 72"); it
stands there although no step of the trace yields it. A sound trace whose last step is computed states its value and
supports it; only `unsupported` is a leak in the strict sense.

Left out on purpose: leaks of final *code* (tracelift/programs/leaks.py), and answers in words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from tracelift.verify.arithmetic import find_equations
from tracelift.verify.numbers import find_numbers, plain

_ANNOUNCED = re.compile(
    r"(?:\banswer\s*(?:is|:|=)|####|\\f?boxed\s*\{|<answer>)[\s:*$({]*(?P<tail>[^\n]{0,80})", re.IGNORECASE
)
# What a solver may use without reading it in the problem: small counts, and the sizes of common units.
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
    wanted = [(n.value, n.unit_value) for n in find_numbers(plain(answer)) if n.value is not None]
    if not wanted:
        return Leak(False, False, False)
    value, unit_value = wanted[-1]
    text = plain(trace)
    mentioned = any(value in (n.value, n.unit_value) or n.value == unit_value for n in find_numbers(text))
    announced = _announces(text, value)
    given = {n.value for n in find_numbers(plain(problem))} if problem is not None else None
    supported = any(_yields(text, v, given) for v in {value, unit_value} if v is not None)
    stated = announced or supported or (mentioned and not (given is not None and value in given))
    return Leak(stated, announced, stated and not supported)


def announces_answer(trace: str, answer: str) -> bool:
    """Whether `trace` calls `answer` (a number) the answer: the quick third of `leaks_answer`."""
    wanted = [n.value for n in find_numbers(plain(answer)) if n.value is not None]
    return bool(wanted) and _announces(plain(trace), wanted[-1])


def _announces(text: str, value: Fraction) -> bool:
    return any(n.value == value for m in _ANNOUNCED.finditer(text) for n in find_numbers(m["tail"])[:1])


def _yields(text: str, value: Fraction, given: set[Fraction | None] | None) -> bool:
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
