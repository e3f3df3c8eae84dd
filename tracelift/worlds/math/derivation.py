"""Derivations of the math world: steps over the story's numbers and earlier results, what they come to, how they are told.

A trace is a row of sentences `reason: expression = result.`; the last one leaves its result to the executor. A step may be
told inline, inside the sentence of the one step that uses it: `Left: 12 + 12 - 5.` tells two steps, and leaves both results
to the reader.

    Bags: 3 * 4 = 12. More: 12 + 12 = 24. Left: 24 - 5.

Left out: brackets, and more than three numbers in a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

LARGEST = 99
# reason: the other word for it
REWORDED = {
    "More": "Gain", "Left": "Rest", "Bags": "Packs", "Days": "Used", "Half": "Halved", "Fewer": "Less",
    "Extra": "Above", "Times": "Fold", "Both": "All",
}  # fmt: skip
LABELS = (*REWORDED, *REWORDED.values())
_FIRST_WORD = {other: label for label, other in REWORDED.items()}


@dataclass(frozen=True)
class Step:
    """One step of a derivation: `label: left op right = result`.

    `left` and `right` are either a number given in the story or, as a negative integer −1−i, the result of step i. `kind` is
    the event behind the step: what flaws and habits are keyed by. `exchanged`: its operands stand the other way round than
    the story has them. `inline`: told inside the sentence of the step that uses it.
    """

    label: str
    left: int
    op: str
    right: int
    kind: str = ""
    exchanged: bool = False
    inline: bool = False

    @property
    def uses(self) -> tuple[int, ...]:
        """The steps whose results it needs."""
        return tuple(-1 - operand for operand in (self.left, self.right) if operand < 0)


Steps = tuple[Step, ...]


@dataclass(frozen=True)
class Sentence:
    """`label: numbers[0] ops[0] numbers[1] … = result.`; result None is left to the executor."""

    label: str
    numbers: tuple[int, ...]
    ops: tuple[str, ...]
    result: int | None

    def __str__(self) -> str:
        told = " ".join(
            [str(self.numbers[0]), *(f"{op} {n}" for op, n in zip(self.ops, self.numbers[1:], strict=True))]
        )
        return f"{self.label}: {told}" + ("." if self.result is None else f" = {self.result}.")

    @property
    def value(self) -> int | None:
        """What the expression comes to, * and / before + and −; None where it leaves the world's numbers."""
        return value_of(self.numbers, self.ops)


_SENTENCE = re.compile(r"([A-Z][a-z]+): (\d+(?: [-+*/] \d+){1,2})(?: = (\d+))?\.")


def read_sentences(trace: str) -> list[Sentence] | None:
    """The sentences of a trace; None where anything in it is no sentence of the world, or there is none."""
    found = [
        Sentence(label, tuple(map(int, told.split()[::2])), tuple(told.split()[1::2]), int(result) if result else None)
        for label, told, result in _SENTENCE.findall(trace)
    ]
    return found if found and not _SENTENCE.sub("", trace).strip() else None


def same_reason(one: str, other: str) -> bool:
    return _FIRST_WORD.get(one, one) == _FIRST_WORD.get(other, other)


def compute(left: int | None, op: str, right: int | None) -> int | None:
    """The value of one operation, or None where it leaves the world's 0..99 or divides unevenly."""
    if left is None or right is None:
        return None
    if op == "/":
        value = left // right if right and left % right == 0 else -1
    else:
        value = {"+": left + right, "-": left - right, "*": left * right}[op]
    return value if 0 <= value <= LARGEST else None


def value_of(numbers: Sequence[int], ops: Sequence[str]) -> int | None:
    """The value of `numbers[0] ops[0] numbers[1] …`, three numbers at most."""
    if len(ops) == 1:
        return compute(numbers[0], ops[0], numbers[1])
    a, b, c = numbers
    if binds_right(*ops):
        return compute(a, ops[0], compute(b, ops[1], c))
    return compute(compute(a, ops[0], b), ops[1], c)


def binds_right(first: str, second: str) -> bool:
    """Whether in `a first b second c` the second operation comes before the first."""
    return first in "+-" and second in "*/"


def resolve(operand: int, results: Sequence[int]) -> int:
    return results[-1 - operand] if operand < 0 else operand


def evaluate(steps: Steps) -> list[int] | None:
    """Results of all steps in order, or None where one leaves the world."""
    results: list[int] = []
    for step in steps:
        value = compute(resolve(step.left, results), step.op, resolve(step.right, results))
        if value is None:
            return None
        results.append(value)
    return results


def may_be_inline(steps: Steps, i: int) -> bool:
    """Whether step i can be told inside the sentence of the one step that uses it: no brackets, three numbers."""
    users = [s for s in steps if i in s.uses]
    if len(users) != 1 or users[0].left == users[0].right or any(steps[j].inline for j in steps[i].uses):
        return False
    user, mine = users[0], steps[i].op
    if user.inline or any(steps[j].inline for j in user.uses if j != i):
        return False
    if user.right == -1 - i:
        return binds_right(user.op, mine)
    return not binds_right(mine, user.op)


def fitted(steps: Steps) -> Steps:
    """The steps with every inline told apart that cannot be inline (any more)."""
    out = tuple(replace(s, inline=False) for s in steps)
    for i, s in enumerate(steps):
        if s.inline and may_be_inline(out, i):
            out = (*out[:i], replace(out[i], inline=True), *out[i + 1 :])
    return out


def tell(steps: Steps, results: Sequence[int] | None = None) -> list[Sentence] | None:
    """The sentences that tell `steps`, the last without its result. results: as stated, where they are not the true ones.
    None where the derivation leaves the world's numbers."""
    steps, found = fitted(steps), evaluate(steps) if results is None else results
    if found is None:
        return None
    out = []
    for i, s in enumerate(steps):
        if s.inline:
            continue
        numbers, ops = _operand(s.left, steps, found)
        more, rest = _operand(s.right, steps, found)
        out.append(Sentence(s.label, (*numbers, *more), (*ops, s.op, *rest), None if i == len(steps) - 1 else found[i]))
    return out


def _operand(operand: int, steps: Steps, results: Sequence[int]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """(numbers, operators) that stand for an operand in its sentence."""
    if operand < 0 and (step := steps[-1 - operand]).inline:
        return (resolve(step.left, results), resolve(step.right, results)), (step.op,)
    return (resolve(operand, results),), ()


def sentence_of(steps: Steps, i: int) -> int:
    """The 0-based sentence in which step i is told."""
    steps = fitted(steps)
    at = next(k for k, s in enumerate(steps) if i in s.uses) if steps[i].inline else i
    return sum(not s.inline for s in steps[:at])


def join(sentences: Iterable[Sentence]) -> str:
    return " ".join(map(str, sentences))
