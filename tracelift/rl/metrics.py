"""Figures over a round's samples.

Left out: intervals and tests (tracelift/stats.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from tracelift.rl.sample import Sample


def group_metrics(groups: Sequence[Sequence[Sample]], dimension_names: Sequence[str]) -> dict[str, float]:
    """Means over a round's samples, ERROR samples left out of everything but their own count."""
    samples = [s for group in groups for s in group]
    kept = [s for s in samples if s.error is None]
    ran = [s for s in kept if s.outcome is not None]
    rewards = [s.reward for s in kept if s.reward is not None]
    spread = [len({round(s.reward, 9) for s in g if s.error is None and s.reward is not None}) <= 1 for g in groups]
    metrics = {
        "reward": mean(rewards),
        "reward_std": (mean([(r - mean(rewards)) ** 2 for r in rewards])) ** 0.5,
        "accuracy": mean([float(s.correct) for s in kept]),
        "format_failures": mean([float(s.trace is None) for s in samples]),
        "verdict_errors": mean([float(s.error is not None) for s in samples]),
        "zero_spread": mean([float(x) for x in spread]),
        "trace_tokens": mean([float(len(s.completion.tokens)) for s in samples]),
        "truncated": mean([float(s.completion.finish_reason == "length") for s in samples]),
        "leak_rate": mean([float(s.leaked) for s in kept]),
        "leak_unsupported_rate": mean([float(s.leaked_unsupported) for s in kept]),
        "distinct_traces": mean([len({s.text for s in g}) / len(g) for g in groups]),
    }
    if any(s.parts is not None and s.outcome and (s.outcome.runs or s.outcome.logprobs) for s in ran):
        metrics["success_with"] = mean([s.outcome.success_with for s in ran if s.outcome])
        metrics["success_base"] = mean([s.outcome.success_base for s in ran if s.outcome])
        metrics["uplift"] = metrics["success_with"] - metrics["success_base"]
    scored = [s.outcome for s in ran if s.outcome and s.outcome.logprobs]
    if scored:  # nats per answer, before the reward clips them
        metrics["likelihood_uplift"] = mean([o.logprobs[0] - o.logprobs[1] for o in scored])
        metrics["likelihood_clipped"] = mean([float(abs(o.uplift) > 1) for o in scored])
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
    known = [s for s in kept if s.valid is not None]
    if known:
        metrics["trace_validity"] = mean([float(bool(s.valid)) for s in known])
        right = [s for s in known if s.correct]
        metrics["wrong_reason_rate"] = mean([float(not s.valid) for s in right])
    return metrics


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
