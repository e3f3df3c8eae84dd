r"""Tokens → the exact value of an expression, by recursive descent, and whether it is written as one number.

    sum      = product { ("+" | "-") product }
    product  = factor { ("*" | "/") factor | "(" … }
    factor   = { "+" | "-" } atom { "^" exponent | "!" | "%" | "°" }
    atom     = number | number fraction | "(" sum ")" | "{" sum [\over sum] "}" | \frac arg arg | \sqrt arg

A *literal* is one number as people write it: `3/4`, `1 1/2`, `-(5)`, `2^{10}`, `3 × 10^5`. `12*6`, `\sqrt{36}`, `5(3)` and
`5!` are arithmetic: read, but no literal. Left out: variables, π, functions; who meets one has met text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from tracelift.verify.lexing import MAX_DIGITS, Token

MAX_DEPTH = 16
MAX_BITS = 4 * MAX_DIGITS  # of a power's value, so that no input can ask for unbounded arithmetic


class NotArithmetic(ValueError):
    """Tokens that are no arithmetic expression, or one outside the bounds, or a division by zero."""


@dataclass(frozen=True)
class Value:
    """`exact`: None where it is not rational. `literal`: written as one number. `places`: decimals written.
    `plain`: one numeral and nothing else; `percent`: a percent sign follows, which `exact` does not hold."""

    exact: Fraction | None
    literal: bool
    places: int = 0
    plain: bool = False
    percent: bool = False


class Reader:
    """A place in a row of tokens. The methods read from it onwards and leave it after what they have read.

    remarks: an outer bracket after a space is a remark, left unread, and no factor.
    """

    def __init__(self, tokens: Sequence[Token], at: int = 0, remarks: bool = False) -> None:
        self.tokens, self.at, self.remarks = list(tokens), at, remarks

    def peek(self, ahead: int = 0) -> Token | None:
        at = self.at + ahead
        return self.tokens[at] if at < len(self.tokens) else None

    def next_is(self, *texts: str, ahead: int = 0) -> bool:
        token = self.peek(ahead)
        return token is not None and token.kind != "number" and token.text in texts

    def number(self, ahead: int = 0) -> Token | None:
        token = self.peek(ahead)
        return token if token is not None and token.kind == "number" else None

    def take(self, *texts: str) -> str:
        if not self.next_is(*texts):
            raise NotArithmetic(f"one of {' '.join(texts)} is missing")
        self.at += 1
        return self.tokens[self.at - 1].text

    # ---------------------------------------------------------------------------------------------------- grammar

    def sum(self, depth: int = 0) -> Value:
        value = self.product(depth)
        while self.next_is("+", "-"):
            sign = -1 if self.take("+", "-") == "-" else 1
            term = self.product(depth)
            percent = value.percent and term.percent
            a, b = (value, term) if percent else (_per_unit(value), _per_unit(term))
            value = replace(_derived(lambda a, b, sign=sign: a + sign * b, a, b), percent=percent)
        return value

    def product(self, depth: int) -> Value:
        value = self.factor(depth)
        steps = 0
        while self.next_is("*", "/", "(", "x", "X", "\\sqrt"):
            if self.remarks and not depth and self.next_is("(") and self.tokens[self.at].spaced:
                break
            if self.next_is("x", "X") and not (self.number(1) or self.next_is("(", "\\frac", ahead=1)):
                break
            if self.next_is("/") and (per := self.peek(1)) is not None and per.kind == "word" and len(per.text) > 1:
                break  # 72/hour
            times = not self.next_is("/")
            ten, first = self.number(1), value
            power_of_ten = ten is not None and ten.text == "10" and self.next_is("^", ahead=2)
            if not self.next_is("(", "\\sqrt"):
                self.at += 1
            other = self.factor(depth)
            steps += 1
            if times:
                literal = steps == 1 and value.plain and power_of_ten and other.literal
                value = _derived(lambda a, b: a * b, _per_unit(value), _per_unit(other))
                value = replace(value, literal=literal, places=_shifted(first.places, other.exact) if literal else 0)
            else:
                literal = steps == 1 and value.literal and other.literal and not (value.percent or other.percent)
                value = replace(_derived(_divide, _per_unit(value), _per_unit(other)), literal=literal)
        return value

    def factor(self, depth: int) -> Value:
        signs = 0
        negative = False
        while self.next_is("+", "-"):
            negative ^= self.take("+", "-") == "-"
            signs += 1
        value = self.power(self.atom(depth + 1), depth + 1)
        if not signs:
            return value
        exact = value.exact if value.exact is None or not negative else -value.exact
        return replace(value, exact=exact, literal=value.literal and signs == 1)

    def power(self, value: Value, depth: int) -> Value:
        while self.next_is("^", "!", "%", "°"):
            mark = self.take("^", "!", "%", "°")
            if mark == "^":
                value = _raised(_per_unit(value), self.exponent(depth))
                if self.next_is("^"):
                    raise NotArithmetic("a tower of powers")
            elif mark == "!":
                value = Value(None, False)
            elif mark == "%":
                value = replace(value, percent=True, plain=False, literal=value.literal and not value.percent)
            elif not value.literal:
                raise NotArithmetic("a degree of no number")
        return value

    def exponent(self, depth: int) -> Value:
        if self.next_is("+", "-"):
            sign = self.take("+", "-")
            token = self.number()
            if token is None:
                raise NotArithmetic("a sign without an exponent")
            self.at += 1
            return Value(-token.value if sign == "-" else token.value, True)
        return self.atom(depth + 1)

    def atom(self, depth: int) -> Value:
        if depth > MAX_DEPTH:
            raise NotArithmetic("too deep")
        token = self.number()
        if token is not None:
            self.at += 1
            return self.mixed(token, depth)
        if self.next_is("("):
            self.at += 1
            start = self.at
            value = self.sum(depth)
            self.take(")")
            comma = any(t.grouped for t in self.tokens[start : self.at])  # (1,234) may be a point
            return replace(value, literal=value.literal and not comma, plain=False)
        if self.next_is("{"):
            return self.braces(depth)
        if self.next_is("\\frac"):
            self.at += 1
            top, bottom = self.argument(depth), self.argument(depth)
            return replace(_derived(_divide, top, bottom), literal=top.literal and bottom.literal)
        if self.next_is("\\sqrt"):
            self.at += 1
            value = self.argument(depth)
            return Value(_root(value.exact), False)
        raise NotArithmetic("no number")

    def braces(self, depth: int) -> Value:
        self.take("{")
        value = self.over(depth)
        self.take("}")
        return value

    def over(self, depth: int = 0) -> Value:
        """A sum, and what it is divided by after `\\over`."""
        value = self.sum(depth)
        if not self.next_is("\\over"):
            return value
        self.at += 1
        bottom = self.sum(depth)
        return replace(_derived(_divide, value, bottom), literal=value.literal and bottom.literal)

    def argument(self, depth: int) -> Value:
        """A LaTeX argument: a group, or the first digit of what follows."""
        token = self.number()
        if token is None:
            return self.atom(depth + 1)
        if not token.text[0].isdigit():
            raise NotArithmetic("no digit")
        rest = token.text[1:]
        self.tokens[self.at : self.at + 1] = [Token("number", rest, False, Fraction(rest), 0)] if rest.isdigit() else []
        if rest and not rest.isdigit():
            raise NotArithmetic("a decimal as a LaTeX argument without braces")
        return Value(Fraction(int(token.text[0])), True, plain=True)

    def mixed(self, whole: Token, depth: int) -> Value:
        """A number token just read, and the fraction that makes it a mixed number, such as `1 1/2` or `1\\frac{1}{2}`."""
        if whole.text.isdigit():
            joined = 1 if self.next_is("and") else 0
            top, bottom = self.number(joined), self.number(joined + 2)
            slash = self.next_is("/", ahead=joined + 1)
            if top and bottom and slash and top.text.isdigit() and bottom.text.isdigit() and top.value < bottom.value:
                self.at += joined + 3
                return Value(whole.value + top.value / bottom.value, True)
            over = self.next_is("{", ahead=joined) and self.next_is("\\over", ahead=joined + 2)
            if over or self.next_is("\\frac", ahead=joined):
                self.at += joined
                part = self.atom(depth + 1)
                if part.literal and part.exact is not None and 0 <= part.exact < 1:
                    return Value(whole.value + part.exact, True)
                raise NotArithmetic("a mixed number of no fraction")
        return Value(whole.value, True, whole.places, plain=True)


def _derived(rule: Callable[[Fraction, Fraction], Fraction], a: Value, b: Value) -> Value:
    exact = None
    if a.exact is not None and b.exact is not None:
        exact = rule(a.exact, b.exact)
        if max(exact.numerator.bit_length(), exact.denominator.bit_length()) > 2 * MAX_BITS:
            raise NotArithmetic("the value grows past every bound")
    return Value(exact, False)


def _per_unit(value: Value) -> Value:
    """A value with its percent sign applied."""
    if not value.percent or value.exact is None:
        return value
    return replace(value, exact=value.exact / 100, percent=False, plain=False)


def _shifted(places: int, power: Fraction | None) -> int:
    """The decimals of a numeral with so many `places` times a power of ten."""
    if power is None:
        return 0
    size = len(str(power.numerator)) - 1 if power >= 1 else 1 - len(str(power.denominator))
    return max(0, places - size)


def _divide(a: Fraction, b: Fraction) -> Fraction:
    if not b:
        raise NotArithmetic("division by zero")
    return a / b


def _raised(base: Value, exponent: Value) -> Value:
    if base.exact is None or exponent.exact is None or exponent.exact.denominator != 1:
        return Value(None, False)
    power = int(exponent.exact)
    bits = max(base.exact.numerator.bit_length(), base.exact.denominator.bit_length())
    if abs(power) * bits > MAX_BITS or (not base.exact and power <= 0):
        raise NotArithmetic("a power out of bounds")
    return Value(base.exact**power, base.literal and exponent.literal)


def _root(value: Fraction | None) -> Fraction | None:
    if value is None or value < 0:
        return None
    top, bottom = math.isqrt(value.numerator), math.isqrt(value.denominator)
    return Fraction(top, bottom) if top * top == value.numerator and bottom * bottom == value.denominator else None
