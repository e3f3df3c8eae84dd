"""V(a): artifacts to verdicts, for every kind of task and many at once.

A number is compared (tracelift/verify/math.py), an expression goes to math-verify (tracelift/verify/latex.py). A program runs in the sandbox on its task's hidden tests, which decide, and on
the statement's own examples, which are only logged (tracelift/programs). Equal programs of one task run once, different
ones in parallel, and one of which only the verdict is wanted no further than its first failure. What cannot be judged is an ERROR: neither a pass nor a failure.

Left out: what a verdict is worth (tracelift/rl/rewards.py), the rules of benchmarks (tracelift/evaluation/verdicts.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from tracelift.programs import CodeProblem, FunctionTests, ProgramResult, StdinTest, judge_many
from tracelift.sandbox import Limits, Sandbox, default_sandbox
from tracelift.tasks.task import Task
from tracelift.verify.latex import LatexJudge
from tracelift.verify.math import verify_math
from tracelift.verify.verdict import Verdict


@dataclass(frozen=True)
class Judgement:
    """One artifact judged. For programs: `status` and `pass_rate` on the hidden tests, as `exec_reward` takes them,
    whether it produced any output, and `visible_rate`, its pass rate on the visible examples (None without any). `rules`:
    a benchmark's verdicts by rule, of which `verdict` is the first; empty where nothing but `verdict` is asked for."""

    verdict: Verdict
    status: str = ""
    pass_rate: float = 0.0
    produced_output: bool = False
    visible_rate: float | None = None
    detail: str = ""
    rules: Mapping[str, Verdict] = field(default_factory=dict, hash=False)


class Judge(Protocol):
    def __call__(self, items: Sequence[tuple[Task, str]], in_full: Sequence[bool] | None = None) -> list[Judgement]:
        """One judgement per (task, artifact text), in order. Where `in_full` is False the verdict is all that is asked
        for, and a program need not be run on after a test has failed."""
        ...


class TaskJudge:
    """Judges numbers and programs. The sandbox starts with the first program, which may therefore raise SandboxError."""

    def __init__(self, limits: Limits | None = None, workers: int = 0, allow_weak_sandbox: bool = False) -> None:
        """limits hold for each test of a program; `workers` programs run at once, 0 for one a core."""
        self.limits, self.workers, self.allow_weak = limits or Limits(), workers, allow_weak_sandbox
        self._own: Sandbox | None = None
        self._latex: LatexJudge | None = None

    @property
    def sandbox(self) -> Sandbox:
        """This process's shared sandbox, or one of its own where the number of workers is given."""
        if not self.workers:
            return default_sandbox(self.allow_weak)
        self._own = self._own or Sandbox(self.workers, allow_weak_sandbox=self.allow_weak)
        return self._own

    def __call__(self, items: Sequence[tuple[Task, str]], in_full: Sequence[bool] | None = None) -> list[Judgement]:
        problems: dict[int, CodeProblem] = {}
        programs: dict[tuple[int, str], bool] = {}  # (problem, text) -> whether anybody wants it in full
        for (task, text), full in zip(items, in_full or [True] * len(items), strict=True):
            if task.code is not None:
                problems[id(task.code)] = task.code
                programs[id(task.code), text] = programs.get((id(task.code), text), False) or full
        found: dict[tuple[int, str], Judgement] = {}
        brief = [item for item, full in programs.items() if not full and len(problems[item[0]].hidden) > 1]
        first = self._run(brief, {key: first_test(code) for key, code in problems.items()})
        found |= {item: judgement for item, judgement in first.items() if judgement.verdict is not Verdict.PASS}
        rest = [item for item in programs if item not in found]
        found |= self._run(rest, problems)
        return [
            found[id(task.code), text] if task.code is not None else self.answer_judgement(task, text)
            for task, text in items
        ]

    def answer_judgement(self, task: Task, text: str) -> Judgement:
        """A text against its task's reference. Raises MathVerifyMissing where LaTeX cannot be judged here."""
        if task.verifier == "latex":
            self._latex = self._latex or LatexJudge()
            verdict, detail = self._latex(task.reference, text)
            return Judgement(verdict, detail=detail)
        verdict = verify_math(text, task.reference)
        return Judgement(
            verdict, detail=f"the verifier could not judge {text[:60]!r}" if verdict is Verdict.ERROR else ""
        )

    def close(self) -> None:
        """End the child that judges LaTeX; the next text starts another."""
        if self._latex is not None:
            self._latex.close()

    def _run(
        self, programs: Sequence[tuple[int, str]], tests: dict[int, CodeProblem]
    ) -> dict[tuple[int, str], Judgement]:
        if not programs:
            return {}
        jobs = [(tests[key].program(text), together(tests[key])) for key, text in programs]
        results = judge_many(jobs, sandbox=self.sandbox, limits=self.limits)
        return {item: program_judgement(tests[item[0]], r) for item, r in zip(programs, results, strict=True)}


def together(code: CodeProblem) -> tuple[StdinTest, ...] | FunctionTests:
    """Hidden tests, and after them the visible ones where both are of the kind that runs one by one."""
    if isinstance(code.hidden, FunctionTests) or code.only_visible:
        return code.hidden
    return (*code.hidden, *code.visible)


def first_test(code: CodeProblem) -> CodeProblem:
    """The problem with one hidden test, for programs of which only the verdict matters: most wrong ones fail it."""
    return code if isinstance(code.hidden, FunctionTests) else replace(code, hidden=code.hidden[:1], visible=())


def program_judgement(code: CodeProblem, result: ProgramResult) -> Judgement:
    hidden, visible_rate = len(code.hidden), None
    if len(result.outcomes) > hidden:
        visible_rate = ProgramResult(result.outcomes[hidden:]).pass_rate
        result = ProgramResult(result.outcomes[:hidden])
    return Judgement(
        result.verdict, result.status, result.pass_rate, result.produced_output, visible_rate, result.summary()
    )
