"""Traces in which every word and digit is tagged: + where it is what the story and the trace so far call for, else −.

What the math world's Reason RM is fine-tuned from (ELECTRA's discriminator, Clark et al. 2020, with localized flaws for
replaced tokens). One verdict on a whole trace says too little about which digit was wrong: with verdicts alone, slips
and miscopied numbers stayed at chance. Sentences go wrong independently: a number, an operator or a reason replaced, a
sentence left out, said twice or beside the point, the end too early or with the answer. Later sentences are held against
what earlier ones state, so a slip that is carried through is tagged once. The closing tag of the reasoning is tagged +
where everything before it is: the verdict on the whole is gathered where the Reason RM will read it.

Left out: steps in another order than the reference's, which no flaw of this world makes.
"""

from __future__ import annotations

import random

from tracelift.prompts import CLOSE
from tracelift.worlds.math.flaws import LABELS, slipped
from tracelift.worlds.math.problems import LARGEST, MathProblem, compute, resolve

Piece = tuple[str, str]  # text, tag
RIGHT, WRONG = " +", " -"


def tagged_trace(p: MathProblem, rng: random.Random) -> list[Piece]:
    """(text, tag) pieces of a trace with random flaws and its closing tag; their texts join to the RM's reading of it."""
    pieces = None
    while pieces is None:  # flaws that leave the world's numbers are drawn again
        pieces = _attempt(p, rng, rate=rng.uniform(0, 0.8))
    first, tag = pieces[0]
    verdict = RIGHT if all(tag == RIGHT for _, tag in pieces) else WRONG
    return [(first.lstrip(" "), tag), *pieces[1:], (f"\n{CLOSE}", verdict)]


def _attempt(p: MathProblem, rng: random.Random, rate: float) -> list[Piece] | None:
    """One draw, a flaw at each place with a probability in proportion to `rate`; None where a value leaves the world."""
    pieces: list[Piece] = []
    stated: list[int] = []  # results as the trace gives them
    given = [o for s in p.steps for o in (s.left, s.right) if o >= 0] + ([p.distractor[1]] if p.distractor else [])
    last, missing = len(p.steps) - 1, False
    for j, step in enumerate(p.steps):
        true = (resolve(step.left, stated), resolve(step.right, stated))
        if p.distractor and rng.random() < 0.1 * rate:
            label, number = p.distractor
            value = compute(number, "+", true[0])
            if value is None:
                return None
            pieces += _wrong(f" {label}: {number} + {true[0]} = {value}.")
        if j < last and rng.random() < 0.1 * rate:
            value = compute(true[0], step.op, true[1])
            if value is None:
                return None
            stated.append(value)
            missing = True
            continue
        left, right = (_replaced(rng, t, given + stated) if rng.random() < rate / 2 else t for t in true)
        label = rng.choice([x for x in LABELS if x != step.label]) if rng.random() < rate / 3 else step.label
        op = rng.choice([o for o in "+-*" if o != step.op]) if rng.random() < rate / 3 else step.op
        value = compute(left, op, right)
        if not value:
            return None
        written = _replaced(rng, value, given + stated) if j < last and rng.random() < rate else value
        stated.append(written)
        sentence = [(f" {label}:", _tag(label == step.label and not missing)), *_digits(left, true[0]), (f" {op}", _tag(op == step.op)),
                    *_digits(right, true[1])]  # fmt: skip
        missing = False
        if j < last and rng.random() < 0.1 * rate:
            return [*pieces, *sentence, (".", WRONG)]  # an earlier question answered
        if j < last:
            sentence += [(" =", RIGHT), *_digits(written, value), (".", RIGHT)]
        elif rng.random() < 0.3 * rate:  # the last result is the executor's to give
            sentence += _wrong(f" = {value}.")
        else:
            sentence.append((".", RIGHT))
        pieces += sentence
        if j < last and rng.random() < 0.1 * rate:
            pieces += _wrong("".join(text for text, _ in sentence))
    return pieces


def _replaced(rng: random.Random, true: int, others: list[int]) -> int:
    """A wrong number, near or far, or one that stands elsewhere in the story or the trace."""
    kind = rng.random()
    number = slipped(rng, true) if kind < 0.5 else rng.choice(others) if kind < 0.75 else rng.randint(1, LARGEST)
    return number if number != true else slipped(rng, true)


def _tag(right: bool) -> str:
    return RIGHT if right else WRONG


def _wrong(text: str) -> list[Piece]:
    return [(text, WRONG)]


def _digits(written: int, true: int) -> list[Piece]:
    """A number digit by digit, each tagged by whether it stands in the true number at its place."""
    a, b = str(written), str(true)
    return [(" " * (k == 0) + digit, _tag(len(a) == len(b) and digit == b[k])) for k, digit in enumerate(a)]
