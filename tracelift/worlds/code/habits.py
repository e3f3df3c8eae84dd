"""The misconceptions of the demo's untrained code planner: systematic, so that training has something to mend.

A habit is the planner's most likely behaviour where its probability is above one half: greedy decoding shows it every
time, while sampling still finds the right step often enough to learn from. The first four are of sort A (the program
goes wrong), the others of sort B (no test will ever notice). Several may show in one plan.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from tracelift.worlds.code.language import BOUNDS, Program, Step, write_python
from tracelift.worlds.code.plans import Calculation, reference_plan
from tracelift.worlds.code.problems import PlanProblem

MISCONCEPTIONS: dict[str, float] = {
    "before": 0.60,  # "but just before that" read as "then": steps in the order of the telling        (A)
    "bound": 0.62,  # "drop those below 7" keeps those above 7, and 7 itself is lost                    (A)
    "last": 0.62,  # "the last 3" taken from the front                                                  (A)
    "less": 0.30,  # "4 less than p" taken as 4 more                                                    (A)
    "times": 0.55,  # a right product under the name of what was multiplied: a wrong reason             (B)
    "unused": 0.60,  # a quantity worked out that no step needs                                         (B)
    "sort": 0.60,  # sorting before a sum, a count or a maximum, which do not care                      (B)
    "leak": 0.20,  # the last line written out in code                                                  (B)
}
_FRONT = {"last": "first", "end": "start"}
_UNORDERED = ("sum", "count", "largest")


def misconceived_plan(problem: PlanProblem, rng: random.Random, strength: float = 1.0) -> str:
    """A plan as the untrained demo planner would write it. `strength` scales every habit; 0 gives the reference."""

    def errs(habit: str) -> bool:
        return rng.random() < MISCONCEPTIONS[habit] * strength

    values = {problem.quantities[0].name: problem.quantities[0].value}
    calculations: list[Calculation] = []
    for q in problem.quantities[1:]:
        parent = values[q.parent or ""]
        left, op, right = (
            (q.factor, "*", parent) if q.factor != 1 else (parent, "+" if q.offset > 0 else "-", abs(q.offset))
        )
        if op == "-" and errs("less"):
            op = "+"
        c = Calculation(q.name, left, op, right, 0)
        c = replace(c, value=c.true_value)
        if c.value < 1:  # carried misreadings can leave the world's numbers: such a plan is not told
            return problem.trace
        values[q.name] = c.value
        calculations.append(replace(c, name=q.parent or "") if op == "*" and errs("times") else c)
    if problem.unused is not None and errs("unused"):
        u = problem.unused
        parent = values[u.parent or ""]
        calculations.append(Calculation(u.name, parent, "+", u.offset, parent + u.offset))
    steps = [_habitual(replace(s, k=values[s.name]) if s.name else s, errs) for s in problem.steps]
    ordered = _told(problem, steps, errs)
    leaked = write_python(problem.start, ordered).split("\n")[-2] if errs("leak") else ""
    return str(replace(reference_plan(problem), calculations=tuple(calculations), steps=ordered, leaked=leaked))


def _habitual(step: Step, errs: Callable[[str], bool]) -> Step:
    if step.op in ("at_least", "at_most") and errs("bound"):
        return replace(step, op=BOUNDS[step.op])
    if step.op in _FRONT and errs("last"):
        return replace(step, op=_FRONT[step.op])
    return step


def _told(problem: PlanProblem, steps: list[Step], errs: Callable[[str], bool]) -> Program:
    """The steps in the order of execution, but each pair told backwards may stay backwards; sorts slip in."""
    order, i = [], 0
    while i < len(problem.told):
        a = problem.told[i]
        backwards = i + 1 < len(problem.told) and problem.told[i + 1] == a - 1
        order += ([a, a - 1] if errs("before") else [a - 1, a]) if backwards else [a]
        i += 2 if backwards else 1
    out: list[Step] = []
    for i in order:
        if steps[i].op in _UNORDERED and not (out and out[-1].op.startswith("sort")) and errs("sort"):
            out.append(Step("sort_up"))
        out.append(steps[i])
    return tuple(out)
