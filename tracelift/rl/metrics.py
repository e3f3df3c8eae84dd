"""Figures over samples: the three shares that every report of this project gives, and a round's metrics.

    accuracy             right answers among those that were judged
    trace validity       valid traces among those whose truth is known
    wrong-reason rate    traces that are not valid among right answers whose truth is known; by fault, its parts: the first
                         thing wrong in each such trace

Left out: intervals and tests (tracelift/stats/).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import pstdev

from tracelift.rl.flat_groups import has_spread, rewards_of
from tracelift.rl.sample import Sample, reached_executor

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
    """Means over a round's samples, ERROR samples left out of everything that their verdict could touch; None of none.

    entropy: −log p of the sampled tokens, nats, mean over all of them. Its expectation is that of the sampled
    distribution's entropy, and it needs no forward pass.
    """
    samples = [s for group in groups for s in group]
    kept = [s for s in samples if s.error is None]
    pairs = [(s.correct, s.valid) for s in kept]
    ran = [s for s in kept if s.outcome is not None]
    rewards = [s.reward for s in kept if s.reward is not None]
    known = rewards_of(groups)
    tokens = sum(len(s.completion.tokens) for s in samples)
    metrics: dict[str, float | None] = {
        "reward": mean(rewards),
        "reward_std": pstdev(rewards) if rewards else None,
        "accuracy": accuracy(pairs).value,
        "format_failures": mean([float(s.trace is None) for s in samples]),
        "verdict_errors": mean([float(s.error is not None) for s in reached_executor(samples)]),
        "zero_spread": mean((~has_spread(known.reward, known.valid)).double().tolist()),
        "entropy": -sum(sum(s.completion.logprobs) for s in samples) / tokens if tokens else None,
        "trace_tokens": mean([float(len(s.completion.tokens)) for s in samples]),
        "truncated": mean([float(s.completion.finish_reason == "length") for s in samples]),
        "leak_rate": mean([float(s.leaked) for s in kept]),
        "leak_unsupported_rate": mean([float(s.leaked_unsupported) for s in kept]),
        "distinct_traces": mean([len({s.text for s in g}) / len(g) for g in groups]),
    }
    if any(s.parts is not None and s.outcome and (s.outcome.runs or s.outcome.logprobs) for s in ran):
        both = [(s.outcome.success_with, s.outcome.success_base) for s in ran if s.outcome]
        metrics["success_with"] = mean([a for a, _ in both if a is not None])
        if any(b is not None for _, b in both):
            metrics["success_base"] = mean([b for _, b in both if b is not None])
            metrics["uplift"] = mean([a - b for a, b in both if a is not None and b is not None])
    scored = [s.outcome for s in ran if s.outcome and s.outcome.logprobs]
    if scored:  # nats per answer, before the reward clips them
        metrics["likelihood"] = mean([o.logprobs[0] for o in scored if o.logprobs])
        lifted = [o.logprobs[0] - o.logprobs[1] for o in scored if o.logprobs and o.logprobs[1] is not None]
        if lifted:
            metrics["likelihood_uplift"] = mean(lifted)
            metrics["likelihood_clipped"] = mean([float(abs(o.uplift) > 1) for o in scored if o.uplift is not None])
    programs = [s.outcome.judgement for s in ran if s.task.code is not None and s.outcome and s.outcome.judgement]
    if programs:
        metrics["pass_rate"] = mean([j.pass_rate for j in programs])
        metrics["visible_pass_rate"] = mean([j.visible_rate for j in programs if j.visible_rate is not None])
        for status in ("failed_test", "runtime_error", "timeout", "compile_error"):
            metrics[f"status/{status}"] = mean([float(j.status == status) for j in programs])
    judged = [s.rm for s in kept if s.rm is not None]
    if judged:
        metrics["rm_score"] = mean([r.total for r in judged])
        for d, name in enumerate(dimension_names):
            metrics[f"rm/{name}"] = mean([r.dimensions[d] for r in judged])
    if (validity := trace_validity(pairs)).n:
        metrics["trace_validity"] = validity.value
        metrics["wrong_reason_rate"] = wrong_reason_rate(pairs).value
    return metrics


def mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
