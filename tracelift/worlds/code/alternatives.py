"""Sound plans told otherwise: the reference with one calculation written another way that is as true and as grounded.

Kinds are those of tracelift/rubrics.py: ALTERNATIVES.

    terms_exchanged    the operands of a + or * change places
    product_as_sum     2 * m as m + m

What counts is the world's truth: `sound_alternatives` yields those that check_plan calls valid. Today that is the first
kind; it rejects every m + m, true as they are.

Left out: other orders. Each quantity is told through the one before it, and the order of steps is part of what a problem
tells, also where two of them happen to commute. Other wording, of which the world has none.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace

from tracelift.worlds.code.plans import Calculation, Plan, reference_plan
from tracelift.worlds.code.problems import PlanProblem
from tracelift.worlds.code.validity import check_plan


def sound_alternatives(problem: PlanProblem) -> Iterator[tuple[str, Plan]]:
    """(kind, plan), one of each kind that fits and that the world calls valid. Depends on the problem alone."""
    for kind, plan in all_alternatives(problem):
        if check_plan(problem, str(plan)).valid:
            yield kind, plan


def all_alternatives(problem: PlanProblem) -> Iterator[tuple[str, Plan]]:
    """(kind, plan), one of each kind that fits, whatever check_plan says. Depends on the problem alone."""
    rng, plan = random.Random(f"alternatives:{problem.problem_id}"), reference_plan(problem)
    for kind, other_way in MAKERS.items():
        told = [
            replace(plan, calculations=(*plan.calculations[:i], changed, *plan.calculations[i + 1 :]))
            for i, c in enumerate(plan.calculations)
            if (changed := other_way(c)) not in (None, c)
        ]
        if told:
            yield kind, rng.choice(told)


def _terms_exchanged(c: Calculation) -> Calculation | None:
    return replace(c, left=c.right, right=c.left) if c.op in "+*" else None


def _product_as_sum(c: Calculation) -> Calculation | None:
    for two, other in ((c.left, c.right), (c.right, c.left)):
        if c.op == "*" and two == 2:
            return replace(c, left=other, op="+", right=other)
    return None


MAKERS: dict[str, Callable[[Calculation], Calculation | None]] = {
    "terms_exchanged": _terms_exchanged,
    "product_as_sum": _product_as_sum,
}
