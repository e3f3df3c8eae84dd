"""Rows whose tests are inputs and outputs: APPS, TACO, CodeContests, LiveCodeBench, open-r1's verifiable problems.

    tests, test_cases, input_output   [{input, output}, …] or {inputs: […], outputs: […]}, also as a text of JSON
    public_…, private_test_cases      LiveCodeBench: testtype "stdin" or "functional", the function's name in metadata
    public_…, private_…, generated_tests     CodeContests: {input: […], output: […]}
    verification_info                 open-r1: {language, test_cases: [{type, fn_name, input, output}, …]}
    examples, official_tests          open-r1's Codeforces problems

A function's name stands with a test (fn_name, func_name), with its table, in the row or in its metadata, or is that of
the starter code's one function. Arguments are a list, or a text with one JSON value a line. As graders in the wild do:
a result in a list of one is that list or its one value, where all results of the row are such; an argument that is an
object with whole numbers for keys gets int keys. Results are compared as JSON is (cases.py: same_json).

Public tests and a statement's own examples are what the reader has seen: they decide only where there is nothing else.
Left out: several right outputs for one input, which need a checker.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tracelift.programs.assertions import check_name
from tracelift.programs.cases import (
    FLOAT_TOLERANCE,
    Call,
    FunctionTests,
    ProblemError,
    Statement,
    StdinTest,
    significant_lines,
)
from tracelift.programs.examples import examples_in
from tracelift.programs.fields import FUNCTION_TYPES, PROGRAM_TYPES, absent, check_judging, nested

HIDDEN_KEYS = (
    "tests", "test_cases", "input_output", "private_test_cases", "private_tests", "generated_tests", "official_tests",
    "verification_info",
)  # fmt: skip
SHOWN_KEYS = ("public_test_cases", "public_tests", "examples")
_NAMES = ("fn_name", "func_name")
_TYPES = ("testtype", "test_type", "type")
_OF_A_TEST = {"input", "output", *_NAMES, *_TYPES, "metadata", "language"}
_OF_A_TABLE = {"inputs", "outputs", "test_cases", *_OF_A_TEST}
_SAYS_NOTHING = {"id", "name", "index", "explanation", "description", "comment", "note", "starter_code"}
_LEETCODE = {
    "typing": "Any Callable DefaultDict Deque Dict Generator Iterable Iterator List NamedTuple Optional Sequence Set "
    "Tuple Union",
    "collections": "ChainMap Counter OrderedDict defaultdict deque namedtuple",
    "functools": "cache cmp_to_key lru_cache partial reduce",
    "itertools": "accumulate chain combinations count cycle groupby islice pairwise permutations product zip_longest",
    "heapq": "heapify heappop heappush heappushpop heapreplace nlargest nsmallest",
    "bisect": "bisect_left bisect_right insort",
    "math": "ceil comb factorial floor gcd inf isqrt lcm log2 sqrt",
}
_LEETCODE_MODULES = "bisect collections functools heapq itertools math operator random re string"
_WHOLE = re.compile(r"[-+]?[0-9]+")
_DECIMAL = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?")
_INT_KEY = re.compile(r"-?(?:0|[1-9][0-9]{0,18})")


@dataclass(frozen=True)
class RowTests:
    """What a row's tests amount to, as CodeProblem has it. `entry_point` and `preamble` are of functions alone."""

    hidden: tuple[StdinTest, ...] | FunctionTests
    visible: tuple[StdinTest, ...] = ()
    only_visible: bool = False
    entry_point: str | None = None
    preamble: str = ""


@dataclass(frozen=True)
class _Pair:
    input: Any
    output: Any
    name: str | None  # of the function to call; None for a program that reads standard input
    where: str


def pair_tests(row: dict[str, Any], where: str, statement: str, starter: str) -> RowTests:
    """The tests of a row of pairs. Raises ProblemError where it has none, or one that is not understood."""
    row = {**row, "metadata": _metadata(row.get("metadata"), where)}
    check_judging(row["metadata"], where)
    hidden = [pair for key in HIDDEN_KEYS for pair in _pairs(row.get(key), row, starter, where, key)]
    if not absent(row.get("inputs")):
        hidden += _pairs({k: row[k] for k in ("inputs", "outputs") if k in row}, row, starter, where, "inputs")
    keys = SHOWN_KEYS[:2] if any(pair.name for pair in hidden) else SHOWN_KEYS  # examples of functions are for people
    shown = [pair for key in keys for pair in _pairs(_shown(row, key), row, starter, where, key)]
    if len({pair.name is None for pair in hidden + shown}) > 1:
        raise ProblemError(f"{where}: some tests call a function and some do not")
    if any(pair.name for pair in hidden + shown):
        return _functions(hidden, shown, where, tuple(examples_in(statement)), starter)
    return _programs(hidden, shown, where, examples_in(statement))


