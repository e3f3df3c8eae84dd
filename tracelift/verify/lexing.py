r"""The text of an answer → tokens: one spelling for every script, minus, thousands mark and LaTeX dress.

`normalise` writes what people and models use for the same sign in one way: digits of any script, superscripts (`⁶` →
`^{6}`), vulgar fractions (`½` → `1/2`), minus signs, spaces, `\dfrac12` (→ `\frac{1}{2}`), `\text{…}` and other dress
that changes no value. `tokens` cuts the result into numbers, words, commands and single signs; nothing is dropped, so
that a reader can tell whether it has understood a text to its last character.

Left out: what a row of tokens means (tracelift/verify/grammar.py), decimal commas, the em dash as a minus.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from typing import NamedTuple

MAX_CHARS = 2000  # an answer is shorter; a longer piece is text, so that every reader's work is bounded
MAX_DIGITS = 400

_SUPERSCRIPT = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-", strict=True))
_SUBSCRIPT = dict(zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True))
_SPELLINGS = (
    dict.fromkeys(map(ord, "−‐‑‒–﹣﹘"), "-")
    | dict.fromkeys(map(ord, "\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u3000"), " ")
    | dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u2062\r"), "")
    | dict.fromkeys(map(ord, "×✕⋅·∙∗•"), "*")
    | dict.fromkeys(map(ord, "÷⁄∕"), "/")
    | dict.fromkeys(map(ord, "’‘＇"), "'")
    | {c: chr(c - 0xFEE0) for c in range(0xFF01, 0xFF5F)}  # full-width ASCII
    | {ord("٬"): ",", ord("٫"): ".", ord("√"): r"\sqrt ", ord("π"): r"\pi ", ord("∞"): r"\infty ", ord("º"): "°"}
)  # fmt: skip
_RAISED = re.compile(f"[{''.join(_SUPERSCRIPT)}]+")
_LOWERED = re.compile(f"[{''.join(_SUBSCRIPT)}]+")
_SLASHED = re.compile("([⁰¹²³⁴⁵⁶⁷⁸⁹]+)[⁄/]([₀-₉]+)")  # ³⁄₄
_VULGAR = re.compile("[¼½¾⅐-⅞↉]")
_OTHER_DIGIT = re.compile(r"(?![0-9])\d")
_DRESS = "text|textbf|textit|textrm|textnormal|mathrm|mathbf|mathit|mathsf|mbox|operatorname|boxed|fbox|underline|boldsymbol|bm"
_LATEX = [
    (re.compile(rf"\\(?:{_DRESS})\s*(?=\{{)"), ""),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\!"), ""),
    (re.compile(r"\\[,;: ()\[\]]|\\(?:left|right|displaystyle|textstyle|quad|qquad|bf|rm|it|large|Large|big|Big)\b"), " "),
    (re.compile(r"\^\s*(?:\\circ\b|\{\s*\\circ\s*\})|\\degree\b"), "°"),
    (re.compile(r"\\(?:[dtcs]|nice)frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\frac\s*([0-9])"), r"\\frac{\1}"),
    (re.compile(r"(\\frac\{[0-9]+\})\s*([0-9])"), r"\1{\2}"),
    (re.compile(r"\\(?:times|cdot|ast)(?![A-Za-z])"), "*"),
    (re.compile(r"\\div(?![A-Za-z])"), "/"),
    (re.compile(r"\\(?:approx|simeq|sim)(?![A-Za-z])"), "≈"),
    (re.compile(r"\\(?:therefore|implies|(?:[Ll]ong)?[Rr]ightarrow|to)(?![A-Za-z])"), "⇒"),
    (re.compile(r"\^\s*+(?:([0-9])|\{([0-9]+)\})\s*+/\s*+_\s*+(?:([0-9])|\{([0-9]+)\})"), r"\\frac{\1\2}{\3\4}"),
    (re.compile(r"\\([%#&_])"), r"\1"),
]  # fmt: skip
_BOLD_WHOLE = re.compile(
    r"(?<![0-9)\w*])\*\*(?=[^\s*])([^*\n]*[^\s*])\*\*(?!\*)"
)  # before _POWER: `**2** 3` is no power
_TIE = re.compile(r"([0-9]\s*)~(?=\s*[0-9])|~")  # between two numbers it is a range
_COUNTRY = re.compile(r"(?<![A-Za-z\\])(?:R|HK|US|CA?|AU?|NZ|S|MX)(?=\$\s?[0-9])")
_POWER = re.compile(r"(?<=[0-9)])\s?\*\*\s?(?=[-0-9(])")
_BOLD = re.compile(
    r"\*\*|`|(?<![\w)}\]])_+(?=[^\s_])|(?<=[^\s_])_+(?![\w{^])|(?<![\w\s)*])\*(?=\w)|(?<=\w)\*(?=[.,!?]?$)"
)
_MINUS_MONEY = re.compile(r"-\$(?=[0-9.\\])")  # so that the minus stays beside its number
_MONEY_LETTER = re.compile(r"(?<=\$)(\s?[0-9][0-9,.]*)([kKmMbB])\b(?!\s?\$)")
_MONEY_WORD = {"k": " thousand", "m": " million", "b": " billion"}


def _low(digits: str) -> str:
    return digits.translate({ord(c): d for c, d in (_SUPERSCRIPT | _SUBSCRIPT).items()})


def normalise(text: str) -> str:
    """`text` in one spelling; a currency sign and the `$` of a formula become a tab, as neither changes a value."""
    if not text.isascii():
        text = _SLASHED.sub(lambda m: rf"\frac{{{_low(m[1])}}}{{{_low(m[2])}}}", text)
        text = _RAISED.sub(lambda m: f"^{{{''.join(map(_SUPERSCRIPT.__getitem__, m[0]))}}}", text)
        text = _LOWERED.sub(lambda m: f"_{{{''.join(map(_SUBSCRIPT.__getitem__, m[0]))}}}", text)
        text = _VULGAR.sub(lambda m: f" {unicodedata.normalize('NFKC', m[0])}", text).translate(_SPELLINGS)
        text = _OTHER_DIGIT.sub(lambda m: str(unicodedata.decimal(m[0])), text)
        text = "".join("$" if unicodedata.category(c) == "Sc" else c for c in text)
    text = text.replace("\\$", "$")
    text = _COUNTRY.sub("", text) if "$" in text else text
    text = _TIE.sub(lambda m: f"{m[1]}∼" if m[1] else " ", text) if "~" in text else text
    text = re.sub(r"[-=]>|[→⇒∴⟹]", "⇒", text)
    if "\\" in text or "{" in text or "^" in text:
        for pattern, replacement in _LATEX:
            text = pattern.sub(replacement, text)
    text = _MINUS_MONEY.sub("\t-", text)
    text = _MONEY_LETTER.sub(lambda m: m[1] + _MONEY_WORD[m[2].lower()], text)
    return _BOLD.sub("", _POWER.sub("^", _BOLD_WHOLE.sub(r"\1", text))).replace("$", "\t").strip(" \n")


class Token(NamedTuple):
    """kind: number, word, command or sign. `value` and `places` (decimals written) are a number's; `spaced`: white
    space stands before it; `grouped`: a number with a thousands comma, which in brackets may be a pair."""

    kind: str
    text: str
    spaced: bool
    value: Fraction = Fraction(0)
    places: int = 0
    grouped: bool = False


_TOKEN = re.compile(
    r"""(?P<number>(?:(?P<dots>(?!0)[0-9]{1,3}(?:\.[0-9]{3}){2,}(?:,[0-9]+)?(?![.,]?[0-9]))
      |(?:(?<![0-9],)(?!0)(?:[0-9]{1,2}(?:,[0-9]{2}(?![0-9]))++,[0-9]{3}|[0-9]{1,3}(?:,[0-9]{3})++)(?!,?[0-9])
         |(?<![0-9][ ])(?!0)[0-9]{1,3}(?:[ ][0-9]{3})++(?![0-9]|[ ]?/|[ ][0-9])
         |(?<![0-9]')(?!0)[0-9]{1,3}(?:'[0-9]{3})++(?!'?[0-9])
         |(?<![0-9]_)(?!0)[0-9]{1,3}(?:_[0-9]{3})++(?!_?[0-9])|[0-9]+)
        (?:\.[0-9]+)?
      |\.[0-9]+)(?P<exponent>[eE][-+]?[0-9]{1,4}(?!\w|\.[0-9]))?)
    |(?P<word>[^\W\d_]{2,}(?:[-'][^\W\d_]+)*|[^\W\d_])
    |(?P<command>\\(?:[A-Za-z]+|.))
    |(?P<sign>\S)""",
    re.VERBOSE,
)


def tokens(text: str) -> list[Token]:
    """The tokens of `text` (already `normalise`d). A numeral past the bounds is a sign, which no grammar reads."""
    found: list[Token] = []
    end = 0
    for match in _TOKEN.finditer(text):
        kind, spaced, end = match.lastgroup or "sign", match.start() > end or match.start() == 0, match.end()
        kind = "number" if match["number"] else kind
        found.append(_number(match, spaced) if kind == "number" else Token(kind, match[0], spaced))
    return found


def _number(match: re.Match[str], spaced: bool) -> Token:
    written = match[0][: len(match[0]) - len(match["exponent"] or "")]
    plain = written.replace(".", "").replace(",", ".") if match["dots"] else re.sub(r"[,' _]", "", written)
    exponent = int(match["exponent"][1:]) if match["exponent"] else 0
    if len(plain) > MAX_CHARS or abs(exponent) > MAX_DIGITS:
        return Token("sign", match[0], spaced)
    value = Fraction(plain) * Fraction(10) ** exponent
    places = max(0, len(plain.partition(".")[2]) - exponent)
    return Token("number", match[0], spaced, value, places, "," in written)
