"""Planner + executor on a fixed set of problems, greedy and sampled, with paired comparison of two evaluations.

Greedy: planner and executor both take the most likely token, one run a problem. Sampled: both at their training
temperatures. Every problem has the same keys in every evaluation, so two planners meet the same random numbers and can
be compared problem by problem. Left out: external benchmarks and pass@k (eval.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from tracelift.config import Config
from tracelift.executor.executor import Executor
from tracelift.reward_model.scorer import Scorer
from tracelift.rl.metrics import Share, accuracy, trace_validity, wrong_reason_rate
from tracelift.rl.rollout import PlannerPrompt, grade, sample_traces
from tracelift.rl.sample import Sample
from tracelift.sampler import Sampler, SamplingParams
from tracelift.stats import mcnemar_exact, wilson
from tracelift.tasks.task import Task

_EVALUATION = 1 << 40  # first element of every evaluation key: never a training round


def evaluate_planner(
    sampler: Sampler,
    prompt: PlannerPrompt,
    executor: Executor,
    scorer: Scorer | None,
    tasks: Sequence[tuple[int, Task]],
    config: Config,
    greedy: bool,
) -> list[Sample]:
    """One graded sample per (number, task); the number names the task's random draws, whichever rank works on it."""
    params = SamplingParams(
        n=1,
        max_new_tokens=config.planner.max_new_tokens,
        temperature=0.0 if greedy else config.planner.temperature,
        seed=config.run.seed,
        stop=tuple(config.planner.stop),
    )
    keys = [(_EVALUATION, number) for number, _ in tasks]
    groups = sample_traces(sampler, prompt, [t for _, t in tasks], params, keys, config.executor.max_trace_chars)
    # Success rates whatever the training's uplift, so that runs can be compared.
    settings = dataclasses.replace(executor.settings, uplift="sampled")
    if greedy:  # repeats of a greedy executor are the same run
        settings = dataclasses.replace(settings, temperature=0.0, repeats=1, baseline_repeats=1)
    full = dataclasses.replace(
        config, reward=dataclasses.replace(config.reward, mode="tracelift" if scorer else "uplift_only")
    )
    grade(groups, executor.variant(settings), scorer, full)
    return [group[0] for group in groups]


def summarise(samples: Sequence[Sample]) -> dict[str, dict[str, float | int]]:
    """Named figures, each {value, n} with a 95% Wilson interval where it is a share: {value, low, high, n}."""
    kept = [s for s in samples if s.error is None]
    ran = [s for s in kept if s.outcome is not None]
    pairs = [(s.correct, s.valid) for s in kept]
    out: dict[str, dict[str, float | int]] = {}

    def share(name: str, found: Share) -> None:
        if found.n:
            low, high = wilson(found.hits, found.n)
            out[name] = {"value": found.value, "low": low, "high": high, "n": found.n}

    def average(name: str, values: Sequence[float]) -> None:
        if values:
            m = sum(values) / len(values)
            half = 1.96 * (sum((v - m) ** 2 for v in values) / max(1, len(values) - 1) / len(values)) ** 0.5
            out[name] = {"value": m, "low": m - half, "high": m + half, "n": len(values)}

    share("accuracy", accuracy(pairs))
    average("baseline accuracy", [s.outcome.success_base for s in ran if s.outcome])
    average("uplift", [s.outcome.uplift for s in ran if s.outcome])
    programs = [s.outcome.judgement for s in ran if s.task.code is not None and s.outcome and s.outcome.judgement]
    average("hidden tests passed", [j.pass_rate for j in programs])
    average("visible tests passed", [j.visible_rate for j in programs if j.visible_rate is not None])
    average("RM score", [s.rm.total for s in kept if s.rm is not None])
    share("trace validity", trace_validity(pairs))
    share("wrong-reason rate", wrong_reason_rate(pairs))
    share("answer leaked", Share.of(s.leaked for s in kept))
    share("format failures", Share.of(s.trace is None for s in kept))
    average("trace tokens", [float(len(s.completion.tokens)) for s in kept])
    if len(kept) < len(samples):
        share("errors", Share.of(s.error is not None for s in samples))
    return out


def paired(before: Sequence[bool], after: Sequence[bool]) -> dict[str, Any]:
    """Exact two-sided McNemar test on the same problems."""
    gained = sum(b and not a for a, b in zip(before, after, strict=True))
    lost = sum(a and not b for a, b in zip(before, after, strict=True))
    return {
        "gained": gained,
        "lost": lost,
        "n": len(before),
        "points": 100 * (gained - lost) / max(1, len(before)),
        "p": mcnemar_exact(lost, gained),
    }
