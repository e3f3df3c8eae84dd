"""Artifact → verdicts, by every rule that is standard for its kind of problem; the first rule named is the headline.

    gsm8k     numeric (exact arithmetic, tracelift/verify/math.py), strict (`#### x`) and flexible (the last number), the
              latter two compared as strings, as lm-evaluation-harness does: under them 18.0 is not 18
    number    numeric
    latex     equivalence, by math-verify in a bounded child
    program   tests, in the sandbox

An artifact that could not be judged is ERROR under its rule and counts nowhere but among the errors. Left out: the
headline of numbers and programs, which is training's own (tracelift/executor/judge.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tracelift.executor.judge import Judgement, TaskJudge
from tracelift.tasks.task import Task
from tracelift.verify.math import gsm8k_flexible, gsm8k_strict
from tracelift.verify.verdict import Verdict

RULES = {
    "gsm8k": ("numeric", "strict", "flexible"),
    "number": ("numeric",),
    "latex": ("equivalence",),
    "program": ("tests",),
}
VERSIONS = {"gsm8k": 2, "number": 2, "latex": 3, "program": 1}  # part of a record's key: a changed rule judges anew


class RuleJudge:
    """Judges artifacts of one kind of problem. Implements tracelift.executor.judge.Judge."""

    def __init__(self, kind: str, tasks: TaskJudge | None = None) -> None:
        """kind: a key of RULES. tasks: judges answers and programs, with the limits of the run's [sandbox] section."""
        self.kind = kind
        self._tasks = tasks or TaskJudge()

    def rests_on(self, task: Task) -> list[Any]:
        """What a verdict on this problem depends on beside the artifact: JSON values for a record's key."""
        c = task.code
        if c is None:
            return [task.reference, self.kind, VERSIONS[self.kind]]
        limits = self._tasks.limits  # a program that runs out of time or memory has failed
        return [repr((c.hidden, c.entry_point, c.preamble, c.stub, limits)), self.kind, VERSIONS[self.kind]]

    def __call__(self, items: Sequence[tuple[Task, str]], in_full: Sequence[bool] | None = None) -> list[Judgement]:
        """One judgement per (task, artifact), its `rules` filled in. Raises MathVerifyMissing, or SandboxError for programs
        it cannot run."""
        judged = self._tasks(items, in_full)
        return [replace(j, rules=self._rules(j, *item)) for j, item in zip(judged, items, strict=True)]

    def _rules(self, judged: Judgement, task: Task, text: str) -> dict[str, Verdict]:
        verdicts = {RULES[self.kind][0]: judged.verdict}
        if self.kind == "gsm8k":
            gold = gsm8k_strict(task.reference)
            for rule, read in (("strict", gsm8k_strict), ("flexible", gsm8k_flexible)):
                verdicts[rule] = Verdict.PASS if read(text) == gold else Verdict.FAIL
        return verdicts

    def close(self) -> None:
        self._tasks.close()
