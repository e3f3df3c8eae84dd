"""Exact arithmetic as it stands in reasoning traces: evaluate `100-50-30-15`, find `5 apples x $3 = $15` in prose.

`evaluate` is a recursive-descent evaluator over Fractions for + − × ÷, parentheses, percent and currency signs.
`find_equations` lists the equations of a text with what each side is worth, unit words between the operands allowed.
Used by the leak check (is the stated answer ever derived?) and by the builder of groups (what does a flaw do to the
final number?).

`plain` writes a trace's LaTeX, Markdown and typography as these readers and the makers of flaws expect them, in prose too.

Left out on purpose: variables, powers, and equations spread over lines; answers (tracelift/verify/grammar.py).
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from tracelift.verify.grammar import read_whole

MAX_DEPTH = 40
MAX_DIGITS = 60  # a grade-school sum never needs more, and the bound keeps every evaluation instant

_TOKEN = re.compile(
    r"(?P<number>(?:[0-9]+(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
    r"|(?P<op>[-+*/×()%=])|(?P<currency>[$€£¥])|(?P<word>[^\W\d_]+(?:['’][^\W\d_]+)?)|(?P<stop>[^\s])"
)


# --------------------------------------------------------------------------------------------- plain text

_TYPOGRAPHY = str.maketrans(
    {"−": "-", "–": "-", "‐": "-", "‑": "-", "⁄": "/", "∕": "/", "÷": "/", "∗": "*", "⋅": "×", "·": "×", "✕": "×"}
    | {"\u00a0": " ", "\u2009": "\u202f", "％": "%", "＄": "$", "\r": ""}
    | {chr(0xFF10 + d): str(d) for d in range(10)}
)
_LATEX = [
    (re.compile(r"\\(?:dfrac|tfrac|cfrac)\b"), r"\\frac"),
    (re.compile(r"\\([$%#&])"), r"\1"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"(?<=[0-9])(?:\\[,;:! ]|\u202f)(?=[0-9]{3}(?![0-9]))"), ","),
    (re.compile(r"\\[,;:!]|\u202f"), " "),
    (re.compile(r"\\(?:left|right|displaystyle|quad|qquad)\b|\\[()\[\]]|\\ "), " "),
    (re.compile(r"\^\s*(?:\\circ|\{\s*\\circ\s*\})|\\degree\b"), "°"),
    (re.compile(r"\\(?:times|cdot)\b\s*"), "×"),
    (re.compile(r"\\div\b\s*"), "/"),
    (re.compile(r"\\(?:approx|simeq|sim)\b"), "≈"),
    (re.compile(r"(?<![0-9])\*\*|\*\*(?![0-9])|`"), ""),  # bold and code marks; 2**3 keeps its stars
    (re.compile(r"\\frac\s*([0-9])\s*([0-9])"), r"\\frac{\1}{\2}"),
]
_LENGTH = r"\b((?:[cmk]?m|in|ft|yd|mi|inch|inches|feet|foot|(?:met(?:er|re)|unit|yard|mile)s?))\s?\^\{?"
_SQUARE, _CUBE = re.compile(_LENGTH + r"2\}?"), re.compile(_LENGTH + r"3\}?")  # so that no 2 is left in cm^2
_MARKUP = re.compile(r"[\\*`{^\u202f]")
_WRAPPER = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mathit|mathsf|mbox|operatorname)\s*\{([^{}]*)\}")
_FRAC = re.compile(r"\\frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_VULGAR = re.compile("[¼½¾⅐-⅞]")


def plain(text: str) -> str:
    """`text` with LaTeX, Markdown and typographic variants of numbers written in plain ASCII where that is exact."""
    text = text.translate(_TYPOGRAPHY)
    text = _VULGAR.sub(lambda m: _after_digit(m, unicodedata.normalize("NFKC", m[0]).replace("\u2044", "/")), text)
    if _MARKUP.search(text):
        for pattern, replacement in _LATEX:
            text = pattern.sub(replacement, text)
        for _ in range(8):  # innermost first; the bound is on nesting, so the whole stays linear
            before, text = text, _WRAPPER.sub(r"\1", text)
            text = _FRAC.sub(_resolve_frac, text)
            if text == before:
                break
        text = _CUBE.sub(r"\1³", _SQUARE.sub(r"\1²", text))
    return text


def _after_digit(match: re.Match[str], written: str) -> str:
    """`written`, apart from a digit right before it: 1½ is 1 1/2, not 11/2."""
    return (" " if match.start() and match.string[match.start() - 1].isdigit() else "") + written


def _resolve_frac(match: re.Match[str]) -> str:
    top, bottom = (_stated(match[i]) for i in (1, 2))
    if top is None or not bottom:
        return match[0]
    value = top / bottom
    return _after_digit(match, f"{value.numerator}/{value.denominator}" if value.denominator > 1 else f"{value}")


def _stated(text: str) -> Fraction | None:
    number = read_whole(text)
    return None if number is None else number.value


# --------------------------------------------------------------------------------------------- expressions


@functools.lru_cache(maxsize=65536)
def numeral(text: str) -> Fraction:
    """The value of a decimal numeral with optional thousands commas, such as `1,234.50`."""
    return Fraction(text.replace(",", ""))


class ExpressionError(ValueError):
    """Text that is no arithmetic expression, or one outside the bounds, or a division by zero."""


@dataclass(frozen=True)
class Token:
    """A token of an expression, with its place in the text. kind: number, op, word or stop."""

    kind: str
    text: str
    start: int
    end: int

    @property
    def value(self) -> Fraction:
        return numeral(self.text)


@dataclass(frozen=True)
class Side:
    """One side of an equation: its tokens without unit words, where they stand in the text, and its exact value."""

    tokens: tuple[Token, ...]
    start: int
    end: int
    value: Fraction

    @property
    def numbers(self) -> tuple[Token, ...]:
        return tuple(t for t in self.tokens if t.kind == "number")

    @property
    def operands(self) -> tuple[Fraction, ...]:
        return tuple(t.value for t in self.numbers)


@dataclass(frozen=True)
class Equation:
    """`left = right` in a text; in a chain `a = b = c` the equations overlap in b."""

    left: Side
    right: Side

    @property
    def holds(self) -> bool:
        return self.left.value == self.right.value


def tokenize(text: str) -> list[Token]:
    """The tokens of `text` (already `plain`); currency signs are left out."""
    out: list[Token] = []
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or "stop"
        if kind == "currency":
            continue
        out.append(Token(kind, match[0], match.start(), match.end()))
    return out


def evaluate(expression: str) -> Fraction:
    """The exact value of an expression such as `(3+4)*$5/2` or `20%*50`. Raises ExpressionError where it has none."""
    return evaluate_tokens(_as_operators(tokenize(plain(expression))))


def evaluate_tokens(tokens: Sequence[Token]) -> Fraction:
    """The exact value of an expression's tokens, all of them. Raises ExpressionError where they have none."""
    value, rest = _sum(tokens, 0, 0)
    if rest != len(tokens):
        raise ExpressionError(f"{tokens[rest].text!r} does not belong to the expression before it")
    return value


