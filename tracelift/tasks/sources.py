"""Where problems come from: the demo's endless series or the user's JSONL, behind one small interface.

A round's problems are a function of the round's number alone, so a resumed run needs no data position. A file is walked
in a fresh order each epoch, keyed by (seed, epoch). Left out: streaming from the network, mixing several files.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tracelift.errors import GroupError
from tracelift.files import parse_json_line
from tracelift.programs import CodeProblem, StdinTest, load_problems
from tracelift.verify.math import Verdict, verify_math
from tracelift.worlds import code as code_world
from tracelift.worlds import math as math_world


@dataclass(frozen=True)
class Task:
    """One problem. `reference` is its answer or a program that solves it; `code` holds the tests of a code task.
    `truth` is the demo world's own record of it, which makes a trace's validity measurable."""

    problem_id: str
    problem: str
    reference: str
    task_type: str = "math"
    truth: math_world.MathProblem | code_world.CodeProblem | None = None
    code: CodeProblem | None = None

    def trace_valid(self, trace: str) -> bool | None:
        """Whether every step of a trace is true and grounded; None where the truth is not known."""
        found = self.validity(trace)
        return None if found is None else found.valid

    def validity(self, trace: str) -> math_world.Validity | code_world.Validity | None:
        """The demo worlds' verdict on a trace, with its first fault and where that stands; None for other problems."""
        if isinstance(self.truth, math_world.MathProblem):
            return math_world.check_trace(self.truth, trace)
        if isinstance(self.truth, code_world.CodeProblem):
            return code_world.check_plan(self.truth, trace)
        return None


class TaskSource(Protocol):
    def round(self, step: int, count: int) -> list[Task]:
        """The problems of one training round."""
        ...

    def first(self, count: int) -> list[Task]:
        """A fixed set, for evaluation."""
        ...


@dataclass(frozen=True)
class DemoTasks:
    """An embedded world: every index of a series is another problem."""

    seed: int
    world: str = "math"

    def round(self, step: int, count: int) -> list[Task]:
        return [self._task(step * count + i) for i in range(count)]

    def first(self, count: int) -> list[Task]:
        return [self._task(i) for i in range(count)]

    def named(self, problem_id: str) -> Task | None:
        """The problem of that id, None where it is not of this series."""
        series, _, index = problem_id.rpartition("-")
        if not index.isdigit():
            return None
        task = self._task(int(index))
        return task if task.problem_id == problem_id else None

    def _task(self, index: int) -> Task:
        if self.world == "code":
            return code_task(code_world.make_problem(self.seed, index))
        p = math_world.make_problem(self.seed, index)
        return Task(p.problem_id, p.text, str(p.answer), "math", p)


def code_task(p: code_world.CodeProblem) -> Task:
    """A problem of the code world with its tests."""
    visible, hidden = (tuple(StdinTest(*case) for case in cases) for cases in code_world.make_cases(p))
    tests = CodeProblem(p.problem_id, p.text, hidden, visible, solution=p.program)
    return Task(p.problem_id, p.text, p.program, "code", p, tests)


@dataclass(frozen=True)
class FileTasks:
    """The rows of a file, shuffled anew each epoch."""

    tasks: list[Task]
    seed: int

    def round(self, step: int, count: int) -> list[Task]:
        positions = [divmod(p, len(self.tasks)) for p in range(step * count, (step + 1) * count)]
        orders = {epoch: self._order(epoch) for epoch in {epoch for epoch, _ in positions}}
        return [self.tasks[orders[epoch][at]] for epoch, at in positions]

    def first(self, count: int) -> list[Task]:
        return self.tasks[:count]

    def _order(self, epoch: int) -> list[int]:
        order = list(range(len(self.tasks)))
        random.Random(f"order:{self.seed}:{epoch}").shuffle(order)
        return order


def load_tasks(source: str, seed: int, limit: int = 0, max_chars: int = 0, say: Callable[[str], None] = print) -> TaskSource:
    """`demo:math` or `demo:code`; `code:FILE`, programs with tests in any format of tracelift/programs/formats.py; or a
    JSONL file of {problem, answer} or GSM8K's {question, answer} rows (ids optional).

    Rows longer than `max_chars` characters are left out and counted aloud. Raises FileNotFoundError for a missing file,
    ValueError naming file and line for a broken row, and ValueError for a file that yields no problem.
    """
    if source.startswith("demo:"):
        if source not in ("demo:math", "demo:code"):
            raise ValueError(f"data source '{source}': the demos are called demo:math and demo:code")
        return DemoTasks(seed, source.removeprefix("demo:"))
    if source.startswith("code:"):
        return _code_file(Path(source.removeprefix("code:")), seed, limit, max_chars, say)
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"data source '{source}': no such file (a JSONL file, or demo:math)")
    tasks: list[Task] = []
    skipped = 0
    with open(path, "rb") as f:
        for number, line in enumerate(f, start=1):
            if not line.strip():
                continue
            task = _parse_row(line, f"{path}:{number}", f"{path.stem}-{number}")
            if max_chars and len(task.problem) > max_chars:
                skipped += 1
                continue
            tasks.append(task)
            if limit and len(tasks) == limit:
                break
    if skipped:
        say(f"{path}: left out {skipped} problems longer than {max_chars} characters")
    if not tasks:
        raise ValueError(f"{path}: holds no problem to train on")
    return FileTasks(tasks, seed)


def _code_file(path: Path, seed: int, limit: int, max_chars: int, say: Callable[[str], None]) -> FileTasks:
    if not path.is_file():
        raise FileNotFoundError(f"data source 'code:{path}': no such file")
    problems = load_problems(path)
    kept = [p for p in problems if not max_chars or len(p.statement) <= max_chars]
    if len(kept) < len(problems):
        say(f"{path}: left out {len(problems) - len(kept)} problems longer than {max_chars} characters")
    if not kept:
        raise ValueError(f"{path}: holds no problem to train on")
    tasks = [Task(p.problem_id, p.statement, p.solution, "code", code=p) for p in kept]
    return FileTasks(tasks[:limit] if limit else tasks, seed)


def _parse_row(line: bytes, where: str, default_id: str) -> Task:
    try:
        row = parse_json_line(line)
    except GroupError as e:
        raise ValueError(f"{where}: {e}") from None
    if not isinstance(row, dict):
        raise ValueError(f"{where}: expected an object, got {type(row).__name__}")
    problem = row.get("problem", row.get("question"))
    answer = row.get("answer", row.get("reference"))
    if not isinstance(problem, str) or not problem.strip():
        raise ValueError(f"{where}: no 'problem' (or 'question') text; keys are {sorted(row)}")
    if not isinstance(answer, (str, int, float)) or isinstance(answer, bool) or not str(answer).strip():
        raise ValueError(f"{where}: no 'answer'; keys are {sorted(row)}")
    reference = str(answer)
    if verify_math(reference, reference) is not Verdict.PASS:
        raise ValueError(f"{where}: the answer {reference[-60:]!r} holds no number to check against")
    return Task(str(row.get("problem_id", default_id)), problem, reference)
