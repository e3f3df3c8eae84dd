"""Code problems as they are published → `CodeProblem`: HumanEval, MBPP, and input/output pairs in their usual
spellings.

    HumanEval   task_id, prompt, entry_point, test (a function check(candidate)), canonical_solution
    MBPP        task_id, text or prompt, test_list, test_setup_code, test_imports, code
    pairs       tests: [{input, output}, …] or inputs/outputs lists (also as a JSON string under input_output), with
                fn_name for functions: the APPS, TACO and CodeContests family

Each problem keeps its *hidden* tests, from which a reward may be made, apart from the *visible* ones, which its own
statement shows to planner and executor.
"""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tracelift.errors import RowsError
from tracelift.files import is_text, read_rows
from tracelift.programs.cases import Call, FunctionTests, ProblemError, Statement, StdinTest, parse_tests
from tracelift.programs.examples import examples_in
from tracelift.programs.extract import defines, extract_program, longest_program, parse

Tests = tuple[StdinTest, ...] | FunctionTests


@dataclass(frozen=True)
class CodeProblem:
    """hidden: tests for the reward; where a problem has no others, the statement's own examples, and
    `only_visible` says so. visible: the examples, to be logged apart. preamble: code every program is given first."""

    problem_id: str
    statement: str
    hidden: Tests
    visible: tuple[StdinTest, ...] = ()
    entry_point: str | None = None
    preamble: str = ""  # HumanEval: the prompt's imports and helper functions
    stub: str = ""  # HumanEval: the whole prompt, which a completion continues
    solution: str = ""  # a reference program, complete
    only_visible: bool = False
    metadata: dict = field(default_factory=dict, compare=False)

    def program(self, text: str) -> str | None:
        """The complete program a model's text amounts to, whether it repeats the function's head or continues it."""
        if self.stub and text.lstrip("\n")[:1] in (" ", "\t"):
            continued = longest_program((self.stub + text).split("\n"))
            if len(continued) > len(self.stub):
                return continued
        found = extract_program(text, self.entry_point)
        if found is None or not self.preamble or "from __future__" in found:  # which must stay the first statement
            return found
        return self.preamble + "\n" + found


def load_problems(path: str | Path) -> list[CodeProblem]:
    """Read a .jsonl, .jsonl.gz or .json file of any of the formats above. Raises ProblemError naming file and row."""
    path = Path(path)
    if not path.exists():
        raise ProblemError(f"{path}: no such file")
    try:
        rows = [row for _, row in read_rows(path, anything=True)]  # what only programs see may be no text
    except RowsError as error:
        raise ProblemError(str(error)) from None
    return [read_problem(row, f"{path}, row {i}") for i, row in enumerate(rows)]


def read_problem(row: dict, where: str = "problem") -> CodeProblem:
    """One record of any known format. Raises ProblemError if it is of none, or has no test that can be used."""
    if not isinstance(row, dict):
        raise ProblemError(f"{where}: expected an object, found {type(row).__name__}")
    if not is_text([value for value in row.values() if isinstance(value, str)]):  # lists of tests may hold anything
        raise ProblemError(f"{where}: text holds half of a surrogate pair, which is no character")
    if {"prompt", "test", "entry_point"} <= row.keys():
        return humaneval_problem(row, where)
    if "test_list" in row:
        return mbpp_problem(row, where)
    return pairs_problem(row, where)


def humaneval_problem(row: dict, where: str) -> CodeProblem:
    prompt, entry = row["prompt"], row["entry_point"]
    tree = parse(prompt)
    if tree is None:
        raise ProblemError(f"{where}: key 'prompt' is not Python")
    preamble = "\n".join(ast.unparse(node) for node in tree.body if getattr(node, "name", None) != entry)
    tests = parse_tests(check_statements(row["test"], entry, where), entry=("candidate",), setup=preamble, where=where)
    tests = rename(tests, "candidate", entry)
    solution = prompt + row["canonical_solution"] if row.get("canonical_solution") else ""
    return CodeProblem(str(row.get("task_id", where)), prompt, tests, (), entry, preamble, prompt, solution)


def check_statements(test: str, entry: str, where: str) -> list[str]:
    """The body of check(candidate), one statement a test; code around it first. A check that returns stays whole."""
    tree = parse(test)
    if tree is None:
        raise ProblemError(f"{where}: key 'test' is not Python")
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
        elif not (isinstance(node, ast.Expr) and "check" in ast.unparse(node)):  # a call of check is made already
            sources.append(ast.unparse(node))
    return sources


def rename(tests: FunctionTests, old: str, new: str) -> FunctionTests:
    """Tests that say `candidate` where the program says its own name."""
    calls = tests.calls
    if calls is not None:
        calls = tuple(Call(new if c.name == old else c.name, c.args, c.kwargs, c.relation, c.expected) for c in calls)
    statements = (Statement(f"{old} = {new}", False), *tests.statements)
    return FunctionTests(statements, (new,), tests.setup, calls)


