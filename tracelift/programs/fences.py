"""Where code stands in a text: fenced blocks, and runs of code lines between sentences.

A fence closes on a line of its own, at the end of the last code line, or where the next one opens; one that stands in a
docstring closes nothing. Each line is looked at a bounded number of times, so the time is linear in the text. Left out:
which of the pieces is the program (extract.py).
"""

from __future__ import annotations

import ast
import re
import textwrap
import warnings
from dataclasses import dataclass

INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060"  # a byte-order mark and characters without width
CODE_START = re.compile(
    r"^(?:import \w|from [\w.]+ import |(?:async )?def \w|class \w|@\w|if .+:|for .+:|while .+:|with .+:|try:|#|\"\"\"|"
    r"[A-Za-z_][\w.]*(?:\[.*\])?(?:\s*,\s*[A-Za-z_]\w*)*\s*(?:[-+*/%|&^]|//|\*\*|<<|>>)?=[^=]|[A-Za-z_][\w.]*\()"
)
LONGEST = 400  # characters of a line that decide what it is
_TRIES = 8  # fences in docstrings that are looked past: each may cost a look at the rest of the text
_STRING = re.compile(r"#|\"\"\"|'''|\"(?:[^\"\\]|\\.?)*\"?|'(?:[^'\\]|\\.?)*'?")
_FENCE = re.compile(r"`{3,}|~{3,}")
_SENTENCE = re.compile(
    r"(?:[-*+•>][ \t]|[0-9]+[.)][ \t]|\*\*|__\w+ |[-=*_]{3,}\s*$|`|~~~|\[/?[A-Z]+\]|</?[a-zA-Z]|<\|)"  # marks and tags
    r"|(?!(?:True|False|None)\b)[A-Z][\w'’-]*(?:[ \t]+[\w'’\"“`($\\]|[.,!?:;](?:\s|$)|$)"  # "Note that", "Output: 7"
    r"|[^\W\d_a-zA-Z]\w*+(?!\s*[=(\[.+\-*/,:])"  # a word that is not Latin, and no variable
)
_LOWER_SENTENCE = re.compile(r"(?:[a-z][\w'’,;-]*[ \t]+){3,}[\w'’-]+[.!?:]\s*$")
_OPENS_STATEMENT = re.compile(
    r"(?:if|elif|else|for|while|with|try|except|finally|def|class|return|yield|raise|import|from|pass|break|continue|"
    r"global|nonlocal|assert|del|lambda|async|await|print|not|match|case)\b"
)
_ANNOTATED = re.compile(
    r"[A-Za-z_]\w*\s*:\s*(?:int|str|float|bool|bytes|[Ll]ist|[Dd]ict|[Tt]uple|[Ss]et|Optional|Any|Union|Callable)\b"
)


@dataclass(frozen=True)
class Block:
    """A piece of a text. label: the fence's language in lower case, "" without one. closed: a fence ends it."""

    label: str
    body: str
    closed: bool = True


def parse(source: str) -> ast.Module | None:
    """The tree of a piece of Python, None where it is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a stranger's invalid escape sequences are no concern of our log
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def complete(source: str) -> ast.Module | None:
    """The tree of a whole program, None where it does not compile: `return 1` alone is a piece, and no program."""
    tree = parse(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if tree is not None:
                compile(source, "program.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return tree


def open_string(line: str, quote: str | None) -> str | None:
    """The triple quote that is open after `line`, given the one that is open before it."""
    at = 0
    while True:
        if quote is None:
            found = _STRING.search(line, at)
            if found is None or found[0] == "#":
                return None
            at = found.end()
            quote = found[0] if found[0] in ('"""', "'''") else None
        else:
            end = line.find(quote, at)
            if end < 0:
                return quote
            escaped = (end - len(line[at:end].rstrip("\\")) - at) % 2
            at, quote = (end + 1, quote) if escaped else (end + 3, None)


def is_sentence(line: str) -> bool:
    """Whether a line is said to a reader and is no code, not even broken code. Indented lines are none."""
    line = line[:LONGEST]
    if CODE_START.match(line) or _ANNOTATED.match(line):
        return False
    return bool(_SENTENCE.match(line) or (not _OPENS_STATEMENT.match(line) and _LOWER_SENTENCE.match(line)))


def up_to_prose(text: str) -> str:
    """`text` whole where it compiles, else up to the first sentence that stands in no string."""
    lines = text.split("\n")
    return text if complete(text) is not None else "\n".join(lines[: _code_lines(lines, 0)])


