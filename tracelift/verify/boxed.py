r"""What stands beside a mark or a box, the last box of a text, and a reply without LaTeX delimiters boxed.

    changed_before  does the sentence before a mark deny, doubt or change it ("the wrong answer is 5", "Not\n5")?
    last_box        the last box, and whether a neighbour changes it (`-\boxed{5}`, `\boxed{5}\pi`, `\boxed{6} or \boxed{5}`)
    delimited       a reply without delimiters → the same reply with its answer in \boxed{…}, where it is one beyond doubt

What is not known to be harmless beside a mark makes the piece text, which passes for no number. Of a neighbour's line,
the line before is looked at where it has no stop.

math-verify reads LaTeX in `$…$` and `\boxed{…}` only; of `2\sqrt{3}` it sees the number 2. But an executor that is
asked for the answer and nothing else gives just that. What counts as a bare answer, in a reply that delimits nothing:

    the reply that repeats the reference to the letter
    one line that is words throughout (`Evelyn`, "The answer is no solution")
    what follows the last line's last word: `2\sqrt{3}` in "So it is 2\sqrt{3}.", all of `x = 2 or x = -3`

Everything else is prose, left to math-verify's usual extraction: a last line that ends in a word ("3 apples"), or whose
brackets do not match. Left out: answers in the middle of a line, verbal numbers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

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
    line = next((line for line in reversed(lines[:-1]) if line.strip()), "")
    if line and _dangles(tokens(normalise(line))):
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


# --------------------------------------------------------------------------------------------------------------- boxes

BOX = re.compile(r"\\(?:boxed|fbox)\s*(?P<open>\{)?")


@dataclass(frozen=True)
class Box:
    """`content`: what it says, a minus right before it included. `changed`: a neighbour makes something else of it.
    `line`: the line it stands in."""

    content: str
    changed: bool
    line: str


def last_box(text: str) -> Box | None:
    r"""The last box that has any content, braces matched, or `\boxed 5`; else None. Linear in the text."""
    closing = _closing_braces(text) if "\\boxed" in text or "\\fbox" in text else {}
    for match in reversed(list(BOX.finditer(text))):
        if match["open"]:
            end = closing.get(match.end() - 1)
            content = "" if end is None else text[match.end() : end]
            end = match.end() if end is None else end + 1
        else:
            content = re.split(r"\$|\\\)|\\\]|\n|[.,](?:\s|$)", text[match.end() : match.end() + 200])[0]
            end = match.end() + len(content)
        content = content.strip()
        if content.endswith("\\"):  # `72\ `
            content = content[:-1].strip()
        if not content:
            continue
        changed = box_changed(text, match.start(), end)
        if changed == "-":
            content = f"-{content}" if content[0].isdigit() or content.startswith("\\") else f"-({content})"
        stop = text.find("\n", end)
        line = text[text.rfind("\n", 0, match.start()) + 1 : stop if stop >= 0 else len(text)].strip()
        return Box(content, changed is True, line)
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


# -------------------------------------------------------------------------------------------------------- bare replies

LONGEST = 400  # characters; no answer of MATH comes near

_DELIMITED = re.compile(r"(?<!\\)\$|\\boxed|(?<!\\)\\[(\[]|\\begin\{(?!\w?matrix|array|cases)")
_MATRIX = re.compile(r"\\begin\{(\w+)\}.*?\\end\{\1\}", re.DOTALL)
_TEXT = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox|operatorname)\s*\{[^{}]*\}")
_STATED = re.compile(r"\A(?:.*\banswer|it)\s*+(?:is\b|[:=])[:\s]*+", re.IGNORECASE)
_VERBS = ("is", "are", "be", "equals")
_WORD = re.compile(r"\A[A-Za-z'’-]*[A-Za-z]{2}[A-Za-z'’-]*")
_OPERATOR = re.compile(r"[+*/^=<>]|-$|\\(?:cdot|times|div|pm|le|ge|leq|geq|neq|cup|cap|in)\b")
_FUNCTION = re.compile(r"(?<![\\A-Za-z])(arcsin|arccos|arctan|sin|cos|tan|sec|csc|cot|log|ln|pi)(?![A-Za-z])")
_ROOT_OF_BRACKET = re.compile(r"\\sqrt\s*\(([^()]*)\)")
_ROOT = re.compile(r"√\s*(?:\(([^()]*)\)|(\w+))")
_SIGNS = {"°": r"^\circ ", "−": "-", "∞": r"\infty ", "×": r"\times ", "·": r"\cdot ", "±": r"\pm ", "≤": r"\le ", "≥": r"\ge ",
          "∪": r"\cup ", "∩": r"\cap ", "∅": r"\emptyset "}  # fmt: skip


def delimited(text: str, gold: str) -> str:
    r"""`text` with its answer in \boxed{…} where it has a bare one; else as it is, with \fbox spelt \boxed."""
    text = spelt(text.replace("\\fbox", "\\boxed"))
    if _DELIMITED.search(text):
        return text
    answer = gold if text.split() == gold.split() else _bare(text)
    if answer is not None and answer.isalpha() and "\\text" in gold:  # a word, where letters would be a product
        answer = f"\\text{{{answer}}}"
    return text if answer is None else f"\\boxed{{{answer}}}"


def spelt(text: str) -> str:
    r"""`text` with `\sqrt(2)`, of which math-verify sees nothing, spelt \sqrt{2}."""
    return _ROOT_OF_BRACKET.sub(r"\\sqrt{\1}", text)


def _bare(text: str) -> str | None:
    """The answer that the last line ends with; None where it is prose."""
    joined = _MATRIX.sub(lambda m: " ".join(m[0].split()), text.strip()[-4 * LONGEST :])
    before, _, line = joined.rpartition("\n")
    line = line.strip(" \t\r#*")
    if not line or len(line) > LONGEST:
        return None
    line = _latex(line.rstrip(" .*"))
    tokens = list(re.finditer(r"\S+", _TEXT.sub(lambda m: "0" * len(m[0]), line)))
    words = [_is_word(tokens, i) for i in range(len(tokens))]
    if all(w or _joins(t[0]) for w, t in zip(words, tokens, strict=True)):
        if before.strip():  # "Hope this helps!" under an answer is none
            return None
        answer = line[m.end() :] if (m := _STATED.match(line)) else line
        answer = f"\\text{{{answer}}}" if " " in answer and "," not in answer else answer
    else:
        first = max((i + 1 for i, w in enumerate(words) if w), default=0)
        while first < len(tokens) and _joins(tokens[first][0]):
            first += 1
        answer = line[tokens[first].start() :] if first < len(tokens) else ""
    answer = answer.strip(" *")
    return answer if answer and _balanced(answer) else None


def _is_word(tokens: list[re.Match[str]], i: int) -> bool:
    """Two letters or more that stand apart; `xy` in `xy + z` is a product, `and` joins answers."""
    token = tokens[i][0].strip('*_,.;!?"#()')
    name = token.rstrip(":")
    if not _WORD.fullmatch(name) or _joins(name):
        return False
    if name != token or name.lower() in _VERBS:  # "Answer: -3", "it is - 3": no product to the left of a minus
        return True
    beside = [tokens[j][0] for j in (i - 1, i + 1) if 0 <= j < len(tokens)]
    return not any(map(_OPERATOR.match, beside))


def _joins(token: str) -> bool:
    return token in ("and", "or")


def _balanced(text: str) -> bool:
    """Braces match, and as many brackets close as open, of whatever shape: [0, 1) is an interval."""
    depth = 0
    for c in text.replace("\\{", "(").replace("\\}", ")"):
        depth += (c == "{") - (c == "}")
        if depth < 0:
            return False
    return depth == 0 and sum(map(text.count, "([")) == sum(map(text.count, ")]"))


def _latex(line: str) -> str:
    """Plain spellings that math-verify takes for products of letters, or for nothing, in LaTeX."""
    line = _ROOT.sub(lambda m: f"\\sqrt{{{m[1] or m[2]}}}", line)
    return _FUNCTION.sub(r"\\\1", "".join(_SIGNS.get(c, c) for c in line))
