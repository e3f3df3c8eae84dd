"""Localized flaws of a sound plan, and their rubric labels by rule.

A flaw changes one place and stays on topic. Two sorts matter to the method:

  A  flaws that change what the program does: a wrong bound, operation, order, constant, a dropped step;
  B  flaws that tests cannot see: a false intermediate claim, a wrong reason, something beside the point or said twice,
     a step that does nothing, and leakage, where the plan hands over the code it was asked not to write.

Which sort a flawed plan turned out to be is known (`Flaw.changes_result`), not assumed: reference and follower are run
on the same inputs. Labels follow one table (RUBRIC). A flaw strikes any telling of the plan and keeps it. A plan that came
out sound by accident (2 times 2 misread as 2 more than 2) is no flaw.

The kinds in HELD_OUT are kept from all that the demo's Reason RM learns from, and no SEEN kind makes one of them. Left
out: two flaws in one plan (misconceptions may combine).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from tracelift.rubrics import CODE_DIMENSIONS as DIMENSIONS
from tracelift.worlds.code.language import BOUNDS, OPS, SIBLINGS, Program, Step, Value, result_type, run
from tracelift.worlds.code.plans import Calculation, Plan, expressions
from tracelift.worlds.code.problems import PlanProblem, Quantity, draw_input
from tracelift.worlds.code.validity import check_plan

# kind: labels 0–4 in the order of DIMENSIONS (task_understanding, plan_quality, step_coherence, action_support,
# non_leakage), then the total in 0–1: a plan that misleads its reader is worth less than the mean of its parts.
RUBRIC: dict[str | None, tuple[tuple[int, int, int, int, int], float]] = {
    None: ((4, 4, 4, 4, 4), 1.0),
    "end_misread": ((1, 2, 3, 0, 4), 0.2),
    "less_misread": ((0, 2, 3, 0, 4), 0.2),
    "needless_sort": ((3, 2, 2, 3, 4), 0.6),
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
HELD_OUT = ("needless_sort", "irrelevant_step", "end_misread", "less_misread")
FRONT = {"last": "first", "end": "start"}  # what is at the back, taken from the front
UNORDERED = ("sum", "count", "largest")  # what a sort before it is needless for
_INPUTS = 16  # on which follower and reference are compared


@dataclass(frozen=True)
class Flaw:
    """One flawed plan: what was done (`kind`), whether some input gets another output than the reference's, and in which way
    of telling (None: the reference's)."""

    kind: str
    trace: str
    changes_result: bool
    told: str | None = None


def _wrong_bound(p: PlanProblem, plan: Plan, rng: random.Random) -> Plan | None:
    return _replace_first(plan, rng, lambda s: replace(s, op=BOUNDS[s.op]) if s.op in BOUNDS else None)


def _wrong_operation(p: PlanProblem, plan: Plan, rng: random.Random) -> Plan | None:
    return _replace_first(
        plan, rng, lambda s: replace(s, op=rng.choice(others)) if (others := confusable(s.op)) else None
    )


def confusable(op: str) -> list[str]:
    """Its siblings, without those that make it an end_misread or the reverse of one."""
    return [o for o in SIBLINGS[op] if FRONT.get(op) != o and FRONT.get(o) != op]


def _end_misread(p: PlanProblem, plan: Plan, rng: random.Random) -> Plan | None:
    return _replace_first(plan, rng, lambda s: replace(s, op=FRONT[s.op]) if s.op in FRONT else None)


def _wrong_constant(p: PlanProblem, plan: Plan, rng: random.Random) -> Plan | None:
    """A step's argument, or, where its calculation stands inside it, an operand of that."""
    i = next((i for i, c in enumerate(plan.calculations) if c.name in plan.merged), None)
    if i is not None and rng.random() < 0.5:
        c = plan.calculations[i]
        struck = replace(c, right=_slipped(rng, c.right))
        struck = replace(struck, value=struck.true_value)
        told = replace(plan, calculations=_with(plan.calculations, i, struck))
        steps = tuple(replace(s, k=struck.value) if s.name == c.name else s for s in plan.steps)
        return with_steps(told, steps) if struck.value >= 1 else None
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
    for i in rng.sample(range(len(plan.steps)), len(plan.steps)):
        changed = change(plan.steps[i])
        if changed is not None:
            return with_steps(plan, (*plan.steps[:i], changed, *plan.steps[i + 1 :]))
    return None


def with_steps(plan: Plan, steps: Program) -> Plan:
    return replace(plan, steps=steps)


def _with(calculations: tuple[Calculation, ...], i: int, changed: Calculation) -> tuple[Calculation, ...]:
    return (*calculations[:i], changed, *calculations[i + 1 :])


def has_needless_sort(steps: Program) -> bool:
    """Whether a step that does not care for order comes right after a sort. No problem asks for that."""
    return any(a.op.startswith("sort") and b.op in UNORDERED for a, b in pairwise(steps))


def _needless_sort(p: PlanProblem, plan: Plan, rng: random.Random) -> Plan | None:
    places = [i for i, s in enumerate(plan.steps) if s.op in UNORDERED]
    if not places:
        return None
    i, sort = rng.choice(places), Step(rng.choice(("sort_up", "sort_down")), wording=rng.randrange(2))
    return with_steps(plan, (*plan.steps[:i], sort, *plan.steps[i:]))


def _wrong_order(p: PlanProblem, plan: Plan, rng: random.Random) -> Plan | None:
    if len(plan.steps) < 2:
        return None
    i = rng.randrange(len(plan.steps) - 1)
    steps = (*plan.steps[:i], plan.steps[i + 1], plan.steps[i], *plan.steps[i + 2 :])
    return None if has_needless_sort(steps) else with_steps(plan, steps)


def _step_dropped(p: PlanProblem, plan: Plan, rng: random.Random) -> Plan | None:
    i = rng.randrange(len(plan.steps))
    steps = (*plan.steps[:i], *plan.steps[i + 1 :])
    return None if has_needless_sort(steps) else with_steps(plan, steps)


def _slipped(rng: random.Random, value: int) -> int:
    return rng.choice([v for v in (value - 10, value - 2, value - 1, value + 1, value + 2, value + 10) if 2 <= v <= 40])


def recalculate(p: PlanProblem, plan: Plan, change: Callable[[Quantity, Calculation], Calculation]) -> Plan | None:
    """The plan in which each calculation is `change(quantity, what it would be by now)`, consequences carried and told as
    `plan` tells it; None where a result leaves 1..99."""
    values = {q.name: q.value for q in p.quantities[:1]}
    calculations = []
    for q, said in zip(p.quantities[1:], plan.calculations, strict=True):
        now = Calculation(q.name, *q.terms_at(values[q.parent or ""]), 0, q.parent or "")
        changed = change(q, replace(now, value=now.true_value))
        if not 1 <= changed.value <= 99:
            return None
        values[q.name] = changed.value
        ways, way = expressions(*changed.terms), expressions(*q.calculation.terms).index(said.terms)
        calculations.append(changed.told(ways[way]) if way < len(ways) else changed)
    steps = tuple(replace(s, k=values[s.name]) if s.name else s for s in plan.steps)
    return replace(plan, calculations=tuple(calculations), steps=steps)


def misread(c: Calculation) -> Calculation:
    """A sum for a difference or a product, a difference for a sum."""
    struck = replace(c, op="-" if c.op == "+" else "+")
    return replace(struck, value=struck.true_value)


def _strike_one(
    p: PlanProblem, plan: Plan, rng: random.Random, ops: str, strike: Callable[[Calculation], Calculation]
) -> Plan | None:
    """One quantity whose calculation is of `ops` struck, and its consequences carried."""
    fitting = [q.name for q in p.quantities if q.parent and q.calculation.op in ops]
    if not fitting:
        return None
    struck = rng.choice(fitting)
    return recalculate(p, plan, lambda q, c: strike(c) if q.name == struck else c)


def _slip_carried(p: PlanProblem, plan: Plan, rng: random.Random) -> Plan | None:
    return _strike_one(p, plan, rng, "+-*", lambda c: replace(c, value=_slipped(rng, c.value)))


def _relation_misread(p: PlanProblem, plan: Plan, rng: random.Random) -> Plan | None:
    return _strike_one(p, plan, rng, "+*", misread)


def _less_misread(p: PlanProblem, plan: Plan, rng: random.Random) -> Plan | None:
    return _strike_one(p, plan, rng, "-", misread)


def _slip_not_carried(p: PlanProblem, plan: Plan, rng: random.Random) -> Plan | None:
    if not plan.calculations:
        return None
    i = rng.randrange(len(plan.calculations))
    struck = replace(plan.calculations[i], value=_slipped(rng, plan.calculations[i].value))
    return replace(plan, calculations=_with(plan.calculations, i, struck))


def other_names(p: PlanProblem, c: Calculation) -> list[str]:
    """Names that would be a wrong reason for `c`. That of the unused quantity is none where `c` is how it is worked out."""
    names = [q.name for q in p.quantities if q.name != c.name]
    unused = [q.name for q in [p.unused] if q is not None and q.calculation.terms not in expressions(*c.terms)]
    return [*names, *unused]


def _wrong_reason(p: PlanProblem, plan: Plan, rng: random.Random) -> Plan | None:
    """A right result under another quantity's name; inside a step both say that name."""
    if not plan.calculations:
        return None
    i = rng.randrange(len(plan.calculations))
    c = plan.calculations[i]
    name = rng.choice(other_names(p, c))
    struck = replace(plan, calculations=_with(plan.calculations, i, replace(c, name=name)))
    if c.name not in plan.merged:
        return struck
    steps = tuple(replace(s, name=name) if s.name == c.name else s for s in plan.steps)
    return replace(struck, steps=steps, merged=tuple(name if m == c.name else m for m in plan.merged))


def _irrelevant_step(p: PlanProblem, plan: Plan, rng: random.Random) -> Plan | None:
    if p.unused is None:
        return None
    extra = p.unused.calculation
    extra = extra.told(rng.choice(expressions(*extra.terms)))
    known = [q.name for q in p.quantities].index(p.unused.parent or "")  # calculations that its parent needs
    at = rng.randint(known, len(plan.calculations))
    return replace(plan, calculations=(*plan.calculations[:at], extra, *plan.calculations[at:]))


def _duplicated_step(p: PlanProblem, plan: Plan, rng: random.Random) -> Plan | None:
    if not plan.calculations:
        return None
    i = rng.randrange(len(plan.calculations))
    at = rng.randint(i + 1, len(plan.calculations))
    return replace(plan, calculations=(*plan.calculations[:at], plan.calculations[i], *plan.calculations[at:]))


_NO_OPS = {"numbers": (Step("add_each", 0), Step("multiply_each", 1)), "word": (Step("repeat", 1),),
           "number": (Step("add", 0), Step("multiply", 1))}  # fmt: skip


def _no_op_step(p: PlanProblem, plan: Plan, rng: random.Random) -> Plan | None:
    at = rng.randint(0, len(plan.steps))
    kind = result_type(p.start, plan.steps[:at])
    idle = replace(rng.choice(_NO_OPS[kind or p.start]), wording=rng.randrange(2))
    return with_steps(plan, (*plan.steps[:at], idle, *plan.steps[at:]))


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
    "program_leaked": _program_leaked, "needless_sort": _needless_sort, "end_misread": _end_misread,
    "less_misread": _less_misread,
}  # fmt: skip
SEEN = tuple(kind for kind in FLAWS if kind not in HELD_OUT)  # what the demo's Reason RM learns from
UNTESTED = (  # kinds that no test notices
    "needless_sort",
    "slip_not_carried",
    "wrong_reason",
    "irrelevant_step",
    "duplicated_step",
    "no_op_step",
    "line_leaked",
    "program_leaked",
)


