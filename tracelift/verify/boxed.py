r"""A reply without LaTeX delimiters → the same reply with its answer in \boxed{…}, where it is one beyond doubt.

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
