"""The many sound ways to tell one plan: as true and as grounded as the reference, in other words.

Kinds are those of tracelift/rubrics.py: ALTERNATIVES.

    terms_exchanged    the operands of a + or * change places
    product_as_sum     2 * m as m + m
    reworded           a step, or the last sentence, in its other wording
    steps_merged       a calculation inside the one step that uses it, its result left to the executor

Left out: other orders. Each quantity is told through the one before it, and the order of steps is part of what a problem
tells, also where two of them happen to commute.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace

from tracelift.worlds.code.language import OPS, PRINTS
from tracelift.worlds.code.plans import Calculation, Plan, expressions

SHARE = 0.4  # of the places where a calculation or a sentence can be told otherwise


def _other(plan: Plan, i: int, calculation: Calculation) -> Plan:
    return replace(plan, calculations=(*plan.calculations[:i], calculation, *plan.calculations[i + 1 :]))


def _terms_exchanged(plan: Plan) -> Iterator[Plan]:
    for i, c in enumerate(plan.calculations):
        if c.op in "+*" and c.left != c.right:
            yield _other(plan, i, replace(c, left=c.right, right=c.left))


def _product_as_sum(plan: Plan) -> Iterator[Plan]:
    for i, c in enumerate(plan.calculations):
        yield from (_other(plan, i, c.told(t)) for t in expressions(*c.terms) if t[1] != c.op)


def _reworded(plan: Plan) -> Iterator[Plan]:
    for i, s in enumerate(plan.steps):
        count = len(OPS[s.op].planned)
        if count > 1:
            told = replace(s, wording=(s.wording + 1) % count)
            yield replace(plan, steps=(*plan.steps[:i], told, *plan.steps[i + 1 :]))
    yield replace(plan, end_wording=(plan.end_wording + 1) % len(PRINTS[plan.end][0]))


def _steps_merged(plan: Plan) -> Iterator[Plan]:
    for c in plan.calculations:
        if c.name not in plan.merged and plan.may_merge(c.name):
            yield replace(plan, merged=(*plan.merged, c.name))


MAKERS: dict[str, Callable[[Plan], Iterator[Plan]]] = {
    "terms_exchanged": _terms_exchanged,
    "product_as_sum": _product_as_sum,
    "reworded": _reworded,
    "steps_merged": _steps_merged,
}


def retold(plan: Plan, rng: random.Random, merged: float = 0.0, reworded: float = SHARE) -> Plan:
    """A random sound telling of a sound plan. merged: probability that a calculation stands inside its step where it can;
    reworded: that a sentence takes its other wording."""
    other = lambda texts: rng.randrange(1, len(texts)) if len(texts) > 1 and rng.random() < reworded else 0  # noqa: E731
    calculations = tuple(
        c.told(rng.choice(expressions(*c.terms))) if rng.random() < SHARE else c for c in plan.calculations
    )
    steps = tuple(replace(s, wording=other(OPS[s.op].planned)) for s in plan.steps)
    told = replace(plan, calculations=calculations, steps=steps, end_wording=other(PRINTS[plan.end][0]), merged=())
    return replace(told, merged=tuple(c.name for c in calculations if told.may_merge(c.name) and rng.random() < merged))
