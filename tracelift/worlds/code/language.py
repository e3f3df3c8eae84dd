"""The vocabulary of the code world: what a step is called in a problem, in a plan and in Python, and what it does.

A program reads one line, applies a few steps to a value that is a list of numbers, a word or a number, and prints it.
Each step is an `Op`, written three times: as a problem says it, as a plan says it (no code in it), and as one line of
Python. Its meaning is a fourth, independent copy: a function on values. Tests run the Python in the sandbox against
the meanings, so a slip in any one copy is found.

Left out on purpose: nested lists, several inputs, functions. The point is what a plan adds, not the language.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Value = list[int] | str | int
Meaning = Callable[..., Value]  # (a value, the step's argument) -> the value after the step
VOWELS = "aeiou"
READS = {  # type: (the problem's first sentence, the program's first line)
    "numbers": ("Read a list of numbers.", "a = list(map(int, input().split()))"),
    "word": ("Read a word.", "s = input()"),
    "number": ("Read a number.", "n = int(input())"),
}
PRINTS = {  # type: (the plan's last sentence, the program's last line)
    "numbers": ("Print the list.", "print(*a)"),
    "word": ("Print the word.", "print(s)"),
    "number": ("Print the number.", "print(n)"),
}


@dataclass(frozen=True)
class Op:
    """One kind of step. `{k}` in the texts is its argument, a whole number in low..high; low = 0 means it has none."""

    name: str
    takes: str
    gives: str
    said: str  # in a problem
    planned: str  # in a plan
    code: str
    meaning: Meaning
    low: int = 0
    high: int = 0

    @property
    def has_argument(self) -> bool:
        return self.low > 0


def _halve_while(n: int, k: int) -> int:
    while n > k:
        n //= 2
    return n


def _numbers(
    name: str, said: str, planned: str, code: str, meaning: Meaning, low: int = 0, high: int = 0, gives: str = "numbers"
) -> Op:
    return Op(name, "numbers", gives, said, planned, code, meaning, low, high)


def _word(
    name: str, said: str, planned: str, code: str, meaning: Meaning, low: int = 0, high: int = 0, gives: str = "word"
) -> Op:
    return Op(name, "word", gives, said, planned, code, meaning, low, high)


def _number(name: str, said: str, planned: str, code: str, meaning: Meaning, low: int = 0, high: int = 0) -> Op:
    return Op(name, "number", "number", said, planned, code, meaning, low, high)


_OPS: tuple[Op, ...] = (
    _numbers("add_each", "Add {k} to every number.", "Add {k} to each.", "a = [x + {k} for x in a]",
             lambda a, k: [x + k for x in a], 2, 30),
    _numbers("multiply_each", "Multiply every number by {k}.", "Multiply each by {k}.", "a = [x * {k} for x in a]",
             lambda a, k: [x * k for x in a], 2, 30),
    _numbers("above", "Keep only the numbers above {k}.", "Keep those above {k}.", "a = [x for x in a if x > {k}]",
             lambda a, k: [x for x in a if x > k], 2, 30),
    _numbers("at_least", "Drop the numbers that are below {k}.", "Keep those from {k} on.", "a = [x for x in a if x >= {k}]",
             lambda a, k: [x for x in a if not x < k], 2, 30),
    _numbers("below", "Keep only the numbers below {k}.", "Keep those below {k}.", "a = [x for x in a if x < {k}]",
             lambda a, k: [x for x in a if x < k], 6, 30),
    _numbers("at_most", "Drop the numbers that are above {k}.", "Keep those up to {k}.", "a = [x for x in a if x <= {k}]",
             lambda a, k: [x for x in a if not x > k], 6, 30),
    _numbers("remainders", "Replace every number by its remainder by {k}.", "Remainder of each by {k}.", "a = [x % {k} for x in a]",
             lambda a, k: [x - x // k * k for x in a], 3, 30),
    _numbers("first", "Keep the first {k} numbers.", "Keep the first {k}.", "a = a[:{k}]",
             lambda a, k: [x for i, x in enumerate(a) if i < k], 2, 4),
    _numbers("last", "Keep the last {k} numbers.", "Keep the last {k}.", "a = a[-{k}:]",
             lambda a, k: [x for i, x in enumerate(a) if i >= len(a) - k], 2, 4),
    _numbers("sort_up", "Sort the numbers.", "Sort up.", "a = sorted(a)",
             lambda a, k: sorted(a)),
    _numbers("sort_down", "Sort the numbers, the largest first.", "Sort down.", "a = sorted(a)[::-1]",
             lambda a, k: sorted(a, key=lambda x: -x)),
    _numbers("reverse_list", "Reverse the list.", "Reverse the list.", "a = a[::-1]",
             lambda a, k: list(reversed(a))),
    _numbers("sum", "Add them all up.", "Take the sum.", "n = sum(a)",
             lambda a, k: sum(a), gives="number"),
    _numbers("largest", "Take the largest number, or 0 if none is left.", "Take the largest.", "n = max(a, default=0)",
             lambda a, k: sorted([*a])[-1] if a else 0, gives="number"),
    _numbers("count", "Count them.", "Take the count.", "n = len(a)",
             lambda a, k: sum(1 for _ in a), gives="number"),
    _word("reverse_word", "Turn the word around.", "Turn it around.", "s = s[::-1]",
          lambda s, k: "".join(reversed(s))),
    _word("no_vowels", "Leave out the vowels.", "Drop the vowels.", 's = "".join(c for c in s if c not in "aeiou")',
          lambda s, k: s.translate({ord(v): None for v in VOWELS})),
    _word("double_letters", "Write every letter twice.", "Double each letter.", 's = "".join(c + c for c in s)',
          lambda s, k: "".join(c * 2 for c in s)),
    _word("start", "Keep the first {k} letters.", "Keep the start, {k} letters.", "s = s[:{k}]",
          lambda s, k: "".join(c for i, c in enumerate(s) if i < k), 2, 9),
    _word("end", "Keep the last {k} letters.", "Keep the end, {k} letters.", "s = s[-{k}:]",
          lambda s, k: "".join(c for i, c in enumerate(s) if i >= len(s) - k), 2, 9),
    _word("repeat", "Write the word {k} times.", "Repeat it {k} times.", "s = s * {k}",
          lambda s, k: "".join(s for _ in range(k)), 2, 9),
    _word("length", "Count the letters.", "Take the length.", "n = len(s)",
          lambda s, k: sum(1 for _ in s), gives="number"),
    _word("vowels", "Count the vowels.", "Count the vowels.", 'n = sum(c in "aeiou" for c in s)',
          lambda s, k: sum(s.count(v) for v in VOWELS), gives="number"),
    _number("add", "Add {k} to the number.", "Add {k}.", "n = n + {k}",
            lambda n, k: n + k, 2, 30),
    _number("multiply", "Multiply the number by {k}.", "Multiply by {k}.", "n = n * {k}",
            lambda n, k: n * k, 2, 30),
    _number("remainder", "Take the remainder by {k}.", "Remainder by {k}.", "n = n % {k}",
            lambda n, k: n - n // k * k, 5, 30),
    _number("if_above", "If the number is above {k}, subtract {k}.", "If above {k}, subtract it.", "if n > {k}: n = n - {k}",
            lambda n, k: n - k if n > k else n, 2, 30),
    _number("if_even", "If the number is even, halve it.", "If even, halve.", "if n % 2 == 0: n = n // 2",
            lambda n, k: n if n & 1 else n >> 1),
    _number("halve_while", "As long as the number is above {k}, halve it.", "While above {k}, halve.", "while n > {k}: n = n // 2",
            _halve_while, 2, 30),
    _number("double_times", "Double the number {k} times.", "Loop {k} times, double.", "for i in range({k}): n = n * 2",
            lambda n, k: n << k, 2, 9),
    _number("digits", "Add up the digits of the number.", "Sum the digits.", "n = sum(map(int, str(n)))",
            lambda n, k: sum(ord(c) - 48 for c in str(n))),
)  # fmt: skip

OPS: dict[str, Op] = {op.name: op for op in _OPS}

# What each step is easily taken for: same types, same argument, another deed.
SIBLINGS: dict[str, tuple[str, ...]] = {
    "add_each": ("multiply_each", "remainders"), "multiply_each": ("add_each", "remainders"), "remainders": ("add_each", "multiply_each"),
    "above": ("below", "at_most"), "at_least": ("below", "at_most"), "below": ("above", "at_least"), "at_most": ("above", "at_least"),
    "first": ("last",), "last": ("first",), "sort_up": ("sort_down", "reverse_list"), "sort_down": ("sort_up", "reverse_list"),
    "reverse_list": ("sort_up", "sort_down"), "sum": ("largest", "count"), "largest": ("sum", "count"), "count": ("sum", "largest"),
    "reverse_word": ("double_letters", "no_vowels"), "no_vowels": ("double_letters", "reverse_word"),
    "double_letters": ("reverse_word", "no_vowels"), "start": ("end", "repeat"), "end": ("start", "repeat"), "repeat": ("start", "end"),
    "length": ("vowels",), "vowels": ("length",), "add": ("multiply", "remainder"), "multiply": ("add", "remainder"),
    "remainder": ("add", "multiply"), "if_above": ("halve_while", "remainder"), "halve_while": ("if_above", "remainder"),
    "double_times": ("multiply", "add"), "if_even": ("digits",), "digits": ("if_even",),
}  # fmt: skip
BOUNDS = {"above": "at_least", "at_least": "above", "below": "at_most", "at_most": "below"}  # off by one at the edge


@dataclass(frozen=True)
class Step:
    """An op with its argument (0 where it has none), and the quantity the argument is, if it is one."""

    op: str
    k: int = 0
    name: str | None = None

    @property
    def planned(self) -> str:
        return OPS[self.op].planned.format(k=f"{self.name} = {self.k}" if self.name else self.k)


Program = tuple[Step, ...]


def result_type(start: str, steps: Program) -> str | None:
    """The type of the value after all steps, or None where a step meets a value of another type."""
    kind = start
    for step in steps:
        if OPS[step.op].takes != kind:
            return None
        kind = OPS[step.op].gives
    return kind


def run(steps: Program, value: Value) -> Value:
    """What the steps make of a value, by the ops' meanings."""
    for step in steps:
        value = OPS[step.op].meaning(value, step.k)
    return value


def write_python(start: str, steps: Program, prints: str | None = None) -> str:
    """The program text: one line to read, one a step, one to print (`prints` overrides the type it thinks it prints)."""
    kind = prints or result_type(start, steps) or start
    return "\n".join([READS[start][1], *(OPS[s.op].code.format(k=s.k) for s in steps), PRINTS[kind][1]])


def show_value(value: Value) -> str:
    """A value as the program prints it."""
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
