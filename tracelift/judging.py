"""V(a): artifacts to verdicts, for every kind of task and many at once.

A number is compared (tracelift/verify.py). A program runs in the sandbox on its task's hidden tests, which decide, and on
the statement's own examples, which are only logged (tracelift/programs). Equal programs of one task run once, different
ones in parallel. What cannot be judged is an ERROR: neither a pass nor a failure.

Left out: what a verdict is worth (tracelift/rewards.py), and LaTeX equivalence (tracelift/twostage/latex.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tracelift.data import Task
from tracelift.programs import CodeProblem, FunctionTests, ProgramResult, StdinTest, judge_many
from tracelift.sandbox import Limits, Sandbox, default_sandbox
from tracelift.verify import Verdict, verify_math


@dataclass(frozen=True)
class Judgement:
    """One artifact judged. For programs: `status` and `pass_rate` on the hidden tests, as `exec_reward` takes them,
    whether it produced any output, and `visible_rate`, its pass rate on the visible examples (None without any)."""

    verdict: Verdict
    status: str = ""
    pass_rate: float = 0.0
    produced_output: bool = False
    visible_rate: float | None = None
    detail: str = ""


class Judge(Protocol):
    def __call__(self, items: Sequence[tuple[Task, str]]) -> list[Judgement]:
        """One judgement per (task, artifact text), in order."""
        ...


class TaskJudge:
    """Judges numbers and programs. The sandbox starts with the first program, which may therefore raise SandboxError."""

    def __init__(self, limits: Limits = Limits(), workers: int = 0, allow_weak_sandbox: bool = False) -> None:
        """limits hold for each test of a program; `workers` programs run at once, 0 for one a core."""
        self.limits, self.workers, self.allow_weak = limits, workers, allow_weak_sandbox
        self._own: Sandbox | None = None

    @property
    def sandbox(self) -> Sandbox:
        """This process's shared sandbox, or one of its own where the number of workers is given."""
        if not self.workers:
            return default_sandbox(self.allow_weak)
        self._own = self._own or Sandbox(self.workers, allow_weak_sandbox=self.allow_weak)
        return self._own

    def __call__(self, items: Sequence[tuple[Task, str]]) -> list[Judgement]:
        problems = {id(task.code): task.code for task, _ in items if task.code is not None}
        programs = list(dict.fromkeys((id(task.code), text) for task, text in items if task.code is not None))
        found: dict[tuple[int, str], Judgement] = {}
        if programs:
            jobs = [(problems[key].program(text), all_tests(problems[key])) for key, text in programs]
            results = judge_many(jobs, sandbox=self.sandbox, limits=self.limits)
            found = {item: program_judgement(problems[item[0]], r) for item, r in zip(programs, results, strict=True)}
        return [found[id(task.code), text] if task.code is not None else number_judgement(task, text) for task, text in items]


def number_judgement(task: Task, text: str) -> Judgement:
    verdict = verify_math(text, task.reference)
    detail = f"the verifier could not judge {text[:60]!r}" if verdict is Verdict.ERROR else ""
    return Judgement(verdict, detail=detail)


def all_tests(code: CodeProblem) -> tuple[StdinTest, ...] | FunctionTests:
    """Hidden tests, and after them the visible ones where both are of the kind that runs one by one."""
    if isinstance(code.hidden, FunctionTests) or code.only_visible:
        return code.hidden
    return (*code.hidden, *code.visible)


def program_judgement(code: CodeProblem, result: ProgramResult) -> Judgement:
    hidden, visible_rate = len(code.hidden), None
    if len(result.outcomes) > hidden:
        visible_rate = ProgramResult(result.outcomes[hidden:]).pass_rate
        result = ProgramResult(result.outcomes[:hidden])
    return Judgement(result.verdict, result.status, result.pass_rate, result.produced_output, visible_rate, result.summary())
