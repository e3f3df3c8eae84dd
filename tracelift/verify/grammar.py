r"""The piece that states an answer → its one number, read to the last character; else None, and the piece is text.

    answer    = { label } [ side { "=" side } "=" ] quantity
    label     = fillers ("about", "so it is") | words or one letter before "=" or ":" | "Week 3:"
    quantity  = [currency] literal [scale] [percent] [unit] [remark]
    remark    = "(" arithmetic of the same value, or words ")"

Used for references and predictions alike, so an expression never stands for one of its numbers. Plain arithmetic that
ends in a number (`\sqrt{36} = 6`, `12·6 = 72`) is read as that number; whether the sum is right is not asked.
Left out: where the piece stands (where.py), sentences (prose.py), conversions between units.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from tracelift.verify import vocabulary as words
from tracelift.verify.expressions import NotArithmetic, Reader, Value
from tracelift.verify.lexing import MAX_CHARS, Token, normalise, tokens

_PLAIN_INTEGER = re.compile(r"-?[0-9]{1,40}")
_COUNTED = frozenset("step week day month year hour part case round person problem question".split())
_MAX_SIDES = 12


@dataclass(frozen=True)
class Number:
    """A number that a text states. `unit_value` is the value with its percent sign applied (50% → 1/2), equal to `value`
    without one; `places` counts the decimals written."""

    value: Fraction
    unit_value: Fraction
    places: int = 0


@functools.lru_cache(maxsize=4096)
def read_whole(piece: str, formula: bool = False) -> Number | None:
    """The number that `piece` states, where all of it is understood; else None.

    formula: the piece stands in a box or after `####`: a closing `!` is a factorial, a leading `- ` a sign.
    """
    piece = piece.strip()
    if _PLAIN_INTEGER.fullmatch(piece):
        return Number(Fraction(piece), Fraction(piece))
    if not piece or len(piece) > MAX_CHARS:
        return None
    return read_tokens(tokens(normalise(piece)), formula)


def read_tokens(row: Sequence[Token], formula: bool = False) -> Number | None:
    """As `read_whole`, of tokens."""
    row = strip_end(row, formula)
    if not row or not any(t.kind == "number" or _number_word(t) for t in row):
        return None
    row = list(row)
    start = _after_labels(row, 0)
    sides = _split(row[start:])
    try:
        if len(sides) == 2 and _is_variable(sides[1]) and (number := _quantity(sides[0])) is not None:
            return number  # 20 = A, solved for A
        if len(sides) > _MAX_SIDES or not all(map(is_arithmetic, sides[:-1])):
            return None
        return _quantity(sides[-1])
    except NotArithmetic:
        return None


def strip_end(row: Sequence[Token], formula: bool = False) -> Sequence[Token]:
    """`row` without the quotes around it and its closing stop or, outside formulas, exclamation mark."""
    row = _unquoted(row)
    if row and row[-1].text in ((".", "。") if formula else (".", "。", "!")):
        row = _unquoted(row[:-1])
    return row


def _unquoted(row: Sequence[Token]) -> Sequence[Token]:
    quoted = len(row) > 2 and (row[0].text, row[-1].text) in (('"', '"'), ("'", "'"), ("“", "”"), ("„", "“"))
    return row[1:-1] if quoted else row


def is_arithmetic(side: Sequence[Token]) -> bool:
    """Whether a side of an equation is arithmetic on numbers, unit words between them allowed."""
    kept = [t for i, t in enumerate(side) if not _is_unit_here(side, i)]
    try:
        reader = Reader(kept)
        reader.sum()
    except NotArithmetic:
        return False
    return reader.at == len(kept)


def _is_unit_here(side: Sequence[Token], i: int) -> bool:
    token = side[i]
    if i == 0 or token.text in ("x", "X"):
        return False
    before = side[i - 1]
    if token.text == "/" and i + 1 < len(side):  # words/minute
        return before.kind == side[i + 1].kind == "word"
    if token.kind != "word":
        return False
    if before.text == "/" and i > 1 and side[i - 2].kind == "word":
        return words.is_unit_word(token.text, False)
    return words.is_unit_word(token.text, not token.spaced) and (
        before.kind in ("number", "word") or before.text == ")"
    )


def _split(row: Sequence[Token]) -> list[Sequence[Token]]:
    sides: list[Sequence[Token]] = []
    start = 0
    for i, token in enumerate(row):
        if token.text in ("=", "≈") and token.kind == "sign":
            if i > start or start > 0:
                sides.append(row[start:i])
            start = i + 1
    return [*sides, row[start:]]


def _is_variable(side: Sequence[Token]) -> bool:
    return len(side) == 1 and side[0].kind == "word" and len(side[0].text) == 1


def _after_labels(row: Sequence[Token], i: int) -> int:
    """The index after fillers and labels."""
    while i < len(row):
        token = row[i]
        comma = token.text == "," and i > 0 and row[i - 1].text.casefold() in words.FILLERS
        if token.text.casefold() in words.FILLERS or token.text in ("≈", ":") or comma or (token.text == "⇒" and not i):
            i += 1
            continue
        if (
            i + 2 < len(row)
            and token.text.casefold() in _COUNTED
            and row[i + 1].kind == "number"
            and row[i + 2].text == ":"
        ):
            i += 3
            continue
        end = i
        while end < len(row) and end - i < 8 and _labels(row, end, i):
            end += 1
        if end == i or end >= len(row) or row[end].text not in ("=", ":", "≈"):
            return i
        i = end + 1
    return i


def _labels(row: Sequence[Token], i: int, start: int) -> bool:
    """Whether a token may belong to a label: a word that changes no number, or a variable that stands alone."""
    token = row[i]
    if token.kind == "command":  # \theta = 5
        return i == start and token.text[1:] in words.VARIABLES and _ends(row, i)
    lower = token.text.casefold()
    if token.kind != "word" or lower in words.CHANGES or lower in words.OPERATES or "n't" in lower:
        return False
    return len(token.text) > 1 or token.text in ("a", "A", "I") or (i == start and _ends(row, i))


def _ends(row: Sequence[Token], i: int) -> bool:
    return i + 1 < len(row) and row[i + 1].text in ("=", ":", "≈")


def _quantity(row: Sequence[Token]) -> Number | None:
    i = _after_labels(row, 0)
    negative = False
    if i < len(row) and row[i].text.casefold() in words.NEGATIVE | words.POSITIVE:
        negative = row[i].text.casefold() in words.NEGATIVE
        i += 1
    while i < len(row) and row[i].text.casefold() in words.CURRENCIES:
        i += 2 if i + 1 < len(row) and row[i + 1].text == "." else 1
    begin = i
    value, row, i = _literal(row, i)
    numeral = i
    if value is None or value.exact is None:
        return None
    exact, places = value.exact, value.places
    if i < len(row) and row[i].text.casefold() in words.SCALES:
        exact, places, i = exact * words.SCALES[row[i].text.casefold()], 0, i + 1
    percent = value.percent
    if not percent:
        i, percent = _percent(row, i)
    exact, i = _with_cents(row, i, exact)
    i = _after_unit(row, i)
    exact = -exact if negative else exact
    if i < len(row) and not _is_remark(row[i:], exact, "".join(t.text for t in row[begin:numeral])):
        return None
    return Number(exact, exact / 100 if percent else exact, places)


def _number_word(token: Token) -> bool:
    return token.kind == "word" and words.fraction_of([token.text]) is not None


def _literal(row: Sequence[Token], i: int) -> tuple[Value | None, Sequence[Token], int]:
    """The number written at i, in digits or words, the row as it was cut (LaTeX arguments), and the index after it."""
    end = i
    while end < len(row) and row[end].kind == "word" and end - i < 12:
        end += 1
    for stop in range(end, i, -1):
        if (spelt := words.fraction_of([t.text for t in row[i:stop]])) is not None:
            return Value(Fraction(spelt), True), row, stop
    reader = Reader(row, i, remarks=True)
    value = reader.over()
    return (value if value.literal else None), reader.tokens, reader.at


def _percent(row: Sequence[Token], i: int) -> tuple[int, bool]:
    if i < len(row) and row[i].text.casefold() in ("percent", "percents"):
        return i + 1, True
    per = i + 1 < len(row) and row[i].text.casefold() == "per" and row[i + 1].text.casefold() == "cent"
    return (i + 2, True) if per else (i, False)


def _with_cents(row: Sequence[Token], i: int, dollars: Fraction) -> tuple[Fraction, int]:
    """`5 dollars and 25 cents` is 5.25; every other quantity in two units stays text."""
    texts = [t.text.casefold() for t in row[i : i + 4]]
    if texts[:1] not in (["dollars"], ["dollar"], ["euros"]):
        return dollars, i
    joined = 1 if texts[1:2] == ["and"] else 0
    cents = row[i + 1 + joined] if i + 1 + joined < len(row) else None
    if cents is None or cents.kind != "number" or not 0 < cents.value < 100 or cents.value.denominator > 1:
        return dollars, i
    if texts[2 + joined : 3 + joined] not in (["cents"], ["cent"]) or dollars.denominator > 1:
        return dollars, i
    return dollars + cents.value / 100, i + 3 + joined


def _after_unit(row: Sequence[Token], i: int) -> int:
    """The index after a unit such as `square feet`, `km/h`, `{ cm}^{2}` or `clips in total`."""
    count, depth, start = 0, 0, i
    while i < len(row):
        token = row[i]
        if token.kind == "word" and count < words.MAX_UNIT and _unit_word(row, i, count):
            count += 1
        elif token.text in ("{", "}") and token.kind == "sign":
            depth += 1 if token.text == "{" else -1
            if depth < 0:
                return i
        elif (
            token.text == "°"
            or (token.text in ("/", "*") and (count or token.text == "/") and _unit_follows(row, i))
            or token.text == "."
            and count
            and len(row[i - 1].text) <= 4
        ):
            pass
        elif token.text == "^" and count and (length := _unit_power(row, i)):
            i += length
            continue
        elif token.text in ("2", "3") and not token.spaced and count and row[i - 1].text in words.LENGTHS:
            pass  # m2
        else:
            break
        i += 1
    return i if depth == 0 else start


def _unit_word(row: Sequence[Token], i: int, count: int) -> bool:
    token = row[i]
    attached = not token.spaced and count == 0 and i > 0 and row[i - 1].kind == "number"
    if words.is_unit_word(token.text, attached) or (token.text in ("C", "F", "K") and i and row[i - 1].text == "°"):
        return True
    return token.text in ("a", "an") and count > 0 and i + 1 < len(row)  # five hours a week


def _unit_follows(row: Sequence[Token], i: int) -> bool:
    return i + 1 < len(row) and (row[i + 1].kind == "word" or row[i + 1].text == "{")


def _unit_power(row: Sequence[Token], i: int) -> int:
    """How many tokens `^2`, `^{3}` or `^{-1}` takes; 0 where there is none."""
    texts = "".join(t.text for t in row[i : i + 5])
    match = re.match(r"\^(?:\{-?[0-9]\}|-?[0-9](?![0-9]))", texts)
    return len(match[0]) if match else 0


def _is_remark(row: Sequence[Token], value: Fraction, written: str) -> bool:
    """Whether the rest is a bracket that says how the number came about: `(48 + 24)` after 72, or nothing but words."""
    if len(row) < 3 or row[0].text != "(" or row[-1].text != ")" or not row[0].spaced:
        return False
    inner = row[1:-1]
    if all(t.kind == "word" for t in inner) and (spelt := words.fraction_of([t.text for t in inner])) is not None:
        return spelt == value
    if all(t.kind == "word" and words.is_unit_word(t.text, False) for t in inner):
        return True
    kept = [t for i, t in enumerate(inner) if not _is_unit_here(inner, i)]
    reader = Reader(kept)
    said = reader.sum()
    same = said.exact is not None and value in (said.exact, said.exact / 100 if said.percent else said.exact)
    return reader.at == len(kept) and same and (not said.literal or said.exact != value or kept[0].text != written)
