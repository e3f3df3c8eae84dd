"""Localized flaws of a reference trace, their rubric labels by rule, and the demo planner's misconceptions.

A flaw changes one place and stays on topic (the paper's negatives are the reference with one perturbation). Two sorts
matter to the method:

  A  flaws whose consequence is carried through, so that the executor answers something else;
  B  flaws that leave the final expression right: the executor repairs them or never reads them, so a reward on final
     answers alone cannot see them (a false intermediate claim, a step beside the point, a right number for a wrong
     reason, the answer given away).

Which sort a flawed trace turned out to be is known (`Flaw.changes_answer`), not assumed: it is recomputed.

Labels follow one table (RUBRIC): 4 is flawless, and each kind costs points in the dimensions it hurts. Left out:
two flaws in one trace (the misconceptions below may combine; groups do not).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tracelift.worlds.math.problems import LARGEST, MathProblem, Step, compute, evaluate, render_step, resolve

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
LABELS = ("More", "Left", "Bags", "Days", "Half", "Fewer", "Extra", "Times", "Both")


@dataclass(frozen=True)
class Flaw:
    """One flawed trace: what was done (`kind`), at which 0-based sentence, whether the final value changed, and in which
    way of telling (None: the reference's)."""

    kind: str
    place: int
    trace: str
    changes_answer: bool
    told: str | None = None


@dataclass
class _Line:
    """A rendered sentence while a trace is being edited."""

    label: str
    left: int
    op: str
    right: int
    result: int | None

    def __str__(self) -> str:
        return render_step(self.label, self.left, self.op, self.right, self.result)


def _lines(steps: tuple[Step, ...]) -> list[_Line] | None:
    """The derivation as sentences, or None where it leaves the world's number range."""
    results = evaluate(steps)
    if results is None:
        return None
    last = len(steps) - 1
    return [
        _Line(s.label, resolve(s.left, results), s.op, resolve(s.right, results), None if i == last else results[i])
        for i, s in enumerate(steps)
    ]


def _final(lines: list[_Line]) -> int | None:
    return compute(lines[-1].left, lines[-1].op, lines[-1].right)


def slipped(rng: random.Random, value: int) -> int:
    """A plausible miscalculation: one or ten off, or neighbouring digits swapped."""
    options = {value + d for d in (-10, -2, -1, 1, 2, 10)} | {int(str(value)[::-1])}
    return rng.choice(sorted(v for v in options - {value} if 1 <= v <= LARGEST))


def _edit(p: MathProblem, i: int, **change: Any) -> list[_Line] | None:
    steps = list(p.steps)
    steps[i] = replace(steps[i], **change)
    return _lines(tuple(steps))


def _wrong_operator(p: MathProblem, i: int, rng: random.Random) -> list[_Line] | None:
    return _edit(p, i, op=rng.choice([o for o in "+-*" if o != p.steps[i].op]))


def _number_miscopied(p: MathProblem, i: int, rng: random.Random) -> list[_Line] | None:
    sides = [side for side in ("left", "right") if getattr(p.steps[i], side) >= 0]
    if not sides:
        return None
    side = rng.choice(sides)
    return _edit(p, i, **{side: slipped(rng, getattr(p.steps[i], side))})


def _slip_carried(p: MathProblem, i: int, rng: random.Random) -> list[_Line] | None:
    if i == len(p.steps) - 1:
        return None  # the last result is the executor's
    results: list[int] = []
    lines: list[_Line] = []
    for j, s in enumerate(p.steps):
        a, b = resolve(s.left, results), resolve(s.right, results)
        value = compute(a, s.op, b)
        if value is None:
            return None
        results.append(slipped(rng, value) if j == i else value)
        lines.append(_Line(s.label, a, s.op, b, None if j == len(p.steps) - 1 else results[j]))
    return lines


def _step_dropped(p: MathProblem, i: int, rng: random.Random) -> list[_Line] | None:
    """Forget step i: whoever needed its result continues from what the step itself started from."""
    steps, gone = list(p.steps), p.steps[i]
    if len(steps) == 1:
        return None

    def remap(operand: int) -> int:
        if operand >= 0 or -1 - operand < i:
            return operand
        return operand + 1 if -1 - operand > i else remap(gone.left)

    kept = [replace(s, left=remap(s.left), right=remap(s.right)) for j, s in enumerate(steps) if j != i]
    return _lines(tuple(kept))


def _wrong_quantity(p: MathProblem, i: int, rng: random.Random) -> list[_Line] | None:
    """Use another number of the story in place of the right one."""
    given = {o for s in p.steps for o in (s.left, s.right) if o >= 0} | ({p.distractor[1]} if p.distractor else set())
    sides = [side for side in ("left", "right") if getattr(p.steps[i], side) >= 0]
    others = sorted(given - {getattr(p.steps[i], side) for side in sides})
    if not sides or not others:
        return None
    return _edit(p, i, **{rng.choice(sides): rng.choice(others)})


def _wrong_target(p: MathProblem, i: int, rng: random.Random) -> list[_Line] | None:
    """Answer an earlier question: stop after step i."""
    return _lines(p.steps[: i + 1]) if i < len(p.steps) - 1 else None


def _slip_not_carried(p: MathProblem, i: int, rng: random.Random) -> list[_Line] | None:
    lines = _lines(p.steps)
    if lines is None or (result := lines[i].result) is None:
        return None
    lines[i].result = slipped(rng, result)
    return lines


def _right_number_wrong_operator(p: MathProblem, i: int, rng: random.Random) -> list[_Line] | None:
    lines = _lines(p.steps)
    if lines is None or lines[i].result is None:
        return None
    lines[i].op = rng.choice([o for o in "+-*" if o != lines[i].op])
    return lines if compute(lines[i].left, lines[i].op, lines[i].right) != lines[i].result else None


def _wrong_reason(p: MathProblem, i: int, rng: random.Random) -> list[_Line] | None:
    lines = _lines(p.steps)
    if lines is not None:
        lines[i].label = rng.choice([x for x in LABELS if x != lines[i].label])
    return lines


def _irrelevant_step(p: MathProblem, i: int, rng: random.Random) -> list[_Line] | None:
    lines = _lines(p.steps)
    if lines is None or p.distractor is None:
        return None
    label, number = p.distractor
    other = lines[i].left
    value = compute(number, "+", other)
    if value is None:
        return None
    lines.insert(i, _Line(label, number, "+", other, value))
    return lines


def _duplicated_step(p: MathProblem, i: int, rng: random.Random) -> list[_Line] | None:
    lines = _lines(p.steps)
    if lines is None or lines[i].result is None:
        return None
    lines.insert(rng.randint(i + 1, len(lines) - 1), replace(lines[i]))
    return lines


def _answer_leaked(p: MathProblem, i: int, rng: random.Random) -> list[_Line] | None:
    lines = _lines(p.steps)
    if lines is None or i != len(p.steps) - 1:
        return None
    lines[-1].result = p.answer
    return lines


FLAWS: dict[str, Callable[[MathProblem, int, random.Random], list[_Line] | None]] = {
    "wrong_operator": _wrong_operator,
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


def apply_flaw(problem: MathProblem, kind: str, rng: random.Random) -> Flaw | None:
    """Strike the reference trace with one flaw at a random place where it fits; None where it fits nowhere."""
    for i in rng.sample(range(len(problem.steps)), len(problem.steps)):
        lines = FLAWS[kind](problem, i, rng)
        if lines is None:
            continue
        trace = " ".join(map(str, lines))
        final = _final(lines)
        if trace != problem.trace and final is not None:
            return Flaw(kind, i, trace, final != problem.answer)
    return None


def rubric_of(kind: str | None) -> tuple[dict[str, int], float]:
    """(labels by dimension 0–4, total 0–1) for a flaw kind; None is the reference trace."""
    labels, total = RUBRIC[kind]
    return dict(zip(DIMENSIONS, labels, strict=True)), total


# The demo planner's habits: what it writes for some kinds of step, by probability. The first four are of sort A,
# the others of sort B. A habit is the most likely behaviour where its probability is above one half, so greedy
# decoding shows it every time, while sampling still finds the right step often enough to learn from.
MISCONCEPTIONS: dict[str, float] = {
    "fewer": 0.72,  # "5 fewer than" read as "5 more than"                                (A)
    "daily": 0.72,  # "2 a day for 3 days" taken as 2 + 3                                  (A)
    "half": 0.72,  # "half of" taken as "2 less"                                           (A)
    "times": 0.72,  # "3 times as many" taken as "3 more"                                  (A)
    "packs": 0.60,  # 3 bags of 4 written as 3 + 4 = 12: right number, wrong operator      (B)
    "distractor": 0.60,  # a step about a number nobody asked for                          (B)
    "loss": 0.55,  # a right subtraction under the wrong reason                            (B)
    "leak": 0.20,  # the last result written out                                           (B)
}
_WRONG_OPERATOR = {"fewer": "+", "daily": "+", "half": "-", "times": "+"}


def misconceived_trace(problem: MathProblem, rng: random.Random, strength: float = 1.0) -> str:
    """A trace as the untrained demo planner would write it: several habits may show in one trace.

    `strength` scales every probability; 0 gives the reference trace.
    """
    steps = list(problem.steps)
    for i, kind in enumerate(problem.kinds):
        if kind in _WRONG_OPERATOR and rng.random() < MISCONCEPTIONS[kind] * strength:
            changed = [*steps[:i], replace(steps[i], op=_WRONG_OPERATOR[kind]), *steps[i + 1 :]]
            steps = changed if evaluate(tuple(changed)) is not None else steps
    lines = _lines(tuple(steps))
    if lines is None:
        raise ValueError(f"{problem.problem_id}: derivation leaves the world")
    for line, kind in zip(lines, problem.kinds, strict=True):
        if kind == "packs" and line.result is not None and rng.random() < MISCONCEPTIONS["packs"] * strength:
            line.op = "+"
        if kind == "loss" and rng.random() < MISCONCEPTIONS["loss"] * strength:
            line.label = "More"
    if rng.random() < MISCONCEPTIONS["leak"] * strength:
        lines[-1].result = _final(lines)
    if problem.distractor and rng.random() < MISCONCEPTIONS["distractor"] * strength:
        label, number = problem.distractor
        value = compute(number, "+", lines[0].left)
        if value is not None:
            lines.insert(0, _Line(label, number, "+", lines[0].left, value))
    return " ".join(map(str, lines))


def all_flaws(problem: MathProblem, rng: random.Random, told: Sequence[tuple[str, MathProblem]] = ()) -> Iterator[Flaw]:
    """One flaw of every kind that fits this problem, in a random order of kinds. told: (kind, the problem told otherwise);
    each flaw strikes the reference or one of these, as drawn."""
    for kind in rng.sample(sorted(FLAWS), len(FLAWS)):
        name, struck = rng.choice([(None, problem), *told]) if told else (None, problem)
        flaw = apply_flaw(struck, kind, rng)
        if flaw is not None:
            yield replace(flaw, told=name)
