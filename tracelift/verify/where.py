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

from tracelift.verify.grammar import read_whole
from tracelift.verify.prose import read_sentence
from tracelift.verify.vocabulary import NEGATIONS

_REASONING = re.compile(r"<(/?)(?:think|thinking|thought|reasoning|reflection|scratchpad)>", re.IGNORECASE)
_SPECIAL = re.compile(r"<\|[^|<>\n]{1,40}\|>|</s>|\[/?INST\]")
_NEXT_PROBLEM = re.compile(
    r"\n[ \t]*(?:#{1,6}[ \t]*)?(?:\*\*[ \t]*)?(?:(?:next|new|another)[ \t]+)?"
    r"(?:problem|question|exercise|instruction|input|user|human|q)[ \t]*[0-9]*[ \t]*(?:\*\*)?[ \t]*[:.\n]",
    re.IGNORECASE,
)
_ASKS = re.compile(r"\b(?:how|what|find|calculate)\b", re.IGNORECASE)
_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?P<open>\{)?")
_CALCULATOR = re.compile(r"<<[^<>\n]*>>")
_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
_STATED = re.compile(
    r"\b(?:answer|option|choice)\s+is\b[ \t]*(?:therefore|thus|then|simply|now)?[ \t]*[:=]?\s*(?=\S)"
    r"|\banswer[ \t]*(?:\*\*|__)?[ \t]*(?:[:=]|[-–][ \t])\s*(?:\*\*|__)?\s*(?=\S)",
    re.IGNORECASE,
)
_HEADING = re.compile(r"[0-9]+[.)]\s+\S|#")
_LIST_MARK = re.compile(r"[*_ ]*(?:\([0-9]{1,3}\)|[0-9]{1,3}[.)])[*_ ]*")
_BULLET = re.compile(r"^[-*•][ \t]+(?=\S)")
_CONCLUDES = re.compile(r"(?:so|thus|hence|therefore|altogether|in total|in all)\b", re.IGNORECASE)
_COLUMN = ("+", "-", "*", "×", "=", "/")  # a sum set out in lines


@dataclass(frozen=True)
class Piece:
    """A piece of text that states an answer. formula: it stands in a box or after `####`. prose: it may be a sentence."""

    text: str
    formula: bool = False
    prose: bool = False


NOTHING = Piece("")


def find_answer(text: str) -> Piece:
    """The piece of an executor's text that states its answer; an empty one where there is none."""
    text = _CALCULATOR.sub("", without_reasoning(text)).strip()
    text = inside_answer(_first_problem(text))
    return _marked(text) or _unmarked(text)


def without_reasoning(text: str) -> str:
    """What stands outside of reasoning tags; "" where the last one opened never closes."""
    kept: list[str] = []
    start, depth = 0, 0
    for tag in _REASONING.finditer(text):
        if not tag[1]:
            if not depth:
                kept.append(text[start : tag.start()])
            depth += 1
        else:
            if not depth:  # its opening tag stood in the prompt
                kept.clear()
            depth, start = 0, tag.end()
    return "" if depth else "\n".join([*kept, text[start:]])


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
        return True
    return bool(_CONCLUDES.search(piece.text)) and read_sentence(piece.text) is not None


def _answered_at(text: str) -> int | None:
    """Where in `text` the first answer ends: its first mark, or a first line that is a number."""
    first = text.partition("\n")[0]
    if _opening_number(text) or (first and read_whole(first) is not None):
        return len(first)
    return next((m.end() for p in (_BOX, _STATED) if (m := p.search(text))), None)


def inside_answer(text: str) -> str:
    """The content of the last `<answer>` that has any; all of `text` without one."""
    start, found = None, None
    for tag in _TAG.finditer(text):
        if not tag[1]:
            start = tag.end()
        elif start is not None:
            found, start = (text[start : tag.start()].strip() or found), None
    if found is None and start is not None:  # cut off before its end, or ended by a stop string
        found = text[start:].strip()
    return text if found is None else found


def _marked(text: str) -> Piece | None:
    if (box := last_box(text)) is not None:
        return Piece(box, formula=True)
    if (after := _after_hashes(text.split("\n"))) is not None:
        return Piece(after, formula=True)
    for mark in reversed(list(_STATED.finditer(text))):
        piece = re.sub(r"^(?:\*\*|__)|^[\s:]+", "", text[mark.end() :].split("\n", 1)[0].strip())
        if piece.strip("*_.: "):
            return Piece(piece, prose=True)
    return None


def last_box(text: str) -> str | None:
    r"""The content of the last `\boxed{…}` or `\fbox{…}` that has any, braces matched, or of `\boxed 5`; else None."""
    closing = _closing_braces(text) if "\\boxed" in text or "\\fbox" in text else {}
    for match in reversed(list(_BOX.finditer(text))):
        if match["open"]:
            end = closing.get(match.end() - 1)
            content = "" if end is None else text[match.end() : end]
        else:
            content = re.split(r"\$|\\\)|\\\]|\n|[.,](?:\s|$)", text[match.end() : match.end() + 200])[0]
        if content.strip():
            return content.strip()
    return None


def _closing_braces(text: str) -> dict[int, int]:
    """{place of an opening brace: place of the brace that closes it}."""
    found: dict[int, int] = {}
    opened: list[int] = []
    for match in re.finditer(r"\\.|[{}]", text, re.DOTALL):
        if match[0] == "{":
            opened.append(match.start())
        elif match[0] == "}" and opened:
            found[opened.pop()] = match.start()
    return found


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


def _unmarked(text: str) -> Piece:
    """A first line that is nothing but a number, else the last line that states anything."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if not lines:
        return NOTHING
    if _opening_number(text):
        return Piece(lines[0])
    for line in reversed(lines[-4:]):  # "I hope this helps." is no answer, "No, that is wrong." takes one back
        words = line.casefold().split()
        says_nothing = not any(c.isnumeric() for c in line) and len(words) > 2
        if not says_nothing or any(w.strip(".,!;:") in NEGATIONS or "n't" in w for w in words):
            return Piece(_BULLET.sub("", line, count=1), prose=True)
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
