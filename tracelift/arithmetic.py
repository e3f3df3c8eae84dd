"""Exact arithmetic as it stands in reasoning traces: evaluate `100-50-30-15`, find `5 apples x $3 = $15` in prose.

`evaluate` is a recursive-descent evaluator over Fractions for + − × ÷, parentheses, percent and currency signs.
`find_equations` lists the equations of a text with what each side is worth, unit words between the operands allowed.
Used by the leak check (is the stated answer ever derived?) and by the builder of groups (what does a flaw do to the
final number?).

Left out on purpose: variables, powers, and equations spread over lines.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from tracelift.numbers import plain

MAX_DEPTH = 40
MAX_DIGITS = 60  # a grade-school sum never needs more, and the bound keeps every evaluation instant

_TOKEN = re.compile(
    r"(?P<number>(?:[0-9]+(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
    r"|(?P<op>[-+*/×()%=])|(?P<currency>[$€£¥])|(?P<word>[^\W\d_]+(?:['’][^\W\d_]+)?)|(?P<stop>[^\s])"
)


class ExpressionError(ValueError):
    """Text that is no arithmetic expression, or one outside the bounds, or a division by zero."""


@dataclass(frozen=True)
class Side:
    """One side of an equation: the text between `start` and `end`, its exact value, and the numbers it combines."""

    start: int
    end: int
    value: Fraction
    operands: tuple[Fraction, ...]


@dataclass(frozen=True)
class Equation:
    """`left = right` in a text; in a chain `a = b = c` the equations overlap in b."""

    left: Side
    right: Side

    @property
    def holds(self) -> bool:
        return self.left.value == self.right.value


@dataclass(frozen=True)
class _Token:
    kind: str  # number, op, word, stop
    text: str
    start: int
    end: int


def _tokens(text: str) -> list[_Token]:
    out: list[_Token] = []
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or "stop"
        if kind == "currency":
            continue
        out.append(_Token(kind, match[0], match.start(), match.end()))
    return out


def evaluate(expression: str) -> Fraction:
    """The exact value of an expression such as `(3+4)*$5/2` or `20%*50`. Raises ExpressionError where it has none."""
    tokens = [t for t in _as_operators(_tokens(plain(expression)))]
    value, rest = _sum(tokens, 0, 0)
    if rest != len(tokens):
        raise ExpressionError(f"{expression!r}: {tokens[rest].text!r} does not belong here")
    return value


def _sum(tokens: list[_Token], i: int, depth: int) -> tuple[Fraction, int]:
    value, i = _product(tokens, i, depth)
    while i < len(tokens) and tokens[i].text in "+-":
        sign = 1 if tokens[i].text == "+" else -1
        term, i = _product(tokens, i + 1, depth)
        value += sign * term
    return value, i


def _product(tokens: list[_Token], i: int, depth: int) -> tuple[Fraction, int]:
    value, i = _factor(tokens, i, depth)
    while i < len(tokens) and tokens[i].text in ("*", "/", "×", "("):
        if tokens[i].text == "(":  # 2(3+4)
            factor, i = _factor(tokens, i, depth)
            value *= factor
            continue
        divide = tokens[i].text == "/"
        factor, i = _factor(tokens, i + 1, depth)
        if divide and factor == 0:
            raise ExpressionError("division by zero")
        value = value / factor if divide else value * factor
        if max(value.numerator.bit_length(), value.denominator.bit_length()) > 8 * MAX_DIGITS:
            raise ExpressionError("the value grows past every bound")
    return value, i


def _factor(tokens: list[_Token], i: int, depth: int) -> tuple[Fraction, int]:
    if i >= len(tokens) or depth > MAX_DEPTH:
        raise ExpressionError("the expression ends where a number should stand" if depth <= MAX_DEPTH else "too deep")
    token = tokens[i]
    if token.text in ("-", "+"):
        value, i = _factor(tokens, i + 1, depth + 1)
        return (-value if token.text == "-" else value), i
    if token.text == "(":
        value, i = _sum(tokens, i + 1, depth + 1)
        if i >= len(tokens) or tokens[i].text != ")":
            raise ExpressionError("a parenthesis is not closed")
        i += 1
    elif token.kind == "number" and len(token.text) <= MAX_DIGITS:
        value, i = Fraction(token.text.replace(",", "")), i + 1
    else:
        raise ExpressionError(f"{token.text[:20]!r} is no number")
    while i < len(tokens) and tokens[i].text == "%":
        value, i = value / 100, i + 1
    return value, i


def _as_operators(tokens: list[_Token]) -> list[_Token]:
    """Tokens with `x`, `times` and `of` between operands as products and unit words after a number dropped."""
    out: list[_Token] = []
    for i, token in enumerate(tokens):
        after_operand = bool(out) and (out[-1].kind == "number" or out[-1].text in (")", "%"))
        if token.kind == "word" and after_operand:
            j = i + 1
            if token.text.casefold() in ("x", "times", "of") and j < len(tokens) and _opens(tokens[j]):
                if token.text.casefold() != "of" or out[-1].text == "%":
                    out.append(_Token("op", "*", token.start, token.end))
                    continue
            while j < len(tokens) and tokens[j].kind == "word" and not _times(tokens, j) and j - i < 4:
                j += 1
            if j < len(tokens) and (tokens[j].text in ("+", "-", "*", "/", "×", "=", ")") or _times(tokens, j)):
                continue  # a unit word: `5 apples + …`
        out.append(token)
    return out


def _opens(token: _Token) -> bool:
    return token.kind == "number" or token.text in ("(", "-")


def _times(tokens: list[_Token], i: int) -> bool:
    return tokens[i].text.casefold() in ("x", "times") and i + 1 < len(tokens) and _opens(tokens[i + 1])


def find_equations(text: str) -> list[Equation]:
    """The equations of `text` (already `plain`) whose two sides are arithmetic, in order of their `=`."""
    found: list[Equation] = []
    offset = 0
    for line in text.split("\n"):
        tokens = _as_operators(_tokens(line[:4000]))
        parts: list[list[_Token]] = [[]]
        for token in tokens:
            if token.text == "=":
                parts.append([])
            else:
                parts[-1].append(token)
        for left, right in zip(parts, parts[1:]):
            a, b = _last_side(left, offset), _first_side(right, offset)
            if a is not None and b is not None:
                found.append(Equation(a, b))
        offset += len(line) + 1
    return found


def _arithmetic(token: _Token) -> bool:
    return token.kind == "number" or (token.kind == "op" and token.text != "=")


def _last_side(tokens: list[_Token], offset: int) -> Side | None:
    begin = len(tokens)
    while begin > 0 and _arithmetic(tokens[begin - 1]):
        begin -= 1
    return _side(tokens[begin:], offset, trim_front=True)


def _first_side(tokens: list[_Token], offset: int) -> Side | None:
    end = 0
    while end < len(tokens) and _arithmetic(tokens[end]):
        end += 1
    return _side(tokens[:end], offset, trim_front=False)


def _side(tokens: list[_Token], offset: int, trim_front: bool) -> Side | None:
    """The longest run that evaluates, giving up stray tokens (a bullet, an open bracket) at the outer end."""
    for _ in range(4):
        if not tokens:
            return None
        try:
            value, rest = _sum(tokens, 0, 0)
            if rest == len(tokens):
                operands = tuple(Fraction(t.text.replace(",", "")) for t in tokens if t.kind == "number")
                return Side(tokens[0].start + offset, tokens[-1].end + offset, value, operands)
        except ExpressionError:
            pass
        tokens = tokens[1:] if trim_front else tokens[:-1]
    return None
