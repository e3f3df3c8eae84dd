"""Sound traces told otherwise: the reference with one place written another way that is as true and as grounded.

A judge that has met nothing but reference traces knows their wording and no more (it takes `5 + 12` for a flaw where the
reference says `12 + 5`). Kinds are those of tracelift/rubrics.py: ALTERNATIVES.

    terms_exchanged    the operands of a + or * change places
    steps_reordered    another order in which every step comes after those that it needs
    sum_regrouped      (a + b) + c as a + (b + c), over two steps of one reason
    product_as_sum     2 * m as m + m

What counts is the world's truth: `sound_alternatives` yields those that check_trace calls valid. Today that is the first
two kinds; it rejects every regrouping and every m + m, true as they are, and such a trace is not to be called sound by the
groups and invalid by the metric `trace_validity`.

Left out: other wording, of which the world has none; two changes in one trace.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import permutations

from tracelift.worlds.math.problems import MathProblem, Step, evaluate
from tracelift.worlds.math.validity import check_trace

Steps = tuple[Step, ...]


def sound_alternatives(problem: MathProblem) -> Iterator[tuple[str, MathProblem]]:
    """(kind, the problem with its derivation told otherwise), one of each kind that fits and whose trace the world calls
    valid. Depends on the problem alone."""
    for kind, told in all_alternatives(problem):
        if check_trace(problem, told.trace).valid:
            yield kind, told


def all_alternatives(problem: MathProblem) -> Iterator[tuple[str, MathProblem]]:
    """The same of each kind that fits, whatever check_trace says. Events (`kinds`) stay the reference's."""
    rng = random.Random(f"alternatives:{problem.problem_id}")
    for kind, maker in MAKERS.items():
        made = [replace(problem, steps=steps) for steps in maker(problem.steps) if evaluate(steps) is not None]
        other = [told for told in made if told.trace != problem.trace]
        if other:
            yield kind, rng.choice(other)


def _changed(steps: Steps, i: int, step: Step) -> Steps:
    return (*steps[:i], step, *steps[i + 1 :])


def _terms_exchanged(steps: Steps) -> Iterator[Steps]:
    for i, s in enumerate(steps):
        if s.op in "+*":
            yield _changed(steps, i, replace(s, left=s.right, right=s.left))


def _steps_reordered(steps: Steps) -> Iterator[Steps]:
    """The last step stays, for its result is the executor's."""
    for order in permutations(range(len(steps) - 1)):
        places = {old: new for new, old in enumerate((*order, len(steps) - 1))}
        moved = lambda operand: operand if operand >= 0 else -1 - places[-1 - operand]  # noqa: B023, E731
        told = tuple(replace(steps[i], left=moved(steps[i].left), right=moved(steps[i].right)) for i in places)
        if all(-1 - operand < i for i, s in enumerate(told) for operand in (s.left, s.right) if operand < 0):
            yield told


def _sum_regrouped(steps: Steps) -> Iterator[Steps]:
    """Of neighbours with one reason, so that both steps keep it, the first needed by the second alone."""
    for i, (first, second) in enumerate(zip(steps, steps[1:], strict=False)):
        users = [o for s in steps for o in (s.left, s.right) if o == -1 - i]
        alike = (first.op, first.label) == ("+", second.label) and second.op == "+"
        if alike and len(users) == 1 and -1 - i in (second.left, second.right):
            third = second.right if second.left == -1 - i else second.left
            if third != first.left:  # (a + b) + a as a + (b + a) is no other grouping
                pair = replace(first, left=first.right, right=third)
                yield (*steps[:i], pair, replace(second, left=first.left, right=-1 - i), *steps[i + 2 :])


def _product_as_sum(steps: Steps) -> Iterator[Steps]:
    for i, s in enumerate(steps):
        for two, other in ((s.left, s.right), (s.right, s.left)):
            if s.op == "*" and two == 2:
                yield _changed(steps, i, Step(s.label, other, "+", other))


MAKERS: dict[str, Callable[[Steps], Iterator[Steps]]] = {
    "terms_exchanged": _terms_exchanged,
    "steps_reordered": _steps_reordered,
    "sum_regrouped": _sum_regrouped,
    "product_as_sum": _product_as_sum,
}
