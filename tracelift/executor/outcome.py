"""What the executor made of one trace: the end-to-end run's verdict, both arms' successes, the texts and verdicts behind them.

    success_with(z) = mean_k V(E(x, z; seed_k))      success_base = mean_k V(E(x; seed_k))      u = success_with − success_base

Left out: how it comes about (tracelift/executor/executor.py), what it is worth (tracelift/rl/rewards.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tracelift.executor.judge import Judgement
from tracelift.verify.verdict import Verdict


def closeness(logprob: float, nats: float) -> float:
    """1 + logprob / nats, within [0, 1]: 1 for a sure answer, 0 from `nats` away on."""
    return min(1.0, max(0.0, 1.0 + logprob / nats))


@dataclass(frozen=True)
class Outcome:
    """What the executor made of one trace. `error` is set where any run it needs stayed an ERROR: no reward then.

    By likelihood, each arm counts as one run whose success is the reference's probability. An arm of 0 runs was not asked
    for."""

    e2e: Verdict
    with_successes: float
    repeats: int
    base_successes: float
    base_repeats: int
    artifact: str = ""  # the end-to-end run's text
    runs: tuple[str, ...] = field(default=(), compare=False)  # the K repeats' texts
    verdicts: tuple[str, ...] = field(default=(), compare=False)  # theirs, by name
    base_runs: tuple[tuple[str, str], ...] = field(default=(), compare=False)  # the baseline's (text, verdict)
    error: str | None = None
    judgement: Judgement | None = field(default=None, compare=False)  # of the end-to-end run
    logprobs: tuple[float, float | None] | None = None  # by likelihood: of the reference with and without the trace
    nats: float = 1.0

    @property
    def success_with(self) -> float | None:
        """None where the arm was not asked for, and so for the two below."""
        return self.with_successes / self.repeats if self.repeats else None

    @property
    def success_base(self) -> float | None:
        return self.base_successes / self.base_repeats if self.base_repeats else None

    @property
    def uplift(self) -> float | None:
        """The difference of success rates; by likelihood the difference of log-probabilities in units of `nats`."""
        if self.success_with is None or self.success_base is None:
            return None
        if self.logprobs is not None and self.logprobs[1] is not None:
            return (self.logprobs[0] - self.logprobs[1]) / self.nats
        return self.success_with - self.success_base

    @property
    def closeness(self) -> float:
        """By likelihood: of the reference with the trace."""
        assert self.logprobs is not None
        return closeness(self.logprobs[0], self.nats)
