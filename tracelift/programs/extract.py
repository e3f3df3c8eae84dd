"""The program in a model's text.

Models answer with a fenced block, with a fence they never close, with several blocks, or with bare code between
sentences. The rule: the first *complete* program, a block that parses and does something, wins; Python-labelled fences
come before unlabelled ones, and a block that defines the function asked for before one that does not. Comments are
part of a program, those starting with ### included. Only what follows the program and is not Python is cut off.

Left out on purpose: repairing programs (indentation, missing imports); a broken one stays broken and is so judged.
"""

from __future__ import annotations

import ast
import re
import textwrap
import warnings

FENCE = re.compile(r"^[ \t>]*(`{3,}|~{3,})[ \t]*([\w+#.-]*)[^\n`]*$", re.MULTILINE)
PYTHON = {"python", "py", "python3", "py3", "python2", "pycon"}
CODE_START = re.compile(
    r"^(?:import \w|from [\w.]+ import |(?:async )?def \w|class \w|@\w|if .+:|for .+:|while .+:|with .+:|try:|#|\"\"\"|"
    r"[A-Za-z_][\w.]*(?:\[.*\])?(?:\s*,\s*[A-Za-z_]\w*)*\s*(?:[-+*/%|&^]|//|\*\*|<<|>>)?=[^=]|[A-Za-z_][\w.]*\()"
)
MOST_CHARACTERS = 200_000  # of a model's text that are looked at
MOST_TRIES = 60  # lines from which, and to which, a bare program is looked for: parsing again and again is quadratic


def parse(source: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a stranger's invalid escape sequences are no concern of our log
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def does_something(tree: ast.Module) -> bool:
    """False for sample data that happens to parse: `5`, `[1, 2]`, `abc`."""
    return any(not isinstance(s, ast.Expr) or any(isinstance(n, ast.Call) for n in ast.walk(s)) for s in tree.body)


def looks_like_code(text: str) -> bool:
    """Whether its first line could open a program, though the whole does not parse."""
    first = next((line for line in text.split("\n") if line.strip()), "")
    return bool(CODE_START.match(first)) and parse(text) is None


def defines(tree: ast.Module, name: str) -> bool:
    return any(
        isinstance(s, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and s.name == name for s in tree.body
    )


def fenced_blocks(text: str) -> list[tuple[str, str, bool]]:
    """(label, body, closed) of each fenced block, in order. Only the last can be unclosed."""
    blocks, at = [], 0
    while opening := FENCE.search(text, at):
        mark, label = opening.group(1), opening.group(2).lower()
        closing = re.compile(rf"^[ \t>]*{re.escape(mark)}{mark[0]}*[ \t]*$", re.MULTILINE).search(text, opening.end())
        body = text[opening.end() : closing.start() if closing else len(text)].strip("\n")
        blocks.append((label, textwrap.dedent(body), closing is not None))
        if closing is None:
            break
        at = closing.end()
    return blocks


def longest_program(lines: list[str]) -> str:
    """The longest run of lines from the first on that parses; '' if none does."""
    count = len(lines)
    for _ in range(MOST_TRIES):
        if not count:
            break
        source = "\n".join(lines[:count])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ast.parse(source)
            return source
        except SyntaxError as error:
            # What stands before the reported line may still be whole, so the end is never moved further than there.
            count = min(count - 1, max((error.lineno or count) - 1, 0)) if count > 1 else 0
        except (ValueError, RecursionError, MemoryError):
            return ""
    return ""


def bare_program(text: str) -> str | None:
    """The first program among sentences: from the first line that looks like code, as far as it parses."""
    lines = text.split("\n")
    starts = [i for i, line in enumerate(lines) if CODE_START.match(line)]
    for i in starts[:MOST_TRIES]:
        source = longest_program(lines[i:])
        tree = parse(source)
        if tree is not None and does_something(tree):
            return source.strip("\n") + "\n"
    return None


def extract_program(text: str, entry_point: str | None = None) -> str | None:
    """The program in `text`, or None if there is nothing that could be meant as one.

    entry_point: the function asked for; of several complete programs, the first that defines it is taken. Where no
    block is a complete program the likeliest is returned as it is, so that it can be judged a compile error.
    """
    text = text[:MOST_CHARACTERS].replace("\r\n", "\n")
    blocks = fenced_blocks(text)
    python = [block for block in blocks if block[0] in PYTHON]
    plain = [block for block in blocks if not block[0]]
    complete: list[tuple[str, ast.Module]] = []
    for _, body, closed in python + plain:
        source = body if closed else longest_program(body.split("\n")) or body
        tree = parse(source)
        if tree is not None and does_something(tree):
            complete.append((source.rstrip() + "\n", tree))
    if entry_point is not None:
        complete.sort(key=lambda found: not defines(found[1], entry_point))  # stable: first stays first
    if complete:
        return complete[0][0]
    if not blocks or (not python and not plain):
        bare = bare_program(text)
        if bare is not None:
            return bare
    bodies = [body for _, body, _ in python + plain] or [text.strip("\n")]
    return next((body + "\n" for body in bodies if looks_like_code(body)), None)
