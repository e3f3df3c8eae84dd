"""The vocabulary of the code world: what a step is called in a problem, in a plan and in Python, and what it does.

A program reads one line, applies a few steps to a value that is a list of numbers, a word or a number, and prints it.
Each step is an `Op`, written three times: as a problem says it, as a plan says it (no code in it) in one or two wordings,
and in one to three ways as Python. Its meaning is a further, independent copy: a function on values. Tests run the Python
against the meanings, so a slip in any one copy is found.

Left out on purpose: nested lists, several inputs, functions. The point is what a plan adds, not the language.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

Value = list[int] | str | int
Meaning = Callable[..., Value]  # (a value, the step's argument) -> the value after the step
VOWELS = "aeiou"
Texts = tuple[str, ...]  # the usual one first
READS: dict[str, tuple[str, Texts]] = {  # type: (the problem's first sentence, ways to code the program's first line)
    "numbers": ("Read a list of numbers.", ("a = list(map(int, input().split()))", "a = [int(x) for x in input().split()]")),
    "word": ("Read a word.", ("s = input()", "s = input().strip()")),
    "number": ("Read a number.", ("n = int(input())",)),
}  # fmt: skip
PRINTS: dict[str, tuple[Texts, Texts]] = {  # type: (wordings of the plan's last sentence, ways to code the last line)
    "numbers": (("Print the list.", "Output the list."), ("print(*a)", 'print(" ".join(map(str, a)))')),
    "word": (("Print the word.", "Output the word."), ("print(s)",)),
    "number": (("Print the number.", "Output the number."), ("print(n)",)),
}


@dataclass(frozen=True)
class Op:
    """One kind of step. `{k}` in the texts is its argument, a whole number in low..high; low = 0 means it has none."""

    name: str
    takes: str
    gives: str
    said: str  # in a problem
    planned: Texts  # in a plan
    codes: Texts
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
    name: str,
    said: str,
    planned: Texts,
    codes: Texts,
    meaning: Meaning,
    low: int = 0,
    high: int = 0,
    gives: str = "numbers",
) -> Op:
    return Op(name, "numbers", gives, said, planned, codes, meaning, low, high)


def _word(
    name: str,
    said: str,
    planned: Texts,
    codes: Texts,
    meaning: Meaning,
    low: int = 0,
    high: int = 0,
    gives: str = "word",
) -> Op:
    return Op(name, "word", gives, said, planned, codes, meaning, low, high)


def _number(
    name: str,
    said: str,
    planned: Texts,
    codes: Texts,
    meaning: Meaning,
    low: int = 0,
    high: int = 0,
    gives: str = "number",
) -> Op:
    return Op(name, "number", gives, said, planned, codes, meaning, low, high)


_OPS: tuple[Op, ...] = (
    _numbers("add_each", "Add {k} to every number.", ("Add {k} to each.",),
             ("a = [x + {k} for x in a]", "a = list(map(lambda x: x + {k}, a))"),
             lambda a, k: [x + k for x in a], 2, 30),
    _numbers("multiply_each", "Multiply every number by {k}.", ("Multiply each by {k}.", "Take each times {k}."),
             ("a = [x * {k} for x in a]", "a = list(map(lambda x: x * {k}, a))"),
             lambda a, k: [x * k for x in a], 2, 30),
    _numbers("above", "Keep only the numbers above {k}.", ("Keep those above {k}.", "Keep those over {k}."),
             ("a = [x for x in a if x > {k}]", "a = list(filter(lambda x: x > {k}, a))"),
             lambda a, k: [x for x in a if x > k], 2, 30),
    _numbers("at_least", "Drop the numbers that are below {k}.", ("Keep those from {k} on.", "Drop those below {k}."),
             ("a = [x for x in a if x >= {k}]", "a = [x for x in a if not x < {k}]"),
             lambda a, k: [x for x in a if not x < k], 2, 30),
    _numbers("below", "Keep only the numbers below {k}.", ("Keep those below {k}.", "Keep those under {k}."),
             ("a = [x for x in a if x < {k}]", "a = list(filter(lambda x: x < {k}, a))"),
             lambda a, k: [x for x in a if x < k], 6, 30),
    _numbers("at_most", "Drop the numbers that are above {k}.", ("Keep those up to {k}.", "Drop those above {k}."),
             ("a = [x for x in a if x <= {k}]", "a = [x for x in a if not x > {k}]"),
             lambda a, k: [x for x in a if not x > k], 6, 30),
    _numbers("remainders", "Replace every number by its remainder by {k}.", ("Remainder of each by {k}.",),
             ("a = [x % {k} for x in a]", "a = list(map(lambda x: x % {k}, a))"),
             lambda a, k: [x - x // k * k for x in a], 3, 30),
    _numbers("first", "Keep the first {k} numbers.", ("Keep the first {k}.", "Take the first {k}."),
             ("a = a[:{k}]", "del a[{k}:]"),
             lambda a, k: [x for i, x in enumerate(a) if i < k], 2, 4),
    _numbers("last", "Keep the last {k} numbers.", ("Keep the last {k}.", "Take the last {k}."),
             ("a = a[-{k}:]", "del a[:-{k}]"),
             lambda a, k: [x for i, x in enumerate(a) if i >= len(a) - k], 2, 4),
    _numbers("sort_up", "Sort the numbers.", ("Sort up.", "Put them in order."),
             ("a = sorted(a)", "a.sort()"),
             lambda a, k: sorted(a)),
    _numbers("sort_down", "Sort the numbers, the largest first.", ("Sort down.", "Put the largest first."),
             ("a = sorted(a)[::-1]", "a = sorted(a, reverse=True)", "a.sort(reverse=True)"),
             lambda a, k: sorted(a, key=lambda x: -x)),
    _numbers("reverse_list", "Reverse the list.", ("Reverse the list.", "Turn the list around."),
             ("a = a[::-1]", "a = list(reversed(a))", "a.reverse()"),
             lambda a, k: list(reversed(a))),
    _numbers("sum", "Add them all up.", ("Take the sum.", "Sum them up."),
             ("n = sum(a)", "n = 0\nfor x in a: n += x"),
             lambda a, k: sum(a), gives="number"),
    _numbers("largest", "Take the largest number, or 0 if none is left.", ("Take the largest.", "Find the maximum."),
             ("n = max(a, default=0)", "n = max(a) if a else 0"),
             lambda a, k: sorted([*a])[-1] if a else 0, gives="number"),
    _numbers("count", "Count them.", ("Take the count.", "Count them."),
             ("n = len(a)", "n = sum(1 for x in a)"),
             lambda a, k: sum(1 for _ in a), gives="number"),
    _word("reverse_word", "Turn the word around.", ("Turn it around.", "Spell it backwards."),
          ("s = s[::-1]", 's = "".join(reversed(s))'),
          lambda s, k: "".join(reversed(s))),
    _word("no_vowels", "Leave out the vowels.", ("Drop the vowels.", "Leave out the vowels."),
          ('s = "".join(c for c in s if c not in "aeiou")', 'for c in "aeiou": s = s.replace(c, "")'),
          lambda s, k: s.translate({ord(v): None for v in VOWELS})),
    _word("double_letters", "Write every letter twice.", ("Double each letter.", "Write each letter twice."),
          ('s = "".join(c + c for c in s)', 's = "".join(c * 2 for c in s)'),
          lambda s, k: "".join(c * 2 for c in s)),
    _word("start", "Keep the first {k} letters.", ("Keep the start, {k} letters.", "Keep its first {k} letters."),
          ("s = s[:{k}]", "s = s[0:{k}]"),
          lambda s, k: "".join(c for i, c in enumerate(s) if i < k), 2, 9),
    _word("end", "Keep the last {k} letters.", ("Keep the end, {k} letters.", "Keep its last {k} letters."),
          ("s = s[-{k}:]", "s = s[max(0, len(s) - {k}):]"),
          lambda s, k: "".join(c for i, c in enumerate(s) if i >= len(s) - k), 2, 9),
    _word("repeat", "Write the word {k} times.", ("Repeat it {k} times.", "Write it {k} times."),
          ("s = s * {k}", "s *= {k}"),
          lambda s, k: "".join(s for _ in range(k)), 2, 9),
    _word("length", "Count the letters.", ("Take the length.", "Count the letters."),
          ("n = len(s)", "n = sum(1 for c in s)"),
          lambda s, k: sum(1 for _ in s), gives="number"),
    _word("vowels", "Count the vowels.", ("Count the vowels.",),
          ('n = sum(c in "aeiou" for c in s)', 'n = sum(map(s.count, "aeiou"))'),
          lambda s, k: sum(s.count(v) for v in VOWELS), gives="number"),
    _number("add", "Add {k} to the number.", ("Add {k}.", "Increase it by {k}."),
            ("n = n + {k}", "n += {k}"),
            lambda n, k: n + k, 2, 30),
    _number("multiply", "Multiply the number by {k}.", ("Multiply by {k}.", "Take it times {k}."),
            ("n = n * {k}", "n *= {k}"),
            lambda n, k: n * k, 2, 30),
    _number("remainder", "Take the remainder by {k}.", ("Remainder by {k}.",),
            ("n = n % {k}", "n %= {k}"),
            lambda n, k: n - n // k * k, 5, 30),
    _number("if_above", "If the number is above {k}, subtract {k}.", ("If above {k}, subtract it.",),
            ("if n > {k}: n = n - {k}", "n = n - {k} if n > {k} else n"),
            lambda n, k: n - k if n > k else n, 2, 30),
    _number("if_even", "If the number is even, halve it.", ("If even, halve.", "Halve it if even."),
            ("if n % 2 == 0: n = n // 2", "n = n if n % 2 else n // 2"),
            lambda n, k: n if n & 1 else n >> 1),
    _number("halve_while", "As long as the number is above {k}, halve it.", ("While above {k}, halve.", "Halve while above {k}."),
            ("while n > {k}: n = n // 2", "while n > {k}: n //= 2"),
            _halve_while, 2, 30),
    _number("double_times", "Double the number {k} times.", ("Loop {k} times, double.", "Double it {k} times."),
            ("for i in range({k}): n = n * 2", "n = n * 2 ** {k}"),
            lambda n, k: n << k, 2, 9),
    _number("digits", "Add up the digits of the number.", ("Sum the digits.", "Total the digits."),
            ("n = sum(map(int, str(n)))", "n = sum(int(c) for c in str(n))"),
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
    """An op with its argument (0 where it has none), and the quantity the argument is, if it is one. Two steps that differ in
    their wording alone are equal."""

    op: str
    k: int = 0
    name: str | None = None
    wording: int = field(default=0, compare=False)

    @property
    def text(self) -> str:
        """Its sentence, with `{k}` for the argument. An op with one wording has it in place of every other."""
        wordings = OPS[self.op].planned
        return wordings[min(self.wording, len(wordings) - 1)]

    @property
    def planned(self) -> str:
        return self.text.format(k=f"{self.name} = {self.k}" if self.name else self.k)


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


def write_python(start: str, steps: Program, prints: str | None = None, rng: random.Random | None = None) -> str:
    """The program text: one line to read, one or two a step, one to print (`prints` overrides the type it thinks it prints).

    Each line is coded the first way of its op; with `rng` another way is drawn in one case of three.
    """
    kind = prints or result_type(start, steps) or start

    def way(codes: Texts) -> str:
        return codes[0] if rng is None or len(codes) == 1 or rng.random() < 2 / 3 else rng.choice(codes[1:])

    return "\n".join([way(READS[start][1]), *(way(OPS[s.op].codes).format(k=s.k) for s in steps), way(PRINTS[kind][1])])


def show_value(value: Value) -> str:
    """A value as the program prints it."""
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
