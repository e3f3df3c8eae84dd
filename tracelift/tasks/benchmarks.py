"""Benchmarks as they are published → `Problem`s of one kind, with the data's own solution as reference trace.

    demo:math, demo:code     the embedded worlds, whose truth is known
    gsm8k:FILE               question, answer with <<calculator marks>> and a last line `#### x`
    svamp:FILE               Body, Question, Answer (also lower case, or with ID)
    math:FILE                problem, answer, or a solution with \\boxed{answer}, \\fbox{…} or \\boxed 2 (MATH, MATH-500)
    humaneval:FILE, mbpp:FILE, code:FILE     programs with tests (tracelift/programs/formats.py)
    tasks:FILE               problem, answer and, optionally, trace

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
from tracelift.files import read_rows
from tracelift.programs import CodeProblem, load_problems
from tracelift.tasks.task import Task, TaskSource
from tracelift.verify.math import gsm8k_strict, verify_math
from tracelift.verify.verdict import Verdict

DEMO_PROBLEMS = 1000  # what `eval.limit = 0` means for an endless series
SUFFIXES = r"(\.(jsonl|json|gz))+$"  # no part of a benchmark's name; other dots are
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


def demo_benchmark(name: str, source: TaskSource, limit: int) -> Benchmark:
    """The first `limit` problems of a demo world, 0 for DEMO_PROBLEMS."""
    return Benchmark(name, [_demo_problem(task) for task in source.first(limit or DEMO_PROBLEMS)])


def read_benchmark(spec: str, config: Config, say: Callable[[str], None] = print) -> Benchmark:
    """Read `FORMAT:FILE` (.jsonl, .json or .gz), at most `eval.limit` problems, in the file's order.

    Raises BenchmarkError on unknown formats, missing files, broken rows and duplicate ids.
    """
    form, _, where = spec.partition(":")
    limit = config.eval.limit
    if form not in READERS and form not in CODE_FORMATS:
        known = ", ".join(("demo", *READERS, *CODE_FORMATS))
        raise BenchmarkError(f"eval.benchmarks: '{spec}': expected FORMAT:FILE, with FORMAT one of {known}")
    path = Path(where)
    if not path.is_file():
        raise BenchmarkError(f"eval.benchmarks: '{spec}': no such file as {where or '(none given)'}")
    if form in CODE_FORMATS:
        problems = [_code_problem(p) for p in load_problems(path)]
    else:
        problems = [READERS[form](row, f"{path}:{n}", f"{path.stem}-{n}") for n, row in _rows(path)]
    kept = [p for p in problems if len(p.task.problem) <= config.planner.max_problem_chars]
    if len(kept) < len(problems):
        say(
            f"{spec}: left out {len(problems) - len(kept)} problems longer than planner.max_problem_chars = "
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
    return Benchmark(f"{form}:{re.sub(SUFFIXES, '', path.name)}", kept)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of a JSON-lines file, or (place, object) of a JSON list."""
    try:
        for number, row in read_rows(path):
            if not isinstance(row, dict):
                raise RowsError(f"{path}:{number}: expected an object, got {type(row).__name__}")
            yield number, row
    except RowsError as e:
        raise BenchmarkError(str(e)) from None


def _field(row: dict[str, Any], where: str, *names: str) -> str:
    """The first of `names` that the row has with content, as text."""
    for name in names:
        value = row.get(name)
        if isinstance(value, float) and value.is_integer():
            return str(int(value))
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return str(value)
        if isinstance(value, str) and value.strip():
            return value
    raise BenchmarkError(f"{where}: no {' or '.join(repr(n) for n in names)}; keys are {sorted(row)}")


def _id(row: dict[str, Any], default: str) -> str:
    return str(
        next((row[k] for k in ("problem_id", "unique_id", "id", "ID", "task_id") if row.get(k) is not None), default)
    )


def _gsm8k(row: dict[str, Any], where: str, default_id: str) -> Problem:
    question, answer = _field(row, where, "question"), _field(row, where, "answer")
    if gsm8k_strict(answer) is None:
        raise BenchmarkError(f"{where}: the answer has no line '#### x'")
    task = Task(_id(row, default_id), question, answer)
    steps = re.sub(r"<<[^<>\n]*>>", "", answer.rpartition("####")[0]).strip()
    return Problem(task, "gsm8k", steps or None)


def _svamp(row: dict[str, Any], where: str, default_id: str) -> Problem:
    body, question = _field(row, where, "Body", "body"), _field(row, where, "Question", "question")
    text = f"{body.strip()}{'' if body.rstrip().endswith(('.', ',', '?', '!')) else '.'} {question.strip()}"
    return _number(Task(_id(row, default_id), text, _field(row, where, "Answer", "answer")), where)


def _number(task: Task, where: str, trace: str | None = None) -> Problem:
    if verify_math(task.reference, task.reference) is not Verdict.PASS:
        raise BenchmarkError(f"{where}: the answer {task.reference[-60:]!r} does not pass its own check")
    return Problem(task, "number", trace)


def _math(row: dict[str, Any], where: str, default_id: str) -> Problem:
    problem, solution = _field(row, where, "problem", "question"), row.get("solution")
    answer = (
        _field(row, where, "answer") if row.get("answer") not in (None, "") else boxed(_field(row, where, "solution"))
    )
    if answer is None:
        raise BenchmarkError(f"{where}: neither an 'answer' nor a \\boxed{{…}} in its solution")
    return Problem(
        Task(_id(row, default_id), problem, answer),
        "latex",
        _before_box(solution) if isinstance(solution, str) else None,
    )


_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?:\{|(?<=\s)(?=\S)|(?=\d))")


def boxed(text: str) -> str | None:
    """The content of the last \\boxed{…} or \\fbox{…}, braces matched, or of \\boxed 2, up to the formula's end; None where
    there is none, or none that closes."""
    boxes = list(_BOX.finditer(text))
    if not boxes:
        return None
    start = boxes[-1].end()
    if text[start - 1] != "{":
        return re.split(r"\$|\\\)|\\\]|\n", text[start:])[0].strip(" .") or None
    depth = 1
    for i in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if depth == 0:
            return text[start:i]
    return None


def _before_box(solution: str) -> str | None:
    """The sentences before the one that boxes the answer; None where the box is in the first."""
    boxes = list(_BOX.finditer(solution))
    head = solution[: boxes[-1].start()] if boxes else solution
    ends = [m.end() for m in re.finditer(r"[.!?](?=\s)|\n\n", head)]
    return (head[: ends[-1]].strip() or None) if ends else None


def _tasks(row: dict[str, Any], where: str, default_id: str) -> Problem:
    task = Task(
        _id(row, default_id), _field(row, where, "problem", "question"), _field(row, where, "answer", "reference")
    )
    return _number(task, where, row.get("trace") if isinstance(row.get("trace"), str) else None)


def _code_problem(p: CodeProblem) -> Problem:
    return Problem(Task(p.problem_id, p.statement, p.solution, "code", code=p), "program")


def _demo_problem(task: Task) -> Problem:
    return Problem(
        task, "number" if task.code is None else "program", task.truth.trace if task.truth is not None else None
    )


READERS: dict[str, Callable[[dict[str, Any], str, str], Problem]] = {
    "gsm8k": _gsm8k, "svamp": _svamp, "math": _math, "tasks": _tasks,
}  # fmt: skip
