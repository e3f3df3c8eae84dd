"""Generator of small programming tasks with exact reference plans and programs.

A problem names a few quantities and tells two to four steps:

    Read a list of numbers. Here p is 6. Here q is 4 more than p. Then add them all up. But just before that, keep only
    the numbers above q. Print the result.

The plan works out what the program needs and puts it in order, without code:

    q: 6 + 4 = 10. Keep those above q = 10. Take the sum. Print the number.

Two things make a plan useful. Quantities are told through each other, so a constant of the program is the
end of a short calculation; and steps are told out of order ("but just before that"), before or after the quantities they
need. A program has no room to work either out: whoever writes it without a plan must do so in one forward pass. How much
there is to work out differs: about a third of the problems have one to three steps and nothing to calculate.

The reference plan is one of many sound tellings (tellings.py), drawn per problem; it tells every result.

Left out: problems whose steps undo or swallow each other. Where sample inputs give fewer than three different outputs, or
the same without one of the steps, the problem is drawn again.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from tracelift.worlds.code.language import (
    OPS,
    READS,
    Program,
    Step,
    Value,
    result_type,
    run,
    show_value,
    write_python,
)
from tracelift.worlds.code.plans import Calculation, Expression, Plan
from tracelift.worlds.code.tellings import retold

NAMES = ("p", "q", "r", "t")
LOW, HIGH = 2, 30  # of every quantity
BACK = ("last", "end")  # told more often than their share: few problems have room for them
LETTERS = "aabcdeeghiiklmnooprstuuw"


@dataclass(frozen=True)
class Quantity:
    """`name` is `factor · parent + offset`, or just `offset` where there is no parent. One of the two is plain (1 or 0)."""

    name: str
    value: int
    parent: str | None = None
    parent_value: int = 0
    factor: int = 1
    offset: int = 0

    @property
    def said(self) -> str:
        if self.parent is None:
            return f"Here {self.name} is {self.value}."
        if self.factor != 1:
            return f"Here {self.name} is {self.factor} times {self.parent}."
        word = "more" if self.offset > 0 else "less"
        return f"Here {self.name} is {abs(self.offset)} {word} than {self.parent}."

    @property
    def calculation(self) -> Calculation:
        """How it is worked out; of a quantity with a parent."""
        return Calculation(self.name, *self.terms_at(self.parent_value), self.value, self.parent or "")

    def terms_at(self, parent: int) -> Expression:
        """Operands and operator, were its parent's value `parent`."""
        if self.factor != 1:
            return self.factor, "*", parent
        return parent, "+" if self.offset > 0 else "-", abs(self.offset)


@dataclass(frozen=True)
class PlanProblem:
    """One task, all that is known of it."""

    problem_id: str
    text: str
    start: str  # type of the input
    steps: Program  # in the order of execution
    told: tuple[int, ...]  # the steps' indices in the order of the text
    quantities: tuple[Quantity, ...]  # in the order of dependency; the first, if any, has no parent
    unused: Quantity | None = field(default=None)  # told, but no step needs it

    @property
    def end(self) -> str:
        kind = result_type(self.start, self.steps)
        if kind is None:
            raise ValueError(f"{self.problem_id}: the reference steps do not fit each other: {self.steps}")
        return kind

    @property
    def plan(self) -> Plan:
        """What a sound plan says, each sentence in its usual wording."""
        return Plan(tuple(q.calculation for q in self.quantities if q.parent), self.steps, self.end)

    @cached_property
    def reference(self) -> Plan:
        """The reference plan: a telling of `plan` that hangs on the problem's id alone."""
        return retold(self.plan, random.Random(f"reference:{self.problem_id}"))

    @property
    def trace(self) -> str:
        """The text of the reference plan."""
        return str(self.reference)

    @property
    def program(self) -> str:
        """The reference program."""
        return write_python(self.start, self.steps)


def make_problem(seed: int, index: int) -> PlanProblem:
    """Problem `index` of the endless series named by `seed`: the same arguments always give the same problem."""
    rng = random.Random(f"code-world:{seed}:{index}")
    while True:
        problem = _attempt(rng, f"code-{seed}-{index}")
        if problem is not None:
            return problem


def _draw_quantities(rng: random.Random, names: Sequence[str]) -> list[Quantity] | None:
    """A chain: each quantity is told through the one before it."""
    chain = [Quantity(name, rng.randint(2, 12)) for name in names[:1]]
    for name in names[1:]:
        parent, kind = chain[-1], rng.choice(("more", "less", "times"))
        factor, offset = 1, 0
        if kind == "times":
            factor = rng.randint(2, 3)
        else:
            offset = rng.randint(2, 6) * (1 if kind == "more" else -1)
        value = factor * parent.value + offset
        if not LOW <= value <= HIGH:
            return None
        chain.append(Quantity(name, value, parent.name, parent.value, factor, offset))
    return chain


