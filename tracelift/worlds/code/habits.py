"""The misconceptions of the demo's untrained code planner: systematic, so that training has something to mend.

A habit is the planner's most likely behaviour where its probability is above one half: greedy decoding shows it every
time, while sampling still finds the right step often enough to learn from. The first four are of sort A (the program
goes wrong), the others of sort B (no test will ever notice). Several may show in one plan. Half of them are of kinds that
the demo's Reason RM never meets (HELD_OUT of flaws.py), marked *.

Beside its habits the planner tells a calculation inside its step half of the time that it can: sound, and less help to its
executor.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from tracelift.worlds.code.flaws import FRONT, UNORDERED, misread, recalculate
from tracelift.worlds.code.language import BOUNDS, Program, Step, write_python
from tracelift.worlds.code.problems import PlanProblem
from tracelift.worlds.code.tellings import SHARE, retold

MISCONCEPTIONS: dict[str, float] = {
    "before": 0.60,  # "but just before that" read as "then": steps in the order of the telling        (A)
    "bound": 0.62,  # "drop those below 7" keeps those above 7, and 7 itself is lost                    (A)
    "last": 0.62,  # "the last 3" taken from the front                                                  (A) *
    "less": 0.30,  # "4 less than p" taken as 4 more                                                    (A) *
    "times": 0.55,  # a right product under the name of what was multiplied: a wrong reason             (B)
    "unused": 0.60,  # a quantity worked out that no step needs                                         (B) *
    "sort": 0.60,  # sorting before a sum, a count or a maximum, which do not care                      (B) *
    "leak": 0.20,  # the last line written out in code                                                  (B)
}
MERGED = 0.5


def misconceived_plan(
    problem: PlanProblem,
    rng: random.Random,
    strength: float = 1.0,
    merged: float = MERGED,
    reworded: float = SHARE,
) -> str:
    """A plan as the untrained demo planner would write it. strength scales the probability of every habit, 0 gives a sound
    plan; merged and reworded are those of `retold`."""

    def errs(habit: str) -> bool:
        return rng.random() < MISCONCEPTIONS[habit] * strength

    sound = retold(problem.plan, rng, merged, reworded)
    plan = recalculate(problem, sound, lambda _, c: misread(c) if c.op == "-" and errs("less") else c)
    if plan is None:  # carried misreadings can leave the world's numbers: such a plan is not told
        return str(sound)
    calculations = [
        replace(c, name=c.parent) if q.factor != 1 and errs("times") else c
        for q, c in zip(problem.quantities[1:], plan.calculations, strict=True)
    ]
    if problem.unused is not None and errs("unused"):
        u = problem.unused.calculation
        values = {q.name: q.value for q in problem.quantities} | {c.name: c.value for c in plan.calculations}
        u = replace(u, left=values[u.parent])
        calculations.append(replace(u, value=u.true_value))
    steps = _told(problem, [_habitual(s, errs) for s in plan.steps], errs, reworded, rng)
    leaked = write_python(problem.start, steps).split("\n")[-2] if errs("leak") else ""
    told = replace(plan, calculations=tuple(calculations), steps=steps, leaked=leaked)
    return str(told.settled())


def _habitual(step: Step, errs: Callable[[str], bool]) -> Step:
    if step.op in ("at_least", "at_most") and errs("bound"):
        return replace(step, op=BOUNDS[step.op])
    if step.op in FRONT and errs("last"):
        return replace(step, op=FRONT[step.op])
    return step


def _told(
    problem: PlanProblem, steps: list[Step], errs: Callable[[str], bool], reworded: float, rng: random.Random
) -> Program:
    """The steps in the order of execution, but each pair told backwards may stay backwards; sorts slip in."""
    order, i = [], 0
    while i < len(problem.told):
        a = problem.told[i]
        backwards = i + 1 < len(problem.told) and problem.told[i + 1] == a - 1
        order += ([a, a - 1] if errs("before") else [a - 1, a]) if backwards else [a]
        i += 2 if backwards else 1
    out: list[Step] = []
    for i in order:
        if steps[i].op in UNORDERED and not (out and out[-1].op.startswith("sort")) and errs("sort"):
            out.append(Step("sort_up", wording=int(rng.random() < reworded)))
        out.append(steps[i])
    return tuple(out)
