"""A problem to solve, and where problems come from: the two interfaces that the rest of the project sees.

Left out: reading files (tracelift/tasks/sources.py), the demo worlds (tracelift/worlds/).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from tracelift.programs import CodeProblem

NO_TRACE = "no_trace"  # the fault of a reply that holds no complete trace


@dataclass(frozen=True)
class Validity:
    """Whether a trace is true and grounded. `fault` names the first thing wrong, None where the trace is valid; `step` is
    its 0-based sentence."""

    valid: bool
    fault: str | None = None
    step: int | None = None


class Truth(Protocol):
    """What is known of a problem beyond its answer: how it is derived (tracelift/worlds/tasks.py)."""

    @property
    def trace(self) -> str:
        """A reference trace."""
        ...

    def check(self, trace: str) -> Validity:
        """Whether every step of a trace is true and grounded in the problem."""
        ...


@dataclass(frozen=True)
class Task:
    """One problem. `reference` is its answer or a program that solves it; `code` holds the tests of a code task.
    `verifier` judges answers: "numeric" or "latex". `truth` is the demo world's own record of it, which makes a trace's validity measurable."""

    problem_id: str
    problem: str
    reference: str
    task_type: str = "math"
    truth: Truth | None = None
    code: CodeProblem | None = None
    verifier: Literal["numeric", "latex"] = "numeric"

    def check(self, trace: str | None) -> Validity | None:
        """Whether every step of a trace is true and grounded; None where the truth is not known. A format failure (None)
        is no valid trace."""
        if self.truth is None:
            return None
        return Validity(False, NO_TRACE) if trace is None else self.truth.check(trace)


class TaskSource(Protocol):
    def round(self, step: int, count: int) -> list[Task]:
        """The problems of one training round."""
        ...

    def spare(self, nth: int, count: int) -> list[Task]:
        """The 0-based `nth` lot of `count` problems that no round's own order is made shorter by."""
        ...

    def first(self, count: int) -> list[Task]:
        """A fixed set, for evaluation."""
        ...
