"""A reference trace as a small program: parsed into steps whose numbers have a known origin, and run again.

Every line is a step. Every number in it is a *given* of the problem, the *result* of an equation of this or an earlier
line, or a *constant*. Changing one number, operator or result and running the lines again shows what a flaw does to
everything after it, the final answer included: consequences are computed, not guessed. `parse_trace` refuses a trace
that it does not understand to the last equation, because for such a one the consequences would be a guess.

Left out on purpose: algebra with unknowns, number words inside traces, and wording (the flaws take care of that).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from tracelift.groups.flaws.numbers import decimal, rounded, write_number
from tracelift.verify.arithmetic import (
    ExpressionError,
    Side,
    Token,
    evaluate_tokens,
    find_equations,
    numeral,
    plain,
    tokenize,
)
from tracelift.verify.math import read_reference

_MARK = re.compile(r"<<[^<>\n]*>>")
_HASHES = re.compile(r"\s*####.*\Z", re.DOTALL)
_LABEL = re.compile(r"[^\W\d_]{3,}\s*=\s*[$~0-9]")
_VARIABLE = re.compile(
    r"(?<![\w'’$])(?:[0-9]+\s?)?[b-hj-zB-HJ-Z](?![\w'’.])\s*[-+*/=(]|[0-9][a-zA-Z](?![\w])\s*[-+*/=]"
)
_WORD_NUMBERS = dict(
    zip("one two three four five six seven eight nine ten eleven twelve thirteen".split(), range(1, 14), strict=True)
) | {"fifteen": 15, "twenty": 20, "thirty": 30, "fifty": 50, "half": 2, "twice": 2, "double": 2, "triple": 3}
_WORD_NUMBERS |= {"third": 3, "thirds": 3, "quarter": 4, "fourth": 4, "fourths": 4, "fifth": 5, "dozen": 12}
_COMMON = frozenset(map(Fraction, (0, 1, 2, 3, 4, 5, 7, 10, 12, 24, 30, 31, 36, 52, 60, 90, 100, 180, 360, 365, 1000)))


class TraceError(ValueError):
    """A trace that is not understood; the message is the reason, one of a few, fit for counting. `detail`: the place."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.detail = detail


@dataclass(frozen=True)
class Term:
    """A quantity: where it comes from ("given", "result" or "constant") and what it is worth in the reference."""

    kind: str
    value: Fraction
    line: int = -1


@dataclass(frozen=True)
class Slot:
    """A number as it stands in a line: its digits, their place, and the node they stand for. In a sum, `in_sum`.

    `sign` is −1 where a minus before the digits belongs to the number: a result below zero, and where it is used.
    """

    start: int
    end: int
    text: str
    node: int
    in_sum: bool
    sign: int = 1

    @property
    def value(self) -> Fraction:
        return self.sign * numeral(self.text)

    @property
    def said(self) -> str:
        """The number with its sign."""
        return self.text if self.sign > 0 else f"-{self.text}"

    def written(self, value: Fraction) -> str | None:
        """The digits of another value in this place; None where it has the other sign, or does not fit their style."""
        return write_number(self.sign * value, self.text) if (value < 0) == (self.sign < 0) else None


@dataclass(frozen=True)
class Sum:
    """An equation of a line: the tokens of its left side, the slots of the numbers among them, and its result."""

    tokens: tuple[Token, ...]
    slots: tuple[int, ...]
    result: int  # slot


@dataclass(frozen=True)
class Line:
    text: str
    slots: tuple[Slot, ...]
    sums: tuple[Sum, ...]


@dataclass(frozen=True)
class Edit:
    """A change to run a trace with. Places are (line, slot), operators (line, sum, token).

    operand: slots that read another number. operator: operators that are another. forced: results that come out as
    another number, for everything after them. shown: slots that merely show another number.
    """

    operand: dict[tuple[int, int], Fraction] = field(default_factory=dict)
    operator: dict[tuple[int, int, int], str] = field(default_factory=dict)
    forced: dict[tuple[int, int], Fraction] = field(default_factory=dict)
    shown: dict[tuple[int, int], Fraction] = field(default_factory=dict)


