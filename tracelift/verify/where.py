r"""Where in an executor's text the answer stands.

    1. reasoning goes first, whatever its length: `<think>…</think>`, and all before a `</think>` whose opening tag stood in
       the prompt; a tag that never closes leaves no answer
    2. what a base model writes on, a next problem, goes, where an answer stands before it
    3. within `<answer>…</answer>` where there is one: the last box with content, the first `####`, the last "the answer is",
       a first line that is one bare number, else the last line

List marks ("(1)", "**1.**") and "Example:" end no search. Linear in the length of the text. Left out: what the piece means
(grammar.py, prose.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tracelift.verify.boxed import BOX, changed_before, last_box
from tracelift.verify.grammar import read_whole
from tracelift.verify.prose import read_sentence
from tracelift.verify.vocabulary import NEGATIONS

_TAGS = "think|thinking|thought|reasoning|reflection|scratchpad"
_REASONING = re.compile(  # the last two: gpt-oss, whose final channel ends all reasoning before it
    rf"<(?P<close>/)?(?:[a-z]{{1,12}}:)?(?:{_TAGS})>|\[(?P<end>/)?THINK\]|<\|(?:begin|(?P<stop>end))_of_(?:{_TAGS})\|>"
    r"|<\|channel\|>(?:analysis|commentary)[^<\n]{0,40}<\|message\|>"
    r"|(?:<\|start\|>assistant)?<\|channel\|>(?P<final>final)[^<\n]{0,40}<\|message\|>",
    re.IGNORECASE,
)
_SOLUTION = re.compile(r"^\s*<\|begin_of_solution\|>", re.IGNORECASE)
_SPECIAL = re.compile(r"<\|[^|<>\n]{1,40}\|>|</s>|\[/?INST\]")
_NEXT_PROBLEM = re.compile(
    r"\n[ \t]*(?:#{1,6}[ \t]*)?(?:\*\*[ \t]*)?(?:(?:next|new|another)[ \t]+)?"
    r"(?:problem|question|exercise|instruction|input|user|human|q)[ \t]*+(?:[0-9]+[ \t]*+)?(?:\*\*[ \t]*+)?[:.\n]",
    re.IGNORECASE,
)
_ASKS = re.compile(r"\b(?:how|what|find|calculate)\b", re.IGNORECASE)
_CALCULATOR = re.compile(r"<<[^<>\n]*>>")
_FRAME = re.compile(  # lines that say nothing: fences, rules, the marks of a displayed formula
    r"^[ \t]*+(?:\\[\[\]()]|\$\$?|`{3,}\w*+|[-*_=~]{3,}|\\(?:begin|end)\{(?:align|equation|gather)\*?\})[ \t]*+(?:\n|\Z)",
    re.MULTILINE,
)
_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
_STATED = re.compile(
    r"\b(?:answer|option|choice)\s++is\b[ \t]*+(?:(?:therefore|thus|then|simply|now)\b[ \t]*+)?(?:[:=]\s*+)?\s*+(?=\S)"
    r"|\banswer[ \t]*+(?:(?:\*\*|__)[ \t]*+)?(?:[:=]|[-–][ \t])\s*+(?:(?:\*\*|__)\s*+)?(?=\S)",
    re.IGNORECASE,
)
_HEADING = re.compile(r"\A(?:[0-9]+[.)]\s+\S|#|(?:step|part|case)\b)", re.IGNORECASE)
_LIST_MARK = re.compile(r"\A[*_ ]*+(?:\([0-9]{1,3}\)|[0-9]{1,3}[.)])[*_ ]*")
_BULLET = re.compile(r"^(?:[-*•]|#{1,6})[ \t]+(?=\S)")
_CONCLUDES = re.compile(r"(?:so|thus|hence|therefore|altogether|in total|in all)\b", re.IGNORECASE)
_PASSES = re.compile(
    r"[0-9]\s+[a-z]+\s+(?:pass|later|ago|earlier|before|after|go(?:es)? by|remain to)\b", re.IGNORECASE
)
_COLUMN = ("+", "-", "*", "×", "=", "/")  # a sum set out in lines


@dataclass(frozen=True)
class Piece:
    """A piece of text that states an answer. formula: it stands in a box or after `####`. prose: it may be a sentence.
    changed: what stands beside it denies or changes it, so that it states nothing."""

    text: str
    formula: bool = False
    prose: bool = False
    changed: bool = False


NOTHING = Piece("")


def find_answer(text: str) -> Piece:
    """The piece of an executor's text that states its answer; an empty one where there is none."""
    text = _FRAME.sub("", _CALCULATOR.sub("", without_reasoning(text)).strip())
    text, tagged = inside_tag(_first_problem(text).strip())
    return _marked(text) or _unmarked(text, tagged)


def without_reasoning(text: str) -> str:
    """What stands outside of reasoning tags; "" where the last one opened never closes."""
    kept: list[str] = []
    start, depth = 0, 0
    for tag in _REASONING.finditer(text):
        if not any(tag.groups()):
            if not depth:
                kept.append(text[start : tag.start()])
            depth += 1
        else:
            if not depth or tag["final"]:  # its opening tag stood in the prompt
                kept.clear()
            depth, start = 0, tag.end()
    return "" if depth else _SOLUTION.sub("", "\n".join([*kept, text[start:]]))


