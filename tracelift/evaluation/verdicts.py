"""Artifact → verdicts, by every rule that is standard for its kind of problem; the first rule named is the headline.

    gsm8k     numeric (exact arithmetic, tracelift/verify/math.py), strict (`#### x`) and flexible (the last number), the
              latter two compared as strings, as lm-evaluation-harness does: under them 18.0 is not 18
    number    numeric
    latex     equivalence, by math-verify in a bounded child
    program   tests, in the sandbox

An artifact that could not be judged is ERROR under its rule and counts nowhere but among the errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tracelift.executor import judge as judging
from tracelift.tasks.benchmarks import Problem
from tracelift.verify.latex import LatexJudge
from tracelift.verify.math import gsm8k_flexible, gsm8k_strict, verify_math
from tracelift.verify.verdict import Verdict

RULES = {
    "gsm8k": ("numeric", "strict", "flexible"),
    "number": ("numeric",),
    "latex": ("equivalence",),
    "program": ("tests",),
}
VERSIONS = {"gsm8k": 1, "number": 1, "latex": 2, "program": 1}  # part of a record's key: a changed rule judges anew


@dataclass(frozen=True)
class Judgement:
    verdicts: dict[str, Verdict]  # by rule, the headline first
    detail: str = ""


class Judge:
    """Judges artifacts of any kind; holds the math-verify child."""

    def __init__(self, programs: judging.Judge | None = None) -> None:
        """programs: judges those, with the limits of the run's [sandbox] section."""
        self._programs = programs or judging.TaskJudge()
        self._latex: LatexJudge | None = None

    def rests_on(self, problem: Problem) -> list[Any]:
        """What a verdict on this problem depends on beside the artifact: JSON values for a record's key."""
        c = problem.code
        if c is None:
            return [problem.task.reference, problem.kind, VERSIONS[problem.kind]]
        limits = getattr(self._programs, "limits", None)  # a program that runs out of time or memory has failed
        return [repr((c.hidden, c.entry_point, c.preamble, c.stub, limits)), problem.kind, VERSIONS[problem.kind]]

    def __call__(self, items: Sequence[tuple[Problem, str]]) -> list[Judgement]:
        """One judgement per (problem, artifact). Raises MathVerifyMissing, or SandboxError for programs it cannot
        run."""
        out: list[Judgement | None] = [self._one(p, text) for p, text in items]
        programs = [i for i, (p, _) in enumerate(items) if p.kind == "program"]
        ran = self._programs([(items[i][0].task, items[i][1]) for i in programs]) if programs else []
        for i, result in zip(programs, ran, strict=True):
            out[i] = Judgement({"tests": result.verdict}, result.detail)
        return [j for j in out if j is not None]

    def _one(self, problem: Problem, text: str) -> Judgement | None:
        reference = problem.task.reference
        if problem.kind == "program":
            return None  # all of them together, below
        if problem.kind == "latex":
            self._latex = self._latex or LatexJudge()
            verdict, detail = self._latex(reference, text)
            return Judgement({"equivalence": verdict}, detail)
        verdicts = {"numeric": verify_math(text, reference)}
        if problem.kind == "gsm8k":
            gold = gsm8k_strict(reference)
            for rule, read in (("strict", gsm8k_strict), ("flexible", gsm8k_flexible)):
                verdicts[rule] = Verdict.PASS if read(text) == gold else Verdict.FAIL
        return Judgement(verdicts)

    def close(self) -> None:
        if self._latex is not None:
            self._latex.close()


def failed(problem: Problem, detail: str) -> Judgement:
    """What a sample gets that never reached the executor."""
    return Judgement({rule: Verdict.FAIL for rule in RULES[problem.kind]}, detail)
