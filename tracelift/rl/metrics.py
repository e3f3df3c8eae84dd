"""Figures over samples: the three shares that every report of this project gives, and a round's metrics.

    accuracy             right answers among those that were judged
    trace validity       valid traces among those whose truth is known
    wrong-reason rate    traces that are not valid among right answers whose truth is known; by fault, its parts: the first
                         thing wrong in each such trace

Which samples a figure is over is the same in training, in its summary and in eval.py (a table stands in docs/evaluation.md):
an answer that could not be judged is in no figure of answers, a trace that could not be scored in no figure of the Reason
RM, a reply without a trace is not right and in no figure of traces' contents; all of these are in every other figure.
Left out: intervals and tests (tracelift/stats/).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import pstdev

from tracelift.rl.flat_groups import has_spread, rewards_of
from tracelift.rl.sample import Sample, judged_outcomes, reached_executor

Pair = tuple[bool | None, bool | None]  # of one sample: the answer is right, the trace is valid; None: not known


@dataclass(frozen=True)
class Share:
    """`hits` of `n`."""

    hits: int
    n: int

    @classmethod
    def of(cls, values: Iterable[bool]) -> Share:
        listed = list(values)
        return cls(sum(listed), len(listed))

    @property
    def value(self) -> float | None:
        """The share; None of nothing, which is neither 0 nor 1."""
        return self.hits / self.n if self.n else None


def accuracy(pairs: Iterable[Pair]) -> Share:
    return Share.of(right for right, _ in pairs if right is not None)


def trace_validity(pairs: Iterable[Pair]) -> Share:
    return Share.of(valid for _, valid in pairs if valid is not None)


def wrong_reason_rate(pairs: Iterable[Pair]) -> Share:
    return Share.of(not valid for right, valid in pairs if right and valid is not None)


def wrong_reasons_by_fault(rows: Iterable[tuple[bool | None, bool | None, str | None]]) -> dict[str, Share]:
    """Of (right, valid, fault): the share of each fault among right answers whose truth is known, the most frequent first.
    The shares add up to the wrong-reason rate."""
    known = [(valid, fault) for right, valid, fault in rows if right and valid is not None]
    counts = Counter(fault or "unnamed" for valid, fault in known if not valid)
    return {fault: Share(n, len(known)) for fault, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))}


def group_metrics(groups: Sequence[Sequence[Sample]], dimension_names: Sequence[str]) -> dict[str, float | None]:
    """Means over a round's samples, each figure over those that it can be told of; None of none. Rewards are those of samples
    without an ERROR.

    entropy: −log p of the sampled tokens, nats, mean over all of them. Its expectation is that of the sampled
    distribution's entropy, and it needs no forward pass.
    """
    samples = [s for group in groups for s in group]
    traced = reached_executor(samples)
    pairs = [(s.correct, s.valid) for s in samples]
    ran = judged_outcomes(samples)
    rewards = [s.reward for s in samples if s.reward is not None]
    known = rewards_of(groups)
    tokens = sum(len(s.completion.tokens) for s in samples)
    metrics: dict[str, float | None] = {
        "reward": mean(rewards),
        "reward_std": pstdev(rewards) if rewards else None,
        "accuracy": accuracy(pairs).value,
        "format_failures": mean([float(s.trace is None) for s in samples]),
        "verdict_errors": mean([float(s.error is not None) for s in traced]),
        "zero_spread": mean((~has_spread(known.reward, known.valid)).double().tolist()),
        "entropy": -sum(sum(s.completion.logprobs) for s in samples) / tokens if tokens else None,
        "trace_tokens": mean([float(len(s.completion.tokens)) for s in samples]),
        "truncated": mean([float(s.completion.finish_reason == "length") for s in samples]),
        "leak_rate": mean([float(s.leaked) for s in traced]),
        "leak_unsupported_rate": mean([float(s.leaked_unsupported) for s in traced]),
        "distinct_traces": mean([len({s.text for s in g}) / len(g) for g in groups]),
    }
    if any(s.parts is not None and s.outcome and (s.outcome.runs or s.outcome.logprobs) for s in samples):
        both = [(o.success_with, o.success_base) for o in ran]
        metrics["success_with"] = mean([a for a, _ in both if a is not None])
        if any(b is not None for _, b in both):
            metrics["success_base"] = mean([b for _, b in both if b is not None])
            metrics["uplift"] = mean([a - b for a, b in both if a is not None and b is not None])
    scored = [o for o in ran if o.logprobs]
    if scored:  # nats per answer, before the reward clips them
        metrics["likelihood"] = mean([o.logprobs[0] for o in scored if o.logprobs])
        lifted = [o.logprobs[0] - o.logprobs[1] for o in scored if o.logprobs and o.logprobs[1] is not None]
        if lifted:
            metrics["likelihood_uplift"] = mean(lifted)
            metrics["likelihood_clipped"] = mean([float(abs(o.uplift) > 1) for o in scored if o.uplift is not None])
    programs = [o.judgement for o in ran if o.judgement is not None and o.judgement.status]  # numbers have no status
    if programs:
        metrics["pass_rate"] = mean([j.pass_rate for j in programs])
        metrics["visible_pass_rate"] = mean([j.visible_rate for j in programs if j.visible_rate is not None])
        for status in ("failed_test", "runtime_error", "timeout", "compile_error"):
            metrics[f"status/{status}"] = mean([float(j.status == status) for j in programs])
    scores = [score for s in samples if (score := s.score) is not None]
    if scores:
        metrics["rm_score"] = mean([r.total for r in scores])
        for d, name in enumerate(dimension_names):
            metrics[f"rm/{name}"] = mean([r.dimensions[d] for r in scores])
    if (validity := trace_validity(pairs)).n:
        metrics["trace_validity"] = validity.value
        metrics["wrong_reason_rate"] = wrong_reason_rate(pairs).value
    return metrics


def mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
