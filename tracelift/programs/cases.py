"""The tests of a code problem, as data: texts in and out, or Python code that calls the program's functions.

`StdinTest`: the program is run and its output compared. `FunctionTests`: statements such as `assert f([1, 2]) == 3`.
Where each of them is a call with literal arguments and a literal result, it is read here, without running anything,
into a `Call`: the inputs can then go in alone, and the result be compared outside. The rest stay code for the
examiner. What a statement does and whose its names are, statements.py says.

Left out on purpose: running anything (see judge.py).
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from functools import cached_property
from typing import Any

from tracelift.programs.statements import Names, Owners, helpers_that_judge, idle, judges, names_of, owners
from tracelift.sandbox.inside import wire

FLOAT_TOLERANCE = 1e-6  # for decimals that a row expects: its grader's own is seldom told


class ProblemError(ValueError):
    """A problem whose tests cannot be read; says where and why."""


@dataclass(frozen=True)
class StdinTest:
    """One run: `stdin` in, `expected` out. Compared line by line, white space at line ends and final blank lines aside,
    and that at the start too where `expected` begins with some; with `tolerance`, numbers may differ by that much,
    absolutely or relatively."""

    stdin: str
    expected: str
    tolerance: float | None = None

    def __post_init__(self) -> None:
        if not self.expected.strip():
            raise ProblemError(
                f"a test (input {self.stdin[:40]!r}) expects no output, which the empty program passes: leave it out"
            )

    def accepts(self, output: str) -> bool:
        stray = self.expected[:1].isspace()  # some rows' outputs begin with a blank that no program writes
        got, wanted = (significant_lines(text.lstrip() if stray else text) for text in (output, self.expected))
        if got == wanted:
            return True
        return self.tolerance is not None and close(" ".join(got).split(), " ".join(wanted).split(), self.tolerance)


def significant_lines(text: str) -> list[str]:
    lines = [line.rstrip() for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def close(got: list[str], wanted: list[str], tolerance: float) -> bool:
    """Token by token: equal, or numbers within `tolerance` of each other, absolutely or relative to the wanted one."""
    return len(got) == len(wanted) and all(near(g, w, tolerance) for g, w in zip(got, wanted, strict=True))


def near(got: str, wanted: str, tolerance: float) -> bool:
    """A number that is infinite, or too large for a float, is near nothing but itself: no tolerance is relative to it."""
    if got == wanted:
        return True
    try:
        g, w = float(got), float(wanted)
        if math.isfinite(g) and math.isfinite(w):
            bound = tolerance * max(1.0, abs(w))
            return math.isfinite(bound) and abs(g - w) <= bound
        return Decimal(got) == Decimal(wanted)
    except (ValueError, InvalidOperation):
        return False


@dataclass(frozen=True)
class Call:
    """One test as data: `name(*args, **kwargs)` must equal (`==`) or be (`is`) `expected`, or be merely true or false.
    "json" is equality of what came from JSON (`same_json`), "json or alone" lets a list of one be its value."""

    name: str
    args: tuple
    kwargs: tuple[tuple[str, object], ...]
    relation: str  # "==", "is", "true", "false", "json", "json or alone"
    expected: Any

    @property
    def accepted(self) -> tuple[Any, ...]:
        """The values that one that holds may equal."""
        return (self.expected, self.expected[0]) if self.relation == "json or alone" else (self.expected,)

    def holds(self, value: object) -> bool:
        if self.relation == "==":
            return bool(value == self.expected)
        if self.relation.startswith("json"):
            return any(same_json(value, expected) for expected in self.accepted)
        if self.relation == "is":
            return value is self.expected
        return bool(value) is (self.relation == "true")


def same_json(value: object, expected: object) -> bool:
    """Whether `value` is `expected` as JSON has it: tuples are lists, the keys of objects are texts, and a number near a
    float (FLOAT_TOLERANCE) is that float. Numbers are equal as in Python: 4.0 is 4, and True is 1."""
    if isinstance(expected, list):
        return isinstance(value, (list, tuple)) and len(value) == len(expected) and all(map(same_json, value, expected))
    if isinstance(expected, dict):
        got, wanted = _text_keys(value), _text_keys(expected)
        if got is None or wanted is None or got.keys() != wanted.keys():
            return False
        return all(same_json(got[key], item) for key, item in wanted.items())
    if value == expected or not isinstance(expected, float) or not math.isfinite(expected):
        return bool(value == expected)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and close([repr(value)], [repr(expected)], FLOAT_TOLERANCE)


def _text_keys(value: object) -> dict[str, object] | None:
    """A dict with its keys as JSON writes them; None for anything else, and where two keys become one."""
    if not isinstance(value, dict):
        return None
    texts: dict[str, object] = {}
    for key, item in value.items():
        if not (key is None or isinstance(key, (str, bool, int, float))):
            return None
        texts[key if isinstance(key, str) else json.dumps(key)] = item
    return texts if len(texts) == len(value) else None


@dataclass(frozen=True)
class Statement:
    """One test, or a preparation for the tests after it; all are run. What follows the last test is a part of that."""

    source: str
    is_test: bool


@dataclass(frozen=True)
class FunctionTests:
    """Tests written in Python. `setup` is the problem's own code (imports, helpers); `entry` names are always the
    program's; of other names that nobody binds, functions and classes are, where it is no tool of the standard library."""

    statements: tuple[Statement, ...]
    entry: tuple[str, ...] = ()
    setup: str = ""
    calls: tuple[Call, ...] | None = field(default=None, compare=False)  # the same tests as data, if all can be

    def __len__(self) -> int:
        return sum(s.is_test for s in self.statements)

    @cached_property
    def owners(self) -> Owners:
        """Whose the names are that the tests read."""
        statements = [(read_names(s.source), s.is_test) for s in self.statements]
        return owners(read_names(self.setup), statements, frozenset(self.entry))

    @property
    def free_names(self) -> tuple[str, ...]:
        """Names, beyond `entry`, of functions and classes that are asked of the program."""
        return tuple(sorted(self.owners.asked))

    @property
    def awaits(self) -> bool:
        """Whether the tests await what they call, or hand it to asyncio."""
        texts = (self.setup, *(s.source for s in self.statements))
        return any("asyncio" in text or "await " in text for text in texts)