def _shown(row: dict[str, Any], key: str) -> Any:
    """Public tests. Other data sets have `examples` of other kinds, for people."""
    value = row.get(key)
    pairs = isinstance(value, list) and all(isinstance(v, dict) and {"input", "output"} <= v.keys() for v in value)
    return value if key != "examples" or pairs else None


def _metadata(value: Any, where: str) -> dict[str, Any]:
    if isinstance(value, str) and not value.strip().startswith("{"):
        return {}
    value = nested(value, where, "metadata")
    return value if isinstance(value, dict) else {}


def _pairs(value: Any, row: dict[str, Any], starter: str, where: str, key: str) -> Iterator[_Pair]:
    """The tests under one key, whichever way they are spelled."""
    value = nested(value, where, key)
    if absent(value):
        return
    if not isinstance(value, (list, dict)):
        raise ProblemError(f"{where}: key '{key}' must be a list of tests, not a {type(value).__name__}")
    scopes: list[dict[str, Any]] = []
    for inner in ("test_cases", ""):
        if isinstance(value, dict):
            _refuse_unknown(value, _OF_A_TABLE, f"{where}, {key}")
            scopes.insert(0, value)
            if inner in value:
                value = nested(value[inner], where, inner)
    tests = _rows_of(value, where) if isinstance(value, dict) else value
    if not isinstance(tests, list):
        raise ProblemError(f"{where}: key '{key}' must hold a list of tests")
    for i, test in enumerate(tests):
        place = f"{where}, test {i}"
        if not isinstance(test, dict) or "input" not in test or "output" not in test:
            raise ProblemError(f"{where}: test {i} needs the keys 'input' and 'output'")
        _refuse_unknown(test, _OF_A_TEST, place)
        own = [test, _metadata(test.get("metadata"), place), *scopes]
        yield _Pair(test["input"], test["output"], _function(own, [row["metadata"], row], starter, place), place)


