"""Localized flaws of a sound trace, and their rubric labels by rule.

A flaw changes one place and stays on topic (the paper's negatives are the reference with one perturbation). Two sorts
matter to the method:

  A  flaws whose consequence is carried through, so that the executor answers something else;
  B  flaws that leave the final expression right: the executor repairs them or never reads them, so a reward on final
     answers alone cannot see them (a false intermediate claim, a step beside the point, a right number for a wrong
     reason, the answer given away).

Which sort a flawed trace turned out to be is known (`Flaw.changes_answer`), not assumed: it is recomputed.

Labels follow one table (RUBRIC): 4 is flawless, and each kind costs points in the dimensions it hurts. The demo's Reason RM
never meets the kinds in HELD_OUT; half of the planner's habits (habits.py) are of these. Left out: two flaws in one trace
(habits may combine; groups do not).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from tracelift.worlds.math.derivation import (
    LABELS,
    LARGEST,
    Sentence,
    compute,
    join,
    resolve,
    same_reason,
    sentence_of,
    tell,
)
from tracelift.worlds.math.problems import MathProblem
from tracelift.worlds.math.validity import check_trace

DIMENSIONS = (
    "problem_understanding",
    "solution_strategy",
    "step_coherence",
    "calculation_correctness",
    "answer_support",
)

# kind: labels 0–4 in the order of DIMENSIONS, then the total in 0–1 (a judge's overall score, not the mean: a trace that
# misleads its reader is worth less than the mean of its parts).
RUBRIC: dict[str | None, tuple[tuple[int, int, int, int, int], float]] = {
    None: ((4, 4, 4, 4, 4), 1.0),
    "wrong_operator": ((3, 0, 2, 3, 0), 0.2),
    "half_misread": ((3, 0, 2, 3, 0), 0.2),
    "times_misread": ((3, 0, 2, 3, 0), 0.2),
    "number_miscopied": ((0, 3, 3, 3, 0), 0.2),
    "slip_carried": ((4, 4, 3, 0, 0), 0.3),
    "step_dropped": ((1, 1, 2, 4, 0), 0.2),
    "wrong_quantity": ((1, 2, 1, 3, 0), 0.2),
    "wrong_target": ((2, 1, 3, 4, 0), 0.3),
    "slip_not_carried": ((4, 4, 1, 0, 3), 0.5),
    "right_number_wrong_operator": ((3, 1, 1, 0, 3), 0.4),
    "wrong_reason": ((1, 2, 1, 4, 3), 0.5),
    "irrelevant_step": ((1, 2, 2, 4, 3), 0.6),
    "duplicated_step": ((4, 2, 1, 4, 3), 0.6),
    "answer_leaked": ((4, 4, 4, 4, 1), 0.6),
}
# Two that change the answer, two that do not. Where a kind that is not held out could look like one of them, it strikes elsewhere.
HELD_OUT = ("half_misread", "times_misread", "wrong_reason", "irrelevant_step")
MISREAD = {"half": "-", "times": "+"}  # event: the operator it is misread as; other operators are not struck there


@dataclass(frozen=True)
class Flaw:
    """One flawed trace: what was done (`kind`), at which 0-based sentence, whether the final value changed, and in which
    way of telling (None: the reference's)."""

    kind: str
    place: int
    trace: str
    changes_answer: bool
    told: str | None = None


Told = list[Sentence] | None


def slipped(rng: random.Random, value: int) -> int:
    """A plausible miscalculation: one or ten off, or neighbouring digits swapped."""
    options = {value + d for d in (-10, -2, -1, 1, 2, 10)} | {int(str(value)[::-1])}
    return rng.choice(sorted(v for v in options - {value} if 1 <= v <= LARGEST))


def _edit(p: MathProblem, i: int, **change: int | str) -> Told:
    steps = list(p.steps)
    steps[i] = replace(steps[i], **change)
    return tell(tuple(steps))


def _wrong_operator(p: MathProblem, i: int, rng: random.Random) -> Told:
    if p.steps[i].kind in MISREAD:
        return None
    return _edit(p, i, op=rng.choice([o for o in "+-*" if o != p.steps[i].op]))


def _half_misread(p: MathProblem, i: int, rng: random.Random) -> Told:
    return _edit(p, i, op=MISREAD["half"]) if p.steps[i].kind == "half" else None


def _times_misread(p: MathProblem, i: int, rng: random.Random) -> Told:
    step = p.steps[i]
    return _edit(p, i, op=MISREAD["times"]) if step.kind == "times" and step.op == "*" else None


def _given(p: MathProblem, i: int) -> list[str]:
    """The sides of step i that are numbers of the story."""
    return [side for side in ("left", "right") if getattr(p.steps[i], side) >= 0]


def _number_miscopied(p: MathProblem, i: int, rng: random.Random) -> Told:
    sides = _given(p, i)
    if not sides:
        return None
    side = rng.choice(sides)
    return _edit(p, i, **{side: slipped(rng, getattr(p.steps[i], side))})


def _wrong_quantity(p: MathProblem, i: int, rng: random.Random) -> Told:
    """Use another number of the story in place of the right one."""
    given = {o for s in p.steps for o in (s.left, s.right) if o >= 0} | ({p.distractor[1]} if p.distractor else set())
    sides = _given(p, i)
    others = sorted(given - {getattr(p.steps[i], side) for side in sides})
    return _edit(p, i, **{rng.choice(sides): rng.choice(others)}) if sides and others else None


def _slip_carried(p: MathProblem, i: int, rng: random.Random) -> Told:
    if i == len(p.steps) - 1 or p.steps[i].inline:
        return None  # a result that is not written cannot be written wrong
    results: list[int] = []
    for j, s in enumerate(p.steps):
        value = compute(resolve(s.left, results), s.op, resolve(s.right, results))
        if value is None:
            return None
        results.append(slipped(rng, value) if j == i else value)
    return tell(p.steps, results)


def _step_dropped(p: MathProblem, i: int, rng: random.Random) -> Told:
    """Forget step i: whoever needed its result continues from what the step itself started from."""
    steps, gone = list(p.steps), p.steps[i]
    if len(steps) == 1:
        return None

    def remap(operand: int) -> int:
        if operand >= 0 or -1 - operand < i:
            return operand
        return operand + 1 if -1 - operand > i else remap(gone.right if gone.exchanged else gone.left)

    return tell(tuple(replace(s, left=remap(s.left), right=remap(s.right)) for j, s in enumerate(steps) if j != i))


def _wrong_target(p: MathProblem, i: int, rng: random.Random) -> Told:
    """Answer an earlier question: stop after step i."""
    return tell(p.steps[: i + 1]) if i < len(p.steps) - 1 else None


def _stated(p: MathProblem, i: int) -> tuple[list[Sentence], int] | None:
    """The trace, and the sentence that states step i's result; None where none does."""
    told = tell(p.steps)
    if told is None or p.steps[i].inline or i == len(p.steps) - 1:
        return None
    return told, sentence_of(p.steps, i)


def _slip_not_carried(p: MathProblem, i: int, rng: random.Random) -> Told:
    if (found := _stated(p, i)) is None:
        return None
    told, at = found
    told[at] = replace(told[at], result=slipped(rng, told[at].result or 0))
    return told


def _right_number_wrong_operator(p: MathProblem, i: int, rng: random.Random) -> Told:
    if p.steps[i].kind in MISREAD or (found := _stated(p, i)) is None:
        return None
    told, at = found
    k = rng.randrange(len(told[at].ops))
    ops = list(told[at].ops)
    ops[k] = rng.choice([o for o in "+-*" if o != ops[k]])
    told[at] = replace(told[at], ops=tuple(ops))
    return told if told[at].value != told[at].result else None


def _wrong_reason(p: MathProblem, i: int, rng: random.Random) -> Told:
    told, at = tell(p.steps), sentence_of(p.steps, i)
    if told is not None:
        others = [x for x in LABELS if not same_reason(x, told[at].label)]
        told[at] = replace(told[at], label=rng.choice(others))
    return told


def _irrelevant_step(p: MathProblem, i: int, rng: random.Random) -> Told:
    told, at = tell(p.steps), sentence_of(p.steps, i)
    if told is None or p.distractor is None:
        return None
    beside = beside_the_point(p.distractor, told[at].numbers[0])
    return None if beside is None else [*told[:at], beside, *told[at:]]


def beside_the_point(distractor: tuple[str, int], other: int) -> Sentence | None:
    """A true sentence about the number that nobody asked for; None where it leaves the world's numbers."""
    label, number = distractor
    value = compute(number, "+", other)
    return None if value is None else Sentence(label, (number, other), ("+",), value)


def _duplicated_step(p: MathProblem, i: int, rng: random.Random) -> Told:
    if (found := _stated(p, i)) is None:
        return None
    told, at = found
    told.insert(rng.randint(at + 1, len(told) - 1), told[at])
    return told


def _answer_leaked(p: MathProblem, i: int, rng: random.Random) -> Told:
    told = tell(p.steps)
    if told is None or i != len(p.steps) - 1:
        return None
    return [*told[:-1], replace(told[-1], result=p.answer)]


FLAWS: dict[str, Callable[[MathProblem, int, random.Random], Told]] = {
    "wrong_operator": _wrong_operator,
    "half_misread": _half_misread,
    "times_misread": _times_misread,
    "number_miscopied": _number_miscopied,
    "slip_carried": _slip_carried,
    "step_dropped": _step_dropped,
    "wrong_quantity": _wrong_quantity,
    "wrong_target": _wrong_target,
    "slip_not_carried": _slip_not_carried,
    "right_number_wrong_operator": _right_number_wrong_operator,
    "wrong_reason": _wrong_reason,
    "irrelevant_step": _irrelevant_step,
    "duplicated_step": _duplicated_step,
    "answer_leaked": _answer_leaked,
}
SEEN = tuple(kind for kind in FLAWS if kind not in HELD_OUT)  # what the demo's Reason RM learns from


def apply_flaw(problem: MathProblem, kind: str, rng: random.Random) -> Flaw | None:
    """Strike the reference trace with one flaw at a random place where it fits; None where it fits nowhere. What by chance
    is sound (2 * 2 as 2 + 2, say) is no flaw."""
    for i in rng.sample(range(len(problem.steps)), len(problem.steps)):
        told = FLAWS[kind](problem, i, rng)
        if told is None:
            continue
        trace, final = join(told), told[-1].value
        if final is not None and not check_trace(problem, trace).valid:
            return Flaw(kind, sentence_of(problem.steps, i), trace, final != problem.answer)
    return None


def all_flaws(
    problem: MathProblem,
    rng: random.Random,
    told: Sequence[tuple[str, MathProblem]] = (),
    kinds: Sequence[str] = tuple(FLAWS),
) -> Iterator[Flaw]:
    """One flaw of every kind that fits this problem, in a random order of kinds. told: (kind, the problem told otherwise);
    each flaw strikes the reference or one of these, as drawn."""
    for kind in rng.sample(sorted(kinds), len(kinds)):
        name, struck = rng.choice([(None, problem), *told]) if told else (None, problem)
        flaw = apply_flaw(struck, kind, rng)
        if flaw is not None:
            yield replace(flaw, told=name)


def rubric_of(kind: str | None) -> tuple[dict[str, int], float]:
    """(labels by dimension 0–4, total 0–1) for a flaw kind; None is the reference trace."""
    labels, total = RUBRIC[kind]
    return dict(zip(DIMENSIONS, labels, strict=True)), total
