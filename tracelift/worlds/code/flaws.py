"""Localized flaws of a reference plan, their rubric labels by rule, and the demo planner's misconceptions.

A flaw changes one place and stays on topic. Two sorts matter to the method:

  A  flaws that change what the program does: a wrong bound, operation, order, constant, a dropped step;
  B  flaws that tests cannot see: a false intermediate claim, a wrong reason, something beside the point or said twice,
     a step that does nothing, and leakage, where the plan hands over the code it was asked not to write.

Which sort a flawed plan turned out to be is known (`Flaw.changes_result`), not assumed: reference and follower are run
on the same inputs. Labels follow one table (RUBRIC). Left out: two flaws in one plan (misconceptions may combine).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tracelift.rubrics import CODE_DIMENSIONS as DIMENSIONS
from tracelift.worlds.code.language import BOUNDS, OPS, SIBLINGS, Step, result_type
from tracelift.worlds.code.plans import Calculation, Plan, reference_plan, same_results, with_steps
from tracelift.worlds.code.problems import PlanProblem, Quantity, draw_input

# kind: labels 0–4 in the order of DIMENSIONS (task_understanding, plan_quality, step_coherence, action_support,
# non_leakage), then the total in 0–1: a plan that misleads its reader is worth less than the mean of its parts.
RUBRIC: dict[str | None, tuple[tuple[int, int, int, int, int], float]] = {
    None: ((4, 4, 4, 4, 4), 1.0),
    "wrong_bound": ((1, 3, 3, 0, 4), 0.3),
    "wrong_operation": ((1, 1, 3, 0, 4), 0.2),
    "wrong_order": ((1, 1, 0, 0, 4), 0.2),
    "step_dropped": ((1, 0, 2, 0, 4), 0.2),
    "wrong_constant": ((2, 3, 1, 0, 4), 0.2),
    "wrong_quantity": ((0, 2, 2, 0, 4), 0.2),
    "slip_carried": ((4, 3, 1, 0, 4), 0.3),
    "relation_misread": ((0, 2, 3, 0, 4), 0.2),
    "slip_not_carried": ((4, 3, 0, 3, 4), 0.5),
    "wrong_reason": ((1, 2, 1, 3, 4), 0.5),
    "irrelevant_step": ((1, 2, 2, 3, 4), 0.6),
    "duplicated_step": ((4, 2, 1, 3, 4), 0.6),
    "no_op_step": ((3, 1, 2, 3, 4), 0.5),
    "line_leaked": ((4, 3, 4, 4, 1), 0.5),
    "program_leaked": ((4, 1, 3, 3, 0), 0.3),
}
_INPUTS = 16  # on which follower and reference are compared


@dataclass(frozen=True)
class Flaw:
    """One flawed plan: what was done (`kind`), whether some input gets another output than the reference's, and in which way
    of telling (None: the reference's)."""

    kind: str
    trace: str
    changes_result: bool
    told: str | None = None


def _pick(rng: random.Random, count: int) -> list[int]:
    return rng.sample(range(count), count)


def _wrong_bound(p: PlanProblem, plan: Plan, rng: random.Random) -> Plan | None:
    return _replace_first(plan, rng, lambda s: replace(s, op=BOUNDS[s.op]) if s.op in BOUNDS else None)


def _wrong_operation(p: PlanProblem, plan: Plan, rng: random.Random) -> Plan | None:
    return _replace_first(plan, rng, lambda s: replace(s, op=rng.choice(SIBLINGS[s.op])))


def _wrong_constant(p: PlanProblem, plan: Plan, rng: random.Random) -> Plan | None:
    return _replace_first(plan, rng, lambda s: replace(s, k=_slipped(rng, s.k)) if s.k else None)


def _wrong_quantity(p: PlanProblem, plan: Plan, rng: random.Random) -> Plan | None:
    known = [*p.quantities, *([p.unused] if p.unused else [])]

    def other(s: Step) -> Step | None:
        fitting = [q for q in known if q.value != s.k and OPS[s.op].low <= q.value <= OPS[s.op].high]
        q = rng.choice(fitting) if fitting and s.k else None
        return replace(s, k=q.value, name=q.name) if q else None

    return _replace_first(plan, rng, other)


def _replace_first(plan: Plan, rng: random.Random, change: Callable[[Step], Step | None]) -> Plan | None:
    """The plan with one step changed, at a random place where `change` finds something to do."""
    for i in _pick(rng, len(plan.steps)):
        changed = change(plan.steps[i])
        if changed is not None:
            return with_steps(plan, (*plan.steps[:i], changed, *plan.steps[i + 1 :]))
    return None


def _wrong_order(p: PlanProblem, plan: Plan, rng: random.Random) -> Plan | None:
    i = rng.randrange(len(plan.steps) - 1)
    return with_steps(plan, (*plan.steps[:i], plan.steps[i + 1], plan.steps[i], *plan.steps[i + 2 :]))


def _step_dropped(p: PlanProblem, plan: Plan, rng: random.Random) -> Plan | None:
    i = rng.randrange(len(plan.steps))
    return with_steps(plan, (*plan.steps[:i], *plan.steps[i + 1 :]))


def _slipped(rng: random.Random, value: int) -> int:
    return rng.choice([v for v in (value - 10, value - 2, value - 1, value + 1, value + 2, value + 10) if 2 <= v <= 40])


def _recalculate(p: PlanProblem, plan: Plan, change: Callable[[Quantity, int], Calculation]) -> Plan | None:
    """The plan in which each calculation is `change(quantity, its parent's value by now)`, consequences carried. Operands
    that `plan` exchanges stay exchanged."""
    values = {p.quantities[0].name: p.quantities[0].value}
    calculations = []
    for q, said in zip(p.quantities[1:], plan.calculations, strict=True):
        c = change(q, values[q.parent or ""])
        if not 1 <= c.value <= 99:
            return None
        values[q.name] = c.value
        exchanged = c.op == said.op and said.left != q.terms[0]
        calculations.append(replace(c, left=c.right, right=c.left) if exchanged else c)
    steps = tuple(replace(s, k=values[s.name]) if s.name else s for s in p.steps)
    return Plan(tuple(calculations), steps, p.end)


def _calculate(q: Quantity, parent: int, misread: bool = False, slip: int | None = None) -> Calculation:
    if q.factor != 1:
        left, op, right = (q.factor, "+" if misread else "*", parent)
    else:
        op = "+" if (q.offset > 0) != misread else "-"
        left, right = parent, abs(q.offset)
    c = Calculation(q.name, left, op, right, 0)
    return replace(c, value=c.true_value if slip is None else slip)


def _slip_carried(p: PlanProblem, plan: Plan, rng: random.Random) -> Plan | None:
    struck = rng.choice(p.quantities[1:]).name
    return _recalculate(
        p, plan, lambda q, parent: _calculate(q, parent, slip=_slipped(rng, q.value) if q.name == struck else None)
    )


def _relation_misread(p: PlanProblem, plan: Plan, rng: random.Random) -> Plan | None:
    struck = rng.choice(p.quantities[1:]).name
    return _recalculate(p, plan, lambda q, parent: _calculate(q, parent, misread=q.name == struck))


def _edit_calculation(plan: Plan, rng: random.Random, **change: Any) -> Plan:
    i = rng.randrange(len(plan.calculations))
    edited = replace(plan.calculations[i], **change)
    return replace(plan, calculations=(*plan.calculations[:i], edited, *plan.calculations[i + 1 :]))


def _slip_not_carried(p: PlanProblem, plan: Plan, rng: random.Random) -> Plan | None:
    i = rng.randrange(len(plan.calculations))
    struck = replace(plan.calculations[i], value=_slipped(rng, plan.calculations[i].value))
    return replace(plan, calculations=(*plan.calculations[:i], struck, *plan.calculations[i + 1 :]))


def _wrong_reason(p: PlanProblem, plan: Plan, rng: random.Random) -> Plan | None:
    i = rng.randrange(len(plan.calculations))
    names = [q.name for q in [*p.quantities, *([p.unused] if p.unused else [])] if q.name != plan.calculations[i].name]
    struck = replace(plan.calculations[i], name=rng.choice(names))
    return replace(plan, calculations=(*plan.calculations[:i], struck, *plan.calculations[i + 1 :]))


def _irrelevant_step(p: PlanProblem, plan: Plan, rng: random.Random) -> Plan | None:
    if p.unused is None:
        return None
    extra = Calculation(p.unused.name, *p.unused.terms, p.unused.value)
    known = [q.name for q in p.quantities].index(p.unused.parent or "")  # calculations that its parent needs
    at = rng.randint(known, len(plan.calculations))
    return replace(plan, calculations=(*plan.calculations[:at], extra, *plan.calculations[at:]))


def _duplicated_step(p: PlanProblem, plan: Plan, rng: random.Random) -> Plan | None:
    i = rng.randrange(len(plan.calculations))
    at = rng.randint(i + 1, len(plan.calculations))
    return replace(plan, calculations=(*plan.calculations[:at], plan.calculations[i], *plan.calculations[at:]))


_NO_OPS = {"numbers": (Step("add_each", 0), Step("multiply_each", 1)), "word": (Step("repeat", 1),),
           "number": (Step("add", 0), Step("multiply", 1))}  # fmt: skip


def _no_op_step(p: PlanProblem, plan: Plan, rng: random.Random) -> Plan | None:
    at = rng.randint(0, len(plan.steps))
    kind = result_type(p.start, plan.steps[:at])
    return with_steps(plan, (*plan.steps[:at], rng.choice(_NO_OPS[kind or p.start]), *plan.steps[at:]))


def _line_leaked(p: PlanProblem, plan: Plan, rng: random.Random) -> Plan | None:
    return replace(plan, leaked=rng.choice(plan.program(p.start).split("\n")[1:-1]))


def _program_leaked(p: PlanProblem, plan: Plan, rng: random.Random) -> Plan | None:
    return replace(plan, leaked=plan.program(p.start))


FLAWS: dict[str, Callable[[PlanProblem, Plan, random.Random], Plan | None]] = {
    "wrong_bound": _wrong_bound, "wrong_operation": _wrong_operation, "wrong_order": _wrong_order,
    "step_dropped": _step_dropped, "wrong_constant": _wrong_constant, "wrong_quantity": _wrong_quantity,
    "slip_carried": _slip_carried, "relation_misread": _relation_misread,
    "slip_not_carried": _slip_not_carried, "wrong_reason": _wrong_reason, "irrelevant_step": _irrelevant_step,
    "duplicated_step": _duplicated_step, "no_op_step": _no_op_step, "line_leaked": _line_leaked,
    "program_leaked": _program_leaked,
}  # fmt: skip
UNSEEN = (
    "slip_not_carried",
    "wrong_reason",
    "irrelevant_step",
    "duplicated_step",
    "no_op_step",
    "line_leaked",
    "program_leaked",
)


def apply_flaw(problem: PlanProblem, kind: str, rng: random.Random, struck: Plan | None = None) -> Flaw | None:
    """Strike the reference plan, or another sound one, with one flaw; None where it does not fit, or would change nothing it
    should change."""
    sound = struck or reference_plan(problem)
    plan = FLAWS[kind](problem, sound, rng)
    if plan is None or str(plan) == str(sound):
        return None
    edges = tuple(s.k for s in problem.steps if s.k)
    inputs = [draw_input(rng, problem.start, edges) for _ in range(_INPUTS)]
    changes = not same_results(problem, plan, inputs)
    if not changes and kind not in UNSEEN:
        return None  # swapped steps that commute, a bound that no number meets: not the flaw that the kind names
    return Flaw(kind, str(plan), changes)


def all_flaws(problem: PlanProblem, rng: random.Random, told: Sequence[tuple[str, Plan]] = ()) -> Iterator[Flaw]:
    """One flaw of every kind that fits this problem, in a random order of kinds. told: (kind, sound plan told otherwise);
    each flaw strikes the reference or one of these, as drawn."""
    for kind in rng.sample(sorted(FLAWS), len(FLAWS)):
        name, struck = rng.choice([(None, None), *told]) if told else (None, None)
        flaw = apply_flaw(problem, kind, rng, struck)
        if flaw is not None:
            yield replace(flaw, told=name)


def rubric_of(kind: str | None) -> tuple[dict[str, int], float]:
    """(labels by dimension 0–4, total 0–1) for a flaw kind; None is the reference plan."""
    labels, total = RUBRIC[kind]
    return dict(zip(DIMENSIONS, labels, strict=True)), total