def _first_problem(text: str) -> str:
    """`text` up to where it turns to another problem, provided that an answer stands before."""
    if (end := _SPECIAL.search(text, 1)) and text[: end.start()].strip():
        text = text[: end.start()].rstrip()
    start = 0  # what stands before holds no answer, or the search would have ended
    for cue in _NEXT_PROBLEM.finditer(text):
        part = text[start : cue.start()].strip()
        if _answers(part) or (not start and _opening_number(part)):
            text = text[: cue.start()].rstrip()
            break
        start = cue.end()
    answered = _answered_at(text)
    if answered is not None:
        for paragraph in re.finditer(r"\n[ \t]*\n([^\n]*)", text[answered:]):
            line = paragraph[1][:2400]
            ask = _ASKS.search(line)
            if ask is not None and "?" in line[ask.end() :]:
                return text[: answered + paragraph.start()]
    return text


def _answers(head: str) -> bool:
    """Whether `head` holds a marked answer, or ends in a number or in a sentence that concludes."""
    if not head:
        return False
    if _marked(head) is not None:
        return True
    piece = _unmarked(head)
    if not any(c.isdigit() for c in head) and piece.text:
        return "\n" not in head and len(head) < 200
    if read_whole(piece.text) is not None:
        return not _PASSES.search(piece.text)
    return bool(_CONCLUDES.search(piece.text)) and read_sentence(piece.text) is not None


def _answered_at(text: str) -> int | None:
    """Where in `text` the first answer ends: its first mark, or a first line that is a number."""
    first = text.partition("\n")[0]
    if _opening_number(text) or (first and read_whole(first) is not None):
        return len(first)
    return next((m.end() for p in (BOX, _STATED) if (m := p.search(text))), None)


def inside_tag(text: str) -> tuple[str, bool]:
    """(the content of the last `<answer>` that has any, True), or (all of `text`, False) without one."""
    start, found = None, None
    for tag in _TAG.finditer(text):
        if not tag[1]:
            start = tag.end()
        elif start is not None or found is None:  # its opening tag may have stood in the prompt
            found, start = (text[start or 0 : tag.start()].strip() or found), None
    if found is None and start is not None:  # cut off before its end, or ended by a stop string
        found = text[start:].strip()
    return (text, False) if found is None else (found, True)


def _marked(text: str) -> Piece | None:
    if (box := last_box(text)) is not None:
        return Piece(box.line if box.changed else box.content, formula=True, changed=box.changed)
    if (after := _after_hashes(text.split("\n"))) is not None:
        return Piece(after, formula=True, prose=True)
    marks = list(_STATED.finditer(text))
    for i, mark in reversed(list(enumerate(marks))):
        end = text.find("\n", mark.end())
        piece = text[mark.end() : end if end >= 0 else len(text)].strip()
        piece = re.sub(r"^(?:\*\*|__)|^[\s:]+", "", piece)
        if piece.strip("*_.: "):
            between = text[marks[i - 1].end() : mark.start()] if i else "\n"
            again = any(c.isnumeric() for c in between) and not re.search(r"\n|[.!?]\s", between)
            if again or changed_before(text, mark.start()):
                begin = text.rfind("\n", 0, mark.start()) + 1
                return Piece(text[begin : end if end >= 0 else len(text)].strip(), changed=True)
            return Piece(piece, prose=True)
    return None


def _after_hashes(lines: list[str]) -> str | None:
    """What follows the first `####` that is no Markdown heading: it states a number, or ends the text."""
    filled = [i for i, line in enumerate(lines) if line.strip()]
    for i, line in enumerate(lines):
        _, mark, tail = line.partition("####")
        tail = tail.strip()
        if not mark or not tail or _HEADING.match(tail):
            continue
        if i == filled[-1] or read_whole(tail, True) is not None or not any(c.isalpha() for c in tail):
            return tail
    return None


def _unmarked(text: str, tagged: bool = False) -> Piece:
    """A first line that is nothing but a number, else the last line that states anything. tagged: a leading "- " is no
    bullet."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if not lines:
        return NOTHING
    if _opening_number(text):
        return Piece(lines[0])
    for line in reversed(lines[-4:]):  # "I hope this helps." is no answer, "No, that is wrong." takes one back
        words = line.casefold().split()
        says_nothing = not any(c.isnumeric() for c in line) and len(words) > 2
        if not says_nothing or any(w.strip(".,!;:") in NEGATIONS or "n't" in w for w in words):
            before = text.rstrip()[: -len(line)] if line == lines[-1] else ""
            if before and changed_before(before, len(before)):
                return Piece(line, changed=True)
            return Piece(line if tagged else _BULLET.sub("", line, count=1), prose=True)
    return Piece(lines[-1], prose=True)


def _opening_number(text: str) -> bool:
    """Whether the first line is one bare number that no list or sum goes on from."""
    first, _, rest = text.lstrip().partition("\n")
    first = first.strip()
    if not rest.strip() or not first or _LIST_MARK.fullmatch(first) or re.search(r"[^\W\d_]|=", first):
        return False
    if read_whole(first) is None:
        return False
    following = next(line.strip() for line in rest.split("\n") if line.strip())
    return not following.startswith(_COLUMN)
