"""What the statements of test code do: which of them judge, and whose the names are that they read.

A statement judges if it can fail a wrong answer by itself: it asserts, raises, or calls a helper that does. The others
prepare, and belong to the judging statement after them, or, at the end, before them: all run, and none fails unseen. To
take a judging statement for a preparing one thus moves a verdict from one test to its neighbour, and loses none.

A name that neither the tests nor Python's builtins bind is the program's where it is asked for: as an entry point, or as
a function or class that no one else could mean. It is the standard library's where tests commonly use such a tool
(`math.isclose`, `Counter`), unless the statement would then not ask the program anything: `assert gcd(4, 6) == 2` asks for
the program's own.

Left out on purpose: running anything, and following values: `check = make()` hides that `check` judges.
"""

from __future__ import annotations

import ast
import builtins
import symtable
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

BUILTINS = frozenset(dir(builtins))
Definition = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
OPENING = (
    "__init__",
    "__new__",
    "__call__",
    "__enter__",
    "__exit__",
    "__post_init__",
)  # run by making or using an object

_TOOLS = {
    "math": "isclose sqrt fabs floor ceil trunc isnan isinf isfinite pi tau inf nan log log2 log10 exp factorial gcd lcm "
    "comb perm prod hypot dist fsum sin cos tan radians degrees",
    "collections": "Counter deque defaultdict OrderedDict namedtuple ChainMap",
    "itertools": "permutations combinations combinations_with_replacement product chain accumulate islice cycle repeat "
    "count groupby zip_longest takewhile dropwhile starmap pairwise",
    "functools": "reduce partial cmp_to_key lru_cache cache",
    "fractions": "Fraction",
    "decimal": "Decimal",
    "copy": "deepcopy",
    "random": "randint",
    "datetime": "datetime date timedelta",
    "heapq": "heappush heappop heapify nsmallest nlargest",
    "bisect": "bisect_left bisect_right insort",
    "string": "ascii_lowercase ascii_uppercase ascii_letters digits",
    "typing": "Any Callable Dict Iterable Iterator List Optional Sequence Set Tuple Union",
}
TOOLS = {name: module for module, names in _TOOLS.items() for name in names.split()}


# -- which statements judge -------------------------------------------------------------------------------------------


def immediate(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when the statement does: not the bodies of what it merely defines."""
    if not isinstance(node, Definition):
        yield node
        for child in ast.iter_child_nodes(node):
            yield from immediate(child)


def judges(node: ast.stmt, helpers: set[str]) -> bool:
    return any(_judges(n, helpers) for n in immediate(node))


def _judges(node: ast.AST, helpers: set[str]) -> bool:
    if isinstance(node, ast.Assert):
        return not idle(node)
    if isinstance(node, ast.Raise):
        return True
    if not isinstance(node, ast.Call):
        return False
    method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
    named = {n.id for n in (node.func, *node.args) if isinstance(n, ast.Name)} | {method}
    return method.startswith("assert") or method in ("fail", "main", "raises") or not helpers.isdisjoint(named)


def idle(node: ast.stmt) -> bool:
    """`assert True, "…"`, as HumanEval has it, and texts for people: nothing runs."""
    value = node.test if isinstance(node, ast.Assert) else node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and (isinstance(node, ast.Expr) or bool(value.value))


def helpers_that_judge(statements: Iterable[ast.stmt]) -> set[str]:
    """Names of functions and methods that may fail whom they are called for, and of classes that do when they are used."""
    defined: list[tuple[str, list[ast.stmt]]] = []
    for node in (n for statement in statements for n in ast.walk(statement)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            defined.append((node.name, node.body))
        elif isinstance(node, ast.ClassDef):
            methods = [m for m in node.body if isinstance(m, ast.FunctionDef) and m.name in OPENING]
            defined.append((node.name, [s for m in methods for s in m.body]))
    found: set[str] = set()
    while new := {name for name, body in defined if name not in found and any(judges(s, found) for s in body)}:
        found |= new
    return found


# -- whose names are read ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Names:
    """What one piece of source does with global names."""

    read: frozenset[str]
    bound: frozenset[str]
    called: frozenset[str]  # of those read: called, handed to a call, or used as a decorator
    innermost: frozenset[str]  # of those called: with arguments that call nobody


def names_of(tree: ast.Module, source: str) -> Names:
    """Raises what the compiler raises on text that is not Python."""
    read: set[str] = set()
    bound: set[str] = set()
    todo = [symtable.symtable(source, "tests", "exec")]
    while todo:
        table = todo.pop()
        todo += table.get_children()
        top = table.get_type() == "module"
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (top or symbol.is_global()):
                read.add(symbol.get_name())
            written = symbol.is_assigned() or symbol.is_imported()
            if (top and written) or symbol.is_declared_global():
                bound.add(symbol.get_name())
    called: set[str] = set()
    innermost: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            given = [*node.args, *(k.value for k in node.keywords)]
            called |= {n.id for n in (node.func, *given) if isinstance(n, ast.Name)}
            calls = [n.func for a in given for n in ast.walk(a) if isinstance(n, ast.Call)]
            if isinstance(node.func, ast.Name) and {n.id for n in calls if isinstance(n, ast.Name)} <= BUILTINS:
                innermost.add(node.func.id)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            called |= {n.id for n in node.decorator_list if isinstance(n, ast.Name)}
    return Names(frozenset(read), frozenset(bound), frozenset(called & read), frozenset(innermost & read))


@dataclass(frozen=True)
class Owners:
    """asked: names of the program beyond the entry points. tools: source that imports what the standard library has."""

    asked: frozenset[str]
    tools: str
    setup_asks: bool


def owners(setup: Names, statements: Sequence[tuple[Names, bool]], entry: frozenset[str]) -> Owners:
    """Whose each name is that is read and not bound. statements: the names of each, and whether it judges."""
    everything = [setup, *(names for names, _ in statements)]
    bound = frozenset().union(*(n.bound for n in everything))
    called = frozenset().union(*(n.called for n in everything))
    free = frozenset().union(*(n.read for n in everything)) - bound - BUILTINS - entry
    tools = {n: line for n in free if (line := tool(n, n in called))}
    asked = free - tools.keys()
    if not entry:
        for own, judging in statements:
            if judging and not own.read & asked:
                pieces = behind(own, everything)
                values = bound & frozenset().union(*(p.read for p in pieces))
                if not any(n.read & asked and (n in pieces or n.read & values) for n in everything):
                    asked |= {n for p in pieces for n in p.innermost if n in tools}
    lines = sorted(line for name, line in tools.items() if name not in asked)
    return Owners(asked, "\n".join(lines), bool(setup.read & (asked | entry)))


def behind(own: Names, everything: Sequence[Names]) -> list[Names]:
    """A statement, and all that bind what it reads, and what those read, and so on."""
    found, names = [own], set(own.read)
    while more := [n for n in everything if n not in found and not names.isdisjoint(n.bound)]:
        found += more
        names = names.union(*(n.read for n in more))
    return found


def tool(name: str, called: bool) -> str:
    """The import of a name from the standard library; '' if it is not one that tests use. Modules cannot be called."""
    if name in TOOLS and (called or name not in sys.stdlib_module_names):
        return f"from {TOOLS[name]} import {name}"
    return f"import {name}" if name in sys.stdlib_module_names and not called else ""