def _rows_of(table: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """{inputs: […], outputs: […]} as one test a place."""
    keys = [("inputs", "outputs"), ("input", "output")]
    ins, outs = next(((table[a], table[b]) for a, b in keys if a in table and b in table), (None, None))
    if not isinstance(ins, list) or not isinstance(outs, list) or len(ins) != len(outs):
        raise ProblemError(f"{where}: tests need 'inputs' and 'outputs', two lists of equal length")
    return [{"input": a, "output": b} for a, b in zip(ins, outs, strict=True)]


def _refuse_unknown(fields: dict[str, Any], known: set[str], where: str) -> None:
    """A test's own fields all say how to judge, but for those that plainly do not."""
    check_judging(fields, where)
    for name, value in fields.items():
        if name not in known and name not in _SAYS_NOTHING and not absent(value) and value is not False:
            raise ProblemError(f"{where}: key {str(name)[:40]!r} of a test is not understood")


def _function(own: list[dict[str, Any]], of_row: list[dict[str, Any]], starter: str, where: str) -> str | None:
    """The function a test calls, as the nearest scope names it; None for one that is given standard input.

    own: the test, its metadata, its table if there is one. of_row: the row's metadata, and the row, whose `type` says what
    the problem is about.
    """
    kinds = [s[k] for s in own for k in _TYPES if not absent(s.get(k))]
    kinds += [s[k] for s in of_row for k in _TYPES[:2] if not absent(s.get(k))]
    kind = str(kinds[0]).strip().lower() if kinds else ""
    if kind and kind not in PROGRAM_TYPES + FUNCTION_TYPES:
        raise ProblemError(f"{where}: its type {kind[:40]!r} is none of {', '.join(PROGRAM_TYPES + FUNCTION_TYPES)}")
    name = next((s[k] for s in (*own, *of_row) for k in _NAMES if not absent(s.get(k))), None)
    if name is not None and kind in PROGRAM_TYPES:
        raise ProblemError(f"{where}: it names a function, and its type is {kind}")
    if name is None and kind in FUNCTION_TYPES:
        found = set(re.findall(r"\bdef\s+([A-Za-z]\w*)", starter))
        if len(found) != 1:
            raise ProblemError(f"{where}: its type is {kind}, and nothing names one function")
        name = found.pop()
    return None if name is None else check_name(name, where, "fn_name")


# -- programs that read and write ------------------------------------------------------------------------------------


def _programs(hidden: list[_Pair], shown: list[_Pair], where: str, examples: list[StdinTest]) -> RowTests:
    visible: dict[tuple[str, str], StdinTest] = {}
    for test in [*examples, *_stdin_tests(shown)]:
        visible.setdefault(_canonical(test), test)
    given = _stdin_tests(hidden)
    unseen = tuple(test for test in given if _canonical(test) not in visible)
    tests = unseen or tuple(given) or tuple(visible.values())
    if not tests:
        keys = ", ".join((*HIDDEN_KEYS, *SHOWN_KEYS, "inputs", "test_list", "test"))
        raise ProblemError(f"{where}: no tests: expected one of the keys {keys}")
    return RowTests(tests, tuple(visible.values()), only_visible=not unseen)


def _canonical(test: StdinTest) -> tuple[str, str]:
    """What makes two tests the same: white space at line ends and at both ends aside."""
    return "\n".join(significant_lines(test.stdin.strip())), "\n".join(significant_lines(test.expected.strip()))


def _stdin_tests(pairs: list[_Pair]) -> list[StdinTest]:
    """Those that expect no output test nothing and are left out."""
    tests = []
    for pair in pairs:
        stdin, expected = _as_text(pair.input, pair.where), _as_text(pair.output, pair.where)
        if expected.strip():
            tests.append(StdinTest(stdin, expected, _tolerance(expected)))
    return tests


def _tolerance(expected: str) -> float | None:
    """How near a number must come where decimals are expected: so near that no whole number beside them is taken for another."""
    tokens = expected.split()
    if not any(map(_DECIMAL.fullmatch, tokens)):
        return None
    largest = max((abs(float(token)) for token in tokens if _WHOLE.fullmatch(token)), default=0.0)
    return min(FLOAT_TOLERANCE, 0.4 / max(largest, 1.0))


def _as_text(value: Any, where: str) -> str:
    """A text, a list of lines, or a number as a program prints it; null is no text."""
    if value is None:
        return ""
    if isinstance(value, list) and not any(isinstance(line, (list, dict)) for line in value):
        return "\n".join(_as_text(line, where) for line in value) + "\n"
    if isinstance(value, (list, dict)):
        raise ProblemError(f"{where}: input and output must be texts, lists of lines or numbers")
    return value if isinstance(value, str) else str(value)


# -- functions -------------------------------------------------------------------------------------------------------


def _functions(
    hidden: list[_Pair], shown: list[_Pair], where: str, examples: tuple[StdinTest, ...], starter: str
) -> RowTests:
    every = _calls(hidden + shown)
    given, public = every[: len(hidden)], every[len(hidden) :]
    seen = {repr(call) for call in public}
    unseen = [call for call in given if repr(call) not in seen]
    calls = tuple(unseen or given or public)
    names = tuple(dict.fromkeys(call.name for call in calls))
    statements = tuple(Statement(f"assert {c.name}(*{c.args!r}) == {c.expected!r}", True) for c in calls)
    tests = FunctionTests(statements, names, "", calls)
    entry = names[0] if len(names) == 1 else None
    return RowTests(tests, examples, not unseen, entry, leetcode_preamble(starter, names))


def _calls(pairs: list[_Pair]) -> list[Call]:
    read = [(pair, *_arguments(pair)) for pair in pairs]
    alone = all(isinstance(result, list) and len(result) == 1 and not as_lines for _, _, result, as_lines in read)
    return [_call(pair, args, result, alone) for pair, args, result, _ in read]


def _arguments(pair: _Pair) -> tuple[tuple, Any, bool]:
    """(arguments, result, whether they were texts of JSON, one value a line, as LiveCodeBench writes them)."""
    args, result = pair.input, pair.output
    as_lines = isinstance(args, str)
    if isinstance(args, str):
        args = [nested(line, pair.where, "input") for line in args.split("\n") if line.strip()]
        result = nested(result, pair.where, "output") if isinstance(result, str) and result.strip() else result
    if args is None:
        args = []
    if not isinstance(args, list):
        raise ProblemError(f"{pair.where}: a function's input must be a list of arguments, or one JSON value a line")
    return tuple(map(_int_keys, args)), result, as_lines


def _int_keys(value: Any) -> Any:
    """JSON knows no int keys: an object whose keys are all whole numbers had them before."""
    if isinstance(value, dict) and value and all(isinstance(k, str) and _INT_KEY.fullmatch(k) for k in value):
        return {int(k): v for k, v in value.items()}
    return value


def _call(pair: _Pair, args: tuple, result: Any, alone: bool) -> Call:
    call = Call(pair.name or "", args, (), "json or alone" if alone else "json", result)
    if not call.holds(result):
        raise ProblemError(f"{pair.where}: its output equals nothing, not even itself (NaN)")
    return call


def leetcode_preamble(starter: str, names: tuple[str, ...]) -> str:
    """Imports for programs that fill in a LeetCode head (`class Solution`, `List[int]`), whose judge provides them.

    Empty where starter code is given that is of no such kind. `names` are the program's own to define.
    """
    words = set(re.findall(r"[A-Za-z_]\w*", starter))
    known = {name for text in _LEETCODE.values() for name in text.split()}
    if starter.strip() and "Solution" not in words and not words & known:
        return ""
    lines = ["import " + ", ".join(m for m in _LEETCODE_MODULES.split() if m not in names)]
    for module, text in _LEETCODE.items():
        lines.append(f"from {module} import " + ", ".join(name for name in text.split() if name not in names))
    return "\n".join(lines)