def _draw_steps(rng: random.Random, start: str, count: int) -> list[str]:
    """Names of `count` steps that fit each other, none twice."""
    kind, chosen = start, []
    for _ in range(count):
        fitting = [op for op in OPS.values() if op.takes == kind and op.name not in chosen]
        weights = [4.0 if op.name in BACK else 2.0 if op.has_argument else 1.0 for op in fitting]
        op = rng.choices(fitting, weights)[0]
        chosen.append(op.name)
        kind = op.gives
    return chosen


def _attempt(rng: random.Random, problem_id: str) -> PlanProblem | None:
    start = rng.choices(("numbers", "word", "number"), (5, 2, 3))[0]
    names = rng.sample(NAMES, 4)
    length = rng.choices((0, 1, 2, 3), (2, 3, 7, 14))[0]
    chain = _draw_quantities(rng, names[:length])
    ops = _draw_steps(rng, start, rng.randint(2, 4) if length > 1 else rng.choice((1, 1, 2, 3)))
    if chain is None:
        return None
    steps: list[Step] = []
    for name in ops:
        op = OPS[name]
        fitting = op.has_argument and bool(chain) and op.low <= chain[-1].value <= op.high
        if not op.has_argument:
            steps.append(Step(name))
        elif fitting and rng.random() < (0.25 if any(s.name for s in steps) else 0.85):
            steps.append(Step(name, chain[-1].value, chain[-1].name))
        else:
            steps.append(Step(name, rng.randint(op.low, op.high)))
    if chain and chain[-1].name not in [s.name for s in steps]:  # then the end of the chain would be beside the point
        return None
    if not _varied(rng, start, tuple(steps)):
        return None
    unused = None
    if chain and rng.random() < 0.4:
        parent = rng.choice(chain)
        offset = rng.randint(2, 6)
        if parent.value + offset > HIGH:
            return None
        unused = Quantity(names[3], parent.value + offset, parent.name, parent.value, 1, offset)
    told = _order_of_telling(rng, len(steps))
    quantities = list(chain)
    if unused is not None:
        known = [q.name for q in chain].index(unused.parent or "")
        quantities.insert(rng.randint(known + 1, len(chain)), unused)
    text = _tell(rng, start, steps, told, quantities)
    return PlanProblem(problem_id, text, start, tuple(steps), told, tuple(chain), unused)


def _order_of_telling(rng: random.Random, count: int) -> tuple[int, ...]:
    """Neighbours swapped here and there: the later one is told first, the earlier one with "But just before that"."""
    told, i = [], 0
    while i < count:
        if i + 1 < count and rng.random() < 0.4:
            told += [i + 1, i]
            i += 2
        else:
            told.append(i)
            i += 1
    return tuple(told)


def _tell(rng: random.Random, start: str, steps: list[Step], told: tuple[int, ...], quantities: list[Quantity]) -> str:
    actions = []
    for at, i in enumerate(told):
        said = OPS[steps[i].op].said.format(k=steps[i].name or steps[i].k)
        lead = "But just before that," if at > 0 and told[at - 1] == i + 1 else "Then"
        actions.append(f"{lead} {said[0].lower()}{said[1:]}")
    facts = [q.said for q in quantities]
    middle = [*facts, *actions] if rng.random() < 0.5 else [*actions, *facts]
    return " ".join([READS[start][0], *middle, "Print the result."])


def draw_input(rng: random.Random, start: str, edges: tuple[int, ...] = ()) -> Value:
    """A random input of the given type. `edges` are numbers worth meeting, and their neighbours."""
    if start == "word":
        return "".join(rng.choice(LETTERS) for _ in range(rng.randint(4, 12)))
    near = [k + d for k in edges for d in (-1, 0, 0, 1)]
    if start == "number":
        return rng.choice(near) if near and rng.random() < 0.5 else rng.randint(0, 99)
    values = [rng.randint(0, 50) for _ in range(rng.randint(4, 8))]
    return rng.sample(values + rng.sample(near, min(2, len(near))), len(values) + min(2, len(near)))


def show_input(value: Value) -> str:
    """An input as the line of stdin that the program reads."""
    return (" ".join(map(str, value)) if isinstance(value, list) else str(value)) + "\n"


def _varied(rng: random.Random, start: str, steps: Program) -> bool:
    """Whether six inputs give at least three different outputs, most of them not empty and none absurdly long, and every
    step that can be left out makes a difference to one of them."""
    edges = tuple(s.k for s in steps if s.k)
    inputs = [draw_input(rng, start, edges) for _ in range(6)]
    outputs = [show_value(run(steps, x)) for x in inputs]
    if len(set(outputs)) < 3 or sum(map(bool, outputs)) < 4 or max(map(len, outputs)) > 120:
        return False
    kind = result_type(start, steps)
    shorter = [(*steps[:i], *steps[i + 1 :]) for i in range(len(steps))]
    return not any(
        result_type(start, other) == kind and [show_value(run(other, x)) for x in inputs] == outputs
        for other in shorter
    )
