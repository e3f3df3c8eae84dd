"""Traces in which every word and digit is tagged: + where it is what the story and the trace so far call for, else −.

What the math world's Reason RM is fine-tuned from (tracelift/worlds/build/proofreading.py says why).

Sentences go wrong independently: a number or an operator replaced, a sentence left out, said twice, the end too early or
with the answer. Later sentences are held against what earlier ones state, so a slip that is carried through is tagged once.
A trace is held against the telling that it was made from, and goes wrong only where no other telling would go on so: a number
is not replaced by one that stands in the same place when terms or steps are exchanged.

Left out: the flaws of the held-out kinds (tracelift/worlds/math/flaws.py: HELD_OUT).
"""

from __future__ import annotations

import random

from tracelift.training.sft import Piece
from tracelift.worlds.build.proofreading import WRONG, closed, held, number
from tracelift.worlds.math.derivation import LARGEST, Step, Steps, resolve, same_reason, value_of
from tracelift.worlds.math.flaws import MISREAD, slipped
from tracelift.worlds.math.problems import MathProblem
from tracelift.worlds.math.tellings import retold

MERGED = 0.25


def tagged_trace(p: MathProblem, rng: random.Random) -> list[Piece]:
    """Tagged pieces of a trace with random flaws and its closing tag; their texts join to the RM's reading of it."""
    pieces = None
    while pieces is None:  # flaws that leave the world's numbers are drawn again
        pieces = _attempt(retold(p.story, rng, MERGED), p.distractor, rng, rate=rng.uniform(0, 0.8))
    return closed(pieces)


def _attempt(steps: Steps, distractor: tuple[str, int] | None, rng: random.Random, rate: float) -> list[Piece] | None:
    """One draw, a flaw at each place with a probability in proportion to `rate`; None where a value leaves the world."""
    pieces: list[Piece] = []
    stated: list[int] = []  # results as the trace gives them
    last, due = len(steps) - 1, None  # due: the reason of the first step left out
    for j, step in enumerate(steps):
        parts = _parts(steps, step)
        numbers, ops = [resolve(o, stated) for o in parts[0]], [s.op for s in parts[1]]
        if step.inline:
            stated.append(value_of(numbers, ops) or 0)  # said in the sentence that uses it
            continue
        due = due or step.label
        following = steps[j + 1] if j < last else None
        needed = following is not None and j in following.uses and not following.inline
        if following and needed and not same_reason(following.label, due) and rng.random() < 0.15 * rate:
            value = value_of(numbers, ops)
            if value is None:
                return None
            stated.append(value)
            continue
        wrong = _wrong_numbers(steps, step, stated, distractor)
        said = [_replaced(rng, n, wrong) if rng.random() < rate / 2 else n for n in numbers]
        said_ops = [
            rng.choice([o for o in "+-*" if o != s.op]) if s.kind not in MISREAD and rng.random() < rate / 3 else s.op
            for s in parts[1]
        ]
        value = value_of(said, said_ops)
        if not value:
            return None
        result = _replaced(rng, value, wrong) if j < last and rng.random() < rate else value
        stated.append(result)
        sentence = [held(f" {step.label}:", f" {due}:")]
        due = None
        for (n, true), op, true_op in zip(zip(said, numbers, strict=True), said_ops, ops, strict=False):
            sentence += number(n, true, f" {op}", f" {true_op}")
        if j < last and rng.random() < 0.1 * rate:  # an earlier question answered
            return [*pieces, *sentence, *number(said[-1], numbers[-1], ".", " =")]
        if j < last:
            sentence += [*number(said[-1], numbers[-1], " =", " ="), *number(result, value, ".", ".")]
        elif rng.random() < 0.3 * rate:  # the last result is the executor's to give
            sentence += number(said[-1], numbers[-1], f" = {value}.", ".")
        else:
            sentence += number(said[-1], numbers[-1], ".", ".")
        pieces += sentence
        if following and rng.random() < 0.1 * rate:
            pieces.append(("".join(text for text, *_ in sentence), WRONG, f" {following.label}:"))
    return pieces


def _parts(steps: Steps, step: Step) -> tuple[list[int], list[Step]]:
    """(operands, the steps whose operators stand between them) of a step's sentence, inline steps in their places."""
    operands: list[int] = []
    parts: list[Step] = []
    for side, operand in enumerate((step.left, step.right)):
        if side:
            parts.append(step)
        if operand < 0 and (inner := steps[-1 - operand]).inline:
            operands += [inner.left, inner.right]
            parts.append(inner)
        else:
            operands.append(operand)
    return operands, parts


def _wrong_numbers(steps: Steps, step: Step, stated: list[int], distractor: tuple[str, int] | None) -> list[int]:
    """Numbers of the story or the trace that no telling would put in this sentence."""
    alike = [o for s in steps if same_reason(s.label, step.label) for o in _parts(steps, s)[0]]
    right = {resolve(o, stated) for o in alike if o >= 0 or -1 - o < len(stated)}
    given = [o for s in steps for o in (s.left, s.right) if o >= 0] + ([distractor[1]] if distractor else [])
    return [n for n in given + stated if n not in right]


def _replaced(rng: random.Random, true: int, others: list[int]) -> int:
    """A wrong number, near or far, or one that stands elsewhere in the story or the trace."""
    kind = rng.random()
    wrong = (
        slipped(rng, true) if kind < 0.5 else rng.choice(others) if others and kind < 0.75 else rng.randint(1, LARGEST)
    )
    return wrong if wrong != true else slipped(rng, true)
