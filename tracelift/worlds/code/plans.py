"""A plan as data: its calculations, steps and last sentence, read from text and written back.

The executor that follows a plan to the letter writes `Plan.program`; flaws are edits of a `Plan`; the validity check
reads one. A calculation may be merged into the step that uses it, which leaves its result to the executor:

    told apart   q: 6 + 4 = 10. Keep those above q = 10. Print the list.
    merged       Keep those above q = 6 + 4. Print the list.

A plan may end in code that it should not hold (`leaked`), which following it changes nothing about. Left out: what a
plan is for; that is the problem's business (problems.py).
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field, replace

from tracelift.worlds.code.language import OPS, PRINTS, Program, Step, write_python

CODE_MARK = "Code:"
Expression = tuple[int, str, int]  # left, operator, right
_SENTENCE = re.compile(r"[^.\n]+\.")
_CALCULATION = re.compile(r"([a-z]): (\d+) ([-+*]) (\d+) = (\d+)\.")
_ARGUMENT = r"(?:([a-z]) = (?:(\d+) ([-+*]) )?)?(\d+)"  # 4, q = 4 or, merged, q = 3 + 1
_STEPS = [
    (op.name, wording, re.compile(re.escape(text).replace(r"\{k\}", _ARGUMENT)))
    for op in OPS.values()
    for wording, text in enumerate(op.planned)
]
_ENDS = {text: (kind, wording) for kind, (texts, _) in PRINTS.items() for wording, text in enumerate(texts)}


def expressions(left: int, op: str, right: int) -> tuple[Expression, ...]:
    """Every way to write one calculation, the given one first: + and * exchanged, 2 * m as m + m."""
    found = [(left, op, right)]
    if op in "+*":
        found.append((right, op, left))
    if op == "*":
        found += [(m, "+", m) for two, m in ((left, right), (right, left)) if two == 2]
    return tuple(dict.fromkeys(found))


@dataclass(frozen=True)
class Calculation:
    """`name: left op right = value.` parent: the quantity that one of the operands is, where that is known ("" else)."""

    name: str
    left: int
    op: str
    right: int
    value: int
    parent: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.name}: {self.expression} = {self.value}."

    @property
    def terms(self) -> Expression:
        return self.left, self.op, self.right

    @property
    def expression(self) -> str:
        return f"{self.left} {self.op} {self.right}"

    @property
    def true_value(self) -> int:
        return {"+": self.left + self.right, "-": self.left - self.right, "*": self.left * self.right}[self.op]

    @property
    def true(self) -> bool:
        return self.value == self.true_value

    def told(self, terms: Expression) -> Calculation:
        """The same with other operands and operator."""
        left, op, right = terms
        return replace(self, left=left, op=op, right=right)


@dataclass(frozen=True)
class Plan:
    """Calculations come first, then steps; `end` is the type that the last sentence prints. merged: names of the calculations
    that stand inside their step. Two plans that differ in their wording alone are equal."""

    calculations: tuple[Calculation, ...]
    steps: Program
    end: str
    leaked: str = ""
    merged: tuple[str, ...] = ()
    end_wording: int = field(default=0, compare=False)

    def __str__(self) -> str:
        inline = {c.name: c for c in self.calculations if c.name in self.merged}
        sentences = [
            *(str(c) for c in self.calculations if c.name not in inline),
            *(s.text.format(k=f"{s.name} = {inline[s.name].expression}") if s.name in inline else s.planned for s in self.steps),
            PRINTS[self.end][0][self.end_wording],
        ]  # fmt: skip
        return " ".join(sentences) + (f" {CODE_MARK} {self.leaked}" if self.leaked else "")

    def program(self, start: str, rng: random.Random | None = None) -> str:
        """The Python text that follows this plan, right or wrong; with `rng`, in ways drawn by it."""
        return write_python(start, self.steps, self.end, rng)

    def may_merge(self, name: str) -> bool:
        """Whether the calculation called `name` loses nothing but its stated result inside a step: it is the only one of that
        name, its result is what exactly one step takes, and no other calculation is told through it."""
        told = [c for c in self.calculations if c.name == name]
        users = [s for s in self.steps if s.name == name]
        if len(told) != 1 or len(users) != 1 or name in [c.parent for c in self.calculations]:
            return False
        return told[0].true and told[0].value == users[0].k

    def settled(self) -> Plan:
        """The plan after an edit: a calculation that may no longer stand inside its step is told apart."""
        return replace(self, merged=tuple(filter(self.may_merge, self.merged)))


def read_plan(text: str) -> Plan | None:
    """The plan that a text states, or None where a sentence is not the world's, stands out of place or, merged, comes to
    less than nothing. Merged calculations are read after all others, in the order of their steps."""
    text, mark, leaked = text.partition(CODE_MARK)
    sentences = [s.strip() for s in _SENTENCE.findall(text)]
    if _SENTENCE.sub("", text).strip() or not sentences or sentences[-1] not in _ENDS or (mark and not leaked.strip()):
        return None
    apart: list[Calculation] = []
    inside: list[Calculation] = []
    steps: list[Step] = []
    for sentence in sentences[:-1]:
        if m := _CALCULATION.fullmatch(sentence):
            if steps:
                return None
            apart.append(Calculation(m[1], int(m[2]), m[3], int(m[4]), int(m[5])))
            continue
        read = _read_step(sentence)
        if read is None:
            return None
        step, calculation = read
        steps.append(step)
        inside += [calculation] if calculation else []
    end, wording = _ENDS[sentences[-1]]
    merged = tuple(c.name for c in inside)
    return Plan((*apart, *inside), tuple(steps), end, leaked.strip(), merged, wording)


def _read_step(sentence: str) -> tuple[Step, Calculation | None] | None:
    """A step, and the calculation inside it."""
    for name, wording, pattern in _STEPS:
        if m := pattern.fullmatch(sentence):
            if not m.groups():
                return Step(name, wording=wording), None
            quantity, left, op, last = m.groups()
            if op is None:
                return Step(name, int(last), quantity, wording), None
            inline = Calculation(quantity, int(left), op, int(last), 0)
            inline = replace(inline, value=inline.true_value)
            return (Step(name, inline.value, quantity, wording), inline) if inline.value >= 0 else None
    return None
