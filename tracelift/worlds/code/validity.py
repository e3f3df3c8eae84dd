"""Is every sentence of a plan true and grounded in the problem?

A plan is valid when it is exactly what the problem calls for: each needed quantity worked out once, under its own name,
from operands known by then, with a true result; then every step with its right argument in the order of execution; the
right kind of result at the end; nothing twice, nothing beside the point, and no code. Every telling of tellings.py and
every combination of them is accepted: exchanged operands, 2 * m as m + m, either wording of a sentence, and a calculation
inside the one step that takes its result, where nothing else needs that. Steps that happen to commute must still stand in
the order that the problem gives: a plan is read by people.

Left out: paraphrase. A plan in another wording than the world's is `unreadable`, hence invalid.
"""

from __future__ import annotations

from itertools import takewhile

from tracelift.tasks.task import Validity
from tracelift.worlds.code.language import Program
from tracelift.worlds.code.plans import Calculation, Plan, expressions, read_plan
from tracelift.worlds.code.problems import PlanProblem, Quantity


def check_plan(problem: PlanProblem, trace: str) -> Validity:
    """Check a plan (the text between the reasoning tags) against the problem."""
    plan = read_plan(trace)
    if plan is None:
        return Validity(False, "unreadable")
    needed = {q.name: q for q in problem.quantities if q.parent}
    before = len(plan.calculations) - len(plan.merged)
    done: list[str] = []
    for i, c in enumerate(plan.calculations):
        place = i if i < before else before + [s.name for s in plan.steps].index(c.name)
        fault = _calculation_fault(c, needed, done)
        if fault is None and i >= before and not _loses_nothing(c.name, plan, needed):
            fault = "missing_calculation"
        if fault is not None:
            return Validity(False, fault, place)
        done.append(c.name)
    if len(done) < len(needed):
        return Validity(False, "missing_calculation", before)
    fault = _steps_fault(plan.steps, problem.steps)
    if fault is not None:
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(plan.steps, problem.steps, strict=False)))
        return Validity(False, fault, before + same)
    if plan.end != problem.end:
        return Validity(False, "wrong_result", before + len(plan.steps))
    if plan.leaked:
        return Validity(False, "code_leaked", before + len(plan.steps) + 1)
    return Validity(True)


def _steps_fault(said: Program, wanted: Program) -> str | None:
    if said == wanted:
        return None
    if len(said) != len(wanted):
        shorter, longer = sorted((said, wanted), key=len)
        rest = iter(longer)
        if all(step in rest for step in shorter):  # a subsequence
            return "missing_step" if len(said) < len(wanted) else "needless_step"
        return "wrong_step"
    if sorted(map(repr, said)) == sorted(map(repr, wanted)):
        return "wrong_order"
    if [(s.op, s.k) for s in said] == [(s.op, s.k) for s in wanted]:
        return "wrong_reason"  # the right number as another quantity's
    return "wrong_argument" if [s.op for s in said] == [s.op for s in wanted] else "wrong_step"


def _calculation_fault(c: Calculation, needed: dict[str, Quantity], done: list[str]) -> str | None:
    if not c.true:
        return "false_arithmetic"
    quantity = needed.get(c.name)
    if quantity is None or not _matches(c, quantity):
        # The right calculation of another quantity is a wrong reason; one that nothing needs is beside the point.
        return "wrong_reason" if any(_matches(c, q) for q in needed.values()) else "ungrounded"
    if c.name in done:
        return "duplicate"
    if quantity.parent in needed and quantity.parent not in done:
        return "missing_calculation"
    return None


def _loses_nothing(name: str, plan: Plan, needed: dict[str, Quantity]) -> bool:
    """Whether a result that only a step's merged calculation tells is needed nowhere else."""
    return sum(s.name == name for s in plan.steps) == 1 and all(q.parent != name for q in needed.values())


def _matches(c: Calculation, q: Quantity) -> bool:
    return c.terms in expressions(*q.calculation.terms)
