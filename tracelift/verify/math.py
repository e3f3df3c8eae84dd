r"""The math verifier V(a): does the executor's text state the reference's answer?

V of the method (the paper's answer equivalence), rebuilt on exact fractions and one grammar for reference and prediction:

    where.py     the piece that states the answer
    grammar.py   the piece, read to its last character, is a number; else it is text
    prose.py     a sentence gives the number it states
    math.py      equal numbers, equal texts, the same choice

No verdict comes from an exception: the work is linear in the text and bounded in digits and exponents, so there is no
signal, no thread and no sympy here. Left out on purpose: algebraic equivalence (latex.py) and conversions between units.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Literal

from tracelift.verify.boxed import denies
from tracelift.verify.grammar import Number, read_whole
from tracelift.verify.lexing import normalise, tokens
from tracelift.verify.prose import read_sentence
from tracelift.verify.verdict import Verdict
from tracelift.verify.where import Piece, find_answer

MAX_TEXT = 400  # characters of a piece that may equal a reference in words

_CHOICE = re.compile(r"\A(?:(?:option|choice|answer)\s++)?[({\[\s]*+([A-J])(?![^\W_])", re.IGNORECASE)
_CLOSES = re.compile(r"\A(?:[ \t]*+(?:[)}\]][)}\]\s]*+[.:,]?|[.:])|(?P<comma>,)\s)")
_CONFIRMED = re.compile(
    r"\A\s+is\s+(?:the\s+)?(?:correct|right)(?:\s+(?:answer|option|choice|one))?[.!]?", re.IGNORECASE
)
_REASON = re.compile(r",?\s(?:because|since|as)\s", re.IGNORECASE)
_NONE_OF = re.compile(r"none of (?:the above|these|them)|cannot be determined|no solutions?", re.IGNORECASE)
_CONTRARY = re.compile(
    r"^(?:or|and|is|are|was|isn't|false|nor|but)\b|\b(?:or|and|but)\s\W*+[A-J]\b|[({\[]\s*[A-J]\s*[)}\]]|\b[B-HJ]\b\W*$|\b[A-J]\)"
)
_NO_ANSWER = frozenset("nan null none n/a".split())
_STATED = re.compile(r"^(?:the\s+)?(?:final\s+)?answer\s*(?:is|[:=])\s*", re.IGNORECASE)
_WORDS_IN_BRACES = re.compile(r"(?<![\w^}\\])\{([^{}\\^_0-9]*+)\}")
_WORDS = re.compile(r"[^\W\d_][^\W\d_'’.,\- ]*(?:[ '’.,\-]+[^\W\d_]+)*[.!]?")


def verify_math(prediction: str, reference: str) -> Verdict:
    """PASS where `prediction` states the number (or, lacking one, the text) that `reference` states.

    A reference without any text is ERROR: nothing can be judged by it. A prediction without an answer is FAIL.
    A percent sign may stand on one side only: 50% matches 50, and 1/2. Decimals match a fraction that they write out to
    six places or more; otherwise equality is exact. Raises TypeError on anything but two strings.
    """
    if not isinstance(prediction, str) or not isinstance(reference, str):
        raise TypeError(f"verify_math takes two texts, not {type(prediction).__name__}, {type(reference).__name__}")
    if not reference.strip():
        return Verdict.ERROR
    wanted = _reference_piece(reference)
    gold, said = _read_gold(wanted), find_answer(prediction)
    if gold is not None:
        stated = read_piece(said)
        return Verdict.PASS if stated is not None and same_number(stated, gold) else Verdict.FAIL
    same = wanted.text and not said.changed and _same_text(said.text, wanted.text)
    return Verdict.PASS if same else Verdict.FAIL


def read_piece(piece: Piece) -> Number | None:
    """The number that the piece states: read whole or, where it may be a sentence, as one."""
    if piece.changed:
        return None
    number = read_whole(piece.text, piece.formula)
    return read_sentence(piece.text, piece.formula) if number is None and piece.prose else number


def read_answer(text: str) -> Number | None:
    """The number that a text states as its answer, or None."""
    return read_piece(find_answer(text))


def read_reference(reference: str) -> Number | None:
    """The number that a reference states, or None."""
    return _read_gold(_reference_piece(reference))


def _read_gold(piece: Piece) -> Number | None:
    """As `read_piece`; a reference that is a sentence states a number only where that is the only one."""
    number = read_piece(piece)
    sentence = number is not None and piece.prose and read_whole(piece.text, piece.formula) is None
    if sentence and not _WORDS.fullmatch(re.sub(r"[-$]*[0-9][0-9.,]*%?", "a number", piece.text, count=1).rstrip(".!")):
        return None
    return number


def reference_kind(reference: str) -> Literal["number", "choice", "words", "none"]:
    """What a reference can be checked as: "number", "choice" (a letter A to J), "words" (letters throughout), or "none":
    an expression, a list or an interval, which needs the judge of LaTeX."""
    piece = _reference_piece(reference)
    if _read_gold(piece) is not None:
        return "number"
    text = _text(piece.text)
    if _choice(text) is not None:
        return "choice"
    return (
        "words"
        if text[:MAX_TEXT] == text
        and text.casefold() not in _NO_ANSWER
        and _WORDS.fullmatch(text)
        and not re.search(r"\b(?![aAI]\b)[^\W\d_]\b", text)
        else "none"
    )


def states_number(reference: str) -> bool:
    """Whether a reference states a number; one that does not is compared as text."""
    return read_reference(reference) is not None


def reference_answer(reference: str) -> str:
    """The part of a reference that states its answer: what follows GSM8K's last `####`, else as for predictions."""
    return _reference_piece(reference).text


