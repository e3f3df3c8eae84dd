"""A plan as data: its calculations, steps and last sentence, read from text and written back.

The executor that follows a plan to the letter writes `Plan.program`; flaws are edits of a `Plan`; the validity check
reads one. A plan may end in code that it should not hold (`leaked`), which following it changes nothing about.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from tracelift.worlds.code.language import OPS, PRINTS, Program, Step, Value, result_type, run, write_python
from tracelift.worlds.code.problems import PlanProblem, render_calculation

CODE_MARK = "Code:"
_SENTENCE = re.compile(r"[^.\n]+\.")
_CALCULATION = re.compile(r"([a-z]): (\d+) ([-+*]) (\d+) = (\d+)\.")
_STEPS = [
    (op.name, re.compile(re.escape(op.planned).replace(r"\{k\}", r"(?:([a-z]) = )?(\d+)"))) for op in OPS.values()
]
_ENDS = {sentence: kind for kind, (sentence, _) in PRINTS.items()}


@dataclass(frozen=True)
class Calculation:
    """`name: left op right = value.`"""

    name: str
    left: int
    op: str
    right: int
    value: int

    def __str__(self) -> str:
        return render_calculation(self.name, self.left, self.op, self.right, self.value)

    @property
    def true_value(self) -> int:
        return {"+": self.left + self.right, "-": self.left - self.right, "*": self.left * self.right}[self.op]

    @property
    def true(self) -> bool:
        return self.value == self.true_value


@dataclass(frozen=True)
class Plan:
    """`end` is the type that the last sentence prints. Calculations come first, as in every reference."""

    calculations: tuple[Calculation, ...]
    steps: Program
    end: str
    leaked: str = ""

    def __str__(self) -> str:
        sentences = [*map(str, self.calculations), *(s.planned for s in self.steps), PRINTS[self.end][0]]
        return " ".join(sentences) + (f" {CODE_MARK} {self.leaked}" if self.leaked else "")

    def program(self, start: str) -> str:
        """The Python text that follows this plan, right or wrong."""
        return write_python(start, self.steps, self.end)


def reference_plan(problem: PlanProblem) -> Plan:
    calculations = tuple(Calculation(q.name, *q.terms, q.value) for q in problem.quantities if q.parent)
    return Plan(calculations, problem.steps, problem.end)


def read_plan(text: str) -> Plan | None:
    """The plan that a text states, or None where a sentence is not the world's or stands out of place."""
    text, mark, leaked = text.partition(CODE_MARK)
    sentences = [s.strip() for s in _SENTENCE.findall(text)]
    if _SENTENCE.sub("", text).strip() or not sentences or sentences[-1] not in _ENDS or (mark and not leaked.strip()):
        return None
    calculations: list[Calculation] = []
    steps: list[Step] = []
    for sentence in sentences[:-1]:
        if m := _CALCULATION.fullmatch(sentence):
            if steps:
                return None
            calculations.append(Calculation(m[1], int(m[2]), m[3], int(m[4]), int(m[5])))
        elif (step := _read_step(sentence)) is not None:
            steps.append(step)
        else:
            return None
    return Plan(tuple(calculations), tuple(steps), _ENDS[sentences[-1]], leaked.strip())


def _read_step(sentence: str) -> Step | None:
    for name, pattern in _STEPS:
        if m := pattern.fullmatch(sentence):
            return Step(name, int(m[2]), m[1]) if m.groups() else Step(name)
    return None


def same_results(problem: PlanProblem, plan: Plan, inputs: list[Value]) -> bool:
    """Whether the program that follows `plan` prints what the reference prints, on all of `inputs`."""
    if result_type(problem.start, plan.steps) != problem.end or plan.end != problem.end:
        return False
    if any(s.op == "remainder" and s.k == 0 or s.op == "remainders" and s.k == 0 for s in plan.steps):
        return False
    return all(run(plan.steps, x) == run(problem.steps, x) for x in inputs)


def with_steps(plan: Plan, steps: list[Step] | Program) -> Plan:
    return replace(plan, steps=tuple(steps))
