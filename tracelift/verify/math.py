"""The math verifier V(a): does the executor's text state the reference's number?

V of the method (the paper's answer equivalence), rebuilt on exact fractions. It accepts what is right under the
authors' rule and mends what that rule reads wrongly: "The answer is 3.5" is three and a half, "$12.50" keeps its
cents, `1 1/2` is not a half, `10-5` is no "-5", and a base model that goes on to a next problem is marked by its
first answer. Where the answer stands is decided in this order: a bare number as the first line, `#### x`, `<answer>`,
`\\boxed{x}`, "the answer is x", and last the final number of the text.

No verdict comes from an exception: the work is bounded by the regular expressions' linear scans and by the digit and
exponent limits of `tracelift.verify.numbers`, so there is no signal, no thread and no sympy here.

Left out on purpose: algebraic equivalence (a reference that is no number is compared as normalised text) and
conversions between units.
"""

from __future__ import annotations

import re
from fractions import Fraction

from tracelift.verify.numbers import Number, find_numbers, plain
from tracelift.verify.verdict import Verdict

MAX_CHARS = 20_000  # five times the longest output an executor is allowed; beyond it, only the head is read


def verify_math(prediction: str, reference: str) -> Verdict:
    """PASS where `prediction` states the number (or, lacking one, the text) that `reference` states.

    A reference without any text is ERROR: nothing can be judged by it. A prediction without an answer is FAIL.
    Percent signs and scale words may stand on one side only: 50% matches 50, and 1/2. Decimals match a fraction that
    they write out to six places or more; otherwise equality is exact. Raises TypeError on anything but two strings.
    """
    if not isinstance(prediction, str) or not isinstance(reference, str):
        raise TypeError(f"verify_math takes two texts, not {type(prediction).__name__}, {type(reference).__name__}")
    if not reference.strip():
        return Verdict.ERROR
    gold = read_number(reference_answer(reference), "####" in reference)
    if gold is None:
        said, wanted = _as_text(extract_answer(prediction)), _as_text(reference_answer(reference))
        return Verdict.PASS if wanted and said == wanted else Verdict.FAIL
    stated = read_number(*_find_answer(prediction))
    return Verdict.PASS if stated is not None and same_number(stated, gold) else Verdict.FAIL


def states_number(reference: str) -> bool:
    """Whether a reference states a number; one that does not is compared as text."""
    return read_number(reference_answer(reference), "####" in reference) is not None


def same_number(a: Number, b: Number) -> bool:
    """Equality of two read numbers, with the two freedoms that `verify_math` documents."""
    if a.value is None or b.value is None or a.unit_value is None or b.unit_value is None:
        return False
    one_is_plain = a.value == a.unit_value or b.value == b.unit_value
    return (
        a.unit_value == b.unit_value
        or (one_is_plain and a.value == b.value)
        or (one_is_plain and _rounds_to(a.value, b.value, a.places, b.places))
    )


def _rounds_to(a: Fraction, b: Fraction, places_a: int, places_b: int) -> bool:
    """Whether one is the other cut or rounded to the six or more decimals it is written with, or float noise off."""
    gap, size = abs(a - b), max(abs(a), abs(b))
    if a * b <= 0 or gap > Fraction(1, 10**6) or gap > size / 10**4 or places_a == places_b == 0:
        return False
    return gap * 10**12 <= size or any(places >= 6 and gap < Fraction(1, 10**places) for places in (places_a, places_b))


# -------------------------------------------------------------------------------------------- where the answer stands

_NEXT_PROBLEM = re.compile(
    r"<\|[^|<>]{1,40}\|>|</s>|\[/?INST\]"
    r"|\n[ \t]*(?:#{1,6}[ \t]*)?(?:\*\*[ \t]*)?(?:(?:next|new|another|example)[ \t]+)?"
    r"(?:problem|question|exercise|example|instruction|input|user|human|q)[ \t]*[0-9]*[ \t]*(?:\*\*)?[ \t]*[:.\n]",
    re.IGNORECASE,
)
_NEXT_QUESTION = re.compile(r"\n[ \t]*\n[^\n]{0,2000}\b(?:how|what|find|calculate)\b[^\n]{0,400}\?", re.IGNORECASE)
_BOXED = re.compile(r"\\f?boxed\s*\{")
_THINK = re.compile(r"<think>.*?</think>", re.DOTALL | re.IGNORECASE)
_CALCULATOR = re.compile(r"<<[^<>\n]*>>")
_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_STATED = re.compile(
    r"\banswer\s+is\b[ \t]*(?:therefore|thus|then|simply|now)?[ \t]*[:=]?\s*(?=\S)"
    r"|\banswer\s*(?:\*\*)?\s*[:=]\s*(?:\*\*)?\s*(?=\S)",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"\b(?:step|week|day|month|year|hour|part|case|round|person)\s[0-9]+:(?=\S)", re.IGNORECASE)
