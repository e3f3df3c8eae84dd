"""The program in a model's text.

Reasoning goes first, by the same rule as for numbers (tracelift/verify/where.py). Of several fenced blocks the *last
complete* program is taken: one that compiles, reads no name that nobody binds, and defines the function asked for or,
where none is asked for, acts and reads its input. So imports alone, `n = 5`, a draft shown first and a line that only
calls what another block defines are not it. Without fences it is the first such run of code between the sentences,
since a base model writes on. Comments are part of a program, those starting with ### included.

A program that does not compile is returned as it is, to be judged a compile error: it is never cut to the part that
parses. What is cut is only what follows it: sentences after an unclosed fence or a bare program.

Left out on purpose: repairing programs (indentation, missing imports), joining blocks.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Callable, Iterable, Iterator

from tracelift.programs.fences import (
    CODE_START,
    INVISIBLE,
    LONGEST,
    PYTHON,
    Block,
    bare_blocks,
    complete,
    fenced_blocks,
    flush,
    open_string,
    parse,
    up_to_prose,
)
from tracelift.verify.where import inside_tag, without_reasoning

MOST_CHARACTERS = 200_000  # of a model's text, its reasoning apart, that are looked at
_END_OF_ANSWER = re.compile(r"</answer>", re.IGNORECASE)
_READERS = {"input", "stdin", "open", "fileinput"}
_MODULE_NAMES = {*dir(builtins), "__name__", "__file__", "__doc__", "__builtins__"}


def does_something(tree: ast.Module) -> bool:
    """False for sample data that happens to parse: `5`, `[1, 2]`, `abc`."""
    return any(not isinstance(s, ast.Expr) or any(isinstance(n, ast.Call) for n in ast.walk(s)) for s in tree.body)


def defines(tree: ast.Module, name: str) -> bool:
    """Whether a program binds `name` where a caller finds it: at its top, or as a method of its class Solution."""
    for s in tree.body:
        if isinstance(s, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            if s.name == name:
                return True
            methods = s.body if isinstance(s, ast.ClassDef) and s.name == "Solution" else []
            if any(isinstance(m, (ast.FunctionDef, ast.AsyncFunctionDef)) and m.name == name for m in methods):
                return True
        elif isinstance(s, (ast.Assign, ast.AnnAssign)):
            targets = s.targets if isinstance(s, ast.Assign) else [s.target]
            if any(isinstance(t, ast.Name) and t.id == name for t in targets):
                return True
    return False


def bound_names(node: ast.AST) -> Iterator[str]:
    """Every name that is bound in a piece of code, in whatever scope; "*" where a module gives all of its own."""
    for n in ast.walk(node):
        if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load):
            yield n.id
        elif isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield n.name
        elif isinstance(n, ast.arg):
            yield n.arg
        elif isinstance(n, ast.alias):
            yield (n.asname or n.name).split(".")[0]
        elif isinstance(n, ast.ExceptHandler) and n.name or isinstance(n, (ast.MatchAs, ast.MatchStar)) and n.name:
            yield n.name
        elif isinstance(n, ast.MatchMapping) and n.rest:
            yield n.rest


def read_names(node: ast.AST) -> Iterator[str]:
    """Every name that is read in a piece of code, in the order of the walk."""
    return (n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load))


def _worth(tree: ast.Module, entry_point: str | None, given: Iterable[str]) -> tuple[int, bool, bool]:
    """What makes one block rather than another the program: of equal ones the last is."""
    definition = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    outside = [s for s in tree.body if not isinstance(s, definition)]
    acts = any(isinstance(n, ast.Call) for s in outside for n in ast.walk(s) if not isinstance(n, ast.Lambda))
    level = 2 if acts else int(len(outside) < len(tree.body))
    if entry_point is not None and defines(tree, entry_point):
        level, acts = 3, False
    bound = {*bound_names(tree), *_MODULE_NAMES, *given}
    whole = "*" in bound or bound.issuperset(read_names(tree))
    reads = entry_point is None and any(
        (isinstance(n, ast.Name) and n.id in _READERS) or (isinstance(n, ast.Attribute) and n.attr in _READERS)
        for n in ast.walk(tree)
    )
    return level, whole, reads


def extract_program(text: str, entry_point: str | None = None, given: Iterable[str] = ()) -> str | None:
    """The program in `text`, or None if there is nothing that could be meant as one. Linear in the text.

    entry_point: the function asked for. given: names that the program is handed, so that it need not bind them. Where
    nothing is a complete program the likeliest piece is returned as it is, so that it can be judged a compile error.
    """
    text = inside_tag(without_reasoning(text))[0].lstrip(INVISIBLE).replace("\r\n", "\n")
    text = next((part for part in _END_OF_ANSWER.split(text) if part.strip()), "")[:MOST_CHARACTERS]
    known = frozenset(given)
    whole = complete(flush(text))
    if whole is not None and does_something(whole):
        return flush(text).rstrip() + "\n"
    program = _choose(
        _python_blocks(text), lambda tree: _worth(tree, entry_point, known), 2 if entry_point is None else 3
    )
    if program is not None:
        return program
    # Nothing is fenced but data, if anything is. The first run of code counts, for a base model goes on to other problems.
    bare = bare_blocks(flush(text))[::-1]
    return _choose(bare, lambda tree: ((0, 1, 1, 2)[_worth(tree, entry_point, known)[0]],), 2 if entry_point else 1)


def _python_blocks(text: str) -> list[Block]:
    """The blocks that may be Python, those that are not closed without what is said after them."""
    return [
        block if block.closed else Block(block.label, flush(up_to_prose(block.body)), False)
        for block in fenced_blocks(text)
        if not block.label or block.label in PYTHON
    ]


def _choose(blocks: list[Block], worth: Callable[[ast.Module], tuple], enough: int) -> str | None:
    """The last of the complete blocks that are worth most. A broken one is meant where that is less than `enough`."""
    best, chosen, broken = (0,), None, None
    for block in blocks:
        tree, body = complete(block.body), block.body.rstrip() + "\n"
        if tree is None and (block.label or _looks_like_code(body)):
            broken = body
        elif tree is not None and does_something(tree) and worth(tree) >= best:
            best, chosen = worth(tree), body
    return broken if broken is not None and best[0] < enough else chosen


def continue_stub(stub: str, text: str) -> str | None:
    """`stub` with the indented text that goes on from it, None where the text does not.

    All that follows up to the first sentence is taken where that compiles, else what belongs to the stub's function:
    it ends with the first line that is not indented.
    """
    text = without_reasoning(text).replace("\r\n", "\n")[:MOST_CHARACTERS]
    if text.lstrip("\n")[:1] not in (" ", "\t"):
        return None
    whole = stub + up_to_prose(text).rstrip() + "\n"
    if complete(whole) is not None:
        return whole
    kept: list[str] = []
    quote = None
    for line in text.split("\n"):
        if quote is None and line.strip() and line[0] not in " \t":
            break
        kept.append(line)
        quote = open_string(line, quote)
    return stub + "\n".join(kept).rstrip() + "\n"


def with_preamble(preamble: str, program: str) -> str:
    """`program` with code before it; after its `from __future__` lines, which must stay first."""
    tree = parse(program)
    future = [s for s in (tree.body if tree else []) if isinstance(s, ast.ImportFrom) and s.module == "__future__"]
    if not preamble:
        return program
    if not future:
        return f"{preamble}\n{program}"
    lines = program.split("\n")
    last = future[-1].end_lineno or 0
    return "\n".join([*lines[:last], preamble, *lines[last:]])


def _looks_like_code(text: str) -> bool:
    """Whether its first line could open a program."""
    first = next((line for line in text.split("\n") if line.strip()), "")
    return bool(CODE_START.match(first[:LONGEST]))
