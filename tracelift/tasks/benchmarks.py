"""Benchmarks as they are published → `Problem`s of one kind, with the data's own solution as reference trace.

    demo:math, demo:code     the embedded worlds, whose truth is known
    gsm8k:FILE               question, answer with <<calculator marks>> and a last line `#### x`
    svamp:FILE               Body, Question, Answer (also lower case, or with ID)
    math:FILE                problem, answer, or a solution with \\boxed{answer}, \\fbox{…} or \\boxed 2 (MATH, MATH-500)
    humaneval:FILE, mbpp:FILE, code:FILE     programs with tests (tracelift/programs/formats.py)
    tasks:FILE               problem, answer and, optionally, trace; judged by data.verifier

A reference trace is the published solution without the line that only states the answer, as the planner is asked for
one; a published program is no trace, so code files have none. Left out: downloading, few-shot examples.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracelift.config import Config
from tracelift.errors import RowsError
from tracelift.files import raised
from tracelift.programs import CodeProblem, load_problems
from tracelift.tasks.rows import Verifier, answer_of, before_box, checked, field, problem_of, row_id, scan_problems
from tracelift.tasks.sources import task_of
from tracelift.tasks.task import Task, TaskSource
from tracelift.verify.math import gsm8k_strict

DEMO_PROBLEMS = 1000  # what `eval.limit = 0` means for an endless series
SUFFIXES = r"(\.(jsonl|json|gz|parquet|arrow))+$"  # no part of a benchmark's name; other dots are
CODE_FORMATS = ("humaneval", "mbpp", "code")


class BenchmarkError(ValueError):
    """A benchmark that cannot be read: says file, line and key, and what was expected."""


@dataclass(frozen=True)
class Problem:
    """One problem to evaluate on. kind decides the verdict rules: "gsm8k", "number", "latex" or "program"."""

    task: Task
    kind: str
    reference_trace: str | None = None

    @property
    def code(self) -> CodeProblem | None:
        """The tests of a program."""
        return self.task.code

    @property
    def problem_id(self) -> str:
        return self.task.problem_id


@dataclass(frozen=True)
class Benchmark:
    name: str
    problems: list[Problem]
    left_out: int = 0  # problems of the file that are longer than planner.max_problem_chars


def demo_benchmark(name: str, source: TaskSource, limit: int) -> Benchmark:
    """The first `limit` problems of a demo world, 0 for DEMO_PROBLEMS."""
    return Benchmark(name, [_demo_problem(task) for task in source.first(limit or DEMO_PROBLEMS)])


def read_benchmark(spec: str, config: Config, say: Callable[[str], None] = print) -> Benchmark:
    """Read `FORMAT:FILE` (any file that rows.py reads), at most `eval.limit` problems, in the file's order.

    Raises BenchmarkError on unknown formats, missing files, broken rows and duplicate ids.
    """
    form, _, where = spec.partition(":")
    limit = config.eval.limit
    if form not in READERS and form not in CODE_FORMATS:
        known = ", ".join(("demo", *READERS, *CODE_FORMATS))
        raise BenchmarkError(f"eval.benchmarks: '{spec}': expected FORMAT:FILE, with FORMAT one of {known}")
    path = Path(where)
    if not (path.exists() if form in READERS and where else path.is_file()):
        raise BenchmarkError(f"eval.benchmarks: '{spec}': no such file as {where or '(none given)'}")
    if form in CODE_FORMATS:
        problems = [_code_problem(p) for p in load_problems(path)]
    else:
        problems = _problems(form, path, config.data.verifier)
    kept = [p for p in problems if len(p.task.problem) <= config.planner.max_problem_chars]
    if longer := len(problems) - len(kept):
        say(
            f"{spec}: left out {longer} problems longer than planner.max_problem_chars = "
            f"{config.planner.max_problem_chars}"
        )
    kept = kept[:limit] if limit else kept
    if not kept:
        raise BenchmarkError(f"{path}: holds no problem")
    seen: set[str] = set()
    for p in kept:
        if p.problem_id in seen:
            raise BenchmarkError(f"{path}: the id {p.problem_id!r} occurs twice; results are kept by id")
        seen.add(p.problem_id)
    return Benchmark(f"{form}:{re.sub(SUFFIXES, '', path.name)}", kept, longer)


def _problems(form: str, path: Path, verifier: Verifier) -> list[Problem]:
    read = READERS[form]
    try:
        return [read(row, f"{path}:{n}", f"{path.stem}-{n}", verifier) for n, row in _rows(path)]
    except ValueError as e:
        raise BenchmarkError(str(e)) from None


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of a JSON-lines file, or (place, object) of a list or table."""
    for number, row in raised(path, scan_problems(path)):
        if not isinstance(row, dict):
            raise RowsError(f"{path}:{number}: expected an object, got {type(row).__name__}")
        yield number, row


def _gsm8k(row: dict[str, Any], where: str, default_id: str, verifier: Verifier) -> Problem:
    question, answer = field(row, where, "question"), field(row, where, "answer")
    if gsm8k_strict(answer) is None:
        raise ValueError(f"{where}: the answer has no line '#### x'")
    task = Task(row_id(row, default_id), question, checked(answer, where, "numeric"))
    steps = re.sub(r"<<[^<>\n]*>>", "", answer.rpartition("####")[0]).strip()
    return Problem(task, "gsm8k", steps or None)


def _svamp(row: dict[str, Any], where: str, default_id: str, verifier: Verifier) -> Problem:
    field(row, where, "Body", "body")
    return _tasks(row, where, default_id, "numeric")


def _math(row: dict[str, Any], where: str, default_id: str, verifier: Verifier) -> Problem:
    solution = row.get("solution")
    task = Task(row_id(row, default_id), problem_of(row, where), answer_of(row, where), verifier="latex")
    return Problem(task, "latex", before_box(solution) if isinstance(solution, str) else None)


def _tasks(row: dict[str, Any], where: str, default_id: str, verifier: Verifier) -> Problem:
    """A row as training reads it (tracelift/tasks/sources.py), with a `trace` where it has one."""
    task = task_of(row, where, default_id, verifier)
    trace = row.get("trace") if isinstance(row.get("trace"), str) else None
    return Problem(task, "latex" if task.verifier == "latex" else "number", trace)


def _code_problem(p: CodeProblem) -> Problem:
    return Problem(Task(p.problem_id, p.statement, p.solution, "code", code=p), "program")


def _demo_problem(task: Task) -> Problem:
    return Problem(
        task, "number" if task.code is None else "program", task.truth.trace if task.truth is not None else None
    )


READERS: dict[str, Callable[[dict[str, Any], str, str, Verifier], Problem]] = {
    "gsm8k": _gsm8k, "svamp": _svamp, "math": _math, "tasks": _tasks,
}  # fmt: skip
