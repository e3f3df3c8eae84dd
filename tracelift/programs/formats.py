"""Code problems as they are published → `CodeProblem`.

    tests in Python             HumanEval, HumanEval+, MBPP, MBPP+, lists of assertions     assertions.py
    inputs and outputs          APPS, TACO, CodeContests, LiveCodeBench, open-r1            pairs.py

Each problem keeps its *hidden* tests, from which a reward may be made, apart from the *visible* ones, which its own
statement shows to planner and executor. A row that is not understood ends the reading with one sentence that names it;
what is read and what is refused is in docs/code-data.md. Left out: parquet files (export them as JSON lines).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracelift.errors import RowsError
from tracelift.files import is_text, read_rows
from tracelift.programs.assertions import assertion_tests, humaneval_tests, mbpp_tests
from tracelift.programs.cases import FunctionTests, ProblemError, StdinTest
from tracelift.programs.examples import examples_in
from tracelift.programs.extract import bound_names, continue_stub, defines, extract_program, with_preamble
from tracelift.programs.fences import complete, parse
from tracelift.programs.fields import absent, check_judging, nested, text_field, time_limit
from tracelift.programs.pairs import HIDDEN_KEYS, RowTests, pair_tests

Tests = tuple[StdinTest, ...] | FunctionTests
_STATEMENTS = (
    "problem",
    "question",
    "question_content",
    "statement",
    "problem_statement",
    "description",
    "text",
    "prompt",
)
_SOLUTIONS = ("reference_solution", "canonical_solution", "gold_standard_solution", "solution", "code")
_IDS = ("problem_id", "question_id", "task_id", "id")
_PYTHON3 = 3  # CodeContests' number for it


@dataclass(frozen=True)
class CodeProblem:
    """hidden: tests for the reward; where a problem has no others, the statement's own examples, and
    `only_visible` says so. visible: the examples, to be logged apart. preamble: code every program is given first.
    time_limit: the problem's own, in seconds; it is told and not applied, since it was set for other machines."""

    problem_id: str
    statement: str
    hidden: Tests
    visible: tuple[StdinTest, ...] = ()
    entry_point: str | None = None
    preamble: str = ""  # HumanEval: the prompt's imports and helper functions; LeetCode heads: the names they use
    stub: str = ""  # HumanEval: the whole prompt, which a completion continues
    solution: str = ""  # a reference program, complete
    only_visible: bool = False
    time_limit: float | None = None

    def program(self, text: str) -> str | None:
        """The complete program a model's text amounts to, whether it repeats the function's head or continues it."""
        continued = continue_stub(self.stub, text) if self.stub else None
        if continued is not None and complete(continued) is not None:
            return continued
        given = parse(self.preamble)
        found = extract_program(text, self.entry_point, bound_names(given) if given else ())
        if continued is not None:  # broken, unless the indented text only leads up to a whole program
            tree = complete(found or "")
            if tree is None or not defines(tree, self.entry_point or ""):
                return continued
        return found if found is None else with_preamble(self.preamble, found)


def load_problems(path: str | Path) -> list[CodeProblem]:
    """Read a .jsonl, .jsonl.gz or .json file of any of the formats above.

    Raises ProblemError naming file and row (from 0), also where two rows have one id.
    """
    path = Path(path)
    if not path.exists():
        raise ProblemError(f"{path}: no such file")
    try:
        rows = [row for _, row in read_rows(path, anything=True)]  # what only programs see may be no text
    except RowsError as error:
        raise ProblemError(str(error)) from None
    problems = [read_problem(row, f"{path}, row {i}") for i, row in enumerate(rows)]
    first: dict[str, int] = {}
    for i, problem in enumerate(problems):
        if first.setdefault(problem.problem_id, i) != i:
            raise ProblemError(
                f"{path}, row {i}: the id {problem.problem_id!r} is that of row {first[problem.problem_id]}"
            )
    return problems


