"""Traces in which every word and digit is tagged: + where it is what the story and the trace so far call for, else −.

What the math world's Reason RM is fine-tuned from (ELECTRA's discriminator, Clark et al. 2020, with localized flaws for
replaced tokens). One verdict on a whole trace says too little about which digit was wrong: with verdicts alone, slips
and miscopied numbers stayed at chance. Beside its tag a piece names what is meant in its place, which the model learns to
predict before it reads the piece: the tag is then one comparison away. Without that it took twice the rounds.

Sentences go wrong independently: a number, an operator or a reason replaced, a sentence left out, said twice or beside
the point, the end too early or with the answer. Later sentences are held against what earlier ones state, so a slip that
is carried through is tagged once; so is a number, at the first digit that differs (a number cut short: behind its last).
The closing tag of the reasoning is tagged + where everything before it is: the verdict on the whole is gathered where
the Reason RM will read it.

Left out: steps in another order than the reference's, which no flaw of this world makes.
"""

from __future__ import annotations

import random

from tracelift.prompts import CLOSE
from tracelift.sft import Piece
from tracelift.worlds.math.flaws import LABELS, slipped
from tracelift.worlds.math.problems import LARGEST, MathProblem, compute, resolve

RIGHT, WRONG = " +", " -"


def tagged_trace(p: MathProblem, rng: random.Random) -> list[Piece]:
    """Tagged pieces of a trace with random flaws and its closing tag; their texts join to the RM's reading of it."""
    pieces = None
    while pieces is None:  # flaws that leave the world's numbers are drawn again
        pieces = _attempt(p, rng, rate=rng.uniform(0, 0.8))
    first, *rest = pieces[0]
    pieces[0] = (first.lstrip(" "), *(x.lstrip(" ") if i else x for i, x in enumerate(rest)))
    verdict = WRONG if any(piece[1] == WRONG for piece in pieces) else RIGHT
    return [*pieces, (f"\n{CLOSE}", verdict)]


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
            reason, number = p.distractor
            value = compute(number, "+", true[0])
            if value is None:
                return None
            pieces.append((f" {reason}: {number} + {true[0]} = {value}.", WRONG, f" {due}:"))
        if j < last and p.steps[j + 1].label != due and rng.random() < 0.1 * rate:
            value = compute(true[0], step.op, true[1])
            if value is None:
                return None
            stated.append(value)
            continue
        left, right = (_replaced(rng, t, given + stated) if rng.random() < rate / 2 else t for t in true)
        label = rng.choice([x for x in LABELS if x != step.label]) if rng.random() < rate / 3 else step.label
        op = rng.choice([o for o in "+-*" if o != step.op]) if rng.random() < rate / 3 else step.op
        value = compute(left, op, right)
        if not value:
            return None
        written = _replaced(rng, value, given + stated) if j < last and rng.random() < rate else value
        stated.append(written)
        sentence = [_held(f" {label}:", f" {due}:"), *_number(left, true[0], f" {op}", f" {step.op}")]
        due = None
        if j < last and rng.random() < 0.1 * rate:  # an earlier question answered
            return [*pieces, *sentence, *_number(right, true[1], ".", " =")]
        if j < last:
            sentence += [*_number(right, true[1], " =", " ="), *_number(written, value, ".", ".")]
        elif rng.random() < 0.3 * rate:  # the last result is the executor's to give
            sentence += _number(right, true[1], f" = {value}.", ".")
        else:
            sentence += _number(right, true[1], ".", ".")
        pieces += sentence
        if j < last and rng.random() < 0.1 * rate:
            pieces.append(("".join(text for text, *_ in sentence), WRONG, f" {p.steps[j + 1].label}:"))
    return pieces


def _replaced(rng: random.Random, true: int, others: list[int]) -> int:
    """A wrong number, near or far, or one that stands elsewhere in the story or the trace."""
    kind = rng.random()
    number = slipped(rng, true) if kind < 0.5 else rng.choice(others) if kind < 0.75 else rng.randint(1, LARGEST)
    return number if number != true else slipped(rng, true)


def _held(text: str, meant: str) -> Piece:
    return text, RIGHT if text == meant else WRONG, meant


def _number(written: int, true: int, then: str, meant: str) -> list[Piece]:
    """A number digit by digit and what follows it. Digits behind the first wrong one are read and not tagged."""
    a, b = str(written), str(true)
    pieces: list[Piece] = []
    for k, digit in enumerate(a):
        space = " " * (k == 0)
        if k == len(b):
            pieces.append((digit, WRONG, meant))
            break
        pieces.append(_held(space + digit, space + b[k]))
        if digit != b[k]:
            break
    else:
        return [*pieces, (then, WRONG, b[len(a)]) if len(b) > len(a) else _held(then, meant)]
    return [*pieces, *((digit, False) for digit in a[len(pieces) :]), _held(then, meant)]
