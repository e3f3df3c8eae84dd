"""Rows whose tests are Python: HumanEval and HumanEval+, MBPP and MBPP+, lists of assertions.

    HumanEval   prompt, entry_point, test (a function check(candidate)), canonical_solution
    MBPP        test_list, challenge_test_list, test (MBPP+: the plus tests, beside test_list; both count), test_imports,
                test_setup_code, code
    a list      tests: ["assert f(1) == 2", …]

Tests may import the standard library; of numpy, what evalplus' own helper uses (allclose, ndarray, …) is put in its
place, and a test that needs more of it is refused. Left out: rows of inputs and outputs (pairs.py), what of this judges
and how it is run (cases.py, judge.py).
"""

from __future__ import annotations

import ast
import builtins
import keyword
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from tracelift.programs.cases import Call, FunctionTests, ProblemError, Statement, parse_tests
from tracelift.programs.extract import bound_names, defines
from tracelift.programs.fences import parse
from tracelift.programs.fields import text_field, text_list

_NUMPY_USED = {"allclose", "isclose", "testing", "ndarray", "float64", "float32", "inf", "nan"}
_NUMPY = '''
class {name}:
    """What the tests use of numpy, for plain numbers and lists of them; unlike numpy's, shapes must be the same."""

    inf, nan = float("inf"), float("nan")
    float64 = float32 = float

    class ndarray:
        pass

    @staticmethod
    def allclose(a, b, rtol=1e-05, atol=1e-08):
        nested = isinstance(a, (list, tuple)), isinstance(b, (list, tuple))
        if any(nested):
            return all(nested) and len(a) == len(b) and all({name}.allclose(x, y, rtol, atol) for x, y in zip(a, b))
        return a == b or bool(abs(b) != float("inf") and abs(a - b) <= atol + rtol * abs(b))

    isclose = allclose

    class testing:
        @staticmethod
        def assert_allclose(actual, desired, rtol=1e-07, atol=0):
            assert {name}.allclose(actual, desired, rtol, atol)
'''


def humaneval_tests(row: dict[str, Any], where: str) -> tuple[FunctionTests, str]:
    """(tests, the prompt's imports and helper functions, which every program is given). Raises ProblemError."""
    prompt, entry, test = (text_field(row, where, key) for key in ("prompt", "entry_point", "test"))
    tree = parse(prompt)
    if tree is None:
        raise ProblemError(f"{where}: key 'prompt' is not Python")
    for node in tree.body:
        _refuse(_foreign(node), f"{where}, prompt")
    check_name(entry, where, "entry_point")
    preamble = "\n".join(ast.unparse(node) for node in tree.body if getattr(node, "name", None) != entry)
    sources = _check_statements(_python(test, where, "test"), entry)
    tests = parse_tests(sources, entry=("candidate",), setup=preamble, where=where)
    return _rename(tests, "candidate", entry), preamble


def check_name(name: object, where: str, key: str) -> str:
    """`name`, if it is a Python name. Raises ProblemError."""
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        raise ProblemError(f"{where}: {key} {str(name)[:40]!r} is no name of a function")
    return name


def _check_statements(tree: ast.Module, entry: str) -> list[str]:
    """The body of check(candidate), one statement a test; code around it first. A check that returns stays whole."""
    sources = []
    for node in tree.body:
        check = node if isinstance(node, ast.FunctionDef) and node.name == "check" else None
        if check is not None and len(check.args.args) != 1:
            check = None
        if check and not any(isinstance(n, (ast.Return, ast.Nonlocal, ast.Global)) for n in ast.walk(check)):
            if check.args.args[0].arg != "candidate":
                sources.append(f"{check.args.args[0].arg} = candidate")
            sources += [ast.unparse(statement) for statement in check.body]
        elif check:
            sources += [ast.unparse(node), "assert check(candidate) or True"]  # one test: what it raises, it raises
        elif not _calls_check(node, entry):  # that call is made already
            sources.append(ast.unparse(node))
    return sources