def read_problem(row: Any, where: str = "problem") -> CodeProblem:
    """One record of any known format. Raises ProblemError if it is of none, or has no test that can be used."""
    if not isinstance(row, dict):
        raise ProblemError(f"{where}: expected an object, found {type(row).__name__}")
    if not is_text([value for value in row.values() if isinstance(value, str)]):  # lists of tests may hold anything
        raise ProblemError(f"{where}: text holds half of a surrogate pair, which is no character")
    try:
        return _read(row, where)
    except (RecursionError, MemoryError):
        raise ProblemError(f"{where}: something in it is nested too deeply") from None
    except ProblemError:
        raise
    except ValueError as error:  # an integer of more digits than Python writes
        raise ProblemError(f"{where}: {error}") from None


def _read(row: dict[str, Any], where: str) -> CodeProblem:
    check_judging(row, where)
    for key in ("base_input", "plus_input"):
        if not absent(row.get(key)):
            raise ProblemError(
                f"{where}: key '{key}' holds inputs without results; use the export with tests in 'test'"
            )
    name = next((str(row[k]) for k in _IDS if isinstance(row.get(k), (str, int)) and row[k] != ""), where)
    limit = time_limit(row, where)
    listed = nested(row.get("tests"), where, "tests")
    pairs = [key for key in HIDDEN_KEYS if not absent(row.get(key))]
    if pairs and not absent(row.get("test")) or not absent(row.get("test_setup")):
        raise ProblemError(f"{where}: it has tests in Python and '{(pairs or ['test_setup'])[0]}'")
    if all(isinstance(row.get(key), str) and row[key].strip() for key in ("prompt", "test", "entry_point")):
        prompt, entry = row["prompt"], row["entry_point"]
        tests, preamble = humaneval_tests(row, where)
        rest = text_field(row, where, "canonical_solution")
        solution = prompt + rest if rest else ""
        return CodeProblem(name, prompt, tests, (), entry, preamble, prompt, solution, time_limit=limit)
    statement, starter = text_field(row, where, *_STATEMENTS), text_field(row, where, "starter_code")
    solution = _solution(row, where)
    if not absent(row.get("test_list")) or not absent(row.get("test")):
        tests, entry = mbpp_tests(row, where, solution)
        read = RowTests(tests, (), False, entry)
    elif isinstance(listed, list) and listed and all(isinstance(test, str) for test in listed):
        tests, entry = assertion_tests(listed, where, solution)
        read = RowTests(tests, tuple(examples_in(statement)), False, entry)
    else:
        read = pair_tests({**row, "tests": listed}, where, statement, starter)
    if not statement:
        raise ProblemError(f"{where}: no statement: expected one of the keys {', '.join(_STATEMENTS)}")
    shown = f"{statement.rstrip()}\n\nComplete this code:\n\n{starter.strip()}\n" if starter else statement
    return CodeProblem(
        name, shown, read.hidden, read.visible, read.entry_point, read.preamble, "", solution, read.only_visible, limit
    )


def _solution(row: dict[str, Any], where: str) -> str:
    """A reference program: of several the first that is Python 3; "" where none is."""
    for key in _SOLUTIONS:
        value = row.get(key)
        if isinstance(value, str) and value.strip():
            fenced = "```" in value and parse(value) is None
            return extract_program(value) or value if fenced else value
    value = row.get("solutions")
    try:
        value = nested(value, where, "solutions")
    except ProblemError:
        return ""  # a text that is no list: of no use to anything but a look at the file's own solutions
    if isinstance(value, dict):
        languages, texts = value.get("language"), value.get("solution")
        pairs = zip(languages, texts, strict=False) if isinstance(languages, list) and isinstance(texts, list) else ()
        value = [text for language, text in pairs if language in (_PYTHON3, "PYTHON3", "python", "python3")]
    texts = [text for text in value if isinstance(text, str)] if isinstance(value, list) else []
    return next((text for text in texts if text.strip() and complete(text) is not None), "")