@dataclass(frozen=True)
class Trace:
    """`lines` of a reference, the `nodes` its numbers stand for, and which node is the final answer."""

    lines: tuple[Line, ...]
    nodes: tuple[Term, ...]
    final: int

    @property
    def text(self) -> str:
        return "\n".join(line.text for line in self.lines)

    def run(self, edit: Edit) -> Rerun | None:
        """The lines under `edit`, or None where a number would come out odd (on the other side of zero, or with another
        number of decimals than it is written with) or where it is not clear which quantity a later number stands for."""
        values = [node.value for node in self.nodes]
        out: list[str] = []
        for i, line in enumerate(self.lines):
            written = {}
            for k, calculation in enumerate(line.sums):
                if not self._calculate(i, k, calculation, edit, values, written):
                    return None
            for s, slot in enumerate(line.slots):
                value = edit.shown.get((i, s), edit.operand.get((i, s), values[slot.node]))
                if value != slot.value:
                    if (i, s) not in edit.operand and (i, s) not in edit.shown and self.ambiguous(i, slot):
                        return None
                    text = slot.written(value)
                    if text is None:
                        return None
                    written[slot.start, slot.end] = text
            out.append(_replaced(line.text, written))
        return Rerun(tuple(out), tuple(values), values[self.final])

    def _calculate(
        self, i: int, k: int, calculation: Sum, edit: Edit, values: list[Fraction], written: dict[tuple[int, int], str]
    ) -> bool:
        line = self.lines[i]
        result = line.slots[calculation.result]
        tokens: list[Token] = []
        slots = iter(calculation.slots)
        for t, token in enumerate(calculation.tokens):
            if token.kind == "number":
                s = next(slots)
                value = edit.operand.get((i, s), values[line.slots[s].node])
                text = decimal(line.slots[s].sign * value)
                if text is None:
                    return False
                token = Token("number", text, token.start, token.end)
            elif (i, k, t) in edit.operator:
                token = Token("op", edit.operator[i, k, t], token.start, token.end)
                written[token.start, token.end] = token.text
            tokens.append(token)
        try:
            value = edit.forced.get((i, calculation.result), evaluate_tokens(tokens))
        except ExpressionError:
            return False
        shown = rounded(value, result.text)
        values[result.node] = shown
        # A rounded result stands only where the reference rounds too.
        return shown == value or evaluate_tokens(calculation.tokens) != result.value

    def ambiguous(self, i: int, slot: Slot) -> bool:
        """Whether a number of line i may as well stand for another quantity known by then."""
        return any(
            n != slot.node and node.value == slot.value and node.kind != "constant" and node.line <= i
            for n, node in enumerate(self.nodes)
        )

    def uses(self, node: int, after: int) -> list[tuple[int, int]]:
        """(line, slot) of each number that stands for `node` in a line after `after`."""
        return [
            (i, s)
            for i, line in enumerate(self.lines)
            for s, slot in enumerate(line.slots)
            if i > after and slot.node == node
        ]

    def results(self, i: int) -> list[int]:
        """The nodes that line i computes."""
        return [self.lines[i].slots[c.result].node for c in self.lines[i].sums]


@dataclass(frozen=True)
class Rerun:
    """What running a trace gave: its lines as text, the value of each node, and the final answer."""

    lines: tuple[str, ...]
    values: tuple[Fraction, ...]
    final: Fraction


def clean_reference(answer: str) -> str:
    """A GSM8K answer as a trace: calculator marks and the `#### x` line removed, blank lines dropped.

    `48/2 = <<48/2=24>>24` becomes `48/2 = 24`; the result stands once, as a person writes it.
    """
    text = _MARK.sub("", _HASHES.sub("", answer))
    return "\n".join(line for raw in text.split("\n") if (line := re.sub(r"[ \t]+", " ", raw).strip()))


def parse_trace(text: str, problem: str, answer: str) -> Trace:
    """Parse a trace (already `clean_reference`d) for a problem with a known final answer.

    Raises TraceError, with one of a few reasons, where a line, a number or the way to the answer is not understood.
    """
    target = read_reference(answer)
    if target is None:
        raise TraceError("the answer is not one number", answer)
    nodes = [Term("given", value) for value in sorted(givens(problem))]
    lines: list[Line] = []
    for i, raw in enumerate(text.split("\n")):
        lines.append(_parse_line(plain(raw), i, nodes))
    results = [line.slots[c.result].node for line in lines for c in line.sums]
    if len(results) < 2:
        raise TraceError("fewer than two calculations", text)
    if nodes[results[-1]].value != target.value:
        raise TraceError("the last calculation does not give the answer", f"{lines[-1].text} (the answer is {answer})")
    return Trace(tuple(lines), tuple(nodes), results[-1])


def givens(problem: str) -> set[Fraction]:
    """The numbers a problem states, in digits or words."""
    text = plain(problem)
    values = {t.value for t in tokenize(text) if t.kind == "number" and len(t.text) < 16}
    for word in re.findall(r"[a-z]+", text.casefold()):
        if word in _WORD_NUMBERS:
            values.add(Fraction(_WORD_NUMBERS[word]))
    return values