def same_results(problem: PlanProblem, plan: Plan, inputs: list[Value]) -> bool:
    """Whether the program that follows `plan` prints what the reference prints, on all of `inputs`."""
    if result_type(problem.start, plan.steps) != problem.end or plan.end != problem.end:
        return False
    if any(s.op in ("remainder", "remainders") and s.k == 0 for s in plan.steps):
        return False
    return all(run(plan.steps, x) == run(problem.steps, x) for x in inputs)


def apply_flaw(problem: PlanProblem, kind: str, rng: random.Random, struck: Plan | None = None) -> Flaw | None:
    """Strike the reference plan, or another sound one, with one flaw; None where it does not fit, would change nothing it
    should change, or leaves a sound plan."""
    flawed = FLAWS[kind](problem, struck or problem.reference, rng)
    plan = None if flawed is None else flawed.settled()
    if plan is None or check_plan(problem, str(plan)).valid:
        return None
    edges = tuple(s.k for s in problem.steps if s.k)
    inputs = [draw_input(rng, problem.start, edges) for _ in range(_INPUTS)]
    changes = not same_results(problem, plan, inputs)
    if not changes and kind not in UNTESTED:
        return None  # swapped steps that commute, a bound that no number meets: not the flaw that the kind names
    return Flaw(kind, str(plan), changes)


def all_flaws(
    problem: PlanProblem,
    rng: random.Random,
    told: Sequence[tuple[str, Plan]] = (),
    kinds: Sequence[str] = tuple(FLAWS),
) -> Iterator[Flaw]:
    """One flaw of each of `kinds` that fits this problem, in a random order of kinds. told: (kind, sound plan told otherwise);
    each flaw strikes the reference or one of these, as drawn."""
    for kind in rng.sample(sorted(kinds), len(kinds)):
        name, struck = rng.choice([(None, None), *told]) if told else (None, None)
        flaw = apply_flaw(problem, kind, rng, struck)
        if flaw is not None:
            yield replace(flaw, told=name)


def rubric_of(kind: str | None) -> tuple[dict[str, int], float]:
    """(labels by dimension 0–4, total 0–1) for a flaw kind; None is the reference plan."""
    labels, total = RUBRIC[kind]
    return dict(zip(DIMENSIONS, labels, strict=True)), total