def _code_lines(lines: list[str], start: int) -> int:
    """Where the code that starts at line `start` ends: the place of the next sentence."""
    quote = None
    for i in range(start, len(lines)):
        if quote is None and is_sentence(lines[i]):
            return i
        quote = open_string(lines[i], quote)
    return len(lines)


def bare_blocks(text: str) -> list[Block]:
    """The runs of code between the sentences of a text without fences."""
    lines, blocks, at = text.split("\n"), [], 0
    while at < len(lines):
        if not CODE_START.match(lines[at][:LONGEST]):
            at += 1
            continue
        end = _code_lines(lines, at)
        blocks.append(Block("", "\n".join(lines[at:end])))
        at = end
    return blocks


def fenced_blocks(text: str) -> list[Block]:
    """The fenced blocks of a text, in order."""
    lines, blocks, at, tries = text.split("\n"), [], 0, _TRIES
    while at < len(lines):
        opening = _opening(lines[at])
        if opening is None:
            one_line = _one_line(lines[at])
            blocks += [one_line] if one_line else []
            at += 1
            continue
        mark, label = opening
        start = at + 1
        end, passed_by = _closing(lines, start, mark, tries if label in ("", *PYTHON) else 0)
        tries -= passed_by
        last = _before_mark(lines[end], mark) if end < len(lines) else None
        body = [*lines[start:end], last] if last is not None else lines[start:end]
        reopens = end < len(lines) and last is None and bool((_opening(lines[end]) or ("", ""))[1])
        blocks.append(Block(label, flush("\n".join(body)), end < len(lines) and not reopens))
        at = end if reopens else end + 1
    return blocks


PYTHON = ("python", "py", "python3", "py3", "python2")


def flush(body: str) -> str:
    """A block's text from the left margin on: without the indent of all its lines, a first blank, invisible marks."""
    body = body.strip("\n").lstrip(INVISIBLE)
    if body[:1] in (" ", "\t"):
        body = textwrap.dedent(body)
    return body[1:] if body[:1] == " " and body[1:2] not in (" ", "\t") else body


def _opening(line: str) -> tuple[str, str] | None:
    """(mark, label) where a line opens a block: it starts with a fence, or ends in one with Python's name."""
    head = line.lstrip(" \t>" + INVISIBLE)
    found = _FENCE.match(head)
    if found:
        info = head[found.end() :].strip()
        return None if "`" in info else (found[0], info.split(" ")[0].strip("{}.").lower())
    before, mark, label = line[-LONGEST:].rpartition("```")
    label = label.strip().lower()
    return (mark, label) if mark and label in PYTHON and "`" not in before and before[-1:] in (" ", ":") else None


def _one_line(line: str) -> Block | None:
    """A block that opens and closes on one line."""
    inner = line.strip(" \t>" + INVISIBLE)
    if len(inner) < 7 or not (inner.startswith("```") and inner.endswith("```")) or "`" in inner[3:-3]:
        return None
    word, _, rest = inner[3:-3].strip().partition(" ")
    return Block("python", rest) if word.lower() in PYTHON and rest else Block("", inner[3:-3].strip())


def _closes(line: str, mark: str) -> bool:
    """Whether a line starts with a fence that can end a block of `mark`: bare and as long, or one that opens another."""
    head = line.lstrip(" \t>")
    found = _FENCE.match(head)
    if found is None or found[0][0] != mark[0] or len(found[0]) < len(mark):
        return False
    return "`" not in head[found.end() :]


def _before_mark(line: str, mark: str) -> str | None:
    """The code before a fence at the end of its line; None where the line has none."""
    if _closes(line, mark) or not (line.rstrip().endswith(mark)):
        return None
    before = line.rstrip().rstrip(mark[0])
    return before if before.strip() else None


def _closing(lines: list[str], start: int, mark: str, tries: int) -> tuple[int, int]:
    """(the line that ends the block whose body starts at `start`, fences in strings that were looked past)."""
    quote, first, looked = None, None, 0
    for i in range(start, len(lines)):
        line = lines[i]
        before = _before_mark(line, mark)
        ends = _closes(line, mark) or (before is not None and open_string(before, quote) is None)
        if ends and quote is None:
            whole = first is None or complete(flush("\n".join(lines[start:i]))) is not None
            return (i if whole or first is None else first), looked
        if ends and first is None:
            if not tries:
                return i, 0
            first, looked = i, 1
        quote = open_string(line, quote)
    if first is not None and complete(flush(up_to_prose("\n".join(lines[start:])))) is None:
        return first, looked
    return len(lines), looked