_FILLER = r"(?:about|approximately|approx\.?|around|roughly|exactly|equal to|equals|is|~|≈|=|:|[a-zA-Z]\s*=)"
_LEAD = re.compile(rf"[\s(\[*_\"'$]*(?:{_FILLER}[\s(\[*_\"'$]*){{0,3}}")
_BARE_TAIL = re.compile(r"[\s)\].!*_\"'$]*")
_UNIT_TAIL = re.compile(r"[\s)\]*_\"'$]*(?:[^\W\d_]+[²³°]?[\s./*_\"'$)\]]*){0,4}[.!]?\s*")
_OPERATOR_AFTER = re.compile(r"\s*[-+*/×^]\s*[($]?\s*[0-9.(\\]|\s+[xX]\s+[0-9(]|\s*=\s*[-+($]*[0-9.\\]")
_OPERATOR_BEFORE = re.compile(r"(?:[0-9)%]\s*[-+*/×^]|[0-9)]\s+[xX])\s*[($]?\s*$")
_HEDGE_AFTER = re.compile(r"\$?\s*(?:or|to|and|,|±|;)\s*[-+]?[($]*\s*[0-9]", re.IGNORECASE)
_HEDGE_BEFORE = re.compile(r"[0-9)%]\$?\s*(?:\bor\b|\bto\b|,|±|;)\s*[-+]?[($]*\s*$", re.IGNORECASE)


def reference_answer(reference: str) -> str:
    """The part of a reference that states its answer: what follows GSM8K's last `####`, else as for predictions."""
    head, mark, tail = reference.rpartition("####")
    return tail.strip() if mark and tail.strip() else extract_answer(reference)


def extract_answer(text: str) -> str:
    """The piece of an executor's output that states its answer (see the head of this file for the order)."""
    return _find_answer(text)[0]


def _find_answer(text: str) -> tuple[str, bool]:
    """(the piece that states the answer, whether it was marked as such rather than being the text as a whole)."""
    text = _CALCULATOR.sub("", _THINK.sub("", text[:MAX_CHARS])).strip()
    text = _first_problem(text)
    lines = text.split("\n")
    if _is_bare(lines):
        return lines[0].strip(), True
    if (marked := _after_hashes(lines)) is not None:
        return marked, True
    if tags := _TAG.findall(text):
        return tags[-1].strip(), True
    first_mark = next((m.end() for p in (_BOXED, _STATED) if (m := p.search(text))), None)
    if first_mark is not None and (question := _NEXT_QUESTION.search(text, first_mark)):
        text = text[: question.start()]  # after an answer a new question opens another problem; before one it may not
    if (boxed := last_boxed(text)) is not None:
        return boxed, True
    marks = [match.end() for match in _STATED.finditer(text)]
    return (text[marks[-1] :].split("\n", 1)[0].strip(), True) if marks else (text, False)


def _first_problem(text: str) -> str:
    """`text` up to where it turns to another problem, provided that something like an answer stands before."""
    for match in _NEXT_PROBLEM.finditer(text):
        head = text[: match.start()]
        answered = any(c in "0123456789" for c in head) or not any(c in "0123456789" for c in text)
        if answered and head.strip():
            return head.rstrip()
    return text


def _is_bare(lines: list[str]) -> bool:
    """Whether the first line is nothing but a number (with its unit, where it is a paragraph of its own)."""
    first = plain(lines[0])
    found = find_numbers(first)
    if not found or found[0].value is None or not _LEAD.fullmatch(first, 0, found[0].start):
        return False
    rest = next((line.strip() for line in lines[1:] if line.strip()), "")
    if rest[:1] in ("+", "-", "*", "×", "=", "/"):  # a sum set out in columns
        return False
    if _BARE_TAIL.fullmatch(first, found[0].end):
        return not (rest and re.fullmatch(r"\s*[0-9]+[.)]\s*", lines[0]))  # "1." heads a list
    return bool(_UNIT_TAIL.fullmatch(first, found[0].end)) and (len(lines) == 1 or not lines[1].strip())


