"""A sentence → the number it states: the one exception to "read whole, or text".

A closing sentence gives the one number that it states ("So she has 18 eggs left."); where it states several, the last,
and only where no word or sign beside it changes what it means (tracelift/verify/vocabulary.py: CHANGES). Otherwise it
is text. A number that ends an equation needs arithmetic before the `=`, or one letter alone.

Left out: number words in sentences ("the other one"), and the sentences before the last one that holds a digit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tracelift.verify import vocabulary as words
from tracelift.verify.grammar import Number, is_arithmetic, read_tokens
from tracelift.verify.lexing import MAX_CHARS, Token, normalise, tokens

_END = re.compile(r"(?<=[.!?])[\"')*_]*\s+")
_REASON = re.compile(r",?\s(?:because|since|as)\s")
_STOPS = frozenset(",;:.")
_OPERATORS = frozenset("+*/^<>≤≥≠±|_()[]{}\\!?#-=")
_WINDOW = 4  # words
_LONGEST = 12  # tokens of one number
_DASHES = ("-", "—", "―")
_BESIDE = (
    (words.CHANGES - {"to", "through", "but"}) | (words.OPERATES - {"square", "cube", "tangent"}) | {"of", "x"}
)  # before a number
_BEHIND = (words.CHANGES - {"by", "through", "to", "but"}) | (words.OPERATES - {"square"})
_RESULTS = frozenset("answer result solution number value".split())
_AFTER_RESULT = _BEHIND - frozenset("than less fewer over under above below up without until except".split())
_PARTS = frozenset("a an half one another".split())


def read_sentence(text: str, formula: bool = False) -> Number | None:
    """The number that the last sentence with a digit states, or None. A sentence that opens with an answer and goes on
    with its reason ("72, because …") states what stands before. formula: a closing `!` is a factorial."""
    sentences = [s for s in _END.split(text[-MAX_CHARS:].strip()) if s]
    if len(text) > MAX_CHARS:  # the first one has lost its beginning
        sentences = sentences[1:]
    closing = next((i for i in reversed(range(len(sentences))) if any(c.isnumeric() for c in sentences[i])), None)
    if closing is None or any(_negates(s) for s in sentences[closing + 1 :]):
        return None
    head = _REASON.split(sentences[closing], maxsplit=1)[0]
    if head != sentences[closing] and (number := read_tokens(tokens(normalise(head)), formula)) is not None:
        return number
    row = tokens(normalise(sentences[closing]))
    if (number := read_tokens(row, formula)) is not None:
        return number
    return _last_number(row) if sum(t.kind == "word" and len(t.text) > 1 for t in row) >= 2 else None


def _negates(sentence: str) -> bool:
    return any(w.strip(".,!;:") in words.NEGATIONS or "n't" in w for w in sentence.casefold().split())


def _last_number(row: Sequence[Token]) -> Number | None:
    place = next((i for i in reversed(range(len(row))) if row[i].kind == "number"), None)
    if place is None:
        return None
    end = place + 1
    while end < len(row) and (row[end].text in ("}", "%", "percent") or row[end].text.casefold() in words.SCALES):
        end += 1
    for start in range(max(0, place - _LONGEST), place + 1):
        if row[start].kind != "number" and row[start].text not in ("\\frac", "{"):
            continue
        if any(t.text in ("=", "≈") for t in row[start:place]):
            continue
        if (number := read_tokens(row[start:end], True)) is not None:
            sign, start = _sign(row, start)
            result = start > 0 and row[start - 1].text in ("=", "≈")
            if not sign or not _unchanged_before(row, start) or not _unchanged_after(row, end, result):
                return None
            return number if sign > 0 else Number(-number.value, -number.unit_value, number.places)
    return None


def _sign(row: Sequence[Token], start: int) -> tuple[int, int]:
    """(1, -1, or 0 where a minus may be an operator or a dash; where the number with its sign begins)."""
    before = row[start - 1] if start else None
    if before is None or (before.text not in _DASHES and before.text.casefold() not in words.NEGATIVE):
        return 1, start
    left = row[start - 2] if start > 1 else None
    if left is not None and (left.kind == "number" or left.text in (")", "}", "%", "]")):
        return 0, start
    if before.text in _DASHES and (row[start].spaced or before.text != "-" or (left is not None and not before.spaced)):
        return 0, start
    return -1, start - 1


def _unchanged_before(row: Sequence[Token], start: int) -> bool:
    """Whether nothing in the clause before row[start] changes the number there. A verb shields it from the words of
    before: in "half of them is 5" nothing is halved."""
    before = row[start - 1] if start else None
    if before is not None and before.text in ("=", "≈"):
        return _arithmetic_before(row, start - 1)
    if before is not None and before.kind in ("word", "command") and not row[start].spaced:
        return False
    if start > 1 and before is not None and before.text in (",", ":", ";", "to") and row[start - 2].kind == "number":
        return False  # a list, a clock, a range
    if _of_the_answer(row[:start]):
        return False
    if before is not None and before.text in (",", ":"):  # "at least: 5" is no pause
        if _lists(row[: start - 1]):
            return False
        start -= 1
    if start and row[start - 1].text.casefold() == "but" or _far(row[:start]):
        return False
    shielded = False
    for seen, token in enumerate(reversed(row[:start])):
        text = token.text.casefold()
        if text in _STOPS:
            return True
        if text in words.NEGATIONS or "n't" in text or text == "between":
            return False
        if shielded:
            continue
        if token.kind == "number":
            return seen >= 2  # 5 hours 30 minutes
        if text in words.VERBS:
            shielded = True
        elif (
            token.kind == "command"
            or text in _OPERATORS
            or seen < _WINDOW
            and text in _BESIDE
            and (text != "and" or not seen)
            and not (text == "of" and row[start - seen - 2].text.casefold() in words.TOTALS)
        ):
            return False
    return True


def _of_the_answer(before: Sequence[Token]) -> bool:
    """Whether what "is" the number is something made of the answer: "twice the answer is 5"."""
    folded = {t.text.casefold() for t in before}
    return bool(folded & _RESULTS and folded & words.OPERATES)


def _far(before: Sequence[Token]) -> bool:
    return [t.text.casefold() for t in before[-2:]] in (["far", "from"], ["away", "from"])


def _lists(before: Sequence[Token]) -> bool:
    """Whether a number with at most three words and no verb ends `before`, as in "5 apples, " before another."""
    for token in reversed(before[-4:]):
        if token.kind == "number":
            return True
        if token.kind != "word" or token.text.casefold() in words.VERBS:
            return False
    return False


def _arithmetic_before(row: Sequence[Token], equals: int) -> bool:
    """Whether what stands before the `=` is arithmetic, words, or one letter alone."""
    begin = equals
    while begin > 0 and row[begin - 1].text not in _STOPS and not _opens(row[begin - 1]):
        begin -= 1
    sides: list[list[Token]] = [[]]
    for token in row[begin:equals]:
        sides.append([]) if token.text == "=" else sides[-1].append(token)
    first = sides[0]
    if all(t.kind == "word" for t in first):  # a label; `x = 1 or x = 2` is a choice
        known = len(first) < 2 or all(len(t.text) > 1 for t in first)
        before = row[begin - 1].text.casefold() if begin else ""
        return known and before not in words.CHANGES and all(map(is_arithmetic, sides[1:]))
    while first[0].kind == "word" and len(first[0].text) > 1:  # Sara sent 15 + 18 = 33
        first.pop(0)
        begin += 1
    before = row[begin - 1].text.casefold() if begin else ""
    if before in words.CHANGES - {"and", "or", "to", "between"} or not all(map(is_arithmetic, sides[1:])):
        return False
    return is_arithmetic(first) or any(
        is_arithmetic(first[i:])  # with 2500 sheets she prints 2500/25 = 100
        for i in range(1, min(len(first), _LONGEST))
        if first[i].kind == "number" and first[i - 1].kind == "word" and not words.single(first[i - 1].text)
    )


def _opens(token: Token) -> bool:
    """Whether a word stands before an equation rather than in it."""
    text = token.text.casefold()
    if token.kind != "word" or len(text) == 1:
        return False
    return text in words.VERBS or text in words.FILLERS or not words.is_unit_word(token.text, False)


def _unchanged_after(row: Sequence[Token], end: int, result: bool) -> bool:
    """Whether nothing in the clause from row[end] on changes the number before it. result: of an equation, so that "6 fewer
    than the others" compares and does not bound."""
    changing = _AFTER_RESULT if result else _BEHIND
    known = words.VERBS | (words.CHANGES - changing) | {"a"}
    first = row[end] if end < len(row) else None
    if first is not None and first.kind == "word" and not words.is_unit_word(first.text, not first.spaced):
        odd = first.text.casefold() not in known or not first.spaced
        if odd:
            return False
    shielded = False
    for i in range(end, len(row)):
        text = row[i].text.casefold()
        following = row[i + 1].text.casefold() if i + 1 < len(row) else ""
        if text in _STOPS:
            return following not in ("or", "not", "and", ".")
        if (text in words.NEGATIONS and text in changing) or "n't" in text:
            return False
        if row[i].kind == "command" or text in _OPERATORS or (i == end and text in ("'", '"')):
            return False
        shielded = shielded or text in words.VERBS
        pointed = text in ("point", "dot") and following in words.NUMBER_WORDS
        if i - end < _WINDOW and (pointed or any(map(words.scales, text.split("-")))):
            return False
        if not shielded and i - end < _WINDOW and text in changing and (text != "and" or following in _PARTS):
            return False
    return True