def _sum(tokens: Sequence[Token], i: int, depth: int) -> tuple[Fraction, int]:
    value, i = _product(tokens, i, depth)
    while i < len(tokens) and tokens[i].text in "+-":
        sign = 1 if tokens[i].text == "+" else -1
        term, i = _product(tokens, i + 1, depth)
        value += sign * term
    return value, i


def _product(tokens: Sequence[Token], i: int, depth: int) -> tuple[Fraction, int]:
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


def _factor(tokens: Sequence[Token], i: int, depth: int) -> tuple[Fraction, int]:
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
        value, i = token.value, i + 1
    else:
        raise ExpressionError(f"{token.text[:20]!r} is no number")
    while i < len(tokens) and tokens[i].text == "%":
        value, i = value / 100, i + 1
    return value, i


def _as_operators(tokens: list[Token]) -> list[Token]:
    """Tokens with `x`, `times` and `of` between operands as products, and units (`apples`, `cups/day`) dropped."""
    out: list[Token] = []
    i = 0
    while i < len(tokens):
        token = tokens[i]
        if out and (out[-1].kind == "number" or out[-1].text in (")", "%")):
            if _times(tokens, i) or (out[-1].text == "%" and token.text == "of" and _opens(tokens, i + 1)):
                out.append(Token("op", "*", token.start, token.end))
                i += 1
                continue
            j = _after_unit(tokens, i)
            if i < j < len(tokens) and (tokens[j].text in ("+", "-", "*", "/", "×", "=", ")") or _times(tokens, j)):
                i = j
                continue
        out.append(token)
        i += 1
    return out


def _after_unit(tokens: list[Token], i: int) -> int:
    """The index after the unit words at i: at most six, of which `/` may join two, as in `8 sq ft/minute`."""
    j = i
    while j < len(tokens) and j - i < 6:
        slash = tokens[j].text == "/" and j + 1 < len(tokens) and tokens[j + 1].kind == "word"
        if not slash and (tokens[j].kind != "word" or _times(tokens, j)):
            break
        j += 1
    return j


def _opens(tokens: list[Token], i: int) -> bool:
    return i < len(tokens) and (tokens[i].kind == "number" or tokens[i].text in ("(", "-"))


def _times(tokens: list[Token], i: int) -> bool:
    return tokens[i].text in ("x", "X", "times") and _opens(tokens, i + 1)


def find_equations(text: str) -> list[Equation]:
    """The equations of `text` (already `plain`) whose two sides are arithmetic, in order of their `=`."""
    found: list[Equation] = []
    offset = 0
    for line in text.split("\n"):
        tokens = _as_operators(tokenize(line[:4000]))
        parts: list[list[Token]] = [[]]
        for token in tokens:
            if token.text == "=":
                parts.append([])
            else:
                parts[-1].append(token)
        for left, right in pairwise(parts):
            a, b = _last_side(left, offset), _first_side(right, offset)
            if a is not None and b is not None:
                found.append(Equation(a, b))
        offset += len(line) + 1
    return found


def _arithmetic(token: Token) -> bool:
    return token.kind == "number" or (token.kind == "op" and token.text != "=")


def _last_side(tokens: list[Token], offset: int) -> Side | None:
    begin = len(tokens)
    while begin > 0 and _arithmetic(tokens[begin - 1]):
        begin -= 1
    return _side(tokens[begin:], offset, trim_front=True)


def _first_side(tokens: list[Token], offset: int) -> Side | None:
    end = 0
    while end < len(tokens) and _arithmetic(tokens[end]):
        end += 1
    return _side(tokens[:end], offset, trim_front=False)


def _side(tokens: list[Token], offset: int, trim_front: bool) -> Side | None:
    """The longest run that evaluates, giving up stray tokens (a bullet, an open bracket) at the outer end."""
    for _ in range(4):
        if not tokens:
            return None
        try:
            value, rest = _sum(tokens, 0, 0)
            if rest == len(tokens):
                moved = tuple(Token(t.kind, t.text, t.start + offset, t.end + offset) for t in tokens)
                return Side(moved, moved[0].start, moved[-1].end, value)
        except ExpressionError:
            pass
        tokens = tokens[1:] if trim_front else tokens[:-1]
    return None