def read_names(source: str) -> Names:
    return names_of(ast.parse(source), source)


def parse_tests(
    sources: Iterable[str], entry: Iterable[str] = (), setup: str = "", where: str = "tests"
) -> FunctionTests:
    """Read `assert` style test code. Raises ProblemError if it is not Python, asserts nothing, or would run texts.

    Assertions of a true constant (HumanEval has `assert True, "…"`) test no program and are left out.
    """
    pieces = [(f"{where}, the tests' setup", setup), *((f"{where}, test {i}", s) for i, s in enumerate(sources))]
    trees = [(place, parsed(source, place)) for place, source in pieces]
    for place, tree in trees:
        refuse_texts(tree, place)
    helpers = helpers_that_judge(node for _, tree in trees for node in tree.body)
    statements: list[Statement] = []
    calls: list[Call] | None = []
    for place, tree in trees[1:]:
        for node in tree.body:
            if idle(node):
                continue
            statements.append(Statement(written(node, place), judges(node, helpers)))
            call = read_call(node)
            calls = None if call is None or calls is None else [*calls, call]
    last = max((i for i, s in enumerate(statements) if s.is_test), default=-1)
    if last < 0:
        raise ProblemError(f"{where}: nothing is asserted of any program")
    end = Statement("\n".join(s.source for s in statements[last:]), True)  # what follows can still fail the last test
    tests = FunctionTests((*statements[:last], end), tuple(entry), setup)
    asked = tests.owners.asked | set(tests.entry)
    as_data = calls is not None and all(c.name in asked for c in calls)  # a helper's call proves nothing
    return replace(tests, calls=tuple(calls) if calls and as_data else None)


def parsed(source: str, place: str) -> ast.Module:
    try:
        tree = ast.parse(source)
        names_of(tree, source)  # more than the parser sees: the compiler's first passes
        return tree
    except (SyntaxError, ValueError) as error:
        raise ProblemError(f"{place}: not Python: {error}") from None
    except (RecursionError, MemoryError):
        raise ProblemError(f"{place}: its expressions are nested too deeply to be read") from None


def written(node: ast.stmt, place: str) -> str:
    try:
        return ast.unparse(node)
    except ValueError as error:  # an integer of more decimal digits than Python writes
        raise ProblemError(f"{place}: {error}") from None
    except RecursionError:
        raise ProblemError(f"{place}: its expressions are nested too deeply to be read") from None


def refuse_texts(tree: ast.Module, place: str) -> None:
    """Tests that run texts: those of a program must not run beside the tests, and who wrote one is not to be told. `eval`
    is had as far as literals and operators go, which is all that tests evaluate of a program's."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            own_text = node.func.id == "eval" and bool(node.args) and isinstance(node.args[0], ast.Constant)
            if own_text or node.func.id in ("exec", "compile"):
                raise ProblemError(
                    f"{place}: it calls {node.func.id}(): write what that runs as code of the tests' own"
                )


def read_call(node: ast.stmt) -> Call | None:
    """`assert f(1, [2]) == 3` and its kin → Call; None for anything that is not literally so."""
    if not isinstance(node, ast.Assert):
        return None
    test, relation, expected = node.test, "true", True
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        test, relation, expected = test.operand, "false", False
    elif isinstance(test, ast.Compare) and len(test.ops) == 1:
        relation = {ast.Eq: "==", ast.Is: "is"}.get(type(test.ops[0]), "")
        sides = [test.left, test.comparators[0]]
        if isinstance(sides[1], ast.Call) and not isinstance(sides[0], ast.Call):
            sides.reverse()
        try:
            test, expected = sides[0], ast.literal_eval(sides[1])
        except (ValueError, TypeError):  # TypeError: {[]} and other literals that cannot be built
            return None
        if not relation or (relation == "is" and not (expected is None or isinstance(expected, bool))):
            return None  # identity of other literals is an accident of the interpreter
    if not (isinstance(test, ast.Call) and isinstance(test.func, ast.Name)):
        return None
    try:
        args = tuple(ast.literal_eval(a) for a in test.args)
        kwargs = tuple((k.arg, ast.literal_eval(k.value)) for k in test.keywords if k.arg)
        wire.encode([args, [value for _, value in kwargs], expected])
    except (ValueError, TypeError):  # TypeError: a literal that cannot be sent, `...`
        return None
    return Call(test.func.id, args, kwargs, relation, expected) if len(kwargs) == len(test.keywords) else None
