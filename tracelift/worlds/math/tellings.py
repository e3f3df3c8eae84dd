"""The many sound ways to tell one derivation: as true and as grounded as the story's own, in other words or another order.

Kinds are those of tracelift/rubrics.py: ALTERNATIVES.

    terms_exchanged    the operands of a + or * change places
    steps_reordered    another order in which every step comes after those that it needs
    sum_regrouped      (a + b) + c as a + (b + c), over two steps of one reason
    product_as_sum     2 * m as m + m
    reworded           a step under the other word for its reason
    steps_merged       a step told inline, its result left to the reader

Left out: paraphrase beyond the second word of each reason; events in another order than the story's.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import permutations

from tracelift.worlds.math.derivation import REWORDED, Steps, evaluate, may_be_inline


def _changed(steps: Steps, i: int, **change: object) -> Steps:
    return (*steps[:i], replace(steps[i], **change), *steps[i + 1 :])


def _in_order(steps: Steps, order: tuple[int, ...]) -> Steps | None:
    """The steps in another order; None where one would come before a step that it needs."""
    places = {old: new for new, old in enumerate(order)}
    if any(places[j] > places[i] for i in order for j in steps[i].uses):
        return None
    moved = lambda operand: operand if operand >= 0 else -1 - places[-1 - operand]  # noqa: E731
    return tuple(replace(steps[i], left=moved(steps[i].left), right=moved(steps[i].right)) for i in order)


def _terms_exchanged(steps: Steps) -> Iterator[Steps]:
    for i, s in enumerate(steps):
        if s.op in "+*" and s.left != s.right:
            yield _changed(steps, i, left=s.right, right=s.left, exchanged=not s.exchanged)


def _steps_reordered(steps: Steps) -> Iterator[Steps]:
    """The last step stays, for its result is the executor's."""
    last = len(steps) - 1
    for order in permutations(range(last)):
        told = _in_order(steps, (*order, last))
        if told is not None and order != tuple(range(last)):
            yield told


def _sum_regrouped(steps: Steps) -> Iterator[Steps]:
    """Of two steps with one reason, so that both keep it, the first needed by the second alone and moved up to it."""
    for k, second in enumerate(steps):
        total, added = (second.right, second.left) if second.exchanged else (second.left, second.right)
        i = -1 - total
        if total >= 0 or second.op != "+" or sum(i in s.uses for s in steps) != 1 or total == added:
            continue
        first = steps[i]
        if (first.op, REWORDED.get(first.label, first.label)) != ("+", REWORDED.get(second.label, second.label)):
            continue
        start, gained = (first.right, first.left) if first.exchanged else (first.left, first.right)
        order = (*range(i), *range(i + 1, k), i, *range(k, len(steps)))
        pair = _changed(steps, i, left=gained, right=added, exchanged=False)
        told = _in_order(_changed(pair, k, left=start, right=total, exchanged=False), order)
        if told is not None:
            yield told


def _product_as_sum(steps: Steps) -> Iterator[Steps]:
    for i, s in enumerate(steps):
        for two, other in ((s.left, s.right), (s.right, s.left)):
            if s.op == "*" and two == 2:
                yield _changed(steps, i, left=other, op="+", right=other)


def _reworded(steps: Steps) -> Iterator[Steps]:
    for i, s in enumerate(steps):
        if s.label in REWORDED:
            yield _changed(steps, i, label=REWORDED[s.label])


def _steps_merged(steps: Steps) -> Iterator[Steps]:
    for i in range(len(steps) - 1):
        if not steps[i].inline and may_be_inline(steps, i):
            yield _changed(steps, i, inline=True)


MAKERS: dict[str, Callable[[Steps], Iterator[Steps]]] = {
    "terms_exchanged": _terms_exchanged,
    "steps_reordered": _steps_reordered,
    "sum_regrouped": _sum_regrouped,
    "product_as_sum": _product_as_sum,
    "reworded": _reworded,
    "steps_merged": _steps_merged,
}


def ways(kind: str, steps: Steps) -> list[Steps]:
    """Every way to tell one place of `steps` otherwise by this kind, within the world's numbers."""
    return [told for told in MAKERS[kind](steps) if evaluate(told) is not None]


@lru_cache(maxsize=4096)
def derivations(story: Steps) -> tuple[Steps, ...]:
    """The story's own derivation first, and every regrouping and m + m of it. What is left to differ (order, exchanged terms,
    words, inline steps) a reader matches sentence by sentence."""
    found = [story]
    for steps in found:  # grows while it is read
        found += [t for kind in ("sum_regrouped", "product_as_sum") for t in ways(kind, steps) if t not in found]
    return tuple(found)


def retold(story: Steps, rng: random.Random, merged: float = 0.0, reworded: float = 0.3) -> Steps:
    """A random sound telling of the story's own derivation. merged: probability that a step is told inline where it can be;
    reworded: that a step takes the other word for its reason."""
    steps = story
    for kind in ("sum_regrouped", "product_as_sum"):
        while (other := ways(kind, steps)) and rng.random() < 0.3:
            steps = rng.choice(other)
    if rng.random() < 0.4 and (orders := ways("steps_reordered", steps)):
        steps = rng.choice(orders)
    for i, s in enumerate(steps):
        if s.op in "+*" and s.left != s.right and rng.random() < 0.3:
            steps = _changed(steps, i, left=s.right, right=s.left, exchanged=not s.exchanged)
        if rng.random() < reworded:
            steps = _changed(steps, i, label=REWORDED[s.label])
    for i in range(len(steps) - 1):
        if rng.random() < merged and may_be_inline(steps, i):
            steps = _changed(steps, i, inline=True)
    return steps
