"""Does a plan leak the program? The planner is asked for a plan that holds no code; `non_leakage` is the RM's view of it.

A line of the plan that is Python and does something counts, and so does a line of the reference program standing in the
plan's prose. Left out: pseudo-code, and plans that name every token of a program in words.
"""

from __future__ import annotations

import ast
import re

from tracelift.programs.extract import does_something
from tracelift.programs.fences import CODE_START, parse

_SHORTEST = 8  # characters; shorter lines of a reference ("else:", "i += 1") occur in prose by chance
_ORDER = re.compile(r"[OoΘΩ]\([^()]*(?:\([^()]*\)[^()]*)*\)")  # O(n log(n)), said of a plan's cost
_RETURN = re.compile(r"return\b[^.!?]*(?:[-+*/%<>=(\[{\"'])")  # "return the sum" parses as no statement anyway
_RETURNS = re.compile(r"\breturn\b[^\n`;]*")  # also after "Then"
_INLINE = re.compile(r"`([^`\n]+)`")
_LIST_MARK = re.compile(r"^(?:[-*•]|\(?[0-9a-z]{1,2}[.)])\s+")
_SPLIT = re.compile(r"\n|(?:^|(?<=\s))(?:[Cc]ode|[Pp]rogram|[Pp]ython):")


def leaks_program(trace: str, reference: str = "") -> bool:
    """Whether `trace` holds Python code: a statement on a line of its own (also after "Code:"), inline code in
    backticks that assigns or calls, or a line of `reference`, white space aside."""
    pieces = [piece.strip().strip("`").strip() for piece in _SPLIT.split(trace)] + _INLINE.findall(trace)
    returns = [match[0].rstrip(".") for match in _RETURNS.finditer(trace)]
    if any(map(_is_code, pieces + returns)) or any(map(_computes, _INLINE.findall(trace))):
        return True
    packed = "".join(trace.split())
    lines = ("".join(line.split()) for line in reference.split("\n") if not line.lstrip().startswith("#"))
    return any(len(line) >= _SHORTEST and line in packed for line in lines)


def _computes(text: str) -> bool:
    """Whether inline code is an expression of two operators or more on names, such as `n*2+1`; `n-1` only names a place."""
    tree = None if _ORDER.fullmatch(text) else parse(text)
    nodes = list(ast.walk(tree)) if tree is not None else []
    return sum(isinstance(n, ast.BinOp) for n in nodes) > 1 and any(isinstance(n, ast.Name) for n in nodes)


def _is_code(text: str) -> bool:
    text = _LIST_MARK.sub("", text)
    if not text or _ORDER.fullmatch(text) or not (CODE_START.match(text) or _RETURN.match(text) or "lambda" in text):
        return False
    tree = parse(text) or parse(text + " pass")  # `for x in a:` alone is half a statement
    if tree is None or not tree.body:
        return False
    return does_something(tree) or any(isinstance(node, ast.Lambda) for node in ast.walk(tree))