def _calls_check(node: ast.stmt, entry: str) -> bool:
    call = node.value if isinstance(node, ast.Expr) else None
    return isinstance(call, ast.Call) and ast.unparse(call) in (f"check({entry})", "check(candidate)")


def _rename(tests: FunctionTests, old: str, new: str) -> FunctionTests:
    """Tests that say `candidate` where the program says its own name."""
    calls = tests.calls
    if calls is not None:
        calls = tuple(Call(new if c.name == old else c.name, c.args, c.kwargs, c.relation, c.expected) for c in calls)
    statements = (Statement(f"{old} = {new}", False), *tests.statements)
    return FunctionTests(statements, (new,), tests.setup, calls)


def mbpp_tests(row: dict[str, Any], where: str, solution: str) -> tuple[FunctionTests, str | None]:
    """(tests, the name of the function asked for). Raises ProblemError."""
    setup = "\n".join([*text_list(row, where, "test_imports"), text_field(row, where, "test_setup_code")]).strip()
    sources = text_list(row, where, "test_list") + text_list(row, where, "challenge_test_list")
    sources.append(text_field(row, where, "test"))
    return assertion_tests(sources, where, solution, setup)


def assertion_tests(
    sources: list[str], where: str, solution: str = "", setup: str = ""
) -> tuple[FunctionTests, str | None]:
    """Tests in Python, one or several a text. `solution` tells which of the called functions is the program's."""
    prepared = _python(setup, where, "test_setup_code")
    program = parse(solution) if solution.strip() else None
    trees = [_python(source, where, f"test {i}") for i, source in enumerate(sources)]
    called = list(_called(trees, {*bound_names(prepared), *dir(builtins)}))
    entry = next((name for name in called if program is None or defines(program, name)), None)
    texts = [ast.unparse(tree) for tree in trees if tree.body]
    return parse_tests(texts, setup=ast.unparse(prepared), where=where), entry


def _called(trees: Iterable[ast.Module], known: set[str]) -> Iterator[str]:
    """Functions that tests call by name and nobody here defines, those of most tests first."""
    found: dict[str, int] = {}
    for tree in trees:
        bound = known | set(bound_names(tree))
        names = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
        for name in sorted(names - bound):
            found[name] = found.get(name, 0) + 1
    return iter(sorted(found, key=lambda name: -found[name]))


def _python(source: str, where: str, key: str) -> ast.Module:
    """The tree of tests, with a stand-in for numpy. Raises ProblemError on what is not Python or imports other packages."""
    tree = parse(source)
    if tree is None:
        raise ProblemError(f"{where}, {key}: not Python")
    tree.body = [new for node in tree.body for new in _importable(node, tree, f"{where}, {key}")]
    return tree


def _importable(node: ast.stmt, tree: ast.Module, where: str) -> list[ast.stmt]:
    foreign = _foreign(node)
    if foreign == ["numpy"] and isinstance(node, ast.Import) and len(node.names) == 1:
        name = node.names[0].asname or "numpy"
        uses = [n for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id == name]
        known = [n.value for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr in _NUMPY_USED]
        if len(uses) == sum(isinstance(value, ast.Name) and value.id == name for value in known):
            return ast.parse(_NUMPY.format(name=name)).body
    _refuse(foreign, where)
    return [node]


def _foreign(node: ast.stmt) -> list[str]:
    """The packages that a statement imports from outside the standard library."""
    if isinstance(node, ast.ImportFrom):
        modules = ["." * node.level + (node.module or "")]
    else:
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    return [module for module in modules if module.split(".")[0] not in sys.stdlib_module_names]


def _refuse(foreign: list[str], where: str) -> None:
    if foreign:
        raise ProblemError(f"{where}: imports {', '.join(foreign)}, which is not installed where programs run")
