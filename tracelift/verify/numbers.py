"""Numbers as people and language models write them, read exactly: no float, no sympy, bounded work.

`plain` turns LaTeX, Markdown and typographic variants into plain text; `find_numbers` lists the numbers of plain text,
each an exact Fraction: signs, currency, thousands commas, decimals, fractions, mixed numbers (`1 1/2`, `1½`), percent,
scientific notation (`3e5`, `3 × 10^5`), powers, scale words. A token that only looks like a number (a clock time, a
variable such as `x2` or `2x`, the exponent in `x^2`) is listed with value None, so that no reader mistakes a part of
it for an answer.

Left out on purpose: roots, π and other irrationals (they stay text), number words, decimal commas.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

MAX_DIGITS = 400  # longer numerals and larger powers are text, so that no input can ask for unbounded arithmetic
MAX_EXPONENT = 400

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
    top, bottom = (_only_number(match[i]) for i in (1, 2))
    if top is None or not bottom:
        return match[0]
    value = top / bottom
    return _after_digit(match, f"{value.numerator}/{value.denominator}" if value.denominator > 1 else f"{value}")


def _only_number(text: str) -> Fraction | None:
    found = find_numbers(text)
    if len(found) == 1 and text[: found[0].start].strip() == "" and text[found[0].end :].strip() == "":
        return found[0].value
    return None


@dataclass(frozen=True)
class Number:
    """A number in a text. `value` is None where the token is no plain number.

    `unit_value` is the value with its percent sign or scale word applied (50% → 1/2, 3 million → 3,000,000), equal to
    `value` without one; `places` counts the decimals written; `start` and `end` span sign, currency and unit sign.
    """

    value: Fraction | None
    unit_value: Fraction | None
    places: int
    start: int
    end: int


_SCALE = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_SCALE |= {"k": 10**3, "m": 10**6, "b": 10**9}  # after a currency sign only: elsewhere 2k may be algebra
_MONEY_SCALE = re.compile(r"[kKmMbB]\b")
_DIGITS = r"(?:[0-9]{1,2}(?:,[0-9]{2})+,[0-9]{3}(?![0-9])|[0-9]+(?:,[0-9]{3})+(?![0-9])|[0-9]+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.[0-9]+)?|\.[0-9]+)"
_TOKEN = re.compile(
    rf"""(?P<clock>[0-9]+(?::[0-9]+)+)
    |(?P<whole>[0-9]+)\s+(?:and\s+)?(?P<top>[0-9]+)\s*/\s*(?P<bottom>[0-9]+)(?![0-9]|\.[0-9])
    |(?P<number>{_DECIMAL})
      (?:(?P<exp>[eE][-+]?[0-9]+)(?![0-9A-Za-z])
        |\s*[×xX*]\s*10\s*(?:\^|\*\*)\s*(?:\{{\s*(?P<ten_braced>[-+]?[0-9]+)\s*\}}|\(?(?P<ten>[-+]?[0-9]+)\)?)
        |\s*(?:\^|\*\*)\s*(?:\{{\s*(?P<pow_braced>[-+]?[0-9]+)\s*\}}|(?P<pow>[-+]?[0-9]+))
      )?
      (?:\s*/\s*(?P<over_sign>-?)\s*(?P<over>{_DECIMAL})(?!\s*/))?
    """,
    re.VERBOSE,
)
_UNIT = re.compile(r"\s*(?P<percent>%|per\s?cent\b)|\s+(?P<scale>thousand|million|billion|trillion)\b", re.IGNORECASE)
_CURRENCY = re.compile(r"(?:[$€£¥₹₦]|\b(?:usd|us\$|eur|gbp|rs\.?|inr)\s?)\s?$", re.IGNORECASE)
_UNIT_LETTERS = "mgshlL"  # a single letter right after a number is a variable (2x) unless it is a common unit


def find_numbers(text: str) -> list[Number]:
    """The numbers of `text` (already `plain`), left to right. Linear in the length of the text."""
    found: list[Number] = []
    for match in _TOKEN.finditer(text):
        start, sign = _signed_start(text, match.start())
        value = _value(match)
        before, after = text[match.start() - 1 : match.start()], text[match.end() : match.end() + 2]
        money = match.start() > 0 and text[match.start() - 1] in "$€£¥" and _MONEY_SCALE.match(text, match.end())
        attached = before.isalpha() and start == match.start()
        variable = after[:1].isalpha() and not after[1:].isalpha() and after[0] not in _UNIT_LETTERS
        variable = variable or (after[:1] == "\\" and after[1:].isalpha())  # 2\sqrt, 5\pi
        part = before in ("^", "_", "\\", "±") or _in_command(text, match.start())
        if value is None or attached or (variable and not money) or part:
            found.append(Number(None, None, 0, start, match.end()))
            continue
        value *= sign
        places = len(match["number"].partition(".")[2]) if match["number"] and not match["over"] else 0
        end, unit_value = match.end(), value
        if unit := _UNIT.match(text, match.end()):
            end = unit.end()
            unit_value = value / 100 if unit["percent"] else value * _SCALE[unit["scale"].lower()]
        elif money:  # $2k
            end, unit_value = money.end(), value * _SCALE[money[0].lower()]
        found.append(Number(value, unit_value, places, start, end))
    return found


def _signed_start(text: str, start: int) -> tuple[int, int]:
    """(where the number with its currency and sign begins, its sign).

    A minus between two operands is an operator, one before a space at the head of a line a bullet, one between a
    word and a space a dash; none of them makes the number negative.
    """
    window = text[max(0, start - 12) : start]
    if currency := _CURRENCY.search(window):
        start -= len(window) - currency.start()
    head = text[max(0, start - 40) : start]  # enough to see past the blanks anyone writes
    bare = head.rstrip(" \t")
    if not bare or bare[-1] not in "+-" or (currency is None and len(head) - len(bare) > 1):
        return start, 1
    left = bare[:-1].rstrip(" \t")
    spaced = len(head) > len(bare)
    if left[-1:].isdigit() or left[-1:] in (")", "%", "}") or (left[-1:].isalpha() and (spaced or left == bare[:-1])):
        return start, 1
    if spaced and (not left or left[-1] == "\n"):
        return start, 1
    return start - (len(head) - len(bare)) - 1, -1 if bare[-1] == "-" else 1


def _in_command(text: str, start: int) -> bool:
    """Whether the number is the argument of a LaTeX command that is not understood, such as \\sqrt{3}."""
    head = text[max(0, start - 40) : start]
    return re.search(r"\\[A-Za-z]+\s*(?:\[[^\]{}]*\]\s*)?(?:\{[^{}]*)?$", head) is not None


def _value(match: re.Match[str]) -> Fraction | None:
    if match["clock"] or len(match[0]) > MAX_DIGITS:
        return None
    if match["whole"]:
        bottom = int(match["bottom"])
        return int(match["whole"]) + Fraction(int(match["top"]), bottom) if bottom else None
    value = Fraction(match["number"].replace(",", ""))
    ten = match["ten"] or match["ten_braced"] or (match["exp"] or "")[1:]
    power = match["pow"] or match["pow_braced"]
    if ten:
        if abs(int(ten)) > MAX_EXPONENT:
            return None
        value *= Fraction(10) ** int(ten)
    elif power:
        exponent = int(power)
        size = max(value.numerator.bit_length(), value.denominator.bit_length())
        if abs(exponent) * size > 4 * MAX_DIGITS or (value == 0 and exponent < 0):
            return None
        value **= exponent
    if match["over"]:
        over = Fraction(match["over"].replace(",", ""))
        if not over:
            return None
        value /= -over if match["over_sign"] else over
    return value
