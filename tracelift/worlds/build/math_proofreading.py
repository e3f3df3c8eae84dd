"""Traces in which every word and digit is tagged: + where it is what the story and the trace so far call for, else −.

What the math world's Reason RM is fine-tuned from (tracelift/worlds/build/proofreading.py says why).

Sentences go wrong independently: a number, an operator or a reason replaced, a sentence left out, said twice or beside
the point, the end too early or with the answer. Later sentences are held against what earlier ones state, so a slip that
is carried through is tagged once.

Left out: steps in another order than the reference's, which no flaw of this world makes.
"""

from __future__ import annotations

import random

from tracelift.training.sft import Piece
from tracelift.worlds.build.proofreading import WRONG, closed, held, number
from tracelift.worlds.math.flaws import LABELS, slipped
from tracelift.worlds.math.problems import LARGEST, MathProblem, compute, resolve


def tagged_trace(p: MathProblem, rng: random.Random) -> list[Piece]:
    """Tagged pieces of a trace with random flaws and its closing tag; their texts join to the RM's reading of it."""
    pieces = None
    while pieces is None:  # flaws that leave the world's numbers are drawn again
        pieces = _attempt(p, rng, rate=rng.uniform(0, 0.8))
    return closed(pieces)


def _attempt(p: MathProblem, rng: random.Random, rate: float) -> list[Piece] | None:
    """One draw, a flaw at each place with a probability in proportion to `rate`; None where a value leaves the world."""
    pieces: list[Piece] = []
    stated: list[int] = []  # results as the trace gives them
    given = [o for s in p.steps for o in (s.left, s.right) if o >= 0] + ([p.distractor[1]] if p.distractor else [])
    last, due = len(p.steps) - 1, None  # due: the reason of the first step left out
    for j, step in enumerate(p.steps):
        true = (resolve(step.left, stated), resolve(step.right, stated))
        due = due or step.label
        if p.distractor and rng.random() < 0.1 * rate:
            reason, beside = p.distractor
            value = compute(beside, "+", true[0])
            if value is None:
                return None
            pieces.append((f" {reason}: {beside} + {true[0]} = {value}.", WRONG, f" {due}:"))
        if j < last and p.steps[j + 1].label != due and rng.random() < 0.1 * rate:
            value = compute(true[0], step.op, true[1])
            if value is None:
                return None
            stated.append(value)
            continue
        left, right = (_replaced(rng, t, given + stated) if rng.random() < rate / 2 else t for t in true)
        label = rng.choice([x for x in LABELS if x not in (step.label, due)]) if rng.random() < rate / 3 else step.label
        op = rng.choice([o for o in "+-*" if o != step.op]) if rng.random() < rate / 3 else step.op
        value = compute(left, op, right)
        if not value:
            return None
        written = _replaced(rng, value, given + stated) if j < last and rng.random() < rate else value
        stated.append(written)
        sentence = [held(f" {label}:", f" {due}:"), *number(left, true[0], f" {op}", f" {step.op}")]
        due = None
        if j < last and rng.random() < 0.1 * rate:  # an earlier question answered
            return [*pieces, *sentence, *number(right, true[1], ".", " =")]
        if j < last:
            sentence += [*number(right, true[1], " =", " ="), *number(written, value, ".", ".")]
        elif rng.random() < 0.3 * rate:  # the last result is the executor's to give
            sentence += number(right, true[1], f" = {value}.", ".")
        else:
            sentence += number(right, true[1], ".", ".")
        pieces += sentence
        if j < last and rng.random() < 0.1 * rate:
            pieces.append(("".join(text for text, *_ in sentence), WRONG, f" {p.steps[j + 1].label}:"))
    return pieces


def _replaced(rng: random.Random, true: int, others: list[int]) -> int:
    """A wrong number, near or far, or one that stands elsewhere in the story or the trace."""
    kind = rng.random()
    wrong = slipped(rng, true) if kind < 0.5 else rng.choice(others) if kind < 0.75 else rng.randint(1, LARGEST)
    return wrong if wrong != true else slipped(rng, true)