def extract_answer(text: str) -> str:
    """The piece of an executor's output that states its answer (tracelift/verify/where.py)."""
    return find_answer(text).text


def _reference_piece(reference: str) -> Piece:
    """A reference is a piece as it stands where it is one line without a mark; a whole solution is searched for one."""
    head, mark, tail = reference.rpartition("####")
    if mark and tail.strip():
        return Piece(tail.strip(), formula=True)
    whole = reference.strip()
    piece = find_answer(reference)
    if (
        "\n" not in whole
        and piece.prose
        and whole.endswith(piece.text)
        and whole[: -len(piece.text) or None].strip() in ("", "-")
    ):
        return Piece(whole, formula=True, prose=True)  # a leading "- " is a sign here
    return piece


def same_number(a: Number, b: Number) -> bool:
    """Equality of two read numbers, with the two freedoms that `verify_math` documents."""
    one_is_plain = a.value == a.unit_value or b.value == b.unit_value
    return (
        a.unit_value == b.unit_value
        or (one_is_plain and a.value == b.value)
        or (one_is_plain and _rounds_to(a.value, b.value, a.places, b.places))
    )


def _rounds_to(a: Fraction, b: Fraction, places_a: int, places_b: int) -> bool:
    """Whether one is the other cut or rounded to the six or more decimals it is written with, or float noise off.

    Only a number that no decimals write out has a rounding: 0.1234567 is not 0.1234568.
    """
    gap, size = abs(a - b), max(abs(a), abs(b))
    if a * b <= 0 or gap > Fraction(1, 10**6) or gap > size / 10**4 or places_a == places_b == 0:
        return False
    if gap * 10**12 <= size and max(places_a, places_b) >= 12:
        return True
    if places_a and places_b and min(places_a, places_b) > 0:
        return False
    return any(places >= 6 and gap < Fraction(1, 10**places) for places in (places_a, places_b))


# ---------------------------------------------------------------------------------------------------------- texts


def _same_text(said: str, wanted: str) -> bool:
    if max(len(said), len(wanted)) > 10 * MAX_TEXT:
        return False
    letter = _choice(_text(wanted))
    if letter is not None:
        return _choice(_text(said)) == letter
    return as_text(said) == as_text(wanted)


def _choice(text: str) -> str | None:
    """The letter of a multiple choice in its usual dress: `C`, `(C)`, `C)`, `Option C`, `E: the last`, `C is correct`; None
    for other text, and where what follows the letter denies it or names another."""
    text = text[: MAX_TEXT + 1].strip(" .*_{}\t\n")
    match = _CHOICE.match(text)
    if match is None or len(text) > MAX_TEXT:
        return None
    tail = _REASON.split(text[match.end() :], maxsplit=1)[0]
    if not tail.strip() or _CONFIRMED.fullmatch(tail):
        return match[1].upper()
    closes = _CLOSES.match(tail)
    if closes is None or (closes["comma"] and not match[1].isupper()):
        return None
    tail = tail[closes.end() :].strip(" {}*_\t\n")
    spaced = closes[0].strip() in (".", ":", ",")
    if spaced and tail and not re.match(r"[^\W\d_]{2}|[-\d\\({$]", tail):
        return None
    kept = _NONE_OF.sub("", tail)
    denied = _CONTRARY.search(kept) or any(denies(w.strip(".,!;:()")) for w in kept.casefold().split())
    return None if denied else match[1].upper()


def _text(piece: str) -> str:
    """A piece in one spelling without "the answer is" and without braces around words (`\\text{Evelyn}`)."""
    text, before = normalise(_STATED.sub("", piece)), None
    while text != before and len(text) <= 10 * MAX_TEXT and "{" in text:
        before, text = text, _WORDS_IN_BRACES.sub(r"\1", text)
    return text


def as_text(piece: str) -> str:
    """A piece in the form in which answers that are no numbers are compared: one spelling, words in one case, white space
    only where two digits or letters would meet without it, no final stop."""
    row = tokens(_text(piece.strip()))
    if row and row[-1].text in (".", "。") and [t.text for t in row[-2:]] != [".", "."]:
        row = row[:-1]
    if len(row) > 1 and row[-1].text == "!" and row[-2].kind == "word" and len(row[-2].text) > 1:
        row = row[:-1]
    shown: list[str] = []
    for i, token in enumerate(row):
        apart = token.spaced and i and token.kind == row[i - 1].kind != "sign"
        shown.append(
            (" " if apart else "")
            + (token.text.casefold() if len(token.text) > 1 and token.kind == "word" else token.text)
        )
    return "".join(shown)


# --------------------------------------------------------------------------------------------- GSM8K's two usual rules

_STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")


def gsm8k_strict(text: str) -> str | None:
    """The first `#### x` of `text`, as lm-evaluation-harness' strict-match reads it; None where there is none."""
    match = _STRICT.search(text)
    return _gsm8k_normal(match[1]) if match else None


def gsm8k_flexible(text: str) -> str | None:
    """The last number of `text`, as lm-evaluation-harness' flexible-extract reads it; None where there is none."""
    found = _FLEXIBLE.findall(text)
    return _gsm8k_normal(found[-1][0] or found[-1][1]) if found else None


def _gsm8k_normal(answer: str) -> str:
    """The form in which that harness compares strings, so that 18.0 is not 18 under it."""
    return re.sub(r"\.$", "", re.sub(r"(?s).*#### ", "", answer.replace(",", "").replace("$", ""))).strip().lower()
