"""What an executor's work took, counted where it is done: calls, tokens by what they were for, positions computed.

"Executor tokens" alone says little: a call that writes three tokens may have read seventy, and the likelihood of an answer
writes none. So the counts stand apart, and a report says which of them it means:

    calls       distinct requests; equal ones are answered once
    prompt      tokens of their prompts, each counted whole: what a server bills
    generated   tokens written
    scored      tokens of given answers whose probability was asked for
    computed    positions that went through the model, beginnings that requests share counted once

What a server does not say is None, and so is every sum with it. Left out: seconds, which belong to the process
(tracelift/runs/clock.py); what a cached baseline once took.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tracelift.executor.backend import (
    Backend,
    CompletionRequest,
    Counting,
    Likelihood,
    Progress,
    Reply,
    ScoreRequest,
    Scoring,
)


@dataclass(frozen=True)
class Cost:
    """Counts of one or more calls, that add up."""

    calls: int = 0
    prompt: int | None = 0
    generated: int = 0
    scored: int = 0
    computed: int | None = 0

    @property
    def positions(self) -> int | None:
        """Prompt, generated and scored tokens together: the cost without any sharing."""
        return None if self.prompt is None else self.prompt + self.generated + self.scored

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.calls + other.calls,
            _sum((self.prompt, other.prompt)),
            self.generated + other.generated,
            self.scored + other.scored,
            _sum((self.computed, other.computed)),
        )

    def __sub__(self, before: Cost) -> Cost:
        """What came since `before`, an earlier state of the same count."""
        return self + Cost(
            -before.calls,
            None if before.prompt is None else -before.prompt,
            -before.generated,
            -before.scored,
            None if before.computed is None else -before.computed,
        )

    def to_record(self) -> dict[str, Any]:
        """Count → number, with `positions`."""
        return asdict(self) | {"positions": self.positions}


class Counted:
    """Asks a backend, equal requests once, and keeps count of what that took."""

    def __init__(self) -> None:
        self.cost = Cost()

    def complete(
        self, backend: Backend, requests: Sequence[CompletionRequest], progress: Progress | None = None
    ) -> dict[CompletionRequest, Reply]:
        distinct, before = list(dict.fromkeys(requests)), _computed(backend)
        replies = dict(zip(distinct, backend.complete(distinct, progress) if distinct else [], strict=True))
        for r in replies.values():  # what a request that failed has read is in nobody's count
            self.cost += Cost(1, 0 if r.error is not None else r.prompt_tokens, r.tokens)
        self._add_computed(before, _computed(backend))
        return replies

    def score(self, backend: Scoring, requests: Sequence[ScoreRequest]) -> dict[ScoreRequest, Likelihood]:
        distinct, before = list(dict.fromkeys(requests)), _computed(backend)
        found = dict(zip(distinct, backend.score(distinct) if distinct else [], strict=True))
        for likelihood in found.values():
            self.cost += Cost(1, likelihood.prompt_tokens, 0, likelihood.scored)
        self._add_computed(before, _computed(backend))
        return found

    def _add_computed(self, before: int | None, after: int | None) -> None:
        self.cost += Cost(computed=None if after is None or before is None else after - before)


def _computed(backend: Backend | Scoring) -> int | None:
    return backend.computed if isinstance(backend, Counting) else None


def _sum(values: tuple[int | None, ...]) -> int | None:
    """Their sum; None where one is not known."""
    known = [v for v in values if v is not None]
    return sum(known) if len(known) == len(values) else None