def _after_hashes(lines: list[str]) -> str | None:
    """What follows the first `####` that a number with at most a unit follows; Markdown headings are passed over."""
    for line in lines:
        _, mark, tail = line.partition("####")
        tail = tail.strip()
        if not mark or re.match(r"[0-9]+[.)]\s+\S|#", tail):
            continue
        body = boxed if (boxed := last_boxed(tail)) is not None else tail
        text = plain(body)
        found = find_numbers(text)
        if found and _LEAD.fullmatch(text, 0, found[0].start) and _UNIT_TAIL.fullmatch(text, found[-1].end):
            return body
    return None


def last_boxed(text: str) -> str | None:
    """The content of the last `\\boxed{…}`, braces matched; None where there is none or it is not closed."""
    for match in reversed(list(_BOXED.finditer(text))):
        depth = 1
        for i in range(match.end(), min(len(text), match.end() + 2000)):
            depth += (text[i] == "{") - (text[i] == "}")
            if depth == 0:
                return text[match.end() : i].strip()
    return None


# ------------------------------------------------------------------------------------------------ reading the number


def read_number(piece: str, marked: bool = False) -> Number | None:
    """The one number that a piece of text states, or None: no number, an unfinished sum, a list, `5 or 6`, algebra.

    A `marked` piece ("the answer is …") that opens with a number states that number. Else the last number of its
    first sentence counts, or, in unmarked text, the last of all, as in the paper's rule.
    """
    text = _NUMBERED.sub(r"\g<0> ", plain(piece).strip())
    if "\n" not in text and re.search(r"\\[A-Za-z]+\s*\{", text) and last_boxed(text) is None:
        return None  # LaTeX that is not understood: a root, a matrix, an interval
    if re.fullmatch(r"\$?[0-9]{1,3}(?: [0-9]{3})+", text):
        text = text.replace(" ", "")
    line = text.split("\n", 1)[0]
    numbers = find_numbers(line)
    if numbers and _LEAD.fullmatch(line, 0, numbers[0].start):
        whole = line == text and _UNIT_TAIL.fullmatch(line, numbers[-1].end)
        if marked or (whole and (len(numbers) == 1 or _OPERATOR_AFTER.match(line, numbers[0].end))):
            return _opening_number(line, numbers)
    if marked:
        text = next((s for s in re.split(r"[.!?](?=\s|$)", text) if find_numbers(s)), text)
    for body in (text, re.sub(r"\([^()]*\)", " ", text)):
        numbers = find_numbers(body)
        if numbers and numbers[-1].value is not None and _alone(body, numbers[-1]):
            return numbers[-1]
    return None


def _opening_number(line: str, numbers: list[Number]) -> Number | None:
    """The number a line opens with; the result where it opens with a finished sum; None where neither is one."""
    chosen = numbers[0]
    if _OPERATOR_AFTER.match(line, chosen.end):
        after = [n for n in numbers if n.start >= line.rfind("=") >= 0]
        if not after or not _alone(line, after[0]):
            return None
        chosen = after[0]
    if _HEDGE_AFTER.match(line, chosen.end):
        return None
    return chosen if chosen.value is not None else None


def _alone(text: str, number: Number) -> bool:
    """Whether the number is neither an operand of an unfinished sum nor a member of a list or of `5 or 6`."""
    head = text[max(0, number.start - 60) : number.start]
    after = _OPERATOR_AFTER.match(text, number.end) or _HEDGE_AFTER.match(text, number.end)
    if re.match(r"\s*=\s*[a-zA-Z]", text[number.end :]):  # `… or 20 = A` solves for A; no choice is left open
        return not (after or _OPERATOR_BEFORE.search(head))
    return not (after or _OPERATOR_BEFORE.search(head) or _HEDGE_BEFORE.search(head))


def _as_text(piece: str) -> str:
    """A piece in the form in which answers that are no numbers are compared: one case, no blanks, no final stop."""
    text = plain(piece).casefold().replace("$", "").strip()
    text = re.sub(r"\s+", "", re.sub(r"^(?:the\s+)?(?:final\s+)?answer\s*(?:is|[:=])", "", text)).strip(".。!*_")
    return text[1:-1] if re.fullmatch(r"\([a-z]\)", text) else text  # (C), a choice


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
