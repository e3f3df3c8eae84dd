r"""What stands beside a marked answer: does it change what the mark says?

    "the wrong answer is 5", "-\boxed{5}", "\boxed{5}\pi", "\boxed{6} or \boxed{5}", "Not\n5"

The sentence around a mark is looked at, with the end of the line before where that has no stop. What is not known to be
harmless makes the piece text (where.py), which passes for no number. Left out: sentences (prose.py), what the piece says.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tracelift.verify import vocabulary as words
from tracelift.verify.lexing import Token, normalise, tokens

_AROUND = 400  # characters looked at on either side
_WINDOW = 5  # tokens
_END = re.compile(r"[.!?][\"')*_$\]]*\s|\n[ \t]*\n")
_CONCLUDES = frozenset("so thus hence therefore then but".split())
_JOINS = frozenset("and to through between over by up under below above than ce ad am pm".split())
_CHANGES = words.CHANGES - _JOINS
_RESULTS = frozenset("answer result solution".split())
_ARROWS = ("⇒", "\\\\")
_BEFORE_BOX = frozenset("# = ≈ : , . ; ! ? & \" “ ' — – ∴".split() + list(_ARROWS))
_AFTER_BOX = frozenset(". , ; : ! ? ) ] } % ° = ≈ & | \" ” ' — –".split() + list(_ARROWS) + ["\\end"])


def changed_before(text: str, at: int) -> bool:
    """Whether what stands before the mark or line that begins at text[at] denies, doubts or changes it."""
    lines = _END.split("\n" + text[max(0, at - _AROUND) : at])[-1].split("\n")
    if len(lines) > 1 and (line := next((line for line in reversed(lines[:-1]) if line.strip()), "")):
        if _dangles(tokens(normalise(line))):
            return True
    row = tokens(normalise(lines[-1]))
    folded = [t.text.casefold() for t in row]
    last = 0  # ", so" begins anew; "it isn't so that" does not
    for i, word in enumerate(folded):
        if word in _CONCLUDES and (not i or folded[i - 1] in (",", ";", "and")):
            last = i + 1
    if any(denies(word) for word in folded[last:]):
        return True
    if _RESULTS & set(folded[last:]) and words.OPERATES & set(folded[last:]):
        return True
    for word in reversed(folded[last:][-_WINDOW:]):
        if word in words.VERBS or word in ",;:":
            break
        if word in _CHANGES or word in words.DOUBTS or word in words.OPERATES:
            return True
    return False


def denies(word: str) -> bool:
    """Whether a word (in lower case) takes back what its sentence says."""
    return word in words.NEGATIONS or "n't" in word


def _dangles(row: Sequence[Token]) -> bool:
    """Whether a line without a stop goes on in the next one: it ends in an operator, or in a word that changes a number."""
    while row and row[-1].text in (":", ","):
        row = row[:-1]
    if not row:
        return False
    if row[-1].text in ("-", "+", "*", "/", "^", "<", ">", "≤", "≥", "≠", "±") and len(row) > 1:
        return True
    folded = [t.text.casefold() for t in row]
    return folded[-1] in _CHANGES | words.OPERATES | {"of", "than", "but"} or any(map(denies, folded[-4:]))


def box_changed(text: str, start: int, end: int) -> bool | str:
    r"""Whether a neighbour of the box text[start:end] changes it; "-" where all that stands there is a minus sign."""
    line = text.rfind("\n", 0, start) + 1
    before = _END.split(text[max(line, start - _AROUND) : start])[-1]
    row = tokens(normalise(before))
    if changed_before(text, start) or _changed_after(text[end : end + _AROUND]):
        return True
    if not row:
        return False
    token, left = row[-1], row[-2] if len(row) > 1 else None
    if token.text == "-":
        if left is None and before.endswith((" ", "- $", "-  $")):  # a bullet
            return False
        return True if left is not None and left.kind == "number" or left and left.text in (")", "}", "%") else "-"
    if token.kind == "word":
        word = token.text.casefold()
        if len(word) == 1 and word not in "ai":
            return True
        total = word == "of" and left is not None and left.text.casefold() in words.TOTALS
        return word in words.CHANGES - {"to", "through", "by"} or (
            word in ("of", "from") and not total and word == "of"
        )
    if token.kind == "sign":
        if token.text == "(":
            return left is not None and not token.spaced
        if token.text == "{":
            return left is not None
        listed = token.text in ",;" and left is not None and left.kind == "number"
        return token.text not in _BEFORE_BOX or listed or (token.text in ",;:" and _boxed_before(before))
    return token.text not in _ARROWS


def _boxed_before(text: str) -> bool:
    return bool(re.search(r"\\f?box(?:ed)?\s*\{[^{}]*\}[^\w]*$", text))


def _changed_after(text: str) -> bool:
    text = re.split(r"\n|[.!?](?:\s|$)", text, maxsplit=1)[0]
    row = [t for t in tokens(normalise(text)) if t.text not in ("{", "}")]
    if not row:
        return False
    token, word = row[0], row[0].text.casefold()
    following = row[1] if len(row) > 1 else None
    if token.kind in ("number", "command") and token.text not in _AFTER_BOX:
        return True
    if token.kind == "word":
        if len(word) == 1 and word not in "ai" and not words.is_unit_word(token.text, not token.spaced):
            return True
        operates = word in words.OPERATES and not (word == "square" and following and following.kind == "word")
        if word in _CHANGES or operates or words.counts(word):
            return True
    elif token.text == "(":
        if not token.spaced:
            return True
    elif token.text == "-":
        if not token.spaced or following is None or following.kind != "word" or len(following.text) == 1:
            return True
    elif token.kind == "sign" and token.text not in _AFTER_BOX:
        return True
    if token.text in ",;" and following is not None and (following.kind == "number" or following.text == "or"):
        return True
    folded = [t.text.casefold() for t in row]
    if any(map(denies, folded)):
        return True
    near = list(zip(row[:_WINDOW], row[1 : _WINDOW + 1], strict=False))
    return "or" in folded[:_WINDOW] or any(a.text == "and" and b.kind == "number" for a, b in near)