def mbpp_problem(row: dict, where: str) -> CodeProblem:
    setup = "\n".join([*row.get("test_imports", []), row.get("test_setup_code", "") or ""]).strip()
    if parse(setup) is None:
        raise ProblemError(f"{where}: keys 'test_imports' and 'test_setup_code' are not Python")
    sources = [*row["test_list"], *row.get("challenge_test_list", [])]
    tests = parse_tests(sources, setup=setup, where=where)
    solution = row.get("code", "")
    called = [c.name for c in tests.calls or ()] or list(tests.free_names)
    tree = parse(solution)
    entry = next((n for n in called if tree is None or not solution or defines(tree, n)), None)
    statement = row.get("text") or row.get("prompt") or ""
    return CodeProblem(str(row.get("task_id", where)), statement, tests, (), entry, "", "", solution)


def pairs_problem(row: dict, where: str) -> CodeProblem:
    statement = next((row[k] for k in ("problem", "question", "statement", "description", "prompt") if row.get(k)), "")
    name = str(row.get("problem_id") or row.get("task_id") or row.get("id") or where)
    visible = tuple(examples_in(statement))
    solution = next((row[k] for k in ("reference_solution", "solution", "code") if isinstance(row.get(k), str)), "")
    tests = row.get("tests", row.get("input_output", row.get("test_cases")))
    if isinstance(tests, str):
        try:
            tests = json.loads(tests)
        except ValueError as error:
            raise ProblemError(f"{where}: its tests are a string that is not JSON: {error}") from None
    if tests is None and "inputs" in row:
        tests = row
    if isinstance(tests, list) and tests and all(isinstance(t, str) for t in tests):
        return CodeProblem(name, statement, parse_tests(tests, where=where), visible, solution=solution)
    if isinstance(tests, dict) and tests.get("fn_name"):
        calls = function_calls(tests, where)
        entry = tests["fn_name"]
        return CodeProblem(name, statement, calls, visible, entry, solution=solution)
    given = tuple(stdin_tests(tests, where))
    shown = {(t.stdin.strip(), t.expected.strip()) for t in visible}
    hidden = tuple(t for t in given if (t.stdin.strip(), t.expected.strip()) not in shown)
    if not given and not visible:
        raise ProblemError(f"{where}: no tests: expected one of the keys tests, input_output, inputs, test_list, test")
    return CodeProblem(name, statement, hidden or given or visible, visible, solution=solution, only_visible=not hidden)


def as_text(value: object) -> str:
    """Inputs and outputs are texts, or lists of lines."""
    if isinstance(value, list):
        return "\n".join(map(as_text, value)) + "\n"
    return value if isinstance(value, str) else json.dumps(value)


def stdin_tests(tests: Any, where: str) -> list[StdinTest]:
    """Pairs in either spelling; those that expect no output test nothing and are left out."""
    if isinstance(tests, dict):
        keys = [("inputs", "outputs"), ("input", "output")]
        ins, outs = next(((tests[a], tests[b]) for a, b in keys if a in tests and b in tests), (None, None))
        if not isinstance(ins, list) or not isinstance(outs, list) or len(ins) != len(outs):
            raise ProblemError(f"{where}: tests need 'inputs' and 'outputs', two lists of equal length")
        pairs = list(zip(ins, outs, strict=True))
    else:
        pairs = []
        for i, test in enumerate(tests or []):
            if not isinstance(test, dict) or "input" not in test or "output" not in test:
                raise ProblemError(f"{where}: test {i} needs the keys 'input' and 'output'")
            pairs.append((test["input"], test["output"]))
    return [StdinTest(as_text(a), as_text(b)) for a, b in pairs if as_text(b).strip()]


def function_calls(tests: dict, where: str) -> FunctionTests:
    """fn_name with JSON arguments and results. A result may stand alone or in a list of one, as in APPS."""
    name, ins, outs = tests["fn_name"], tests.get("inputs"), tests.get("outputs")
    if not isinstance(ins, list) or not isinstance(outs, list) or len(ins) != len(outs) or not ins:
        raise ProblemError(f"{where}: fn_name {name!r} needs 'inputs' and 'outputs', two lists of equal length")
    if not str(name).isidentifier():
        raise ProblemError(f"{where}: fn_name {name!r} is no name")
    wrapped = all(isinstance(out, list) and len(out) == 1 for out in outs)
    calls = []
    for args, out in zip(ins, outs, strict=True):
        if isinstance(args, str):  # LiveCodeBench: one JSON value a line
            args = [json.loads(line) for line in args.split("\n") if line.strip()]
            out = json.loads(out) if isinstance(out, str) else out
        calls.append(Call(name, tuple(args), (), "json", out[0] if wrapped else out))
    statements = tuple(Statement(f"assert {name}(*{c.args!r}) == {c.expected!r}", True) for c in calls)
    return FunctionTests(statements, (name,), "", tuple(calls))
