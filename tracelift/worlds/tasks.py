"""The demo worlds as sources of tasks whose truth is known: every index of a series is another problem.

Left out: files of problems (tracelift/tasks/sources.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from tracelift.programs import CodeProblem, StdinTest
from tracelift.tasks.task import Task, Validity
from tracelift.worlds import code as code_world
from tracelift.worlds import math as math_world


@dataclass(frozen=True)
class Known:
    """A world's problem as tracelift.tasks.task.Truth."""

    problem: math_world.MathProblem | code_world.PlanProblem

    @property
    def trace(self) -> str:
        return self.problem.trace

    def check(self, trace: str) -> Validity:
        p = self.problem
        return (
            math_world.check_trace(p, trace)
            if isinstance(p, math_world.MathProblem)
            else code_world.check_plan(p, trace)
        )


_SPARE = 10**9  # the first index of the series that no round reaches


@dataclass(frozen=True)
class DemoTasks:
    """An embedded world: every index of a series is another problem."""

    seed: int
    world: str = "math"

    def round(self, step: int, count: int) -> list[Task]:
        return [self._task(step * count + i) for i in range(count)]

    def spare(self, nth: int, count: int) -> list[Task]:
        """Other problems than those of any round."""
        return [self._task(_SPARE + nth * count + i) for i in range(count)]

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
        return Task(p.problem_id, p.text, str(p.answer), "math", Known(p))


def demo_tasks(source: str, seed: int) -> DemoTasks:
    """`demo:math` or `demo:code`. Raises ValueError on any other."""
    if source not in ("demo:math", "demo:code"):
        raise ValueError(f"data source '{source}': the demos are called demo:math and demo:code")
    return DemoTasks(seed, source.removeprefix("demo:"))


def code_task(p: code_world.PlanProblem) -> Task:
    """A problem of the code world with its tests."""
    visible, hidden = (tuple(StdinTest(*case) for case in cases) for cases in code_world.make_cases(p))
    tests = CodeProblem(p.problem_id, p.text, hidden, visible, solution=p.program)
    return Task(p.problem_id, p.text, p.program, "code", Known(p), tests)