def _parse_line(text: str, i: int, nodes: list[Term]) -> Line:
    equations = find_equations(text)
    rest = text
    for equation in equations:
        start, end = equation.left.start, equation.right.end
        rest = rest[:start] + "~" * (end - start) + rest[end:]
    if rest.count("=") != len(_LABEL.findall(rest)):  # `Total hours = ~` is a label before a calculation
        raise TraceError("an equation is not arithmetic", text)
    if _VARIABLE.search(text):
        raise TraceError("algebra with an unknown", text)
    results = {}  # place of a result -> its equation
    for equation in equations:
        numbers = equation.right.numbers
        if len(numbers) != 1 or len(equation.left.numbers) == 0:
            raise TraceError("an equation is not a calculation and its result", text[equation.left.start :])
        if len(equation.left.tokens) == 1 or (_signed(equation.left) and equation.holds):
            continue  # `… = 72 = 72`, or a restatement: a mention like any other
        claimed = numbers[0].value * (-1 if equation.right.value < 0 else 1)
        if rounded(equation.left.value, numbers[0].text) != claimed:
            raise TraceError("a calculation is not right", text[equation.left.start : equation.right.end])
        results[numbers[0].start] = Term("result", claimed, i), equation
    in_sums = {t.start for _, e in results.values() for t in e.left.numbers}

    slots: list[Slot] = []
    index: dict[int, int] = {}
    known = len(nodes)
    nodes += [term for term, _ in results.values()]
    own = {start: known + k for k, start in enumerate(results)}
    below_zero = {node.value for node in nodes if node.value < 0}
    tokens = tokenize(text)
    for t, token in enumerate(tokens):
        if token.kind != "number":
            continue
        if len(token.text) > 15:
            raise TraceError("a number is too long", token.text)
        sign = -1 if -token.value in below_zero and _negated(text, tokens, t) else 1
        node = own.get(token.start)
        if node is None:
            # A sum sees the results before it; a mention may announce one to come: `48 pieces because 32 + 16 = 48`.
            done = known + sum(start < token.start for start in results) if token.start in in_sums else len(nodes)
            node = _origin(sign * token.value, token.start in in_sums, nodes, done)
        index[token.start] = len(slots)
        slots.append(Slot(token.start, token.end, token.text, node, token.start in in_sums, sign))
    sums = tuple(
        Sum(e.left.tokens, tuple(index[t.start] for t in e.left.numbers), index[start])
        for start, (_, e) in results.items()
    )
    return Line(text, tuple(slots), sums)


def _signed(side: Side) -> bool:
    return len(side.tokens) == 2 and side.tokens[0].text == "-"


def _negated(text: str, tokens: Sequence[Token], t: int) -> bool:
    """Whether a minus before number t is its sign: nothing stands before it that something could be taken from."""
    if t == 0 or tokens[t - 1].text != "-":
        return False
    if t == 1 or tokens[t - 2].kind == "stop" or tokens[t - 2].text in "+-*/×(=":
        return True
    # `he has -7 dollars` and `he has -$7`, but neither `12 -7` nor `12 apples - 7`.
    minus, before = tokens[t - 1], tokens[t - 2]
    between = text[minus.end : tokens[t].start]
    return before.kind == "word" and before.end < minus.start and not between.strip("$€£¥")


def _origin(value: Fraction, in_sum: bool, nodes: list[Term], known: int) -> int:
    """The node a number stands for: the latest of the first `known` nodes with that value, else a new constant."""
    for n in range(known - 1, -1, -1):
        if nodes[n].value == value and nodes[n].kind != "constant":
            return n
    if in_sum and value not in _COMMON and not any(node.kind == "given" and value in _forms(node) for node in nodes):
        raise TraceError("a number comes from nowhere", str(value))
    nodes.append(Term("constant", value))
    return len(nodes) - 1


def _forms(given: Term) -> tuple[Fraction, ...]:
    """What people write for a given without a calculation: 30 percent as .3, 1.3, .7, 70 or 130, a count with or
    without oneself. Such a number needs no link: a given never changes as a whole, only where a line reads it."""
    share = given.value / 100
    return share, 1 + share, 1 - share, 100 - given.value, 100 + given.value, given.value + 1, given.value - 1


def _replaced(text: str, written: dict[tuple[int, int], str]) -> str:
    for (start, end), new in sorted(written.items(), reverse=True):
        text = text[:start] + new + text[end:]
    return text
